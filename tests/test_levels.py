"""The default tests on systems that really learn: they keep their level where the plain t-test over folds does not.

Small versions of ``benchmarks/test_false_positive_rates.py``. A test of size .05 rejects more than .08 of 300 equal pairs with
probability 1 %, and of 150 with 6 %; the streams are fixed. The default tests' own sizes are .02 to .06.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from simulated_folds import drawn, learned
from simulated_pairs import rng

from harness.analysis.designs import fold_differences
from harness.analysis.statistics import Pair, compare, paired_t, two_level_bootstraps
from harness.training.metrics import metrics

ACCURACY = metrics["accuracy"]
MOST = 0.08


def rate(name: str, replications: int, world: Callable[[np.random.Generator], Pair], *tests: Callable[[Pair], float]) -> list[float]:
    """Share of pairs with p < .05, by test."""
    found = []
    for replication in range(replications):
        pair = world(rng(name, replication))
        found.append([test(pair) < 0.05 for test in tests])
    return [float(share) for share in np.mean(found, axis=0)]


def default(pair: Pair) -> float:
    return compare([ACCURACY], pair, resamples=300, seed=1)[0].p


def plain_t(pair: Pair) -> float:
    d, _, _ = fold_differences(ACCURACY, pair)
    return paired_t(d, np.zeros(len(d))).p


def corrected(pair: Pair) -> float:
    """The corrected t-test, for a pair whose default is another."""
    return compare([ACCURACY], replace(pair, clusters=None), seed=1)[0].p


def percentiles(pair: Pair) -> float:
    return two_level_bootstraps([ACCURACY], replace(pair, folds=None), resamples=300, seed=1, reference="percentile")[0].p


@pytest.mark.slow
def test_pooled_predictions_of_24_actors_keep_the_level_and_tell_more_than_five_folds():
    (level,) = rate("ravdess", 300, lambda random: learned(random, each=24, classes=4), default)
    power, fewer = rate("ravdess better", 60, lambda random: learned(random, each=24, classes=4, better=0.15), default, corrected)
    assert level <= MOST
    assert power > fewer + 0.2


@pytest.mark.slow
def test_five_times_five_folds_keep_the_level_where_the_plain_t_does_not():
    level, plain = rate("5x5", 150, lambda random: learned(random, actors=300, each=1, classes=2, runs=5), default, plain_t)
    assert level <= MOST < 0.2 < plain


@pytest.mark.slow
def test_few_actors_are_swapped_where_resampling_them_would_reject_too_much():
    level, resampled = rate("six actors", 200, lambda random: learned(random, actors=6, each=24, classes=4, folds=3), default, percentiles)
    assert level <= MOST < resampled


def test_five_actors_reject_nothing():
    level, resampled = rate("five actors", 80, lambda random: learned(random, actors=5, each=24, classes=4, folds=5), default, percentiles)
    assert level == 0 < resampled


@pytest.mark.slow
def test_hold_out_draws_keep_the_level_where_the_plain_t_does_not():
    level, plain = rate("draws", 100, lambda random: drawn(random), default, plain_t)
    assert level <= MOST < plain
