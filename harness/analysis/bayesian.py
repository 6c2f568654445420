"""How probable is it that A is better, worse, or as good as makes no difference: a posterior instead of a p-value.

A p-value cannot say that two systems are equivalent; a posterior with a region of practical equivalence (ROPE) can.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan, nan, sqrt
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtr

from harness.analysis.comparisons import Comparison
from harness.analysis.effects import LEVEL, t_margin
from harness.errors import DataError
from harness.training.metrics import Metric

Verdict = Literal["better", "worse", "equivalent", "inconclusive"]

PROBABLE = 0.95  # what a verdict needs
ROPES = {"mae": 1 / 600, "percent": 0.005, "corr": 0.005}  # MAE: per width of the label scale


def default_rope(metric: Metric, span: float = 6.0) -> float:
    """Half the width of the default region of practical equivalence, in the metric's units.

    Half a percentage point for accuracies, recalls and F1; .005 for the correlation; for the MAE 1/600 of ``span``, the
    width of the label scale: .01 on [-3, 3]. On 686 clips half a point is 3.4 clips. A convention, not a law: state it.
    """
    return ROPES["mae"] * span if metric.name == "mae" else ROPES["percent" if metric.percent else "corr"]


@dataclass(frozen=True)
class Posterior:
    """Student's t for the difference A - B, and how much of it lies below, within and above the region [-rope, rope]."""

    mean: float
    scale: float
    df: float
    rope: float
    below: float
    within: float
    above: float

    def verdict(self, higher_is_better: bool, probable: float = PROBABLE) -> Verdict:
        """A against B: the statement that has at least this probability, or none of them."""
        better, worse = (self.above, self.below) if higher_is_better else (self.below, self.above)
        named: tuple[tuple[Verdict, float], ...] = (("better", better), ("worse", worse), ("equivalent", self.within))
        return next((name for name, probability in named if probability >= probable), "inconclusive")


def posterior(mean: float, scale: float, df: float, rope: float) -> Posterior:
    """The posterior St(df, mean, scale^2) cut at the region; a scale of 0 is a certain difference.

    Raises ``DataError`` for a region that is negative or values that are NaN.
    """
    if isnan(mean + scale) or (isnan(df) and scale > 0) or not rope >= 0:
        raise DataError(
            f"no posterior from mean {mean:g}, scale {scale:g}, {df:g} degrees of freedom and region +-{rope:g}",
            "The difference must be defined, and the region at least 0 wide.",
        )
    if scale == 0:
        below, above = float(mean < -rope), float(mean > rope)
    else:
        below, above = float(stdtr(df, (-rope - mean) / scale)), float(stdtr(df, (mean - rope) / scale))
    return Posterior(mean, scale, df, rope, below, max(0.0, 1 - below - above), above)


def correlated_bayes(differences: ArrayLike, n_test: float, n_train: float, rope: float) -> Posterior:
    """Bayesian correlated t-test of the J differences of a repeated cross-validation.

    St(J-1, mean, (1/J + rho/(1-rho)) variance) with rho = n_test / (n_test + n_train), the share of clips held out, under
    the prior 1/sigma^2. Source: Corani and Benavoli 2015 (Machine Learning 100:285-304, eq. 9); Benavoli et al. 2017.
    Raises ``DataError`` for fewer than two differences, for NaN, and where all are one same amount that is not 0: without
    spread there is no posterior. All 0 is a certain 0.
    """
    d = np.atleast_1d(np.asarray(differences, dtype=np.float64))
    if d.ndim != 1 or len(d) < 2 or not np.isfinite(d).all() or n_test <= 0 or n_train <= 0:
        raise DataError(
            f"differences of shape {d.shape}, {int((~np.isfinite(d)).sum())} of them undefined, with {n_test:g} test and "
            f"{n_train:g} training clips: at least two defined differences and positive numbers of clips are needed"
        )
    spread = float(d.std(ddof=1)) if np.ptp(d) > 1e-14 * float(np.abs(d).max()) else 0.0
    if spread == 0 and d.any():
        raise DataError(f"all {len(d)} differences are {d[0]:g}: without spread there is no posterior", "Pass the folds' own differences.")
    return posterior(float(d.mean()), spread * sqrt(1 / len(d) + n_test / n_train), len(d) - 1, rope)


def posterior_of(comparison: Comparison, rope: float) -> Posterior | None:
    """The posterior, under a flat prior, behind a comparison whose interval is Student's t; None where it has none.

    For a corrected t-test this is the Bayesian correlated t-test; for a bootstrap, its t reference.
    """
    width = comparison.high - comparison.low
    if isnan(width):
        return None
    if width == 0:
        return posterior(comparison.difference, 0.0, nan, rope)
    if comparison.df is None:
        return None
    return posterior(comparison.difference, width / 2 / t_margin(1.0, comparison.df, LEVEL), comparison.df, rope)
