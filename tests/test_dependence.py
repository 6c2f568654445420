"""Measures of dependence against their definitions, and on correlated Gaussians against the information in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness.nn.dependence import (
    Critic,
    Discriminator,
    conditional_information,
    discrimination,
    draw_neighbour,
    gram,
    hsic,
    hsic_of_grams,
    info_nce,
)

EXACT = {"rtol": 0.0, "atol": 1e-12}


def sample(rows: int, width: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(rows, width, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def correlated(rows: int, rho: float, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Standard normal pairs of correlation ``rho``, (rows, 1) each."""
    x, noise = sample(rows, 1, seed, dtype), sample(rows, 1, seed + 1000, dtype)
    return x, rho * x + math.sqrt(1 - rho**2) * noise


def information(rho: float) -> float:
    return -math.log(1 - rho**2) / 2


def log_ratio(x: Tensor, y: Tensor, rho: float) -> Tensor:
    """log p(x, y) / p(x) p(y) of standard normals with correlation ``rho``: the best log-odds and the best score."""
    return information(rho) + (rho * x * y - rho**2 * (x.square() + y.square()) / 2) / (1 - rho**2)


# HSIC


def kernel(x: np.ndarray, bandwidth: float | None) -> np.ndarray:
    squared = np.array([[((a - b) ** 2).sum() for b in x] for a in x])
    others = sorted(squared[i, j] for i in range(len(x)) for j in range(i))
    scale = others[(len(others) - 1) // 2] if bandwidth is None else bandwidth**2
    return np.exp(-squared / (2 * scale))


@pytest.mark.parametrize("bandwidth", [None, 0.7])
@pytest.mark.parametrize("rows", [2, 5, 12])
def test_hsic_is_the_trace_of_its_definition(rows: int, bandwidth: float | None) -> None:
    x, y = sample(rows, 3), sample(rows, 2, seed=1)
    centre = np.eye(rows) - 1 / rows
    trace = np.trace(centre @ kernel(x.numpy(), bandwidth) @ centre @ kernel(y.numpy(), bandwidth))
    assert hsic(x, y, bandwidth).item() == pytest.approx(trace / (rows - 1) ** 2, rel=1e-10, abs=1e-15)
    np.testing.assert_allclose(gram(x, bandwidth).numpy(), kernel(x.numpy(), bandwidth), rtol=1e-12)


@given(rows=st.integers(2, 20), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=30)
def test_hsic_is_symmetric_non_negative_and_blind_to_order_and_scale(rows: int, seed: int) -> None:
    x, y = sample(rows, 3, seed), sample(rows, 2, seed + 1)
    value, order = hsic(x, y), torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    assert value >= 0
    torch.testing.assert_close(hsic(y, x), value, **EXACT)
    torch.testing.assert_close(hsic(x[order], y[order]), value, **EXACT)
    torch.testing.assert_close(hsic(7 * x + 2, y), value, **EXACT)
    torch.testing.assert_close(hsic_of_grams(gram(x), gram(y)), value, **EXACT)


def test_hsic_tells_dependence_that_correlation_does_not_see() -> None:
    """y = x^2 is uncorrelated with x; its HSIC stands ten standard deviations above that of shuffled pairs."""
    x = sample(300, 1)
    y = x.square()
    shuffled = torch.stack([hsic(x, y[torch.randperm(300, generator=torch.Generator().manual_seed(i))]) for i in range(40)])
    assert hsic(x, y) > shuffled.mean() + 10 * shuffled.std()


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_hsic_of_equal_rows_is_zero_with_a_finite_gradient(rows: int) -> None:
    x = torch.ones(rows, 3, requires_grad=True)
    value = hsic(x, x)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-12)
    assert x.grad is not None and not x.grad.any()


# InfoNCE


def test_info_nce_is_its_definition() -> None:
    scores = 2 * sample(5, 5)
    exponents = np.exp(scores.numpy())
    expected = -np.mean([math.log(exponents[i, i] / exponents[i].sum()) for i in range(5)])
    assert info_nce(scores).item() == pytest.approx(expected, rel=1e-12)
    assert info_nce(torch.full((7, 7), 3.0)).item() == pytest.approx(math.log(7), rel=1e-6)
    assert info_nce(torch.ones(1, 1)).item() == 0


@pytest.mark.parametrize("rho", [0.0, 0.5, -0.8, 0.95])
def test_info_nce_bounds_the_information_of_gaussians(rho: float) -> None:
    """With the best score the bound is tight up to O(1 / B) and sampling: a standard error of .02 at rho .95, B 2000."""
    x, y = correlated(2000, rho)
    bound = math.log(2000) - info_nce(log_ratio(x, y.T, rho)).item()
    assert bound == pytest.approx(information(rho), abs=0.05)


def test_info_nce_never_says_more_than_the_logarithm_of_the_batch() -> None:
    """Of 8 clips, at most log 8 = 2.08 nats are seen of the 3.9 there are."""
    x, y = correlated(8, 0.9998)
    bound = math.log(8) - info_nce(log_ratio(x, y.T, 0.9998)).item()
    assert bound <= math.log(8) < information(0.9998)


