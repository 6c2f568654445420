"""DMD: decoupled multimodal distilling."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import permutations
from typing import Any, ClassVar

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from harness.nn.attention import Dropouts, Encoder, embed
from harness.nn.decoupling import (
    Decoupling,
    FlatHead,
    GraphDistillation,
    Parts,
    Pointwise,
    ResidualHead,
    SigmoidFusion,
    flatten,
    masks_between,
)
from harness.training import Batch, Inputs, LossWeights, Method, MethodConfig, Output, Task, Training, register_method
from harness.training.by_modality import ByModality, Rate
from harness.training.objectives import task_objective
from harness.training.ranges import tunable

FROM_TEXT = {("audio", "text"), ("vision", "text")}  # (student, teacher): what the authors' priors favour
FROM_TEXT_AND_VISION = FROM_TEXT | {("audio", "vision")}


class DecoupledConfig(MethodConfig):
    """What DMD and DLF have in common; the defaults are DMD's for MOSI."""

    width: PositiveInt = Field(50, description="channels of each modality's stream", json_schema_extra=tunable(choices=(30, 60, 90)))
    heads: PositiveInt = Field(10, description="attention heads; must divide width")
    layers: PositiveInt = Field(4, description="layers of an encoder; memories have at least 3", json_schema_extra=tunable(2, 6))
    kernel: ByModality[PositiveInt] = Field(
        ByModality[PositiveInt](text=5, audio=5, vision=5), description="steps that the convolution of a modality spans"
    )
    steps: ByModality[PositiveInt] = Field(
        ByModality[PositiveInt](text=46, audio=46, vision=46),
        description="steps that layers over a whole clip read: the published 50 words less what an unpadded convolution takes off",
    )
    attention_dropout: ByModality[Rate] = Field(
        ByModality[Rate](text=0.3, audio=0.2, vision=0.0),
        description="on attention weights, by the modality looked at",
        json_schema_extra=tunable(0.0, 0.6),
    )
    memory_dropout: Rate = Field(
        0.3,
        description="on attention weights of encoders of several modalities (the peers take the text's rate)",
        json_schema_extra=tunable(0.0, 0.6),
    )
    text_dropout: Rate = Field(0.5, description="on the text features", json_schema_extra=tunable(0.0, 0.6))
    embedding_dropout: Rate = Field(0.2, description="on an encoder's embedded inputs", json_schema_extra=tunable(0.0, 0.6))
    activation_dropout: Rate = Field(0.0, description="on the hidden layer of an encoder's two-layer networks")
    residual_dropout: Rate = Field(0.0, description="on residual branches of the encoders")
    output_dropout: Rate = Field(0.5, description="on the hidden layer of each head", json_schema_extra=tunable(0.0, 0.6))
    causal: bool = Field(True, description="a step looks at no later one")
    positions: bool = Field(True, description="add sinusoidal positions")
    margin: float = Field(0.15, ge=0, description="margin of the shared vectors' triples, per unit of difference between labels")
    training: Training = Training(
        batch_size=16,
        length_buckets=8,
        accumulate=10,
        learning_rate=1e-4,
        clip_value=0.6,
        schedule="plateau",
        plateau_factor=0.5,
        plateau_patience=5,
        patience=10,
    )

    @model_validator(mode="after")
    def _heads_divide_width(self) -> DecoupledConfig:
        if self.width % self.heads:
            raise ValueError(f"heads = {self.heads} does not divide width = {self.width}")
        return self

    def dropouts(self, attention: float) -> Dropouts:
        """The rates of an encoder whose attention weights drop out at ``attention``."""
        return Dropouts(attention, self.embedding_dropout, self.activation_dropout, self.residual_dropout)

    def encoder(self, width: int, layers: int, attention: float) -> Encoder:
        """A crossmodal or a memory encoder."""
        return Encoder(width, self.heads, layers, self.dropouts(attention))


Masks = Mapping[tuple[str, str], Tensor]


