"""One split of a pickle that is a dictionary of splits, each a dictionary of columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from harness.data.schema import MODALITIES, SPLITS
from harness.data.sources.layout import split_name
from harness.errors import DataError

NUMBERS = "fiub"


class Part:
    """A split whose arrays were checked for form; ``counted_by`` is the column that says how many clips it has."""

    counted_by = "id"

    def __init__(self, where: str, split: str, content: Any) -> None:
        self.where, self.split = where, split
        if not isinstance(content, dict):
            raise DataError(f"{where} is a {type(content).__name__}", "Each split must be a dictionary of arrays.")
        self.content = content
        self.count = len(self.listed(self.counted_by))
        self.arrays = {m: self._array(m) for m in MODALITIES if content.get(m) is not None} if self.count else {}

    def listed(self, key: str) -> Any:
        """The column ``key``."""
        column = self.content.get(key)
        if not isinstance(column, list | tuple | np.ndarray) or (isinstance(column, np.ndarray) and not column.ndim):
            raise DataError(
                f"{self.where} has no list '{key}' with one entry per clip", f"Keys there: {', '.join(map(str, self.content))}."
            )
        return column

    def column(self, key: str) -> Any:
        """The column ``key``, as long as there are clips."""
        column = self.listed(key)
        if len(column) != self.count:
            raise DataError(
                f"{self.where}['{key}'] has {len(column)} entries, '{self.counted_by}' has {self.count}", "Both must list the same clips."
            )
        return column

    def _array(self, key: str) -> np.ndarray:
        """The modality as (clips, steps, features); (clips, features) is one step."""
        array = self.column(key)
        if not isinstance(array, np.ndarray) or array.dtype.kind not in NUMBERS or array.ndim not in (2, 3):
            form = f"an array of type {array.dtype}, shape {array.shape}" if isinstance(array, np.ndarray) else f"a {type(array).__name__}"
            raise DataError(f"{self.where}['{key}'] is {form}", "An array of numbers (clips, steps, features) is needed.")
        return np.asarray(array if array.ndim == 3 else array[:, None, :])


def by_split(content: Mapping[Any, Any], where: str) -> dict[str, tuple[str, Any]]:
    """Split -> its key in a pickle and what it holds, in the order of ``SPLITS``: ``dev`` and ``val`` are ``valid``.

    DataError if two keys are the same split.
    """
    found: dict[str, tuple[str, Any]] = {}
    for key, part in content.items():
        split = split_name(key) if isinstance(key, str) else ""
        if split not in SPLITS or part is None:
            continue
        if split in found:
            raise DataError(f"{where} has both '{found[split][0]}' and '{key}', which are one split", "Leave one of them out.")
        found[split] = (key, part)
    return {split: found[split] for split in SPLITS if split in found}


P = TypeVar("P", bound=Part)


def filled(parts: Sequence[P], where: str) -> list[P]:
    """Those of ``parts`` that have clips; DataError if none has, or if they do not have the same modalities."""
    found = [part for part in parts if part.count]
    if not found:
        raise DataError(f"{where} holds no clips: each of its splits is empty", "Check that it is the right file.")
    for part in found[1:]:
        if set(part.arrays) != set(found[0].arrays):
            has = [f"{p.where} has {', '.join(p.arrays) or 'none'}" for p in (found[0], part)]
            raise DataError(f"the splits have different modalities: {', '.join(has)}", "Every split must have the same.")
    return found
