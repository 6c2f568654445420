"""The test for few clusters: swaps of whole clusters, never a resample of them."""

from __future__ import annotations

from math import isnan, nan

import numpy as np

from harness.analysis.bootstrap import RESAMPLES
from harness.analysis.classical import t_p
from harness.analysis.comparisons import ONE_RUN, Comparison
from harness.analysis.effects import LEVEL, t_margin
from harness.analysis.jackknife import jackknife_precision
from harness.analysis.pairs import Pair
from harness.analysis.permutation import sign_flip
from harness.training.metrics import Metric


def few_clusters(metric: Metric, pair: Pair, *, resamples: int = RESAMPLES, seed: int) -> Comparison:
    """A against B on clips of fewer clusters than can be resampled: the sign-flip test over clusters.

    Swaps do not know how much seeds vary. With several runs the difference must also pass Student's t with the
    jackknife's error over clusters and the seeds' own (``jackknife_precision``): p is the larger of the two, so that it
    is at most as often small as either, and the claim is one about new clips and seeds. The interval is the latter's.
    Refused (p = NaN, a note) for one cluster, for runs that cannot be swapped, and for a metric that is undefined.
    """
    (table,), (_, clusters) = pair.clustered([metric]), pair.groups()
    a, b = table.values()
    blank = Comparison(
        test="cluster sign-flip",
        conditional_on=ONE_RUN,
        metric=metric.name,
        difference=float(a.mean() - b.mean()),
        p=nan,
        seeds=min(len(a), len(b)),
        clips=pair.clips,
        clusters=None if pair.clusters is None else clusters,
    )
    if isnan(blank.difference):
        return blank.model_copy(update={"note": f"undefined for {int(np.isnan([*a, *b]).sum())} of {len(a) + len(b)} runs"})
    if clusters < 2:
        return blank.model_copy(update={"note": "undefined: all clips lie in one cluster"})
    if table.a.shape != table.b.shape:
        return blank.model_copy(
            update={"note": f"not tested: {clusters} clusters are too few to be resampled, and unequal runs cannot be swapped"}
        )
    flipped = sign_flip(metric, pair, resamples=resamples, seed=seed)
    error, df = jackknife_precision(table, pair.paired_seeds)
    return _both(flipped, error, df, clusters)


def _both(flipped: Comparison, error: float, df: float, clusters: int) -> Comparison:
    """The swaps' outcome with the jackknife's interval and, for several runs, the larger p."""
    several = (flipped.seeds or 1) > 1
    update: dict[str, float | str] = {"note": _floor(flipped, clusters)}
    if several:
        update |= {"test": f"{flipped.test}, and jackknife t over clusters and seeds", "conditional_on": ""}
    if isnan(error) and several:
        return flipped.model_copy(update={**update, "p": nan, "note": "undefined when some cluster is left out"})
    if error > 0:
        t, margin = flipped.difference / error, t_margin(error, df, LEVEL)
        update |= {"low": flipped.difference - margin, "high": flipped.difference + margin, "df": df}
        update |= {"p": max(flipped.p, t_p(t, df)), "statistic": t} if several else {}
    return flipped.model_copy(update=update)


def _floor(flipped: Comparison, clusters: int) -> str:
    least = 0.5 ** (clusters - 1)
    return flipped.note or (f"p cannot fall below {least:g} with {clusters} clusters" if least > 1 - LEVEL else "")