def test_a_trained_critic_finds_the_information() -> None:
    """Bias: below by what 250 steps leave (about .03), above by sampling (.02 on 4000 fresh pairs)."""
    rho = 0.8
    torch.manual_seed(0)
    critic = Critic(1, 1, 32, 8)
    optimiser = torch.optim.Adam(critic.parameters(), lr=5e-3)
    for step in range(250):
        loss = info_nce(critic(*correlated(256, rho, seed=step, dtype=torch.float32)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        bound = math.log(4000) - info_nce(critic(*correlated(4000, rho, seed=-1, dtype=torch.float32))).item()
    assert information(rho) - 0.08 < bound < information(rho) + 0.05


def test_critic_scores_every_pair() -> None:
    critic = Critic(3, 2, 5, 4).double()
    x, y = sample(4, 3), sample(6, 2)
    scores = critic(x, y)
    expected = [[(critic.f(a) * critic.g(b)).sum().item() for b in y] for a in x]
    np.testing.assert_allclose(scores.detach().numpy(), expected, rtol=0, atol=1e-12)


# Conditional mutual information


@pytest.mark.parametrize("rho", [0.0, 0.3, -0.6, 0.8])
def test_conditional_information_of_gaussians_at_the_best_discriminator(rho: float) -> None:
    """First term: the information. Both, as printed: rho^2 / (1 - rho^2). Tolerance: four standard errors of 200,000 draws."""
    x, y = correlated(200_000, rho)
    joint, product = log_ratio(x, y, rho), log_ratio(x, y.roll(1, 0), rho)
    error = 4 * (joint.std() + product.std()).item() / math.sqrt(len(x)) + 1e-12
    assert conditional_information(joint, product, "first").item() == pytest.approx(information(rho), abs=error)
    assert conditional_information(joint, product).item() == pytest.approx(rho**2 / (1 - rho**2), abs=error)


def triples(rows: int, rho: float, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """u and z of partial correlation ``rho`` given r, and both moved by r besides."""
    r = sample(rows, 1, seed + 5000, torch.float32)
    u, z = correlated(rows, rho, seed, torch.float32)
    return u + r, z - r, r


@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_a_trained_discriminator_finds_the_conditional_information(rho: float) -> None:
    """With neighbours in r as negatives, what u and z share through r alone does not count: without it, rho 0 has -.5.

    Bias at rho .8: the information (.51) is found to .05 (a discriminator short of its optimum, negatives whose r is near,
    not equal); both terms (1.78) come out up to .4 too low, since the second leans on draws too rare to learn from.
    """
    torch.manual_seed(1)
    phi, steps = Discriminator(3, 64), 450
    optimiser = torch.optim.Adam(phi.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for step in range(steps):
        u, z, r = triples(256, rho, step)
        optimiser.zero_grad()
        discrimination(phi(u, z, r), phi(u, z[draw_neighbour(r, 5)], r)).backward()
        optimiser.step()
        schedule.step()
    u, z, r = triples(4000, rho, -1)
    with torch.no_grad():
        joint, product = phi(u, z, r), phi(u, z[draw_neighbour(r, 5)], r)
    first, both = (conditional_information(joint, product, terms).item() for terms in ("first", "both"))
    assert first == pytest.approx(information(rho), abs=0.05)
    printed = rho**2 / (1 - rho**2)
    assert first < both + 0.02 and printed - 0.4 * (rho > 0) - 0.02 < both < printed + 0.02


def test_log_odds_are_clipped() -> None:
    joint, product = torch.tensor([50.0, 1.0], requires_grad=True), torch.tensor([-30.0, 0.0])
    value = conditional_information(joint, product, limit=2.0)
    value.backward()
    assert value.item() == (2 + 1) / 2 - (-2 + 0) / 2
    assert joint.grad is not None and joint.grad.tolist() == [0.0, 0.5]


def test_discrimination_is_binary_cross_entropy() -> None:
    joint, product = 4 * sample(6, 1).squeeze(1), 4 * sample(6, 1, seed=1).squeeze(1)
    truth = torch.cat([torch.ones(6), torch.zeros(6)]).double()
    expected = F.binary_cross_entropy(torch.cat([joint, product]).sigmoid(), truth)
    torch.testing.assert_close(discrimination(joint, product), expected, **EXACT)


def test_a_frozen_discriminator_says_the_same_and_learns_nothing() -> None:
    phi = Discriminator(6, 4)
    u, z, r = (sample(5, 2, seed, torch.float32).requires_grad_() for seed in range(3))
    frozen = phi.frozen(u, z, r)
    assert torch.equal(frozen, phi(u, z, r))
    frozen.sum().backward()
    assert all(parameter.grad is None for parameter in phi.parameters())
    assert all(x.grad is not None and x.grad.any() for x in (u, z, r))


@given(rows=st.integers(2, 15), count=st.integers(1, 6), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=30)
def test_neighbours_are_nearest_and_never_the_row_itself(rows: int, count: int, seed: int) -> None:
    r = sample(rows, 2, seed)
    torch.manual_seed(seed)
    drawn = draw_neighbour(r, count)
    for i, j in enumerate(drawn.tolist()):
        distance = (r - r[i]).norm(dim=1)
        nearer = sum(distance[k] < distance[j] for k in range(rows) if k != i)
        assert j != i and nearer < count


def test_every_neighbour_is_drawn_as_often() -> None:
    """2000 rows at two places: a row's 3 neighbours share the draws; 5 standard deviations of a binomial."""
    r = torch.tensor([[0.0], [1.0], [2.1], [3.3]])
    torch.manual_seed(0)
    draws = torch.stack([draw_neighbour(r, 2) for _ in range(2000)])
    for row, near in enumerate([{1, 2}, {0, 2}, {1, 3}, {2, 1}]):
        counts = draws[:, row].bincount(minlength=4)
        assert {i for i in range(4) if counts[i]} == near
        assert all(abs(int(counts[i]) - 1000) < 5 * math.sqrt(500) for i in near)


def test_one_row_has_no_neighbour() -> None:
    with pytest.raises(ValueError, match="1 rows"):
        draw_neighbour(torch.ones(1, 2), 3)
