"""Ranges in which a method's settings may be searched: notes on its fields, which training never reads.

``hidden: PositiveInt = Field(128, description="...", json_schema_extra=tunable(16, 256, log=True))``

A note changes neither a configuration's values nor the key of any record: fingerprints of code leave it out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import model_validator

from harness.data.schema import Frozen

NOTE = "tune"  # the key of the note in a field's json_schema_extra

Value = bool | int | float | str | None


class Range(Frozen):
    """Numbers from ``low`` to ``high``, whole ones if both are; or one of ``choices``.

    ``log``: equal ratios are equally likely. Raises ValueError for an empty range, and for a logarithm of what is not positive.
    """

    low: int | float = 0
    high: int | float = 0
    log: bool = False
    choices: tuple[Value, ...] = ()

    @model_validator(mode="after")
    def _sound(self) -> Range:
        if not self.choices and (self.low >= self.high or (self.log and self.low <= 0)):
            raise ValueError(f"nothing to search from {self.low} to {self.high}{' on a log scale' if self.log else ''}")
        return self

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def around(self, value: Any) -> Range:
        """The range widened to hold ``value``, where it can: a logarithm reaches no 0."""
        if self.choices:
            return self if value in self.choices else self.model_copy(update={"choices": _in_order((*self.choices, value))})
        if not _is_number(value) or (self.log and value <= 0):
            return self
        kind = int if self.whole else float
        return self.model_copy(update={"low": min(self.low, kind(value)), "high": max(self.high, kind(value))})

    def nearest(self, value: Any) -> Value:
        """The value of the range that is nearest to ``value``; without a number, the least."""
        if self.choices:
            return value if value in self.choices else self.choices[0]
        return min(max(value, self.low), self.high) if _is_number(value) else self.low

    def __str__(self) -> str:
        if self.choices:
            return "one of " + ", ".join(map(str, self.choices))
        return f"{self.low:g} to {self.high:g}{', log' if self.log else ''}"


def tunable(
    low: int | float | None = None, high: int | float | None = None, *, log: bool = False, choices: Sequence[Value] = ()
) -> dict[str, Any]:
    """The note on a field whose values may be searched from ``low`` to ``high`` or among ``choices``.

    On a field with one value per modality, or with parts, it holds for each of them. Raises ValueError as ``Range`` does.
    """
    if (low is None or high is None) == (not choices):
        raise ValueError("a range has a low and a high end, or choices")
    return {NOTE: _noted(Range(choices=tuple(choices)) if low is None or high is None else Range(low=low, high=high, log=log))}


def each(**parts: dict[str, Any]) -> dict[str, Any]:
    """The note on a field whose parts differ: ``each(width=tunable(16, 256), dropout=tunable(0.0, 0.7))``."""
    return {NOTE: {name: note[NOTE] for name, note in parts.items()}}


def untuned() -> dict[str, Any]:
    """The note on a loss weight that is not to be searched."""
    return {NOTE: None}


def weight_range(value: float) -> Range:
    """Where a loss weight is searched that says nothing of itself: a hundredth to ten times ``value``, on a log scale."""
    return Range(low=value / 100, high=value * 10, log=True) if value > 0 else Range(low=1e-3, high=1.0, log=True)


def read_note(note: Mapping[str, Any], part: str = "") -> Range | None:
    """The range that a note states for a field's ``part`` (of a note without parts: for any)."""
    found = note.get(part) if part and not note.keys() & Range.model_fields.keys() else note
    return Range.model_validate(found) if found else None


def _noted(range_: Range) -> dict[str, Any]:
    return range_.model_dump(exclude_defaults=True)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _in_order(values: Sequence[Value]) -> tuple[Value, ...]:
    return tuple(sorted(values, key=float)) if all(map(_is_number, values)) else tuple(values)  # type: ignore[arg-type]
