"""What the page knows of one rendered table: plain text and numbers, stored as JSON beside the tables.

Nothing here imports PyTorch: the page is made from these files alone, without records, methods or data.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from harness.files import read_sealed, write_sealed

Outcome = Literal["reproduced", "better", "worse", "not comparable", "open", ""]


class Part(BaseModel):
    """Immutable; unknown keys are errors, so that a file of another version is not taken for one of this."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Shown(Part):
    """A number as the tables show it, and as it sorts."""

    text: str
    spread: str = ""
    mark: Literal["", "best", "second"] = ""
    dagger: bool = False
    value: float | None = None


class CellPart(Part):
    """Published and measured number of one cell, None where the line is missing; ``outcome`` "" where nothing is printed."""

    published: Shown | None = None
    measured: Shown | None = None
    difference: str = ""
    gap: float | None = None
    outcome: Outcome = ""
    reason: str = ""
    test: str = ""


class RunPart(Part):
    """One planned run: what became of it, its values as shown in the order of the columns, where its record lies."""

    key: str
    unit: str
    state: Literal["finished", "failed", "not run"]
    fault: str = ""
    values: tuple[str, ...] = ()
    best_epoch: int | None = None
    epochs: int | None = None
    seconds: float | None = None
    mlflow: str = ""


class RowPart(Part):
    """One model of the table."""

    name: str
    floor: bool = False
    published: str = ""
    reference: bool = False
    finished: int | None = None
    expected: int | None = None
    parameters: int | None = None
    about: str = ""
    cells: tuple[CellPart, ...]
    runs: tuple[RunPart, ...] = ()


class ColumnPart(Part):
    """``counted``: its numbers depend on no data, so that they are none of simulated clips."""

    name: str
    label: str
    header: str
    higher_is_better: bool
    counted: bool = False


class NotePart(Part):
    heading: str
    items: tuple[str, ...]


class FigurePart(Part):
    """A figure: its files below the results folder, without their ending, and the endings that were written."""

    stem: str
    title: str
    text: str
    formats: tuple[str, ...] = ("svg",)


class AuditPart(Part):
    """What an audit of a paper's printed numbers found, by check, and what a reader noted; items are place and text."""

    printed: int
    checked: int
    findings: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = ()
    notes: tuple[tuple[str, str], ...] = ()

    @property
    def count(self) -> int:
        return sum(len(items) for _, items in self.findings)


class FigureItemPart(Part):
    """A figure of a paper on one stored data set; ``missing`` says why it is not drawn, and what draws it."""

    content: str = ""
    paper: str
    item: str
    title: str
    caption: str = ""
    citation: str = ""
    dataset: str
    data: str
    data_title: str
    simulated: bool
    drawn_from: str = ""
    findings: tuple[str, ...] = ()
    figures: tuple[FigurePart, ...] = ()
    missing: str = ""

    @property
    def name(self) -> str:
        return f"{self.paper}_{self.item}_{self.data}".replace("@", "-")


class PaperPart(Part):
    """What belongs to a paper and to none of its tables alone. ``items``: its figures, filled in from their own files."""

    content: str = ""
    items: tuple[FigureItemPart, ...] = ()
    figures: tuple[FigurePart, ...] = ()
    audit: AuditPart | None = None


class EnvironmentPart(Part):
    """Where records of a table were made: what is known of the machine and the code, and how many records."""

    facts: dict[str, str]
    records: int


class TablePart(Part):
    """One table of one paper on one stored data set under one protocol. ``content``: the state of all that it was made from.

    ``protocol``: which one, where the table has several side by side; ``block``: its place among them, from 1.
    """

    format: Literal[1] = 1
    content: str = ""
    paper: str
    item: str
    title: str
    caption: str
    legend: str
    citation: str
    dataset: str
    data: str
    data_title: str
    simulated: bool
    protocol: str = ""
    block: int = 1
    budget: str
    reference: str
    columns: tuple[ColumnPart, ...]
    rows: tuple[RowPart, ...]
    comparison_heads: tuple[str, ...] = ()
    comparisons: tuple[tuple[str, ...], ...] = ()
    compared: str = ""
    notes: tuple[NotePart, ...] = ()
    sentences: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    figures: tuple[FigurePart, ...] = ()
    no_figures: str = ""
    environments: tuple[EnvironmentPart, ...] = ()
    fingerprint: str = ""
    latest: str = ""
    files: tuple[str, ...] = ()
    console: str = ""

    @property
    def name(self) -> str:
        stem = f"{self.paper}_{self.item}_{self.data}".replace("@", "-")
        return stem if self.block == 1 else f"{stem}--{self.block}"


Stored = TypeVar("Stored", bound=Part)


def read(path: Path, kind: type[Stored]) -> Stored | None:
    """The stored part, or None where there is none that this version can read, or it was changed since."""
    try:
        return kind.model_validate_json(read_sealed(path))
    except (OSError, ValueError):
        return None


def write(path: Path, part: Part) -> None:
    """Store ``part``, whole or not at all. OSError on a full disk."""
    write_sealed(path, part.model_dump_json().encode())


def folder(root: Path) -> Path:
    """Where the parts lie in the results folder ``root``."""
    return root / "page"


def read_all(root: Path) -> list[TablePart]:
    """The parts of all tables in the results folder ``root``, by paper, item, data and protocol."""
    parts = [part for path in sorted(folder(root).glob("*.json")) if (part := read(path, TablePart))]
    return sorted(parts, key=lambda part: (part.paper, _natural(part.item), part.dataset, part.data, part.block))


def read_papers(root: Path) -> dict[str, PaperPart]:
    """Each paper's audit, figures over several tables, and figures of its own."""
    found = {path.stem: part for path in sorted((folder(root) / "papers").glob("*.json")) if (part := read(path, PaperPart))}
    return with_items(found, root)


def with_items(papers: Mapping[str, PaperPart], root: Path) -> dict[str, PaperPart]:
    """``papers`` with their figures as they lie on disk."""
    drawn = read_figures(root)
    names = dict.fromkeys([*papers, *(part.paper for part in drawn)])
    items = {name: tuple(part for part in drawn if part.paper == name) for name in names}
    return {name: papers.get(name, PaperPart()).model_copy(update={"items": items[name]}) for name in names}


def read_figures(root: Path) -> list[FigureItemPart]:
    """The parts of all papers' figures, by paper, item and data."""
    parts = [part for path in sorted((folder(root) / "figures").glob("*.json")) if (part := read(path, FigureItemPart))]
    return sorted(parts, key=lambda part: (part.paper, _natural(part.item), part.data))


def _natural(item: str) -> tuple[str, int, str]:
    """``t10`` after ``t9``."""
    letters = item.rstrip("0123456789")
    number = item[len(letters) :]
    return letters, int(number) if number else -1, item
