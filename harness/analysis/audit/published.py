"""Published numbers as data: one TOML file per source in ``published/``, digits kept as they are printed.

A file holds tables, what the text says of their numbers (claims), counts that the text states, and notes. Notes are what a
reader saw; no check touches them, and they are printed apart from what is computed.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from importlib.resources import files
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from harness.errors import ConfigError
from harness.registry import suggest

LOWER_IS_BETTER = ("mae", "parameters", "flops", "latency")
PRINTED = re.compile(r"^(-?\d+(?:\.\d+)?)(?:±(\d+(?:\.\d+)?))?(†?)$")


class Strict(BaseModel):
    """Base of what is read from TOML. The schema of the data module would import PyTorch, which takes longer than an audit."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Reading(Strict):
    """One way in which an accuracy may have come about."""

    what: str = Field(min_length=1)
    n: int | None = Field(None, ge=1, description="clips; unset: those of the data set's test split")
    runs: int = Field(1, ge=1, description="runs whose mean is printed")
    folds: int = Field(0, ge=0, description="folds of ``n`` clips whose mean is printed; 0: none")
    by_class: bool = Field(False, description="``metric@class`` counts the clips of that class only")
    run_decimals: int | None = Field(None, ge=1, description="decimals (of the fraction) to which each run was rounded before the mean")
    stated: bool = Field(False, description="the source states it; else it is the audit's assumption, and nothing follows but a remark")


class Significance(Strict):
    """Which row's marks of significance refer to which other row."""

    row: str
    against: str
    alpha: float = Field(0.05, gt=0, lt=1)


class Table(Strict):
    """A printed table on one data set. ``rows``: the name, then one printed cell per column ("-": nothing)."""

    item: str
    data: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    own: tuple[str, ...] | None = Field(None, description="rows to which ``protocol`` applies; unset: all; the others are cited")
    same: dict[str, str] = Field(default_factory=dict, description="row -> the system that it is")
    full: str | None = Field(None, description="row of the full model in an ablation")
    variants: tuple[str, ...] | None = Field(None, description="its ablations; unset: all other rows")
    hundredfold: tuple[str, ...] = Field((), description="columns printed times 100")
    protocol: Reading | None = None
    readings: tuple[Reading, ...] = Field((), description="other protocols under which the accuracies are tried")
    significance: Significance | None = None

    @model_validator(mode="after")
    def _whole(self) -> Table:
        names = [row[0] for row in self.rows]
        named = [*(self.own or ()), *self.same, *(self.variants or ()), *([self.full] if self.full else [])]
        if self.significance:
            named += [self.significance.row, self.significance.against]
        for row in self.rows:
            if len(row) != len(self.columns) + 1:
                raise ValueError(f"row '{row[0]}' has {len(row) - 1} cells for {len(self.columns)} columns")
            for text in row[1:]:
                if text != "-" and not PRINTED.match(text):
                    raise ValueError(f"row '{row[0]}': '{text}' is not a printed number")
        for name in named:
            if name not in names:
                raise ValueError(f"there is no row '{name}'")
        if len(set(names)) < len(names):
            raise ValueError("two rows have one name")
        return self


class Claim(Strict):
    """What the text says of cells: ``of`` and ``against`` are ``table/data/row/column``."""

    where: str
    quote: str = Field(description="what the text says, in English")
    kind: Literal["change", "difference", "value", "best", "rise", "fall", "significant", "p_value"]
    of: str | tuple[str, ...]
    against: str | None = None
    stated: Decimal | None = None
    runs: int | None = None
    alpha: float | None = None


class Count(Strict):
    """A number of clips, videos or actors that the text states, beside the ``data set.fact`` it should equal."""

    where: str
    what: str
    parts: tuple[int, ...] = ()
    stated: int | tuple[int, ...] | None = None
    fact: str
    version: str = Field("", description="set: another number belongs to another version of the data, and is a remark")


class Note(Strict):
    """What a reader saw and no check computes."""

    where: str
    text: str


