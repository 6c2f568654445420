"""Two-level paired bootstrap: is the difference more than the choice of clips and of seeds explains?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan, sqrt
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from harness.analysis.classical import t_p
from harness.analysis.comparisons import ONE_RUN, Comparison
from harness.analysis.effects import LEVEL, t_margin
from harness.analysis.pairs import Clustered, Pair
from harness.analysis.resamples import on_resamples
from harness.seeds import generator
from harness.training.metrics import Floats, Metric

Reference = Literal["t", "percentile"]

RESAMPLES = 10_000
_ROUNDING = 1e-13  # relative to the values compared: smaller differences are none
_MOST_UNDEFINED = 0.05  # share of resamples on which a metric may be undefined before no claim is made
_NAMES: dict[Reference, str] = {"t": "two-level bootstrap", "percentile": "two-level bootstrap, percentile"}


def two_level_bootstraps(
    metrics: Sequence[Metric], pair: Pair, *, resamples: int = RESAMPLES, seed: int, reference: Reference = "t"
) -> list[Comparison]:
    """Paired bootstrap over clips (by cluster) and seeds; all metrics share the resamples.

    The claim generalises to new clips and new seeds; with a single run of a system, to new clips only.

    ``reference="t"``: clusters are resampled, the seeds' part is added in closed form, p and interval come from
    Student's t (see ``precision``). ``"percentile"``: seeds are resampled too, p and interval are percentiles of the
    resamples (not BCa). On simulated equal systems (600-1000 pairs a case; 6, 8 or 31 videos, 1 to 10 seeds, MAE, Corr,
    Acc; alpha .05) t rejected 2-6 %. Percentiles rejected up to 13 % where videos are few or seeds dominate, and under
    1 % where seeds disagree clip by clip, which resampling both counts three times; so they are not the default.

    Raises ``DataError`` as ``Pair.tables`` does. A metric that is undefined on over 5 % of the resamples has p = NaN.
    """
    tables = pair.clustered(metrics)
    _, clusters = pair.groups()
    on_a = on_resamples(metrics, [table.a for table in tables], resamples, seed)
    on_b = on_resamples(metrics, [table.b for table in tables], resamples, seed)
    return [
        _conclude(_blank(table, pair, clusters, reference), table.values(), values, pair.paired_seeds, reference, seed)
        for table, values in zip(tables, zip(on_a, on_b, strict=True), strict=True)
    ]


def two_level_bootstrap(
    metric: Metric,
    a: ArrayLike,
    b: ArrayLike,
    truth: ArrayLike,
    clusters: ArrayLike | None,
    *,
    resamples: int = RESAMPLES,
    seed: int,
    paired_seeds: bool = True,
    reference: Reference = "t",
) -> Comparison:
    """``two_level_bootstraps`` of one metric; shapes as in ``Pair``."""
    pair = Pair(a, b, truth, clusters, paired_seeds)
    return two_level_bootstraps([metric], pair, resamples=resamples, seed=seed, reference=reference)[0]


# ---- p and interval


@dataclass(frozen=True)
class Runs:
    """Runs that form one sample of seeds: their ``values`` (S,) on all clips and ``resampled`` (R, S) on the resamples.

    Paired seeds make one such sample, of the differences A - B; otherwise there are two, of A and of -B.
    """

    values: Floats
    resampled: Floats

    @property
    def seed_variance(self) -> float:
        """Squared standard error of the mean over seeds; 0 for a single run, whose claim is conditional on it."""
        return float(self.values.var(ddof=1)) / len(self.values) if len(self.values) > 1 else 0.0

    @property
    def shared_variance(self) -> float:
        """Part of the mean's variance that seeds and clusters both count: their interaction."""
        seeds = len(self.values)
        if seeds < 2:
            return 0.0
        deviation = self.resampled - self.resampled.mean(axis=1, keepdims=True) - (self.values - self.values.mean())
        return float(np.square(deviation).sum(axis=1).mean()) / ((seeds - 1) * seeds)


def _samples(values: tuple[Floats, Floats], resampled: tuple[Floats, Floats], paired: bool) -> list[Runs]:
    if paired:
        return [Runs(values[0] - values[1], resampled[0] - resampled[1])]
    return [Runs(values[0], resampled[0]), Runs(-values[1], -resampled[1])]


