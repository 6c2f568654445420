"""Classical tests and effect sizes against SciPy, brute force and hand formulae; the choice of test by design."""

from __future__ import annotations

import itertools
from dataclasses import replace
from math import isnan, nan, sqrt

import numpy as np
import pytest
import scipy.stats as ss
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_folds import learned
from simulated_pairs import rng, systems

from harness.analysis.statistics import (
    DEFAULT_TESTS,
    UNTESTED,
    Comparison,
    Design,
    Pair,
    a12,
    compare,
    compare_seeds_only,
    corrected_t,
    default_test,
    dz,
    holm,
    iqm,
    mcnemar,
    paired_t,
    rank_biserial,
    t_interval,
    two_level_bootstraps,
    wilcoxon,
)
from harness.data.schema import Task
from harness.errors import DataError
from harness.training.metrics import default_metrics, metrics

MAE, CORR, ACC2, ACC7 = (metrics[name] for name in ("mae", "corr", "acc2_nonneg", "acc7"))
VALUES = st.lists(st.tuples(st.integers(-8, 8), st.integers(-8, 8)), min_size=2, max_size=12).map(lambda pairs: np.array(pairs) / 8)


# ---- t-tests


@given(VALUES)
def test_paired_t_agrees_with_scipy(values):
    a, b = values.T
    got = paired_t(a, b, metric="mae")
    if len(set(a - b)) > 1:
        want = ss.ttest_rel(a, b)
        interval = want.confidence_interval(0.95)
        assert (got.p, got.statistic, got.df) == pytest.approx((want.pvalue, want.statistic, want.df), rel=1e-9)
        assert (got.low, got.high) == pytest.approx((interval.low, interval.high), rel=1e-9, abs=1e-12)
    assert (got.difference, got.seeds, got.conditional_on) == (pytest.approx((a - b).mean()), len(a), "this test set")


@pytest.mark.parametrize(
    ("a", "b", "p", "note"),
    [
        ([0.3], [0.2], nan, "at least 2"),
        ([0.8, 0.9, 0.7], [0.8, 0.9, 0.7], 1.0, ""),
        ([0.1, 0.2, 0.3], [0.2, 0.3, 0.4], nan, "same amount"),  # 0.1 - 0.2 and 0.3 - 0.4 differ by rounding only
        ([0.8, nan, 0.7], [0.7, 0.8, 0.6], nan, "1 of 3 runs"),
    ],
)
def test_paired_t_says_where_it_does_not_apply(a, b, p, note):
    got = paired_t(a, b)
    assert got.p == pytest.approx(p, nan_ok=True) and note in got.note and isnan(got.low)


def test_values_that_form_no_pairs_are_refused():
    for test in (paired_t, wilcoxon):
        with pytest.raises(DataError, match="do not form pairs"):
            test([0.1, 0.2], [0.1])


def test_corrected_t_is_the_hand_formula():
    """10 differences of 2 x 5-fold cross-validation: n_test / n_train = 1/4, so t = mean / (s sqrt(1/10 + 1/4)), df 9."""
    d = np.array([0.02, 0.01, 0.03, -0.01, 0.02, 0.04, 0.00, 0.01, 0.02, 0.01])
    got = corrected_t(d, 60, 240, metric="uar")
    t = 0.015 / (sqrt(sum((x - 0.015) ** 2 for x in d) / 9) * sqrt(0.35))
    assert (got.statistic, got.df, got.p) == pytest.approx((t, 9, 2 * ss.t.sf(t, 9)), rel=1e-12)
    assert got.high - got.low == pytest.approx(2 * ss.t.ppf(0.975, 9) * 0.015 / t, rel=1e-9)
    assert got.p > paired_t(d, np.zeros(10)).p and got.conditional_on == ""


def test_corrected_t_without_overlap_is_the_plain_t():
    d = rng("t").normal(size=12)
    assert corrected_t(d, 1e-12, 1.0).p == pytest.approx(ss.ttest_1samp(d, 0).pvalue, rel=1e-9)


def test_t_interval_agrees_with_scipy():
    x = rng("interval").normal(size=5)
    assert t_interval(x) == pytest.approx(ss.t.interval(0.95, 4, x.mean(), ss.sem(x)), rel=1e-12)
    assert t_interval(x, 0.8) == pytest.approx(ss.t.interval(0.8, 4, x.mean(), ss.sem(x)), rel=1e-12)
    assert all(map(isnan, t_interval([0.3])))


# ---- ranks, counts, families


