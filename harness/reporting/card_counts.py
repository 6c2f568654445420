"""What the histograms of a data card show, as plain counts: the text and the picture draw the same ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from harness.data.schema import SPLITS, Dataset

BINS = 10  # of a histogram of lengths, at most


@dataclass(frozen=True)
class Bars:
    """Bars of one panel: ``counts`` has a row of as many numbers as there are ``names``, in general one row per split."""

    title: str
    names: tuple[str, ...]
    counts: dict[str, tuple[int, ...]]


def sizes(dataset: Dataset) -> Bars:
    """Clips and groups of every split."""
    card = dataset.card
    splits = tuple(card.clips)
    counts = {"clips": card.clips, "groups": card.groups}
    return Bars("size", splits, {name: tuple(found.get(split, 0) for split in splits) for name, found in counts.items()})


def labels(dataset: Dataset) -> Bars:
    """Clips per label of every split; intensities are rounded to whole numbers."""
    found = dataset.card.labels
    names = tuple(dict.fromkeys(name for counts in found.values() for name in counts))
    return Bars("label", names, {split: tuple(counts.get(name, 0) for name in names) for split, counts in found.items()})


def lengths(dataset: Dataset) -> list[Bars]:
    """Per modality: clips per range of frames, in at most ``BINS`` ranges of equal width, of every split."""
    return [_lengths(dataset, modality) for modality in dataset.features]


def missing(dataset: Dataset) -> Bars:
    """Clips without frames of each modality; without transcript, sound or film, where others have one."""
    found = {f"{modality} frames": card.empty_clips for modality, card in dataset.card.modalities.items()}
    texts = dataset.clips["text"].astype(str).str.strip() != ""
    media = {kind: np.array([path is not None for path in dataset.media(kind)]) for kind in ("audio", "video")}
    there = {"transcript": texts.to_numpy(), "sound file": media["audio"], "film": media["video"]}
    found |= {name: int((~mask).sum()) for name, mask in there.items() if mask.any()}
    return Bars("clips without", tuple(found), {"clips": tuple(found.values())})


def _lengths(dataset: Dataset, modality: str) -> Bars:
    frames = dataset.features[modality].lengths.numpy()
    low, high = int(frames.min()), int(frames.max())
    width = -(-(high - low + 1) // BINS)
    starts = range(low, high + 1, width)
    place = (frames - low) // width
    split = dataset.clips["split"].to_numpy()
    counts = {name: np.bincount(place[split == name], minlength=len(starts)) for name in _present(split)}
    return Bars(
        f"{modality}, frames per clip", tuple(_ranges(starts, width)), {name: tuple(found.tolist()) for name, found in counts.items()}
    )


def _ranges(starts: Sequence[int], width: int) -> Iterator[str]:
    for start in starts:
        yield str(start) if width == 1 else f"{start}-{start + width - 1}"


def _present(split: np.ndarray) -> list[str]:
    return [name for name in SPLITS if (split == name).any()]
