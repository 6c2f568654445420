"""Several data sets: ranks, Friedman, post hoc tests and diagrams against SciPy, brute force and Demsar's worked example."""

from __future__ import annotations

import itertools
from math import inf, isnan, nan, sqrt

import numpy as np
import pytest
import scipy.stats as ss
from hypothesis import given
from hypothesis import strategies as st
from simulated_pairs import rng

from harness.analysis.friedman import (
    Scores,
    critical_difference,
    default_post_hoc,
    diagram,
    friedman,
    nemenyi,
    wilcoxon_holm,
)
from harness.analysis.statistics import holm
from harness.errors import DataError

# AUC of C4.5 and three of its variants on 14 UCI data sets: Demsar 2006, table 6
DEMSAR = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.9751, 0.975],
        [0.957, 0.978, 0.946, 0.970],
    ]
)


def of(values: np.ndarray, higher_is_better: bool = True) -> Scores:
    n, k = np.shape(values)
    return Scores(values, [f"s{j}" for j in range(k)], [f"d{i}" for i in range(n)], higher_is_better)


TABLES = (
    st.integers(2, 5).flatmap(lambda k: st.lists(st.lists(st.integers(0, 6), min_size=k, max_size=k), min_size=2, max_size=9)).map(np.array)
)


# ---- Demsar's example: mean ranks, chi-squared, F and critical differences as printed there (sections 3.2.2 and 3.2.4)


def test_demsars_example_is_reproduced():
    got = friedman(of(DEMSAR))
    assert [round(rank, 3) for rank in got.mean_ranks] == [3.143, 2.0, 2.893, 1.964]
    chi2 = 12 * 14 / (4 * 5) * (sum(rank**2 for rank in got.mean_ranks) - 4 * 25 / 4)  # printed as 9.28, without correction for ties
    assert chi2 == pytest.approx(9.28, abs=0.01)
    assert got.df == (3, 39) and got.p < 0.05
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)
    assert critical_difference(4, 14, 0.10) == pytest.approx(1.12, abs=0.005)


@pytest.mark.parametrize(
    ("alpha", "printed"),
    [
        (0.05, [1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164]),
        (0.10, [1.645, 2.052, 2.291, 2.459, 2.589, 2.693, 2.780, 2.855, 2.920]),
    ],
)
def test_critical_values_are_those_of_demsars_table_5(alpha: float, printed: list[float]):
    """q_alpha for 2 to 10 systems; the table is rounded to three digits, with an error of one in the last place."""
    for k, q in zip(range(2, 11), printed, strict=True):
        assert critical_difference(k, 7, alpha) == pytest.approx(q * sqrt(k * (k + 1) / 42), abs=0.0021)


# ---- Friedman


@given(TABLES)
def test_friedman_is_scipys_with_ties(values: np.ndarray):
    got = friedman(of(values))
    ranks = np.array([ss.rankdata(-row) for row in values])
    assert got.mean_ranks == pytest.approx(ranks.mean(axis=0))
    if values.shape[1] > 2 and (np.ptp(values, axis=1) > 0).any():  # SciPy wants three systems
        want = ss.friedmanchisquare(*values.T)
        assert (got.chi2, got.chi2_p) == pytest.approx((want.statistic, want.pvalue), rel=1e-9, abs=1e-12)
        n, k = values.shape
        if got.f < inf:
            f = (n - 1) * want.statistic / (n * (k - 1) - want.statistic)
            assert (got.f, got.p) == pytest.approx((f, ss.f.sf(f, k - 1, (k - 1) * (n - 1))), rel=1e-6, abs=1e-12)


def test_lower_can_be_better_and_rounding_ties():
    values = rng("friedman").normal(size=(6, 4))
    assert friedman(of(values)).mean_ranks == friedman(of(-values, higher_is_better=False)).mean_ranks
    assert friedman(of(np.array([[0.1 + 0.2, 0.3, 0.2], [0.5, 0.5, 0.1]]))).mean_ranks == (1.5, 1.5, 3.0)


def test_all_data_sets_alike_have_the_chance_of_that():
    """By enumeration: of all orders of 3 systems on 4 data sets, 6 of 6^4 agree wholly; with a tie, 3 of 3^4."""
    row = [0.3, 0.2, 0.1]
    got = friedman(of(np.array([row] * 4)))
    orders = list(itertools.permutations(range(3)))
    agree = np.mean([len(set(choice)) == 1 for choice in itertools.product(orders, repeat=4)])
    assert (got.f, got.p) == (inf, pytest.approx(agree)) and "alike" in got.note
    assert friedman(of(np.array([[0.3, 0.1, 0.1]] * 4))).p == pytest.approx(3 / 3**4)


def test_ties_everywhere_are_no_difference():
    got = friedman(of(np.full((5, 3), 0.7)))
    assert (got.p, got.chi2_p, got.f, got.mean_ranks) == (1.0, 1.0, 0.0, (2.0, 2.0, 2.0)) and "tie" in got.note
    assert diagram(of(np.full((5, 3), 0.7))).cliques == (("s0", "s1", "s2"),)


