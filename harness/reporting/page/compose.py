"""The page ``index.html``: one file that needs no network, from the parts of all tables that were rendered."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness.files import write_atomic
from harness.reporting.page.document import CellPart, FigureItemPart, PaperPart, RowPart, RunPart, TablePart

TEMPLATES = Path(__file__).parents[1] / "templates" / "page"
OUTCOMES = ("reproduced", "better", "worse", "not comparable", "open")
SIGNS = {"reproduced": "✓", "better": "▲", "worse": "▼", "not comparable": "○", "open": "·", "": ""}
PAGE_BYTES = 4_500_000  # of the whole page, as near as can be told before; figures that do not fit are linked
CELL_BYTES = 420  # of a cell with both numbers


@dataclass(frozen=True)
class Paper:
    """One paper's tables, its cells by outcome, and what belongs to all of it.

    A printed number counts once: of a table with several protocols, under the first one.
    """

    name: str
    citation: str
    tables: tuple[TablePart, ...]
    counts: dict[str, int]
    more: PaperPart

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def judged(self) -> int:
        return sum(self.counts[outcome] for outcome in OUTCOMES[:3])

    @property
    def reasons(self) -> list[tuple[str, int]]:
        """Why cells have no verdict, the most frequent reason first."""
        return Counter(cell.reason for _, cell in _cells(_firsts(self.tables)) if cell.outcome in OUTCOMES[3:]).most_common()

    @property
    def worst(self) -> list[str]:
        """What fell short of its published number, a line per table and row."""
        fallen = [
            (table, row, [c.label for c, cell in _columns(table, row) if cell.outcome == "worse"])
            for table, row in _rows(_firsts(self.tables))
        ]
        return [f"{row.name} ({table.item.upper()}, {table.data}): {', '.join(labels)}" for table, row, labels in fallen if labels]


def compose(tables: Sequence[TablePart], root: Path, more: Mapping[str, PaperPart] | None = None) -> str:
    """The whole page as HTML; figures are read below the results folder ``root``. The same parts give the same text.

    ``more``: paper -> its audit and the figures over several of its tables.
    """
    known = _details(tables)
    figures = _Figures(root, PAGE_BYTES - len(known) - CELL_BYTES * sum(1 for _ in _cells(tables)))
    parts = {name: list(group) for name, group in groupby(tables, key=lambda table: table.paper)}
    alone = {name for name, part in (more or {}).items() if part.items}
    papers = [_paper(name, parts.get(name, []), (more or {}).get(name, PaperPart())) for name in sorted({*parts, *alone})]
    drawn = [item for paper in papers for item in paper.more.items]
    parts_of_data: list[TablePart | FigureItemPart] = [*tables, *drawn]
    return (
        _environment(figures)
        .get_template("index.html.j2")
        .render(
            papers=papers,
            tables=tables,
            datasets=sorted({part.dataset for part in parts_of_data}),
            simulated=sorted({part.data for part in parts_of_data if part.simulated}),
            figures=drawn,
            troubles=list(_troubles(tables)),
            environments=_environments(tables),
            latest=max((table.latest for table in tables), default=""),
            records=len({run.key for _, row in _rows(tables) for run in row.runs if run.state == "finished"}),
            outcomes=OUTCOMES,
            signs=SIGNS,
            details=known,
            css=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
            js=Markup((TEMPLATES / "page.js").read_text(encoding="utf-8")),
        )
    )


def write(root: Path, tables: Sequence[TablePart], more: Mapping[str, PaperPart]) -> Path:
    """Write the page to the results folder ``root``; the path of ``index.html``."""
    path = root / "index.html"
    write_atomic(path, compose(tables, root, more).encode())
    return path


def details(table: TablePart) -> dict[str, Any]:
    """What the page's script shows of each cell when asked: reasons, tests, and the runs behind it."""
    return {
        "columns": [column.label for column in table.columns],
        "simulated": table.simulated,
        "rows": [_row_details(row) for row in table.rows],
    }


