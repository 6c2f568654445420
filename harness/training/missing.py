"""Robustness protocols that any method can be put through: frames that go missing, modalities that are weighted.

Missing frames follow LNLN (Zhang et al. 2024, section 4.1): at rate r every frame of every modality is lost with
probability r, on its own. A lost frame is zero where the method reads it, that is, after standardisation; a lost token of
a text encoder that is trained becomes the unknown token, while start and end stay. Lengths stay. One uniform number per
frame decides, drawn from the stream (seed, "missing", modality, clip id): masks are the same for every method, those of a
lower rate are contained in those of a higher one, and no clip's mask depends on which other clips there are.

Stored states of a frozen contextual encoder are zeroed token by token, which is milder than it looks: the states that
remain were computed from the whole sentence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from harness import seeds
from harness.data.schema import Ragged, Split
from harness.training.settings import InputWeights, Missing

COMPLETE = 0.5  # LNLN: half of the training clips lose nothing


def at_rate(split: Split, rate: float, seed: int) -> Split:
    """``split`` as it is tested at a missing rate; the same object at rate 0."""
    if rate == 0:
        return split
    lost = {name: _lost(split, name, [rate] * len(split), seed, "missing") for name in split.features}
    return _without(split, lost)


def for_training(split: Split, settings: Missing, seed: int, epoch: int) -> Split:
    """``split`` as epoch ``epoch`` trains on it; ``split`` itself unless training clips are masked.

    Each clip and modality has a rate of its own: 0 with probability 1/2, else uniform on [0, 1). Epoch 0 names the masks
    under which a method is fitted and a validation split is read.
    """
    if settings.training == "complete":
        return split
    lost = {name: _lost(split, name, _rates(split, name, seed, epoch), seed, "missing in training", epoch) for name in split.features}
    return _without(split, lost)


def weighted(split: Split, weights: InputWeights) -> Split:
    """``split`` with every modality's frames times its weight; a weight of 1 leaves the stored bits alone."""
    factors = {name: getattr(weights, name) for name in split.features}
    return replace(split, features={name: x if factors[name] == 1 else x.weighted(factors[name]) for name, x in split.features.items()})


def further_tests(test: Split, missing: Missing, weights: InputWeights, seed: int) -> Iterator[tuple[dict[str, float], Split]]:
    """The other forms in which a trained model meets ``test``: changed settings by dotted name, and the split.

    ``test`` is standardised, complete, and not weighted.
    """
    for rate in missing.rates:
        yield {"missing.rate": rate}, at_rate(weighted(test, weights), rate, seed)
    for a in weights.sweep:
        changed = weights.model_copy(update={"audio": a, "vision": 1 - a})
        yield (
            {"input_weights.audio": a, "input_weights.vision": 1 - a},
            at_rate(weighted(test, changed), missing.rate, seed),
        )


def _without(split: Split, lost: dict[str, Tensor]) -> Split:
    return replace(split, features={name: ragged.without(lost[name]) for name, ragged in split.features.items()})


def _lost(split: Split, modality: str, rates: Sequence[float], seed: int, *stream: str | int) -> Tensor:
    """True at the lost frames of these clips, (frames,) over all that is stored."""
    ragged = split.features[modality]
    lost = torch.zeros(len(ragged.values), dtype=torch.bool)
    for (start, end), clip, rate in zip(_spans(ragged, split.rows), split.ids, rates, strict=True):
        if rate > 0:
            draws = seeds.generator(seed, *stream, modality, clip).random(end - start)
            lost[start:end] = torch.from_numpy(draws < rate)
    return lost


def _rates(split: Split, modality: str, seed: int, epoch: int) -> list[float]:
    draws = (seeds.generator(seed, "missing rate", epoch, modality, clip).random(2) for clip in split.ids)
    return [0.0 if coin < COMPLETE else float(rate) for coin, rate in draws]


def _spans(ragged: Ragged, rows: Tensor) -> list[tuple[int, int]]:
    return list(zip(ragged.offsets[rows].tolist(), ragged.offsets[rows + 1].tolist(), strict=True))
