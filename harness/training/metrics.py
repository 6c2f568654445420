"""Metrics as sufficient statistics: one definition scores a run and serves a vectorised bootstrap.

A metric is two functions. ``statistics`` turns each clip into a few numbers; ``finish`` turns their sums over
clips into the metric. Any reweighting of clips (a bootstrap resample, a fold, a video left out) is then a
weighted sum, so ten thousand resamples are one matrix product.

Conventions for intensities: ``nonneg`` asks ``>= 0`` on all clips; ``nonzero`` drops clips whose label is exactly
0 and asks ``> 0``; ``acc7``, ``acc5`` and ``acc3`` clip both sides to +-3, +-2, +-1 and round half to even.
F1 takes the truth first, and ``weighted`` weighs classes by their number of true clips, as scikit-learn does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.errors import DataError
from harness.registry import Registry

if TYPE_CHECKING:
    from harness.data.schema import Task

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
Statistics = Callable[[ArrayLike, ArrayLike], Floats]


@dataclass(frozen=True)
class Metric:
    """A metric of predictions against the truth.

    ``statistics(prediction, truth)`` gives (..., N, k) float64 numbers per clip; ``finish(sums)`` takes their sums
    over clips (..., k), weighted or not, to the metric (...), NaN where it is undefined. Intensities: prediction
    (..., N), truth (N,). Classes: prediction (..., N, C) floating scores or (..., N) integer labels, truth (N,)
    labels from 0; a floating prediction of shape (N,) is read as labels. Leading axes are systems, such as seeds.
    ``statistics`` raises ``DataError`` for NaN or infinity, unequal lengths, labels that are no classes, no clips.
    """

    name: str
    label: str
    higher_is_better: bool
    percent: bool  # printed times 100
    decimals: int  # digits printed, of the value as printed
    statistics: Statistics
    finish: Callable[[Floats], Floats]
    counts_hits: bool = False  # the statistics are (hit, counted), each 0 or 1: an accuracy, fit for McNemar's test

    def scores(self, prediction: ArrayLike, truth: ArrayLike) -> Floats:
        """The metric of each system: predictions with leading axes (...) give (...)."""
        return self.finish(self.statistics(prediction, truth).sum(axis=-2))

    def score(self, prediction: ArrayLike, truth: ArrayLike) -> float:
        """The metric of one system, a fraction (not times 100); NaN where undefined."""
        return float(self.scores(prediction, truth))


metrics: Registry[Metric] = Registry("metric")


def score(names: Iterable[str], prediction: ArrayLike, truth: ArrayLike) -> dict[str, float]:
    """The metrics called ``names`` of one system's predictions; see ``Metric`` for shapes and errors."""
    return {name: metrics[name].score(prediction, truth) for name in names}


def default_metrics(task: Task) -> tuple[str, ...]:
    """The metrics recorded for a task; for intensities only those ``acc`` whose bins lie within the task's range."""
    if task.kind == "classification":
        return ("accuracy", "uar", "f1_weighted", "f1_macro")
    bins = tuple(f"acc{2 * bound + 1}" for bound in (3, 2, 1) if bound <= min(-task.low, task.high))
    return ("mae", "corr", "acc2_nonneg", "acc2_nonzero", "f1_nonneg", "f1_nonzero", *bins)


# ---- what comes in


def _finite(values: ArrayLike, what: str) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    bad = int(array.size - np.isfinite(array).sum())
    if bad:
        raise DataError(f"{bad} of {array.size} {what} values are NaN or infinite", "A run with such values has failed; do not score it.")
    return array


def _clips(count: int, truth: NDArray[np.generic]) -> None:
    if truth.ndim != 1:
        raise DataError(f"the truth has shape {truth.shape}, one label per clip is needed: (clips,)")
    if not len(truth):
        raise DataError("there are no clips to score")
    if count != len(truth):
        raise DataError(f"{count} predictions for {len(truth)} labels", "Give one prediction per clip, in the order of the labels.")


def _whole(values: ArrayLike, what: str) -> Labels:
    array = _finite(values, what)
    labels = array.astype(np.int64)
    if (labels != array).any() or (labels < 0).any():
        worst = array[(labels != array) | (labels < 0)].flat[0]
        raise DataError(f"{what} {worst:g} is not a class label", "Class labels are 0, 1, 2, ...")
    return labels


