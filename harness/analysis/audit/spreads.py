"""Means with standard deviations: can runs have them, and can a paired t-test over the runs give the p-value that is stated?"""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from math import atan2, cos, inf, pi, sin, sqrt

import numpy as np
from numpy.typing import NDArray

from harness.analysis.audit.attainability import denominators
from harness.analysis.audit.published import Cell, Reading, Source, Table
from harness.analysis.audit.results import Collector, Result, listed

MANY = 120  # sums of squared deviations (in clips) up to which attainable ones are enumerated; above, all are within a rounding
RANGES = {"corr": (-1, 1), "mae": (0, None)}  # other metrics are percentages


def t_tail(t: float, df: int) -> float:
    """Two-sided p-value of Student's t with ``df`` degrees of freedom (Abramowitz & Stegun 26.7.3 and 26.7.4)."""
    if t == inf:
        return 0.0
    theta = atan2(t, sqrt(df))
    odd = df % 2
    term, total = (cos(theta), cos(theta)) if odd else (1.0, 1.0)
    for i in range(3 if odd else 2, df - 1, 2):
        term *= cos(theta) ** 2 * (i - 1) / i
        total += term
    inside = (theta + (sin(theta) * total if df > 1 else 0.0)) * 2 / pi if odd else sin(theta) * total
    return max(1.0 - inside, 0.0)


def paired_p_range(a: Cell, b: Cell, runs: int) -> tuple[float, float]:
    """Least and greatest two-sided p of a paired t-test over ``runs`` runs, given both printed means and deviations.

    The runs' correlation is unknown: the deviation of the differences lies between |s_a - s_b| and s_a + s_b. The printed
    deviations may be those with n - 1 or with n: the upper end is taken with the larger, the lower end with the smaller.
    """
    low, high = b.bounds[0] - a.bounds[1], b.bounds[1] - a.bounds[0]
    far = max(abs(low), abs(high))
    near = Fraction(0) if low <= 0 <= high else min(abs(low), abs(high))
    wide = float(a.std_bounds[1] + b.std_bounds[1]) * sqrt(runs / (runs - 1))
    narrow = max(a.std_bounds[0] - b.std_bounds[1], b.std_bounds[0] - a.std_bounds[1], Fraction(0))
    return t_tail(_t(far, float(narrow), runs), runs - 1), t_tail(_t(near, wide, runs), runs - 1)


def _t(difference: Fraction, deviation: float, runs: int) -> float:
    if not difference:
        return 0.0
    return float(difference) / deviation * sqrt(runs) if deviation else inf


# ---- attainable deviations


