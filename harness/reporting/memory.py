"""What was computed from records, on disk, by what it was computed from: scores and outcomes of tests, a file of each per table.

A table of which one record is new does not repeat the tests of all its rows. A file is believed where this very code wrote it
and nobody changed it since.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from harness.files import read_sealed, write_sealed
from harness.reporting.collect import Numbers
from harness.reporting.compare import Outcome

Value = TypeVar("Value")
OUTCOMES = TypeAdapter(dict[str, Outcome])
NUMBERS: TypeAdapter[dict[str, Numbers]] = TypeAdapter(dict[str, Any])  # their shapes are what the code that wrote them made


class Remembered(dict[str, Value], Generic[Value]):
    """A memory that knows what of it was asked for: the rest belongs to records that are gone."""

    def __init__(self, known: dict[str, Value]) -> None:
        super().__init__(known)
        self.asked: set[str] = set()

    def __getitem__(self, key: str) -> Value:
        self.asked.add(key)
        return super().__getitem__(key)


def load(path: Path, code: str, kind: TypeAdapter[dict[str, Value]]) -> Remembered[Value]:
    """What the file ``path`` remembers; nothing where there is none, another state of the code wrote it, or it was changed since."""
    try:
        return Remembered(kind.validate_python(json.loads(read_sealed(path, code))))
    except (OSError, ValueError, ValidationError):
        return Remembered({})


def save(path: Path, code: str, kind: TypeAdapter[dict[str, Value]], memory: Remembered[Value]) -> None:
    """Store what was asked for, below a line that vouches for it. NaN and infinity are written as Python's JSON has them."""
    used = kind.dump_python({key: memory[key] for key in sorted(memory.asked)})
    write_sealed(path, json.dumps(used).encode(), code)
