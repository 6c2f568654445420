"""Summaries and effect sizes of a handful of values: intervals, robust means, how often A beats B.

No p-values here. Effect sizes of runs on one split share its clips: see ``classical`` for what that means.
"""

from __future__ import annotations

from math import inf, nan, sqrt
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from harness.errors import DataError

if TYPE_CHECKING:  # importing it imports PyTorch, which processes that draw do without
    from harness.training.metrics import Floats

LEVEL = 0.95


def _values(values: ArrayLike) -> Floats:
    x = np.atleast_1d(np.asarray(values, dtype=np.float64))
    if x.ndim != 1 or not len(x):
        raise DataError(f"values of shape {x.shape}: a non-empty list of numbers is needed")
    return x


def t_margin(error: float, df: float, level: float = LEVEL) -> float:
    """Half the width of the two-sided interval for an estimate with this standard error."""
    return float(stdtrit(df, (1 + level) / 2)) * error


def t_interval(values: ArrayLike, level: float = LEVEL) -> tuple[float, float]:
    """Interval of the mean of ``values`` (n,), by Student's t with n - 1 degrees of freedom; NaN for n < 2."""
    x = _values(values)
    if len(x) < 2:
        return nan, nan
    margin = t_margin(float(x.std(ddof=1)) / sqrt(len(x)), len(x) - 1, level)
    return float(x.mean()) - margin, float(x.mean()) + margin


def iqm(values: ArrayLike) -> float:
    """Interquartile mean: the mean without the lowest and the highest quarter (each rounded down) of ``values`` (n,).

    Source: Agarwal et al. 2021 (arXiv 2108.13264).
    """
    x = np.sort(_values(values))
    cut = len(x) // 4
    return float(x[cut : len(x) - cut].mean())


def dz(differences: ArrayLike) -> float:
    """Cohen's d for paired values: mean over standard deviation of the differences (n,).

    NaN for n < 2 and where all differences are 0, infinite where they are all one other value.
    """
    d = _values(differences)
    if len(d) < 2:
        return nan
    if (d == d[0]).all():
        return float(np.sign(d[0])) * inf if d[0] else nan
    return float(d.mean() / d.std(ddof=1))


def a12(x: ArrayLike, y: ArrayLike) -> float:
    """Vargha and Delaney's A12 = P(X > Y) + P(X = Y) / 2 over all pairs; Cliff's delta is 2 * A12 - 1."""
    above = _values(x)[:, None] - _values(y)
    return float((np.sign(above).mean() + 1) / 2)


def rank_biserial(differences: ArrayLike) -> float:
    """Matched-pairs rank-biserial correlation (W+ - W-) / (W+ + W-), zeros dropped; NaN where all differences are 0."""
    above, below, _ = signed_ranks(_values(differences))
    return (above - below) / (above + below) if above + below else nan


def midranks(values: Floats) -> Floats:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks


def signed_ranks(differences: Floats) -> tuple[float, float, Floats]:
    """Sum of the ranks of positive and of negative differences, and all ranks; zeros are dropped."""
    d = differences[differences != 0]
    ranks = midranks(np.abs(d))
    return float(ranks[d > 0].sum()), float(ranks[d < 0].sum()), ranks