class Decoupled(Method):
    """What DMD and DLF share beside their layers."""

    def __init__(self, inputs: Inputs, task: Task, config: Any) -> None:
        super().__init__(inputs, task, config)
        self.task, self.config, self.modalities = task, config, inputs.modalities
        self.objective = task_objective(config, task)

    def shaped(self, y: Tensor) -> Tensor:
        """A head's output as a prediction: (B, 1) -> (B,) for intensities."""
        return y.squeeze(1) if self.task.kind == "regression" else y

    def task_loss(self, y: Tensor, labels: Tensor) -> Tensor:
        """The task's loss of a head's output, a mean over the batch."""
        return self.objective(self.shaped(y), labels) / len(labels)

    def masks(self, batch: Batch, pairs: Iterable[tuple[str, str]]) -> Masks:
        """Where each pair's query may look at its key, (B, 1, Tq, Tk)."""
        return masks_between(pairs, batch.features, batch.lengths, self.config.causal)

    def look(
        self, encoders: Iterable[nn.Module], streams: Mapping[str, Tensor], pairs: Iterable[tuple[str, str]], batch: Batch, masks: Masks
    ) -> list[Tensor]:
        """What the first modality of each pair sees in the second, by the pair's encoder: (B, T, width) each."""
        embedded = {name: embed(x, self.config.positions) for name, x in streams.items()}
        n = batch.lengths
        places = zip(encoders, pairs, strict=True)
        return [encoder(embedded[query], embedded[key], masks[query, key], n[query], n[key]) for encoder, (query, key) in places]

    def ends(
        self, encoders: Iterable[nn.Module], streams: Iterable[Tensor], modalities: Iterable[str], batch: Batch, masks: Masks
    ) -> list[Tensor]:
        """Self-attention over each stream, whose steps are those of a modality, at each clip's last real step: (B, width) each."""
        places = zip(encoders, streams, modalities, strict=True)
        return [
            encoder.last(embed(x, self.config.positions), masks[name, name], batch.lengths[name])  # type: ignore[operator]
            for encoder, x, name in places
        ]


class Weights(LossWeights):
    """Weights of DMD's auxiliary losses."""

    branches: float = Field(1.0, ge=0, description="task losses of the homogeneous, the heterogeneous and the shared predictions, summed")
    homogeneous: float = Field(0.05, ge=0, description="graph distillation between shared parts")
    heterogeneous: float = Field(0.05, ge=0, description="graph distillation between private parts")
    reconstruction: float = Field(0.1, ge=0, description="squared error of each stream from its two parts")
    cycle: float = Field(0.1, ge=0, description="squared error of the private part of that reconstruction")
    margin: float = Field(0.01, ge=0, description="shared vectors of one label closer than those of different labels")
    orthogonality: float = Field(0.01, ge=0, description="cosine between a step's shared and private part")


