"""One network per modality, cut where fusion may reach in: films by 3-D ResNeXt, sequences by a 1-D CNN (Su et al. 2020, section 4).

Each has ``early`` (features and lengths to the first site), ``late`` (to the second), ``vector`` (to one vector per clip) and
``head`` (to the task's outputs); ``sites`` says how many channels (B, channels, ...) the two sites have, ``width`` how wide the
vector is. Called, it goes through all and gives outputs and vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from harness.nn.dropout import Dropout
from harness.nn.films import Pictures, fixed
from harness.nn.resnext3d import ResNeXt3D

POOL = 8  # frames per maximum in the sequence network


class Stream(nn.Module):
    """Base of the two networks; see the module."""

    sites: tuple[int, int]
    width: int
    head: nn.Module

    def early(self, x: Tensor, lengths: Tensor) -> Tensor:
        raise NotImplementedError

    def late(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def vector(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, T, D), lengths (B,) -> outputs (B, outputs), vector (B, width)."""
        vector = self.vector(self.late(self.early(x, lengths)))
        return self.head(vector), vector


class FilmStream(Stream):
    """3-D ResNeXt with a linear head: sites after its third and fourth stage, the vector is the mean over time and picture."""

    def __init__(self, pictures: Pictures, outputs: int, blocks: Sequence[int], widths: Sequence[int], stem: int, groups: int) -> None:
        super().__init__()
        self.pictures = pictures
        self.trunk = ResNeXt3D(pictures.channels, blocks, widths, stem, groups, flat=pictures.size == 1)
        self.sites, self.width = (widths[2], widths[3]), widths[3]
        self.head = nn.Linear(self.width, outputs)

    def early(self, x: Tensor, lengths: Tensor) -> Tensor:
        y = self.trunk.stem(self.pictures(x, lengths))
        for stage in self.trunk.stages[:3]:
            y = stage(y)
        return y  # type: ignore[no-any-return]

    def late(self, x: Tensor) -> Tensor:
        return self.trunk.stages[3](x)  # type: ignore[no-any-return]

    def vector(self, x: Tensor) -> Tensor:
        return x.mean((2, 3, 4))


class SequenceStream(Stream):
    """Three convolutions over ``steps`` frames of ``dim`` features (Su et al. 2020, their MFCC network): 34,024 parameters for 13 MFCC,
    212 frames and 8 classes.

    Convolution 7, ReLU, batch norm; 7, ReLU [first site], maximum over 8, batch norm, dropout; 5, ReLU, batch norm [second site];
    the vector is all that is left, (channels[2] * ((steps - 4) // 8)); dropout and a linear layer are the head. Clips are cut or
    padded with zeros to ``steps``, at least 12 (``fixed``).
    """

    def __init__(self, dim: int, steps: int, outputs: int, channels: Sequence[int], dropout: float, head_dropout: float) -> None:
        super().__init__()
        if steps < POOL + 4:
            raise ValueError(f"{steps} steps leave nothing after the network's convolutions; at least {POOL + 4}")
        first, second, third = channels
        self.steps = steps
        self.conv1, self.bn1 = nn.Conv1d(dim, first, 7, padding=2), nn.BatchNorm1d(first)
        self.conv2, self.bn2 = nn.Conv1d(first, second, 7, padding=2), nn.BatchNorm1d(second)
        self.drop = Dropout(dropout)
        self.conv3, self.bn3 = nn.Conv1d(second, third, 5, padding=2), SequenceNorm(third)
        self.sites, self.width = (second, third), third * ((steps - 4) // POOL)
        self.head = nn.Sequential(Dropout(head_dropout), nn.Linear(self.width, outputs))

    def early(self, x: Tensor, lengths: Tensor) -> Tensor:
        y = self.bn1(F.relu(self.conv1(fixed(x, lengths, self.steps).transpose(1, 2))))
        return F.relu(self.conv2(y))

    def late(self, x: Tensor) -> Tensor:
        y = self.drop(self.bn2(F.max_pool1d(x, POOL)))
        return self.bn3(F.relu(self.conv3(y)))  # type: ignore[no-any-return]

    def vector(self, x: Tensor) -> Tensor:
        return x.flatten(1)


class SequenceNorm(nn.BatchNorm1d):
    """``nn.BatchNorm1d`` that also accepts a single value per channel, which it normalises by the running statistics."""

    def forward(self, input: Tensor) -> Tensor:
        if self.training and input.numel() == self.num_features:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(input)


class Streams(nn.Module):
    """A network per modality; every method takes and gives tensors by modality."""

    def __init__(self, networks: Mapping[str, Stream]) -> None:
        super().__init__()
        self.networks = nn.ModuleDict(networks)

    @property
    def each(self) -> dict[str, Stream]:
        """The networks by modality."""
        return {name: cast(Stream, network) for name, network in self.networks.items()}

    def sites(self, number: int) -> dict[str, int]:
        """Channels at the first (0) or second (1) site."""
        return {name: network.sites[number] for name, network in self.each.items()}

    def early(self, features: Mapping[str, Tensor], lengths: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: network.early(features[name], lengths[name]) for name, network in self.each.items()}

    def late(self, x: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: network.late(x[name]) for name, network in self.each.items()}

    def vectors(self, x: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: network.vector(x[name]) for name, network in self.each.items()}

    def heads(self, vectors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: network.head(vectors[name]) for name, network in self.each.items()}

    def forward(self, features: Mapping[str, Tensor], lengths: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Each modality's vector, without any fusion."""
        return self.vectors(self.late(self.early(features, lengths)))
