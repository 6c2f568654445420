"""Sources of variance against ANOVA tables, quadratic forms and simulated effects; power against SciPy and known sizes."""

from __future__ import annotations

from dataclasses import replace
from math import inf, isnan, sqrt

import numpy as np
import pytest
import scipy.stats as ss
from simulated_pairs import rng, systems

from harness.analysis import variance
from harness.analysis.power import plan_seeds, t_power
from harness.analysis.statistics import UNTESTED, Pair, two_level_bootstraps
from harness.analysis.variance import components, decompose
from harness.errors import DataError
from harness.training.metrics import metrics

MAE, CORR, ACC7 = (metrics[name] for name in ("mae", "corr", "acc7"))


# ---- components


def test_a_balanced_crossed_table_is_the_analysis_of_variance():
    s, g = 5, 12
    y = rng("anova").normal(size=(s, g)) + 2 * rng("rows").normal(size=(s, 1)) + 3 * rng("columns").normal(size=g)
    rows, columns = y.mean(axis=1, keepdims=True), y.mean(axis=0)
    ms_rest = np.square(y - rows - columns + y.mean()).sum() / (s - 1) / (g - 1)
    ms_rows, ms_columns = g * np.var(rows, ddof=1), s * np.var(columns, ddof=1)
    got = components(y.ravel(), {"seed": np.repeat(np.arange(s), g), "clip": np.tile(np.arange(g), s)})
    assert got == pytest.approx({"seed": (ms_rows - ms_rest) / g, "clip": (ms_columns - ms_rest) / s, "rest": ms_rest}, rel=1e-9)


