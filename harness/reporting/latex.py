"""A table as LaTeX (booktabs, siunitx), from the template beside this file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from harness.reporting import siunitx
from harness.reporting.layout import COMPARISON_HEADS, Cell, Line, comparison_rows, heads
from harness.reporting.texts import Told, caption, conditional_label, data_name, legend, test_name, title, verdicts

_SPECIAL = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        **{character: f"\\{character}" for character in "&%$#_{}"},
        **{character: f"{{{character}}}" for character in "[]*"},  # after a line break they would be read as its options
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "|": r"\textbar{}",
        "<": r"\ensuremath{<}",
        ">": r"\ensuremath{>}",
        "±": r"\ensuremath{\pm}",
        "≤": r"\ensuremath{\leq}",
        "≥": r"\ensuremath{\geq}",
        "×": r"\ensuremath{\times}",
        "†": r"\ensuremath{^{\dagger}}",
        "↑": r"\ensuremath{\uparrow}",
        "↓": r"\ensuremath{\downarrow}",
        "–": "--",
    }
)


def latex(told: Told, lines: Sequence[Line]) -> str:
    """A table float, the comparisons as a longtable, the notes as comments."""
    columns = list(zip(*(line.cells for line in lines), strict=True))
    rooms = [siunitx.places([cell.text for cell in cells]) for cells in columns]
    return fill(
        title=comment(title(told)),
        caption=escape(f"{title(told)}. {caption(told)}"),
        label=f"{told.spec.paper}-{told.spec.item}-{told.card.name}".replace("@", "-"),
        columns="ll" + "".join(map(_column, columns)),
        heads=["Model", "Numbers", *(siunitx.text(escape(head)) for head in heads(told.spec))],
        blocks=[_block(list(block), rooms) for _, block in groupby(lines, key=lambda line: line.row)],
        legend=rf"\textbf{{Best}}, \underline{{second best}}. {escape(legend(told))}",
        comparisons=[found for block in told.blocks if (found := _comparisons(block))],
        notes=[(comment(note.heading), [comment(item) for item in note.items]) for note in told.notes],
    )


def fill(**content: object) -> str:
    """The template with ``content``, which is escaped already. OSError where the template is missing."""
    return _template().render(preamble=siunitx.PREAMBLE, **content)


def escape(text: str) -> str:
    """``text`` as LaTeX prints it literally, on one line."""
    return " ".join(text.split()).translate(_SPECIAL)


def comment(text: str) -> str:
    """``text`` on one line, so that it stays inside a comment."""
    return " ".join(text.split())


@lru_cache(maxsize=1)
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # what is put in has been escaped for LaTeX, not HTML
    )
    return environment.get_template("table.tex.j2")


def _block(lines: Sequence[Line], rooms: Sequence[int]) -> list[list[str]]:
    """A row's lines as cells; its name stands on the first. ``rooms``: decimals of each column."""
    return [[escape(line.row) if i == 0 else "", escape(line.label), *map(_cell, line.cells, rooms)] for i, line in enumerate(lines)]


def _column(cells: Sequence[Cell]) -> str:
    return siunitx.column([cell.text for cell in cells], [siunitx.behind(cell.spread, cell.dagger) for cell in cells])


def _cell(cell: Cell, room: int) -> str:
    if not siunitx.is_number(cell.text):
        return siunitx.text(escape(cell.text))
    return siunitx.cell(cell.text, room, cell.spread, cell.mark, cell.dagger)


def _comparisons(told: Told) -> dict[str, object] | None:
    if not told.family.tests:
        return None
    under = f", {told.scheme.label}" if told.among_others else ""
    explained = (
        f"{told.spec.title}: rows against {told.family.reference} on {data_name(told.card)}{under}, budget '{told.budget.name}'. "
        f"Difference: row minus reference, percentages in points. p: {test_name(told)}; Holm p: adjusted in a family of "
        f"{len(told.family.tests)} tests; t-test p: {conditional_label(told)}, unadjusted. {verdicts(told)}"
    )
    return {
        "caption": escape(explained),
        "heads": [escape(head) for head in COMPARISON_HEADS],
        "rows": [[_signed(text) for text in row] for row in comparison_rows(told.spec, told.family)],
    }


def _signed(text: str) -> str:
    """Escaped, with a real minus sign where a number is negative."""
    return re.sub(r"(?<![\w-])-(?=\d)", r"\\ensuremath{-}", escape(text))
