"""PS-Mixer: a polarity vector and a strength vector, mixed by two-layer networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from harness.nn.dropout import Dropout
from harness.nn.mixer import MixerBlock
from harness.nn.utterances import ClipVectors, project
from harness.training import Batch, Inputs, LossWeights, Method, MethodConfig, Output, Task, Training, register_method
from harness.training.by_modality import Rate
from harness.training.ranges import tunable
from harness.training.settings import TaskLoss

PAIRS = {"polarity": ("vision", "text"), "strength": ("audio", "text")}
EXPANSION = 3  # hidden units of the head, as a multiple of the polarity vector: fixed in the published code
EPSILON = 1e-4  # added to the denominator of the correlation: that of the published code
TRAINING = {"learning_rate": 1e-4, "schedule": "plateau", "plateau_factor": 0.5, "plateau_patience": 6, "max_epochs": 100, "patience": 21}


class Weights(LossWeights):
    """Weights of PS-Mixer's auxiliary losses."""

    polarity: float = Field(0.1, ge=0, description="distance of a sign's mean polarity vector from that of the clips predicted so")
    strength: float = Field(0.1, ge=0, description="1 - correlation of the strength vector's size with the label's")


class Mixed(nn.Module):
    """Some modalities' vectors through one sigmoid layer, batch norm and mixers: N of (B, width) -> (B, N width)."""

    def __init__(self, tokens: int, width: int, hidden: int, depth: int, dropout: float) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(width, width), nn.Sigmoid())
        self.norm = nn.BatchNorm1d(tokens, affine=False)
        self.mix = nn.Sequential(*(MixerBlock(tokens, width, hidden, dropout) for _ in range(depth)))

    def forward(self, vectors: list[Tensor]) -> Tensor:
        return self.mix(self.norm(self.encode(torch.stack(vectors, dim=1)))).flatten(1)  # type: ignore[no-any-return]


