"""Figures of a paper: ``reports/<paper>/<item>.toml`` with ``kind = "figure"``, drawn from the runs of one row of its tables.

``shows = "confusion"`` is drawn from records. What a model holds inside (``features``, ``gates``, ``spatial`` and ``temporal``
adjacency, ``splines``) is no record's: the row's first run is trained again for it.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from harness.data.schema import Frozen
from harness.errors import ConfigError
from harness.experiments import papers, toml_lines
from harness.experiments.papers import Finding, TableSpec
from harness.experiments.table_files import files

Shows = Literal["confusion", "features", "gates", "spatial", "temporal", "splines"]


class FigureSpec(Frozen):
    """A figure; ``paper`` and ``item`` come from the file's place."""

    paper: str
    item: str
    kind: Literal["figure"]
    title: str = Field(min_length=1)
    caption: str = ""
    citation: str = ""
    source: str = ""
    shows: Shows
    tables: tuple[str, ...] = Field(min_length=1, description="items of this paper whose row it is drawn of")
    row: str = Field(min_length=1, description="name of the row, in each of these tables")
    datasets: tuple[str, ...] = Field((), description="empty: all data sets of these tables")
    findings: tuple[Finding, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.paper}/{self.item}"

    @property
    def trains(self) -> bool:
        """Whether a model has to be trained again for it."""
        return self.shows != "confusion"


def items() -> list[tuple[str, str]]:
    """(paper, item) of every figure, sorted."""
    return list(files("figure"))


def is_item(target: str) -> bool:
    """Whether ``target`` is a figure: ``iidaf/f4``."""
    return tuple(target.split("/")) in items()


def of(target: str) -> list[FigureSpec]:
    """The figures that ``target``, an item or a paper, names; none for anything else."""
    return [read(path) for (paper, item), path in files("figure").items() if target in (paper, f"{paper}/{item}")]


def read(path: Path) -> FigureSpec:
    """The figure in the file ``path``; ConfigError naming file, line, key and value where it is not valid."""
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", "Mend it, or remove it.") from None
    try:
        return FigureSpec.model_validate({**content, "paper": path.parent.name, "item": path.stem})
    except ValidationError as error:
        raise ConfigError(toml_lines.faults(path, text, error, _keys), f"Keys of a figure: {', '.join(_keys(()))}.") from None


def tables_of(spec: FigureSpec) -> list[tuple[TableSpec, tuple[str, ...]]]:
    """The tables that it is drawn from, each with its data sets. ConfigError where one of them, its row or a data set is missing."""
    found = [papers.load(spec.paper, item) for item in spec.tables]
    for table in found:
        row = table.row(spec.row)
        if row is None or row.method is None:
            raise ConfigError(f"{spec.name}: {table.name} has no row '{spec.row}' with a method", "Mend `row` or `tables`.")
    known = {name for table in found for name in table.datasets}
    if unknown := set(spec.datasets) - known:
        raise ConfigError(
            f"{spec.name}: datasets {', '.join(sorted(unknown))}: none of {', '.join(spec.tables)} has them", "Mend `datasets`."
        )
    chosen = [(table, tuple(name for name in table.datasets if not spec.datasets or name in spec.datasets)) for table in found]
    return [(table, datasets) for table, datasets in chosen if datasets]


def _keys(place: toml_lines.Place) -> list[str]:
    kind: type[Frozen] = Finding if place else FigureSpec
    return [name for name in kind.model_fields if name not in ("paper", "item")]