def test_expectations_are_the_traces_of_the_quadratic_forms():
    """E[y' (P_row - P_1) y] for y = Z u with unit variances is tr((P_row - P_1) Z Z'): unbalanced, crossed and nested."""
    random = rng("traces")
    video = np.sort(random.integers(4, size=30))
    for row, column in ((random.integers(3, size=30), random.integers(5, size=30)), (video, np.arange(30)), (np.arange(30) // 2, video)):
        row, column = (np.unique(labels, return_inverse=True)[1] for labels in (row, column))
        z = np.eye(row.max() + 1)[row]
        form = z @ np.linalg.inv(z.T @ z) @ z.T - 1 / 30
        effects = np.eye(column.max() + 1)[column]
        expected = np.trace(form @ effects @ effects.T)
        assert variance._expected([row, column])[0, 1] == pytest.approx(expected, rel=1e-9)
        assert variance._expected([column, row])[1, 0] == pytest.approx(expected, rel=1e-9)
        y = random.normal(size=30)
        assert variance._squares(y - y.mean(), row) == pytest.approx(y @ form @ y, rel=1e-9)


def test_components_are_unbiased_in_unbalanced_nested_data():
    """Seeds (4) crossed with clips (60) in videos (8) of unequal size: true variances 1, 2, 3 and 4, means of 400 data sets."""
    random = rng("unbalanced")
    video = np.repeat(np.arange(8), [2, 3, 5, 6, 8, 10, 12, 14])
    seed, clip = np.repeat(np.arange(4), 60), np.tile(np.arange(60), 4)
    found = []
    for _ in range(400):
        y = random.normal(size=4)[seed] + sqrt(2) * random.normal(size=8)[video[clip]] + sqrt(3) * random.normal(size=60)[clip]
        found.append(components(y + 2 * random.normal(size=240), {"seed": seed, "video": video[clip], "clip": clip}))
    for name, true in {"seed": 1, "video": 2, "clip": 3, "rest": 4}.items():
        values = np.array([one[name] for one in found])
        # truncation at 0 is rare here; 4 standard errors of the mean of 400
        assert values.mean() == pytest.approx(true, abs=4 * values.std() / 20), name


def test_effects_that_are_not_there_are_zero_and_never_negative():
    random = rng("zero")
    seed, clip = np.repeat(np.arange(3), 50), np.tile(np.arange(50), 3)
    found = [components(random.normal(size=150), {"seed": seed, "clip": clip}) for _ in range(50)]
    assert min(min(one.values()) for one in found) == 0.0 and np.mean([one["seed"] == 0 for one in found]) > 0.3
    exact = components(np.tile(random.normal(size=50), 3), {"seed": seed, "clip": clip})
    assert exact["rest"] == 0 and exact["seed"] == 0 and exact["clip"] > 0.5


def test_factors_that_split_alike_are_refused_by_name():
    with pytest.raises(DataError, match="seed, video cannot be told apart"):
        components(np.arange(6.0), {"seed": np.array([0, 0, 1, 1, 2, 2]), "video": np.array([5, 5, 3, 3, 4, 4])})
    with pytest.raises(DataError, match="at least two levels"):
        components(np.arange(6.0), {"seed": np.zeros(6)})


# ---- of a pair


def by_name(found: variance.Decomposition) -> dict[str, float]:
    return {part.name: part.variance for part in found.parts}


def test_a_mean_over_clips_is_taken_apart_clip_by_clip():
    pair = systems(rng("apart"))
    values = np.abs(pair.a - pair.truth) - np.abs(pair.b - pair.truth)
    seeds, clips = values.shape
    factors = {"seed": np.repeat(np.arange(seeds), clips), "video": np.tile(pair.clusters, seeds), "clip": np.tile(np.arange(clips), seeds)}
    want = components(values.ravel(), factors)
    got = decompose(MAE, pair, groups_are="video")
    assert by_name(got) == pytest.approx({**{name: want[name] for name in factors}, "seed x clip": want["rest"]}, rel=1e-6, abs=1e-12)
    assert got.difference == pytest.approx(values.mean()) and sum(part.share for part in got.parts) == pytest.approx(1.0)
    sizes = np.unique(pair.clusters, return_counts=True)[1] / clips
    error2 = want["seed"] / 5 + want["video"] * (sizes**2).sum() + want["clip"] / clips + want["rest"] / clips / 5
    assert got.error == pytest.approx(sqrt(error2), rel=1e-6)
    assert got.share("clip") == pytest.approx(want["clip"] / clips / error2, rel=1e-6) and got.share("nothing") == 0.0


def test_any_metric_is_taken_apart_by_leaving_clips_out():
    pair = systems(rng("pseudo"), videos=2, seeds=2)
    n = pair.clips
    pseudo = [
        [n * CORR.score(run, pair.truth) - (n - 1) * CORR.score(np.delete(run, i), np.delete(pair.truth, i)) for i in range(n)]
        for run in (*pair.a, *pair.b)
    ]
    y = np.array(pseudo[:2]) - np.array(pseudo[2:])
    want = components(y.ravel(), {"seed": np.repeat([0, 1], n), "clip": np.tile(np.arange(n), 2)})
    got = by_name(decompose(CORR, replace(pair, clusters=None)))
    assert got == pytest.approx({"seed": want["seed"], "clip": want["clip"], "seed x clip": want["rest"]}, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("metric", [MAE, CORR, ACC7], ids=lambda metric: metric.name)
def test_the_parts_add_up_to_the_error_of_the_test(metric):
    """Two estimates of one variance from the same data; they weigh videos differently and truncate at 0: within 25 %."""
    pair = systems(rng("error", metric.name))
    (test,) = two_level_bootstraps([metric], pair, resamples=2000, seed=1)
    assert decompose(metric, pair).error == pytest.approx(test.difference / test.statistic, rel=0.25)


def test_folds_and_repeats_are_sources_of_their_own():
    """Runs that are off by N(0, .2^2) in each fold, the same for all its clips: that variance is found, and none else."""
    random = rng("folds")
    truth, found = np.zeros(200), []
    for _ in range(40):
        folds = np.stack([random.permutation(np.arange(200) % 5) for _ in range(4)])
        off = 0.2 * random.normal(size=(4, 5))[np.arange(4)[:, None], folds]
        b = 3 + 0.5 * random.normal(size=200) + 0.1 * random.normal(size=(4, 200))
        found.append(by_name(decompose(MAE, Pair(b + off, np.full((4, 200), 3.0), truth, folds=folds))))
    means = {name: np.mean([one[name] for one in found]) for name in found[0]}
    assert set(means) == {"seed", "fold", "clip", "seed x clip"}
    # 40 x 20 folds: the mean of a variance has a relative error of sqrt(2 / 640) = .056; three of these
    assert means["fold"] == pytest.approx(0.04, rel=0.17) and means["clip"] == pytest.approx(0.25, rel=0.1)
    assert means["seed x clip"] == pytest.approx(0.01, rel=0.05) and means["seed"] < 0.005


def test_clips_that_a_draw_did_not_test_do_not_count():
    random = rng("draws")
    truth, a = random.normal(size=60), random.normal(size=(4, 60))
    folds = np.where(np.stack([random.permutation(60) for _ in range(4)]) < 30, 1, UNTESTED)
    pair = Pair(a, np.zeros((4, 60)), truth, folds=folds)
    spoiled = Pair(np.where(folds == UNTESTED, 1e3, a), np.zeros((4, 60)), truth, folds=folds)
    one, other = decompose(MAE, pair), decompose(MAE, spoiled)
    want = [MAE.score(a[s][folds[s] == 1], truth[folds[s] == 1]) - MAE.score(np.zeros(30), truth[folds[s] == 1]) for s in range(4)]
    assert one.difference == pytest.approx(np.mean(want)) and by_name(one) == pytest.approx(by_name(other), rel=1e-6, abs=1e-12)


def test_one_run_knows_nothing_of_seeds():
    pair = systems(rng("one"), seeds=1)
    got = decompose(MAE, pair, groups_are="video")
    assert [part.name for part in got.parts] == ["video", "clip"] and got.plan is None and got.error > 0


def test_what_cannot_be_taken_apart_says_why():
    pair = systems(rng("why"))
    unpaired = decompose(MAE, replace(pair, b=pair.b[:3], paired_seeds=False))
    assert unpaired.parts == () and isnan(unpaired.error) and "share no seeds" in unpaired.note and not isnan(unpaired.difference)
    assert "undefined for a run" in decompose(CORR, replace(pair, a=np.zeros_like(pair.a))).note
    same = decompose(MAE, replace(pair, a=pair.b))
    assert same.parts == () and "same amount" in same.note and same.difference == 0
    shifted = decompose(MAE, Pair(np.full((2, 5), 2.0), np.full((2, 5), 1.0), np.zeros(5)))
    assert "same amount" in shifted.note and shifted.difference == 1.0
    with pytest.raises(DataError, match="5 predictions for 4 labels"):
        decompose(MAE, Pair(np.zeros((2, 5)), np.zeros((2, 5)), np.zeros(4)))


# ---- power and plans


def test_power_is_that_of_the_noncentral_t():
    nc, df = np.meshgrid([0.0, 0.5, 2.0, 3.5, 8.0], [2.0, 4.0, 9.5, 30.0])
    critical = ss.t.ppf(0.975, df)
    want = ss.nct.sf(critical, df, nc) + ss.nct.cdf(-critical, df, nc)
    assert t_power(nc, df) == pytest.approx(want, abs=1e-8) and t_power(0.0, 7.0) == pytest.approx(0.05)
    assert t_power(1e6, 4.0) == pytest.approx(1.0, abs=1e-6) and t_power(-2.0, 9.0) == t_power(2.0, 9.0)


@pytest.mark.parametrize(("dz", "pairs"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_seeds_needed_are_the_known_sizes_of_paired_t_tests(dz: float, pairs: int):
    """Small, medium and large effects at .05 and 80 % power, two-sided: the sizes that every power table prints."""
    plan = plan_seeds(dz, 0.0, 31, 1.0, 5)
    assert (plan.seeds, plan.seeds_here, plan.clips) == (pairs, pairs, 0.0)


def test_clips_put_a_bound_on_what_seeds_can_do():
    plan = plan_seeds(0.01, 0.008**2, 31, 0.005**2, 5)
    assert plan.seeds is None and plan.seeds_here is not None and plan.seeds_here < 10
    assert 4 < plan.clips < 6  # 2.9 standard errors are needed: (2.9 * .8)^2
    for factor, enough in ((plan.clips * 1.01, True), (plan.clips * 0.97, False)):
        power = t_power(0.01 / sqrt(0.008**2 / factor), 31 * factor - 1)
        assert (power >= 0.8) == enough
    easy = plan_seeds(0.05, 0.008**2, 31, 0.005**2, 5)
    assert easy.seeds == 2 and easy.clips < 1 and easy.detectable == plan.detectable


def test_the_detectable_difference_would_be_found_with_that_power():
    """20,000 repetitions of a paired t-test over 6 seeds: the rate of rejections has an error of .003."""
    plan = plan_seeds(0.1, 0.0, 31, 4.0, 6)
    d = plan.detectable + 2 * rng("power").normal(size=(20_000, 6))
    assert (ss.ttest_1samp(d, 0, axis=1).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.012)


def test_no_difference_and_no_noise_are_planned_for_without_a_nan():
    none = plan_seeds(0.0, 0.01, 31, 0.01, 5)
    assert none.seeds is None and none.seeds_here is None and isnan(none.clips) and none.detectable > 0
    certain = plan_seeds(0.1, 0.0, 31, 0.0, 5)
    assert (certain.seeds, certain.seeds_here, certain.detectable, certain.clips) == (2, 2, 0.0, 0.0)
    assert plan_seeds(1e-9, 1.0, 31, 1.0, 5).clips == inf


def test_more_seeds_are_needed_for_smaller_differences():
    needed = [plan_seeds(d, 1e-6, 31, 0.01, 5).seeds for d in (0.2, 0.1, 0.05, 0.02)]
    assert None not in needed and needed == sorted(needed) and needed[0] < needed[-1]
