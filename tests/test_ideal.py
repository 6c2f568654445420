"""The ideal predictor: its label probabilities, that no other answer does better, and closed forms of its scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from harness.data.ideal import LabelMap, _scores, ideal_scores, population_scores


def test_label_probabilities_are_those_of_bayes_rule_on_a_fine_grid() -> None:
    label = LabelMap(np.array([-2.0, 0.0, 0.4, 3.0]), np.array([0.2, 0.1, 0.4, 0.3]))
    prior = np.array([0.5, 0.1, 0.1, 0.3])
    mean, std = np.array([-3.0, 0.0, 0.7, 4.0]), np.array([0.5, 0.9, 0.3, 0.6])
    z = np.arange(-9, 9, 1e-4) + 5e-5
    step = np.searchsorted(label.steps, z, side="right")
    density = np.exp(-(((z - mean[:, None]) / std[:, None]) ** 2) / 2) * (prior / label.shares)[step]
    expected = np.stack([density[:, step == k].sum(1) for k in range(4)], axis=1)
    found = label.shifted(label.probabilities(mean, std), prior)
    # the grid's cells straddle the steps: an error of at most one cell's mass, 1e-4 / (std sqrt(2 pi))
    np.testing.assert_allclose(found / found.sum(1, keepdims=True), expected / expected.sum(1, keepdims=True), atol=3e-4)


chances = arrays(np.float64, (4, 7), elements=st.floats(0.01, 1)).map(lambda p: p / p.sum(1, keepdims=True))
VALUES = np.array([-3.0, -1.2, -0.4, 0.0, 0.4, 1.6, 2.8])


@given(chances, arrays(np.float64, (4,), elements=st.floats(-3, 3)))
def test_no_answer_is_better_than_the_ideal_one(chance: np.ndarray, answer: np.ndarray) -> None:
    """The four clips are equally frequent and have the labels' probabilities ``chance``; any other answer does no better."""
    truth = chance / 4
    ideal = _scores(VALUES, chance, truth)
    assert ideal["mae"] <= (truth * np.abs(VALUES - answer[:, None])).sum() + 1e-12
    for metric, classes, counted in (
        ("acc7", np.round, np.ones(7, bool)),
        ("acc2_nonneg", lambda y: y >= 0, np.ones(7, bool)),
        ("acc2_nonzero", lambda y: y > 0, VALUES != 0),
    ):
        right = truth[:, counted] * (classes(VALUES[counted]) == classes(answer)[:, None])
        assert ideal[metric] >= right.sum() / truth[:, counted].sum() - 1e-12
    if answer.std() > 1e-3 and "corr" in ideal:
        level = truth.sum(0)
        spread = answer.std() * ((VALUES - level @ VALUES) ** 2 @ level) ** 0.5
        assert ideal["corr"] >= (answer - answer.mean()) @ truth @ (VALUES - level @ VALUES) / spread - 1e-9


@pytest.mark.parametrize("std", [0.2, 0.5, 0.9])
def test_population_scores_equal_the_closed_form_for_the_sign_of_z(std: float) -> None:
    """Sheppard's formula: P(sign z = sign m) = 1/2 + arcsin(r) / pi with r = corr(z, m).

    And where z and z' are independent given m, E sign(z) sign(z') = 2 / pi arcsin(r^2).
    """
    squared = 1 - std**2
    right = 0.5 + np.arcsin(squared**0.5) / np.pi
    found = population_scores(LabelMap.of(np.array([-1, 1])), np.array([0.5, 0.5]), np.full(3, std))
    # the trapezoid rule errs at the kink m = 0: step^2 / 12 times the change of slope, 2 r phi(0) / std, times the density
    kink = 0.014**2 / 12 * 2 * (squared**0.5 * 0.4 / std) * 0.4
    assert found["acc2_nonneg"] == pytest.approx(right, abs=1.1 * kink)
    assert found["mae"] == pytest.approx(2 * (1 - right), abs=2.2 * kink)
    assert found["corr"] == pytest.approx((2 / np.pi * np.arcsin(squared)) ** 0.5, abs=1e-9)


def test_knowing_nothing_leaves_the_constant() -> None:
    labels = np.repeat([-2.0, 0.0, 1.0], [2, 3, 4])
    label = LabelMap.of(labels)
    scores = ideal_scores(label, labels, np.zeros(9), np.ones(9))
    assert scores["mae"] == pytest.approx(np.abs(labels).mean()) and scores["acc2_nonneg"] == pytest.approx(7 / 9)
    assert "corr" not in scores
