"""A table of a paper is a file: ``reports/<paper>/<item>.toml`` says its rows, columns, protocol and printed numbers.

Published numbers stand in the file as the paper prints them (80.8 per cent, 0.722), trailing zeros included; a cell is
a number, or ``{ mean = 83.8, std = 0.34, dagger = true }``. A cell that is absent is one that the paper does not print.
``docs/tables.md`` describes all keys.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from harness.data import catalogue
from harness.data.schema import Frozen
from harness.errors import ConfigError
from harness.experiments import toml_lines
from harness.experiments.item_files import parsed
from harness.experiments.schemes import Scheme
from harness.experiments.table_files import files
from harness.registry import suggest
from harness.training.by_class import metrics
from harness.training.metrics import Metric

Kind = Literal["comparison", "ablation", "robustness"]


class Published(Frozen):
    """One printed number. ``mean`` and ``std`` keep the digits of the paper; per cent where the metric is a percentage."""

    mean: Decimal
    std: Decimal | None = Field(None, ge=0)
    dagger: bool = Field(False, description="the paper marks the number as significant")
    percent: bool = Field(False, description="set on load: the metric is a percentage")

    @property
    def value(self) -> float:
        """The mean in the metric's own unit: a fraction where it is a percentage."""
        return float(self.mean.scaleb(-2) if self.percent else self.mean)

    @property
    def deviation(self) -> float | None:
        """The standard deviation in the same unit as ``value``."""
        return None if self.std is None else float(self.std.scaleb(-2) if self.percent else self.std)


