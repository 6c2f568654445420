"""Tests that resample or swap clips: against literal resamples, closed forms, and what they do on equal systems."""

from __future__ import annotations

import itertools
from dataclasses import replace
from math import isnan, sqrt

import numpy as np
import pytest
import scipy.stats as ss
from simulated_pairs import rng, systems

from harness.analysis import bootstrap, resamples
from harness.analysis.resamples import cluster_counts
from harness.analysis.statistics import (
    Pair,
    cluster_sign_flip,
    compare,
    compare_seeds_only,
    mcnemar,
    two_level_bootstrap,
    two_level_bootstraps,
)
from harness.errors import DataError
from harness.seeds import generator
from harness.training.metrics import metrics

MAE, CORR, ACC2, ACC7 = (metrics[name] for name in ("mae", "corr", "acc2_nonneg", "acc7"))


def swapped(pair: Pair) -> Pair:
    return replace(pair, a=pair.b, b=pair.a)


# ---- the two-level bootstrap


def small(seeds_b: int = 3) -> Pair:
    random = rng("small", seeds_b)
    truth = random.normal(size=24)
    return Pair(
        truth + 0.5 * random.normal(size=(3, 24)),
        truth + 0.7 * random.normal(size=(seeds_b, 24)),
        truth,
        np.array(list("aaaaabbbccccccddddeeefff")),
        paired_seeds=seeds_b == 3,
    )


