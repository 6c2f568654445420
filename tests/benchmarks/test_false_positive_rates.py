"""How often does each default test call equal systems different, how often does it find a real difference, and what do
the classical tests do on the same runs? ``pytest -s`` prints the table of ``docs/statistics.md``.

Every design is simulated with systems that are equal in law (see ``simulated_pairs`` and ``simulated_folds``), and again with
system A better by a stated amount. Every rate is printed with its Monte Carlo interval.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest
from simulated_folds import drawn, learned
from simulated_pairs import rng, systems

from harness.analysis.designs import fold_differences
from harness.analysis.statistics import (
    Pair,
    Scores,
    compare,
    compare_seeds_only,
    diagram,
    friedman,
    paired_t,
    sign_flip,
    two_level_bootstraps,
)
from harness.training.metrics import Metric, metrics

REPLICATIONS = 1000
MOST = 0.08

INTENSITIES = tuple(metrics[name] for name in ("mae", "corr", "acc2_nonneg"))
CLASSES = (metrics["accuracy"],)

World = Callable[[np.random.Generator, float], Pair]
Tests = dict[str, Callable[[Sequence[Metric], Pair], list[float]]]


def default(chosen: Sequence[Metric], pair: Pair) -> list[float]:
    return [found.p for found in compare(chosen, pair, resamples=500, seed=1)]


def over_seeds(chosen: Sequence[Metric], pair: Pair) -> list[float]:
    return [found.p for found in compare_seeds_only(chosen, pair)]


def over_folds(chosen: Sequence[Metric], pair: Pair) -> list[float]:
    """The paired t-test on all folds of all repeats, as if they were independent."""
    values = [fold_differences(metric, pair)[0] for metric in chosen]
    return [paired_t(d, np.zeros(len(d))).p for d in values]


def percentiles(chosen: Sequence[Metric], pair: Pair) -> list[float]:
    return [found.p for found in two_level_bootstraps(chosen, replace(pair, folds=None), resamples=500, seed=1, reference="percentile")]


def swaps_alone(chosen: Sequence[Metric], pair: Pair) -> list[float]:
    return [sign_flip(metric, replace(pair, folds=None), resamples=500, seed=1).p for metric in chosen]


def rates(name: str, world: World, chosen: Sequence[Metric], tests: Tests, better: float, replications: int) -> dict[str, list[float]]:
    """Share of data sets with p < .05, by test and metric."""
    found: dict[str, list[list[float]]] = {test: [] for test in tests}
    for replication in range(replications):
        pair = world(rng("rates", name, replication), better)
        for test, run in tests.items():
            found[test].append(run(chosen, pair))
    return {test: [float(rate) for rate in np.mean(np.array(ps) < 0.05, axis=0)] for test, ps in found.items()}


def seeded(random: np.random.Generator, better: float, **world: float) -> Pair:
    """Systems whose runs also differ as wholes: every run scales its predictions by its own 1 + N(0, .1^2)."""
    pair = systems(random, better=better, **world)
    a, b = (side * (1 + 0.1 * random.normal(size=(len(side), 1))) for side in (pair.a, pair.b))
    return replace(pair, a=a, b=b)


MOSI = "MOSI-sized, 686 clips of 31 videos"
DESIGNS: dict[str, tuple[World, Sequence[Metric], Tests, float]] = {
    f"{MOSI}, 5 seeds": (lambda r, e: systems(r, better=e), INTENSITIES, {"t over seeds": over_seeds}, 0.1),
    f"{MOSI}, 10 seeds": (lambda r, e: systems(r, better=e, seeds=10), INTENSITIES, {"t over seeds": over_seeds}, 0.1),
    f"{MOSI}, 5 seeds that differ as wholes": (seeded, INTENSITIES, {"t over seeds": over_seeds}, 0.1),
    f"{MOSI}, one run": (lambda r, e: systems(r, better=e, seeds=1), INTENSITIES, {"percentiles": percentiles}, 0.1),
    "the same, 8 videos, 5 seeds": (
        lambda r, e: seeded(r, e, videos=8),
        INTENSITIES,
        {"t over seeds": over_seeds, "percentiles": percentiles, "swaps alone": swaps_alone},
        0.2,
    ),
    "the same, 8 videos, one run": (lambda r, e: systems(r, better=e, videos=8, seeds=1), INTENSITIES, {"percentiles": percentiles}, 0.2),
    "RAVDESS-sized, 24 actors, 5 folds, one run": (
        lambda r, e: learned(r, better=e),
        CLASSES,
        {"t over folds": over_folds, "percentiles": percentiles},
        0.1,
    ),
    "RAVDESS-sized, 24 actors, 5 folds, 3 seeds": (
        lambda r, e: learned(r, better=e, runs=3, same_deal=True),
        CLASSES,
        {"t over folds": over_folds},
        0.1,
    ),
    "RAVDESS-sized, 24 actors, models that hardly learn, 3 seeds": (
        lambda r, e: learned(r, better=e, runs=3, same_deal=True, share=0.1),
        CLASSES,
        {"t over folds": over_folds, "swaps alone": swaps_alone},
        0.1,
    ),
    "the same, 5 actors of 60 clips, one run": (
        lambda r, e: learned(r, better=e, actors=5),
        CLASSES,
        {"t over folds": over_folds, "percentiles": percentiles},
        0.2,
    ),
    "the same, 8 actors of 60 clips, one run": (
        lambda r, e: learned(r, better=e, actors=8, folds=4),
        CLASSES,
        {"t over folds": over_folds, "percentiles": percentiles},
        0.2,
    ),
    "RAVDESS-sized, 5 x 5 folds": (lambda r, e: learned(r, better=e, runs=5), CLASSES, {"t over folds": over_folds}, 0.1),
    "5 x 5 folds of 300 independent clips": (
        lambda r, e: learned(r, better=e, runs=5, actors=300, each=1, classes=2),
        CLASSES,
        {"t over folds": over_folds},
        0.2,
    ),
    "10 hold-out draws, 4 of 24 actors test": (lambda r, e: drawn(r, better=e), CLASSES, {"t over draws": over_folds}, 0.1),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", DESIGNS)
def test_equal_systems_are_called_different_as_often_as_stated(name: str) -> None:
    world, chosen, classical, better = DESIGNS[name]
    equal = rates(name, world, chosen, {"default": default, **classical}, 0.0, REPLICATIONS)
    power = rates(name, world, chosen, {"default": default}, better, REPLICATIONS // 2)["default"]
    for place, metric in enumerate(chosen):
        size, *beside = (f"{test} {shown(values[place], REPLICATIONS)}" for test, values in equal.items())
        found = f"{shown(power[place], REPLICATIONS // 2)} ({100 * better:g} %)"
        print(f"\n| {name} | {metric.label} | {size.removeprefix('default ')} | {found} | {'; '.join(beside)} |", flush=True)
    assert max(equal["default"]) <= MOST
    assert max(power) > max(equal["default"]) or "5 actors" in name  # swaps of five cannot reject


def shown(rate: float, tables: int) -> str:
    """A rate with its Monte Carlo interval: Wilson's, 95 %."""
    interval = binomtest(round(rate * tables), tables).proportion_ci(method="wilson")
    return f"{digits(rate)} [{digits(interval.low)}, {digits(interval.high)}]"


