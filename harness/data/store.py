"""Data sets on disk: ``ROOT/NAME/`` holds features.safetensors, clips.parquet and card.json, whole or not at all.

Where clips have media files, ``media_root`` holds the folder in which they lie: edit it if you move them.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from harness.data.pages import mapped
from harness.data.schema import CLIP_COLUMNS, MORE_COLUMNS, Card, Dataset, Ragged
from harness.errors import DataError
from harness.files import sync_folder
from harness.registry import suggest

FEATURES, CLIPS, CARD, MEDIA = "features.safetensors", "clips.parquet", "card.json", "media_root"
NAME = re.compile(r"[A-Za-z0-9][\w.+-]*(@[A-Za-z0-9][\w.+-]*)?")

T = TypeVar("T")


def data_root() -> Path:
    """Where imported data sets lie: ``$MER_DATA``, else ``data`` in the current folder."""
    return Path(os.environ.get("MER_DATA") or "data")


def save(dataset: Dataset, root: Path) -> Dataset:
    """Store ``dataset`` under its card's name, in place of an older one, and open what was stored.

    The card gets its fingerprint here. A crash leaves the old data set or the new one, never a mixture. DataError
    if the name cannot be a folder's or the disk refuses; what was there before is then untouched.
    """
    name = _checked(dataset.card.name)
    whole = replace(dataset, card=dataset.card.model_copy(update={"fingerprint": fingerprint(dataset)}))
    fresh, place, aside = (root / part for part in (f".{name}.new", name, f".{name}.old"))
    try:
        with _one_writer(root):
            shutil.rmtree(fresh, ignore_errors=True)  # what a killed import left
            _write(whole, fresh)
            _swap(fresh, place, aside)
            return load(name, root)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(fresh, ignore_errors=True)
        raise DataError(f"{place} could not be written: {error}", "Free some space or set MER_DATA to another folder.") from error


def load(name: str, root: Path, *, verify: bool = False) -> Dataset:
    """The stored data set ``name``, its features mapped from the file and shared between processes.

    DataError if it is missing, or damaged in a way that sizes and types show; ``verify`` reads every value and
    compares with the card's fingerprint.
    """
    folder = root / _checked(name)
    if not (folder / CARD).is_file() and name not in names(root):
        raise DataError(
            f"no data set '{name}' is stored in {root}",
            f"{suggest(name, names(root))} Import it: harness data import {name.partition('@')[0]} FILE.",
        )
    card = _part(folder / CARD, lambda path: Card.model_validate_json(path.read_bytes()))
    clips = _part(folder / CLIPS, pd.read_parquet)
    features = _part(folder / FEATURES, _map)
    media = _part(folder / MEDIA, lambda path: Path(path.read_text(encoding="utf-8").rstrip("\n"))) if (folder / MEDIA).exists() else None
    dataset = Dataset(card.model_copy(update={"name": name}), clips, {m: features[m] for m in card.modalities if m in features}, media)
    fault = _disagreement(dataset, set(features))
    if not fault and verify and fingerprint(dataset) != card.fingerprint:
        fault = "the values are not those that were stored"
    if fault:
        raise DataError(f"{folder} is damaged: {fault}", "Import the data set again.")
    return replace(dataset, card=dataset.card.model_copy(update={"transcripts": _transcripts(clips)}))


def stamp(name: str, root: Path) -> tuple[tuple[str, int, int, int], ...]:
    """What changes when ``load`` would find something else: name, inode, size and time of each file of a data set."""
    with suppress(OSError):
        found = ((entry.name, entry.stat()) for entry in os.scandir(root / _checked(name)))
        return tuple(sorted((file, at.st_ino, at.st_size, at.st_mtime_ns) for file, at in found))
    return ()


def names(root: Path) -> tuple[str, ...]:
    """Names of the stored data sets, sorted."""
    _mend(root)
    return tuple(sorted(card.parent.name for card in root.glob(f"*/{CARD}") if NAME.fullmatch(card.parent.name)))


def resolve(name: str, root: Path) -> str | None:
    """The stored data set that ``name`` means, or None.

    ``mosi@minilm`` means itself. ``mosi`` means the one stored as ``mosi``, else the only real variant ``mosi@...``,
    else a simulated one. Raises DataError that names the choices if there are several real variants.
    """
    stored = names(root)
    if name in stored:
        return name
    variants = [other for other in stored if other.startswith(f"{name}@")]
    real = [variant for variant in variants if not _simulated(root / variant)]
    if len(real) > 1:
        raise DataError(f"'{name}' could be {' or '.join(real)}: several imports of it are stored in {root}", "Write which one is meant.")
    return next(iter(real or variants), None)


def fingerprint(dataset: Dataset) -> str:
    """SHA-256 over task, clips (id, group, split, label and fold if there is one, in order) and every modality's lengths and values.

    It depends on nothing else: not on name, transcript, media paths, source, file format, library versions or dictionary order.
    """
    task = dataset.card.task
    digest = hashlib.sha256(json.dumps([task.kind, task.low, task.high, list(task.classes)]).encode())
    for column in ("id", "group", "split", *(["fold"] if "fold" in dataset.clips else [])):
        digest.update(json.dumps([str(value) for value in dataset.clips[column]]).encode())
    digest.update(dataset.clips["label"].to_numpy(dtype="<f8").tobytes())
    for name, ragged in sorted(dataset.features.items()):
        digest.update(json.dumps([name, ragged.dim, len(ragged.values)]).encode())
        digest.update(ragged.lengths.numpy().astype("<i8").tobytes())
        pixels = ragged.values.dtype == torch.uint8
        digest.update(b"bytes" if pixels else b"")
        digest.update(np.ascontiguousarray(ragged.values.numpy(), dtype="u1" if pixels else "<f4").data)
    return digest.hexdigest()


def _transcripts(clips: pd.DataFrame) -> str:
    """The fingerprint leaves transcripts out, since few trials read them; those that do add this to their key."""
    texts = [str(text) for text in clips["text"]]
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest() if any(map(str.strip, texts)) else ""


def _checked(name: str) -> str:
    if not NAME.fullmatch(name):
        raise DataError(f"'{name}' cannot be the name of a data set", "Write NAME or NAME@VARIANT of letters, digits and . _ + -.")
    return name


@contextmanager
def _one_writer(root: Path) -> Iterator[None]:
    root.mkdir(parents=True, exist_ok=True)
    with open(root / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write(dataset: Dataset, folder: Path) -> None:
    folder.mkdir()
    tensors = {f"{name}.values": ragged.values.contiguous() for name, ragged in dataset.features.items()}
    tensors |= {f"{name}.offsets": ragged.offsets.contiguous() for name, ragged in dataset.features.items()}
    save_file(tensors, folder / FEATURES)
    dataset.clips.to_parquet(folder / CLIPS, index=False)
    if dataset.media_root is not None:
        (folder / MEDIA).write_text(f"{dataset.media_root}\n", encoding="utf-8")
    (folder / CARD).write_text(dataset.card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    for path in folder.iterdir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    sync_folder(folder)


def _swap(fresh: Path, place: Path, aside: Path) -> None:
    """Put ``fresh`` in ``place``. Processes that have the old files mapped keep reading those."""
    if place.exists():
        shutil.rmtree(aside, ignore_errors=True)
        place.rename(aside)
    try:
        fresh.rename(place)
    except OSError:
        if aside.exists():
            aside.rename(place)
        raise
    sync_folder(place.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _mend(root: Path) -> None:
    """Put back data sets that a crash left aside: it struck when the old one was out of place and the new one not yet in it."""
    if not any(map(_stranded, root.glob(".*.old"))):
        return
    with suppress(OSError), _one_writer(root):  # with the lock, no other process is just about to replace one
        for aside in filter(_stranded, root.glob(".*.old")):
            aside.rename(aside.with_name(_name(aside)))


def _stranded(aside: Path) -> bool:
    return aside.with_name(f".{_name(aside)}.new").exists() and not aside.with_name(_name(aside)).exists()


def _name(aside: Path) -> str:
    return aside.name[1 : -len(".old")]


def _part(path: Path, read: Callable[[Path], T]) -> T:
    try:
        return read(path)
    except Exception as error:  # each library has exceptions of its own for a damaged file
        raise DataError(f"{path} is missing or damaged: {type(error).__name__}: {error}", "Import the data set again.") from error


def _map(path: Path) -> dict[str, Ragged]:
    arrays, pages = mapped(path)
    modalities = [key.removesuffix(".values") for key in arrays if key.endswith(".values")]
    return {name: Ragged(arrays[f"{name}.values"], arrays[f"{name}.offsets"], pages=pages) for name in modalities}


def _disagreement(dataset: Dataset, stored: set[str]) -> str:
    """What does not fit between card, clips and features; empty if all is well."""
    columns = (*CLIP_COLUMNS, *(column for column in MORE_COLUMNS if column in dataset.clips))
    if tuple(dataset.clips.columns) != columns:
        return f"{CLIPS} has the columns {', '.join(dataset.clips.columns)} instead of {', '.join(columns)}"
    if dataset.clips["split"].value_counts().to_dict() != {split: n for split, n in dataset.card.clips.items() if n}:
        return f"{CLIPS} does not hold the clips that {CARD} counts"
    if stored != set(dataset.card.modalities):
        return f"{FEATURES} holds {', '.join(sorted(stored))}, {CARD} says {', '.join(dataset.card.modalities)}"
    wrong = [name for name, ragged in dataset.features.items() if not _fits(dataset, name, ragged)]
    return f"{FEATURES}: the frames of {', '.join(wrong)} do not fit {CLIPS} and {CARD}" if wrong else ""


def _fits(dataset: Dataset, name: str, ragged: Ragged) -> bool:
    card, values, offsets = dataset.card.modalities[name], ragged.values, ragged.offsets
    return (
        values.dtype in (torch.float32, torch.uint8)
        and offsets.dtype == torch.int64
        and values.shape == (card.frames, card.dim)
        and offsets.shape == (len(dataset) + 1,)
        and (int(offsets[0]), int(offsets[-1])) == (0, card.frames)
        and bool((ragged.lengths >= 1).all())
    )


def _simulated(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / CARD).read_bytes())["simulated"])
    except (OSError, ValueError, KeyError, TypeError):
        return False  # damaged: let whoever loads it be told