@given(st.permutations(range(1, 10)), st.lists(st.booleans(), min_size=9, max_size=9))
def test_wilcoxon_agrees_with_scipy_without_ties(ranks, signs):
    d = np.where(signs, ranks, np.negative(ranks)) / 16
    want = ss.wilcoxon(d, method="exact")
    got = wilcoxon(d, np.zeros(9))
    assert (got.p, got.statistic) == pytest.approx((want.pvalue, want.statistic), rel=1e-12)


@given(VALUES)
@settings(max_examples=50)
def test_wilcoxon_with_ties_and_zeros_is_the_share_of_all_sign_patterns(values):
    a, b = values.T
    d = (a - b)[a != b]
    ranks = ss.rankdata(np.abs(d))
    smaller = min(ranks[d > 0].sum(), ranks[d < 0].sum())
    patterns = np.array(list(itertools.product([0, 1], repeat=len(d))))
    want = min(1.0, 2 * float(np.mean(patterns @ ranks <= smaller)))
    assert wilcoxon(a, b).p == pytest.approx(want, rel=1e-12)


def test_equal_differences_tie_in_wilcoxon_despite_rounding():
    """.3 - .2, .1 - .2 and .9 - .8 differ in size in the last digit; ranked apart, the smaller rank sum would be 3."""
    assert wilcoxon([0.3, 0.1, 0.9], [0.2, 0.2, 0.8]).statistic == 2.0


def test_wilcoxon_says_when_its_p_cannot_get_small():
    got = wilcoxon([0.9, 0.8, 0.85, 0.7, 0.95], [0.1, 0.2, 0.3, 0.4, 0.6])
    assert got.p == 0.0625 and "0.0625" in got.note
    assert wilcoxon([0.5, 0.6], [0.5, 0.6]).p == 1.0


@given(st.lists(st.sampled_from([0.0, 0.001, 0.01, 0.02, 0.04, 0.05, 0.3, 1.0]), max_size=8))
def test_holm_is_the_step_down_procedure(p):
    """Brute force: the adjusted p is the smallest alpha at which the step-down procedure rejects that hypothesis."""
    adjusted = holm(p)
    candidates = sorted({min(1.0, k * value) for k in range(1, len(p) + 1) for value in p})
    for index, value in enumerate(adjusted):
        assert value == pytest.approx(next(alpha for alpha in candidates if index in rejected(p, alpha)), rel=1e-12)


def rejected(p: list[float], alpha: float) -> set[int]:
    found: set[int] = set()
    for step, index in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        if alpha < 1 and (len(p) - step) * p[index] > alpha * (1 + 1e-12):
            break
        found.add(index)
    return found


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_keeps_the_order_and_never_makes_p_smaller(p):
    adjusted = holm(p)
    assert all(before <= after <= 1 for before, after in zip(p, adjusted, strict=True))
    order = np.argsort(p, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()
    assert min(adjusted) == pytest.approx(min(1.0, len(p) * min(p)))


def test_holm_counts_tests_that_could_not_be_made():
    assert holm([0.01, nan, 0.04]) == pytest.approx([0.03, nan, 0.08], nan_ok=True)
    assert holm([]) == []
    with pytest.raises(DataError, match=r"outside \[0, 1\]"):
        holm([0.2, 1.2])


def test_mcnemar_agrees_with_the_binomial_test():
    truth = np.where(rng("mcnemar").random(200) < 0.5, -1.0, 1.0)
    a, b = (np.where(rng("mcnemar", name).random(200) < rate, truth, -truth) for name, rate in (("a", 0.8), ("b", 0.65)))
    only_a, only_b = int(((a == truth) & (b != truth)).sum()), int(((a != truth) & (b == truth)).sum())
    got = mcnemar(ACC2, a, b, truth)
    assert got.p == pytest.approx(ss.binomtest(only_a, only_a + only_b).pvalue, rel=1e-9)
    assert (got.statistic, got.difference) == (only_a, pytest.approx((only_a - only_b) / 200))
    assert mcnemar(ACC2, b, a, truth).p == got.p and mcnemar(ACC2, a, a, truth).p == 1.0


def test_mcnemar_skips_what_the_metric_drops():
    """Only A is right on a clip labelled 0: acc2_nonzero does not see it."""
    got = mcnemar(metrics["acc2_nonzero"], [-1.0, 1.0, 1.0], [1.0, 1.0, -1.0], [0.0, 1.0, 1.0])
    assert (got.statistic, got.p, got.difference) == (1, 1.0, 0.5)


def test_mcnemar_refuses_what_is_no_accuracy_or_no_single_run():
    with pytest.raises(DataError, match="'mae' is no accuracy"):
        mcnemar(MAE, [1.0], [1.0], [1.0])
    with pytest.raises(DataError, match="one run of each system, not 2"):
        mcnemar(ACC2, np.ones((2, 3)), np.ones((2, 3)), np.ones(3))


# ---- effect sizes


@given(VALUES)
def test_effect_sizes_are_their_definitions(values):
    x, y = values.T
    pairs = [(p > q) + 0.5 * (p == q) for p in x for q in y]
    assert a12(x, y) == pytest.approx(np.mean(pairs)) and a12(x, y) + a12(y, x) == pytest.approx(1.0)
    d = x - y
    ranks = ss.rankdata(np.abs(d[d != 0]))
    if len(ranks):
        assert rank_biserial(d) == pytest.approx((ranks * np.sign(d[d != 0])).sum() / ranks.sum())
    if len(set(d)) > 1:
        assert dz(d) == pytest.approx(ss.ttest_1samp(d, 0).statistic / sqrt(len(d)))


def test_effect_sizes_of_degenerate_values():
    assert isnan(dz([0.3])) and isnan(dz([0.0, 0.0])) and dz([0.1] * 3) == np.inf and dz([-0.1] * 3) == -np.inf
    assert isnan(rank_biserial([0.0, 0.0])) and rank_biserial([1.0, 2.0]) == 1.0
    with pytest.raises(DataError, match="non-empty"):
        iqm([])


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=30))
def test_iqm_is_the_trimmed_mean(values):
    assert iqm(values) == pytest.approx(ss.trim_mean(np.array(values, dtype=float), 0.25), abs=1e-12)


