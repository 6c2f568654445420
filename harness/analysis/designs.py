"""Which test a design calls for: the choice is the table ``DEFAULT_TESTS``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import nan

import numpy as np

from harness.analysis.bootstrap import RESAMPLES, two_level_bootstraps
from harness.analysis.classical import corrected_t, paired_t
from harness.analysis.comparisons import THIS_TEST_SET, Comparison
from harness.analysis.pairs import UNTESTED, Design, Pair
from harness.analysis.permutation import FEW_CLUSTERS, mcnemar
from harness.analysis.small import few_clusters
from harness.errors import DataError
from harness.training.metrics import Floats, Metric

Test = Callable[[Sequence[Metric], Pair, int, int], list[Comparison]]  # metrics, pair, resamples, seed


def _several_seeds(metrics: Sequence[Metric], pair: Pair, resamples: int, seed: int) -> list[Comparison]:
    """The two-level bootstrap; swaps of clusters where these are too few to be resampled."""
    if pair.groups()[1] < FEW_CLUSTERS:
        return [few_clusters(metric, pair, resamples=resamples, seed=seed) for metric in metrics]
    return two_level_bootstraps(metrics, pair, resamples=resamples, seed=seed)


def _single_run(metrics: Sequence[Metric], pair: Pair, resamples: int, seed: int) -> list[Comparison]:
    """McNemar for accuracies where clips are independent; the tests over clusters otherwise."""
    hits = [metric for metric in metrics if metric.counts_hits and pair.clusters is None]
    rest = [metric for metric in metrics if metric not in hits]
    found = [mcnemar(metric, pair.a, pair.b, pair.truth) for metric in hits] + _several_seeds(rest, pair, resamples, seed)
    by_name = {comparison.metric: comparison for comparison in found}
    return [by_name[metric.name] for metric in metrics]


def fold_differences(metric: Metric, pair: Pair) -> tuple[Floats, int, float]:
    """A - B in every fold of every deal, (J,), how many trainings of a system they come from, and the mean number of clips tested.

    Runs of one deal (seeds of the same folds) share all their test clips: as values of their own they would count as
    fresh ones, so they are averaged fold by fold.
    """
    a, b = pair.tables(metric)
    if len(a) != len(b):
        raise DataError(f"{len(a)} repeats of one system and {len(b)} of the other", "Cross-validations are compared repeat by repeat.")
    deals, deal = np.unique(pair.deals(len(a)), axis=0, return_inverse=True)
    masks = [(deal.reshape(-1) == row, fold == name) for row, fold in enumerate(deals) for name in np.unique(fold) if name != UNTESTED]
    found = [_mean_difference(metric, a[runs][:, clips], b[runs][:, clips]) for runs, clips in masks]
    return np.asarray(found), int(sum(runs.sum() for runs, _ in masks)), float(np.mean([clips.sum() for _, clips in masks]))


def _mean_difference(metric: Metric, a: Floats, b: Floats) -> float:
    """A - B of tables (S, n, k), the mean over runs."""
    return float((metric.finish(a.sum(axis=1)) - metric.finish(b.sum(axis=1))).mean())


def _cross_validation(metrics: Sequence[Metric], pair: Pair, resamples: int, seed: int) -> list[Comparison]:
    """Over several deals or independent clips, the corrected t-test; one deal of clustered clips is pooled."""
    folds = np.atleast_2d(np.asarray(pair.folds))
    if pair.clusters is not None and pair.design(metrics[0]) is Design.FOLDS and len(np.unique(folds, axis=0)) == 1:
        return _pooled(metrics, pair, resamples, seed)
    return [_corrected(metric, pair) for metric in metrics]


def _pooled(metrics: Sequence[Metric], pair: Pair, resamples: int, seed: int) -> list[Comparison]:
    """The predictions of all folds as those of one test set, tested over clusters: five folds alone tell too little."""
    folds = pair.deals(len(pair.tables(metrics[0])[0]))
    said = f"out-of-fold predictions of {len(np.unique(folds))} folds, pooled"
    found = _several_seeds(metrics, pair.pooled(), resamples, seed)
    return [comparison.model_copy(update={"note": "; ".join(filter(None, (comparison.note, said)))}) for comparison in found]


def _corrected(metric: Metric, pair: Pair) -> Comparison:
    """Corrected t-test over folds or draws; test and training clips are the actual mean numbers."""
    differences, trainings, n_test = fold_differences(metric, pair)
    found = corrected_t(differences, n_test, pair.train_clips or pair.clips - n_test, metric=metric.name)
    averaged = f"{len(differences)} values, each the mean over the runs of one deal" if trainings > len(differences) else ""
    note = "; ".join(filter(None, (found.note, averaged)))
    return found.model_copy(update={"clips": pair.clips, "seeds": trainings, "note": note})


DEFAULT_TESTS: Mapping[Design, Test] = {
    Design.SEEDS: _several_seeds,
    Design.RUN: _single_run,
    Design.FOLDS: _cross_validation,
    Design.DRAWS: _cross_validation,
}


def default_test(design: Design) -> Test:
    """The test that a design calls for: called with metrics, pair, number of resamples, seed."""
    return DEFAULT_TESTS[design]


def compare(metrics: Sequence[Metric], pair: Pair, *, resamples: int = RESAMPLES, seed: int) -> list[Comparison]:
    """A against B in each metric, by the test that the pair's design calls for.

    Raises ``DataError`` for predictions that cannot be scored or paired.
    """
    return default_test(pair.design(metrics[0]))(metrics, pair, resamples, seed) if metrics else []


def run_values(metric: Metric, pair: Pair) -> tuple[Floats, Floats]:
    """The metric of every run of A and of B on the clips that it tested: (S_a,), (S_b,)."""
    a, b = pair.totals(metric)
    return metric.finish(a), metric.finish(b)


def compare_seeds_only(metrics: Sequence[Metric], pair: Pair) -> list[Comparison]:
    """The paired t-test over seeds, as papers report it: conditional on this test set.

    p is NaN when the runs are no pairs or fewer than two.
    """
    return [_seeds_only(metric, pair) for metric in metrics]


def _seeds_only(metric: Metric, pair: Pair) -> Comparison:
    a, b = run_values(metric, pair)
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
