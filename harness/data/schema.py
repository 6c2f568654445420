"""What a data set is to the engine: ragged features, a table of clips, a card.

Per modality all frames of all clips lie in one contiguous array; offsets say where a clip begins.
Every clip has at least one frame in every modality the data set has (importers see to it and count it).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isqrt
from pathlib import Path
from typing import Literal

import pandas as pd
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from harness.data.pages import Pages

MODALITIES = ("text", "audio", "vision")
SPLITS = ("train", "valid", "test")
CHUNK = 64  # clips that are read at a time where all are read: as numbers they would be most of a worker's memory
CLIP_COLUMNS = ("id", "group", "split", "label", "text")
MORE_COLUMNS = ("fold", "audio", "video")  # where known: name of the published fold; media files, below Dataset.media_root


class Frozen(BaseModel):
    """Base of the records that are written to disk: immutable, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Task(Frozen):
    """What is predicted: a sentiment intensity in [low, high], or one of ``classes``."""

    kind: Literal["regression", "classification"]
    low: float = 0.0
    high: float = 0.0
    classes: tuple[str, ...] = ()

    @property
    def outputs(self) -> int:
        """Width of a model's last layer."""
        return len(self.classes) if self.kind == "classification" else 1


class Picture(Frozen):
    """What one frame of pixels is: a square, its pixels line by line, of each its channels: 1 (grey) or 3 (red, green, blue)."""

    side: int = Field(ge=1)
    channels: Literal[1, 3]

    def __str__(self) -> str:
        return f"{self.side} x {self.side} {'grey' if self.channels == 1 else 'colour'}"


def square(dim: int) -> Picture | None:
    """The square picture that ``dim`` bytes are, None if they are none. No number is both a square and three of them."""
    for channels in (1, 3):
        side = isqrt(dim // channels)
        if side and channels * side**2 == dim:
            return Picture(side=side, channels=channels)
    return None


class ModalityCard(Frozen):
    """Facts on one modality of one stored data set. Lengths are frames per clip."""

    dim: int
    picture: Picture | None = Field(None, description="set where frames are pixels")
    frames: int
    shortest: int
    mean_length: float
    longest: int
    nonfinite_replaced: int = 0
    empty_clips: int = Field(0, description="clips that had no frame and were given one frame of zeros")


class Source(Frozen):
    """Where a stored data set came from; file names only, so that a card names no one's folders."""

    layout: str
    files: dict[str, str] = Field(default_factory=dict, description="file name -> SHA-256")
    notes: dict[str, str] = {}


class Finding(Frozen):
    """What a check of harness.data.checks found: an error makes numbers wrong, a warning may, a notice is good to know."""

    check: str
    severity: Literal["error", "warning", "notice"]
    message: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.severity} ({self.check}): {self.message}. {self.remedy}"


class Card(Frozen):
    """The data card: all that a reader of a table must know about the inputs."""

    name: str
    dataset: str
    title: str
    simulated: bool
    task: Task
    metrics: tuple[str, ...]
    modalities: dict[str, ModalityCard]
    clips: dict[str, int] = Field(description="split -> number of clips")
    groups: dict[str, int] = Field(description="split -> number of videos (or actors)")
    labels: dict[str, dict[str, int]] = Field(description="split -> label bin -> number of clips")
    source: Source
    licence: str = ""
    citation: str = ""
    warnings: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = Field((), description="what the checks found at import")
    best_possible: dict[str, float] = Field(default_factory=dict, description="simulated data: test score of the ideal predictor")
    fingerprint: str = ""
    transcripts: str = Field("", description="set when the data set is opened: SHA-256 of the clips' texts, empty where none has any")


