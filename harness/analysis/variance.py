"""Where the variance of a difference comes from: seeds, folds, videos, clips; and how many seeds would settle it.

Crossed and nested random effects by the method of moments, in closed form. Any metric is taken apart clip by clip
through its jackknife pseudo-values, which for a mean over clips are the clips' own values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement
from math import nan, sqrt

import numpy as np
from numpy.typing import NDArray

from harness.analysis.pairs import Pair, masked
from harness.analysis.power import Plan, plan_seeds
from harness.errors import DataError
from harness.training.metrics import Floats, Metric

Factor = NDArray[np.generic]

SEED, FOLD, CLIP, REST = "seed", "fold", "clip", "seed x clip"
BY_RUN = (SEED, FOLD, REST)  # smaller with more seeds or repeats; the others with more clips only


@dataclass(frozen=True)
class Part:
    """One source of variance: ``variance`` of its effect, ``levels`` that were seen, ``error2`` what it adds to the mean's variance.

    ``share``: of the sum of all. ``by_run``: smaller with more seeds or repeats; the others with more clips only.
    """

    name: str
    levels: int
    variance: float
    error2: float
    share: float
    by_run: bool


@dataclass(frozen=True)
class Decomposition:
    """The squared standard error of ``difference`` (A - B, mean over runs) by source, and what would be needed.

    ``parts`` is empty where nothing could be estimated and ``note`` says why. Effects on training that all runs on this
    data set share, the choice of its training clips above all, do not vary within it and are in no part.
    """

    metric: str
    difference: float
    runs: int
    clips: int
    parts: tuple[Part, ...] = ()
    plan: Plan | None = None
    note: str = ""

    @property
    def error(self) -> float:
        """Standard error of the difference, the root of the parts' sum; NaN without parts."""
        return sqrt(sum(part.error2 for part in self.parts)) if self.parts else nan

    def share(self, name: str) -> float:
        """Share of the part called ``name``; 0 where there is none."""
        return next((part.share for part in self.parts if part.name == name), 0.0)


def components(values: Floats, factors: Mapping[str, Factor]) -> dict[str, float]:
    """Variance of each random effect in values (n,) = mean + effects + rest, by name; ``rest`` is what no factor explains.

    Henderson's method 1: every factor's sum of squares sum_a (total_a)^2 / n_a is set equal to its expectation, linear
    in the components with coefficients sum_ab n_ab^2 / n_a; factors may be crossed or nested, groups of any size. A
    negative solution is 0. Balanced, it is the analysis of variance. Source: Henderson 1953 (Biometrics 9:226-252).
    Raises ``DataError`` where factors cannot be told apart, naming them.
    """
    n = len(values)
    centred = values - values.mean()
    labels = {name: np.unique(factor, return_inverse=True)[1] for name, factor in factors.items()}
    labels["rest"] = np.arange(n)
    sums = [_squares(centred, label) for label in labels.values()]
    expected = _expected(list(labels.values()))
    scale = np.sqrt(np.abs(np.diag(expected))) + 1e-300
    if np.linalg.cond(expected / scale[:, None] / scale) > 1e10:
        raise DataError(
            f"the effects of {', '.join(factors)} cannot be told apart in {n} values",
            "Each needs at least two levels, and no two may split the values alike.",
        )
    found = np.linalg.solve(expected, sums)
    rounding = 1e-12 * float(np.square(centred).mean())
    return {name: float(value) if value > rounding else 0.0 for name, value in zip(labels, found, strict=True)}


def _squares(centred: Floats, labels: NDArray[np.int64]) -> float:
    totals = np.bincount(labels, centred)
    return float((totals**2 / np.bincount(labels)).sum())


