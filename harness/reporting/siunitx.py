"""Columns of numbers that align at the decimal point: column types and cells for LaTeX's package siunitx, version 3.

Only means are numbers to siunitx. What stands behind one, its deviation and its dagger, is text: siunitx would give mean and
deviation the same number of decimals, and a paper that prints 81.4 ± 0.31 does not say 81.40.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

NUMBER = re.compile(r"([+-]?)(\d+)(?:\.(\d+))?")
DAGGER = r"\ensuremath{^{\dagger}}"
PREAMBLE = r"\sisetup{detect-weight=true, mode=text, retain-explicit-plus=true, table-align-text-before=true, table-align-text-after=true}"


def is_number(text: str) -> bool:
    return NUMBER.fullmatch(text) is not None


def column(numbers: Sequence[str], behind: Sequence[str] = ()) -> str:
    """The type of a column that holds these ``numbers``; ``r`` for a column without any.

    Room is made for the longest number on either side of the point, and for the longest of the texts ``behind`` numbers.
    """
    found = [match for number in numbers if (match := NUMBER.fullmatch(number))]
    if not found:
        return "r"
    sign = "+" if any(match[1] for match in found) else ""
    whole = max(len(match[2]) for match in found)
    room = max(behind, key=len, default="")
    return f"S[table-format={sign}{whole}.{places(numbers)}{f', table-space-text-post={{{room}}}' if room else ''}]"


def behind(spread: str, dagger: bool) -> str:
    """What stands behind a number."""
    return (rf"\,\ensuremath{{\pm}}\,{spread}" if spread else "") + (DAGGER if dagger else "")


def places(numbers: Sequence[str]) -> int:
    """The most decimals of any of ``numbers``."""
    return max((len(match[3] or "") for number in numbers if (match := NUMBER.fullmatch(number))), default=0)


def cell(number: str, room: int, spread: str = "", mark: str = "", dagger: bool = False) -> str:
    """A number as a cell of a column with ``room`` decimals: the best one bold, a line under the second best."""
    after = (_line(number, room) if mark == "second" else "") + behind(spread, dagger)
    if mark == "best":  # the mean alone is bold: bold text would not fit the room that is made for it
        return rf"\bfseries {number}" + (rf" {{\mdseries{after}}}" if after else "")
    return number + (f" {{{after}}}" if after else "")


def _line(number: str, room: int) -> str:
    """A line drawn back under the number from where text behind numbers begins: after the last decimal that has room."""
    own = places([number])
    rest = ("." if room and not own else "") + "0" * (room - own)
    way = rf"\phantom{{{rest}}}" if rest else ""
    return rf"\llap{{\underline{{\phantom{{{number}}}}}{way}}}"


def text(shown: str) -> str:
    """Text, escaped already, in the place of a number."""
    return f"{{{shown}}}"
