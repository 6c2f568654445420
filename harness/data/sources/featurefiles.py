"""Feature files of one clip each, and tables of one row per clip."""

from __future__ import annotations

import csv
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from harness.errors import DataError

BOOKKEEPING = ("frame", "face_id", "timestamp", "time", "confidence", "success")  # columns that say when or whether, not what

MISSING = ("", "NA", "N/A")


def read_frames(path: Path) -> np.ndarray:
    """The frames of one clip, (frames, features): a .npy array, or a .csv table with one row per frame.

    An array or table of one row is one frame; a .npy vector too. Of a table with a header, columns called ``frame``,
    ``face_id``, ``timestamp``, ``time``, ``confidence`` or ``success`` are left out. DataError for anything else.
    """
    if path.suffix.lower() not in (".npy", ".csv"):
        raise DataError(f"{path} is neither .npy nor .csv", "Write one clip's features as an array (frames, features), or as a table.")
    frames = _array(path) if path.suffix.lower() == ".npy" else numbers(read_table(path), path)
    if frames.ndim not in (1, 2) or not frames.shape[-1] or frames.dtype.kind not in "fiub":
        raise DataError(f"{path} is of type {frames.dtype}, shape {frames.shape}", "Numbers (frames, features) are needed.")
    return frames if frames.ndim == 2 else frames[None, :]


def read_table(path: Path, header: bool | None = None) -> pd.DataFrame:
    """The table in ``path``, cells as text; whether it has a header is seen from its first line unless stated."""
    try:
        if header is None:
            with open(path, newline="", encoding="utf-8-sig") as file:
                header = not all(cell.strip() in MISSING or _is_number(cell) for cell in next(csv.reader(file), []))
        return read_cells(path, 0 if header else None)
    except (ValueError, OSError, csv.Error, pd.errors.ParserWarning) as error:  # pandas' parser errors are ValueErrors
        raise DataError(
            f"{path} cannot be read as .csv: {str(error).strip()}", "Write comma-separated numbers, one row per frame, UTF-8."
        ) from error


def read_cells(path: Path, header: int | None = 0) -> pd.DataFrame:
    """The table in ``path``, cells as text. pandas' errors, and a ParserWarning raised where rows have more cells than the header:
    pandas by itself takes the first column for row names then, and all others move by one."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            return pd.read_csv(path, dtype=str, keep_default_na=False, header=header, index_col=False, encoding="utf-8-sig")
        except pd.errors.ParserWarning:
            raise pd.errors.ParserWarning("its rows have more cells than its first line") from None


def numbers(table: pd.DataFrame, path: Path) -> np.ndarray:
    """The columns of ``table`` that are features, (rows, columns), NaN where a cell is empty; DataError naming the first other text."""
    names = [str(column).strip() for column in table]
    features = [place for place, name in enumerate(names) if name.lower() not in BOOKKEEPING]
    cells = table.to_numpy(dtype=object)[:, features]
    cells[np.isin(cells.astype(str), MISSING)] = "nan"
    try:
        return cells.astype(np.float64)
    except ValueError:
        row, column = next((row, column) for row, column in np.ndindex(*cells.shape) if not _is_number(str(cells[row, column])))
        raise DataError(
            f"{path}: row {row + 1}, column '{names[features[column]]}' holds {cells[row, column]!r}", "Numbers only."
        ) from None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _array(path: Path) -> np.ndarray:
    try:
        with open(path, "rb") as file:
            return np.asarray(np.load(file, allow_pickle=False))
    except Exception as error:  # a damaged or foreign file fails in the header or in the values
        raise DataError(
            f"{path} cannot be read as .npy: {type(error).__name__}: {error}", "Write it with numpy.save, an array of numbers."
        ) from error
