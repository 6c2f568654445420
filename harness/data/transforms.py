"""Transformations fitted on the training split only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from harness.data.schema import Ragged, Split

CLIPS = 64


def standardise(train: Split, others: Sequence[Split], modalities: Sequence[str]) -> list[Split]:
    """``train`` and ``others`` with ``modalities`` z-scored by mean and deviation of the training split's frames.

    Features that are constant on the training split are centred only. Modalities the data lacks are passed over.
    """
    fitted = {name: _fit(train, name) for name in modalities if name in train.features}
    return [replace(split, features={**split.features, **fitted}) for split in (train, *others)]


def _fit(train: Split, modality: str) -> Ragged:
    count = int(train.lengths(modality).sum())
    sums, largest = zip(*((part.sum(0), part.abs().amax(0)) for part in _parts(train, modality)), strict=True)
    mean = torch.stack(sums).sum(0) / count
    squares = [(part - mean).square().sum(0) for part in _parts(train, modality)]
    deviation = (torch.stack(squares).sum(0) / count).sqrt()
    # A feature whose spread is rounding noise is constant: dividing by it would blow up unseen values.
    constant = deviation <= 1e-6 * torch.stack(largest).amax(0)
    scale = torch.where(constant, torch.ones_like(deviation), deviation)
    return replace(train.features[modality], shift=mean.float(), scale=scale.float())


def _parts(train: Split, modality: str) -> Iterator[Tensor]:
    """All real frames in double precision, ``CLIPS`` clips at a time: all at once would be most of a worker's memory."""
    return (train.features[modality].joined(rows)[0].double() for rows in torch.split(train.rows, CLIPS))
