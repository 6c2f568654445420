"""What a source layout is: a way in which other people lay out a data set in files. One file of this folder each.

To add one: a new module here with a class that derives from ``Layout`` and carries ``@layouts.register("name")``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd

from harness.data.catalogue import Facts
from harness.data.unpickle import unpickle
from harness.errors import DataError
from harness.registry import Registry, import_tree


@dataclass(frozen=True)
class Opened:
    """A file that was opened safely. ``content``: a pickle's object, or a table of strings."""

    path: Path
    kind: Literal["pickle", "table"]
    content: Any

    def __str__(self) -> str:
        return f"{self.path.name}: {_describe(self.content)}"


@dataclass(frozen=True)
class Raw:
    """What a layout reads: clips (columns id, group, split, label, text) and features per clip, in the same order."""

    clips: pd.DataFrame
    features: Mapping[str, Sequence[np.ndarray]]
    notes: Mapping[str, str] = field(default_factory=dict)


class Layout:
    """A source layout. Both methods look at contents, never at file names."""

    title: ClassVar[str]

    def recognise(self, files: Sequence[Opened]) -> bool:
        """Whether ``files`` have this layout. Cheap, and false for whatever another layout claims."""
        raise NotImplementedError

    def read(self, files: Sequence[Opened], facts: Facts) -> Raw:
        """The clips and features of ``files``; DataError naming file and key for what does not fit."""
        raise NotImplementedError


layouts: Registry[type[Layout]] = Registry("source layout")


def open_file(path: Path) -> Opened:
    """Open ``path`` as what its first bytes say it is; DataError if it is neither a pickle nor a table."""
    if not path.is_file():
        raise DataError(f"{path} is {'a folder' if path.is_dir() else 'not there'}", "Name the data file itself.")
    with open(path, "rb") as file:
        start = file.read(4096)
    if start.startswith(b"PK\x03\x04"):
        raise DataError(
            f"{path} is an archive or .npz file, which has arrays but no labels",
            "Import the label table or the pickle, and give the arrays beside it: --features audio=FILE.npz:KEY.",
        )
    if _is_text(start):
        return Opened(path, "table", _table(path))
    return Opened(path, "pickle", unpickle(path))


def recognise(files: Sequence[Opened]) -> tuple[str, Layout]:
    """Name and instance of the layout that ``files`` have; DataError that describes them if there is none."""
    broken = import_tree("harness.data.sources")
    if broken:
        raise DataError("; ".join(f"{module} cannot be imported: {why}" for module, why in broken.items()), "Mend it or remove it.")
    for name in layouts:
        layout = layouts[name]()
        if layout.recognise(files):
            return name, layout
    raise DataError(
        f"no known layout: {'; '.join(map(str, files))}",
        f"Known layouts: {', '.join(f'{name} ({layouts[name].title})' for name in layouts)}.",
    )


def split_id(identifier: str) -> tuple[str, str]:
    """Canonical clip id and its group (video): ``v$_$7`` -> (``v_7``, ``v``), ``v_7`` -> (``v_7``, ``v``), ``v`` -> (``v``, ``v``)."""
    video, _, clip = identifier.rpartition("$_$" if "$_$" in identifier else "_")
    return (f"{video}_{clip}", video) if video else (identifier, identifier)


def _is_text(start: bytes) -> bool:
    """Text with a comma in its first line: a table. A pickle of protocol 0 is text too, but has one short code a line."""
    try:
        first = start.decode("utf-8-sig", errors="strict" if len(start) < 4096 else "ignore").partition("\n")[0]
    except UnicodeDecodeError:
        return False
    return "," in first and first.rstrip("\r").isprintable()


def _table(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, OSError) as error:  # pandas' parser errors are ValueErrors
        raise DataError(f"{path} is not a table of comma-separated values: {error}", "Save it as CSV, UTF-8.") from error


def _describe(content: Any) -> str:
    if isinstance(content, pd.DataFrame):
        return f"a table with the columns {', '.join(map(str, content.columns))}"
    if isinstance(content, dict):
        inner = next((value for value in content.values() if isinstance(value, dict)), {})
        return f"a dictionary with the keys {_some(content)}" + (f", inside {_some(inner)}" if inner else "")
    return f"a {type(content).__name__}" + (f" of {len(content)}" if isinstance(content, list | tuple) else "")


def _some(keys: Mapping[Any, Any]) -> str:
    return ", ".join(str(key)[:40] for key in list(keys)[:12]) + (", ..." if len(keys) > 12 else "")


def trailing_zeros_off(array: np.ndarray) -> np.ndarray:
    """Steps of each clip up to the last that is not all zeros, (clips, steps, features) -> (clips,).

    NaN and infinities are not zero: they are missing values inside the clip.
    """
    return np.array([_last_step(frames) for frames in array], dtype=int)


def _last_step(frames: np.ndarray) -> int:
    steps = np.flatnonzero((frames != 0).any(axis=1))
    return int(steps[-1]) + 1 if len(steps) else 0
