"""Are records what they claim to be? Checksums, keys, and every test score from its predictions."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from harness.errors import HarnessError
from harness.experiments.merging import read
from harness.experiments.records import Record, RecordError, RecordStore, Scores
from harness.training import metrics

# The last digits of a sum depend on the order in which a processor adds, and so on the machine.
RELATIVE, ABSOLUTE = 1e-9, 1e-12


def faults(store: RecordStore, key: str) -> list[str]:
    """What is wrong with the record of ``key``; empty where checksum, key, shapes and scores agree."""
    try:
        record = read(store, key)
    except RecordError as error:
        return [error.problem]
    return [f"{store.path(key)}: {fault}" for fault in _faults(record)]


def _faults(record: Record) -> Iterator[str]:
    predictions = record.predictions
    if not len(predictions.ids) == len(predictions.groups) == len(predictions.truth):
        yield f"{len(predictions.ids)} clips, {len(predictions.groups)} groups and {len(predictions.truth)} labels"
    values, truth = predictions.arrays()
    yield from _wrong_scores(record.test, values, truth, "test")
    for further in record.further:
        what = "test with " + ", ".join(f"{name} {value:g}" for name, value in further.changes.items())
        yield from _wrong_scores(further.test, np.asarray(further.values, dtype=np.float64), truth, what)
    yield from _wrong_epoch(record)


def _wrong_scores(stated: Scores, values: np.ndarray, truth: np.ndarray, what: str) -> Iterator[str]:
    for name, score in stated.items():
        try:
            again = metrics.score([name], values, truth)[name]
        except HarnessError as error:
            yield f"{what} {name} cannot be computed: {error.problem}"
            continue
        if not _same(score, again):
            yield f"{what} {name} is stated as {score}, its predictions give {again}"


def _wrong_epoch(record: Record) -> Iterator[str]:
    losses = {epoch.epoch: epoch.valid_loss for epoch in record.history}
    if losses and losses.get(record.best_epoch) != min(losses.values()):
        lowest = min(losses, key=losses.__getitem__)
        yield f"epoch {record.best_epoch} is stated as the best, the lowest validation loss is that of epoch {lowest}"


def _same(stated: float | None, again: float) -> bool:
    """An undefined metric is stored as None."""
    return math.isnan(again) if stated is None else math.isclose(stated, again, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