class Row(Frozen):
    """One model of the table."""

    name: str = Field(min_length=1)
    printed: str = Field("", description="the name in the paper, where it differs")
    method: str | None = Field(None, description="the registered method that measures this row; unset: cited only")
    config: dict[str, Any] = Field(default_factory=dict, description="settings of this row, dotted keys")
    modalities: tuple[Literal["text", "audio", "vision"], ...] | None = Field(None, description="unset: all that the data has")
    rerun: bool = Field(False, description="the paper's authors ran it themselves; else they cite it")
    citation: str = ""
    notes: str = ""
    trials: int = Field(0, ge=0, description="trials of the search that found this row's settings; 0: they are as published")
    published: dict[str, dict[str, Published]] = Field(default_factory=dict, description="data set -> metric -> printed number")

    @field_validator("config", mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        """Settings want floats; only printed numbers want their digits kept."""
        return _with_floats(value)


class Finding(Frozen):
    """Where the paper contradicts itself or leaves something open; printed under the table."""

    text: str = Field(min_length=1)
    datasets: tuple[str, ...] = Field((), description="empty: all data sets of the table")


class Hole(Frozen):
    """Cells that the paper prints but that the file cannot give."""

    rows: tuple[str, ...]
    metrics: tuple[str, ...]
    datasets: tuple[str, ...] = Field((), description="empty: all data sets of the table")
    reason: str = Field(min_length=1)


class TableSpec(Frozen):
    """A table of a paper; ``paper`` and ``item`` come from the file's place."""

    paper: str
    item: str
    title: str = Field(min_length=1)
    kind: Kind = Field("comparison", description="a data set as target selects comparisons alone")
    caption: str = ""
    citation: str = Field("", description="the paper")
    source: str = Field("", description="where in the paper, and how it was transcribed")
    datasets: tuple[str, ...] = Field(min_length=1)
    metrics: tuple[str, ...] = Field(min_length=1, description="canonical names, in the order of the columns")
    seeds: tuple[int, ...] = Field(min_length=1)
    heads: dict[str, str] = Field(default_factory=dict, description="metric -> head of its column, where the paper has another name")
    protocol: tuple[Scheme, ...] = Field((Scheme(),), min_length=1, description="a kind, a table of keys, or several side by side")
    reference: str | None = Field(None, description="row that others are tested against; unset or without runs: the best measured row")
    alpha: float = Field(0.05, gt=0, lt=1)
    floors: tuple[str, ...] = Field(("majority", "ridge"), description="methods that stand in every table, under their own names")
    rows: tuple[Row, ...] = Field(min_length=1)
    findings: tuple[Finding, ...] = ()
    holes: tuple[Hole, ...] = ()

    @field_validator("protocol", mode="before")
    @classmethod
    def _side_by_side(cls, value: Any) -> Any:
        """``"official"`` and ``{ kind = "official" }`` are lists of one."""
        one = {"kind": value} if isinstance(value, str) else value
        return [one] if isinstance(one, dict | Scheme) else one

    @property
    def name(self) -> str:
        """``paper/item``, as users type it."""
        return f"{self.paper}/{self.item}"

    def label(self, metric: str) -> str:
        """What the column of ``metric`` is called."""
        return self.heads.get(metric, metrics[metric].label)

    def row(self, name: str) -> Row | None:
        return next((row for row in self.rows if row.name == name), None)

    def findings_on(self, dataset: str) -> list[Finding]:
        return [finding for finding in self.findings if not finding.datasets or dataset in finding.datasets]

    def holes_in(self, dataset: str) -> list[Hole]:
        return [hole for hole in self.holes if not hole.datasets or dataset in hole.datasets]

    def prints(self, row: Row, dataset: str) -> bool:
        """Whether the paper has a number of ``row`` on ``dataset``, be it one that the file cannot give. Tuned rows are never printed."""
        lost = any(row.name in hole.rows for hole in self.holes_in(dataset))
        return not row.trials and (bool(row.published.get(dataset)) or lost)

    def prints_any(self, dataset: str) -> bool:
        return any(self.prints(row, dataset) for row in self.rows)


def only(specs: Sequence[TableSpec], methods: Sequence[str]) -> list[TableSpec]:
    """``specs`` with rows measured by ``methods`` alone; the others stand as cited, and a note says that they were left out.

    Floors stand in any case. ConfigError for a name that measures no row of any of them.
    """
    known = {name for spec in specs for name in (*(row.method for row in spec.rows), *spec.floors) if name}
    for name in methods:
        if name not in known:
            tables = ", ".join(spec.name for spec in specs)
            raise ConfigError(f"--methods {name}: no row of {tables} is measured by it", suggest(name, known))
    why = "Left out of this run by --methods"
    return [cited(spec, [row.name for row in spec.rows if row.method and row.method not in methods], why) for spec in specs]


def present(spec: TableSpec, modalities: Collection[str], data: str) -> TableSpec:
    """``spec`` without measuring the rows that ask for modalities beyond those of the stored set ``data``; a note names them."""
    lacking = [row.name for row in spec.rows if row.method and set(row.modalities or ()) - set(modalities)]
    return cited(spec, lacking, f"Not run, since {data} has {', '.join(modalities)} only")


def cited(spec: TableSpec, rows: Sequence[str], why: str) -> TableSpec:
    """``spec`` where ``rows`` stand with their published numbers alone, and a note that says why."""
    if not rows:
        return spec
    changed = tuple(row.model_copy(update={"method": None}) if row.name in rows else row for row in spec.rows)
    note = Finding(text=f"{why}: {', '.join(rows)}.")
    return spec.model_copy(update={"rows": changed, "findings": (*spec.findings, note)})


def items() -> list[tuple[str, str]]:
    """(paper, item) of every table file, sorted."""
    return list(files())


def select(target: str) -> list[tuple[TableSpec, tuple[str, ...]]]:
    """The tables that ``target`` names, each with the data sets to render it for.

    ``iidaf``: all items of a paper; ``iidaf/t3``: one item; ``mosi``: the comparisons with that data set, for it alone; their
    ablations and robustness tables are selected by paper or item. Raises ConfigError for anything else, with the nearest name.
    """
    known = items()
    if "/" in target:
        paper, _, item = target.partition("/")
        spec = load(paper, item)
        return [(spec, spec.datasets)]
    if target in {paper for paper, _ in known}:
        return [(spec, spec.datasets) for spec in (load(*place) for place in known if place[0] == target)]
    specs = [load(*place) for place in known]
    having = [spec for spec in specs if target in spec.datasets]
    if not having:
        places = [*known, *files("cost")]
        targets = {*(paper for paper, _ in places), *map("/".join, places), *(name for spec in specs for name in spec.datasets)}
        raise ConfigError(f"there is no paper, table or data set with tables called '{target}'", suggest(target, targets))
    comparisons = [spec for spec in having if spec.kind == "comparison"]
    if not comparisons:
        named = ", ".join(spec.name for spec in having)
        raise ConfigError(
            f"no table that compares models has the data set '{target}': a data set selects comparisons alone",
            f"Name an item that has it ({named}), or a paper for all of its items.",
        )
    return [(spec, (target,)) for spec in comparisons]


# ---- reading one file


def load(paper: str, item: str) -> TableSpec:
    """The table ``reports/<paper>/<item>.toml``; ConfigError naming file, key and value where it is not valid."""
    known = files()
    if (paper, item) not in known:
        names = map("/".join, [*known, *files("cost")])
        raise ConfigError(f"there is no table called '{paper}/{item}'", suggest(f"{paper}/{item}", names))
    return read(known[paper, item])


def read(path: Path) -> TableSpec:
    """The table in the file ``path``, checked; see ``load``."""
    text, content = parsed(path)
    place = {"paper": path.parent.name, "item": path.stem}
    for key in place.keys() & content.keys():
        where = toml_lines.at(path, text, (key,))
        raise ConfigError(f"{where}: {key} = {content[key]!r} is not a key of a table file", "It follows from the file's place: remove it.")
    try:
        spec = TableSpec.model_validate({**_expand(content), **place})
    except ValidationError as error:
        found = toml_lines.faults(path, text, error, _keys)
        raise ConfigError(found, f"Keys of a table: {', '.join(_keys(()))}. See docs/tables.md.") from None
    _Check(path, text, spec).all()
    return _with_units(spec)


def _with_units(spec: TableSpec) -> TableSpec:
    """``spec`` with every published number knowing whether it is a percentage."""
    rows = tuple(row.model_copy(update={"published": _units(row.published)}) for row in spec.rows)
    return spec.model_copy(update={"rows": rows})


def _units(published: dict[str, dict[str, Published]]) -> dict[str, dict[str, Published]]:
    return {
        dataset: {name: cell.model_copy(update={"percent": metrics[name].percent}) for name, cell in cells.items()}
        for dataset, cells in published.items()
    }


def _expand(content: dict[str, Any]) -> dict[str, Any]:
    """Cells that are bare numbers as ``{mean = ...}``; whatever has another shape is left to the validation."""
    rows = content.get("rows")
    return {**content, "rows": [_expand_row(row) for row in rows]} if isinstance(rows, list) else content


def _expand_row(row: Any) -> Any:
    if not isinstance(row, dict) or not isinstance(row.get("published"), dict):
        return row
    expanded = {dataset: _expand_cells(cells) for dataset, cells in row["published"].items()}
    return {**row, "published": expanded}


def _expand_cells(cells: Any) -> Any:
    if not isinstance(cells, dict):
        return cells
    return {name: {"mean": cell} if isinstance(cell, Decimal | int) else cell for name, cell in cells.items()}


def _with_floats(value: Any) -> Any:
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, dict):
        return {key: _with_floats(inner) for key, inner in value.items()}
    return [_with_floats(inner) for inner in value] if isinstance(value, list) else value


