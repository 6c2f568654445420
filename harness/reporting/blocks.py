"""Several protocols side by side: every row's measured lines, one per protocol, and what they differ by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from harness.experiments.papers import TableSpec
from harness.experiments.schemes import Scheme
from harness.experiments.trials import Trial
from harness.reporting.layout import ABSENT, Cell, Line, build_lines, number
from harness.reporting.texts import Told
from harness.training.metrics import metrics

Plan = Mapping[str, Sequence[Trial]]


def plan_under(plan: Plan, scheme: Scheme) -> dict[str, list[Trial]]:
    """The trials of ``plan`` on the cuts of ``scheme``; rows without any are left out."""
    cuts = set(scheme.cuts())
    found = {row: [trial for trial in trials if trial.identity.fold in cuts] for row, trials in plan.items()}
    return {row: trials for row, trials in found.items() if trials}


def table_lines(told: Told) -> tuple[Line, ...]:
    """All lines of a table: a row's published numbers, its measured ones under each protocol, then the differences.

    A difference is a mean under a later protocol minus the mean under the first one, of rows complete under both: the
    same model on other cuts of the same clips. No test is made of it.
    """
    if not told.others:
        return build_lines(told.spec, told.dataset, told.measured, told.family)
    blocks: list[dict[tuple[str, str], Line]] = [{(line.row, line.kind): line for line in _block(one)} for one in told.blocks]
    rows = dict.fromkeys(row for block in blocks for row, _ in block)
    rows = dict.fromkeys([*(row.name for row in told.spec.rows), *rows])
    return tuple(line for row in rows for line in _row(told.spec, row, blocks))


def _block(told: Told) -> tuple[Line, ...]:
    return build_lines(told.spec, told.dataset, told.measured, told.family, told.scheme.label)


def _row(spec: TableSpec, row: str, blocks: Sequence[Mapping[tuple[str, str], Line]]) -> Iterator[Line]:
    if (row, "published") in blocks[0]:
        yield blocks[0][row, "published"]
    measured = [block[row, "measured"] for block in blocks if (row, "measured") in block]
    yield from measured
    yield from (_difference(spec, measured[0], later) for later in measured[1:])


def _difference(spec: TableSpec, first: Line, later: Line) -> Line:
    both = first.ranked and later.ranked
    pairs = zip(spec.metrics, first.cells, later.cells, strict=True)
    cells = tuple(_minus(name, b, a) if both else Cell(ABSENT) for name, a, b in pairs)
    named = f"{later.protocol} minus {first.protocol}"
    return Line(first.row, "difference", f"difference, {named}", cells, ranked=False, protocol=named)


def _minus(name: str, a: Cell, b: Cell) -> Cell:
    if a.value is None or b.value is None:
        return Cell(ABSENT)
    value = a.value - b.value
    return Cell(number(value, metrics[name], sign=True), value=value)
