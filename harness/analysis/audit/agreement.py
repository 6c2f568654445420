"""Agreement inside one source: one system, one value; an ablation does not beat the full model; two names, two results."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

from harness.analysis.audit.published import Cell, Source, Table
from harness.analysis.audit.results import Collector, Result, grouped, listed


def agree(a: Cell, b: Cell) -> bool:
    """Whether two printed values can be roundings of one number."""
    (low, high), (least, most) = a.bounds, b.bounds
    return low <= most and least <= high


def better(a: Cell, b: Cell) -> bool:
    """Whether ``a`` is better than ``b`` whatever was rounded away."""
    return a.bounds[1] < b.bounds[0] if a.lower_is_better else a.bounds[0] > b.bounds[1]


def check_same_system(source: Source) -> Result:
    """The values of one system on one data set in several tables."""
    collector = Collector("one system, several tables", "printed values are compared as they are rounded")
    for (data, system), cells in grouped(source.cells.values(), "data", "system"):
        several = [inside for _, inside in grouped(cells, "metric", "label") if len({cell.table for cell in inside}) > 1]
        collector.saw(cell for inside in several for cell in inside)
        differing = [inside for inside in several if not all(agree(a, b) for a, b in combinations(inside, 2))]
        if differing:
            values = [f"{inside[0].key[4]} {_values(inside)}" for inside in differing]
            collector.find(f"{data}, {system}", f"different values: {'; '.join(values)}.{_elsewhere(source, differing)}")
    return _silent(collector)


def _values(cells: Iterable[Cell]) -> str:
    parts = [(mean, listed(cell.table for cell in inside), inside[0].own) for (mean,), inside in grouped(cells, "mean")]
    return ", ".join(f"{mean} ({tables}{'' if own else ', cited'})" for mean, tables, own in parts)


def _elsewhere(source: Source, differing: list[list[Cell]]) -> str:
    """Where one of two differing values is printed for another system."""
    if len(differing) > 1:
        return ""
    for cell in differing[0]:
        column = [other for other in source.cells.values() if (other.data, other.key[4], other.mean) == (cell.data, cell.key[4], cell.mean)]
        for (system,), others in grouped(column, "system"):
            if system != cell.system:
                return f" {cell.mean} is the value of '{system}' ({listed(other.table for other in others)})."
    return ""


def check_ablations(source: Source) -> Result:
    """Ablations against the full model of their table."""
    collector = Collector("ablation against full model", "beyond rounding; deviations over runs are not printed")
    for table in source.tables:
        if table.full:
            full = source.row(table, table.full)
            variants = table.variants or tuple(row[0] for row in table.rows if row[0] != table.full)
            others = [cell for cell in source.of(table) if cell.row in variants and cell.key[4] in full]
            collector.saw([*others, *full.values()] if others else [])
            ahead = [cell for cell in others if better(cell, full[cell.key[4]])]
            if ahead:
                collector.find(f"{table.item}, {table.data}", _ahead(ahead, len(others), full))
    return _silent(collector)


def _ahead(cells: list[Cell], compared: int, full: dict[str, Cell]) -> str:
    parts = [
        f"{column} {full[column].mean}: {', '.join(f'{cell.row} {cell.mean}' for cell in inside)}"
        for column, inside in ((inside[0].key[4], inside) for _, inside in grouped(cells, "metric", "label"))
    ]
    return f"{len(cells)} of {compared} values of ablations are better than the full model's ({'; '.join(parts)})."


def check_identical_rows(source: Source) -> Result:
    """Rows under different names whose values are all identical."""
    collector = Collector("two names, one result", "needs two or more shared metrics")
    rows = [(table, name, source.row(table, name)) for table in source.tables for name, *_ in table.rows]
    for (one, a, left), (other, b, right) in combinations(rows, 2):
        shared = left.keys() & right.keys() if one.data == other.data else set()
        if len(shared) < 2 or _system(one, a) == _system(other, b):
            continue
        collector.saw(row[column] for row in (left, right) for column in shared)
        if all(left[column].mean == right[column].mean for column in shared):
            values = ", ".join(f"{column} {left[column].mean}" for column in left if column in shared)
            collector.find(f"{one.item} and {other.item}, {one.data}", f"'{a}' and '{b}' have the same values ({values}).")
    return _silent(collector)


def _system(table: Table, row: str) -> str:
    return table.same.get(row, row)


def _silent(collector: Collector) -> Result:
    """The outcome; without a word on power where nothing was compared."""
    if not collector.cells:
        collector.power = ""
    return collector.result()


def check_between(sources: Iterable[Source]) -> Result:
    """Systems that several sources cite, with different values."""
    collector = Collector("one system, cited by several papers", "names are compared as they are printed; what is cited may differ")
    cells = [cell for source in sources for cell in source.cells.values() if not cell.own]
    for (data, system), inside in grouped(cells, "data", "system"):
        if len({cell.key[0] for cell in inside}) < 2:
            continue
        several = [group for _, group in grouped(inside, "metric") if len({cell.key[0] for cell in group}) > 1]
        collector.saw(cell for group in several for cell in group)
        differing = [group for group in several if not all(agree(a, b) for a, b in combinations(group, 2))]
        if differing:
            values = [f"{group[0].metric} {_by_source(group)}" for group in differing]
            collector.remark(f"{data}, {system}", "; ".join(values) + ".")
    return collector.result()


def _by_source(cells: Iterable[Cell]) -> str:
    return ", ".join(f"{mean} ({cells[0].key[0]} {cells[0].table})" for (mean,), cells in grouped(cells, "mean"))
