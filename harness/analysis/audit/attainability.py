"""Attainable accuracies (GRIM, Brown & Heathers 2017): is a printed percentage a share of so many clips, averaged over so many runs?

A single run's accuracy on n clips is k / n; a mean of R runs is k / (n R). A percentage printed with d decimals is attainable
if some integer k lies within half a unit of its last digit. The test has power while n R < 10^(d + 2).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from math import prod

import numpy as np
from numpy.typing import NDArray

from harness.analysis.audit.facts import Facts, facts
from harness.analysis.audit.published import Cell, Reading, Source, Table, decimals
from harness.analysis.audit.results import Collector, Result, grouped, listed

Flags = NDArray[np.bool_]

SURPRISING = 1e-3  # a remark that a row looks like one run must be this unlikely for a mean of the stated runs
NEAR = 5  # points; folds of unequal size attain fewer values near 100 than in the middle
MANY = 12  # failing values that are printed one by one
TELLING = 0.1  # share of values that a protocol must exclude to be worth trying


@lru_cache(maxsize=256)
def attainable(n: int, runs: int, digits: int, run_decimals: int | None = None) -> Flags:
    """Which printed percentages 0, 10^-digits, ..., 100 a mean of ``runs`` shares of ``n`` clips can show, (10^(digits + 2) + 1,).

    ``run_decimals``: each run's share was itself rounded to so many decimals, which may move the mean by half a unit of them.
    A tie of the last digit may have been rounded either way. All arithmetic is in integers.
    """
    clips, units = n * runs, 10 ** (digits + 2)
    rest = np.arange(units + 1, dtype=np.int64) * clips % units
    distance = np.minimum(rest, units - rest)  # |k units - value clips| for the nearest integer k
    slack = clips * units // 10**run_decimals if run_decimals else 0
    flags: Flags = 2 * distance <= clips + slack
    return flags


@cache
def attainable_folds(n: int, folds: int, digits: int) -> Flags:
    """The same for the mean over ``folds`` folds of each fold's share, where ``n`` clips are cut as evenly as possible.

    Sizes then differ by at most one: s and s + 1. With a right in the smaller folds together and b in the larger ones the
    mean is (a (s + 1) + b s) / (folds s (s + 1)).
    """
    small, larger = divmod(n, folds)
    if not larger:
        return attainable(n, 1, digits)
    whole, units = folds * small * (small + 1), 10 ** (digits + 2)
    right = np.arange((folds - larger) * small + 1)[:, None] * (small + 1) + np.arange(larger * (small + 1) + 1) * small
    reached = np.zeros(whole + 1, dtype=np.int64)
    reached[right.ravel()] = 1
    below = np.concatenate([[0], reached.cumsum()])  # below[i]: reachable numerators less than i
    value = np.arange(units + 1, dtype=np.int64)
    low = np.maximum(-((whole - 2 * value * whole) // (2 * units)), 0)  # ceil((2 value - 1) whole / (2 units))
    high = np.minimum((2 * value + 1) * whole // (2 * units), whole)
    flags: Flags = below[high + 1] > below[low]
    return flags


def power(flags: Flags) -> float:
    """Share of printed values that cannot be attained."""
    return float(1 - flags.mean())


def table_of(reading: Reading, n: int, digits: int) -> Flags:
    """Which printed values ``reading`` attains with ``n`` clips."""
    return attainable_folds(n, reading.folds, digits) if reading.folds else attainable(n, reading.runs, digits, reading.run_decimals)


def holds(cell: Cell, flags: Sequence[Flags]) -> bool:
    """Whether one of ``flags`` attains the printed value."""
    return any(bool(each[int(cell.mean.scaleb(decimals(cell.mean)))]) for each in flags)


def denominators(cell: Cell, reading: Reading) -> tuple[int, ...]:
    """Numbers of clips that the cell may be a share of under ``reading``; empty: it is no accuracy, or the number is not known."""
    known: Facts = facts(cell.data)
    if reading.by_class:
        return (known.classes[cell.label],) if cell.metric == "accuracy" and cell.label in known.classes else ()
    if reading.n:
        return (reading.n,) if cell.metric in ("accuracy", "acc2", "acc7") else ()
    return known.denominators(cell.metric)


def possible(cell: Cell, reading: Reading) -> list[Flags]:
    """One array of attainable values for each number of clips that the cell may be a share of."""
    return [table_of(reading, n, decimals(cell.mean)) for n in denominators(cell, reading)]


def cell_power(cell: Cell, reading: Reading) -> float:
    """Of the printed values within ``NEAR`` points of the cell's, the share that no number of clips attains under ``reading``."""
    flags, digits = possible(cell, reading), decimals(cell.mean)
    place, width = int(cell.mean.scaleb(digits)), NEAR * 10**digits
    return power(np.logical_or.reduce(flags)[max(place - width, 0) : place + width + 1]) if flags else 0.0


# ---- the check


