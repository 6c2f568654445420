"""What a source layout is: a way in which other people lay out a data set in files. One file of this folder each.

To add one: a new module here with a class that derives from ``Layout`` and carries ``@layouts.register("name")``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd

from harness.data.catalogue import Facts
from harness.data.schema import Ragged, Task
from harness.data.sources.featurefiles import read_cells
from harness.data.sources.tensors import is_tensors, load_tensors
from harness.data.unpickle import unpickle
from harness.errors import DataError
from harness.registry import Registry, import_tree

DATA_FILES = (".pkl", ".pickle", ".p", ".pt", ".csv")  # what is opened of a folder that is not itself a layout
SPLIT_NAMES = {"dev": "valid", "val": "valid", "validation": "valid"}
SDK_ID = re.compile(r"(?P<video>.+)\[\d+\]")


@dataclass(frozen=True)
class Opened:
    """A file that was opened safely. ``content``: a pickle's object, a table of strings, what a PyTorch file holds, or the
    files of a folder as sorted paths below it."""

    path: Path
    kind: Literal["pickle", "table", "tensors", "folder"]
    content: Any

    def __str__(self) -> str:
        return f"{self.path.name}: {_describe(self)}"


@dataclass(frozen=True)
class Raw:
    """What a layout reads: clips and features per clip, in the same order.

    ``clips``: columns id, group, split, label; where known text, fold, audio and video (files below ``media_root``).
    ``notes`` say what was done, ``notices`` what a reader of results must know.
    """

    clips: pd.DataFrame
    features: Mapping[str, Sequence[np.ndarray] | Ragged]
    notes: Mapping[str, str] = field(default_factory=dict)
    notices: Sequence[str] = ()
    media_root: Path | None = None


class Layout:
    """A source layout. Both methods look at contents, never at file names, unless the layout puts facts into names."""

    title: ClassVar[str]

    def recognise(self, files: Sequence[Opened]) -> bool:
        """Whether ``files`` have this layout. Cheap, and false for whatever another layout claims."""
        raise NotImplementedError

    def read(self, files: Sequence[Opened], facts: Facts) -> Raw:
        """The clips and features of ``files``; DataError naming file and key for what does not fit."""
        raise NotImplementedError


layouts: Registry[type[Layout]] = Registry("source layout")


def open_files(paths: Sequence[Path]) -> list[Opened]:
    """Open ``paths``. A single folder that is no layout of its own stands for the data files that lie directly in it."""
    if len(paths) != 1 or not paths[0].is_dir():
        return [open_file(path) for path in paths]
    folder = open_file(paths[0])
    inside = [] if _find([folder]) else sorted(path for path in paths[0].iterdir() if path.suffix in DATA_FILES and path.is_file())
    return [open_file(path) for path in inside] or [folder]


def open_file(path: Path) -> Opened:
    """Open ``path`` as what its first bytes say it is; DataError if it is none of the kinds that are read."""
    if path.is_dir():
        return Opened(path, "folder", sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()))
    if not path.is_file():
        raise DataError(f"{path} is not there", "Name the data file itself.")
    with open(path, "rb") as file:
        start = file.read(4096)
    if is_tensors(path, start):
        return Opened(path, "tensors", load_tensors(path))
    if start.startswith(b"PK\x03\x04"):
        raise DataError(
            f"{path} is an archive or .npz file, which has arrays but no labels",
            "Unpack an archive. Import the label table or the pickle, and give arrays beside it: --features audio=FILE.npz:KEY.",
        )
    if start.startswith(b"\x93NUMPY"):
        raise DataError(
            f"{path} is an array, which has no labels", "Name it in a manifest, or give it beside a table: --features MODALITY=FOLDER."
        )
    if _is_text(start) or (path.suffix.lower() == ".csv" and not start.startswith(b"\x80")):  # the latter to say what is wrong with it
        return Opened(path, "table", _table(path))
    return Opened(path, "pickle", unpickle(path))


def recognise(files: Sequence[Opened]) -> tuple[str, Layout]:
    """Name and instance of the layout that ``files`` have; DataError that describes them if there is none."""
    found = _find(files)
    if found:
        return found
    raise DataError(
        f"no known layout: {'; '.join(map(str, files))}",
        f"Known layouts: {', '.join(f'{name} ({layouts[name].title})' for name in layouts)}. docs/data.md describes them.",
    )


def read(name: str, layout: Layout, files: Sequence[Opened], facts: Facts) -> Raw:
    """What ``layout`` reads of ``files``; whatever in a file trips it up is a DataError."""
    try:
        return layout.read(files, facts)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise DataError(
            f"{', '.join(file.path.name for file in files)}: looks like {name} ({layout.title}), but has another form inside: "
            f"{type(error).__name__}: {error}",
            "docs/data.md describes the layout. Compare the file with its source.",
        ) from error


def _find(files: Sequence[Opened]) -> tuple[str, Layout] | None:
    broken = import_tree("harness.data.sources")
    if broken:
        raise DataError("; ".join(f"{module} cannot be imported: {why}" for module, why in broken.items()), "Mend it or remove it.")
    known = {name: layouts[name]() for name in layouts}
    return next(((name, layout) for name, layout in known.items() if layout.recognise(files)), None)


# ---- what layouts share


def split_id(identifier: str) -> tuple[str, str]:
    """Canonical clip id and its group (video): ``v$_$7``, ``v_7`` -> (``v_7``, ``v``); ``v`` -> (``v``, ``v``).

    The SDK's ``v[7]`` keeps its form, for it counts from 0: of CMU-MOSI it is the clip that others call ``v_8``.
    """
    sdk = SDK_ID.fullmatch(identifier)
    if sdk:
        return identifier, sdk["video"]
    video, _, clip = identifier.rpartition("$_$" if "$_$" in identifier else "_")
    return (f"{video}_{clip}", video) if video else (identifier, identifier)


def split_name(name: str) -> str:
    """The name of a split as the harness writes it: ``dev``, ``val`` and ``validation`` are ``valid``."""
    return SPLIT_NAMES.get(name, name)


def as_text(value: Any) -> str:
    """A string or bytes as text; anything else as it prints."""
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)


def count(value: Any) -> int | None:
    """Entries of a list, a tuple or an array; None for what has none."""
    if isinstance(value, np.ndarray):
        return len(value) if value.ndim else None
    return len(value) if isinstance(value, list | tuple) else None


def single(value: Any) -> Any:
    """The one entry of a list or array of length 1, however deep; anything else as it is."""
    while count(value) == 1:
        value = value[0]
    return value


def class_number(label: Any, task: Task) -> Any:
    """The number of the class called ``label`` (case does not matter); whatever is no class's name as it is."""
    if task.kind == "regression" or not isinstance(label, str):
        return label
    names = [name.casefold() for name in task.classes]
    wanted = label.strip().casefold()
    return names.index(wanted) if wanted in names else label