@register_method("ps_mixer")
class PSMixer(Method):
    """Vision and text say the sign, audio and text the strength of a sentiment (Lin et al. 2023).

    Parameters at ``mosi``: 737,360 with the authors' 768/74/47 features, 394,352 with 768/5/20. The published 738,560
    include a layer norm for text (1,200) that takes no part in training.

    Prediction: a head without biases on p |s|_1 / |p|_1, the polarity vector p with the size of the strength vector s.
    Left open and read so:

    * Of a pair whose modalities are not all there, the others make the vector; of an empty pair, all that the data have.
    * Classes have no sign and no size: the polarity loss compares each class's vectors instead, the strength loss is 0.
    * The authors' text is BERT's, fine-tuned; features that stay as they are can be read by LSTMs: ``text_recurrent``.
    * Audio and vision are z-scored over the training split (the authors' files: per clip).

    Faults of the published code that are not reproduced:

    * The batch norms of both pairs share running statistics, so that evaluation normalises by a mix of the two.
    * The strength loss is NaN for one clip or for labels of one size; here it is 0.
    * Hidden width and depth of the mixers are read from the settings and ignored; here they have an effect.
    * After 6 epochs without a better loss the best weights are loaded together with the old learning rate, so the rate
      halves once only. Here it halves each time and training goes on from where it is; as published, the third such
      pause ends it. Selection is by task loss (the authors': by the total).

    Representations: ``polarity`` and ``strength``, (B, modalities of the pair * hidden).
    """

    class Config(MethodConfig):
        task_loss: TaskLoss | None = Field("mse", description="loss on the prediction; cross_entropy for classes")
        hidden: PositiveInt = Field(128, description="width of a modality's vector", json_schema_extra=tunable(32, 256, log=True))
        mixer_hidden: PositiveInt = Field(
            64, description="hidden units of a mixer's networks", json_schema_extra=tunable(16, 256, log=True)
        )
        depth: PositiveInt = Field(1, description="mixers in a row", json_schema_extra=tunable(1, 4))
        dropout: Rate = Field(0.5, description="in the mixers and before the output", json_schema_extra=tunable(0.0, 0.6))
        recurrent: PositiveInt | None = Field(None, description="width of the LSTMs of audio and vision; unset: the input's, as published")
        text_recurrent: PositiveInt | None = Field(None, description="width of LSTMs that read text; unset: the mean over tokens")
        orthogonal_init: bool = Field(True, description="orthogonal hidden-to-hidden weights at the start")
        weights: Weights = Weights()
        training: Training = Training(batch_size=128, **TRAINING)

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"mosi": {}, "mosei": {"training": {"batch_size": 64, **TRAINING}}}
    reference = (
        "Lin et al. 2023, PS-Mixer: A Polar-Vector and Strength-Vector Mixer Model for Multimodal Sentiment Analysis, "
        "Information Processing and Management"
    )

    def __init__(self, inputs: Inputs, task: Task, config: Config) -> None:
        super().__init__(inputs, task, config)
        self.task = task
        self.read = ClipVectors(inputs.dims, config.recurrent, config.text_recurrent, config.orthogonal_init)
        self.project = nn.ModuleDict({name: project(width, config.hidden) for name, width in self.read.widths.items()})
        there = {name: tuple(m for m in pair if m in inputs.dims) or inputs.modalities for name, pair in PAIRS.items()}
        self.pairs = there
        self.mixed = nn.ModuleDict(
            {name: Mixed(len(pair), config.hidden, config.mixer_hidden, config.depth, config.dropout) for name, pair in there.items()}
        )
        width = len(there["polarity"]) * config.hidden
        self.out = nn.Sequential(
            nn.Linear(width, EXPANSION * width, bias=False),
            Dropout(config.dropout),
            nn.ReLU(),
            nn.Linear(EXPANSION * width, task.outputs, bias=False),
        )

    def forward(self, batch: Batch) -> Output:
        whole = {name: self.project[name](x) for name, x in self.read(batch.features, batch.lengths).items()}
        polarity, strength = (self.mixed[name]([whole[m] for m in pair]) for name, pair in self.pairs.items())
        y = self.out(resized(polarity, strength))
        y = y.squeeze(1) if self.task.kind == "regression" else y
        losses = {} if batch.labels is None else self._losses(polarity, strength, y.detach(), batch.labels.to(y.device))
        return Output(y, losses, {"polarity": polarity, "strength": strength})

    def _losses(self, polarity: Tensor, strength: Tensor, y: Tensor, labels: Tensor) -> dict[str, Tensor]:
        if self.task.kind == "classification":
            groups = [F.one_hot(classes, len(self.task.classes)).to(polarity.dtype) for classes in (labels, y.argmax(1))]
            return {"polarity": polarity_loss(polarity, *groups), "strength": strength.new_zeros(())}
        groups = [torch.stack([x >= 0, x < 0], dim=1).to(polarity.dtype) for x in (labels, y)]
        return {"polarity": polarity_loss(polarity, *groups), "strength": strength_loss(strength.abs().sum(1), labels.abs())}


def resized(polarity: Tensor, strength: Tensor) -> Tensor:
    """``polarity`` (B, D) with the sum of absolute values, clip by clip, of ``strength`` (B, E); (B, D)."""
    return F.normalize(polarity, p=1.0, dim=1) * strength.abs().sum(1, keepdim=True)


def polarity_loss(polarity: Tensor, truth: Tensor, predicted: Tensor) -> Tensor:
    """How far each group's mean vector is from that of the clips predicted into it; a scalar in [0, 2].

    polarity (B, D); truth and predicted (B, groups), 1 where a clip belongs to a group, else 0. Sum over groups of
    (share of clips in it) * (1 - cosine of the two means); a group that is empty in either adds 0.
    """
    counts, guessed = truth.sum(0), predicted.sum(0)
    mean, meant = ((member.T @ polarity) / member.sum(0).clamp(min=1)[:, None] for member in (truth, predicted))
    both = (counts > 0) & (guessed > 0)
    return (counts / len(polarity) * (1 - F.cosine_similarity(mean, meant)) * both).sum()


def strength_loss(size: Tensor, label_size: Tensor) -> Tensor:
    """1 - Pearson correlation of ``size`` and ``label_size`` (B,), both brought to [0, 1] over the batch; 0 where it is undefined."""
    x, y = (_to_unit_range(values) for values in (size, label_size))
    x, y = x - x.mean(), y - y.mean()
    defined = x.any() & y.any()
    length: Tensor = torch.linalg.vector_norm(x) * torch.linalg.vector_norm(y)
    return (1 - (x * y).sum() / (length + EPSILON)) * defined


def _to_unit_range(values: Tensor) -> Tensor:
    low, high = values.min(), values.max()
    return (values - low) / (high - low).clamp(min=torch.finfo(values.dtype).tiny)
