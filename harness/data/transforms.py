"""Transformations of splits before a method reads them; what is fitted is fitted on the training split only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from harness.data.schema import Ragged, Split


def shortened(splits: Sequence[Split], longest: int, modalities: Sequence[str]) -> list[Split]:
    """``splits`` of one data set with clips of ``modalities`` of at most ``longest`` frames: longer ones are cut into so many equal parts,
    each frame in one of them, and averaged over each.

    Modalities that the data lack are passed over, and those whose frames are pixels.
    """
    found = {name: ragged for name, ragged in splits[0].features.items() if name in modalities and ragged.picture is None}
    short = {name: _shortened(ragged, longest) for name, ragged in found.items() if int(ragged.lengths.max()) > longest}
    return [replace(split, features={**split.features, **short}) for split in splits]


def _shortened(ragged: Ragged, longest: int) -> Ragged:
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), ragged.lengths.clamp_max(longest).cumsum(0)])
    every = ragged.parts(torch.arange(len(ragged.lengths)))
    return Ragged(torch.cat([_means(frames, lengths, longest) for frames, lengths in every]), offsets)


def _means(frames: Tensor, lengths: Tensor, longest: int) -> Tensor:
    """frames of clips with these lengths, clip after clip -> those of the clips shortened."""
    parts = lengths.clamp_max(longest)
    clip = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    place = torch.arange(len(clip)) - (lengths.cumsum(0) - lengths)[clip]
    part = (parts.cumsum(0) - parts)[clip] + place * parts[clip] // lengths[clip]
    totals = torch.zeros(int(parts.sum()), frames.shape[1], dtype=torch.float64).index_add_(0, part, frames.double())
    return (totals / part.bincount()[:, None]).float()


def standardise(train: Split, others: Sequence[Split], modalities: Sequence[str]) -> list[Split]:
    """``train`` and ``others`` with ``modalities`` z-scored by mean and deviation of the training split's frames.

    Features that are constant on the training split are centred only. Modalities the data lacks are passed over, and those whose
    frames are pixels, which are in [0, 1] already.
    """
    fitted = {name: _fit(train, name) for name in modalities if name in train.features and train.features[name].picture is None}
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
    """All real frames in double precision, some clips at a time."""
    return (frames.double() for frames, _ in train.features[modality].parts(train.rows))