def precision(samples: Sequence[Runs], clusters: int) -> tuple[float, float]:
    """Standard error of the difference, clusters and seeds being crossed samples, and its degrees of freedom.

    error^2 = V_clusters + V_seeds - V_both, at least the larger of the first two (two-way clustering: Cameron,
    Gelbach and Miller 2011; Owen 2007). V_clusters: variance of the mean over seeds across cluster resamples, times
    G/(G-1). V_seeds: squared standard error over seeds. V_both: their interaction, which both contain.
    df = (V_clusters + V_seeds)^2 / (V_clusters^2/(G-1) + V_seeds^2/(S-1)), after Satterthwaite 1946.
    """
    small = clusters / (clusters - 1)
    over_clusters = float(np.sum([runs.resampled.mean(axis=1) for runs in samples], axis=0).var()) * small
    parts = [(over_clusters, clusters - 1), *((runs.seed_variance, len(runs.values) - 1) for runs in samples)]
    total = sum(part for part, _ in parts)
    both = sum(runs.shared_variance for runs in samples) * small
    variance = max(over_clusters, total - over_clusters, total - both)
    weight = sum(part**2 / df for part, df in parts if part)
    return sqrt(variance), total**2 / weight if weight else nan


def _t_reference(difference: float, samples: Sequence[Runs], clusters: int, scale: float) -> dict[str, float]:
    """p is never below 1 / (resamples + 1), the finest that the resamples can tell. ``scale``: size of the values compared."""
    finest = 1 / (len(samples[0].resampled) + 1)
    error, df = precision(samples, clusters)
    rounding = _ROUNDING * scale
    if error <= rounding:
        return {"p": 1.0 if abs(difference) <= rounding else finest, "low": difference, "high": difference}
    t, margin = difference / error, t_margin(error, df)
    return {"p": max(finest, t_p(t, df)), "low": difference - margin, "high": difference + margin, "statistic": t, "df": df}


def _over_drawn_seeds(resampled: Floats, rng: np.random.Generator) -> Floats:
    drawn = rng.integers(resampled.shape[1], size=resampled.shape)
    mean: Floats = np.take_along_axis(resampled, drawn, axis=1).mean(axis=1)
    return mean


def _percentiles(samples: Sequence[Runs], seed: int, scale: float) -> dict[str, float]:
    rng = generator(seed, "two-level bootstrap", "seeds")
    values = np.sum([_over_drawn_seeds(runs.resampled, rng) for runs in samples], axis=0)
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    rounding = _ROUNDING * scale
    tail = min(int(np.sum(values <= rounding)), int(np.sum(values >= -rounding)))
    return {"p": min(1.0, 2 * (tail + 1) / (len(values) + 1)), "low": float(low), "high": float(high)}


# ---- the outcome


def _blank(table: Clustered, pair: Pair, clusters: int, reference: Reference) -> Comparison:
    a, b = table.values()
    seeds = min(len(a), len(b))
    return Comparison(
        test=_NAMES[reference],
        conditional_on=ONE_RUN if seeds == 1 else "",
        metric=table.metric.name,
        difference=float(a.mean() - b.mean()),
        p=nan,
        seeds=seeds,
        clips=pair.clips,
        clusters=None if pair.clusters is None else clusters,
    )


def _why_undefined(values: tuple[Floats, Floats], share: float, clusters: int) -> str:
    """Why no claim can be made, or nothing."""
    for system, side in zip("AB", values, strict=True):
        if np.isnan(side).any():
            return f"undefined for {int(np.isnan(side).sum())} of {len(side)} runs of {system}"
    if clusters < 2:
        return "undefined: all clips lie in one cluster"
    return f"undefined on {share:.0%} of the resamples" if share > _MOST_UNDEFINED else ""


def _conclude(
    blank: Comparison,
    values: tuple[Floats, Floats],
    resampled: tuple[Floats, Floats],
    paired: bool,
    reference: Reference,
    seed: int,
) -> Comparison:
    missing = np.asarray(np.isnan(resampled[0]).any(axis=1) | np.isnan(resampled[1]).any(axis=1))
    clusters = blank.clusters or blank.clips or 0
    if why := _why_undefined(values, float(missing.mean()), clusters):
        return blank.model_copy(update={"note": why})
    if missing.any():
        resampled = resampled[0][~missing], resampled[1][~missing]
    samples = _samples(values, resampled, paired)
    scale = float(np.abs(np.concatenate(values)).max())
    found = _t_reference(blank.difference, samples, clusters, scale) if reference == "t" else _percentiles(samples, seed, scale)
    note = f"undefined on {int(missing.sum())} of {len(missing)} resamples, which are left out" if missing.any() else ""
    return blank.model_copy(update={**found, "note": note})
