"""The least mean absolute error that a given correlation and accuracy leave possible: a proven lower bound.

Let labels y have mean mu and deviation s, let predictions p lie in [-R, R] with mean m and deviation v, and let Corr <= r. Then
cov(y, p) <= r s v, and v <= (E(p - m0)^2 + v0^2) / (2 v0) for every m0 and v0 > 0, since E(p - m0)^2 >= v^2. So for every
multiplier lam >= 0

    MAE >= E min over p of |y - p| + lam ((y - mu) p - r s ((p - m0)^2 + v0^2) / (2 v0)),

and the minimum is taken for each label by itself. Its function of p is concave between breakpoints, so that only the breakpoints
-R, 0, y, R count. An upper bound on Acc-2 says that some share of clips is predicted on the wrong side of 0: the clips for which
the wrong side costs least. Every (lam, m0, v0) gives a valid bound; the best one is searched for. The bound is convex in Corr and
Acc-2, so that it holds for means over runs too. Where the best m0 and v0 are the moments of the minimising predictions, these
attain it up to whole clips.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import floor

import numpy as np

from harness.analysis.audit.facts import Floats, Labels, facts
from harness.analysis.audit.published import Cell, Source, Table
from harness.analysis.audit.results import Collector, Result

POINTS = (13, *[7] * 13)  # of each search grid in each direction; every grid is smaller than the last by SHRINK
SHRINK = 0.65
RANGE = 3.0


@dataclass(frozen=True)
class Stated:
    """What a row prints beside its MAE: the largest Corr and the largest Acc-2 (shares) that rounding allows; 1.0: none printed."""

    corr: float
    acc2: float = 1.0
    half: str = "acc2_nonneg"

    def coarser(self) -> Stated:
        """The same rounded down to steps of 0.1: its bound is at least this one's, and many rows share it."""
        return Stated(floor(10 * self.corr) / 10, 1.0 if self.acc2 == 1.0 else floor(10 * self.acc2) / 10, self.half)


def least_mae(labels: Labels, stated: Stated, reach: float = RANGE) -> float:
    """A lower bound on the MAE of predictions in [-reach, reach] on clips with these labels, at most that Corr and Acc-2."""
    y, w = labels.values, labels.shares
    s = float(np.sqrt(w @ y**2 - (w @ y) ** 2))
    centre, width = np.array([1.0, 0.0, s]), np.array([1.0, reach, 0.9 * s])  # lam, m0, v0
    best = 0.0
    for points in POINTS:
        steps = np.linspace(-1, 1, points)
        grid = np.stack(np.meshgrid(*(centre[:, None] + width[:, None] * steps), indexing="ij"), -1).reshape(-1, 3)
        grid = grid[(grid[:, 0] >= 0) & (grid[:, 2] > 1e-3)]
        values = dual(labels, stated, grid, reach)
        found = int(values.argmax())
        best = max(best, float(values[found]))
        centre, width = grid[found], width * SHRINK
    return best


def dual(labels: Labels, stated: Stated, points: Floats, reach: float = RANGE) -> Floats:
    """The bound at each (lam, m0, v0) of ``points`` (G, 3): (G,)."""
    lam, m0, v0 = (column[:, None] for column in points.T)
    y, w = labels.values, labels.shares
    mu = float(w @ y)
    s = float(np.sqrt(w @ y**2 - mu**2))
    corr = max(stated.corr, 0.0)  # below 0 the bound on v would point the wrong way

    def cost(p: Floats | float) -> Floats:
        total: Floats = np.abs(y - p) + lam * ((y - mu) * p - corr * s * ((p - m0) ** 2 + v0**2) / (2 * v0))
        return total

    ends, own = (cost(-reach), cost(reach)), cost(y)
    below = np.minimum(ends[0], cost(0.0))
    above = np.minimum(ends[1], cost(0.0))
    right = np.minimum(np.where(y < 0, below, above), own)
    wrong = np.where(y < 0, above, below)
    if stated.half == "acc2_nonzero":  # clips labelled 0 are not counted: either side will do
        counted = np.abs(y) > 1e-9
        right = np.where(counted, right, np.minimum(right, wrong))
    else:
        counted = np.ones_like(y, dtype=bool)
    free = w @ np.minimum(right, wrong).T
    return free if stated.acc2 == 1.0 else free + _forced(wrong - right, np.where(counted, w, 0.0), 1 - stated.acc2)