def test_holes_and_single_data_sets_are_refused_by_name():
    values = rng("holes").random((4, 3))
    values[2, 1] = nan
    with pytest.raises(DataError, match="s1 has no score on d2"):
        friedman(of(values))
    with pytest.raises(DataError, match="at least two data sets"):
        friedman(of(values[:1]))
    with pytest.raises(DataError, match="shape"):
        friedman(Scores(values, ["a"], ["d"] * 4))


# ---- pairs


def test_nemenyi_is_the_studentized_range_of_mean_ranks():
    """p is below alpha exactly where mean ranks are further apart than the critical difference; two systems: the sign of z."""
    values = rng("nemenyi").random((8, 5)) + [0, 0, 0.3, 0.4, 0.6]
    scores, means = of(values), np.array(friedman(of(values)).mean_ranks)
    p = nemenyi(scores)
    apart = np.abs(means[:, None] - means)
    for alpha in (0.01, 0.05, 0.3):
        assert ((p < alpha) == (apart > critical_difference(5, 8, alpha))).all()
    two = nemenyi(of(values[:, [0, 4]]))
    gap = abs(np.subtract(*friedman(of(values[:, [0, 4]])).mean_ranks))
    assert two[0, 1] == pytest.approx(2 * ss.norm.sf(gap / sqrt(2 * 3 / (6 * 8))), abs=1e-6)  # the range of two normals is |z| sqrt(2)
    assert (p == p.T).all() and (np.diag(p) == 1).all()


def test_wilcoxon_holm_is_scipys_adjusted_over_all_pairs():
    values = rng("pairs").random((9, 4)) + [0, 0.2, 0.4, 0.8]
    p = wilcoxon_holm(of(values))
    pairs = list(itertools.combinations(range(4), 2))
    want = holm([ss.wilcoxon(values[:, i], values[:, j], method="exact").pvalue for i, j in pairs])
    assert [p[i, j] for i, j in pairs] == pytest.approx(want)
    assert (p == p.T).all() and (np.diag(p) == 1).all() and (p[0, 3] < 0.05)


def test_the_post_hoc_test_is_one_that_can_reject():
    assert default_post_hoc(2, 5) == "Nemenyi"  # the smallest of 2^5 signs: 1/16
    assert default_post_hoc(2, 6) == "Wilcoxon-Holm" and default_post_hoc(4, 6) == "Nemenyi" and default_post_hoc(4, 14) == "Wilcoxon-Holm"
    assert "fall below 0.375" in diagram(of(DEMSAR[:5]), post_hoc="Wilcoxon-Holm").note


# ---- diagrams


def literal_cliques(names: tuple[str, ...], p: np.ndarray, alpha: float) -> set[tuple[str, ...]]:
    """All subsets of at least two without a differing pair that lie in no larger one."""
    alike = [
        set(chosen)
        for size in range(2, len(names) + 1)
        for chosen in itertools.combinations(range(len(names)), size)
        if all(p[i, j] >= alpha for i, j in itertools.combinations(chosen, 2))
    ]
    return {tuple(names[i] for i in sorted(one)) for one in alike if not any(one < other for other in alike)}


@pytest.mark.parametrize("post_hoc", ["Nemenyi", "Wilcoxon-Holm"])
@pytest.mark.parametrize("case", range(6))
def test_cliques_are_the_largest_sets_without_a_difference(post_hoc: str, case: int):
    values = rng("cliques", case).normal(size=(12, 6)) + [0, 0.5, 1, 1.5, 2, 2.5]
    got = diagram(of(values), post_hoc=post_hoc)
    assert got.friedman.p < 0.05 and list(got.mean_ranks) == sorted(got.mean_ranks)
    assert set(got.cliques) == literal_cliques(got.systems, np.array(got.p), 0.05)
    assert isnan(got.critical_difference) == (post_hoc == "Wilcoxon-Holm")


def test_without_a_difference_overall_no_pair_is_looked_at():
    values = rng("none").random((12, 4))
    values[:, 3] = values[:, 2] + 1e-6
    got = diagram(of(values), post_hoc="Wilcoxon-Holm")
    assert got.friedman.p >= 0.05 and np.min(got.p) < 0.05
    assert got.cliques == (got.systems,) and "no pair is looked at" in got.note


def test_demsars_diagram():
    """By Nemenyi at .05 nothing but 3.143 against 1.964 (1.18) and 2.0 comes near 1.25; at .10 (1.12) both differ."""
    assert diagram(of(DEMSAR), post_hoc="Nemenyi").cliques == (("s3", "s1", "s2", "s0"),)
    assert diagram(of(DEMSAR), post_hoc="Nemenyi", alpha=0.10).cliques == (("s3", "s1", "s2"), ("s2", "s0"))


def test_many_equal_systems_are_one_clique_at_once():
    got = diagram(of(rng("many").random((5, 30))), post_hoc="Nemenyi", alpha=1e-9)
    assert len(got.cliques) == 1 and len(got.cliques[0]) == 30


# ---- equal systems


def test_equal_systems_are_called_different_as_often_as_stated():
    """2000 tables of equal systems: a test of size .05 stays below .08 (5 standard errors of .006)."""
    random = rng("friedman level")
    for n, k in ((5, 4), (8, 14), (14, 4)):
        rejected = [friedman(of(random.random((n, k)))).p < 0.05 for _ in range(2000)]
        assert 0.02 < np.mean(rejected) < 0.08, (n, k)