def digits(rate: float) -> str:
    return f"{rate:.3f}".removeprefix("0")


@pytest.mark.slow
@pytest.mark.parametrize(("datasets", "compared"), [(5, 4), (8, 14), (14, 4), (20, 10)])
def test_tables_of_equal_systems_on_several_data_sets_show_no_difference(datasets: int, compared: int) -> None:
    """Friedman's rate, and how often any pair is told apart; power: one system better by one standard deviation of the scores."""
    random, names = rng("rates", "data sets", datasets), [f"s{j}" for j in range(compared)]
    equal = [Scores(random.normal(size=(datasets, compared)), names, range(datasets)) for _ in range(REPLICATIONS)]
    unequal = [Scores(random.normal(size=(datasets, compared)) + np.eye(compared)[0], names, range(datasets)) for _ in range(200)]
    overall, power = (float(np.mean([friedman(scores).p < 0.05 for scores in tables])) for tables in (equal, unequal))
    pairs = float(np.mean([len(diagram(scores).cliques) > 1 for scores in equal[: REPLICATIONS // 2]]))
    beside = f"any pair {shown(pairs, REPLICATIONS // 2)}"
    told = f"{compared} systems on {datasets} data sets: Friedman | a mean | {shown(overall, REPLICATIONS)} | {shown(power, 200)} (1 sd)"
    print(f"\n| {told} | {beside} |", flush=True)
    assert max(overall, pairs) <= MOST and power > overall
