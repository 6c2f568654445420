"""Posteriors of a difference: closed forms against numerical integration, verdicts, and the regions of equivalence."""

from __future__ import annotations

from math import isnan, nan, sqrt

import numpy as np
import pytest
import scipy.stats as ss
from simulated_pairs import rng, systems

from harness.analysis.bayesian import correlated_bayes, default_rope, posterior, posterior_of
from harness.analysis.statistics import corrected_t, paired_t, two_level_bootstraps
from harness.errors import DataError
from harness.training.metrics import metrics

D = np.array([0.02, 0.01, 0.03, -0.01, 0.02, 0.04, 0.00, 0.01, 0.02, 0.01])


def integrated(d: np.ndarray, rho: float, rope: float) -> list[float]:
    """The same posterior on a grid of mean and log deviation: N(mean, s^2 ((1-rho) I + rho 11')) under the prior 1/s^2."""
    means, logs = np.linspace(-0.3, 0.33, 3001), np.linspace(np.log(0.002), np.log(0.5), 400)
    n = len(d)
    inverse = np.linalg.inv((1 - rho) * np.eye(n) + rho)
    off = d - means[:, None]
    squares = np.einsum("mi,ij,mj->m", off, inverse, off)
    density = np.exp(-n * logs - squares[:, None] / 2 / np.exp(2 * logs)).sum(axis=1)  # ds / s of the prior is d(log s)
    density /= density.sum()
    return [float(density[where].sum()) for where in (means < -rope, np.abs(means) <= rope, means > rope)]


@pytest.mark.parametrize("rope", [0.0, 0.005, 0.02])
def test_the_correlated_posterior_is_that_of_numerical_integration(rope: float):
    got = correlated_bayes(D, 60, 240, rope)
    # the grid's steps of .0002 are cut at +-rope: up to .01 of a density of 27
    assert [got.below, got.within, got.above] == pytest.approx(integrated(D, 0.2, rope), abs=0.006)
    assert got.below + got.within + got.above == pytest.approx(1.0)


def test_without_a_region_it_mirrors_the_corrected_t_test():
    got, test = correlated_bayes(D, 60, 240, 0.0), corrected_t(D, 60, 240)
    assert 2 * min(got.below, got.above) == pytest.approx(test.p, rel=1e-9) and got.within == pytest.approx(0.0, abs=1e-12)
    assert posterior_of(test, 0.01).__dict__ == pytest.approx(correlated_bayes(D, 60, 240, 0.01).__dict__, rel=1e-9)


@pytest.mark.parametrize(
    ("mean", "scale", "rope", "higher", "verdict"),
    [
        (0.05, 0.005, 0.01, True, "better"),
        (0.05, 0.005, 0.01, False, "worse"),
        (-0.05, 0.005, 0.01, True, "worse"),
        (-0.05, 0.005, 0.01, False, "better"),
        (0.001, 0.002, 0.01, True, "equivalent"),
        (0.001, 0.02, 0.01, True, "inconclusive"),
        (0.012, 0.002, 0.01, True, "inconclusive"),  # surely positive, but perhaps too small to matter
        (0.0, 0.0, 0.01, True, "equivalent"),
        (0.02, 0.0, 0.01, True, "better"),
    ],
)
def test_verdicts_need_95_percent(mean: float, scale: float, rope: float, higher: bool, verdict: str):
    got = posterior(mean, scale, 9, rope)
    assert got.verdict(higher) == verdict
    if scale:
        assert got.above == pytest.approx(ss.t.sf((rope - mean) / scale, 9)) and got.below == pytest.approx(
            ss.t.cdf((-rope - mean) / scale, 9)
        )


def test_a_verdict_is_given_up_where_more_is_asked_of_it():
    got = posterior(0.01, 0.004, 20, 0.0)
    assert 0.95 < got.above < 0.999 and got.verdict(True) == "better" and got.verdict(True, 0.999) == "inconclusive"


def test_default_regions_are_in_the_metrics_own_units():
    assert {name: default_rope(metrics[name]) for name in ("mae", "corr", "acc7", "uar")} == {
        "mae": pytest.approx(0.01),
        "corr": 0.005,
        "acc7": 0.005,
        "uar": 0.005,
    }
    assert default_rope(metrics["mae"], span=2.0) == pytest.approx(1 / 300) and default_rope(metrics["acc7"], span=2.0) == 0.005


def test_a_bootstraps_posterior_has_its_interval():
    (test,) = two_level_bootstraps([metrics["mae"]], systems(rng("bayes")), resamples=500, seed=1)
    got = posterior_of(test, 0.01)
    assert got is not None
    assert ss.t.interval(0.95, got.df, got.mean, got.scale) == pytest.approx((test.low, test.high), rel=1e-9)
    (same,) = two_level_bootstraps([metrics["mae"]], systems(rng("bayes"), own=0, seed_noise=0), resamples=50, seed=1)
    known = posterior_of(same, 0.01)
    assert known is not None and known.within == 1.0 and known.scale == 0.0


def test_no_posterior_without_a_t_interval():
    assert posterior_of(paired_t([0.3], [0.2]), 0.01) is None
    pair = systems(rng("percentiles"))
    (percentiles,) = two_level_bootstraps([metrics["mae"]], pair, resamples=100, seed=1, reference="percentile")
    assert posterior_of(percentiles, 0.01) is None


@pytest.mark.parametrize(
    ("d", "message"),
    [([0.1], "at least two"), ([0.1, nan], "1 of them undefined"), ([0.1, 0.1, 0.1], "without spread"), ([], "at least two")],
)
def test_what_has_no_posterior_is_refused(d: list[float], message: str):
    with pytest.raises(DataError, match=message):
        correlated_bayes(d, 60, 240, 0.01)


def test_no_difference_in_any_fold_is_a_certain_equivalence():
    got = correlated_bayes([0.0] * 5, 60, 240, 0.01)
    assert (got.within, got.verdict(True)) == (1.0, "equivalent")


def test_regions_and_values_that_mean_nothing_are_refused():
    for bad in ((nan, 0.1, 5, 0.01), (0.1, nan, 5, 0.01), (0.1, 0.1, nan, 0.01), (0.1, 0.1, 5, -0.01), (0.1, 0.1, 5, nan)):
        with pytest.raises(DataError, match="no posterior"):
            posterior(*bad)


def test_equal_systems_are_seldom_called_better_or_worse():
    """4000 cross-validations of 25 equicorrelated differences of mean 0, at the correlation that the test assumes.

    Better and worse each ask for 95 % of one tail: at most 5 % each, .005 being a standard error and a half.
    """
    random, rho = rng("bayes level"), 0.2
    d = sqrt(rho) * random.normal(size=(4000, 1)) + sqrt(1 - rho) * random.normal(size=(4000, 25))
    verdicts = [correlated_bayes(row, 60, 240, 0.0).verdict(True) for row in d]
    assert 0.02 < np.mean([v == "better" for v in verdicts]) < 0.065 and 0.02 < np.mean([v == "worse" for v in verdicts]) < 0.065
    assert not any(isnan(correlated_bayes(row, 60, 240, 0.0).above) for row in d[:5])
