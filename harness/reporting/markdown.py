"""A table as Markdown and as plain text for the console, through tabulate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

from tabulate import tabulate

from harness.reporting.layout import COMPARISON_HEADS, Cell, Line, comparison_rows, heads
from harness.reporting.texts import Told, caption, conditional_label, legend, title, verdicts

_MARKS = {"": "{}", "best": "**{}**", "second": "<u>{}</u>"}
_PLAIN_MARKS = {"": "{}", "best": "{}*", "second": "{}+"}
URGENT = ("Reference", "Incomplete rows", "Incomplete pairs", "Environments")  # notes that the console shows as well
_SPECIAL = str.maketrans({character: f"\\{character}" for character in "\\`*_|<>[]#"})


def markdown(told: Told, lines: Sequence[Line]) -> str:
    """The whole document: table, comparisons, notes."""
    parts = [
        f"# {escape(title(told))}",
        escape(caption(told)),
        _table(_body(lines, _cell, escape), [escape(head) for head in _heads(told)], "github"),
        f"**Best**, <u>second best</u>. {escape(legend(told))}",
        *(part for block in told.blocks for part in _comparisons(block)),
        "## Notes",
        "\n".join(_notes(told)),
    ]
    return "\n\n".join(parts) + "\n"


def console(told: Told, lines: Sequence[Line]) -> str:
    """Title, caption, table and legend; what is missing; the rest is in the files."""
    body = _table(_body(lines, _plain_cell, str), list(_heads(told)), "simple")
    urgent = [f"{note.heading}: {item}" for note in told.notes if note.heading in URGENT for item in note.items]
    return "\n\n".join([title(told), caption(told), body, f"* best, + second best. {legend(told)}", *urgent])


def escape(text: str) -> str:
    """``text`` with Markdown's special characters taken literally, on one line."""
    return " ".join(text.split()).translate(_SPECIAL)


def _table(body: list[list[str]], heads: Sequence[str], style: str) -> str:
    """Numbers stay as they are written."""
    return tabulate(body, heads, tablefmt=style, disable_numparse=True, colalign=("left", "left", *["right"] * (len(heads) - 2)))


def _heads(told: Told) -> Iterable[str]:
    return "Model", "Numbers", *heads(told.spec)


def _body(lines: Sequence[Line], cell: Callable[[Cell], str], name: Callable[[str], str]) -> list[list[str]]:
    """One list per line; a row's name stands on its first line only."""
    return [
        [name(row) if i == 0 else "", line.label, *map(cell, line.cells)]
        for row, block in groupby(lines, key=lambda line: line.row)
        for i, line in enumerate(block)
    ]


def _cell(cell: Cell) -> str:
    return _MARKS[cell.mark].format(cell.text) + _rest(cell)


def _plain_cell(cell: Cell) -> str:
    return _PLAIN_MARKS[cell.mark].format(cell.text) + _rest(cell)


def _rest(cell: Cell) -> str:
    return (f" ± {cell.spread}" if cell.spread else "") + ("†" if cell.dagger else "")


def _comparisons(told: Told) -> list[str]:
    if not told.family.tests:
        return []
    rows = [[escape(text) for text in row] for row in comparison_rows(told.spec, told.family)]
    align = ("left", "left", *["right"] * 6, "left")
    table = tabulate(rows, COMPARISON_HEADS, tablefmt="github", disable_numparse=True, colalign=align)
    explained = (
        "Difference: row minus reference, percentages in points. p and Holm p: the test of the caption; "
        f"t-test p: {conditional_label(told)}, unadjusted. {verdicts(told)}"
    )
    under = f": {told.scheme.label}" if told.among_others else ""
    return [f"## Comparisons with {escape(f'{told.family.reference}{under}')}", escape(explained), table]


def _notes(told: Told) -> Iterable[str]:
    for note in told.notes:
        yield f"- **{escape(note.heading)}**"
        yield from (f"  - {escape(item)}" for item in note.items)