@dataclass(frozen=True)
class Cell:
    """One printed number. ``key`` is its place: source, table, data set, row, column."""

    key: tuple[str, str, str, str, str]
    system: str
    mean: Decimal
    std: Decimal | None
    dagger: bool
    own: bool
    scale: int

    @property
    def table(self) -> str:
        return self.key[1]

    @property
    def data(self) -> str:
        return self.key[2]

    @property
    def row(self) -> str:
        return self.key[3]

    @property
    def metric(self) -> str:
        """``accuracy`` of ``accuracy@happy``."""
        return self.key[4].partition("@")[0]

    @property
    def label(self) -> str:
        """``happy`` of ``accuracy@happy``; else empty."""
        return self.key[4].partition("@")[2]

    @property
    def lower_is_better(self) -> bool:
        return self.metric in LOWER_IS_BETTER

    @cached_property
    def bounds(self) -> tuple[Fraction, Fraction]:
        """The least and the greatest unrounded mean, in the metric's own unit."""
        return _interval(self.mean, self.scale)

    @cached_property
    def std_bounds(self) -> tuple[Fraction, Fraction]:
        """The least and the greatest unrounded standard deviation."""
        assert self.std is not None
        low, high = _interval(self.std, self.scale)
        return max(low, Fraction(0)), high

    def __str__(self) -> str:
        deviation = "" if self.std is None else f" ± {self.std}"
        return f"{self.key[4]} {self.mean}{deviation}"


@dataclass(frozen=True)
class Source:
    """A paper or a result page."""

    name: str
    title: str
    citation: str
    tables: tuple[Table, ...]
    claims: tuple[Claim, ...]
    counts: tuple[Count, ...]
    notes: tuple[Note, ...]

    @cached_property
    def cells(self) -> dict[tuple[str, str, str, str, str], Cell]:
        """Every printed number by its place."""
        return {cell.key: cell for table in self.tables for cell in _cells(self.name, table)}

    @cached_property
    def _rows(self) -> dict[tuple[str, str, str], dict[str, Cell]]:
        rows: dict[tuple[str, str, str], dict[str, Cell]] = {}
        for cell in self.cells.values():
            rows.setdefault((cell.table, cell.data, cell.row), {})[cell.key[4]] = cell
        return rows

    def of(self, table: Table) -> list[Cell]:
        """The printed numbers of one table, row by row."""
        return [cell for name, *_ in table.rows for cell in self.row(table, name).values()]

    def row(self, table: Table, name: str) -> dict[str, Cell]:
        """Column -> printed number of one row."""
        return self._rows.get((table.item, table.data, name), {})

    def at(self, place: str) -> Cell:
        """The cell at ``table/data/row/column``; a row's name may itself hold a slash."""
        table, data, *row, column = place.split("/")
        key = (self.name, table, data, "/".join(row), column)
        if key not in self.cells:
            raise ConfigError(f"{self.name}: there is no printed number at '{place}'", "Write table/data/row/column.")
        return self.cells[key]


def names() -> list[str]:
    """All sources, sorted."""
    return sorted(
        entry.name.removesuffix(".toml") for entry in (files(__package__) / "published").iterdir() if entry.name.endswith(".toml")
    )


def load(name: str) -> Source:
    """The source ``name``; ConfigError where there is none, or where its file is not valid."""
    if name not in names():
        raise ConfigError(f"there is nothing published by '{name}' to audit", suggest(name, names()))
    return parse(name, (files(__package__) / "published" / f"{name}.toml").read_text(encoding="utf-8"))


def parse(name: str, text: str) -> Source:
    """The source that ``text`` (TOML) describes."""
    content: dict[str, Any] = tomllib.loads(text)
    try:
        return Source(
            name=name,
            title=content["title"],
            citation=content.get("citation", ""),
            tables=tuple(map(Table.model_validate, content.get("tables", []))),
            claims=tuple(map(Claim.model_validate, content.get("claims", []))),
            counts=tuple(map(Count.model_validate, content.get("counts", []))),
            notes=tuple(map(Note.model_validate, content.get("notes", []))),
        )
    except (KeyError, ValidationError) as error:
        raise ConfigError(f"published/{name}.toml is not valid: {error}", "Mend it.") from None


def _cells(source: str, table: Table) -> list[Cell]:
    cells = []
    for row, *printed in table.rows:
        for column, text in zip(table.columns, printed, strict=True):
            match = PRINTED.match(text)
            if match:
                mean, std, dagger = match.groups()
                cells.append(
                    Cell(
                        key=(source, table.item, table.data, row, column),
                        system=table.same.get(row, row),
                        mean=Decimal(mean),
                        std=None if std is None else Decimal(std),
                        dagger=bool(dagger),
                        own=table.own is None or row in table.own,
                        scale=100 if column in table.hundredfold else 1,
                    )
                )
    return cells


def decimals(value: Decimal) -> int:
    """Printed digits after the point."""
    return max(-int(value.as_tuple().exponent), 0)


def _interval(value: Decimal, scale: int) -> tuple[Fraction, Fraction]:
    half = Fraction(1, 2 * 10 ** decimals(value))
    return (Fraction(value) - half) / scale, (Fraction(value) + half) / scale