def literal_resamples(metric, pair: Pair, resamples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Values of all runs on each resample, by repeating the drawn videos' clips and scoring them afresh."""
    members = [np.flatnonzero(pair.clusters == name) for name in np.unique(pair.clusters)]
    found: tuple[list, list] = ([], [])
    for counts in np.concatenate(list(cluster_counts(len(members), resamples, seed, 7))).astype(int):
        clips = np.concatenate([np.tile(rows, times) for rows, times in zip(members, counts, strict=True)])
        for side, runs in zip(found, (pair.a, pair.b), strict=True):
            side.append([metric.score(run[clips], pair.truth[clips]) for run in runs])
    return np.array(found[0]), np.array(found[1])


@pytest.mark.parametrize("seeds_b", [3, 2])
@pytest.mark.parametrize("name", ["mae", "corr", "f1_nonneg", "acc7"])
def test_percentiles_are_those_of_a_literal_bootstrap(name, seeds_b):
    metric, pair = metrics[name], small(seeds_b)
    a, b = literal_resamples(metric, pair, 300, 5)
    random = generator(5, "two-level bootstrap", "seeds")
    rows = np.arange(300)[:, None]
    if pair.paired_seeds:
        values = (a - b)[rows, random.integers(3, size=(300, 3))].mean(1)
    else:
        values = a[rows, random.integers(3, size=(300, 3))].mean(1) - b[rows, random.integers(2, size=(300, 2))].mean(1)
    (got,) = two_level_bootstraps([metric], pair, resamples=300, seed=5, reference="percentile")
    # values that are equal but for rounding count to both tails
    p = 2 * (1 + min((values < 1e-9).sum(), (values > -1e-9).sum())) / 301
    assert got.p == pytest.approx(min(1.0, p)) and got.test == "two-level bootstrap, percentile"
    assert (got.low, got.high) == pytest.approx(tuple(np.percentile(values, [2.5, 97.5])), abs=1e-10)


@pytest.mark.parametrize("seeds_b", [3, 2])
def test_the_t_reference_is_its_formula_on_a_literal_bootstrap(seeds_b):
    """Variance components written out term by term; SciPy's t."""
    pair, clusters = small(seeds_b), 6
    a, b = literal_resamples(MAE, pair, 300, 5)
    whole = [np.array([MAE.score(run, pair.truth) for run in runs]) for runs in (pair.a, pair.b)]
    samples = [(whole[0] - whole[1], a - b)] if pair.paired_seeds else [(whole[0], a), (-whole[1], -b)]
    over_clusters = np.var(a.mean(1) - b.mean(1)) * 6 / 5
    over_seeds = [np.var(values, ddof=1) / len(values) for values, _ in samples]
    both = 0.0
    for values, drawn in samples:
        seeds = len(values)
        interaction = [[drawn[r, s] - drawn[r].mean() - values[s] + values.mean() for s in range(seeds)] for r in range(300)]
        both += np.mean(np.sum(np.square(interaction), axis=1)) / (seeds - 1) / seeds * 6 / 5
    error = sqrt(max(over_clusters, sum(over_seeds), over_clusters + sum(over_seeds) - both))
    parts = [(over_clusters, clusters - 1), *((v, len(s[0]) - 1) for v, s in zip(over_seeds, samples, strict=True))]
    df = sum(v for v, _ in parts) ** 2 / sum(v**2 / free for v, free in parts)
    difference = whole[0].mean() - whole[1].mean()
    (got,) = two_level_bootstraps([MAE], pair, resamples=300, seed=5)
    assert (got.difference, got.statistic, got.df) == pytest.approx((difference, difference / error, df), rel=1e-9)
    assert got.p == pytest.approx(max(1 / 301, 2 * ss.t.sf(abs(difference) / error, df)), rel=1e-9)
    assert (got.low + got.high) / 2 == pytest.approx(difference) and got.high == pytest.approx(difference + ss.t.ppf(0.975, df) * error)


def test_one_run_of_independent_clips_is_the_paired_t_test_over_clips():
    """MAE is a mean over clips, whose bootstrap error has a closed form: the mean's standard error.

    10,000 resamples estimate an error to 1/sqrt(20,000) = .7 %; 3 % is four of these.
    """
    pair = replace(systems(rng("closed form"), seeds=1), clusters=None)
    d = (np.abs(pair.a - pair.truth) - np.abs(pair.b - pair.truth))[0]
    got = two_level_bootstrap(MAE, pair.a, pair.b, pair.truth, None, seed=1)
    want = ss.ttest_1samp(d, 0)
    assert got.statistic == pytest.approx(want.statistic, rel=0.03) and got.df == pytest.approx(want.df)
    assert got.high - got.low == pytest.approx(np.ptp(want.confidence_interval(0.95)), rel=0.03)
    assert (got.conditional_on, got.seeds, got.clips, got.clusters) == ("one training run of each system", 1, len(d), None)


def test_the_resamples_do_not_depend_on_the_size_of_a_chunk(monkeypatch):
    monkeypatch.setattr(resamples, "_KEPT_COUNTS", 0)
    counts = [np.concatenate(list(cluster_counts(31, 100, 3, chunk))) for chunk in (1, 7, 100)]
    assert (counts[0] == counts[1]).all() and (counts[0] == counts[2]).all()
    assert (counts[0].sum(axis=1) == 31).all()


def test_metrics_share_the_resamples_and_do_not_change_each_other(monkeypatch):
    pair = systems(rng("together"))
    chosen = [metrics[name] for name in ("mae", "corr", "f1_nonneg", "acc7")]
    together = two_level_bootstraps(chosen, pair, resamples=400, seed=2)
    monkeypatch.setattr(resamples, "_CHUNK_NUMBERS", 2000)
    alone = [two_level_bootstrap(m, pair.a, pair.b, pair.truth, pair.clusters, resamples=400, seed=2) for m in chosen]
    for one, other in zip(together, alone, strict=True):
        assert one.p == pytest.approx(other.p, rel=1e-9) and one.low == pytest.approx(other.low, rel=1e-9)


@pytest.mark.parametrize("reference", ["t", "percentile"])
@pytest.mark.parametrize("seeds_b", [3, 2])
def test_swapping_the_systems_turns_the_sign_and_keeps_p(reference, seeds_b):
    pair = small(seeds_b)
    chosen = [MAE, CORR, ACC2]
    forth = two_level_bootstraps(chosen, pair, resamples=2000, seed=4, reference=reference)
    back = two_level_bootstraps(chosen, swapped(pair), resamples=2000, seed=4, reference=reference)
    # unpaired seeds are drawn in another order after the swap: p then keeps within 4 errors of 2,000 draws
    within = 4 * sqrt(0.25 / 2000) * 2 if reference == "percentile" and not pair.paired_seeds else 1e-9
    for one, other in zip(forth, back, strict=True):
        assert one.difference == pytest.approx(-other.difference, abs=1e-15) and one.p == pytest.approx(other.p, abs=within)
        if within < 1e-6:
            assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-12)


@pytest.mark.parametrize("reference", ["t", "percentile"])
def test_identical_systems_do_not_differ(reference):
    pair = systems(rng("identical"))
    for got in two_level_bootstraps([MAE, CORR, ACC2, ACC7], replace(pair, b=pair.a), resamples=500, seed=1, reference=reference):
        assert (got.difference, got.p, got.low, got.high) == (0.0, 1.0, 0.0, 0.0)


def test_a_deterministic_system_equals_its_copies():
    """One run against five copies of it, unpaired: sums differ by rounding, which is no difference."""
    pair = systems(rng("copies"), seeds=1)
    (got,) = two_level_bootstraps([MAE], replace(pair, b=np.repeat(pair.a, 5, axis=0), paired_seeds=False), resamples=500, seed=1)
    assert got.p == 1.0 and abs(got.difference) < 1e-14


