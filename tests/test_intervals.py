"""Intervals over clips: BCa against SciPy's, jackknife errors against their definitions, coverage by simulation."""

from __future__ import annotations

from dataclasses import replace
from math import isnan, sqrt

import numpy as np
import pytest
import scipy.stats as ss
from simulated_pairs import rng, systems

from harness.analysis.intervals import bca, bca_difference, bca_interval
from harness.analysis.jackknife import jackknife_precision, leave_one_out
from harness.analysis.resamples import cluster_counts
from harness.analysis.statistics import Pair
from harness.training.metrics import metrics

MAE, CORR, ACC2, UAR = (metrics[name] for name in ("mae", "corr", "acc2_nonneg", "uar"))


@pytest.mark.parametrize("level", [0.95, 0.8])
def test_bca_is_scipys_of_the_same_resamples(level: float):
    x = rng("bca").exponential(size=25)  # skewed: bias and acceleration are not 0
    want = ss.bootstrap((x,), np.mean, n_resamples=2000, confidence_level=level, method="BCa", rng=np.random.default_rng(3))
    left = (x.sum() - x) / 24
    got = bca(float(x.mean()), want.bootstrap_distribution, left, level)
    assert got == pytest.approx((want.confidence_interval.low, want.confidence_interval.high), rel=1e-9)
    plain = np.quantile(want.bootstrap_distribution, [(1 - level) / 2, (1 + level) / 2])
    assert abs(got[1] - plain[1]) > 0.01  # not the percentiles


def test_bca_of_a_symmetric_sample_is_the_percentiles():
    draws = np.linspace(-1, 1, 2001)
    assert bca(0.0, draws, np.array([-1.0, 0.0, 1.0])) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])), abs=1e-9)


def test_bca_of_degenerate_resamples():
    assert bca(0.7, np.full(100, 0.7), np.full(5, 0.7)) == (0.7, 0.7)
    assert all(map(isnan, bca(2.0, np.linspace(0, 1, 100), np.arange(5.0))))


