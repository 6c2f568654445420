"""What choosing the epoch on test would have done to a table's numbers, apart from the table, labelled on every line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from pathlib import Path

import numpy as np
from tabulate import tabulate

from harness.analysis.selection import Inflation, best_epoch, inflations
from harness.data.schema import Card
from harness.experiments.diagnosis import BEST_ON_TEST
from harness.experiments.records import Diagnosis, RecordStore
from harness.experiments.trials import Trial
from harness.files import write_atomic
from harness.reporting.collect import Unit
from harness.reporting.layout import ABSENT, UNDEFINED, number
from harness.reporting.markdown import escape
from harness.reporting.texts import data_name
from harness.training.metrics import metrics

LABEL = "DIAGNOSIS, NOT A RESULT"
CSV_COLUMNS = (
    *("label", "dataset", "simulated", "row", "seed", "fold", "metric", "selecting", "epochs", "epoch_valid", "epoch_test", "at_valid"),
    *("at_test", "inflation", "own_best", "own_inflation"),
)
HEADS = ("Row", "Metric", "n", "epoch by validation", "best on test", "inflation", "own best on test", "own inflation")
RUN_HEADS = ("Row", "Run", "Metric", "epochs: by validation / best on test / of", "epoch by validation", "best on test", "inflation")


@dataclass(frozen=True)
class Run:
    """One diagnosed run of a row: its epochs, which of them was chosen by validation and which is best on test, and every metric."""

    row: str
    unit: Unit
    epochs: int
    chosen: int
    best: int
    metrics: tuple[Inflation, ...]


@dataclass(frozen=True)
class Diagnosed:
    """All runs of a table or command; ``missing``: row -> runs without a diagnosis; ``untrained``: rows without epochs."""

    title: str
    card: Card
    selecting: str
    runs: tuple[Run, ...]
    missing: Mapping[str, Sequence[Unit]]
    untrained: tuple[str, ...]


def gather(title: str, card: Card, names: Sequence[str], plan: Mapping[str, Sequence[Trial]], store: RecordStore) -> Diagnosed:
    """The diagnoses that ``plan`` (row name -> trials) has in ``store``, in the metrics ``names``; the first one selects."""
    runs, missing, untrained = [], dict[str, list[Unit]](), []
    for row, trials in plan.items():
        for trial in trials:
            unit = Unit(trial.identity.seed, trial.identity.fold)
            found = store.diagnosis(trial.key) if trial.key in store else None
            if found is None:
                missing.setdefault(row, []).append(unit)
            elif not found.epochs:
                untrained.append(row)
            else:
                runs.append(_run(row, unit, found, names))
    return Diagnosed(title, card, names[0], tuple(runs), missing, tuple(dict.fromkeys(untrained)))


def _run(row: str, unit: Unit, found: Diagnosis, names: Sequence[str]) -> Run:
    scores = {name: [nan if (value := epoch.get(name)) is None else value for epoch in found.epochs] for name in names}
    best = best_epoch(scores[names[0]], metrics[names[0]].higher_is_better)
    return Run(row, unit, len(found.epochs), found.chosen, best, tuple(inflations(scores, found.chosen, names[0])))


# ---- as text


def write(diagnosed: Diagnosed, out: Path, stem: str) -> tuple[Path, ...]:
    """``<stem>.best-on-test.md`` and ``.csv`` in the folder ``out``; returns both."""
    contents = {"md": markdown(diagnosed), "csv": long_form(diagnosed)}
    paths = tuple(out / f"{stem}.{BEST_ON_TEST}.{suffix}" for suffix in contents)
    for path, content in zip(paths, contents.values(), strict=True):
        write_atomic(path, content.encode())
    return paths


def console(diagnosed: Diagnosed) -> str:
    """Label, explanation, means over runs, what is missing."""
    table = tabulate(list(_means(diagnosed)), HEADS, tablefmt="simple", disable_numparse=True, colalign=_align(HEADS, 2))
    return "\n\n".join(part for part in (_title(diagnosed), _explained(diagnosed), table, "\n".join(_notes(diagnosed))) if part)


def markdown(diagnosed: Diagnosed) -> str:
    """The whole document: as on the console, then run by run."""
    tables = [(_means(diagnosed), HEADS, 2), (_by_run(diagnosed), RUN_HEADS, 4)]
    means, runs = (
        tabulate([[escape(text) for text in row] for row in rows], heads, "github", disable_numparse=True, colalign=_align(heads, left))
        for rows, heads, left in tables
    )
    notes = "\n".join(f"- {escape(note)}" for note in _notes(diagnosed))
    parts = [f"# {escape(_title(diagnosed))}", escape(_explained(diagnosed)), means, notes, f"## Run by run ({LABEL})", runs]
    return "\n\n".join(part for part in parts if part) + "\n"


def long_form(diagnosed: Diagnosed) -> str:
    """CSV, one line per run and metric; percentages are fractions. The first column of every line is the label."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    data = (LABEL, diagnosed.card.name, "SIMULATED" if diagnosed.card.simulated else "no")
    for run in diagnosed.runs:
        for found in run.metrics:
            place = (run.row, run.unit.seed, run.unit.fold, found.metric, diagnosed.selecting, run.epochs, run.chosen, run.best)
            values = (found.chosen, found.best, found.inflation, found.own, found.own_inflation)
            writer.writerow([*data, *place, *("" if isnan(value) else f"{value:.10g}" for value in values)])
    return text.getvalue()