def test_a_large_difference_is_found_and_p_ends_where_the_resamples_do():
    pair = systems(rng("large"), better=0.9)
    for got in two_level_bootstraps([MAE, CORR, ACC7], pair, seed=1):
        assert got.p < 0.001 and (got.low > 0 or got.high < 0) and got.conditional_on == ""
    exact = replace(pair, a=np.tile(pair.truth, (5, 1)), b=np.tile(pair.truth + 1, (5, 1)))
    (got,) = two_level_bootstraps([MAE], exact, resamples=999, seed=1)
    assert (got.difference, got.p) == (pytest.approx(-1.0), 1 / 1000)


def test_the_same_seed_gives_the_same_outcome_and_another_seed_another():
    pair = systems(rng("seed"))
    outcomes = []
    for seed in (1, 1, 2):
        resamples._values.cache_clear()
        outcomes += two_level_bootstraps([CORR], pair, resamples=300, seed=seed)
    assert outcomes[0] == outcomes[1] != outcomes[2]


def test_classes_are_compared_from_scores():
    random = rng("classes")
    truth = random.integers(4, size=120)
    good, poor = (strength * np.eye(4)[truth] + random.normal(size=(3, 120, 4)) for strength in (3.0, 1.0))
    for got in compare(
        [metrics[name] for name in ("accuracy", "uar", "f1_weighted")], Pair(good, poor, truth, np.arange(120) // 10), seed=1
    ):
        assert got.difference > 0.2 and got.p < 0.001 and got.seeds == 3


def test_an_undefined_metric_makes_no_claim():
    pair = systems(rng("undefined"))
    constant = np.zeros_like(pair.b)
    corr, mae = two_level_bootstraps([CORR, MAE], replace(pair, b=constant), resamples=300, seed=1)
    assert isnan(corr.p) and isnan(corr.difference) and corr.note == "undefined for 5 of 5 runs of B"
    assert mae.p < 0.05 and mae.note == ""


def test_a_metric_undefined_on_some_resamples_leaves_these_out_and_on_many_makes_no_claim():
    """Only one of G clusters has signs: acc2_nonzero is undefined when it is not drawn, with probability (1 - 1/G)^G."""
    truth = np.array([1.0, -1.0, 1.0] + [0.0] * 9)
    a, b = np.ones((1, 12)), -np.ones((1, 12))
    few = two_level_bootstrap(metrics["acc2_nonzero"], a, b, truth, np.arange(12) // 3, resamples=500, seed=1)
    assert isnan(few.p) and "of the resamples" in few.note and few.difference == pytest.approx(1 / 3)
    truth[3:] = [1, 1, -1, 1, -1, 1, 0, 0, 0]
    some = two_level_bootstrap(metrics["acc2_nonzero"], a, b, truth, np.arange(12) // 3, resamples=500, seed=1)
    assert not isnan(some.p) and "left out" in some.note  # (1/4)^4 = .4 % of the resamples draw nothing but the last


def test_one_cluster_cannot_be_resampled():
    got = two_level_bootstrap(MAE, np.ones((2, 3)), np.zeros((2, 3)), np.zeros(3), ["v"] * 3, resamples=10, seed=1)
    assert isnan(got.p) and got.clusters == 1 and "one cluster" in got.note


def test_what_cannot_be_paired_is_refused():
    truth = np.zeros(4)
    with pytest.raises(DataError, match="3 runs of one system and 2 of the other"):
        two_level_bootstrap(MAE, np.zeros((3, 4)), np.zeros((2, 4)), truth, None, seed=1)
    with pytest.raises(DataError, match="cluster labels of shape"):
        two_level_bootstrap(MAE, np.zeros((2, 4)), np.zeros((2, 4)), truth, ["v"] * 3, seed=1)
    with pytest.raises(DataError, match="5 predictions for 4 labels"):
        two_level_bootstrap(MAE, np.zeros((2, 5)), np.zeros((2, 4)), truth, None, seed=1)
    with pytest.raises(DataError, match="neither"):
        two_level_bootstrap(MAE, np.zeros((2, 2, 4)), np.zeros((2, 2, 4)), truth, None, seed=1)


# ---- equal systems: how often is a difference claimed?

REPLICATIONS = 400
# 400 replications of a test of size .05 reject more than 32 (.08) with probability .4 %; the streams are fixed
MOST = 0.08


def rejections(name: str, test, **world: float) -> float:
    return float(np.mean([test(systems(rng(name, replication), **world)) < 0.05 for replication in range(REPLICATIONS)]))


def bootstrap_p(pair: Pair, reference: bootstrap.Reference = "t") -> float:
    return two_level_bootstraps([MAE], pair, resamples=500, seed=1, reference=reference)[0].p


def seeds_only_p(pair: Pair) -> float:
    return compare_seeds_only([MAE], pair)[0].p


def test_the_bootstrap_keeps_its_level_where_the_t_test_over_seeds_does_not():
    """686 clips of 31 videos, 5 seeds: errors on a clip repeat over seeds, so five seeds are five looks at one sample of clips."""
    assert rejections("level", bootstrap_p) <= MOST
    assert rejections("level", seeds_only_p) > 0.3


def test_the_bootstrap_keeps_its_level_with_few_videos_where_percentiles_do_not():
    assert rejections("few", bootstrap_p, videos=6) <= MOST < rejections("few", lambda pair: bootstrap_p(pair, "percentile"), videos=6)


def test_the_bootstrap_is_not_blind_where_seeds_differ_clip_by_clip():
    """Resampling both levels counts such noise three times and hardly ever rejects; two-way clustering counts it once.

    A test of size .05 rejects fewer than 8 (.02) of 400 with probability .03 %.
    """
    rate = rejections("noise", bootstrap_p, own=0.1, seed_noise=0.8)
    assert 0.02 <= rate <= MOST
    assert rejections("noise", lambda pair: bootstrap_p(pair, "percentile"), own=0.1, seed_noise=0.8) < rate


# ---- swapping


def literal_swaps(metric, pair: Pair) -> np.ndarray:
    names = np.unique(pair.clusters)
    found = []
    for pattern in itertools.product([False, True], repeat=len(names)):
        swap = np.isin(pair.clusters, names[list(pattern)])
        a, b = np.where(swap, pair.b, pair.a), np.where(swap, pair.a, pair.b)
        found.append(np.mean([metric.score(x, pair.truth) - metric.score(y, pair.truth) for x, y in zip(a, b, strict=True)]))
    return np.array(found)


@pytest.mark.parametrize("name", ["mae", "corr", "acc2_nonneg", "f1_nonzero"])
def test_the_sign_flip_test_of_few_clusters_tries_every_swap(name):
    metric, pair = metrics[name], small()
    differences = literal_swaps(metric, pair)
    got = cluster_sign_flip(metric, pair.a, pair.b, pair.truth, pair.clusters, seed=1)
    assert got.p == pytest.approx(np.mean(np.abs(differences) >= abs(differences[0]) - 1e-12))
    assert got.difference == pytest.approx(differences[0]) and got.test.endswith("exact") and got.conditional_on == "these training runs"


def test_the_sign_flip_test_of_single_clips_is_mcnemars():
    random = rng("flip")
    truth = np.where(random.random(14) < 0.5, -1.0, 1.0)
    a, b = truth.copy(), np.where(np.arange(14) < 6, -truth, truth)
    assert cluster_sign_flip(ACC2, a, b, truth, None, seed=1).p == pytest.approx(mcnemar(ACC2, a, b, truth).p)
    assert mcnemar(ACC2, a, b, truth).p == pytest.approx(2 / 2**6)


def test_the_sign_flip_test_of_many_clusters_draws_swaps():
    """The signs of 20 unequal sums: exact by counting 2^20 patterns of the MAE's per-video differences."""
    random = rng("many")
    truth, video = np.zeros(60), np.repeat(np.arange(20), 3)
    a, b = 1 + 0.2 * random.random((2, 60)), 1.03 + 0.2 * random.random((2, 60))
    per_video = np.add.reduceat((a - b).mean(axis=0), np.arange(0, 60, 3))
    sums = np.zeros(1)
    for value in per_video:
        sums = np.concatenate([sums + value, sums - value])
    exact = np.mean(np.abs(sums) >= abs(per_video.sum()) - 1e-12)
    got = cluster_sign_flip(MAE, a, b, truth, video, resamples=4000, seed=1)
    assert 0.001 < exact < 0.5
    assert got.p == pytest.approx(exact, abs=4 * sqrt(exact / 4000)) and got.p >= 1 / 4001
    assert cluster_sign_flip(MAE, b, a, truth, video, resamples=4000, seed=1).p == pytest.approx(got.p)
    assert cluster_sign_flip(MAE, a, a, truth, video, resamples=100, seed=1).p == 1.0


def test_the_sign_flip_test_refuses_runs_that_cannot_be_swapped():
    with pytest.raises(DataError, match="differ in number or in classes"):
        cluster_sign_flip(metrics["uar"], np.array([0, 1]), np.array([0, 2]), np.array([0, 1]), None, seed=1)
