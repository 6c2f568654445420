"""In which line of a TOML file a key or a value stands, which Python's parser does not tell; and what is wrong there."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from harness.registry import suggest

Place = tuple[str | int, ...]

HEADER = re.compile(r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$")
KEY = re.compile(r"""\s*((?:"[^"]*"|'[^']*'|[\w-]+)(?:\s*\.\s*(?:"[^"]*"|'[^']*'|[\w-]+))*)\s*=""")
PART = re.compile(r""""([^"]*)"|'([^']*)'|([\w-]+)""")


@dataclass(frozen=True)
class _Entry:
    """A key of the file with the lines that its value takes, from 1, or the header of a table."""

    place: Place
    lines: tuple[int, ...]


def line_of(text: str, place: Sequence[str | int], value: object = None) -> int | None:
    """The line, from 1, of the entry nearest to ``place``: keys and numbers of list entries, as pydantic has them.

    What stands inside an inline table or a list is sought by name, then by ``value``, in the lines of the entry around it. None
    where not even the first key is in the file.
    """
    lines, wanted = text.splitlines(), tuple(place)
    shared = {entry: _shared(entry.place, wanted) for entry in _entries(lines)}
    best = max(shared.values(), default=0)
    if not best:
        return None
    near = min((entry for entry, count in shared.items() if count == best), key=lambda entry: len(entry.place))
    names = [part for part in wanted[best:] if isinstance(part, str)]
    return _inside(lines, near, [*names[::-1], *([str(value)] if isinstance(value, str | int | float) else [])])


def _inside(lines: Sequence[str], entry: _Entry, words: Sequence[str]) -> int:
    """The first line of ``entry`` that has the first of ``words`` that any line has, as a word; else its first line."""
    for word in words:
        for number in entry.lines:
            if word and re.search(rf"(?<![\w.]){re.escape(word)}(?!\w)", lines[number - 1]):
                return number
    return entry.lines[0]


def _shared(place: Place, wanted: Place) -> int:
    """How many parts both begin with; 0 where ``place`` leads elsewhere."""
    count = 0
    for own, other in zip(place, wanted, strict=False):
        if own != other:
            break
        count += 1
    return count if count == len(place) or count == len(wanted) else 0


def _entries(lines: Sequence[str]) -> Iterator[_Entry]:
    """Headers and keys in their order; text in several lines and lists in several lines belong to their key."""
    prefix: Place = ()
    counts: dict[Place, int] = {}
    found: list[tuple[Place, int]] = []
    quoted = ""
    for number, line in enumerate(lines, start=1):
        outside = not quoted
        quoted = _quote_left_open(line, quoted)
        if not outside:
            continue
        if header := HEADER.match(line):
            prefix = _parts(header[2])
            if header[1] == "[[":
                counts[prefix] = counts.get(prefix, -1) + 1
                prefix = (*prefix, counts[prefix])
            else:
                prefix = _counted(prefix, counts)
            found.append((prefix, number))
        elif key := KEY.match(line):
            found.append(((*prefix, *_parts(key[1])), number))
    ends = [number for _, number in found[1:]] + [len(lines) + 1]
    for (place, first), end in zip(found, ends, strict=True):
        yield _Entry(place, tuple(range(first, end)))


def _counted(prefix: Place, counts: dict[Place, int]) -> Place:
    """``rows.config`` under the third ``[[rows]]`` as (rows, 2, config)."""
    for length in range(len(prefix), 0, -1):
        if prefix[:length] in counts:
            return (*prefix[:length], counts[prefix[:length]], *prefix[length:])
    return prefix


def _parts(text: str) -> Place:
    return tuple(next(group for group in match.groups() if group is not None) for match in PART.finditer(text))


def _quote_left_open(line: str, quoted: str) -> str:
    for quote in ('"""', "'''"):
        if (not quoted or quoted == quote) and line.count(quote) % 2:
            return "" if quoted else quote
    return quoted


def at(path: Path, text: str, place: Sequence[str | int], value: object = None) -> str:
    """``path, line 7``; without the line where it cannot be known."""
    line = line_of(text, place, value)
    return str(path) if line is None else f"{path}, line {line}"


def faults(path: Path, text: str, error: ValidationError, allowed: Callable[[Place], Iterable[str]]) -> str:
    """What is wrong with a file, a line each: where, key, value, why. ``allowed``: the keys of the table at a place."""
    return "\n".join(_fault(path, text, fault, allowed) for fault in error.errors())


def _fault(path: Path, text: str, fault: ErrorDetails, allowed: Callable[[Place], Iterable[str]]) -> str:
    place, value = fault["loc"], fault["input"]
    shown, key = repr(value), ".".join(map(str, place))
    said = fault["msg"]
    if fault["type"] == "extra_forbidden":
        said = f"there is no such key; {suggest(str(place[-1]), allowed(place[:-1]))}"
    return f"{at(path, text, place, value)}: {key} = {shown if len(shown) <= 80 else shown[:77] + '...'}: {said}"
