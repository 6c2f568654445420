"""What the text says of the tables' numbers, recomputed; and the counts that it states."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction

from harness.analysis.audit.agreement import agree, better
from harness.analysis.audit.facts import facts
from harness.analysis.audit.published import Cell, Claim, Count, Source, decimals
from harness.analysis.audit.results import Collector, Result, listed
from harness.analysis.audit.spreads import paired_p_range

Range = tuple[Fraction, Fraction]


def change(of: Cell, against: Cell) -> tuple[Fraction, Range]:
    """Size of the relative change in per cent: from the printed values, and the range that their rounding allows."""
    printed = abs(Fraction(of.mean) / Fraction(against.mean) - 1) * 100
    low, high = of.bounds[0] / against.bounds[1] - 1, of.bounds[1] / against.bounds[0] - 1
    least = Fraction(0) if low <= 0 <= high else min(abs(low), abs(high))
    return printed, (least * 100, max(abs(low), abs(high)) * 100)


def rounds_to(value: Fraction, stated: Decimal) -> bool:
    """Whether ``value`` may be printed as ``stated`` (a tie either way)."""
    return abs(value - Fraction(stated)) <= Fraction(1, 2 * 10 ** decimals(stated))


def _meets(interval: Range, stated: Decimal) -> bool:
    half = Fraction(1, 2 * 10 ** decimals(stated))
    return interval[0] <= Fraction(stated) + half and interval[1] >= Fraction(stated) - half


# ---- the checks


def check(source: Source) -> Result:
    """Every claim, by its kind."""
    collector = Collector("claims of the text")
    for claim in source.claims:
        cells = [source.at(place) for place in ([claim.of] if isinstance(claim.of, str) else claim.of)]
        collector.saw([*cells, *([source.at(claim.against)] if claim.against else [])])
        fault = _KINDS[claim.kind](source, claim, cells)
        if fault:
            collector.find(claim.where, f'"{claim.quote}": {fault}.')
    if collector.cells:
        collector.checked = len(source.claims)
        collector.power = "recomputed from the printed values; what their rounding allows is said"
    return collector.result()


def _against(source: Source, claim: Claim) -> Cell:
    assert claim.against
    return source.at(claim.against)


def _stated(claim: Claim) -> Decimal:
    assert claim.stated is not None
    return claim.stated


def _change(source: Source, claim: Claim, cells: list[Cell]) -> str:
    of, against, stated = cells[0], _against(source, claim), _stated(claim)
    printed, (least, most) = change(of, against)
    if rounds_to(printed, stated):
        return ""
    head = f"{against.mean} to {of.mean} is {float(printed):.{decimals(stated) + 1}f} %"
    if rounds_to(abs(Fraction(of.mean) - Fraction(against.mean)), stated):
        return f"{head}; {stated} is the difference in points"
    if _meets((least, most), stated):
        return f"{head} from the printed values; their rounding allows {float(least):.2f} to {float(most):.2f}"
    return f"{head}; {stated} is not attainable from the printed values"


def _difference(source: Source, claim: Claim, cells: list[Cell]) -> str:
    gap = abs(cells[0].mean - _against(source, claim).mean)
    return "" if rounds_to(Fraction(gap), _stated(claim)) else f"the printed values differ by {gap}"


def _value(source: Source, claim: Claim, cells: list[Cell]) -> str:
    return "" if _stated(claim) == cells[0].mean else f"{cells[0].table} prints {cells[0].mean} ({cells[0].row})"


def _best(source: Source, claim: Claim, cells: list[Cell]) -> str:
    ahead = []
    for cell in cells:
        column = [other for other in source.cells.values() if (other.key[:3], other.key[4]) == (cell.key[:3], cell.key[4])]
        named = [f"{other.mean} at {other.row}" for other in column if better(other, cell)]
        ahead += [f"{cell.key[4]} {cell.mean} is behind {listed(named)}"] if named else []
    return f"in {cells[0].table} {'; '.join(ahead)}" if ahead else ""


def _rise(source: Source, claim: Claim, cells: list[Cell]) -> str:
    return _moved(cells[0], _against(source, claim), up=True)


def _fall(source: Source, claim: Claim, cells: list[Cell]) -> str:
    return _moved(cells[0], _against(source, claim), up=False)


def _moved(of: Cell, against: Cell, up: bool) -> str:
    if not agree(of, against) and (of.mean > against.mean) == up:
        return ""
    how = "no other than" if agree(of, against) else "higher than" if of.mean > against.mean else "lower than"
    return f"{of.table} has {of.mean} ({of.row}), {how} {against.mean} ({against.row})"


def _significant(source: Source, claim: Claim, cells: list[Cell]) -> str:
    bare = [f"{cell.key[4]} {cell.mean}" for cell in cells if not cell.dagger]
    return f"{cells[0].table} does not mark {listed(bare)} as significant" if bare else ""


def _p_value(source: Source, claim: Claim, cells: list[Cell]) -> str:
    of, against, stated = cells[0], _against(source, claim), _stated(claim)
    assert claim.runs
    least, most = paired_p_range(of, against, claim.runs)
    half = float(Fraction(1, 2 * 10 ** decimals(stated)))
    if least - half <= float(stated) <= most + half:
        return ""
    return (
        f"not attainable as stated; {of.mean} ± {of.std} against {against.mean} ± {against.std} over {claim.runs} runs gives p between "
        f"{least:.1g} and {most:.1g}, whatever the runs' correlation"
    )


_KINDS: dict[str, Callable[[Source, Claim, list[Cell]], str]] = {
    "change": _change,
    "difference": _difference,
    "value": _value,
    "best": _best,
    "rise": _rise,
    "fall": _fall,
    "significant": _significant,
    "p_value": _p_value,
}


def check_counts(source: Source) -> Result:
    """Every stated count: the sum of its parts, and what is known of the data set."""
    collector = Collector("counts", checked=len(source.counts))
    for count in source.counts:
        _count(collector, count)
    if source.counts:
        collector.power = "exact"
    return collector.result()


def _count(collector: Collector, count: Count) -> None:
    data, _, name = count.fact.partition(".")
    known = facts(data).counts[name]
    total = sum(count.parts)
    if count.parts and isinstance(count.stated, int) and total != count.stated:
        collector.find(count.where, f"{count.what}: {' + '.join(map(str, count.parts))} is {total}, not {count.stated}.")
    stated = total if count.stated is None else count.stated
    if isinstance(stated, tuple):
        if list(stated) not in known:
            shown = ", ".join(" / ".join(map(str, each)) for each in known)
            collector.find(count.where, f"{count.what}: {' / '.join(map(str, stated))}; the archive gives {shown}.")
    elif stated != known and count.version:
        collector.remark(count.where, f"{count.what}: stated {stated} ({count.version}: {known}).")
    elif stated != known:
        collector.find(count.where, f"{count.what}: stated {stated}; {known} are known ({count.fact}).")
