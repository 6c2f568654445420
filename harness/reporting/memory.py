"""Outcomes of tests on disk, one file per table: a table of which one record is new does not repeat the tests of all its rows."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from harness.files import write_atomic
from harness.reporting.compare import Memory, Outcome

_OUTCOMES = TypeAdapter(dict[str, Outcome])


class Remembered(dict[str, Outcome]):
    """A memory that knows which of its outcomes were asked for: the others belong to records that are gone."""

    def __init__(self, known: Memory) -> None:
        super().__init__(known)
        self.asked: set[str] = set()

    def __getitem__(self, key: str) -> Outcome:
        self.asked.add(key)
        return super().__getitem__(key)


def load(path: Path, code: str) -> Remembered:
    """The outcomes in ``path``; none where there is no such file, or one that another state of the code wrote."""
    try:
        stored = json.loads(path.read_bytes())
        return Remembered(_OUTCOMES.validate_python(stored["outcomes"]) if stored["code"] == code else {})
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        return Remembered({})


def save(path: Path, code: str, memory: Remembered) -> None:
    """Store the outcomes that were asked for. NaN and infinity are written as Python's JSON has them."""
    used: dict[str, Outcome] = {key: memory[key] for key in sorted(memory.asked)}
    write_atomic(path, json.dumps({"code": code, "outcomes": _OUTCOMES.dump_python(used)}).encode())
