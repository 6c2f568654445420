"""Leaving one cluster out at a time: errors of any metric without resampling, for clusters too few to be resampled."""

from __future__ import annotations

from math import sqrt

import numpy as np

from harness.analysis.bootstrap import Runs, precision
from harness.analysis.pairs import Clustered
from harness.training.metrics import Floats, Metric


def leave_one_out(metric: Metric, totals: Floats) -> Floats:
    """The metric of each run without each cluster in turn, (G, S), from sums by cluster (G, S, k); NaN where undefined."""
    return metric.finish(totals.sum(axis=0) - totals)


def jackknife_precision(table: Clustered, paired: bool) -> tuple[float, float]:
    """Standard error of A - B over clusters and seeds, and its degrees of freedom: NaN where the metric is undefined.

    ``precision`` with the jackknife's variance over clusters, (G-1)/G times the sum of squares of the values without
    one cluster: the deviations, stretched by (G-1)/sqrt(G), take the place of resamples. It errs upwards, which few
    clusters need. Source: Efron and Stein 1981; for clusters MacKinnon, Nielsen and Webb 2023 (their CV3).
    """
    clusters = len(table.a)
    if clusters < 2:
        return float("nan"), float("nan")
    stretch = (clusters - 1) / sqrt(clusters)
    a, b = table.values()
    left_a, left_b = (leave_one_out(table.metric, side) for side in (table.a, table.b))
    pairs = [(a - b, left_a - left_b)] if paired else [(a, left_a), (-b, -left_b)]
    samples = [Runs(whole, whole + stretch * (left - left.mean(axis=0))) for whole, left in pairs]
    if any(np.isnan(runs.resampled).any() or np.isnan(runs.values).any() for runs in samples):
        return float("nan"), float("nan")
    return precision(samples, clusters)
