"""The ideal predictor of simulated data: the best scores that features with a known posterior of the sentiment allow.

A clip's label is g(z), a step function of its latent sentiment z. Whoever knows that z ~ N(mean, std^2) under the
prior N(0, 1), and how often each label occurs among the clips to predict, knows the probability of every label, and from
it the best answer under each metric. docs/simulated_data.md derives it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LabelMap:
    """g: z -> label, the step function under which z ~ N(0, 1) has label ``values`` (K,) with ``shares`` (K,), all above 0."""

    values: Floats
    shares: Floats

    @classmethod
    def of(cls, labels: NDArray[Any]) -> LabelMap:
        """The map that gives N(0, 1) the histogram of ``labels`` (N,)."""
        values, counts = np.unique(np.asarray(labels, dtype=np.float64), return_counts=True)
        return cls(values, counts / counts.sum())

    @property
    def steps(self) -> Floats:
        """The z at which g rises to the next value, (K - 1,)."""
        return np.asarray(ndtri(np.cumsum(self.shares)[:-1]), dtype=np.float64)

    def __call__(self, z: Floats) -> Floats:
        """g(z) for z of any shape."""
        return self.values[np.searchsorted(self.steps, z, side="right")]

    def histogram(self, labels: NDArray[Any]) -> Floats:
        """Share of each of ``values`` among ``labels`` (N,), which are some of them: (K,)."""
        place = np.abs(np.asarray(labels, dtype=np.float64)[:, None] - self.values).argmin(1)  # labels may be rounded to float32
        return np.bincount(place, minlength=len(self.values)) / len(place)

    def probabilities(self, mean: Floats, std: Floats) -> Floats:
        """P(label = value_k) where z ~ N(mean, std^2), (N,), (N,): (N, K)."""
        steps = np.concatenate([[-np.inf], self.steps, [np.inf]])
        edges = (steps - mean[:, None]) / std[:, None]
        low, high = edges[:, :-1], edges[:, 1:]
        above = low > 0  # there the difference is taken between the small upper tails, which keep their digits
        return np.asarray(ndtr(np.where(above, -low, high)) - ndtr(np.where(above, -high, low)), dtype=np.float64)

    def shifted(self, chance: Floats, prior: Floats) -> Floats:
        """``chance`` (N, K) of clips whose labels occur with the shares ``prior`` (K,) instead of the map's own (Bayes' rule).

        A clip's features depend on its sentiment as ever. Row sums say how much more often such features then occur.
        """
        return chance * (prior / self.shares)


def ideal_scores(label: LabelMap, truth: Floats, mean: Floats, std: Floats, prior: Floats | None = None) -> dict[str, float]:
    """Scores on clips with labels ``truth`` (N,) of the ideal predictors that know of each clip N(mean, std^2) (N,), (N,).

    They take labels to occur with the shares ``prior`` (K,), by default those of ``truth``. Each of mae, corr, acc7,
    acc2_nonneg and acc2_nonzero has its own ideal predictor: for mae the median of the label, for corr its mean, for an
    accuracy the most probable class (of the two signs where zeros are dropped). A score that these labels do not define,
    such as corr where all are equal, is left out.
    """
    chance = label.shifted(label.probabilities(mean, std), label.histogram(truth) if prior is None else prior)
    happened = np.abs(truth[:, None] - label.values).argmin(1)[:, None] == np.arange(len(label.values))
    return _scores(label.values, chance, happened / len(truth))


def population_scores(label: LabelMap, shares: Floats, std: Floats, prior: Floats | None = None) -> dict[str, float]:
    """What :func:`ideal_scores` estimates: the expected ideal scores over a population of clips.

    In it labels have the ``shares`` (K,) and posterior standard deviations are spread like ``std`` (M,), each in (0, 1);
    the predictors believe in ``prior``, by default the same shares. Under N(0, 1) the posterior mean is N(0, 1 - std^2);
    the integral over it is a trapezoid sum over +-7 deviations.
    """
    distinct, often = np.unique(std, return_counts=True)
    grid = np.linspace(-7, 7, 1001)
    density = np.exp(-(grid**2) / 2)
    weight = np.outer(often / often.sum(), density / density.sum()).ravel()
    mean, deviation = np.outer(np.sqrt(1 - distinct**2), grid).ravel(), np.repeat(distinct, len(grid))
    chance = label.probabilities(mean, deviation)
    truth = label.shifted(chance, shares)
    return _scores(label.values, truth if prior is None else label.shifted(chance, prior), truth * weight[:, None])


def _scores(values: Floats, chance: Floats, truth: Floats) -> dict[str, float]:
    """Scores of who believes in ``chance`` (N, K; rows in any unit) where clip and label have the joint mass ``truth`` (N, K)."""
    chance = chance / chance.sum(1, keepdims=True)
    median = values[np.minimum((chance.cumsum(1) < 0.5).sum(1), len(values) - 1)]
    expected = chance @ values
    groups = {
        "acc7": [values.round() == level for level in range(-3, 4)],
        "acc2_nonneg": [values < 0, values >= 0],
        "acc2_nonzero": [values < 0, values > 0],
    }
    scores = {"mae": float((truth * np.abs(values - median[:, None])).sum()), "corr": _correlation(expected, values, truth)}
    scores |= {metric: _accuracy(chance, truth, classes) for metric, classes in groups.items()}
    return {metric: value for metric, value in scores.items() if np.isfinite(value)}


def _accuracy(chance: Floats, truth: Floats, classes: list[NDArray[np.bool_]]) -> float:
    members = np.stack(classes, axis=1).astype(np.float64)  # (K, classes)
    believed, actual = chance @ members, truth @ members
    counted = actual.sum()
    return float(actual[np.arange(len(actual)), believed.argmax(1)].sum() / counted) if counted else float("nan")


def _correlation(expected: Floats, values: Floats, truth: Floats) -> float:
    clip, level = truth.sum(1), truth.sum(0)
    dx, dy = expected - clip @ expected, values - level @ values
    spread = np.sqrt((clip @ dx**2) * (level @ dy**2))
    return float(dx @ truth @ dy / spread) if spread > 1e-12 else float("nan")