def _row_details(row: RowPart) -> dict[str, Any]:
    return {
        "name": row.name,
        "about": row.about,
        "kind": row.published,
        "cells": [[cell.outcome, cell.reason, cell.test] for cell in row.cells],
        "runs": [_run_details(run) for run in row.runs],
    }


def _run_details(run: RunPart) -> list[Any]:
    return [run.key, run.unit, run.state, run.fault, list(run.values), run.best_epoch, run.epochs, run.seconds, run.mlflow]


def _details(tables: Sequence[TablePart]) -> Markup:
    """JSON inside a script element: no sequence of characters may end it."""
    text = json.dumps({table.name: details(table) for table in tables}, separators=(",", ":"), ensure_ascii=False)
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))


# ---- what is counted


def _paper(name: str, tables: Sequence[TablePart], more: PaperPart) -> Paper:
    counts: Counter[str] = Counter(cell.outcome for _, cell in _cells(_firsts(tables)) if cell.outcome)
    citation = next((table.citation for table in tables if table.citation), "")
    return Paper(name, citation, tuple(tables), {outcome: counts[outcome] for outcome in OUTCOMES}, more)


def _firsts(tables: Sequence[TablePart]) -> list[TablePart]:
    return [table for table in tables if table.block == 1]


def _rows(tables: Sequence[TablePart]) -> Iterator[tuple[TablePart, RowPart]]:
    for table in tables:
        yield from ((table, row) for row in table.rows)


def _cells(tables: Sequence[TablePart]) -> Iterator[tuple[RowPart, CellPart]]:
    for _, row in _rows(tables):
        yield from ((row, cell) for cell in row.cells)


def _columns(table: TablePart, row: RowPart) -> Iterator[tuple[Any, CellPart]]:
    yield from zip(table.columns, row.cells, strict=True)


def _troubles(tables: Sequence[TablePart]) -> Iterator[tuple[TablePart, RowPart, tuple[RunPart, ...]]]:
    """Rows with runs that failed or were not made."""
    for table, row in _rows(tables):
        runs = tuple(run for run in row.runs if run.state != "finished")
        if runs:
            yield table, row, runs


def _environments(tables: Sequence[TablePart]) -> list[tuple[dict[str, str], int]]:
    """Each environment once, with its number of records; a record that stands in two tables counts in both."""
    counts: Counter[tuple[tuple[str, str], ...]] = Counter()
    for table in tables:
        for environment in table.environments:
            counts[tuple(environment.facts.items())] += environment.records
    return [(dict(facts), count) for facts, count in counts.most_common()]


# ---- the template


class _Figures:
    """Reads figures into the page until it has enough of them."""

    def __init__(self, root: Path, size: int) -> None:
        self.root = root
        self.left = size

    def inline(self, stem: str) -> Markup:
        """The SVG of a figure, fit to stand in HTML; empty where it is to be linked."""
        try:
            text = (self.root / f"{stem}.svg").read_text(encoding="utf-8")
        except OSError:
            return Markup("")
        text = inline_svg(text, stem)
        size = len(text.encode())
        if size > self.left:
            return Markup("")
        self.left -= size
        return Markup(text)


def inline_svg(text: str, stem: str) -> str:
    """An SVG file as an element: no prolog or metadata, and names that no other figure of the page has; hidden from screen
    readers, which have the caption and the table."""
    prefix = re.sub(r"\W+", "-", stem) + "-"
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r"(?<=\.\d\d)\d+", "", re.sub(r"\s*\n\s*", " ", text))  # hundredths of a point, a third less to carry
    text = re.sub(r'\bid="', f'id="{prefix}', text)
    text = re.sub(r"url\(#", f"url(#{prefix}", text)
    text = re.sub(r'href="#', f'href="#{prefix}', text)
    return text.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)


def _environment(figures: _Figures) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": _plain, "anchor": anchor}
    environment.globals["inline"] = figures.inline
    return environment


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def anchor(text: str) -> str:
    """``text`` as the name of a place in the page."""
    return re.sub(r"[^\w.-]+", "-", text)
