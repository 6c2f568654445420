"""Feature files of one clip each, and tables of one row per clip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from harness.errors import DataError

BOOKKEEPING = ("frame", "face_id", "timestamp", "time", "confidence", "success")  # columns that say when or whether, not what


def read_frames(path: Path) -> np.ndarray:
    """The frames of one clip, (frames, features): a .npy array, or a .csv table with one row per frame.

    An array or table of one row is one frame; a .npy vector too. Of a table with a header, columns called ``frame``,
    ``face_id``, ``timestamp``, ``time``, ``confidence`` or ``success`` are left out. DataError for anything else.
    """
    if path.suffix.lower() not in (".npy", ".csv"):
        raise DataError(f"{path} is neither .npy nor .csv", "Write one clip's features as an array (frames, features), or as a table.")
    frames = _array(path) if path.suffix.lower() == ".npy" else numbers(_table(path), path)
    if frames.ndim not in (1, 2) or frames.dtype.kind not in "fiub":
        raise DataError(f"{path} is of type {frames.dtype}, shape {frames.shape}", "Numbers (frames, features) are needed.")
    return frames if frames.ndim == 2 else frames[None, :]


def numbers(table: pd.DataFrame, path: Path) -> np.ndarray:
    """The columns of ``table`` that are features, (rows, columns); DataError naming the first cell that is no number."""
    named = {column: str(column).strip() for column in table}
    features = table[[column for column, name in named.items() if name.lower() not in BOOKKEEPING]]
    found = features.apply(pd.to_numeric, errors="coerce")
    wrong = (found.isna() & ~features.isin(["", "nan", "NaN", "NA"]) & features.notna()).to_numpy()
    if wrong.any():
        row, column = (int(place[0]) for place in np.nonzero(wrong))
        name, value = named[features.columns[column]], features.iloc[row, column]
        raise DataError(f"{path}: row {row + 1}, column '{name}' holds {value!r}", "Numbers only.")
    return np.asarray(found.to_numpy(dtype=np.float64))


def _array(path: Path) -> np.ndarray:
    try:
        with open(path, "rb") as file:
            return np.asarray(np.load(file, allow_pickle=False))
    except Exception as error:  # a damaged or foreign file fails in the header or in the values
        raise DataError(
            f"{path} cannot be read as .npy: {type(error).__name__}: {error}", "Write it with numpy.save, an array of numbers."
        ) from error


def _table(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, header=None, encoding="utf-8-sig")
    except (ValueError, OSError) as error:
        raise DataError(f"{path} cannot be read as .csv: {error}", "Write comma-separated numbers, one row per frame, UTF-8.") from error
    first = pd.to_numeric(table.iloc[0], errors="coerce")
    if first.notna().all():
        return table
    return table.iloc[1:].reset_index(drop=True).set_axis(table.iloc[0].tolist(), axis=1)
