"""Which test a design calls for: the choice is the table ``DEFAULT_TESTS``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import nan

import numpy as np
from numpy.typing import NDArray

from harness.analysis.bootstrap import RESAMPLES, two_level_bootstraps
from harness.analysis.classical import corrected_t, paired_t
from harness.analysis.comparisons import THIS_TEST_SET, Comparison
from harness.analysis.pairs import Design, Pair
from harness.analysis.permutation import mcnemar
from harness.errors import DataError
from harness.training.metrics import Floats, Metric

Test = Callable[[Sequence[Metric], Pair, int, int], list[Comparison]]  # metrics, pair, resamples, seed


def _several_seeds(metrics: Sequence[Metric], pair: Pair, resamples: int, seed: int) -> list[Comparison]:
    return two_level_bootstraps(metrics, pair, resamples=resamples, seed=seed)


def _single_run(metrics: Sequence[Metric], pair: Pair, resamples: int, seed: int) -> list[Comparison]:
    """McNemar for accuracies where clips are independent; the bootstrap over clusters otherwise."""
    hits = [metric for metric in metrics if metric.counts_hits and pair.clusters is None]
    rest = [metric for metric in metrics if metric not in hits]
    found = [mcnemar(metric, pair.a, pair.b, pair.truth) for metric in hits] + _several_seeds(rest, pair, resamples, seed)
    by_name = {comparison.metric: comparison for comparison in found}
    return [by_name[metric.name] for metric in metrics]


def _folds(pair: Pair, repeats: int) -> NDArray[np.generic]:
    folds = np.asarray(pair.folds)
    folds = folds[None] if folds.ndim == 1 else folds
    if folds.shape != (repeats, pair.clips):
        raise DataError(
            f"folds of shape {folds.shape} for {repeats} repeats of {pair.clips} clips", "Say per repeat which fold a clip is in."
        )
    if any(len(np.unique(fold)) < 2 for fold in folds):
        raise DataError("a repeat of the cross-validation has a single fold: nothing was left to train on")
    return folds


def _fold_differences(metric: Metric, pair: Pair) -> Floats:
    """A - B in every fold of every repeat, (J,)."""
    table_a, table_b = pair.tables(metric)
    differences = [
        metric.finish(a[fold == name].sum(axis=0)) - metric.finish(b[fold == name].sum(axis=0))
        for a, b, fold in zip(table_a, table_b, _folds(pair, len(table_a)), strict=True)
        for name in np.unique(fold)
    ]
    return np.asarray(differences, dtype=np.float64)


def _cross_validation(metrics: Sequence[Metric], pair: Pair, resamples: int, seed: int) -> list[Comparison]:
    """Corrected t-test; test and training clips per fold are the actual mean numbers."""
    found = []
    for metric in metrics:
        differences = _fold_differences(metric, pair)
        n_test = np.asarray(pair.folds).size / len(differences)
        n_train = pair.train_clips or pair.clips - n_test
        comparison = corrected_t(differences, n_test, n_train, metric=metric.name)
        found.append(comparison.model_copy(update={"clips": pair.clips}))
    return found


DEFAULT_TESTS: Mapping[Design, Test] = {
    Design.SEEDS: _several_seeds,
    Design.RUN: _single_run,
    Design.FOLDS: _cross_validation,
}


def default_test(design: Design) -> Test:
    """The test that a design calls for: called with metrics, pair, number of resamples, seed."""
    return DEFAULT_TESTS[design]


def compare(metrics: Sequence[Metric], pair: Pair, *, resamples: int = RESAMPLES, seed: int) -> list[Comparison]:
    """A against B in each metric, by the test that the pair's design calls for.

    Raises ``DataError`` for predictions that cannot be scored or paired.
    """
    return default_test(pair.design(metrics[0]))(metrics, pair, resamples, seed) if metrics else []


def compare_seeds_only(metrics: Sequence[Metric], pair: Pair) -> list[Comparison]:
    """The paired t-test over seeds, as papers report it: conditional on this test set.

    p is NaN when the runs are no pairs or fewer than two.
    """
    return [_seeds_only(metric, pair) for metric in metrics]


def _seeds_only(metric: Metric, pair: Pair) -> Comparison:
    a, b = (metric.finish(table.sum(axis=1)) for table in pair.tables(metric))
    if pair.paired_seeds:
        return paired_t(a, b, metric=metric.name).model_copy(update={"clips": pair.clips})
    return Comparison(
        test="paired t-test",
        conditional_on=THIS_TEST_SET,
        metric=metric.name,
        difference=float(a.mean() - b.mean()),
        p=nan,
        seeds=min(len(a), len(b)),
        clips=pair.clips,
        note="undefined: the runs share no seeds",
    )
