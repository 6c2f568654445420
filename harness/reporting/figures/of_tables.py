"""Which figures stand beside a table, and from which of its records they are drawn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import isnan

import numpy as np

from harness.analysis.friedman import Scores, diagram
from harness.data.schema import Card
from harness.experiments.runs import Finished
from harness.reporting.collect import Measured, derived
from harness.reporting.cost_tables import CostTable
from harness.reporting.figures import confusion, ranks, runs
from harness.reporting.figures.drawing import Drawing
from harness.reporting.page.document import TablePart
from harness.reporting.texts import Told
from harness.training.metrics import Metric, metrics

MATRICES = 6  # models in one figure of confusion matrices
SWEEPS = {"missing.rate": "share of frames missing", "input_weights.audio": "weight a of audio (video: 1 - a)"}


@dataclass(frozen=True)
class Drawn:
    """A figure to be drawn, the end of its file's name, and what a reader is told."""

    kind: str
    title: str
    text: str
    drawing: Drawing


def of_table(told: Told) -> Iterator[Drawn]:
    """The figures of one table under one protocol, none where nothing was measured."""
    measured = {name: row for name, row in told.measured.items() if row.finished}
    models = {name: row for name, row in measured.items() if name not in told.spec.floors}
    if not measured:
        return
    yield Drawn("runs", "Runs", "Dot: a run; bar: their mean; diamond: the published number.", _strips(told, measured))
    trained = {name: row for name, row in models.items() if any(len(record.history) > 1 for record in row.records.values())}
    if trained:
        text = "Blue: validation loss of each run; dot: the epoch that was kept; dashes: training loss."
        yield Drawn("curves", "Learning curves", text, Drawing(runs.learning_curves, (_curves(trained), told.card.simulated)))
    yield from _confusions(told, models)
    yield from _sweeps(told, models)
    yield from _weighted_rows(told, models)
    yield from _costs(told, models)


def of_costs(table: CostTable) -> Iterator[Drawn]:
    """Scores against what an evaluation of one clip computes, of the rows with both; nothing for fewer than two of them."""
    for metric in (metrics[name] for name in table.spec.scores[:1]):
        points = {}
        for name, costs in table.here.items():
            values = (
                [_printed(metric, value) for value in table.measured[name].values[metric.name].values()] if name in table.measured else []
            )
            if "flops" in costs.figures and values and not any(map(isnan, values)):
                points[name] = (costs.figures["flops"].value, values)
        if len(points) > 1:
            label = f"{metric.label}{', %' if metric.percent else ''}"
            simulated = table.card is not None and table.card.simulated
            text = "Point: mean; bar: from the lowest to the highest run. FLOPs for the inputs that the caption states."
            figure = Drawing(runs.score_against_cost, (points, "FLOPs of one clip", label, simulated))
            yield Drawn("flops", f"{metric.label} against FLOPs", text, figure)


def of_paper(tables: Sequence[TablePart]) -> Iterator[Drawn]:
    """A critical-difference diagram for each table that stands on two data sets or more, in its first column, of rows with all runs.

    Of a table with several protocols, one for each.
    """
    for item, block in dict.fromkeys((table.item, table.block) for table in tables):
        parts = {table.dataset: table for table in tables if (table.item, table.block) == (item, block)}
        found = _scores(list(parts.values()))
        if found is not None:
            column = next(iter(parts.values())).columns[0]
            protocol = next(iter(parts.values())).protocol
            under = f" ({protocol})" if protocol else ""
            text = f"Mean ranks by {column.label} over {', '.join(parts)}{under}; a bar joins models that the test does not tell apart."
            simulated = any(table.simulated for table in parts.values())
            name = f"{item}_ranks" if block == 1 else f"{item}--{block}_ranks"
            drawn = Drawing(ranks.critical_difference_diagram, (diagram(found), simulated))
            yield Drawn(name, f"Critical differences, {item.upper()}{under}", text, drawn)


def _scores(tables: Sequence[TablePart]) -> Scores | None:
    """Means of the first column by data set and complete row, or None for fewer than two of either."""
    columns = [{row.name: row.cells[0].measured for row in table.rows if row.expected and row.finished == row.expected} for table in tables]
    values = [{name: cell.value for name, cell in column.items() if cell and cell.value is not None} for column in columns]
    names = [name for name in values[0] if all(name in column for column in values)] if values else []
    if len(tables) < 2 or len(names) < 2:
        return None
    table = [[column[name] for name in names] for column in values]
    return Scores(table, names, [part.dataset for part in tables], tables[0].columns[0].higher_is_better)


def _printed(metric: Metric, value: float) -> float:
    return 100 * value if metric.percent else value


def _label(told: Told, metric: Metric) -> str:
    return f"{told.spec.label(metric.name)}{', %' if metric.percent else ''}"


def _strips(told: Told, measured: Mapping[str, Measured]) -> Drawing:
    found = []
    for metric in (metrics[name] for name in told.spec.metrics):
        values = {name: [_printed(metric, value) for value in row.values[metric.name].values()] for name, row in measured.items()}
        cells = {name: row.published.get(told.dataset, {}).get(metric.name) for name in measured if (row := told.spec.row(name))}
        published = {name: _printed(metric, cell.value) for name, cell in cells.items() if cell}
        found.append(runs.Strip(_label(told, metric), values, published))
    return Drawing(runs.strips, (found, told.card.simulated))


