"""The simulation of large campaigns, against cases that can be worked out by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))

from simulate_scale import Costs, simulate

FREE = Costs(0, 0, 0, 0, 0)


@pytest.mark.parametrize("workers", [1, 4, 10])
def test_without_costs_and_deaths_workers_share_the_work(workers: int) -> None:
    found = simulate([(3.0, 5)], workers, 20, FREE, 0.0)
    assert found.wall == pytest.approx(3.0 * -(-20 // workers)) and found.deaths == 0 and found.driver == 0.0


def test_a_busy_driver_sets_the_pace() -> None:
    """Each trial takes 1 s of a driver that must serve 100 workers of 10 s trials: 1 trial a second."""
    found = simulate([(10.0, 0)], 100, 1000, Costs(0.25, 0, 0.25, 0.5, 0), 0.0)
    assert found.wall == pytest.approx(1000.0, rel=0.03) and found.driver == pytest.approx(1.0, abs=0.03)
    assert found.useful == pytest.approx(10.0 * 1000 / (found.wall * 100))


def test_epochs_and_a_workers_own_costs_count() -> None:
    found = simulate([(10.0, 4)], 1, 10, Costs(0, 0.1, 0.2, 0, 0.5), 0.0)
    assert found.wall == pytest.approx(10 * (0.5 + 10.0 + 4 * 0.1 + 0.2))


def test_deaths_come_at_their_rate_and_cost_what_was_done() -> None:
    """Memoryless deaths at rate r: a trial of length T is tried exp(rT) times on average, in (exp(rT) - 1) / r."""
    from math import exp

    rate, length, trials = 1 / 1000, 500.0, 4000
    found = simulate([(length, 0)], 10, trials, FREE, rate * 86_400)
    assert found.deaths == pytest.approx(trials * (exp(rate * length) - 1), rel=0.05)
    assert found.wall * 10 == pytest.approx(trials * (exp(rate * length) - 1) / rate, rel=0.05)
    assert found.lost == pytest.approx(found.wall * 10 - trials * length, rel=0.05)


def test_the_same_seed_gives_the_same_campaign() -> None:
    times = [(1.0, 1), (5.0, 3), (9.0, 2)]
    costs = Costs(0.01, 0.001, 0.02, 0.1, 0.3)
    assert simulate(times, 7, 300, costs, 50.0) == simulate(times, 7, 300, costs, 50.0) != simulate(times, 7, 300, costs, 50.0, seed=1)