def _expected(labels: Sequence[NDArray[np.int64]]) -> Floats:
    """[i, j]: how often the variance of the effect of ``labels[j]`` enters the sum of squares of ``labels[i]``, the mean's taken off."""
    within = np.empty((len(labels), len(labels)))
    sizes = [np.bincount(label) for label in labels]
    for i, j in combinations_with_replacement(range(len(labels)), 2):
        levels = len(sizes[j])
        cells, counts = np.unique(labels[i] * levels + labels[j], return_counts=True)
        within[i, j] = (counts**2 / sizes[i][cells // levels]).sum()
        within[j, i] = (counts**2 / sizes[j][cells % levels]).sum()
    expected: Floats = within - np.array([(size**2).sum() for size in sizes]) / len(labels[0])
    return expected


# ---- of a pair of systems


def decompose(metric: Metric, pair: Pair, *, groups_are: str = "cluster") -> Decomposition:
    """Seeds (or repeats), folds, clusters (called ``groups_are``) and clips in the difference of A and B, and what is left.

    The rest, ``seed x clip``, is what a run does clip by clip; with a single run it cannot be told from the clips. Where
    runs share no seeds, or a metric is undefined for one, there are no parts but a note. Raises ``DataError`` as
    ``Pair.tables`` does.
    """
    a, b = pair.tables(metric)
    if len(a) != len(b) or not pair.paired_seeds:
        difference = float(metric.finish(a.sum(axis=1)).mean() - metric.finish(b.sum(axis=1)).mean())
        return Decomposition(metric.name, difference, min(len(a), len(b)), pair.clips, note="undefined: the runs share no seeds")
    tested = pair.tested(len(a))
    (whole_a, each_a), (whole_b, each_b) = (_pseudo(metric, masked(side, tested), tested) for side in (a, b))
    blank = Decomposition(metric.name, float((whole_a - whole_b).mean()), len(a), pair.clips)
    values = (each_a - each_b)[tested]
    if not np.isfinite(values).all():
        return replace(blank, note="undefined for a run, or when some clip is left out")
    if np.ptp(values) <= 1e-9 * float(np.abs([each_a, each_b]).max()):
        return replace(blank, note="undefined: A and B differ by one same amount on all clips in all runs")
    return _told(blank, values, _factors(pair, tested, groups_are))


def _pseudo(metric: Metric, table: Floats, tested: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """The metric of each run (S,), and its pseudo-values n * whole - (n-1) * without the clip, (S, N)."""
    n = tested.sum(axis=1)[:, None]
    whole = metric.finish(table.sum(axis=1))
    without = metric.finish(table.sum(axis=1, keepdims=True) - table)
    return whole, n * whole[:, None] - (n - 1) * without


def _factors(pair: Pair, tested: NDArray[np.bool_], groups_are: str) -> dict[str, Factor]:
    """Labels of every tested clip of every run, (n,), by source; those that split nothing, or everything, left out."""
    runs, clips = np.nonzero(tested)
    group, _ = pair.groups()
    factors: dict[str, Factor] = {SEED: runs, groups_are: group[clips], CLIP: clips}
    if pair.folds is not None:
        fold = np.unique(np.atleast_2d(np.asarray(pair.folds)), return_inverse=True)[1].reshape(tested.shape)
        factors |= {FOLD: runs * (fold.max() + 1) + fold[runs, clips]} if len(np.unique(fold[tested])) > 1 else {}
    alone = [name for name, labels in factors.items() if not 1 < len(np.unique(labels)) < len(runs)]
    return {name: labels for name, labels in factors.items() if name not in alone and (name != groups_are or pair.clusters is not None)}


def _told(blank: Decomposition, values: Floats, factors: Mapping[str, Factor]) -> Decomposition:
    found = components(values, factors)
    rest = REST if CLIP in factors else CLIP
    labels = {**factors, rest: np.arange(len(values))}
    sizes = {name: np.unique(label, return_counts=True)[1] / len(values) for name, label in labels.items()}
    error2 = {name: found.get(name, found["rest"]) * float(np.square(size).sum()) for name, size in sizes.items()}
    total = sum(error2.values())
    parts = tuple(
        Part(name, len(sizes[name]), found.get(name, found["rest"]), part, part / total if total else 0.0, name in BY_RUN)
        for name, part in error2.items()
    )
    return replace(blank, parts=parts, plan=_plan(blank, parts))


def _plan(blank: Decomposition, parts: tuple[Part, ...]) -> Plan | None:
    """Seeds needed; None for a single run, whose seeds' part is not known."""
    if blank.runs < 2:
        return None
    fixed = [part for part in parts if not part.by_run]
    by_run = sum(part.error2 for part in parts if part.by_run)
    units = min((part.levels for part in fixed), default=blank.clips)
    return plan_seeds(blank.difference, sum(part.error2 for part in fixed), units, by_run * blank.runs, blank.runs)
