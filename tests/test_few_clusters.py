"""The test for few clusters, and which designs get it."""

from __future__ import annotations

from dataclasses import replace
from math import isnan

import numpy as np
import pytest
import scipy.stats as ss
from simulated_pairs import rng, systems

from harness.analysis.jackknife import jackknife_precision
from harness.analysis.statistics import FEW_CLUSTERS, Pair, cluster_sign_flip, compare, few_clusters
from harness.training.metrics import metrics

MAE, CORR, ACC2, UAR = (metrics[name] for name in ("mae", "corr", "acc2_nonneg", "uar"))


def test_eleven_clusters_are_swapped_and_twelve_resampled():
    for videos, name in ((FEW_CLUSTERS - 1, "cluster sign-flip"), (FEW_CLUSTERS, "two-level bootstrap")):
        for seeds in (1, 5):
            for got in compare([MAE, CORR, ACC2], systems(rng("few or not", videos), videos=videos, seeds=seeds), resamples=100, seed=1):
                assert got.test.startswith(name) and got.clusters == videos
    few_clips = Pair([[1.0, 2.0, 3.0, 4.0]], [[1.0, 2.0, 3.0, 5.0]], [1.0, 2.0, 2.0, 2.0])
    assert compare([MAE], few_clips, seed=1)[0].test.startswith("cluster sign-flip")


def test_one_run_is_the_sign_flip_with_the_jackknifes_interval():
    pair = systems(rng("one run"), videos=8, seeds=1)
    got = few_clusters(MAE, pair, seed=1)
    flip = cluster_sign_flip(MAE, pair.a, pair.b, pair.truth, pair.clusters, seed=1)
    error, df = jackknife_precision(pair.clustered([MAE])[0], True)
    assert (got.p, got.test, got.conditional_on) == (flip.p, "cluster sign-flip, exact", "one training run of each system")
    assert (got.low, got.high) == pytest.approx(ss.t.interval(0.95, df, got.difference, error)) and got.note == ""


@pytest.mark.parametrize("paired", [True, False])
def test_several_runs_must_pass_both(paired: bool):
    ps = set()
    for case in range(12):
        pair = replace(systems(rng("both", case), videos=7, better=0.1 * (case % 3), seed_noise=0.5 * (case % 4)), paired_seeds=paired)
        got = few_clusters(MAE, pair, seed=1)
        flip = cluster_sign_flip(MAE, pair.a, pair.b, pair.truth, pair.clusters, seed=1).p
        error, df = jackknife_precision(pair.clustered([MAE])[0], paired)
        t = float(2 * ss.t.sf(abs(got.difference) / error, df))
        assert got.p == pytest.approx(max(flip, t)) and got.conditional_on == "" and "jackknife" in got.test
        ps.add(flip > t)
    assert ps == {True, False}  # either decides now and then


def test_a_lucky_seed_does_not_make_a_difference():
    """One run of three is far better on every clip: swaps alone are sure of it, and the seeds say otherwise."""
    pair = systems(rng("lucky"), videos=8, seeds=3)
    lucky = replace(pair, b=pair.b + np.array([0.0, 0.0, 2.5])[:, None])
    flip = cluster_sign_flip(MAE, lucky.a, lucky.b, lucky.truth, lucky.clusters, seed=1)
    assert flip.p < 0.05 < few_clusters(MAE, lucky, seed=1).p


def test_five_clusters_cannot_reject_and_say_so():
    pair = systems(rng("five"), videos=5, better=0.95)
    got = few_clusters(MAE, pair, seed=1)
    assert got.p == 2 / 2**5 and got.note == "p cannot fall below 0.0625 with 5 clusters"


def test_refusals_have_a_name():
    pair = systems(rng("refused"), videos=6)
    unequal = few_clusters(MAE, replace(pair, b=pair.b[:3], paired_seeds=False), seed=1)
    assert isnan(unequal.p) and "cannot be swapped" in unequal.note and not isnan(unequal.difference)
    constant = few_clusters(CORR, replace(pair, b=np.zeros_like(pair.b)), seed=1)
    assert isnan(constant.p) and constant.note == "undefined for 5 of 10 runs"
    single = few_clusters(MAE, replace(pair, clusters=np.zeros(pair.clips)), seed=1)
    assert isnan(single.p) and "one cluster" in single.note
    same = few_clusters(MAE, replace(pair, b=pair.a), seed=1)
    assert (same.difference, same.p) == (0.0, 1.0)
    # all signs lie in one cluster: without it there are none to score
    truth = np.array([1.0, -1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    lone = few_clusters(metrics["acc2_nonzero"], Pair(np.ones((2, 8)), -np.ones((2, 8)), truth, np.arange(8) // 2), seed=1)
    assert isnan(lone.p) and lone.note == "undefined when some cluster is left out"


def test_clusters_that_all_agree_have_the_smallest_p_there_is():
    truth, video = np.zeros(24), np.repeat(np.arange(8), 3)
    got = few_clusters(MAE, Pair(np.full((1, 24), 1.0), np.full((1, 24), 2.0), truth, video), seed=1)
    assert got.p == 2 / 2**8 and got.difference == -1.0
    tied = few_clusters(UAR, Pair(np.zeros(24), np.zeros(24), np.arange(24) % 2, video), seed=1)
    assert (tied.p, tied.difference) == (1.0, 0.0)
