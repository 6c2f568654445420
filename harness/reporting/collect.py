"""From planned trials and stored records to the numbers of each row; nothing is averaged over what did not finish."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from math import isnan, nan
from typing import NamedTuple, TypeVar

import numpy as np

from harness.data.schema import Card
from harness.data.splits import Fold
from harness.experiments import runs
from harness.experiments.records import RecordError, RecordStore
from harness.experiments.runs import Finished, Run
from harness.experiments.trials import Trial
from harness.training.metrics import Floats, Statistics, metrics

TOGETHER = 16  # runs on the same clips that are scored at a time
Numbers = float | list[float] | list[list[float]]
Number = TypeVar("Number", float, list[float], list[list[float]])
Known = MutableMapping[str, Numbers]  # by what it is and the content of the record that it was computed from


class Unit(NamedTuple):
    """What runs of two rows must share to form a pair."""

    seed: int
    fold: Fold

    def __str__(self) -> str:
        return f"seed {self.seed}" if self.fold.protocol == "official" else f"seed {self.seed}, {self.fold}"


@dataclass(frozen=True)
class Measured:
    """The runs of one row: records and values of the finished ones, the reason for each other one.

    ``values``: metric -> unit -> the metric, recomputed from the stored predictions, NaN where it is undefined.
    Units are in the order of the plan. ``known``: what was computed from records before, see ``derived``.
    """

    name: str
    expected: tuple[Unit, ...]
    records: Mapping[Unit, Finished]
    faults: Mapping[Unit, str]
    values: Mapping[str, Mapping[Unit, float]]
    known: Known | None = field(default=None, compare=False)

    @property
    def finished(self) -> int:
        return len(self.records)

    @property
    def complete(self) -> bool:
        return bool(self.expected) and self.finished == len(self.expected)

    def mean(self, metric: str) -> float:
        """Mean over finished runs; NaN where there is none or where the metric is undefined for one of them."""
        values = list(self.values[metric].values())
        return float(np.mean(values)) if values else nan

    def std(self, metric: str) -> float:
        """Sample standard deviation (n - 1) over finished runs, exactly 0 where all are equal; NaN for fewer than two."""
        values = list(self.values[metric].values())
        return float(np.std(values, ddof=1)) * (len(set(values)) > 1) if len(values) > 1 else nan

    def undefined(self, metric: str) -> bool:
        """Runs finished, but the metric has no value for one of them (the correlation of a constant, say)."""
        return any(map(isnan, self.values[metric].values()))


def collect(
    names: Sequence[str], card: Card, plan: Mapping[str, Sequence[Trial]], store: RecordStore, known: Known | None = None
) -> dict[str, Measured]:
    """Row name -> what was measured of it, in the order of ``plan``; ``names`` are the metrics.

    ``known``: scores that this very code computed before, by record and metric, which are taken as they are; new ones are added.
    """
    return {row: _measured(row, names, card, trials, store, known) for row, trials in plan.items()}


def derived(record: Finished, what: str, compute: Callable[[Finished], Number], known: Known | None) -> Number:
    """``compute`` of ``record``, or what ``known`` has of it under the name ``what`` from a record of the same content."""
    if known is None:
        return compute(record)
    key = _name(what, record)
    if key not in known:
        known[key] = compute(record)
    return known[key]  # type: ignore[return-value]


def _name(what: str, record: Finished) -> str:
    return f"{what} {record.checksum}"


def _measured(row: str, names: Sequence[str], card: Card, trials: Sequence[Trial], store: RecordStore, known: Known | None) -> Measured:
    found = {Unit(trial.identity.seed, trial.identity.fold): _look_up(trial, card, store) for trial in trials}
    numbers: Known = {} if known is None else known
    damaged = _score_all([result for result in found.values() if isinstance(result, Run)], names, numbers, bool(card.task.classes))
    scored = {unit: _scored(result, names, numbers, damaged) if isinstance(result, Run) else result for unit, result in found.items()}
    values = {unit: result for unit, result in scored.items() if not isinstance(result, str)}
    return Measured(
        name=row,
        expected=tuple(found),
        records={unit: result for unit, result in found.items() if isinstance(result, Run) and unit in values},
        faults={unit: result for unit, result in scored.items() if isinstance(result, str)},
        values={name: {unit: scores[name] for unit, scores in values.items()} for name in names},
        known=known,
    )


def _scored(run: Run, names: Sequence[str], known: Known, damaged: Collection[str]) -> dict[str, float] | str:
    """The run's scores, which are ``known``, or that its record is damaged."""
    return _damaged(run.key) if run.key in damaged else {name: known[_name(name, run)] for name in names}  # type: ignore[misc]


def _score_all(found: Sequence[Run], names: Sequence[str], known: Known, classes: bool) -> set[str]:
    """Scores that are not ``known`` yet are from now on; the keys of the runs whose records are damaged. ``classes``: predicted ones."""
    damaged: set[str] = set()
    alike: dict[tuple[bytes, tuple[int, ...], str], list[Run]] = {}
    for run in found:
        if all(_name(name, run) in known for name in names):
            continue
        try:
            values, labels = run.predictions.arrays()
            alone = run.key if classes and values.ndim == 1 else ""  # labels of several runs would look like scores of classes
            alike.setdefault((labels.tobytes(), values.shape, alone), []).append(run)
        except RecordError:
            damaged.add(run.key)
    for runs_of_clips in alike.values():
        for start in range(0, len(runs_of_clips), TOGETHER):
            known.update(_scores(runs_of_clips[start : start + TOGETHER], names))
    return damaged


def _scores(together: Sequence[Run], names: Sequence[str]) -> Iterator[tuple[str, float]]:
    """Name and value of each metric of each of these runs on the same clips; metrics that sum the same share the sums."""
    first, labels = together[0].predictions.arrays()
    values = np.stack([run.predictions.arrays()[0] for run in together]) if len(together) > 1 else first
    totals: dict[Statistics, Floats] = {}
    for name in names:
        metric = metrics[name]
        if metric.statistics not in totals:
            totals[metric.statistics] = metric.statistics(values, labels).sum(axis=-2)
        scores = np.atleast_1d(metric.finish(totals[metric.statistics]))
        yield from ((_name(name, run), float(score)) for run, score in zip(together, scores, strict=True))


def _damaged(key: str) -> str:
    return f"the record {key} is damaged; `harness reproduce` sets it aside and runs it again"


def _look_up(trial: Trial, card: Card, store: RecordStore) -> Run | str:
    """The record of ``trial``, or why there is none that may enter the table of this data."""
    if trial.key not in store:
        failure = store.failure(trial.key)
        return f"{failure.reason}: {_first_line(failure.message)}" if failure else "not run"
    try:
        record = runs.read(store, trial.key)
    except RecordError:
        return _damaged(trial.key)
    another = record.identity != trial.identity and record.head.key != trial.key  # to compare is faster than to hash
    if another or record.identity.data != card.fingerprint or record.simulated != card.simulated:
        return f"the record {trial.key} was made from other data or by another trial; delete its folder and run again"
    return record


def _first_line(message: str) -> str:
    return message.strip().partition("\n")[0]