def _classes(prediction: ArrayLike, truth: ArrayLike) -> tuple[Labels, Labels, int]:
    """Predicted labels (..., N), true labels (N,), number of classes."""
    true, given = _whole(truth, "true"), np.asarray(prediction)
    if given.dtype.kind in "biu" or given.ndim < 2:
        labels = np.atleast_1d(_whole(given, "predicted"))
        _clips(labels.shape[-1], true)
        return labels, true, int(max(labels.max(), true.max())) + 1
    scores = _finite(given, "predicted")
    _clips(scores.shape[-2], true)
    if true.max() >= scores.shape[-1]:
        raise DataError(f"label {true.max()} occurs, but the predictions score {scores.shape[-1]} classes (labels from 0)")
    return scores.argmax(axis=-1), true, scores.shape[-1]


def _of_intensities(statistics: Callable[[Floats, Floats], Floats]) -> Statistics:
    """``statistics`` of checked float64 arrays: prediction (..., N), truth (N,)."""

    @wraps(statistics)
    def checked(prediction: ArrayLike, truth: ArrayLike) -> Floats:
        guess, true = np.atleast_1d(_finite(prediction, "predicted")), _finite(truth, "true")
        _clips(guess.shape[-1], true)
        return statistics(guess, true)

    return checked


# ---- statistics per clip


def _columns(*columns: NDArray[np.generic] | float) -> Floats:
    return np.stack(np.broadcast_arrays(*columns), axis=-1).astype(np.float64)


@_of_intensities
def _errors(prediction: Floats, truth: Floats) -> Floats:
    """(absolute error, 1)."""
    return _columns(np.abs(prediction - truth), 1.0)


def _centred(values: Floats) -> Floats:
    """Deviations from the mean over clips, scaled to at most 1; exactly 0 where all values are equal up to rounding."""
    deviation = values - values.mean(axis=-1, keepdims=True)
    largest = np.abs(deviation).max(axis=-1, keepdims=True)
    constant = largest <= 1e-13 * np.abs(values).max(axis=-1, keepdims=True)
    return np.where(constant, 0.0, deviation / np.where(constant, 1.0, largest))


@_of_intensities
def _moments(prediction: Floats, truth: Floats) -> Floats:
    """(1, x, y, xx, yy, xy) of centred values: raw moments would lose the digits that the correlation needs."""
    x, y = _centred(prediction), _centred(truth)
    return _columns(1.0, x, y, x * x, y * y, x * y)


def _hits_within(bound: int) -> Statistics:
    @_of_intensities
    def hits(prediction: Floats, truth: Floats) -> Floats:
        """(same bin, 1); ``rint`` rounds half to even."""
        return _columns(np.rint(prediction.clip(-bound, bound)) == np.rint(truth.clip(-bound, bound)), 1.0)

    return hits


@_of_intensities
def _hits_nonneg(prediction: Floats, truth: Floats) -> Floats:
    """(same side of >= 0, 1)."""
    return _columns((prediction >= 0) == (truth >= 0), 1.0)


@_of_intensities
def _hits_nonzero(prediction: Floats, truth: Floats) -> Floats:
    """(same sign, 1) where the label is not 0, else (0, 0)."""
    counted = truth != 0
    return _columns(((prediction > 0) == (truth > 0)) & counted, counted)


def _cells(prediction: Labels, truth: Labels, classes: int) -> Floats:
    """The clip's cell of the confusion matrix (true class, predicted class), one-hot and flattened."""
    cells: Floats = np.eye(classes * classes)[truth * classes + prediction]
    return cells


@_of_intensities
def _cells_nonneg(prediction: Floats, truth: Floats) -> Floats:
    return _cells((prediction >= 0).astype(np.int64), (truth >= 0).astype(np.int64), 2)


@_of_intensities
def _cells_nonzero(prediction: Floats, truth: Floats) -> Floats:
    cells = _cells((prediction > 0).astype(np.int64), (truth > 0).astype(np.int64), 2)
    return np.where((truth != 0)[:, None], cells, 0.0)


