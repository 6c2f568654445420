"""What a check returns: how many printed numbers it looked at, what it found, with what power."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from harness.analysis.audit.published import Cell

Key = tuple[str, ...]


@dataclass(frozen=True)
class Finding:
    """Printed numbers that cannot be, or that do not agree with each other; ``where`` is their place in the source."""

    where: str
    text: str


@dataclass(frozen=True)
class Result:
    """The outcome of one check on one source.

    ``cells``: places of the printed numbers it looked at; ``checked`` counts comparisons where they are not cells (counts).
    ``power``: what the check could have seen, in words. ``remarks``: computed, but no contradiction.
    """

    check: str
    cells: frozenset[Key] = frozenset()
    findings: tuple[Finding, ...] = ()
    remarks: tuple[Finding, ...] = ()
    power: str = ""
    checked: int | None = None

    @property
    def count(self) -> int:
        return len(self.cells) if self.checked is None else self.checked


@dataclass
class Collector:
    """Gathers one check's outcome."""

    check: str
    power: str = ""
    cells: set[Key] = field(default_factory=set)
    findings: list[Finding] = field(default_factory=list)
    remarks: list[Finding] = field(default_factory=list)
    checked: int | None = None

    def saw(self, cells: Iterable[Cell]) -> None:
        self.cells |= {cell.key for cell in cells}

    def find(self, where: str, text: str) -> None:
        self.findings.append(Finding(where, text))

    def remark(self, where: str, text: str) -> None:
        self.remarks.append(Finding(where, text))

    def result(self) -> Result:
        return Result(self.check, frozenset(self.cells), tuple(self.findings), tuple(self.remarks), self.power, self.checked)


def grouped(cells: Iterable[Cell], *parts: str) -> Iterator[tuple[tuple[str, ...], list[Cell]]]:
    """Cells by the values of these attributes, in order of first appearance."""
    groups: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        groups.setdefault(tuple(getattr(cell, part) for part in parts), []).append(cell)
    yield from groups.items()


def listed(items: Iterable[object]) -> str:
    """``a, b and c``."""
    *most, last = map(str, items)
    return f"{', '.join(most)} and {last}" if most else last
