"""From a table of costs to what the page shows of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isnan

from harness.data.schema import Card
from harness.experiments.cost_tables import COLUMNS, CostRow
from harness.experiments.papers import Published, Row
from harness.experiments.trials import Trial
from harness.reporting.collect import Measured
from harness.reporting.cost_tables import RECORDED, CostTable, Figure, caption, cell, heads, legend, notes
from harness.reporting.describe import Places, environments_of, latest_of, runs_of
from harness.reporting.layout import ABSENT, number
from harness.reporting.page.document import CellPart, ColumnPart, NotePart, RowPart, RunPart, Shown, TablePart
from harness.reporting.reproduction import Judged, judge, not_comparable, sentences, summarise
from harness.training.metrics import Metric, metrics

FINDINGS = "Findings"
MILLIONS, BILLIONS, MILLI = 1e-6, 1e-9, 1e3
SCALES = {"parameters": MILLIONS, "flops": BILLIONS, "latency": MILLI, "round": 1.0}  # from a figure's unit to the printed one
APART = {
    "flops": "what the paper counted as an operation, and for inputs of which lengths, is not known",
    "latency": "times of two machines",
    "round": "times of two machines",
}


def describe(table: CostTable, plan: Mapping[str, Sequence[Trial]], places: Places, files: Sequence[str] = ()) -> TablePart:
    """The page's part for a table of costs; ``plan``: the trials behind its scores. Raises ValueError without a card."""
    spec, card = table.spec, table.card
    if card is None:
        raise ValueError("a table of costs without data has no place in the page")
    judged = {(row.name, column): found for row in spec.rows for column, found in _judged(table, row, card)}
    return TablePart(
        paper=spec.paper,
        item=spec.item,
        title=spec.title,
        caption=caption(table),
        legend=legend(),
        citation=spec.citation,
        dataset=card.dataset,
        data=card.name,
        data_title=card.title,
        simulated=card.simulated and any(figure.source == RECORDED for costs in table.here.values() for figure in costs.figures.values()),
        budget="",
        reference="",
        columns=tuple(_columns(table)),
        rows=tuple(_row(table, row, judged, plan, places) for row in spec.rows),
        notes=tuple(NotePart(heading=heading, items=items) for heading, items in notes(table) if heading != FINDINGS),
        sentences=tuple(sentences(summarise(judged.values()))),
        findings=tuple(finding.text for finding in spec.findings),
        environments=tuple(environments_of(table.measured)),
        fingerprint=card.fingerprint,
        latest=latest_of(table.measured, places),
        files=tuple(files),
    )


def _columns(table: CostTable) -> Iterator[ColumnPart]:
    for name, head in zip(table.spec.columns, heads(table.spec)[2:], strict=True):
        label = COLUMNS[name].partition(",")[0] if name in COLUMNS else metrics[name].label
        better = metrics[name].higher_is_better if name in metrics else False
        yield ColumnPart(name=name, label=label, header=head, higher_is_better=better, counted=name in COLUMNS and name != "round")


def _row(
    table: CostTable, row: CostRow, judged: Mapping[tuple[str, str], Judged], plan: Mapping[str, Sequence[Trial]], places: Places
) -> RowPart:
    own = table.measured.get(row.name)
    settings = ", ".join(f"{key} = {value}" for key, value in row.config.items())
    about = (row.citation, f"printed '{row.printed}'" if row.printed else "", row.notes, settings, " + ".join(row.modalities or ()))
    return RowPart(
        name=row.name,
        published="printed" if row.published else "",
        finished=own.finished if own and table.spec.scores else None,
        expected=len(own.expected) if own and table.spec.scores else None,
        about="; ".join(part for part in (*about, *(table.here[row.name].notes if row.name in table.here else ())) if part),
        cells=tuple(_cell(table, row, column, judged.get((row.name, column))) for column in table.spec.columns),
        runs=_runs(table, own, plan.get(row.name, ()), places),
    )


def _runs(table: CostTable, own: Measured | None, trials: Sequence[Trial], places: Places) -> tuple[RunPart, ...]:
    """The runs behind scores and recorded times, with an empty value in each column that is no score; without scores no run is missed."""
    if own is None:
        return ()
    scores, columns = table.spec.scores, table.spec.columns
    return tuple(
        run.model_copy(update={"values": tuple(dict(zip(scores, run.values, strict=False)).get(name, "") for name in columns)})
        for run in runs_of(own, scores, trials, places)
        if scores or run.state == "finished"
    )


def _cell(table: CostTable, row: CostRow, column: str, found: Judged | None) -> CellPart:
    figure = table.here[row.name].figures.get(column) if row.name in table.here else None
    printed, gap = row.value(column), None if found is None or isnan(found.difference) else found.difference
    return CellPart(
        published=Shown(text=str(row.published.get(column, ABSENT)), value=printed) if row.published else None,
        measured=None if row.name not in table.here else Shown(text=cell(figure, column), value=_sortable(figure, column)),
        difference="" if gap is None else _difference(gap, column),
        gap=gap,
        outcome=found.outcome if found else "",
        reason=found.reason if found else "",
    )


def _sortable(figure: Figure | None, column: str) -> float | None:
    """In the unit of ``CostRow.value``; None for a hole and for a time that was refused."""
    if figure is None or figure.refused or isnan(figure.value):
        return None
    return figure.value * SCALES.get(column, 1.0)


def _difference(gap: float, column: str) -> str:
    return number(gap, metrics[column], sign=True) if column in metrics else f"{gap:+.3g}"


# ---- verdicts


def _judged(table: CostTable, row: CostRow, card: Card) -> Iterator[tuple[str, Judged]]:
    """(column, outcome) of every number that the paper prints."""
    for column in table.spec.columns:
        printed = row.value(column)
        if printed is not None:
            judged = _score(table, row, column, metrics[column], card) if column in metrics else _cost(table, row, column, printed)
            yield column, judged


def _score(table: CostTable, row: CostRow, column: str, metric: Metric, card: Card) -> Judged:
    own = table.measured.get(row.name)
    apart = not_comparable(Row(name=row.name, modalities=row.modalities), card, own)
    return judge(Published(mean=row.number(column), percent=metric.percent), own, metric, 1, apart)


def _cost(table: CostTable, row: CostRow, column: str, printed: float) -> Judged:
    """Parameters are equal to the printed digits or they are not; what was counted or timed under other conditions is no verdict."""
    figure = table.here[row.name].figures.get(column) if row.name in table.here else None
    own = _sortable(figure, column)
    if own is None:
        return Judged("open", f"refused: {figure.refused}" if figure else "not measured")
    if column != "parameters":
        return Judged("not comparable", APART[column], own - printed)
    digit = 0.5 * 10.0 ** float(row.number(column).as_tuple().exponent)
    reason = f"{own - printed:+.3f} M, printed to ±{digit:.3g} M"
    if abs(own - printed) <= digit * (1 + 1e-9):
        return Judged("reproduced", reason, own - printed, digit)
    return Judged("not comparable", "another size of the model", own - printed, digit)
