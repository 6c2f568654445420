"""MERC (reading): gated 3-D ResNeXt and ResNet-34 with cross-attention and an emotional metric constraint.

Reference: Mocanu, Tapu, Zaharia 2023 (MERC) and Mocanu, Tapu 2022 (its forerunner, AMCM's [5]). Neither has public code, and only the
abstracts were at hand: what follows is a reading of these, named so in tables, no reproduction.

Known: film by a 3-D CNN with spatial, channel and temporal attention, sound by a 2-D CNN with temporal attention, attention across
both, and a classification loss with an emotional metric constraint built on semantic relations between emotions.

Open, and read as: film: 3-D ResNeXt-50, after every stage a gate on channels (squeeze and excitation, 16 times narrower) and one on
places (7 x 7 over mean and maximum of channels); sound: ResNet-34 on 64 mel bands; both projected to 512, one layer of cross-attention
of 8 heads each way, additive attention over time, concatenation. The constraint: a triplet loss on unit vectors, hardest positive and
hardest negative of the batch, margin .2 + .2 d(a, n), d the distance of the two emotions on a fixed plane of valence and arousal
(``PLACES``), weight .1. Split, backbones, sizes and margins of the paper are unknown.

Not reproduced: nothing of the kind is public.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from harness.nn.attention import Attention, attention_mask
from harness.nn.films import Pictures
from harness.nn.resnet import ResNet
from harness.nn.resnext3d import ResNeXt3D
from harness.training import Batch, Inputs, LossWeights, Method, Output, Task, register_method
from harness.training.audiovisual import FACES, Four, ResNeXtConfig, presets, shaped
from harness.training.by_modality import ByModality

# Valence and arousal of emotions by what they are called, after Russell's circumplex (1980): directions, neutral in the middle.
PLACES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("neutral",), (0.0, 0.0)),
    **dict.fromkeys(("calm",), (0.7, -0.7)),
    **dict.fromkeys(("happy", "happiness"), (0.9, 0.4)),
    **dict.fromkeys(("excited",), (0.6, 0.8)),
    **dict.fromkeys(("surprised", "surprise"), (0.2, 1.0)),
    **dict.fromkeys(("fearful", "fear"), (-0.4, 0.9)),
    **dict.fromkeys(("angry", "anger"), (-0.7, 0.7)),
    **dict.fromkeys(("frustrated", "frustration"), (-0.8, 0.6)),
    **dict.fromkeys(("disgust", "disgusted"), (-0.9, 0.3)),
    **dict.fromkeys(("sad", "sadness"), (-0.9, -0.4)),
}


class Weights(LossWeights):
    """Weight of MERC's auxiliary loss."""

    triplet: float = Field(0.1, ge=0, description="emotional metric constraint; 0 for intensities, which have no classes")


