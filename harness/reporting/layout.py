"""What a table shows, before any markup: lines of cells, marked and labelled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from math import isnan
from typing import Literal

from harness.experiments.papers import Published, Row, TableSpec
from harness.reporting.collect import Measured
from harness.reporting.compare import Family, Tested
from harness.training.metrics import Metric, metrics

Mark = Literal["", "best", "second"]
Kind = Literal["published", "measured", "difference"]

ABSENT = "–"
LOST = "?"
UNDEFINED = "n/a"


@dataclass(frozen=True)
class Cell:
    """One number as shown, ``spread`` its standard deviation; or a sign for why there is none."""

    text: str
    spread: str = ""
    mark: Mark = ""
    dagger: bool = False
    value: float | None = None
    deviation: float | None = None

    @property
    def shown(self) -> Decimal | None:
        """The number to the digits shown: numbers that look equal are equal."""
        return None if self.value is None else Decimal(self.text)


@dataclass(frozen=True)
class Line:
    """One line of the table: the published or the measured numbers of one row, or what two protocols differ by.

    ``protocol``: under which protocol it was measured, or which two it is the difference of.
    """

    row: str
    kind: Kind
    label: str
    cells: tuple[Cell, ...]
    finished: int | None = None
    expected: int | None = None
    ranked: bool = True
    protocol: str = ""


def build_lines(spec: TableSpec, dataset: str, measured: Mapping[str, Measured], family: Family, protocol: str = "") -> tuple[Line, ...]:
    """The lines in the order of the file, each row's measured line right below its published one; then the floors.

    A row without published numbers has its measured line alone; one that was not measured either stays, and says so. Best
    and second are marked among published lines and, apart from them, among complete measured lines. ``protocol`` names the
    one under which they were measured, where a table has several.
    """
    shown = [row for row in spec.rows if spec.prints(row, dataset) or row.name not in measured]
    published = {row.name: _published(spec, row, dataset) for row in shown}
    own = {name: _measured(spec, row, family, protocol) for name, row in measured.items()}
    chosen = [metrics[name] for name in spec.metrics]
    published, own = (dict(zip(lines, mark_lines(list(lines.values()), chosen), strict=True)) for lines in (published, own))
    pairs = [line for row in spec.rows for line in (published.get(row.name), own.get(row.name)) if line is not None]
    return (*pairs, *(line for name, line in own.items() if not spec.row(name)))


def mark_lines(lines: Sequence[Line], chosen: Sequence[Metric]) -> list[Line]:
    """``lines`` with the best and the second-best number of each column marked, as shown; ties share a mark."""
    columns = [_marks([line.cells[i].shown if line.ranked else None for line in lines], metric) for i, metric in enumerate(chosen)]
    return [
        replace(line, cells=tuple(replace(cell, mark=columns[i][place]) for i, cell in enumerate(line.cells)))
        for place, line in enumerate(lines)
    ]


def _marks(values: Sequence[Decimal | None], metric: Metric) -> list[Mark]:
    places = sorted({value for value in values if value is not None}, reverse=metric.higher_is_better)
    names: dict[Decimal | None, Mark] = dict(zip(places, ("best", "second"), strict=False))
    return [names.get(value, "") for value in values]


def header(metric: Metric, label: str = "") -> str:
    """A column's head: label (by default the metric's own), unit, and which way is better."""
    return f"{label or metric.label}{', %' if metric.percent else ''} {'↑' if metric.higher_is_better else '↓'}"


def heads(spec: TableSpec) -> list[str]:
    """The heads of the metrics' columns."""
    return [header(metrics[name], spec.label(name)) for name in spec.metrics]


def number(value: float, metric: Metric, sign: bool = False) -> str:
    """A value of ``metric`` as printed: times 100 where it is a percentage, to its digits."""
    text = f"{100 * value if metric.percent else value:+.{metric.decimals}f}"
    if Decimal(text) == 0:
        return text[1:]
    return text if sign else text.removeprefix("+")


def p_value(p: float) -> str:
    """A p-value as printed."""
    if isnan(p):
        return ABSENT
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


COMPARISON_HEADS = ("Row", "Metric", "Pairs", "Difference", "95 % interval", "p", "Holm p", "t-test p", "Verdict")


def comparison_rows(spec: TableSpec, family: Family) -> list[tuple[str, ...]]:
    """The tests as text, one row each under ``COMPARISON_HEADS``; differences are row minus reference."""
    return [_comparison(test, spec) for test in family.tests]


def _comparison(test: Tested, spec: TableSpec) -> tuple[str, ...]:
    metric, main, conditional = metrics[test.metric], test.main, test.conditional
    head = (test.row, spec.label(test.metric), f"{test.pairs}/{test.expected}")
    if main is None or conditional is None or isnan(main.difference):
        return (*head, *[ABSENT] * 5, test.verdict(spec.alpha))
    interval = ABSENT if isnan(main.low) else f"[{number(main.low, metric, sign=True)}, {number(main.high, metric, sign=True)}]"
    probabilities = map(p_value, (main.p, test.adjusted, conditional.p))
    return (*head, number(main.difference, metric, sign=True), interval, *probabilities, test.verdict(spec.alpha))


# ---- lines


def _published(spec: TableSpec, row: Row, dataset: str) -> Line:
    lost = {name for hole in spec.holes_in(dataset) if row.name in hole.rows for name in hole.metrics}
    cells = row.published.get(dataset, {})
    shown = tuple(_printed(cells[name]) if name in cells else Cell(LOST if name in lost else ABSENT) for name in spec.metrics)
    label = f"published, {'re-run' if row.rerun else 'cited'}" if spec.prints(row, dataset) else "not printed, not run"
    return Line(row.name, "published", label, shown)


def _printed(cell: Published) -> Cell:
    spread = "" if cell.std is None else f"{cell.std:f}"
    return Cell(f"{cell.mean:f}", spread, dagger=cell.dagger, value=cell.value, deviation=cell.deviation)


def _measured(spec: TableSpec, row: Measured, family: Family, protocol: str) -> Line:
    role = ", floor" if row.name in spec.floors else ", reference" if row.name == family.reference else ""
    return Line(
        row=row.name,
        kind="measured",
        label=f"measured{role}{f', {protocol}' if protocol else ''} (n = {row.finished}/{len(row.expected)})",
        cells=tuple(_cell(row, metrics[name], family.find(row.name, name), spec.alpha) for name in spec.metrics),
        finished=row.finished,
        expected=len(row.expected),
        ranked=row.complete,
        protocol=protocol,
    )


def _cell(row: Measured, metric: Metric, test: Tested | None, alpha: float) -> Cell:
    if not row.finished:
        return Cell(ABSENT)
    mean, std = row.mean(metric.name), row.std(metric.name)
    if isnan(mean):
        return Cell(UNDEFINED)
    return Cell(
        text=number(mean, metric),
        spread="" if isnan(std) else number(std, metric),
        dagger=row.complete and test is not None and test.pairs == test.expected and test.verdict(alpha) == "better",
        value=mean,
        deviation=None if isnan(std) else std,
    )
