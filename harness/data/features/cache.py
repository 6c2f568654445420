"""Extracted features on disk, one file per content and recipe: ``ROOT/.features/EXTRACTOR/RECIPE/CONTENT.npy``.

``CONTENT`` is the SHA-256 of the media file (or transcript), ``RECIPE`` the beginning of that of all else that decides the numbers,
which ``recipe.json`` spells out. So a file that is moved or renamed is known again, and one that changes is not.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.data.features.base import Extractor
from harness.errors import DataError
from harness.files import write_atomic

FOLDER, PARTS = ".features", ".parts"


@dataclass(frozen=True)
class Shelf:
    """Where one recipe's entries lie, and where what is not finished is written."""

    folder: Path
    parts: Path

    def entry(self, source: Path | str) -> Path:
        """The place of a source's features; OSError if the file cannot be read."""
        return self.folder / f"{_content(source)}.npy"

    def put(self, entry: Path, frames: np.ndarray) -> None:
        """Store ``frames`` whole or not at all, whoever else stores the same at the same time."""
        part = self.parts / f"{os.getpid()}.npy"
        with open(part, "wb") as file:
            np.save(file, frames, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, entry)


def kept(entry: Path) -> bool:
    """Whether ``entry`` is there and whole."""
    try:
        np.load(entry, mmap_mode="r", allow_pickle=False)
    except Exception:  # whatever is wrong with a cache file, the answer is the same: it is computed again
        return False
    return True


def empty(entry: Path) -> bool:
    """Whether ``entry`` has no frame, or no value that is a number."""
    found = np.load(entry, mmap_mode="r", allow_pickle=False)
    return not len(found) or not (np.isfinite(found[0]).any() or np.isfinite(found).any())


def fetch(entry: Path) -> np.ndarray:
    """The features in ``entry``, (frames, dim) float32."""
    found: np.ndarray = np.load(entry, allow_pickle=False)
    return found


@contextmanager
def opened(root: Path) -> Iterator[Path]:
    """The cache of the store ``root`` for one extraction at a time; what a killed one left half-written is removed.

    DataError if another extraction is at work there, or the disk refuses.
    """
    folder = root / FOLDER
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / ".lock", "w")  # noqa: SIM115
    with lock:
        with _writing(folder):
            _lock(lock.fileno(), folder)
            shutil.rmtree(folder / PARTS, ignore_errors=True)
            (folder / PARTS).mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder / PARTS, ignore_errors=True)


def shelf(cache: Path, extractor: Extractor) -> Shelf:
    """The place of this extractor's results with these settings and libraries."""
    recipe = json.dumps(extractor.recipe(), sort_keys=True, indent=2)
    folder = cache / extractor.name / hashlib.sha256(recipe.encode()).hexdigest()[:16]
    if not (folder / "recipe.json").exists():
        with _writing(folder):
            write_atomic(folder / "recipe.json", recipe.encode() + b"\n")
    return Shelf(folder, cache / PARTS)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{folder} could not be written: {error}", "Free some space or set MER_DATA to another folder.") from error


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise DataError(f"another extraction is writing to {folder}", "Wait until it has ended.") from None


def _content(source: Path | str) -> str:
    if isinstance(source, str):
        return hashlib.sha256(source.encode()).hexdigest()
    with open(source, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
