"""From raw arrays to a checked data set with its card: the one way in, for every source and for simulated data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from harness.data.catalogue import Facts
from harness.data.schema import CLIP_COLUMNS, MODALITIES, MORE_COLUMNS, SPLITS, Card, Dataset, ModalityCard, Ragged, Source, Task
from harness.data.unpickle import release
from harness.errors import DataError
from harness.registry import suggest

CHUNK = 256  # clips copied at a time

Frames = Sequence[np.ndarray] | Ragged  # per clip (frames, dim); see ``Bytes``


class Bytes(Sequence[np.ndarray]):
    """Frames whose bytes are pixels, a byte standing for a 255th of it: they are stored as they are. Other whole numbers become
    float32."""


def assemble(
    *,
    name: str,
    facts: Facts,
    clips: pd.DataFrame,
    features: Mapping[str, Frames],
    source: Source,
    simulated: bool = False,
    best_possible: Mapping[str, float] | None = None,
    media_root: Path | None = None,
    notices: Sequence[str] = (),
) -> Dataset:
    """The data set ``name`` of ``clips`` (id, group, split, label; where known text, fold, audio and video: files below
    ``media_root``) and ``features``, in the same order. Without features there must be media files.

    NaN and infinities become 0, a clip without frames gets one frame of zeros; both are counted on the card. ``notices``,
    what a reader should know of the files, stand on the card; harness.data.checks looks for the rest. Raises DataError for
    what cannot be used: no clips, no features, a repeated id, an unknown split, a label that the task does not allow,
    features of another number of clips, of changing width or not numeric.
    """
    where = ", ".join(source.files) or name
    table = _clips(clips, facts.task, where)
    if not features and media_root is None:
        raise DataError(f"{where} gives no features for any of {', '.join(MODALITIES)}", "Import at least one modality.")
    unknown = [modality for modality in features if modality not in MODALITIES]
    if unknown:
        raise DataError(f"{where}: there is no modality '{unknown[0]}'", suggest(unknown[0], MODALITIES))
    built = {m: _modality(m, features[m], table["id"].tolist(), where) for m in MODALITIES if m in features}
    card = Card(
        name=name,
        dataset=facts.name,
        title=facts.title,
        simulated=simulated,
        task=facts.task,
        metrics=facts.metrics,
        modalities={modality: card for modality, (_, card) in built.items()},
        clips=_per_split(table, "id"),
        groups=_per_split(table, "group"),
        labels={split: _histogram(part["label"], facts.task) for split, part in _by_split(table).items()},
        source=source,
        licence="" if simulated else facts.licence,
        citation="" if simulated else facts.citation,
        warnings=tuple(notices),
        best_possible=dict(best_possible or {}),
    )
    return Dataset(card, table, {modality: ragged for modality, (ragged, _) in built.items()}, media_root)


def _clips(clips: pd.DataFrame, task: Task, where: str) -> pd.DataFrame:
    """The checked table of clips with the columns ``CLIP_COLUMNS``, then those of ``MORE_COLUMNS`` that ``clips`` has."""
    missing = [column for column in CLIP_COLUMNS if column != "text" and column not in clips]
    if missing:
        raise DataError(f"{where}: the clips have no {' and no '.join(missing)}", f"Needed: {', '.join(CLIP_COLUMNS[:-1])}.")
    if not len(clips):
        raise DataError(f"{where} holds no clips", "Check that it is the right file and that its splits are not empty.")
    table = pd.DataFrame({column: _strings(clips, column, where) for column in ("id", "group", "split")})
    _check_ids(table, where)
    _check_splits(table, where)
    table["label"] = _labels(clips["label"], table["id"], task, where)
    table["text"] = clips["text"].fillna("").astype(str).to_numpy() if "text" in clips else ""
    for column in (column for column in MORE_COLUMNS if column in clips):
        table[column] = _strings(clips, column, where) if column == "fold" else clips[column].fillna("").astype(str).to_numpy()
    return table


def _strings(clips: pd.DataFrame, column: str, where: str) -> np.ndarray:
    values = clips[column].reset_index(drop=True)
    empty = np.flatnonzero(values.isna() | (values.astype(str) == ""))
    if len(empty):
        raise DataError(f"{where}: {len(empty)} clips have no {column}, the first is number {empty[0] + 1}", "Fill it in.")
    return values.astype(str).to_numpy()


def _check_ids(table: pd.DataFrame, where: str) -> None:
    repeated = table[table["id"].duplicated(keep=False)]
    if not len(repeated):
        return
    clip = repeated["id"].iloc[0]
    splits = table.loc[table["id"] == clip, "split"].unique()
    place = f"in {' and in '.join(splits)}" if len(splits) > 1 else f"more than once in {splits[0]}"
    raise DataError(
        f"{where}: clip '{clip}' is {place} ({repeated['id'].nunique()} such ids)",
        "Each clip must have an id of its own and lie in one split: training and test would share it.",
    )


def _check_splits(table: pd.DataFrame, where: str) -> None:
    wrong = table[~table["split"].isin(SPLITS)]
    if len(wrong):
        clip, split = wrong.iloc[0][["id", "split"]]
        raise DataError(
            f"{where}: clip '{clip}' has the split '{split}' ({len(wrong)} clips with unknown splits)", f"Allowed: {', '.join(SPLITS)}."
        )


def _labels(labels: pd.Series, ids: pd.Series, task: Task, where: str) -> np.ndarray:
    """Intensities as float32 in [low, high], or classes as int64."""
    values = np.array([_number(label) for label in labels])
    low, high = (task.low, task.high) if task.kind == "regression" else (0, len(task.classes) - 1)
    good = (values >= low) & (values <= high)
    allowed = f"numbers from {low:g} to {high:g}"
    if task.kind == "classification":
        good &= values == np.round(values)
        allowed = ", ".join(f"{index} ({label})" for index, label in enumerate(task.classes))
    if not good.all():
        first = int(np.flatnonzero(~good)[0])
        found = labels.iloc[first]
        found = found.item() if isinstance(found, np.generic) else found
        raise DataError(
            f"{where}: clip '{ids.iloc[first]}' has the label {found!r} ({(~good).sum()} clips with such labels)",
            f"Allowed: {allowed}.",
        )
    return values.astype(np.float32 if task.kind == "regression" else np.int64)


def _number(value: Any) -> float:
    """``value`` as a number, NaN if it is no real one."""
    try:
        return float("nan") if np.iscomplexobj(value) else float(value)
    except (OverflowError, TypeError, ValueError):
        return float("nan")


def _modality(name: str, frames: Frames, ids: list[str], where: str) -> tuple[Ragged, ModalityCard]:
    """One modality's frames in one array, cleaned, and its card."""
    parts = _parts(frames)
    if len(parts) != len(ids):
        raise DataError(f"{where}: {name} has {len(parts)} clips, the labels have {len(ids)}", "Both must list the same clips.")
    dim = _width(name, parts, ids, where)
    real = np.array([len(part) for part in parts])
    lengths = np.maximum(real, 1)
    offsets = np.concatenate([[0], lengths.cumsum()])
    values = np.zeros((offsets[-1], dim), dtype=np.uint8 if _are_pixels(frames) else np.float32)
    replaced = sum(_fill(values, parts[i : i + CHUNK], offsets[i:]) for i in range(0, len(parts), CHUNK))
    ragged = Ragged(torch.from_numpy(values), torch.from_numpy(offsets.astype(np.int64)))
    card = ModalityCard(
        dim=dim,
        picture=ragged.picture,
        frames=len(values),
        shortest=lengths.min(),
        mean_length=lengths.mean(),
        longest=lengths.max(),
        nonfinite_replaced=replaced,
        empty_clips=int((real == 0).sum()),
    )
    return ragged, card


