"""Facial action units from the tables that OpenFace 2 writes, one .csv per film with a row per frame."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from harness.data.features.base import Clip, Extractor, Modality, Reads, extractors
from harness.data.sources.featurefiles import numbers, read_table
from harness.errors import ConfigError, DataError

UNITS = ("01", "02", "04", "05", "06", "07", "09", "10", "12", "14", "15", "17", "20", "23", "25", "26", "45")
INTENSITY = tuple(f"AU{unit}_r" for unit in UNITS)  # 17, from 0 to 5
PRESENCE = tuple(f"AU{unit}_c" for unit in (*UNITS[:-1], "28", "45"))  # 18, 0 or 1
COLUMNS = {"both": (*INTENSITY, *PRESENCE), "intensity": INTENSITY, "presence": PRESENCE}


@extractors.register("openface")
class OpenFace(Extractor):
    """Action units of every frame as OpenFace 2 found them: 17 intensities (0 to 5), then 18 presences (0 or 1).

    Read from the table that carries the name of the clip's film or sound file, or the clip's id, and ends in .csv: in ``folder``, or
    else beside that file. Columns are found by their names (AU01_r, ...), with or without the blanks that OpenFace writes before them.
    Baltrusaitis et al. 2018. OpenFace itself is not run.
    """

    name: ClassVar[str] = "openface"
    modality: ClassVar[Modality] = "vision"
    reads: ClassVar[Reads] = "video"
    wants: ClassVar[str] = "table of OpenFace (.csv, named like the clip's film, sound or id)"
    nothing: ClassVar[str] = "no frame shows a face"

    folder: Path | None = Field(None, description="where the tables lie, at any depth; default: beside each clip's file")
    units: Literal["both", "intensity", "presence"] = Field("both", description="both, or the 17 intensities or the 18 presences alone")
    seconds: float | None = Field(None, gt=0, description="cut out the middle, or fill up with zeros at the end; none: the whole table")
    rate: float | None = Field(None, gt=0, description="frames per second, which ``seconds`` needs; none: by the table's timestamps")
    failed: Literal["zero", "previous", "drop"] = Field(
        "zero", description="frames in which OpenFace lost the face: zeros, which the card counts; the frame before; or left out"
    )

    def source(self, clip: Clip) -> Path | None:
        """The clip's table, or None if there is none. ConfigError if ``folder`` is none."""
        files = [file for file in (clip.video, clip.audio) if file is not None]
        stems = list(dict.fromkeys([*(file.stem for file in files), clip.id]))
        if self.folder is not None:
            tables = _tables(self.folder)
            return next((tables[stem] for stem in stems if stem in tables), None)
        beside = (file.with_name(f"{stem}.csv") for file in files for stem in stems)
        return next((table for table in beside if table.is_file()), None)

    def recipe(self) -> dict[str, Any]:
        recipe = super().recipe()
        return {**recipe, "settings": {key: value for key, value in recipe["settings"].items() if key != "folder"}}

    def extract(self, source: Path | str) -> np.ndarray:
        """(frames, 35, 17 or 18) float32. DataError if the table cannot be read, lacks action units, or timestamps that are needed."""
        path = Path(source)
        values, seen = read_units(path, COLUMNS[self.units])
        if self.seconds is None:
            return self._mended(values, seen)
        count = max(1, round(self.seconds * (self.rate or read_rate(path))))
        start = max(0, (len(values) - count) // 2)
        found = self._mended(values[start : start + count], seen[start : start + count])
        return np.pad(found, ((0, count - len(found)), (0, 0))) if len(found) else found

    def _mended(self, values: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """Frames without a face treated as ``failed`` says."""
        if self.failed == "previous":
            return _carried(values, seen)
        if self.failed == "drop":
            return np.compress(seen, values, axis=0)
        values[~seen] = np.nan  # set to zero and counted where all features are
        return values


def read_units(path: Path, columns: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Values (frames, columns) float32, and per frame whether OpenFace had the face (``success``; without that column: always).

    Where a frame has several faces, the one found with the highest confidence counts. DataError if it is no such table.
    """
    table = read_table(path, header=True)
    table.columns = table.columns.astype(str).str.strip()
    missing = [column for column in columns if column not in table]
    if missing:
        raise DataError(
            f"{path} has no column {', '.join(missing[:3])}" + (f" and {len(missing) - 3} more" if len(missing) > 3 else ""),
            "A table of OpenFace 2 is needed, written with action units (FeatureExtraction -aus). OpenFace 3 names others.",
        )
    table = _one_face(table, path)
    seen = (
        np.ones(len(table), dtype=bool) if "success" not in table else numbers(table[["success"]].set_axis(["v"], axis=1), path)[:, 0] == 1
    )
    values = numbers(table[list(columns)], path).astype(np.float32)
    return values, seen & np.isfinite(values).all(axis=1)


def read_rate(path: Path) -> float:
    """Frames per second by the mean step of the table's timestamps; DataError where it has none that rise."""
    table = read_table(path, header=True)
    table.columns = table.columns.astype(str).str.strip()
    if "timestamp" in table:
        times = np.unique(numbers(table[["timestamp"]].set_axis(["v"], axis=1), path)[:, 0])
        if len(times) > 1 and np.isfinite(times).all():
            return float((len(times) - 1) / (times[-1] - times[0]))
    raise DataError(f"{path} has no timestamps that tell its frame rate", "Set openface.rate to the film's frames per second.")


def _one_face(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    if "frame" not in table or "confidence" not in table or not table["frame"].duplicated().any():
        return table
    keys = numbers(table[["frame", "confidence"]].set_axis(["f", "c"], axis=1), path)
    order = np.lexsort((-keys[:, 1], keys[:, 0]))
    first = np.flatnonzero(np.diff(keys[order, 0], prepend=-np.inf) != 0)
    return table.iloc[order[first]]


def _carried(values: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """``values`` with the last seen frame in place of those not seen; before the first one, the first."""
    if not seen.any():
        return values[:0]
    last = np.maximum.accumulate(np.where(seen, np.arange(len(seen)), -1))
    result: np.ndarray = values[np.where(last < 0, int(seen.argmax()), last)]
    return result


@lru_cache(maxsize=4)
def _tables(folder: Path) -> dict[str, Path]:
    """Name without ending -> file, of the tables below ``folder``."""
    found = {path.stem: path for path in sorted(folder.rglob("*.csv"), reverse=True)}
    if not found:
        raise ConfigError(f"openface.folder = {folder} holds no .csv file", "Name the folder that holds OpenFace's tables, unpacked.")
    return found