def literal(metric, pair: Pair, resamples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A - B on resamples of whole clusters, and without each cluster, scored afresh."""
    names = np.unique(pair.clusters)
    members = [np.flatnonzero(pair.clusters == name) for name in names]

    def difference(clips: np.ndarray) -> float:
        return float(
            np.mean(
                [
                    metric.score(a[clips], pair.truth[clips]) - metric.score(b[clips], pair.truth[clips])
                    for a, b in zip(pair.a, pair.b, strict=True)
                ]
            )
        )

    counts = np.concatenate(list(cluster_counts(len(names), resamples, seed, 50))).astype(int)
    drawn = [difference(np.concatenate([np.tile(rows, times) for rows, times in zip(members, row, strict=True)])) for row in counts]
    return np.array(drawn), np.array([difference(np.flatnonzero(pair.clusters != name)) for name in names])


@pytest.mark.parametrize("metric", [MAE, CORR, ACC2], ids=lambda metric: metric.name)
def test_intervals_draw_whole_clusters(metric):
    pair = systems(rng("clusters"), videos=13, seeds=2)
    drawn, left = literal(metric, pair, 200, 4)
    got = bca_difference(metric, pair, resamples=200, seed=4)
    assert (got.low, got.high) == pytest.approx(bca(got.estimate, drawn, left), abs=1e-10)
    assert (got.drawn, got.units, got.note) == ("clusters", 13, "")
    one = bca_interval(metric, pair.a, pair.truth, pair.clusters, resamples=200, seed=4)
    other = bca_interval(metric, pair.b, pair.truth, pair.clusters, resamples=200, seed=4)
    assert one.estimate - other.estimate == pytest.approx(got.estimate) and one.low < one.estimate < one.high


def test_one_run_of_independent_clips_agrees_with_scipys_bootstrap():
    """Both draw clips; 4000 resamples put a 2.5 % quantile within 5 % of the interval's width."""
    pair = replace(systems(rng("clips"), seeds=1), clusters=None)
    errors = np.abs(pair.a - pair.truth)[0]
    got = bca_interval(MAE, pair.a[0], pair.truth, resamples=4000, seed=1)
    want = ss.bootstrap((errors,), np.mean, n_resamples=4000, method="BCa", rng=np.random.default_rng(1)).confidence_interval
    assert (got.low, got.high) == pytest.approx(tuple(want), abs=0.05 * (want.high - want.low)) and got.drawn == "clips"


def test_few_clusters_constant_predictions_and_lone_classes_have_no_interval():
    pair = systems(rng("refusals"), videos=8)
    few = bca_difference(MAE, pair, seed=1)
    assert isnan(few.low) and few.note == "none: 8 clusters are too few to be resampled" and not isnan(few.estimate)
    constant = bca_interval(CORR, np.zeros_like(pair.a), pair.truth, None, resamples=50, seed=1)
    assert isnan(constant.estimate) and isnan(constant.low) and "no value" in constant.note
    same = bca_difference(MAE, replace(pair, b=pair.a, clusters=None), resamples=50, seed=1)
    assert (same.estimate, same.low, same.high, same.note) == (0.0, 0.0, 0.0, "")
    truth = np.array([1.0] + [0.0] * 19)
    rare = bca_interval(metrics["acc2_nonzero"], np.ones(20), truth, resamples=100, seed=1)
    assert isnan(rare.low) and rare.note == "none: undefined without some clips"


# ---- the jackknife


def test_leaving_one_out_scores_what_is_left():
    pair = systems(rng("left"), videos=6, seeds=2)
    (table,) = pair.clustered([CORR])
    got = leave_one_out(CORR, table.a)
    for g, name in enumerate(np.unique(pair.clusters)):
        rest = pair.clusters != name
        assert got[g] == pytest.approx([CORR.score(run[rest], pair.truth[rest]) for run in pair.a], abs=1e-12)


def test_the_jackknifes_error_of_one_run_of_equal_clusters_is_the_means():
    """Clusters of one size: the error of a mean of cluster means, and G-1 degrees of freedom."""
    random = rng("one run")
    a, truth, video = random.normal(size=(1, 40)), np.zeros(40), np.repeat(np.arange(8), 5)
    (table,) = Pair(a, np.zeros((1, 40)), truth, video).clustered([MAE])
    means = np.abs(a).reshape(8, 5).mean(axis=1)
    assert jackknife_precision(table, True) == pytest.approx((means.std(ddof=1) / sqrt(8), 7))


@pytest.mark.parametrize("paired", [True, False])
def test_the_jackknifes_error_adds_clusters_and_seeds_and_takes_off_what_both_count(paired: bool):
    pair = systems(rng("two ways", int(paired)), videos=7, seeds=4)
    (table,) = pair.clustered([MAE])
    whole, left = table.values(), [leave_one_out(MAE, side) for side in (table.a, table.b)]
    samples = [(whole[0] - whole[1], left[0] - left[1])] if paired else [(whole[0], left[0]), (-whole[1], -left[1])]
    mean = sum(without.mean(axis=1) for _, without in samples)
    over_clusters = 6 / 7 * np.square(mean - mean.mean()).sum()
    over_seeds = [np.var(values, ddof=1) / 4 for values, _ in samples]
    both = 0.0
    for _, without in samples:
        d = without - without.mean(axis=0)
        both += 6 / 7 * np.square(d - d.mean(axis=1, keepdims=True)).sum() / (3 * 4)
    total = over_clusters + sum(over_seeds)
    error, df = jackknife_precision(table, paired)
    assert error == pytest.approx(sqrt(max(over_clusters, sum(over_seeds), total - both)), rel=1e-9)
    assert df == pytest.approx(total**2 / (over_clusters**2 / 6 + sum(v**2 / 3 for v in over_seeds)), rel=1e-9)


# ---- coverage


def test_intervals_hold_the_value_as_often_as_stated():
    """MAE of normal errors is sqrt(2/pi). 400 intervals of level .95 from 40 clips: at least .90 (4.6 standard errors less)."""
    random, truth = rng("coverage"), np.zeros(40)
    found = [bca_interval(MAE, random.normal(size=40), truth, resamples=500, seed=1) for _ in range(400)]
    assert 0.90 < np.mean([interval.low < sqrt(2 / np.pi) < interval.high for interval in found]) < 0.99
