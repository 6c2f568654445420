"""Transformations fitted on the training split only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from harness.data.schema import Ragged, Split


def standardise(train: Split, others: Sequence[Split], modalities: Sequence[str]) -> list[Split]:
    """``train`` and ``others`` with ``modalities`` z-scored by mean and deviation of the training split's frames.

    Features that are constant on the training split are centred only. Modalities the data lacks are passed over.
    """
    fitted = {name: _fit(train, name) for name in modalities if name in train.features}
    return [replace(split, features={**split.features, **fitted}) for split in (train, *others)]


def _fit(train: Split, modality: str) -> Ragged:
    frames = train.frames(modality).double()
    deviation = frames.std(0, correction=0)
    # A feature whose spread is rounding noise is constant: dividing by it would blow up unseen values.
    constant = deviation <= 1e-6 * frames.abs().amax(0)
    scale = torch.where(constant, torch.ones_like(deviation), deviation)
    return replace(train.features[modality], shift=frames.mean(0).float(), scale=scale.float())
