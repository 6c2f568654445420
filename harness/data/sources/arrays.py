"""Feature arrays beside a label table: ``FILE.npz:KEY``, matched to the clips by the file's array ``ids``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.data.sources.layout import split_id, trailing_zeros_off
from harness.errors import DataError


@dataclass(frozen=True)
class ArrayFile:
    """Where one modality's array lies: a .npz file and a key in it."""

    path: Path
    key: str


def parse(modality: str, text: str) -> ArrayFile:
    """``FILE.npz:KEY`` as file and key; without ``:KEY`` the key is the modality's name."""
    path, colon, key = text.rpartition(":")
    return ArrayFile(Path(path), key) if colon and key else ArrayFile(Path(text.removesuffix(":")), modality)


def read(where: ArrayFile, ids: Sequence[str]) -> list[np.ndarray]:
    """The frames of the clips ``ids``, (steps, features) each, in their order.

    The array is (clips, features), one step per clip, or (clips, steps, features) with the real steps in the array
    ``KEY_lengths`` if there is one, else up to the last that is not all zeros. Raises DataError if the file cannot be
    read, a key is missing, the shape is another, or clips are missing; clips that nobody asks for are passed over.
    """
    arrays = _load(where, ("ids", where.key, f"{where.key}_lengths"))
    names, array = arrays.get("ids"), arrays.get(where.key)
    if names is None or array is None:
        raise DataError(f"{where.path} has no array '{'ids' if names is None else where.key}'", f"Arrays there: {_keys(where.path)}.")
    if array.ndim not in (2, 3) or names.shape != array.shape[:1]:
        raise DataError(
            f"{where.path}: '{where.key}' has the shape {array.shape}, 'ids' {names.shape}",
            "Needed: (clips, features) or (clips, steps, features), and one id per clip.",
        )
    rows = _rows(where.path, names, ids)
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


def _rows(path: Path, names: np.ndarray, ids: Sequence[str]) -> np.ndarray:
    """Row of each of ``ids``."""
    place = {split_id(str(name))[0]: row for row, name in enumerate(names.tolist())}
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
        raise DataError(f"{where.path} is not there", "Give feature arrays as FILE.npz:KEY.")
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