def _align(heads: Sequence[str], left: int) -> tuple[str, ...]:
    return ("left",) * left + ("right",) * (len(heads) - left)


def _title(diagnosed: Diagnosed) -> str:
    return f"{LABEL}: epoch chosen on test, {diagnosed.title}, {data_name(diagnosed.card)}"


def _explained(diagnosed: Diagnosed) -> str:
    label = metrics[diagnosed.selecting].label
    return (
        f"Every run chose its epoch by its loss on validation; that epoch's test scores are the results. 'Best on test' is the epoch whose "
        f"test {label} is best, for all metrics; 'own best' is another epoch for each metric. Inflation: by how much such a choice would "
        "have flattered the score, percentages in points, + for better whichever way the metric points; mean ± sample standard deviation "
        "over n runs. No table contains these numbers, and nothing was chosen by them."
    )


def _means(diagnosed: Diagnosed) -> Iterator[tuple[str, ...]]:
    for row in dict.fromkeys(run.row for run in diagnosed.runs):
        columns = zip(*(run.metrics for run in diagnosed.runs if run.row == row), strict=True)
        for place, found in enumerate(columns):
            yield (row if place == 0 else "", metrics[found[0].metric].label, str(len(found)), *_mean_cells(found))


def _mean_cells(found: Sequence[Inflation]) -> tuple[str, ...]:
    name = found[0].metric
    return (
        _mean(name, [one.chosen for one in found]),
        _mean(name, [one.best for one in found]),
        _mean(name, [one.inflation for one in found], sign=True),
        _mean(name, [one.own for one in found]),
        _mean(name, [one.own_inflation for one in found], sign=True),
    )


def _mean(name: str, values: Sequence[float], sign: bool = False) -> str:
    """Mean ± sample standard deviation, without the latter for one run; undefined where it is for one run."""
    if any(map(isnan, values)):
        return UNDEFINED
    spread = f" ± {number(float(np.std(values, ddof=1)), metrics[name])}" if len(values) > 1 else ""
    return number(float(np.mean(values)), metrics[name], sign) + spread


def _by_run(diagnosed: Diagnosed) -> Iterator[tuple[str, ...]]:
    for run in diagnosed.runs:
        for found in run.metrics:
            metric = metrics[found.metric]
            shown = [UNDEFINED if isnan(value) else number(value, metric) for value in (found.chosen, found.best)]
            gain = UNDEFINED if isnan(found.inflation) else number(found.inflation, metric, sign=True)
            epochs = f"{run.chosen} / {run.best or ABSENT} / {run.epochs}"
            yield (run.row, str(run.unit), metric.label, epochs, *shown, gain)


def _notes(diagnosed: Diagnosed) -> Iterator[str]:
    for row, units in diagnosed.missing.items():
        yield f"{row}: no diagnosis of {', '.join(map(str, units))}."
    if diagnosed.untrained:
        yield f"Without epochs, so that there is nothing to choose: {', '.join(diagnosed.untrained)}."
