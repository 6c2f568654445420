"""Features of one modality beside a label table, matched to the clips by their ids. Three forms:

- ``FILE.npz:KEY``: an array, and an array ``ids`` that names its rows;
- ``TABLE.csv``: one row per clip, its id in the first column, one feature in each other;
- ``FOLDER``: one file per clip, ``ID.npy`` or ``ID.csv`` (one row per frame).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.data.sources.featurefiles import numbers, read_frames, read_table
from harness.data.sources.layout import split_id
from harness.data.sources.padding import trailing_zeros_off
from harness.errors import DataError


@dataclass(frozen=True)
class ArrayFile:
    """Where one modality's features lie: a .npz file and a key in it, or a table or folder without one."""

    path: Path
    key: str = ""

    def __str__(self) -> str:
        return f"{self.path.name}:{self.key}" if self.key else self.path.name


def parse(modality: str, text: str) -> ArrayFile:
    """``FILE.npz:KEY`` as file and key, without ``:KEY`` the modality's name; a table or a folder as it is."""
    if Path(text).is_dir() or text.lower().endswith(".csv"):
        return ArrayFile(Path(text))
    path, colon, key = text.rpartition(":")
    return ArrayFile(Path(path), key) if colon and key else ArrayFile(Path(text.removesuffix(":")), modality)


def read(where: ArrayFile, ids: Sequence[str]) -> list[np.ndarray]:
    """The frames of the clips ``ids``, (steps, features) each, in their order.

    An array is (clips, features), one step per clip, or (clips, steps, features) with the real steps in the array
    ``KEY_lengths`` if there is one, else up to the last that is not all zeros. Raises DataError if a file cannot be
    read, a key is missing, the shape is another, or clips are missing; clips that nobody asks for are passed over.
    """
    if where.path.is_dir():
        return _folder(where.path, ids)
    return _table(where.path, ids) if where.path.suffix.lower() == ".csv" else _array(where, ids)


def _folder(folder: Path, ids: Sequence[str]) -> list[np.ndarray]:
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".npy", ".csv") and path.is_file())
    rows = _rows(folder, [path.stem for path in files], ids)
    return [read_frames(files[row]) for row in rows]


def _table(path: Path, ids: Sequence[str]) -> list[np.ndarray]:
    table = read_table(path, header=True)
    rows = _rows(path, table.iloc[:, 0].tolist() if table.shape[1] else [], ids)
    return list(numbers(table.iloc[:, 1:], path)[rows, None, :])


def _array(where: ArrayFile, ids: Sequence[str]) -> list[np.ndarray]:
    arrays = _load(where, ("ids", where.key, f"{where.key}_lengths"))
    names, array = arrays.get("ids"), arrays.get(where.key)
    if names is None or array is None:
        raise DataError(f"{where.path} has no array '{'ids' if names is None else where.key}'", f"Arrays there: {_keys(where.path)}.")
    if array.ndim not in (2, 3) or names.shape != array.shape[:1]:
        raise DataError(
            f"{where.path}: '{where.key}' has the shape {array.shape}, 'ids' {names.shape}",
            "Needed: (clips, features) or (clips, steps, features), and one id per clip.",
        )
    rows = _rows(where.path, names.tolist(), ids)
    chosen = array[rows] if array.ndim == 3 else array[rows, None, :]
    lengths = arrays.get(f"{where.key}_lengths")
    return [frames[:length] for frames, length in zip(chosen, _lengths(where, chosen, lengths, rows, array.ndim), strict=True)]


def _lengths(where: ArrayFile, chosen: np.ndarray, stated: np.ndarray | None, rows: np.ndarray, ndim: int) -> list[int]:
    steps = chosen.shape[1]
    if ndim == 2:
        return [1] * len(chosen)
    if stated is None:
        return [int(length) for length in trailing_zeros_off(chosen)]
    if stated.ndim != 1 or stated.dtype.kind not in "iu" or len(stated) <= rows.max() or stated.min() < 0 or stated.max() > steps:
        raise DataError(f"{where.path}: '{where.key}_lengths' does not fit '{where.key}'", f"Needed: whole numbers from 0 to {steps}.")
    return [int(length) for length in stated[rows]]


def _rows(path: Path, names: Sequence[object], ids: Sequence[str]) -> np.ndarray:
    """Row of each of ``ids``."""
    place = {split_id(str(name))[0]: row for row, name in enumerate(names)}
    if len(place) != len(names):
        raise DataError(f"{path}: {len(names) - len(place)} of its ids are repeated", "Each clip must have one row.")
    missing = [clip for clip in ids if clip not in place]
    if missing:
        raise DataError(
            f"{path} lacks {len(missing)} of {len(ids)} clips, the first are {', '.join(missing[:3])}",
            f"Its ids must be those of the clips; its first are {', '.join(list(place)[:3])}.",
        )
    return np.array([place[clip] for clip in ids], dtype=int)


def _load(where: ArrayFile, keys: Sequence[str]) -> dict[str, np.ndarray]:
    if not where.path.is_file():
        raise DataError(f"{where.path} is not there", "Give features as FILE.npz:KEY, TABLE.csv or a folder of one file per clip.")
    try:
        with open(where.path, "rb") as file, np.load(file, allow_pickle=False) as archive:  # np.load leaves a broken file open
            return {key: archive[key] for key in keys if key in archive.files}
    except Exception as error:  # a damaged archive fails in the zip, the header or the array, each in its own way
        raise DataError(
            f"{where.path} cannot be read as .npz: {type(error).__name__}: {error}",
            "Write it with numpy.savez, arrays of numbers and ids of strings, not of objects.",
        ) from error


def _keys(path: Path) -> str:
    with np.load(path, allow_pickle=False) as archive:
        return ", ".join(archive.files)