@register_method("dmd")
class DMD(Decoupled):
    """Shared and private parts, each distilled between modalities along learned edges (Li et al. 2023).

    Trainable parameters at ``mosi`` with 768/5/20: 4,405,580. The authors' model has 4,743,658; of these 345,150
    (``proj_cosine``) get no gradient and are not made, and the two distillation units (7,072 here), which the
    authors hold outside the model, are counted.

    Departures from the authors' code:

    * Convolutions keep the length. Keys at padding are masked, losses average over real steps, "last step" is a
      clip's last real one and the causal offset that of a clip's own lengths.
    * Layers over a whole clip (alignment and the homogeneous heads, which serve training only) read its first
      ``steps`` steps, zeros where it is shorter. With unaligned audio and vision, raise ``steps``.
    * Orthogonality is between the two parts of each step. The code hands a loss for matrices a tensor of three
      axes: torch up to 1.9 compares along the batch, later ones refuse.
    * The edge network has no bias, which a softmax over pairs cannot notice.
    * Groups of batches are averaged, the last included; the code sums them and drops an incomplete group. The
      weight decay in its files is not passed on, so there is none.
    * One dropout mask of an embedded source serves keys and values.
    * Batches hold clips of similar length (``length_buckets``; 1: fully random, as published), to save padding.

    Left open and read so: edges are computed from predictions and vectors through which gradients flow; the vectors
    are the homogeneous heads' bottlenecks and the hidden layers of the heterogeneous heads; a negative of the margin
    loss has its anchor's modality, a positive another one, as in the paper; reconstruction, cycle and orthogonality
    are summed over modalities; with classes, imitation compares logits.

    With one modality nothing is distilled or aligned: these losses are 0, and its private part goes straight to
    memory. A subset of modalities keeps the pairs that the priors favour within it.

    Representations: ``shared_<modality>`` (B, width), ``private_<modality>`` (B, (modalities - 1) width), ``fused``.
    """

    class Config(DecoupledConfig):
        homogeneous_hidden: PositiveInt = Field(
            64, description="width of the homogeneous distillation unit", json_schema_extra=tunable(16, 128, log=True)
        )
        heterogeneous_hidden: PositiveInt = Field(
            32, description="width of the heterogeneous distillation unit", json_schema_extra=tunable(16, 128, log=True)
        )
        towards_prior: float = Field(10.0, ge=0, description="pull of mean edges towards the prior, in both units")
        away: float = Field(10.0, ge=0, description="weight of turning private vectors away from each other, along the edges")
        weights: Weights = Weights()

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "mosi": {},
        "mosei": {
            "width": 30,
            "heads": 6,
            "kernel": {"text": 5, "audio": 1, "vision": 3},
            "steps": {"text": 46, "audio": 50, "vision": 48},
            "attention_dropout": {"text": 0.4, "audio": 0.0, "vision": 0.0},
            "memory_dropout": 0.4,
            "text_dropout": 0.3,
            "embedding_dropout": 0.0,
        },
    }
    reference = "Li et al. 2023, Decoupled Multimodal Distilling for Emotion Recognition, CVPR"

    def __init__(self, inputs: Inputs, task: Task, config: Config) -> None:
        super().__init__(inputs, task, config)
        names, width, outputs, drop = self.modalities, config.width, task.outputs, config.output_dropout
        memory, everything = max(len(names) - 1, 1) * width, len(names) * width
        kernel, steps, attention = config.kernel.model_dump(), config.steps.model_dump(), config.attention_dropout
        self.pairs = list(permutations(names, 2))
        self.split = Decoupling(inputs.dims, width, kernel, steps, config.text_dropout, Pointwise(width), lambda name: Pointwise(width))
        self.read_shared = nn.ModuleDict({name: config.encoder(width, config.layers, attention[name]) for name in names})
        self.cross = nn.ModuleDict(
            {f"{target}_from_{source}": config.encoder(width, config.layers, attention[source]) for target, source in self.pairs}
        )
        self.memory = nn.ModuleDict({name: config.encoder(memory, max(config.layers, 3), config.memory_dropout) for name in names})
        self.shared_head = ResidualHead(everything, outputs, drop)
        self.homogeneous_heads = nn.ModuleDict({name: FlatHead(steps[name] * width, width, outputs, drop) for name in names})
        self.heterogeneous_heads = nn.ModuleDict({name: ResidualHead(memory, outputs, drop) for name in names})
        self.fuse = SigmoidFusion([memory] * len(names) + [everything], outputs, drop)
        if self.pairs:
            hidden, pull = (config.homogeneous_hidden, config.heterogeneous_hidden), config.towards_prior
            self.homogeneous = GraphDistillation(names, outputs, width, hidden[0], FROM_TEXT, pull)
            self.heterogeneous = GraphDistillation(names, outputs, memory, hidden[1], FROM_TEXT_AND_VISION, pull, config.away)

    def forward(self, batch: Batch) -> Output:
        masks = self.masks(batch, [*self.pairs, *((name, name) for name in self.modalities)])
        parts = self.split(batch.features, masks)
        shared, private = self._vectors(batch, parts, masks)
        y, fused = self.fuse([*private, torch.cat(shared, dim=1)])
        named = {f"shared_{name}": x for name, x in zip(self.modalities, shared, strict=True)}
        named |= {f"private_{name}": x for name, x in zip(self.modalities, private, strict=True)}
        losses = {}
        if self.training and batch.labels is not None:
            losses = self._losses(batch, batch.labels.to(y.device), parts, masks, shared, private)
        return Output(self.shaped(y), losses, named | {"fused": fused})

    def _vectors(self, batch: Batch, parts: Parts, masks: Masks) -> tuple[list[Tensor], list[Tensor]]:
        """Each modality's shared and private part as one vector, (B, width) and (B, (modalities - 1) width)."""
        names = self.modalities
        shared = self.ends(self.read_shared.values(), parts.shared.values(), names, batch, masks)
        streams = list(parts.private.values())
        if self.pairs:
            seen = self.look(self.cross.values(), parts.private, self.pairs, batch, masks)
            streams = [torch.cat([x for x, (target, _) in zip(seen, self.pairs, strict=True) if target == name], dim=2) for name in names]
        return shared, self.ends(self.memory.values(), streams, names, batch, masks)

    def _losses(
        self, batch: Batch, labels: Tensor, parts: Parts, masks: Masks, shared: Sequence[Tensor], private: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        real = {name: batch.mask(name) for name in self.modalities}
        flat = {name: flatten(x, real[name], self.config.steps[name]) for name, x in parts.shared.items()}
        homogeneous = [self.homogeneous_heads[name](x) for name, x in flat.items()]
        heterogeneous = [head(x) for head, x in zip(self.heterogeneous_heads.values(), private, strict=True)]
        together = self.shared_head(torch.cat(list(shared), dim=1))
        return {
            "branches": torch.stack([self.task_loss(y, labels) for y, _ in (together, *homogeneous, *heterogeneous)]).sum(),
            "homogeneous": self._distilled("homogeneous", homogeneous),
            "heterogeneous": self._distilled("heterogeneous", heterogeneous),
            **self.split.losses(parts, masks, real, labels, self.config.margin),
        }

    def _distilled(self, unit: str, heads: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """The distillation loss between the heads of all modalities; 0 for one modality."""
        predictions, vectors = (torch.stack(column) for column in zip(*heads, strict=True))
        return self.get_submodule(unit)(predictions, vectors) if self.pairs else predictions.new_zeros(())