def _forced(extra: Floats, w: Floats, share: float) -> Floats:
    """Least cost of having at least ``share`` of the counted clips wrong; ``extra`` (G, K): cost of wrong above right by label."""
    extra = np.maximum(extra, 0.0)
    order = np.argsort(extra, axis=1)
    sorted_extra, sorted_w = np.take_along_axis(extra, order, 1), w[order]
    before = sorted_w.cumsum(1) - sorted_w
    total: Floats = (sorted_extra * np.clip(share * w.sum() - before, 0.0, sorted_w)).sum(1)
    return total


def constant_mae(labels: Labels) -> float:
    """The MAE of the best constant prediction: the median label."""
    return float(min(labels.shares @ np.abs(labels.values - c) for c in labels.values))


# ---- the check


def check(source: Source) -> Result:
    """Every MAE that stands beside a Corr on a data set with known labels."""
    collector = Collector("least MAE at its Corr and Acc-2")
    for table in source.tables:
        for name, *_ in table.rows:
            row = source.row(table, name)
            if "mae" in row and "corr" in row and facts(table.data).labels:
                _row(collector, table, row)
    if collector.cells:
        collector.power = f"predictions in [-{RANGE:g}, {RANGE:g}], label histogram of the catalogue"
    return collector.result()


def printed(row: dict[str, Cell]) -> Stated:
    """What a row prints beside its MAE."""
    corr = float(row["corr"].bounds[1])
    for half in ("acc2_nonneg", "acc2_nonzero"):
        if half in row:
            return Stated(corr, min(float(row[half].bounds[1]) / 100, 1.0), half)
    return Stated(corr)


@lru_cache(maxsize=256)
def bound_on(data: str, stated: Stated, reach: float = RANGE) -> float:
    """``least_mae`` on the test labels of ``data``."""
    labels = facts(data).labels
    assert labels
    return least_mae(labels, stated, reach)


def _row(collector: Collector, table: Table, row: dict[str, Cell]) -> None:
    stated, mae = printed(row), row["mae"]
    collector.saw(row[name] for name in ("mae", "corr", stated.half) if name in row)
    largest = float(mae.bounds[1])
    if largest < bound_on(table.data, stated.coarser()) and largest < bound_on(table.data, stated):
        collector.find(f"{table.item}, {table.data}, {mae.row}", _sentence(table.data, row, stated))


def _sentence(data: str, row: dict[str, Cell], stated: Stated) -> str:
    labels = facts(data).labels
    assert labels
    beside = " and ".join(str(row[name]) for name in ("corr", stated.half) if name in row)
    from_both, from_corr = bound_on(data, stated), bound_on(data, Stated(stated.corr))
    needed = _needed_reach(data, stated, float(row["mae"].bounds[1]))
    return (
        f"{row['mae']} with {beside} is not attainable as stated: if predictions lie in [-{RANGE:g}, {RANGE:g}], both together need an "
        f"MAE of at least {_down(from_both)}, Corr alone one of at least {_down(from_corr)}; {row['mae'].mean} would need predictions "
        f"beyond {needed:.0f} in size. The best constant prediction has an MAE of {constant_mae(labels):.2f}."
    )


def _needed_reach(data: str, stated: Stated, mae: float) -> float:
    """``RANGE`` doubled as often as predictions within it still exclude ``mae``."""
    reach = RANGE
    while reach < 100 * RANGE and bound_on(data, stated, 2 * reach) > mae:
        reach *= 2
    return reach


def _down(value: float) -> str:
    """Two decimals, rounded down: what is proven."""
    return f"{floor(value * 100) / 100:.2f}"