def _cells_of_classes(prediction: ArrayLike, truth: ArrayLike) -> Floats:
    return _cells(*_classes(prediction, truth))


def _hits_of_classes(prediction: ArrayLike, truth: ArrayLike) -> Floats:
    """(right class, 1)."""
    labels, true, _ = _classes(prediction, truth)
    return _columns(labels == true, 1.0)


# ---- metrics from sums


def _ratio(above: Floats, below: Floats) -> Floats:
    """``above / below``, NaN where ``below`` is 0."""
    ratio: Floats = above / np.where(below == 0, np.nan, below)
    return ratio


def _mean(sums: Floats) -> Floats:
    return _ratio(sums[..., 0], sums[..., 1])


def _correlation(sums: Floats) -> Floats:
    """Pearson's r; NaN where either side does not vary (its variance is nothing but rounding)."""
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    varies_x, varies_y = xx - _ratio(x * x, n), yy - _ratio(y * y, n)
    undefined = ~((varies_x > 1e-12 * xx) & (varies_y > 1e-12 * yy))
    root = np.sqrt(np.where(undefined, np.nan, varies_x)) * np.sqrt(np.where(undefined, np.nan, varies_y))
    r: Floats = ((xy - _ratio(x * y, n)) / root).clip(-1.0, 1.0)
    return r


def _by_class(sums: Floats) -> tuple[Floats, Floats, Floats]:
    """From a flattened confusion matrix (..., C*C): hits, true clips and predicted clips per class, each (..., C)."""
    classes = round(sums.shape[-1] ** 0.5)
    matrix = sums.reshape(*sums.shape[:-1], classes, classes)
    return np.diagonal(matrix, axis1=-2, axis2=-1), matrix.sum(axis=-1), matrix.sum(axis=-2)


def _weighted_f1(sums: Floats) -> Floats:
    hits, true, predicted = _by_class(sums)
    f1 = np.where(true > 0, _ratio(2 * hits, true + predicted), 0.0)
    return _ratio((true * f1).sum(axis=-1), true.sum(axis=-1))


def _macro_f1(sums: Floats) -> Floats:
    """Mean F1 of the classes that occur in the truth or among the predictions."""
    hits, true, predicted = _by_class(sums)
    occurs = true + predicted > 0
    f1 = np.where(occurs, _ratio(2 * hits, true + predicted), 0.0)
    return _ratio(f1.sum(axis=-1), occurs.sum(axis=-1).astype(np.float64))


def _average_recall(sums: Floats) -> Floats:
    """Mean recall of the classes that occur in the truth."""
    hits, true, _ = _by_class(sums)
    recall = np.where(true > 0, _ratio(hits, true), 0.0)
    return _ratio(recall.sum(axis=-1), (true > 0).sum(axis=-1).astype(np.float64))


# ---- the metrics


def _accuracy(name: str, label: str, statistics: Statistics) -> Metric:
    return Metric(name, label, True, True, 2, statistics, _mean, counts_hits=True)


for _metric in (
    Metric("mae", "MAE", False, False, 3, _errors, _mean),
    Metric("corr", "Corr", True, False, 3, _moments, _correlation),
    _accuracy("acc2_nonneg", "Acc-2 (neg/non-neg)", _hits_nonneg),
    _accuracy("acc2_nonzero", "Acc-2 (neg/pos)", _hits_nonzero),
    Metric("f1_nonneg", "F1 (neg/non-neg)", True, True, 2, _cells_nonneg, _weighted_f1),
    Metric("f1_nonzero", "F1 (neg/pos)", True, True, 2, _cells_nonzero, _weighted_f1),
    _accuracy("acc7", "Acc-7", _hits_within(3)),
    _accuracy("acc5", "Acc-5", _hits_within(2)),
    _accuracy("acc3", "Acc-3", _hits_within(1)),
    _accuracy("accuracy", "Accuracy", _hits_of_classes),
    Metric("uar", "UAR", True, True, 2, _cells_of_classes, _average_recall),
    Metric("f1_weighted", "F1 (weighted)", True, True, 2, _cells_of_classes, _weighted_f1),
    Metric("f1_macro", "F1 (macro)", True, True, 2, _cells_of_classes, _macro_f1),
):
    metrics.register(_metric.name)(_metric)