# ---- designs


def test_every_design_has_a_test():
    assert set(DEFAULT_TESTS) == set(Design)
    assert all(default_test(design) is DEFAULT_TESTS[design] for design in Design)


def test_a_fixed_split_with_seeds_is_bootstrapped():
    pair = systems(rng("design"))
    got = compare([MAE, ACC7], pair, resamples=200, seed=1)
    assert pair.design(MAE) is Design.SEEDS and got == two_level_bootstraps([MAE, ACC7], pair, resamples=200, seed=1)
    assert compare([], pair, seed=1) == []


def test_a_single_run_is_tested_by_mcnemar_only_where_clips_are_independent():
    pair = systems(rng("single"), seeds=1)
    alone = replace(pair, clusters=None)
    assert pair.design(MAE) is Design.RUN
    assert [got.test for got in compare([MAE, ACC7, CORR], alone, resamples=200, seed=1)] == [
        "two-level bootstrap",
        "McNemar, exact",
        "two-level bootstrap",
    ]
    assert {got.test for got in compare([MAE, ACC7], pair, resamples=200, seed=1)} == {"two-level bootstrap"}
    flat = replace(alone, a=pair.a[0], b=pair.b[0])
    assert compare([ACC7, MAE], flat, resamples=200, seed=1) == compare([ACC7, MAE], alone, resamples=200, seed=1)


def test_repeated_cross_validation_gets_the_corrected_t():
    random = rng("folds")
    truth = random.integers(3, size=30)
    a, b = (random.integers(3, size=(2, 30)) for _ in range(2))
    folds = np.stack([random.permutation(np.arange(30) % 5) for _ in range(2)])
    (got,) = compare([metrics["uar"]], Pair(a, b, truth, folds=folds), seed=1)
    d = [
        metrics["uar"].score(a[r][folds[r] == k], truth[folds[r] == k]) - metrics["uar"].score(b[r][folds[r] == k], truth[folds[r] == k])
        for r in range(2)
        for k in range(5)
    ]
    want = corrected_t(d, 6, 24)
    assert (got.p, got.statistic, got.seeds, got.clips, got.metric) == (pytest.approx(want.p), pytest.approx(want.statistic), 10, 30, "uar")
    (less,) = compare([metrics["uar"]], Pair(a, b, truth, folds=folds, train_clips=20), seed=1)
    assert less.p == pytest.approx(corrected_t(d, 6, 20).p)


def test_seeds_of_one_cross_validation_are_averaged_fold_by_fold():
    """Five runs on the same folds are no fresh clips: J stays the number of folds."""
    random = rng("one deal")
    truth, fold = random.normal(size=40), np.arange(40) % 5
    a, b = random.normal(size=(2, 3, 40))
    (got,) = compare([MAE], Pair(a, b, truth, folds=np.stack([fold] * 3)), seed=1)
    d = [
        np.mean([MAE.score(x[fold == k], truth[fold == k]) - MAE.score(y[fold == k], truth[fold == k]) for x, y in zip(a, b, strict=True)])
        for k in range(5)
    ]
    want = corrected_t(d, 8, 32)
    assert (got.p, got.difference, got.df) == pytest.approx((want.p, want.difference, 4)) and (got.seeds, got.note) == (
        15,
        "5 values, each the mean over the runs of one deal",
    )
    (named,) = compare([MAE], Pair(a, b, truth, folds=np.array(list("vwxyz"))[np.stack([fold] * 3)]), seed=1)
    assert named == got


