"""From planned trials and stored records to the numbers of each row; nothing is averaged over what did not finish."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from typing import NamedTuple

import numpy as np

from harness.data.schema import Card
from harness.data.splits import Fold
from harness.errors import HarnessError
from harness.experiments.records import Record, RecordStore
from harness.experiments.trials import Trial
from harness.training.metrics import metrics


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
    Units are in the order of the plan.
    """

    name: str
    expected: tuple[Unit, ...]
    records: Mapping[Unit, Record]
    faults: Mapping[Unit, str]
    values: Mapping[str, Mapping[Unit, float]]

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


def collect(names: Sequence[str], card: Card, plan: Mapping[str, Sequence[Trial]], store: RecordStore) -> dict[str, Measured]:
    """Row name -> what was measured of it, in the order of ``plan``; ``names`` are the metrics."""
    return {row: _measured(row, names, card, trials, store) for row, trials in plan.items()}


def _measured(row: str, names: Sequence[str], card: Card, trials: Sequence[Trial], store: RecordStore) -> Measured:
    found = {Unit(trial.identity.seed, trial.identity.fold): _look_up(trial, card, store) for trial in trials}
    records = {unit: result for unit, result in found.items() if isinstance(result, Record)}
    arrays = {unit: record.predictions.arrays() for unit, record in records.items()}
    return Measured(
        name=row,
        expected=tuple(found),
        records=records,
        faults={unit: result for unit, result in found.items() if isinstance(result, str)},
        values={name: {unit: metrics[name].score(*pair) for unit, pair in arrays.items()} for name in names},
    )


def _look_up(trial: Trial, card: Card, store: RecordStore) -> Record | str:
    """The record of ``trial``, or why there is none that may enter the table of this data."""
    if trial.key not in store:
        failure = store.failure(trial.key)
        return f"{failure.reason}: {_first_line(failure.message)}" if failure else "not run"
    try:
        record = store.get(trial.key)
    except HarnessError:
        return f"the record {trial.key} is damaged; `harness reproduce` sets it aside and runs it again"
    if record.key != trial.key or record.identity.data != card.fingerprint or record.simulated != card.simulated:
        return f"the record {trial.key} was made from other data or by another trial; delete its folder and run again"
    return record


def _first_line(message: str) -> str:
    return message.strip().partition("\n")[0]
