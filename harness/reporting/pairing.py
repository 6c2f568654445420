"""From the runs that two rows share to the predictions that a test compares, clip by clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from harness.analysis.statistics import UNTESTED, Pair
from harness.data.splits import Fold
from harness.experiments.records import RecordError
from harness.experiments.runs import Finished
from harness.reporting.collect import Measured, Unit
from harness.training.metrics import Floats, Labels


def paired(row: Measured, reference: Measured, shared: Sequence[Unit]) -> Pair:
    """Both rows' predictions on the shared units, (S, N) or (S, N, C): one run per seed, deal of folds, or draw.

    Predictions of the folds of one seed and deal are one run over all their clips. RecordError for records of other data,
    clips or labels.
    """
    sides = [{unit: side.records[unit] for unit in shared} for side in (row, reference)]
    for unit in shared:
        _same_clips(sides[0][unit], sides[1][unit])
    _same_clips_of_units(sides[1])
    return _of_folds(sides, shared) if any(unit.fold.protocol != "official" for unit in shared) else _of_seeds(sides)


def _of_seeds(sides: Sequence[Mapping[Unit, Finished]]) -> Pair:
    first = next(iter(sides[0].values())).predictions
    a, b = (np.stack([record.predictions.arrays()[0] for record in side.values()]) for side in sides)
    return Pair(a, b, first.arrays()[1], _clusters(first.groups))


def _of_folds(sides: Sequence[Mapping[Unit, Finished]], shared: Sequence[Unit]) -> Pair:
    clips = {clip: (label, group) for record in sides[0].values() for clip, label, group in _clips(record)}
    place = {clip: number for number, clip in enumerate(clips)}
    runs = {run: number for number, run in enumerate(dict.fromkeys((unit.seed, unit.fold.repeat) for unit in shared))}
    cells = {unit: (runs[unit.seed, unit.fold.repeat], [place[clip] for clip in sides[0][unit].predictions.ids]) for unit in shared}
    folds = np.full((len(runs), len(clips)), UNTESTED)
    for unit, (run, columns) in cells.items():
        folds[run, columns] = unit.fold.index
    whole = all((fold == fold[0]).all() for fold in folds)  # every run is on one fold, and always the same: a fixed split
    tested = sum(len(columns) for _, columns in cells.values()) / len(cells)
    a, b = (_filled(side, cells, folds.shape) for side in sides)
    labels, groups = zip(*clips.values(), strict=True)
    fold = next(iter(shared)).fold
    return Pair(a, b, np.asarray(labels), _clusters(groups), folds=None if whole else folds, train_clips=tested * trained_per_tested(fold))


def trained_per_tested(fold: Fold) -> float:
    """Training clips for each test clip, as far as the protocol says it: folds and groups of equal size."""
    if fold.groups is not None:
        return fold.groups[0] / fold.groups[2]
    others = fold.of - 1
    return others - 1 if fold.validation is None else others * (1 - fold.validation)


def _filled(side: Mapping[Unit, Finished], cells: Mapping[Unit, tuple[int, list[int]]], shape: tuple[int, ...]) -> Floats:
    """Predictions in their places; 0 where a run tested nothing, which no test reads."""
    width = next(iter(side.values())).predictions.arrays()[0].shape[1:]
    values = np.zeros((*shape, *width))
    for unit, (run, columns) in cells.items():
        values[run, columns] = side[unit].predictions.arrays()[0]
    return values


def _clips(record: Finished) -> list[tuple[str, float, str]]:
    shown = record.predictions
    return list(zip(shown.ids, shown.truth, shown.groups, strict=True))


def _clusters(groups: Sequence[str]) -> Labels | None:
    """The groups, or None where each clip is its own."""
    return None if len(set(groups)) == len(groups) else np.asarray(groups)


def _same_clips_of_units(side: Mapping[Unit, Finished]) -> None:
    """Raises RecordError where two runs on the same cut do not hold the same clips, or runs come from different data."""
    by_fold: dict[Fold, Finished] = {}
    first = next(iter(side.values()))
    for unit, record in side.items():
        _same_data(record, first)
        _same_clips(record, by_fold.setdefault(unit.fold, record))


def _same_data(record: Finished, other: Finished) -> None:
    if record.identity.data != other.identity.data:
        raise RecordError(
            f"the records {record.key} and {other.key} were made from different data "
            f"(fingerprints {record.identity.data[:16]} and {other.identity.data[:16]})",
            "They cannot be compared. Delete the folder of the one whose data is out of date and run again.",
        )


def _same_clips(record: Finished, other: Finished) -> None:
    """Raises RecordError for records of other data or of other test clips."""
    _same_data(record, other)
    mine, theirs = record.predictions, other.predictions
    if (mine.ids, mine.truth) != (theirs.ids, theirs.truth):
        raise RecordError(
            f"the records {record.key} and {other.key} do not hold the same test clips and labels",
            "They cannot be compared. Delete their folders and run again.",
        )
