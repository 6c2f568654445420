"""MulT: the multimodal transformer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from harness.nn.attention import Dropouts, Encoder, attention_mask, embed
from harness.nn.convolution import TimeConv
from harness.nn.dropout import Dropout, dropout
from harness.training import Batch, Inputs, Method, MethodConfig, Output, Task, Training, register_method
from harness.training.by_modality import ByModality, Rate
from harness.training.ranges import tunable


@register_method("mult")
class MulT(Method):
    """Every modality attends to every other one (Tsai et al. 2019); parameters at ``mosi`` with 768/5/20: 2,571,551.

    Departures from the peers' code, none of which changes the number of parameters:

    * Convolutions keep the length (zeros on both sides). The published ones have no padding and delete clips that
      are shorter than the kernel.
    * Keys at padding are masked, and "last step" is a clip's last real step, not the last padded one.
    * The causal offset |Tk - Tq| is that of a clip's own lengths.
    * ``positions``: the paper and its code add sinusoids; MMSA, whose numbers the presets are, leaves them out.
    * One dropout mask of the embedded source serves keys and values; the published code draws two.
    * The clips of one optimiser step (16 x 8) are cut anew into parts of like length; no loss joins clips, so the gradient is the same.
    * MMSA's files name a weight decay (.005) that its trainer does not pass on; so there is none.

    With one modality there is nothing to attend across: its projection goes to the self-attention memory.
    Representations: each modality's memory, (B, (modalities - 1) width), and all of them in one, ``fused``.
    """

    class Config(MethodConfig):
        width: PositiveInt = Field(50, description="channels of each modality's stream", json_schema_extra=tunable(choices=(30, 60, 90)))
        heads: PositiveInt = Field(10, description="attention heads; must divide width")
        layers: PositiveInt = Field(
            4, description="layers of a crossmodal encoder; memories have at least 3", json_schema_extra=tunable(2, 6)
        )
        kernel: ByModality[PositiveInt] = Field(
            ByModality[PositiveInt](text=5, audio=5, vision=5), description="steps that the convolution of a modality spans"
        )
        attention_dropout: ByModality[Rate] = Field(
            ByModality[Rate](text=0.3, audio=0.2, vision=0.0),
            description="on attention weights, by the modality looked at",
            json_schema_extra=tunable(0.0, 0.6),
        )
        memory_dropout: Rate = Field(
            0.3, description="on the memories' attention weights (the peers take the text's rate)", json_schema_extra=tunable(0.0, 0.6)
        )
        text_dropout: Rate = Field(0.5, description="on the text features", json_schema_extra=tunable(0.0, 0.6))
        embedding_dropout: Rate = Field(0.2, description="on an encoder's embedded inputs", json_schema_extra=tunable(0.0, 0.6))
        activation_dropout: Rate = Field(0.0, description="on the hidden layer of an encoder's two-layer networks")
        residual_dropout: Rate = Field(0.0, description="on residual branches")
        output_dropout: Rate = Field(0.5, description="on the hidden layer before the output", json_schema_extra=tunable(0.0, 0.6))
        causal: bool = Field(True, description="a step looks at no later one")
        positions: bool = Field(True, description="add sinusoidal positions (MMSA does not)")
        training: Training = Training(
            batch_size=16,
            accumulate=8,
            accumulate_by_length=True,
            learning_rate=2e-3,
            clip_value=0.6,
            schedule="plateau",
            plateau_patience=5,
        )

        @model_validator(mode="after")
        def _heads_divide_width(self) -> MulT.Config:
            if self.width % self.heads:
                raise ValueError(f"heads = {self.heads} does not divide width = {self.width}")
            return self

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "mosi": {},
        "mosei": {
            "width": 30,
            "heads": 6,
            "kernel": {"text": 5, "audio": 1, "vision": 3},
            "attention_dropout": {"text": 0.4, "audio": 0.0, "vision": 0.0},
            "memory_dropout": 0.4,
            "text_dropout": 0.3,
            "embedding_dropout": 0.0,
            "training": {
                "batch_size": 4,
                "accumulate": 8,
                "accumulate_by_length": True,
                "learning_rate": 5e-4,
                "clip_value": 0.6,
                "schedule": "plateau",
                "plateau_patience": 20,
            },
        },
    }
    separable = True
    reference = "Tsai et al. 2019, Multimodal Transformer for Unaligned Multimodal Language Sequences, ACL"

    def __init__(self, inputs: Inputs, task: Task, config: Config) -> None:
        super().__init__(inputs, task, config)
        self.task, self.config, self.modalities = task, config, inputs.modalities
        memory = max(len(inputs.dims) - 1, 1) * config.width
        fused = len(inputs.dims) * memory
        self.project = nn.ModuleDict({name: TimeConv(dim, config.width, config.kernel[name]) for name, dim in inputs.dims.items()})
        self.cross = nn.ModuleDict(
            {
                f"{target}_from_{source}": self._encoder(config.width, config.layers, config.attention_dropout[source])
                for target, source in self._pairs()
            }
        )
        self.memory = nn.ModuleDict({name: self._encoder(memory, max(config.layers, 3), config.memory_dropout) for name in self.modalities})
        self.residual = nn.Sequential(nn.Linear(fused, fused), nn.ReLU(), Dropout(config.output_dropout), nn.Linear(fused, fused))
        self.out = nn.Linear(fused, task.outputs)

    def _pairs(self) -> list[tuple[str, str]]:
        return [(target, source) for target in self.modalities for source in self.modalities if target != source]

    def _encoder(self, width: int, layers: int, attention_dropout: float) -> Encoder:
        config = self.config
        drop = Dropouts(attention_dropout, config.embedding_dropout, config.activation_dropout, config.residual_dropout)
        return Encoder(width, config.heads, layers, drop)

    def forward(self, batch: Batch) -> Output:
        streams = {name: self._project(batch, name) for name in self.modalities}
        joint = self._look_at_each_other(batch, streams) if len(streams) > 1 else streams
        last = {name: self._remember(batch, name, x) for name, x in joint.items()}
        fused = torch.cat(list(last.values()), dim=1)
        y = self.out(fused + self.residual(fused))
        return Output(y.squeeze(1) if self.task.kind == "regression" else y, representations=last | {"fused": fused})

    def _project(self, batch: Batch, name: str) -> Tensor:
        x = batch.features[name]
        return self.project[name](dropout(x, self.config.text_dropout, self.training) if name == "text" else x)  # type: ignore[no-any-return]

    def _look_at_each_other(self, batch: Batch, streams: dict[str, Tensor]) -> dict[str, Tensor]:
        """What each modality sees in every other one, side by side: (B, T, (modalities - 1) width)."""
        embedded = {name: embed(x, self.config.positions) for name, x in streams.items()}
        seen = {(target, source): self._cross(batch, target, source, embedded) for target, source in self._pairs()}
        return {name: torch.cat([x for (target, _), x in seen.items() if target == name], dim=2) for name in streams}

    def _cross(self, batch: Batch, target: str, source: str, embedded: dict[str, Tensor]) -> Tensor:
        lengths = batch.lengths[target], batch.lengths[source]
        encoder = self.cross[f"{target}_from_{source}"]
        return encoder(embedded[target], embedded[source], self._mask(batch, target, source), *lengths)  # type: ignore[no-any-return]

    def _remember(self, batch: Batch, name: str, joint: Tensor) -> Tensor:
        """The memory of one modality at each clip's last real step: joint (B, T, D) -> (B, D)."""
        memory: Encoder = self.memory[name]  # type: ignore[assignment]
        return memory.last(embed(joint, self.config.positions), self._mask(batch, name, name), batch.lengths[name])

    def _mask(self, batch: Batch, target: str, source: str) -> Tensor:
        features, lengths = batch.features, batch.lengths
        return attention_mask(features[target], features[source], lengths[target], lengths[source], self.config.causal)
