"""Intervals over clips by the bias-corrected and accelerated bootstrap (BCa); whole clusters are drawn where clips have any.

They hold for these training runs: seeds are not drawn, because five of them give a bootstrap interval that is far too short.
Over a few seeds take ``effects.t_interval``.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri

from harness.analysis.bootstrap import RESAMPLES
from harness.analysis.effects import LEVEL
from harness.analysis.jackknife import leave_one_out
from harness.analysis.pairs import Pair
from harness.analysis.permutation import FEW_CLUSTERS
from harness.analysis.resamples import on_resamples
from harness.training.metrics import Floats, Metric

MOST_UNDEFINED = 0.05  # share of resamples on which a metric may be undefined
_ROUNDING = 1e-13


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval. ``drawn``: what was resampled; NaN ends where there is none, ``note`` says why."""

    estimate: float
    low: float
    high: float
    level: float
    drawn: str
    units: int
    note: str = ""


def bca(estimate: float, resampled: ArrayLike, left_out: ArrayLike, level: float = LEVEL) -> tuple[float, float]:
    """BCa ends from ``resampled`` (R,) and the values without one unit each, ``left_out`` (G,).

    z0 = Phi^-1(share of resamples below the estimate, ties half), a = sum d^3 / (6 (sum d^2)^1.5) with
    d = mean of ``left_out`` - ``left_out``; ends are the resamples' quantiles at
    Phi(z0 + (z0 + z) / (1 - a (z0 + z))). Equal resamples give the estimate twice; NaN where the estimate lies outside
    all resamples. Source: Efron 1987 (JASA 82:171-185).
    """
    draws, left = np.asarray(resampled, dtype=np.float64), np.asarray(left_out, dtype=np.float64)
    rounding = _ROUNDING * max(abs(estimate), float(np.abs(draws).max(initial=0.0)))
    if np.ptp(draws) <= rounding:
        return estimate, estimate
    share = (float((draws < estimate - rounding).mean()) + float((draws <= estimate + rounding).mean())) / 2
    if not 0 < share < 1:
        return nan, nan
    d = left.mean() - left
    squares = float(np.square(d).sum())
    acceleration = float((d**3).sum()) / (6 * squares**1.5) if squares > 0 else 0.0
    shifted = ndtri(share) + ndtri([(1 - level) / 2, (1 + level) / 2])
    low, high = np.quantile(draws, ndtr(ndtri(share) + shifted / (1 - acceleration * shifted)))
    return float(low), float(high)


def bca_interval(
    metric: Metric,
    prediction: ArrayLike,
    truth: ArrayLike,
    clusters: ArrayLike | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int,
    level: float = LEVEL,
) -> Interval:
    """Interval of one system's metric, mean over its runs: predictions (S, N), (S, N, C) or one run without its axis."""
    pair = Pair(prediction, prediction, truth, clusters)
    (table,) = pair.clustered([metric])
    return _interval(metric, [(1.0, table.a)], pair, resamples, seed, level)


def bca_difference(metric: Metric, pair: Pair, *, resamples: int = RESAMPLES, seed: int, level: float = LEVEL) -> Interval:
    """Interval of A - B, each the mean over its runs; both systems are scored on the same resamples."""
    (table,) = pair.clustered([metric])
    return _interval(metric, [(1.0, table.a), (-1.0, table.b)], pair, resamples, seed, level)


def _interval(metric: Metric, sides: list[tuple[float, Floats]], pair: Pair, resamples: int, seed: int, level: float) -> Interval:
    _, units = pair.groups()
    drawn = "clips" if pair.clusters is None else "clusters"
    estimate = sum(sign * float(metric.finish(totals.sum(axis=0)).mean()) for sign, totals in sides)
    if np.isnan(estimate):
        return Interval(estimate, nan, nan, level, drawn, units, "undefined: a run has no value")
    if units < FEW_CLUSTERS:
        return Interval(estimate, nan, nan, level, drawn, units, f"none: {units} {drawn} are too few to be resampled")
    draws = np.sum([sign * on_resamples([metric], [totals], resamples, seed)[0].mean(axis=1) for sign, totals in sides], axis=0)
    left = np.sum([sign * leave_one_out(metric, totals).mean(axis=1) for sign, totals in sides], axis=0)
    missing = np.isnan(draws)
    if missing.mean() > MOST_UNDEFINED or np.isnan(left).any():
        return Interval(estimate, nan, nan, level, drawn, units, f"none: undefined without some {drawn}")
    low, high = bca(estimate, draws[~missing], left, level)
    note = "none: the value lies outside all resamples" if np.isnan(low) else ""
    note = note or (f"undefined on {int(missing.sum())} of {resamples} resamples, which are left out" if missing.any() else "")
    return Interval(estimate, low, high, level, drawn, units, note)
