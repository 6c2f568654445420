"""Batches: clips gathered by index into length buckets, padded to the batch's longest clip, with lengths and masks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from harness import seeds
from harness.data.schema import Split

PART = 1500


@dataclass(frozen=True)
class Batch:
    """B clips: ``features[m]`` (B, T_m, D_m) zero-padded at the end, ``lengths[m]`` (B,), ``labels`` (B,) or None.

    ``position`` (B,) is each clip's place in its split, for methods that keep a memory per clip.
    """

    features: Mapping[str, Tensor]
    lengths: Mapping[str, Tensor]
    labels: Tensor | None
    position: Tensor

    def __len__(self) -> int:
        return len(self.position)

    def mask(self, modality: str) -> Tensor:
        """True at real frames, (B, T)."""
        steps = torch.arange(self.features[modality].shape[1], device=self.lengths[modality].device)
        return steps < self.lengths[modality][:, None]

    def mean(self, modality: str) -> Tensor:
        """Mean over each clip's real frames, (B, D). Padding is zero, so the sum needs no mask."""
        return self.features[modality].sum(1) / self.lengths[modality][:, None]

    def to(self, device: torch.device) -> Batch:
        """The same batch on ``device``."""
        if self.position.device == device:
            return self
        return replace(
            self,
            features={name: value.to(device, non_blocking=True) for name, value in self.features.items()},
            lengths={name: value.to(device, non_blocking=True) for name, value in self.lengths.items()},
            labels=None if self.labels is None else self.labels.to(device, non_blocking=True),
            position=self.position.to(device, non_blocking=True),
        )


def gather(split: Split, position: Tensor) -> Batch:
    """The clips at ``position`` (B,) of ``split`` as one batch."""
    rows = split.rows[position]
    padded = {name: ragged.padded(rows) for name, ragged in split.features.items()}
    return Batch(
        features={name: values for name, (values, _) in padded.items()},
        lengths={name: lengths for name, (_, lengths) in padded.items()},
        labels=None if split.labels is None else split.labels[position],
        position=position,
    )


def shuffled(split: Split, size: int, seed: int, epoch: int, together: int = 1) -> list[Tensor]:
    """One epoch's batches as positions: every clip once, in random order.

    With ``together`` above 1, clips of that many batches are sorted by length before they are cut into batches: less
    padding, but batches that are not independent of length. The order is the stream (seed, "shuffle", epoch) and does
    not depend on the method. A last batch of one
    clip is merged into the one before it, since batch statistics of one clip are not defined.
    """
    rng = seeds.generator(seed, "shuffle", epoch)
    order = rng.permutation(len(split))
    buckets = _cut(order, size * together)
    if together > 1:
        work = _work(split)
        buckets = [bucket[np.argsort(work[bucket], kind="stable")] for bucket in buckets]
    batches = [part for bucket in buckets for part in _cut(bucket, size)]
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [np.concatenate(batches[-2:])]
    return [torch.from_numpy(batches[i]) for i in rng.permutation(len(batches))]


def in_order(split: Split, size: int) -> Iterator[Batch]:
    """Every clip once, shortest first, nothing random: for evaluation; ``position`` says which clip is where.

    A batch has no more padded steps than ``size`` of the longest clips: more clips where they are short.
    """
    yield from (gather(split, part) for part in by_length(split, torch.arange(len(split)), size))


def by_length(split: Split, positions: Tensor, size: int) -> list[Tensor]:
    """``positions`` (n,) cut into parts of like length: few parts, little padding, whatever order they came in.

    Of all cuts of the clips sorted by length, the one with the fewest padded steps, where each part counts as
    ``PART`` steps more. No part has more padded steps than ``size`` of the longest clips.
    """
    work = _work(split)[positions.numpy()]
    order = np.argsort(work, kind="stable")
    ends = _cheapest_cut(work[order], size * int(work.max()))
    return [positions[torch.from_numpy(order[i:j])] for i, j in pairwise(ends)]


def _cheapest_cut(work: np.ndarray, most: int) -> list[int]:
    """Where to cut clips of ascending ``work``, 0 and n included; by the shortest path over all possible ends."""
    least, start = np.zeros(len(work) + 1), np.zeros(len(work) + 1, dtype=int)
    for end in range(1, len(work) + 1):
        first = max(end - most // work[end - 1], 0)
        cost = least[first:end] + PART + np.arange(end - first, 0, -1) * work[end - 1]
        start[end] = first + cost.argmin()
        least[end] = cost.min()
    ends = [len(work)]
    while ends[-1]:
        ends.append(int(start[ends[-1]]))
    return ends[::-1]


def _work(split: Split) -> np.ndarray:
    return sum(split.lengths(name) for name in split.features).numpy()  # type: ignore[union-attr]


def _cut(order: np.ndarray, size: int) -> list[np.ndarray]:
    return [order[i : i + size] for i in range(0, len(order), size)]
