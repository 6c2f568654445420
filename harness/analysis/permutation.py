"""Tests that swap the two systems: by cluster (sign flips), and clip by clip for hits (McNemar)."""

from __future__ import annotations

from math import nan

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bdtr

from harness.analysis.comparisons import ONE_RUN, THESE_RUNS, Comparison
from harness.analysis.pairs import Clustered, Pair
from harness.errors import DataError
from harness.seeds import generator
from harness.training.metrics import Floats, Metric

EXACT_CLUSTERS = 14  # up to this many, all 2^G swaps are tried
FEW_CLUSTERS = 12  # fewer are swapped, never resampled: percentiles over five actors reject 13 % of equal systems


def _swaps(clusters: int, resamples: int, seed: int) -> Floats:
    """Which clusters swap A and B, a try per row, (tries, G) of 0 and 1; the first row swaps none."""
    if clusters <= EXACT_CLUSTERS:
        return (np.arange(2**clusters)[:, None] >> np.arange(clusters) & 1).astype(np.float64)
    tries = generator(seed, "cluster sign flip").integers(2, size=(resamples + 1, clusters))
    tries[0] = 0
    return tries.astype(np.float64)


def _differences(table: Clustered, swaps: Floats) -> Floats:
    """A - B, mean over runs, on each try: (tries,)."""
    if table.a.shape != table.b.shape:
        raise DataError(
            "the runs of A and B cannot be swapped: they differ in number or in classes",
            "Pass the same number of runs, and scores (runs, clips, classes) for both.",
        )
    metric = table.metric
    both = Clustered(metric, np.concatenate([table.a, table.b]), np.concatenate([table.b, table.a]))
    a, b = both.weighted(np.concatenate([1 - swaps, swaps], axis=1))
    difference: Floats = a.mean(axis=1) - b.mean(axis=1)
    return difference


def cluster_sign_flip(
    metric: Metric, a: ArrayLike, b: ArrayLike, truth: ArrayLike, clusters: ArrayLike | None, *, resamples: int = 10_000, seed: int
) -> Comparison:
    """``sign_flip`` of predictions in the shapes that ``Pair`` takes."""
    return sign_flip(metric, Pair(a, b, truth, clusters), resamples=resamples, seed=seed)


def sign_flip(metric: Metric, pair: Pair, *, resamples: int = 10_000, seed: int) -> Comparison:
    """Permutation test: were the two systems alike, each video's predictions could as well be swapped between them.

    All runs of a cluster are swapped together. p is the share of swaps whose difference is at least as large: of all
    2^G for up to 14 clusters, else of ``resamples`` random ones and the given one. Exact in size for these training
    runs: it does not know how much seeds vary. No interval. Raises ``DataError`` for runs that cannot be swapped.
    """
    (table,), (_, count) = pair.clustered([metric]), pair.groups()
    found = _differences(table, _swaps(count, resamples, seed))
    difference, runs = float(found[0]), table.a.shape[1]
    undefined = int(np.isnan(found).sum())
    # a try that only reorders the sum must count as equal: rounding may not decide
    as_large = np.abs(found) >= abs(difference) - 1e-12 * np.nanmax(np.abs(table.values()), initial=0.0)
    return Comparison(
        test="cluster sign-flip" + (", exact" if count <= EXACT_CLUSTERS else ""),
        conditional_on=ONE_RUN if runs == 1 else THESE_RUNS,
        metric=metric.name,
        difference=difference,
        p=nan if undefined else float(as_large.mean()),
        seeds=runs,
        clips=pair.clips,
        clusters=None if pair.clusters is None else count,
        note=f"undefined on {undefined} of {len(found)} swaps" if undefined else "",
    )


def mcnemar(metric: Metric, a: ArrayLike, b: ArrayLike, truth: ArrayLike) -> Comparison:
    """McNemar's exact test of one run of each system, in an accuracy; shapes as in ``Pair``.

    p = 2 P(Binomial(n10 + n01, 1/2) <= min(n10, n01)), at most 1; ``statistic`` is n10, the clips that only A gets right.
    Takes clips as independent: ``cluster_sign_flip`` is the same test for clips of shared videos.
    """
    if not metric.counts_hits:
        raise DataError(f"McNemar's test needs hits and misses; '{metric.name}' is no accuracy", "Use cluster_sign_flip.")
    table_a, table_b = Pair(a, b, truth).tables(metric)
    if len(table_a) != 1:
        raise DataError(f"McNemar's test compares one run of each system, not {len(table_a)}", "Use two_level_bootstrap.")
    gained = table_a[0, :, 0] - table_b[0, :, 0]
    only_a, only_b = int((gained > 0).sum()), int((gained < 0).sum())
    return Comparison(
        test="McNemar, exact",
        conditional_on=ONE_RUN,
        metric=metric.name,
        difference=float((metric.finish(table_a.sum(axis=1)) - metric.finish(table_b.sum(axis=1)))[0]),
        p=min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5))),
        statistic=only_a,
        seeds=1,
        clips=len(gained),
        note=f"only A is right on {only_a} clips, only B on {only_b}",
    )
