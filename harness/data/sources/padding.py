"""Padded arrays (clips, steps, features): which steps are real, and on which side the zeros are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from harness.data.unpickle import release

CHUNK = 256  # clips whose steps are compared with zero at a time

Arrays = Mapping[str, np.ndarray]  # modality -> (clips, steps, features)
Spans = Mapping[str, tuple[np.ndarray, np.ndarray]]


class Real(NamedTuple):
    """Real frames per clip by modality, and in words how their lengths were found."""

    frames: dict[str, list[np.ndarray]]
    notes: dict[str, str]


def trailing_zeros_off(array: np.ndarray) -> np.ndarray:
    """Steps of each clip up to the last that is not all zeros, (clips, steps, features) -> (clips,).

    NaN and infinities are not zero: they are missing values inside the clip.
    """
    return span(array)[1]


def span(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First step of each clip that is not all zeros, and the one after the last: (clips,) each, both 0 where all are zero."""
    parts = [_span(array[start : start + CHUNK]) for start in range(0, len(array), CHUNK)]
    if not parts:
        return np.zeros(0, dtype=int), np.zeros(0, dtype=int)
    first, end = (np.concatenate(part) for part in zip(*parts, strict=True))
    return first, end


def _span(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    real = (array != 0).any(axis=2)
    some = real.any(axis=1)
    release(array)
    first = np.where(some, real.argmax(axis=1) if real.shape[1] else 0, 0)
    end = np.where(some, real.shape[1] - real[:, ::-1].argmax(axis=1) if real.shape[1] else 0, 0)
    return first, end


def unpad(splits: Sequence[Arrays]) -> Real:
    """The real frames of the clips of all ``splits``, one after the other.

    The zeros of a modality are on one side in the whole file: the one on which more clips have some. A modality of as many
    steps as the text is aligned with it: both share the side and, clip by clip, the widest span of real steps. Zeros on
    the other side and inside are data.
    """
    names = list(splits[0]) if splits else []
    frames: dict[str, list[np.ndarray]] = {}
    notes: dict[str, str] = {}
    for group in _aligned(splits, names):
        spans = [{name: span(arrays[name]) for name in group} for arrays in splits]
        front = _front(splits, spans)
        for name in group:
            frames[name] = [part for arrays, found in zip(splits, spans, strict=True) for part in _cut(arrays[name], found, front)]
            shared = f", the widest span of {', '.join(group)}" if len(group) > 1 else ""
            notes[f"{name} lengths"] = f"{'leading' if front else 'trailing'} zeros off{shared}"
    return Real({name: frames[name] for name in names}, notes)


def _aligned(splits: Sequence[Arrays], names: Sequence[str]) -> list[list[str]]:
    """Modalities that share their steps: those as long as the text in every split; each other one by itself."""
    with_text = [n for n in names if "text" in names and all(arrays[n].shape[1] == arrays["text"].shape[1] for arrays in splits)]
    return ([with_text] if with_text else []) + [[name] for name in names if name not in with_text]


def _front(splits: Sequence[Arrays], spans: Sequence[Spans]) -> bool:
    """Whether more clips begin with zeros than end with them."""
    before = after = 0
    for arrays, found in zip(splits, spans, strict=True):
        for name, (first, end) in found.items():
            some = end > 0
            before += int((first > 0).sum())
            after += int((end[some] < arrays[name].shape[1]).sum())
    return before > after


def _cut(array: np.ndarray, spans: Spans, front: bool) -> list[np.ndarray]:
    """Each clip's real steps, as views."""
    first, end = _widest(spans)
    if front:
        return [clip[start:] if stop else clip[:0] for clip, start, stop in zip(array, first.tolist(), end.tolist(), strict=True)]
    return [clip[:stop] for clip, stop in zip(array, end.tolist(), strict=True)]


def _widest(spans: Spans) -> tuple[np.ndarray, Any]:
    """Over modalities: the earliest first step of those that have any, and the latest end."""
    end = np.max([stop for _, stop in spans.values()], axis=0)
    first = np.min([np.where(stop > 0, start, np.iinfo(int).max) for start, stop in spans.values()], axis=0)
    return np.where(end > 0, first, 0), end