def _keys(place: toml_lines.Place) -> list[str]:
    """The keys of the table at ``place``."""
    kinds: dict[str, type[Frozen]] = {"rows": Row, "findings": Finding, "holes": Hole, "protocol": Scheme}
    kind = Published if "published" in place else kinds.get(str(place[0]), TableSpec) if place else TableSpec
    return [name for name in kind.model_fields if name not in ("paper", "item", "percent")]


class _Check:
    """What the types cannot say: names that exist, numbers in their range, nothing twice."""

    def __init__(self, path: Path, text: str, spec: TableSpec) -> None:
        self.path, self.text, self.spec = path, text, spec
        self.names = [row.name for row in spec.rows]

    def all(self) -> None:
        spec = self.spec
        self.known("datasets", spec.datasets, catalogue.known(), "data set")
        self.known("metrics", spec.metrics, metrics, "metric")
        for key, values in {"datasets": spec.datasets, "metrics": spec.metrics, "seeds": spec.seeds, "floors": spec.floors}.items():
            self.once(key, values)
        self.once("rows.name", [*self.names, *spec.floors])
        self.known("heads", spec.heads, spec.metrics, "metric of this table")
        self.once("heads", spec.heads.values())
        self.once("protocol.name", [scheme.label for scheme in spec.protocol])
        for scheme in spec.protocol:
            self.scheme(scheme)
        self.known("reference", [spec.reference] if spec.reference else [], self.names, "row")
        for row in spec.rows:
            self.row(row)
        for finding in spec.findings:
            self.known("findings.datasets", finding.datasets, spec.datasets, "data set of this table")
        for hole in spec.holes:
            self.hole(hole)

    def fail(self, key: str, value: object, why: str, fix: str = "") -> None:
        where = toml_lines.at(self.path, self.text, self.place(key, value), value)
        raise ConfigError(f"{where}: {key} = {value!r}: {why}", fix)

    def place(self, key: str, value: object) -> toml_lines.Place:
        """Where the fault stands in the file: ``rows 'A'.published.mosi`` by the row's number; of two equal ones the last."""
        if named := re.fullmatch(r"rows '(.*)'\.(.*)", key, re.DOTALL):
            return ("rows", self.names.index(named[1]), *named[2].split("."))
        if key == "rows.name":
            return ("rows", len(self.names) - 1 - self.names[::-1].index(str(value)), "name")
        first, *rest = key.split(".")
        if first in ("holes", "findings"):
            parts = [str(part.model_dump()) for part in getattr(self.spec, first)]
            return (first, next((i for i, part in enumerate(parts) if repr(value) in part), 0), *rest)
        return (first,) if first == "protocol" else (first, *rest)

    def known(self, key: str, values: Iterable[str], allowed: Iterable[str], kind: str) -> None:
        allowed = list(allowed)
        for value in values:
            if value not in allowed:
                self.fail(key, value, f"there is no such {kind}", suggest(value, allowed))

    def once(self, key: str, values: Iterable[object]) -> None:
        for value, count in Counter(values).items():
            if count > 1:
                self.fail(key, value, "stands there twice", "Remove one, or rename it (a row cannot have the name of a floor).")

    def scheme(self, scheme: Scheme) -> None:
        try:
            scheme.cuts()
        except ConfigError as error:
            self.fail(
                "protocol", scheme.described, error.problem, "Keys: kind, name, folds, repeats, groups, validation; see docs/tables.md."
            )
        same = [other.label for other in self.spec.protocol if other.cuts() == scheme.cuts()]
        if len(same) > 1:
            self.fail("protocol", " and ".join(same), "these are the same cuts of the data", "Remove one.")

    def row(self, row: Row) -> None:
        key = f"rows '{row.name}'.published"
        self.once(f"rows '{row.name}'.modalities", row.modalities or ())
        self.known(key, row.published, self.spec.datasets, "data set of this table")
        for dataset, cells in row.published.items():
            self.known(f"{key}.{dataset}", cells, self.spec.metrics, "metric of this table")
            for name, cell in cells.items():
                self.range(f"{key}.{dataset}.{name}", metrics[name], cell.mean)

    def range(self, key: str, metric: Metric, value: Decimal) -> None:
        """Percentages lie in [0, 100], correlations in [-1, 1], errors are not negative."""
        low, high = {"corr": (-1, 1), "mae": (0, None)}.get(metric.name, (0, 100 if metric.percent else None))
        if not value.is_finite() or value < low or (high is not None and value > high):
            self.fail(key, str(value), f"out of range: {low} to {'any' if high is None else high}", "Write it as the paper prints it.")
        if metric.percent and 0 < value < 1:
            self.fail(key, str(value), "looks like a fraction", f"Write percentages as printed: {value.scaleb(2).normalize():f}.")

    def hole(self, hole: Hole) -> None:
        self.known("holes.rows", hole.rows, self.names, "row")
        self.known("holes.metrics", hole.metrics, self.spec.metrics, "metric of this table")
        self.known("holes.datasets", hole.datasets, self.spec.datasets, "data set of this table")
        for row in (row for row in self.spec.rows if row.name in hole.rows):
            for dataset in hole.datasets or self.spec.datasets:
                for name in set(hole.metrics) & row.published.get(dataset, {}).keys():
                    self.fail("holes", f"{row.name}, {dataset}, {name}", "the table has a number there", "Remove the number or the hole.")