@pytest.mark.parametrize(("actors", "runs"), [(24, 1), (24, 3), (8, 1), (8, 3)])
def test_one_cross_validation_of_clustered_clips_is_pooled_and_tested_over_clusters(actors, runs):
    pair = learned(rng("pooled"), actors=actors, each=8, classes=4, folds=4, runs=runs, same_deal=True)
    (got,) = compare([metrics["uar"]], pair, resamples=200, seed=1)
    (want,) = compare([metrics["uar"]], replace(pair, folds=None), resamples=200, seed=1)
    assert (got.p, got.low, got.test, got.clusters) == (want.p, want.low, want.test, actors) and "of 4 folds, pooled" in got.note
    assert ("sign-flip" in got.test) == (actors == 8) and (got.conditional_on == "") == (runs == 3)
    again = learned(rng("pooled"), actors=actors, each=8, classes=4, folds=4, runs=2)
    assert compare([metrics["uar"]], again, seed=1)[0].test == "corrected t-test"  # two deals


def test_hold_out_draws_get_the_corrected_t_of_what_they_tested():
    """Six draws of 10 of 40 clips; what a run predicts for clips that it did not hold out is not read."""
    random = rng("draws")
    truth, a, b = random.normal(size=40), *random.normal(size=(2, 6, 40))
    folds = np.where(np.stack([random.permutation(40) for _ in range(6)]) < 10, 0, UNTESTED)
    pair = Pair(a, b, truth, folds=folds, train_clips=24)
    assert pair.design(MAE) is Design.DRAWS
    (got,) = compare([MAE], pair, seed=1)
    tested = folds != UNTESTED
    d = [MAE.score(a[r][tested[r]], truth[tested[r]]) - MAE.score(b[r][tested[r]], truth[tested[r]]) for r in range(6)]
    want = corrected_t(d, 10, 24)
    assert (got.p, got.difference, got.seeds) == (pytest.approx(want.p), pytest.approx(want.difference), 6)
    spoiled = replace(pair, a=np.where(tested, a, 9e9))
    assert compare([MAE], spoiled, seed=1) == [got]
    (seeds_only,) = compare_seeds_only([MAE], spoiled)
    assert seeds_only.difference == pytest.approx(got.difference)


def test_cross_validations_of_unequal_length_are_refused():
    folds = np.stack([np.arange(8) % 2] * 3)
    with pytest.raises(DataError, match="repeat by repeat"):
        compare([MAE], Pair(np.zeros((3, 8)), np.ones((2, 8)), np.zeros(8), folds=folds, paired_seeds=False), seed=1)


@pytest.mark.parametrize(("folds", "message"), [(np.zeros((1, 4)), "single fold"), (np.zeros((2, 4)), r"shape \(2, 4\)")])
def test_folds_that_do_not_fit_are_refused(folds, message):
    with pytest.raises(DataError, match=message):
        compare([MAE], Pair(np.zeros((1, 4)), np.ones((1, 4)), np.zeros(4), folds=folds), seed=1)


def test_the_test_over_seeds_only_says_what_it_holds_for():
    pair = systems(rng("seeds only"))
    (got,) = compare_seeds_only([MAE], pair)
    want = ss.ttest_rel(*(np.abs(np.asarray(x) - pair.truth).mean(axis=1) for x in (pair.a, pair.b)))
    assert got.p == pytest.approx(want.pvalue, rel=1e-9)
    assert (got.conditional_on, got.clips) == ("this test set", pair.clips)
    (unpaired,) = compare_seeds_only([MAE], replace(pair, b=pair.b[:3], paired_seeds=False))
    assert isnan(unpaired.p) and "share no seeds" in unpaired.note


def test_all_metrics_of_the_task_can_be_compared():
    pair = systems(rng("all metrics"))
    names = default_metrics(Task(kind="regression", low=-3, high=3))
    found = compare([metrics[name] for name in names], pair, resamples=500, seed=1)
    assert [got.metric for got in found] == list(names)
    assert all(0 < got.p <= 1 and got.low <= got.difference <= got.high for got in found)


# ---- the record


def test_a_comparison_survives_json_with_nan_and_cannot_be_changed():
    got = paired_t([0.3], [0.2], metric="mae")
    back = Comparison.model_validate_json(got.model_dump_json())
    assert isnan(back.p) and back.model_dump(exclude={"p", "low", "high"}) == got.model_dump(exclude={"p", "low", "high"})
    with pytest.raises(ValueError, match="frozen"):
        got.p = 0.01
