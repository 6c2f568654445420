"""Classical tests on one value per run (a seed, a fold), and Holm's adjustment.

These see a test set as fixed: seeds of one split share all its clips, so a claim made from seeds alone holds for
that very test set. Of equal systems whose errors on a clip repeat from seed to seed, the paired t-test over five seeds
calls 20-70 %, at worst 90 %, different (simulated). Only ``corrected_t`` allows for what its runs have in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import nan, sqrt

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtr

from harness.analysis.comparisons import THIS_TEST_SET, Comparison
from harness.analysis.effects import LEVEL, signed_ranks, t_margin
from harness.errors import DataError
from harness.training.metrics import Floats


def t_p(t: float, df: float) -> float:
    """Two-sided p of Student's ``t``."""
    return float(2 * stdtr(df, -abs(t)))


def _spread(differences: Floats, scale: float) -> float:
    """Standard deviation of the differences, 0 where it is nothing but rounding of values of size ``scale``."""
    deviation = float(differences.std(ddof=1))
    return 0.0 if deviation <= 1e-14 * scale * sqrt(len(differences)) else deviation


def _t_test(differences: Floats, inflation: float, scale: float, blank: Comparison) -> Comparison:
    """``blank`` completed with the t-test of the mean; the squared standard error is ``inflation`` times the variance."""
    n = len(differences)
    if not np.isfinite(differences).all():
        return _with(blank, note=f"undefined: {n - int(np.isfinite(differences).sum())} of {n} runs have no value")
    if n < 2:
        return _with(blank, note="undefined: a t-test needs at least 2 runs of each system")
    spread = _spread(differences, scale)
    if spread == 0:
        same = abs(blank.difference) <= 1e-14 * scale
        return _with(blank, p=1.0 if same else nan, note="" if same else "undefined: all runs differ by the same amount")
    error = spread * sqrt(inflation)
    t, margin = blank.difference / error, t_margin(error, n - 1)
    return _with(blank, statistic=t, df=n - 1, p=t_p(t, n - 1), low=blank.difference - margin, high=blank.difference + margin)


def _with(comparison: Comparison, **changes: float | str) -> Comparison:
    return comparison.model_copy(update=changes)


def _pairs(values_a: ArrayLike, values_b: ArrayLike) -> tuple[Floats, Floats]:
    a, b = (np.atleast_1d(np.asarray(values, dtype=np.float64)) for values in (values_a, values_b))
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise DataError(f"values of shapes {a.shape} and {b.shape} do not form pairs", "Give one value per shared seed for both systems.")
    return a, b


def paired_t(values_a: ArrayLike, values_b: ArrayLike, *, metric: str = "") -> Comparison:
    """Paired t-test over seeds of one split: values (S,) of the metric, seed by seed.

    Says nothing about other clips: conditional on this test set. p is NaN for fewer than two seeds, and when
    all seeds differ by one same amount. Raises ``DataError`` when the values do not form pairs.
    """
    a, b = _pairs(values_a, values_b)
    differences = a - b
    blank = Comparison(
        test="paired t-test", conditional_on=THIS_TEST_SET, metric=metric, difference=float(differences.mean()), p=nan, seeds=len(a)
    )
    return _t_test(differences, 1 / len(a), float(np.abs([a, b]).max()), blank)


def corrected_t(differences: ArrayLike, n_test: float, n_train: float, *, metric: str = "") -> Comparison:
    """Corrected resampled t-test of the J = R * K differences of an R times repeated K-fold cross-validation.

    t = mean / sqrt((1/J + n_test/n_train) * variance) with J - 1 degrees of freedom: training sets overlap, so
    the plain t-test's variance is too small. Source: Nadeau and Bengio 2003 (Machine Learning 52:239-281, eq. 8);
    for repeated cross-validation Bouckaert and Frank 2004.
    """
    d = np.atleast_1d(np.asarray(differences, dtype=np.float64))
    if not len(d) or n_test <= 0 or n_train <= 0:
        raise DataError(f"{len(d)} differences with {n_test} test and {n_train} training clips: all must be positive")
    blank = Comparison(test="corrected t-test", conditional_on="", metric=metric, difference=float(d.mean()), p=nan, seeds=len(d))
    return _t_test(d, 1 / len(d) + n_test / n_train, float(np.abs(d).max()), blank)


# ---- ranks and counts


def tied(differences: Floats, scale: float) -> Floats:
    """Differences of values of size ``scale`` in units of it, so rounded that equal ones tie: .3 - .2 and .2 - .1 do not."""
    return np.round(differences / (scale or 1.0), 13)


def _rank_sum_p(smaller: float, ranks: Floats) -> float:
    """Exact two-sided p: each rank is positive or negative with probability 1/2. Doubled midranks are whole numbers."""
    steps = (2 * ranks).astype(np.int64)
    chance = np.zeros(int(steps.sum()) + 1)
    chance[0] = 1.0
    for step in steps:
        chance[step:] = (chance[step:] + chance[: len(chance) - step]) / 2
        chance[:step] /= 2
    return min(1.0, 2 * float(chance[: round(2 * smaller) + 1].sum()))


def wilcoxon(values_a: ArrayLike, values_b: ArrayLike, *, metric: str = "") -> Comparison:
    """Wilcoxon's signed-rank test over seeds, exact also with ties; zero differences are dropped. Values (S,) each.

    ``statistic`` is the smaller rank sum. Five pairs cannot reach p < .0625; the note says so.
    """
    a, b = _pairs(values_a, values_b)
    d = a - b
    blank = Comparison(test="Wilcoxon", conditional_on=THIS_TEST_SET, metric=metric, difference=float(d.mean()), p=nan, seeds=len(d))
    if not np.isfinite(d).all():
        return _with(blank, note=f"undefined: {len(d) - int(np.isfinite(d).sum())} of {len(d)} runs have no value")
    above, below, ranks = signed_ranks(tied(d, float(np.abs([a, b]).max())))
    least = 0.5 ** (len(ranks) - 1) if len(ranks) else 1.0
    note = f"p cannot fall below {least:g} with {len(ranks)} unequal pairs" if least > 1 - LEVEL else ""
    return _with(blank, statistic=min(above, below), p=_rank_sum_p(min(above, below), ranks), note=note)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values of one family of tests, in the given order (Holm 1979).

    NaN (a test that could not be made) stays NaN but counts towards the family, whose size was declared beforehand.
    Raises ``DataError`` for values outside [0, 1].
    """
    p = np.asarray(p_values, dtype=np.float64)
    made = np.flatnonzero(~np.isnan(p))
    if ((p[made] < 0) | (p[made] > 1)).any():
        raise DataError(f"p-values outside [0, 1]: {sorted(p[made])}")
    order = made[np.argsort(p[made], kind="stable")]
    adjusted = np.full(len(p), nan)
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, (len(p) - np.arange(len(order))) * p[order]))
    return [float(value) for value in adjusted]
