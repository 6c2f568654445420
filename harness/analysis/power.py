"""Power of a comparison: how often would its test find a difference of this size, and how many seeds would that take?"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from math import nan, sqrt

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import nctdtr, nctdtrinc, stdtrit

from harness.training.metrics import Floats

ALPHA, POWER = 0.05, 0.8
MOST_SEEDS = 1000
FEW_SEEDS = (20, 150)  # numbers of seeds are looked through in three parts: most answers lie in the first
_FAR = 30.0  # a difference of so many standard errors is always found
_ONE_SIDED = 5.0  # further off, the wrong tail is below 1e-8, and SciPy has no digits for it


@dataclass(frozen=True)
class Plan:
    """What a true difference of the size observed would take to be found with probability ``power`` at level ``alpha``.

    ``seeds``: runs per system, for a claim about new clips; None where no number up to 1000 is enough. ``seeds_here``: the
    same for a claim about this very test set. ``clips``: how many times as many test clips (and clusters) it takes with
    any number of seeds; at most 1 where the clips at hand allow it. ``detectable``: the difference that the runs and clips
    at hand would find. An observed difference overstates the true one where it was picked for its size: these are lower
    bounds then.
    """

    alpha: float
    power: float
    seeds: int | None
    seeds_here: int | None
    clips: float
    detectable: float


def t_power(noncentrality: ArrayLike, df: ArrayLike, alpha: float = ALPHA) -> Floats:
    """Probability that a two-sided t-test rejects; ``noncentrality``: the difference in standard errors. Broadcasts."""
    free = np.asarray(df, dtype=np.float64)
    far = np.minimum(np.abs(np.asarray(noncentrality, dtype=np.float64)), _FAR)
    critical = stdtrit(free, 1 - alpha / 2)
    other = np.where(far < _ONE_SIDED, nctdtr(free, np.minimum(far, _ONE_SIDED), -critical), 0.0)
    power: Floats = np.asarray(1 - nctdtr(free, far, critical) + other, dtype=np.float64)
    return power


def plan_seeds(
    difference: float, clip_error2: float, units: int, run_error2: float, runs: int, *, alpha: float = ALPHA, power: float = POWER
) -> Plan:
    """The plan for an observed ``difference`` A - B.

    ``clip_error2``: what the choice of clips adds to the squared standard error, whatever the number of runs; ``units``:
    clusters (or clips) it was estimated from. ``run_error2``: what a single run adds, estimated from ``runs`` >= 2 runs;
    over S runs it is 1/S of that. Degrees of freedom after Satterthwaite 1946, as in the test.
    """
    return Plan(
        alpha=alpha,
        power=power,
        seeds=_fewest_seeds(difference, clip_error2, units, run_error2, alpha, power),
        seeds_here=_fewest_seeds(difference, 0.0, units, run_error2, alpha, power),
        clips=_clips_needed(difference, clip_error2, units, alpha, power),
        detectable=_detectable(clip_error2, units, run_error2 / runs, runs, alpha, power),
    )


def _fewest_seeds(difference: float, clip_error2: float, units: int, run_error2: float, alpha: float, power: float) -> int | None:
    """The first number of seeds, from 2 up, that has the power; None where none up to 1000 has it."""
    for seeds in np.split(np.arange(2, MOST_SEEDS + 1), FEW_SEEDS):
        enough = _found(difference, np.full(len(seeds), clip_error2), units, run_error2 / seeds, seeds, alpha) >= power
        if enough.any():
            return int(seeds[enough.argmax()])
    return None


def _found(difference: float, over_clips: Floats, units: int, over_runs: Floats, seeds: ArrayLike, alpha: float) -> Floats:
    """Power for squared errors over clips and over runs, elementwise."""
    if difference == 0:
        return np.full(len(over_clips), alpha)
    error = np.sqrt(over_clips + over_runs)
    ratio = abs(difference) / np.maximum(error, abs(difference) / _FAR)
    return t_power(ratio, satterthwaite(over_clips, units - 1, over_runs, np.asarray(seeds) - 1), alpha)


def satterthwaite(first: ArrayLike, df_first: ArrayLike, second: ArrayLike, df_second: ArrayLike) -> Floats:
    """Degrees of freedom of the sum of two estimated variances; those of the first where both are 0."""
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    total = a + b
    share = np.where(total > 0, a / np.where(total > 0, total, 1.0), 1.0)
    df: Floats = 1 / (share**2 / np.asarray(df_first) + (1 - share) ** 2 / np.asarray(df_second))
    return df


def _clips_needed(difference: float, clip_error2: float, units: int, alpha: float, power: float) -> float:
    """The smallest multiple of the clips at which seeds without number find the difference; NaN for no difference."""
    if difference == 0:
        return nan
    if clip_error2 == 0:
        return 0.0
    times = np.geomspace(2 / units, 1e6, 4000)

    def enough(place: int) -> bool:
        return bool(t_power(abs(difference) / sqrt(clip_error2 / times[place]), max(times[place] * units - 1, 1.0), alpha) >= power)

    first = bisect_left(range(len(times)), True, key=enough)  # power grows with the clips
    return float(times[first]) if first < len(times) else float("inf")


def _detectable(clip_error2: float, units: int, over_runs: float, runs: int, alpha: float, power: float) -> float:
    df = float(satterthwaite(clip_error2, units - 1, over_runs, runs - 1))
    return float(nctdtrinc(df, 1 - power, stdtrit(df, 1 - alpha / 2))) * sqrt(clip_error2 + over_runs)