def _curves(rows: Mapping[str, Measured]) -> dict[str, list[runs.Curve]]:
    return {
        name: [
            runs.Curve([e.train_loss for e in record.history], [e.valid_loss for e in record.history], record.best_epoch)
            for record in row.records.values()
        ]
        for name, row in rows.items()
    }


def _confusions(told: Told, models: Mapping[str, Measured]) -> Iterator[Drawn]:
    if told.card.task.kind == "classification" or "acc7" in told.spec.metrics:
        yield from confusion_of(told.card, models)


def confusion_of(card: Card, models: Mapping[str, Measured]) -> Iterator[Drawn]:
    """Confusion matrices of up to six models, the last ones of more; nothing for none."""
    classes = card.task.classes if card.task.kind == "classification" else confusion.BINS
    counts = {}
    for name, row in list(models.items())[-MATRICES:]:
        count = partial(_counts, len(card.task.classes))
        found = [derived(record, f"confusion {len(classes)}", count, row.known) for record in row.records.values()]
        counts[name] = np.sum(found, axis=0, dtype=np.int64)  # of cross-validation, every run has its own clips
    if counts:
        text = "Per cent of the clips of a true class, all runs together."
        yield Drawn("confusion", "Confusion matrices", text, Drawing(confusion.confusion, (counts, classes, card.simulated)))


def _counts(classes: int, record: Finished) -> list[list[float]]:
    prediction, truth = record.predictions.arrays()
    counted = confusion.count_classes(prediction, truth, classes) if classes else confusion.count_bins(prediction, truth)
    return counted.tolist()  # type: ignore[no-any-return]


def _sweeps(told: Told, models: Mapping[str, Measured]) -> Iterator[Drawn]:
    """One figure for each kind of further tests, of the models whose finished runs all have the same steps."""
    metric = metrics[told.spec.metrics[0]]
    for key, label in SWEEPS.items():
        found = {name: points for name, row in models.items() if (points := _points(row, key, metric))}
        steps = next(({*points[0]} for points in found.values()), set())
        same = {name: points for name, points in found.items() if all({*run} == steps for run in points)}
        if len(steps) > 1:
            x = sorted(steps)
            scores = {name: [[_printed(metric, run[step]) for step in x] for run in points] for name, points in same.items()}
            figure = Drawing(runs.robustness, (x, scores, label, _label(told, metric), told.card.simulated))
            yield Drawn(
                key.replace(".", "-"),
                f"{told.spec.label(metric.name)} over the {label.partition(' (')[0]}",
                "Line: mean; band: 95 % interval over runs.",
                figure,
            )


def _weighted_rows(told: Told, models: Mapping[str, Measured]) -> Iterator[Drawn]:
    """A curve over the rows that differ in the weight of audio, as a model is trained anew for each; beside it the printed one."""
    key, metric = "input_weights.audio", metrics[told.spec.metrics[0]]
    rows = {float(row.config[key]): row for row in told.spec.rows if key in row.config}
    known = {a: models[row.name] for a, row in sorted(rows.items()) if row.name in models and models[row.name].complete}
    if len(known) < 2:
        return
    own = [[_printed(metric, value) for value in row.values[metric.name].values()] for row in known.values()]
    scores = {"measured": np.array(own).T} if len({len(values) for values in own}) == 1 else {}
    printed = [row.published.get(told.dataset, {}).get(metric.name) for a, row in sorted(rows.items()) if a in known]
    values = [_printed(metric, cell.value) for cell in printed if cell]
    if len(values) == len(known):
        scores["published"] = np.array([values])
    label = SWEEPS[key]
    figure = Drawing(runs.robustness, (list(known), scores, label, _label(told, metric), told.card.simulated))
    text = "A model was trained for each weight. Line: mean; band: 95 % interval over runs."
    yield Drawn("weights", f"{told.spec.label(metric.name)} over the {label.partition(' (')[0]}", text, figure)


def _points(row: Measured, key: str, metric: Metric) -> list[dict[float, float]]:
    """Per run: step -> score of the trained model in that form; the record's own test is step 0 of missing frames."""
    pairs = [derived(record, f"{metric.name} over {key}", partial(_steps, key, metric), row.known) for record in row.records.values()]
    found = [{step: score for step, score in steps} for steps in pairs]
    return found if found and all(found) else []


def _steps(key: str, metric: Metric, record: Finished) -> list[list[float]]:
    """Pairs of a step and the score there."""
    tests = [further for further in record.further if key in further.changes]
    if not tests:
        return []
    prediction, truth = record.predictions.arrays()
    points = {further.changes[key]: metric.score(np.asarray(further.values), truth) for further in tests}
    if key == "missing.rate":
        points.setdefault(0.0, metric.score(prediction, truth))
    return [[step, score] for step, score in points.items()]


def _costs(told: Told, models: Mapping[str, Measured]) -> Iterator[Drawn]:
    metric = metrics[told.spec.metrics[0]]
    points = {}
    for name, row in models.items():
        size = next(iter(row.records.values())).parameters
        values = [_printed(metric, value) for value in row.values[metric.name].values()]
        if size > 0 and not any(map(isnan, values)):
            points[name] = (float(size), values)
    if len(points) > 1:
        figure = Drawing(runs.score_against_cost, (points, "trainable parameters", _label(told, metric), told.card.simulated))
        yield Drawn("cost", f"{told.spec.label(metric.name)} against size", "Point: mean; bar: from the lowest to the highest run.", figure)