def _fill(values: np.ndarray, parts: Sequence[np.ndarray], offsets: np.ndarray) -> int:
    """Copy ``parts`` into ``values`` from ``offsets`` on, 0 for what is not finite; how many values those were."""
    replaced = 0
    for part, start in zip(parts, offsets.tolist(), strict=False):
        target = values[start : start + len(part)]
        with np.errstate(over="ignore", invalid="ignore"):  # a double too large for a float is infinite, and counted
            target[:] = part
        if target.dtype == np.float32 and not np.isfinite(target).all():
            bad = ~np.isfinite(target)
            replaced += int(bad.sum())
            target[bad] = 0
    release(parts[0])  # of a mapped file, only the copy stays in memory
    return replaced


def _are_pixels(frames: Frames) -> bool:
    return isinstance(frames, Bytes) or (isinstance(frames, Ragged) and frames.values.dtype == torch.uint8)


def _parts(frames: Frames) -> Sequence[np.ndarray]:
    if not isinstance(frames, Ragged):
        return frames
    return np.split(frames.values.numpy(), frames.offsets[1:-1].numpy())


def _width(name: str, parts: Sequence[np.ndarray], ids: list[str], where: str) -> int:
    """Features per frame, the same in every clip."""
    for clip, part in zip(ids, parts, strict=True):
        if part.dtype.kind not in "fiub":
            raise DataError(f"{where}: {name} of clip '{clip}' is of type {part.dtype}", "Features must be real numbers.")
        if part.ndim != 2 or part.shape[1] != parts[0].shape[-1] or not part.shape[1]:
            raise DataError(
                f"{where}: {name} of clip '{clip}' has the shape {part.shape}",
                f"Each clip must be (frames, features) with the same number of features, here {parts[0].shape[-1]}.",
            )
    return int(parts[0].shape[1])


def _by_split(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The splits that have clips, in the order of ``SPLITS``."""
    return {split: part for split in SPLITS if len(part := table[table["split"] == split])}


def _per_split(table: pd.DataFrame, column: str) -> dict[str, int]:
    return {split: part[column].nunique() for split, part in _by_split(table).items()}


def _histogram(labels: pd.Series, task: Task) -> dict[str, int]:
    """Clips per class; intensities are rounded to the nearest whole number (half to even) within [low, high]."""
    if task.kind == "classification":
        return {label: int((labels == index).sum()) for index, label in enumerate(task.classes)}
    rounded = Counter(np.clip(np.round(labels.to_numpy()), task.low, task.high).astype(int).tolist())
    return {str(value): rounded[value] for value in range(int(np.ceil(task.low)), int(np.floor(task.high)) + 1)}