@cache
def squares(runs: int) -> NDArray[np.bool_]:
    """[residue, q]: whether ``runs`` integers whose sum is ``residue`` modulo ``runs`` can have runs * (sum of squared deviations) = q.

    Enumerated for sums of squared deviations up to ``MANY``.
    """
    reach = int(sqrt(MANY)) + 1
    total = runs * reach
    limit = MANY + runs
    states = np.zeros((2 * total + 1, limit + 1), dtype=bool)  # sum of the integers (shifted), sum of their squares
    states[total, 0] = True
    for _ in range(runs):
        after = np.zeros_like(states)
        for k in range(-reach, reach + 1):
            shifted = np.roll(states, k, axis=0)
            if k * k <= limit:
                after[:, k * k :] |= shifted[:, : limit + 1 - k * k]
        states = after
    found = np.zeros((runs, runs * MANY + 1), dtype=bool)
    for s in range(-(runs // 2), runs - runs // 2):  # integers may be shifted by a constant: sums modulo ``runs`` are enough
        for square in np.flatnonzero(states[s + total]):
            q = runs * int(square) - s * s
            if q <= runs * MANY:
                found[s % runs, q] = True
    return found


def deviation_attainable(mean: tuple[Fraction, Fraction], std: tuple[Fraction, Fraction], n: int, runs: int, ddof: int) -> bool:
    """Whether ``runs`` accuracies on ``n`` clips can have that mean and standard deviation (per cent, least and greatest each)."""
    scale = Fraction(n, 100)
    sums = range(-int(-mean[0] * scale * runs // 1), int(mean[1] * scale * runs // 1) + 1)
    low, high = ((bound * scale) ** 2 * (runs - ddof) for bound in std)
    if high > MANY:
        return bool(sums)
    table = squares(runs)
    least, most = -int(-low * runs // 1), int(high * runs // 1)
    return any(bool(table[s % runs, least : most + 1].any()) for s in sums)


def std_limit(low: Fraction, high: Fraction, mean: Fraction, runs: int) -> float:
    """The largest standard deviation (n - 1) of ``runs`` values in [low, high] with that mean: all but one at the ends."""
    share = (mean - low) / (high - low)
    up = int(share * runs)
    values = [high] * up + [low] * (runs - up)
    if up < runs:
        values[up] = low + (share * runs - up) * (high - low)
    return sqrt(float(sum((value - mean) ** 2 for value in values)) / (runs - 1))


# ---- the checks


def check(source: Source) -> Result:
    """Every mean with a deviation: inside its range, not constant, attainable on so many clips."""
    collector = Collector("mean ± deviation")
    counted = 0
    for table in source.tables:
        reading = table.protocol
        for cell in source.of(table):
            if cell.std is not None and reading and reading.runs > 1:
                collector.saw([cell])
                _plausible(collector, cell, reading)
                counted += _counted(collector, cell, reading)
    if collector.cells:
        collector.power = f"ranges for all; exact for the {counted} whose deviation is a few clips"
    return collector.result()


def _place(cell: Cell) -> str:
    return f"{cell.table}, {cell.data}, {cell.row}"


def _plausible(collector: Collector, cell: Cell, reading: Reading) -> None:
    low, high = RANGES.get(cell.metric, (0, 100))
    if cell.std == 0:
        collector.find(_place(cell), f"{cell}: a deviation of 0 over {reading.runs} runs is not attainable unless all runs gave one value.")
    if high is None:
        return
    most = max(std_limit(Fraction(low), Fraction(high), min(max(m, Fraction(low)), Fraction(high)), reading.runs) for m in cell.bounds)
    if cell.std_bounds[0] > Fraction(most):
        collector.find(
            _place(cell), f"{cell} is not attainable as stated: {reading.runs} values in [{low}, {high}] deviate by at most {most:.2f}."
        )
    elif not low <= cell.mean - (cell.std or 0) or not cell.mean + (cell.std or 0) <= high:
        collector.remark(
            _place(cell), f"{cell} reaches beyond [{low}, {high}]: the runs are skewed, mean ± deviation describes them badly."
        )


def _counted(collector: Collector, cell: Cell, reading: Reading) -> bool:
    """Check the deviation against whole numbers of clips; False where it has no power."""
    known = denominators(cell, reading)
    enumerable = [n for n in known if (cell.std_bounds[1] * n / 100) ** 2 * reading.runs <= MANY]
    if not known or len(enumerable) < len(known):
        return False
    fits = {ddof for n in enumerable for ddof in (0, 1) if deviation_attainable(cell.bounds, cell.std_bounds, n, reading.runs, ddof)}
    if not fits:
        clips = listed(enumerable)
        collector.find(
            _place(cell),
            f"{cell} is not attainable as stated: no {reading.runs} whole numbers of {clips} clips have that mean and deviation.",
        )
    elif len(fits) == 1:
        kind = "n - 1" if 1 in fits else "n"
        collector.remark(_place(cell), f"{cell} is attainable only if the deviation was computed with {kind} in the denominator.")
    return True


def check_significance(source: Source) -> Result:
    """Marks of significance against the p-values that a paired t-test over the runs can have."""
    collector = Collector("marks of significance")
    for table in source.tables:
        if table.significance and table.protocol:
            _marks(collector, source, table, table.protocol.runs)
    if collector.cells:
        collector.power = "the correlation of the runs is unknown: decided only where every correlation agrees"
    return collector.result()


def _marks(collector: Collector, source: Source, table: Table, runs: int) -> None:
    assert table.significance
    alpha = table.significance.alpha
    ours, theirs = source.row(table, table.significance.row), source.row(table, table.significance.against)
    for column in (column for column in ours if column in theirs):
        a, b = ours[column], theirs[column]
        if a.std is None or b.std is None:
            continue
        collector.saw([a, b])
        least, most = paired_p_range(a, b, runs)
        beside = f"{a.key[4]}: {a.mean} ± {a.std} against {b.mean} ± {b.std} ({b.row})"
        if a.dagger and least >= alpha:
            collector.find(
                f"{table.item}, {table.data}", f"{beside} is marked p < {alpha}; a paired t-test over {runs} runs gives p >= {least:.2g}."
            )
        if not a.dagger and most < alpha:
            collector.find(
                f"{table.item}, {table.data}",
                f"{beside} is not marked significant; any paired t-test over {runs} runs with these deviations gives p <= {most:.1g}.",
            )