class Gates(nn.Module):
    """Channels by squeeze and excitation, then places by a 7 x 7 convolution over their mean and maximum: x (B, C, T, H, W)."""

    def __init__(self, channels: int, reduction: int, flat: bool) -> None:
        super().__init__()
        narrow = max(1, channels // reduction)
        self.channel = nn.Sequential(nn.Linear(channels, narrow), nn.ReLU(), nn.Linear(narrow, channels))
        self.place = nn.Conv3d(2, 1, (1, 7, 7), padding=(0, 3, 3)) if not flat else None  # one pixel has no places

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.channel(x.mean((2, 3, 4)))[..., None, None, None].sigmoid()
        if self.place is None:
            return x
        return x * self.place(torch.stack([x.mean(1), x.amax(1)], dim=1)).sigmoid()  # type: ignore[no-any-return]


class Film(nn.Module):
    """x (B, T, D), lengths (B,) -> (B, steps / 16, width) and its lengths, all the same."""

    def __init__(self, pictures: Pictures, config: Merc.Config) -> None:
        super().__init__()
        self.pictures = pictures
        flat = pictures.size == 1
        self.trunk = ResNeXt3D(pictures.channels, config.blocks, config.widths, config.stem, config.groups, flat)
        self.gates = nn.ModuleList(Gates(width, config.reduction, flat) for width in config.widths)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        y = self.trunk.stem(self.pictures(x, lengths))
        for stage, gate in zip(self.trunk.stages, self.gates, strict=True):
            y = gate(stage(y))
        return y.mean((3, 4)).transpose(1, 2), torch.full_like(lengths, y.shape[2])


class Picture(nn.Module):
    """x (B, T, F), lengths (B,) -> (B, T / 32, width), rounded up, and its lengths: ResNet over time and bands, mean over bands."""

    def __init__(self, config: Merc.Config) -> None:
        super().__init__()
        self.trunk = ResNet(1, config.picture_blocks, config.picture_widths)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        y, lengths = self.trunk(x[:, None], lengths)
        return y.mean(3).transpose(1, 2), lengths


class TimeAttention(nn.Module):
    """Additive attention over time (Bahdanau et al. 2015): x (B, T, D), lengths (B,) -> (B, D)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1, bias=False))

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        hidden = torch.arange(x.shape[1], device=x.device) >= lengths[:, None]
        weights = self.score(x).squeeze(2).masked_fill(hidden, -torch.inf).softmax(1)
        return (weights[..., None] * x.masked_fill(hidden[..., None], 0)).sum(1)  # type: ignore[no-any-return]


def distances(classes: Sequence[str]) -> Tensor:
    """Distance of every two classes on the plane of valence and arousal, (C, C); 1 where a class has no place there."""
    places = torch.tensor([PLACES.get(name.lower(), (torch.nan, torch.nan)) for name in classes]).view(-1, 2)
    apart: Tensor = torch.linalg.vector_norm(places[:, None] - places, dim=2)
    return torch.where(apart.isnan(), 1.0, apart).fill_diagonal_(0)


def triplet(x: Tensor, label: Tensor, margin: Tensor) -> Tensor:
    """Mean over clips of [d(a, p) - d(a, n) + margin(a, n)]_+, hardest p and n of the batch (Hermans et al. 2017, eq. 5).

    x (B, D) unit vectors, label (B,), margin (C, C) by class. The hardest positive is the farthest of the clip's class, the hardest
    negative the one with the largest term. Clips without either count as 0; d is the Euclidean distance.
    """
    apart = (2 - 2 * x @ x.T).clamp_min(1e-12).sqrt()
    same = label[:, None] == label
    positive = same & ~torch.eye(len(x), dtype=torch.bool, device=x.device)
    far = apart.masked_fill(~positive, -torch.inf).amax(1)
    near = (margin[label][:, label] - apart).masked_fill(same, -torch.inf).amax(1)
    counted = positive.any(1) & ~same.all(1)
    return torch.where(counted, far.masked_fill(~counted, 0) + near.masked_fill(~counted, 0), 0.0).clamp_min(0).mean()


@register_method("merc")
class Merc(Method):
    """MERC (reading), after Mocanu et al. 2023: 51,792,388 parameters at ``ravdess`` with 64 mel bands and 224 x 224 colour frames.

    Where frames are vectors of features, convolutions run over time and there is no gate on places. A single modality attends to
    nothing; of three each attends to each, and what it finds is added. The prediction's loss is ``task_loss``.
    Representations: each modality's vector, and ``fused``.
    """

    class Config(ResNeXtConfig):
        networks: ByModality[Literal["film", "picture"]] = Field(
            ByModality[Literal["film", "picture"]](text="picture", audio="picture", vision="film"),
            description="film: gated 3-D ResNeXt; picture: ResNet",
        )
        reduction: PositiveInt = Field(16, description="film: how much narrower the gate on channels is")
        picture_blocks: Four = Field((3, 4, 6, 3), description="picture: residual blocks per stage")
        picture_widths: Four = Field((64, 128, 256, 512), description="picture: channels per stage")
        hidden: PositiveInt = Field(512, description="width in which modalities attend to each other")
        heads: PositiveInt = Field(8, description="attention heads")
        margin: float = Field(0.2, ge=0, description="of the triplet loss, for emotions at the same place")
        margin_slope: float = Field(0.2, ge=0, description="what the distance of two emotions adds to it, per unit")
        weights: Weights = Weights()

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = presets(FACES)
    reference = "Mocanu, Tapu, Zaharia 2023, Multimodal emotion recognition using cross modal audio-video fusion, IVC 133 (a reading)"
    margins: Tensor

    def __init__(self, inputs: Inputs, task: Task, config: Config) -> None:
        super().__init__(inputs, task, config)
        self.task = task
        kinds = {name: config.networks[name] for name in inputs.dims}
        self.read = nn.ModuleDict(
            {name: Film(config.pictures(inputs, name), config) if kinds[name] == "film" else Picture(config) for name in inputs.dims}
        )
        widths = {name: (config.widths if kind == "film" else config.picture_widths)[-1] for name, kind in kinds.items()}
        self.project = nn.ModuleDict({name: nn.Linear(width, config.hidden) for name, width in widths.items()})
        self.meet = nn.ModuleDict({f"{t}_{s}": Attention(config.hidden, config.heads) for t, s in permutations(widths, 2)})
        self.pool = nn.ModuleDict({name: TimeAttention(config.hidden) for name in widths})
        self.out = nn.Linear(config.hidden * len(widths), task.outputs)
        margins = config.margin + config.margin_slope * distances(task.classes)
        self.register_buffer("margins", margins, persistent=False)

    def forward(self, batch: Batch) -> Output:
        found = {name: network(batch.features[name], batch.lengths[name]) for name, network in self.read.items()}
        x = {name: self.project[name](y) for name, (y, _) in found.items()}
        lengths = {name: count for name, (_, count) in found.items()}
        vectors = {name: self.pool[name](self._met(name, x, lengths), lengths[name]) for name in x}
        fused = torch.cat(list(vectors.values()), dim=1)
        losses = {} if batch.labels is None else {"triplet": self._triplet(fused, batch.labels)}
        return Output(shaped(self.out(fused), self.task), losses, vectors | {"fused": fused})

    def _met(self, name: str, x: Mapping[str, Tensor], lengths: Mapping[str, Tensor]) -> Tensor:
        """A modality's steps and what they find in the others', (B, T, hidden)."""
        y = x[name]
        for other in (other for other in x if other != name):
            mask = attention_mask(x[name], x[other], lengths[name], lengths[other])
            y = y + self.meet[f"{name}_{other}"](x[name], x[other], mask)
        return y

    def _triplet(self, fused: Tensor, labels: Tensor) -> Tensor:
        if self.task.kind == "regression":
            return fused.new_zeros(())
        return triplet(F.normalize(fused, dim=1), labels.to(fused.device), self.margins.to(fused.dtype))