@dataclass(frozen=True)
class Ragged:
    """Frames of one modality: ``values`` (frames, dim) float32, or uint8 for pixels, ``offsets`` (clips + 1,) int64.

    A byte stands for a 255th of it: whoever reads a frame is given float32 in [0, 1].

    ``shift`` and ``scale`` (dim,), where set, are applied to every frame that is read, then the frame's ``gain``
    (frames,): the stored values stay memory-mapped and shared between workers whatever a trial has fitted. ``pages`` are
    those that ``values`` lie in, where they are mapped.
    """

    values: Tensor
    offsets: Tensor
    shift: Tensor | None = None
    scale: Tensor | None = None
    gain: Tensor | None = None
    pages: Pages | None = None

    @property
    def dim(self) -> int:
        return int(self.values.shape[1])

    @property
    def picture(self) -> Picture | None:
        """What a frame shows where frames are pixels: square ones, stored as bytes. None where they are vectors of features."""
        return square(self.dim) if self.values.dtype == torch.uint8 else None

    @property
    def lengths(self) -> Tensor:
        """Frames per clip, (clips,) int64."""
        return self.offsets.diff()

    def take(self, frame: Tensor) -> Tensor:
        """The frames at the indices ``frame`` (N,), as (N, dim), shifted and scaled, times their gain."""
        values = self.values.index_select(0, frame)
        if values.dtype == torch.uint8:
            values = values.float() / 255
        if self.shift is not None and self.scale is not None:
            values = (values - self.shift) / self.scale
        return values if self.gain is None else values * self.gain[frame, None]

    def without(self, missing: Tensor) -> Ragged:
        """The same clips with zeros at the frames where ``missing`` (frames,) is true; lengths stay."""
        gain = torch.ones(len(self.values)) if self.gain is None else self.gain
        return replace(self, gain=gain.masked_fill(missing, 0.0))

    def weighted(self, weight: float) -> Ragged:
        """The same clips with every frame multiplied by ``weight``."""
        gain = torch.ones(len(self.values)) if self.gain is None else self.gain
        return replace(self, gain=gain * weight)

    def clip(self, row: int) -> Tensor:
        """The frames of one clip, (length, dim)."""
        return self.joined(torch.tensor([row]))[0]

    def joined(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """All frames of the clips ``rows`` (B,), clip after clip, (frames, dim), and lengths (B,)."""
        frames, lengths = self._frames(rows)
        values = self.take(frames)
        self._let_go(len(frames), len(rows))
        return values, lengths

    def parts(self, rows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """``joined`` of ``CHUNK`` of the clips ``rows`` (B,) after another."""
        return map(self.joined, torch.split(rows, CHUNK))

    def only(self, rows: Tensor) -> Ragged:
        """The clips ``rows`` (B,) alone, in this order, stored as they are here."""
        frames, lengths = self._frames(rows)
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        gain = None if self.gain is None else self.gain[frames]
        return replace(self, values=self.values.index_select(0, frames), offsets=offsets, gain=gain, pages=None)

    def _let_go(self, frames: int, clips: int) -> None:
        """Tell the mapped pages that the frames of so many clips were copied out of them."""
        if self.pages is not None:
            self.pages.touched(frames * self.dim * self.values.element_size(), clips)

    def _frames(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Indices of all frames of the clips ``rows``, and lengths (B,)."""
        lengths = self.lengths[rows]
        starts = torch.repeat_interleave(self.offsets[rows] - lengths.cumsum(0) + lengths, lengths)
        return starts + torch.arange(len(starts)), lengths

    def padded(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The clips ``rows`` padded with zeros at the end to the longest of them: (B, T, dim), and lengths (B,)."""
        batch, lengths = pad_sequence(self._apart(rows), batch_first=True), self.offsets[rows + 1] - self.offsets[rows]
        self._let_go(int(lengths.sum()), len(rows))
        return batch, lengths

    def _apart(self, rows: Tensor) -> list[Tensor]:
        """The frames of each of the clips ``rows``: views of what is stored where nothing is to be applied, which saves a copy."""
        if self.shift is None and self.gain is None and self.values.is_floating_point():
            ends = self.offsets[rows + 1].tolist()
            return [self.values[start:end] for start, end in zip(self.offsets[rows].tolist(), ends, strict=True)]
        frames, lengths = self._frames(rows)
        return list(torch.split(self.take(frames), lengths.tolist()))


@dataclass(frozen=True)
class Dataset:
    """One stored data set: its card, its clips (columns ``CLIP_COLUMNS``, then those of ``MORE_COLUMNS`` that are known) and
    its features by modality. A data set of media files from which nothing was extracted yet has no features.

    ``clips["audio"]`` and ``clips["video"]`` are paths below ``media_root``, empty where a clip has no such file. The root is
    kept apart, because it is the user's own folder: it never stands on the card.
    """

    card: Card
    clips: pd.DataFrame
    features: Mapping[str, Ragged]
    media_root: Path | None = None

    def __len__(self) -> int:
        return len(self.clips)

    def media(self, kind: Literal["audio", "video"]) -> list[Path | None]:
        """Each clip's media file of this kind, None where it has none."""
        if self.media_root is None or kind not in self.clips:
            return [None] * len(self)
        root = self.media_root
        return [root / path if path else None for path in self.clips[kind]]

    def rows(self, rows: Sequence[int] | Tensor) -> Split:
        """The clips at ``rows`` with their labels."""
        index = torch.as_tensor(rows, dtype=torch.int64)
        chosen = self.clips.iloc[index.numpy()]
        dtype = torch.int64 if self.card.task.kind == "classification" else torch.float32
        labels = torch.as_tensor(chosen["label"].to_numpy(copy=True)).to(dtype)
        return Split(self.features, index, tuple(chosen["id"]), tuple(chosen["group"]), labels)


@dataclass(frozen=True)
class Split:
    """Clips of one split as training code sees them: ``rows`` (N,) into the features, ``labels`` (N,) or None."""

    features: Mapping[str, Ragged]
    rows: Tensor
    ids: tuple[str, ...]
    groups: tuple[str, ...]
    labels: Tensor | None

    def __len__(self) -> int:
        return len(self.rows)

    def without_labels(self) -> Split:
        """The same clips for code that must not see the truth."""
        return replace(self, labels=None)

    def only(self, modalities: Sequence[str]) -> Split:
        """The same clips with these modalities, in this order."""
        return replace(self, features={name: self.features[name] for name in modalities})

    def lengths(self, modality: str) -> Tensor:
        """Frames per clip, (N,) int64."""
        return self.features[modality].lengths[self.rows]

    def frames(self, modality: str) -> Tensor:
        """All real frames of these clips, (frames, dim), clip after clip."""
        return self.features[modality].joined(self.rows)[0]

    def means(self, modality: str) -> Tensor:
        """Mean over each clip's real frames, (N, dim); padding never enters (peers' fault: zeros averaged in)."""
        return torch.cat([_means(*part) for part in self.features[modality].parts(self.rows)])


def _means(frames: Tensor, lengths: Tensor) -> Tensor:
    """``frames`` (frames, dim) of clips with these ``lengths`` (B,), clip after clip -> the mean of each, (B, dim)."""
    clip = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    total = torch.zeros(len(lengths), frames.shape[1], dtype=torch.float64).index_add_(0, clip, frames.double())
    return (total / lengths[:, None]).float()