def check(source: Source) -> Result:
    """Every accuracy of a row that the source measured itself, against its protocol and against other readings of it."""
    collector = Collector("attainable accuracies")
    powers: list[float] = []
    for table in source.tables:
        if table.protocol:
            powers += _protocol(collector, source, table, table.protocol)
            for reading in table.readings:
                _other(collector, source, table, reading)
    _single_runs(collector, source)
    if powers:
        none = "none: the clips and runs attain every value"
        collector.power = f"excludes {min(powers):.0%} to {max(powers):.0%} of values" if max(powers) else none
    return collector.result()


def _accuracies(source: Source, table: Table, reading: Reading) -> list[Cell]:
    return [cell for cell in source.of(table) if cell.own and denominators(cell, reading)]


def _protocol(collector: Collector, source: Source, table: Table, reading: Reading) -> list[float]:
    cells = _accuracies(source, table, reading)
    collector.saw(cells)
    powers = [cell_power(cell, reading) for cell in cells]
    failing = [cell for cell in cells if not holds(cell, possible(cell, reading))]
    if cells and max(powers) >= TELLING:
        text = _sentence(reading, cells, failing, powers)
        (collector.find if failing and reading.stated else collector.remark)(f"{table.item}, {table.data}", text)
    return powers


def _sentence(reading: Reading, cells: Sequence[Cell], failing: Sequence[Cell], powers: Sequence[float]) -> str:
    fitting, chance = len(cells) - len(failing), sum(1 - power for power in powers)
    head = f"{fitting or 'none'} of {len(cells)} accuracies {'is' if fitting < 2 else 'are'} attainable as {reading.what}"
    named = f" Not attainable{' as stated' if reading.stated else ''}: {_named(cells, failing)}." if failing else ""
    return f"{head} ({_multiples(cells, reading)}); by chance it would be {chance:.1f}.{named}"


def _named(cells: Sequence[Cell], failing: Sequence[Cell]) -> str:
    """The values that fail; where they are many, how many of each row."""
    if len(failing) <= MANY:
        return "; ".join(f"{row} {', '.join(str(cell.mean) for cell in inside)}" for (row,), inside in grouped(failing, "row"))
    return ", ".join(f"{sum(cell in failing for cell in inside)} of {len(inside)} at {row}" for (row,), inside in grouped(cells, "row"))


def _multiples(cells: Sequence[Cell], reading: Reading) -> str:
    """``k/1200``: the numbers that the accuracies should be multiples of."""
    known = sorted({n for cell in cells for n in denominators(cell, reading)})
    shown = [f"{reading.folds} folds of {n}" if reading.folds else f"k/{n * reading.runs}" for n in known]
    return " or ".join(shown)


def _other(collector: Collector, source: Source, table: Table, reading: Reading) -> None:
    cells = _accuracies(source, table, reading)
    powers = [cell_power(cell, reading) for cell in cells]
    if cells and max(powers) >= TELLING:
        failing = [cell for cell in cells if not holds(cell, possible(cell, reading))]
        collector.remark(f"{table.item}, {table.data}", "Read otherwise: " + _sentence(reading, cells, failing, powers))


def _single_runs(collector: Collector, source: Source) -> None:
    """Rows that are stated to be means over runs, all of whose accuracies are attainable by one run."""
    tables = [table for table in source.tables if table.protocol and table.protocol.stated and table.protocol.runs > 1]
    cells = [cell for table in tables for cell in source.of(table) if cell.own and cell.std is None]
    for (row,), inside in grouped(cells, "row"):
        tried = [(cell, reading) for cell, reading in _with_protocol(tables, inside) if denominators(cell, reading)]
        one = [reading.model_copy(update={"runs": 1, "run_decimals": None}) for _, reading in tried]
        fits = [holds(cell, possible(cell, single)) for (cell, _), single in zip(tried, one, strict=True)]
        if tried and all(fits):
            chance = prod(_also(cell, many, single) for (cell, many), single in zip(tried, one, strict=True))
            if chance < SURPRISING:
                collector.remark(
                    f"{listed(dict.fromkeys(cell.table for cell, _ in tried))}, {row}",
                    f"all {len(tried)} accuracies are attainable by one run each, which means of {tried[0][1].runs} runs would be "
                    f"with a chance of {chance:.1g}: the row looks like a single run. That is arithmetic, not proof.",
                )


def _with_protocol(tables: Iterable[Table], cells: Iterable[Cell]) -> list[tuple[Cell, Reading]]:
    protocols = {(table.item, table.data): table.protocol for table in tables}
    return [(cell, reading) for cell in cells if (reading := protocols[cell.table, cell.data])]


def _also(cell: Cell, many: Reading, single: Reading) -> float:
    """Of the values that ``many`` attains, the share that ``single`` attains too."""
    wide, narrow = (np.logical_or.reduce(possible(cell, reading)) for reading in (many, single))
    return float((wide & narrow).sum() / wide.sum())