# ---- opening and describing


def _is_text(start: bytes) -> bool:
    """Text with a comma in its first line: a table. A pickle of protocol 0 is text too, but has one short code a line."""
    try:
        first = start.decode("utf-8-sig", errors="strict" if len(start) < 4096 else "ignore").partition("\n")[0]
    except UnicodeDecodeError:
        return False
    return "," in first and first.rstrip("\r").isprintable()


def _table(path: Path) -> pd.DataFrame:
    try:
        table = read_cells(path)
    except (ValueError, OSError, pd.errors.ParserWarning) as error:  # pandas' parser errors are ValueErrors
        raise DataError(f"{path} is not a table of comma-separated values: {str(error).strip()}", "Save it as CSV, UTF-8.") from error
    other = next((mark for mark in (";", "\t") if len(table.columns) == 1 and mark in str(table.columns[0])), "")
    if other:
        raise DataError(f"{path} has its cells separated by {other!r}", "Save it with commas between the cells, UTF-8.")
    return table


def _describe(opened: Opened) -> str:
    content = opened.content
    if opened.kind == "folder":
        return f"a folder of {len(content)} files" + (f", such as {', '.join(content[:3])}" if content else "")
    if opened.kind == "tensors":
        return "a PyTorch file"
    if isinstance(content, pd.DataFrame):
        return f"a table with the columns {', '.join(map(str, content.columns))}"
    if isinstance(content, dict):
        inner = next((value for value in content.values() if isinstance(value, dict)), {})
        return f"a dictionary with the keys {_some(content)}" + (f", inside {_some(inner)}" if inner else "")
    return f"a {type(content).__name__}" + (f" of {len(content)}" if isinstance(content, list | tuple) else "")


def _some(keys: Mapping[Any, Any]) -> str:
    return ", ".join(str(key)[:40] for key in list(keys)[:12]) + (", ..." if len(keys) > 12 else "")
