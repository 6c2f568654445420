"""A table as JSON: every number, test and note of the other forms, for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from math import isnan
from typing import Any

from harness.reporting.layout import Cell, Line
from harness.reporting.texts import Told, caption, legend, test_name, title
from harness.training.metrics import metrics

FORMAT = 1


def document(told: Told, lines: Sequence[Line]) -> str:
    """The table as JSON text; percentages are fractions, a number that is not there is null, as is what NaN would be.

    The same table gives the same text.
    """
    spec, card = told.spec, told.card
    content = {
        "format": FORMAT,
        "paper": spec.paper,
        "item": spec.item,
        "kind": spec.kind,
        "title": title(told),
        "caption": caption(told),
        "legend": legend(told),
        "citation": spec.citation,
        "source": spec.source,
        "dataset": card.dataset,
        "data": card.name,
        "simulated": card.simulated,
        "fingerprint": card.fingerprint,
        "budget": told.budget.name,
        "seeds": told.seeds,
        "alpha": spec.alpha,
        "resamples": told.resamples,
        "protocols": [
            {"name": block.scheme.label, "described": block.scheme.described, "reference": block.family.reference, "test": test_name(block)}
            for block in told.blocks
        ],
        "columns": [_column(told, name) for name in spec.metrics],
        "lines": [_line(told, line) for line in lines],
        "notes": {note.heading: list(note.items) for note in told.notes},
    }
    return written(content)


def written(content: Mapping[str, Any]) -> str:
    """JSON with a line for each value; ValueError for NaN, which JSON does not have."""
    return json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def plain(value: float | int | None) -> float | int | None:
    """Ten significant digits, as the last bits depend on the machine's summation order; None for NaN."""
    if value is None or isnan(value):
        return None
    return value if isinstance(value, int) else float(f"{value:.10g}")


def _column(told: Told, name: str) -> dict[str, Any]:
    metric = metrics[name]
    unit = "fraction" if metric.percent else ""
    return {"metric": name, "label": told.spec.label(name), "unit": unit, "higher_is_better": metric.higher_is_better}


def _line(told: Told, line: Line) -> dict[str, Any]:
    block = next((block for block in told.blocks if block.scheme.label == line.protocol), told)
    cells = zip(told.spec.metrics, line.cells, strict=True)
    return {
        "row": line.row,
        "kind": line.kind,
        "numbers": line.label,
        "protocol": "" if line.kind == "published" else line.protocol or told.scheme.label,
        "n": line.finished,
        "expected": line.expected,
        "cells": {name: _cell(block, line, name, cell) for name, cell in cells},
    }


def _cell(told: Told, line: Line, name: str, cell: Cell) -> dict[str, Any]:
    own = told.measured.get(line.row) if line.kind == "measured" else None
    shown = {
        "shown": cell.text,
        "mean": plain(cell.value),
        "std": plain(cell.deviation),
        "marks": [mark for mark in (cell.mark, "dagger" if cell.dagger else "") if mark],
    }
    if own is None:
        return shown
    runs = [{"run": str(unit), "value": plain(value), "record": own.records[unit].key} for unit, value in own.values[name].items()]
    return {**shown, "runs": runs, **dict(_test(told, line.row, name))}


def _test(told: Told, row: str, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The test of a cell, where there is one."""
    test = told.family.find(row, name)
    if test is None:
        return
    found: dict[str, Any] = {"reference": told.family.reference, "pairs": test.pairs, "pairs_expected": test.expected}
    if test.main is not None and test.conditional is not None:
        main = test.main
        found |= {"name": main.test, "difference": plain(main.difference), "interval": [plain(main.low), plain(main.high)]}
        found |= {"p": plain(main.p), "p_adjusted": plain(test.adjusted), "p_conditional": plain(test.conditional.p), "note": main.note}
    yield "test", {**found, "verdict": test.verdict(told.spec.alpha)}
