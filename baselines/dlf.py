"""DLF: disentangled-language-focused sentiment analysis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from baselines.dmd import Decoupled, DecoupledConfig, Masks
from harness.nn.decoupling import Decoupling, Parts, ResidualHead, SelfEncoder, SigmoidFusion
from harness.training import Batch, Inputs, LossWeights, Output, Task, register_method
from harness.training.ranges import tunable


class Weights(LossWeights):
    """Weights of DLF's auxiliary losses."""

    shared: float = Field(1.0, ge=0, description="task loss of the prediction from the shared parts")
    focus: float = Field(3.0, ge=0, description="task loss of the prediction from the focus's private part")
    others: float = Field(1.0, ge=0, description="task losses of the predictions from what the focus sees in each other modality, summed")
    reconstruction: float = Field(0.1, ge=0, description="squared error of each stream from its two parts")
    cycle: float = Field(0.1, ge=0, description="squared error of the private part of that reconstruction")
    margin: float = Field(0.01, ge=0, description="shared vectors of one label closer than those of different labels")
    orthogonality: float = Field(0.01, ge=0, description="cosine between a step's shared and private part")


@register_method("dlf")
class DLF(Decoupled):
    """Shared and private parts; language looks at every other private part (Wang et al. 2025).

    Trainable parameters at ``mosi`` with 768/5/20: 1,628,605. The authors' model has 2,923,308, of which 1,294,703
    never get a gradient and are not made: heads and encoders that it inherits from DMD and does not use.

    The scaffold is DMD's, with its departures from the published code (see ``baselines/dmd.py``: padding, lengths,
    batches and groups of them, ``steps``, weight decay). Here the shared encoder and the private ones are
    transformers, nothing is distilled, and the only crossmodal encoders are those of the language-focused attractor:
    language reads its own private part and looks at those of the others, each view with a memory.

    Orthogonality is between the two parts of each step, over all channels; the authors' code reshapes to rows of
    50 channels for MOSI and of 10 for MOSEI, where a stream has 50.

    Left open and read so: attention in the shared encoder drops out at the text's rate, in a private one at its
    modality's; reconstruction, cycle and orthogonality are summed over modalities; the triples of the margin loss
    are DMD's.

    ``focus`` names the modality that language is in the paper. Where the data lacks it, the first of text, audio,
    vision takes its place, so that any subset can be trained.

    Representations: ``shared_<modality>`` and ``private_<modality>``, (B, width), and ``fused``.
    """

    class Config(DecoupledConfig):
        layers: PositiveInt = Field(2, description="layers of an encoder; memories have at least 3", json_schema_extra=tunable(1, 6))
        focus: Literal["text", "audio", "vision"] = Field("text", description="the modality that looks at the others, text as published")
        weights: Weights = Weights()

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "mosi": {},
        "mosei": {
            "kernel": {"text": 3, "audio": 3, "vision": 3},
            "steps": {"text": 48, "audio": 48, "vision": 48},
            "attention_dropout": {"text": 0.5, "audio": 0.0, "vision": 0.0},
            "memory_dropout": 0.5,
            "text_dropout": 0.1,
            "embedding_dropout": 0.0,
        },
    }
    reference = "Wang et al. 2025, DLF: Disentangled-Language-Focused Multimodal Sentiment Analysis, AAAI"

    def __init__(self, inputs: Inputs, task: Task, config: Config) -> None:
        super().__init__(inputs, task, config)
        names, width, outputs, drop = self.modalities, config.width, task.outputs, config.output_dropout
        kernel, steps, attention = config.kernel.model_dump(), config.steps.model_dump(), config.attention_dropout
        self.focus = config.focus if config.focus in names else names[0]
        self.others = [name for name in names if name != self.focus]
        self.split = Decoupling(
            inputs.dims,
            width,
            kernel,
            steps,
            config.text_dropout,
            self._stream_encoder(config.memory_dropout),
            lambda name: self._stream_encoder(attention[name]),
        )
        self.read_shared = nn.ModuleDict({name: config.encoder(width, config.layers, attention[name]) for name in names})
        self.read_focus = config.encoder(width, config.layers, attention[self.focus])
        self.attract = nn.ModuleDict({name: config.encoder(width, config.layers, attention[name]) for name in self.others})
        self.memory = nn.ModuleDict({name: config.encoder(width, max(config.layers, 3), config.memory_dropout) for name in self.others})
        self.shared_head = ResidualHead(len(names) * width, outputs, drop)
        self.heads = nn.ModuleDict({name: ResidualHead(width, outputs, drop) for name in names})
        self.fuse = SigmoidFusion([width] * len(names) + [len(names) * width], outputs, drop)

    def _stream_encoder(self, attention_dropout: float) -> SelfEncoder:
        config = self.config
        return SelfEncoder(config.width, config.heads, config.layers, config.dropouts(attention_dropout), config.positions)

    def forward(self, batch: Batch) -> Output:
        masks = self.masks(batch, [*((name, name) for name in self.modalities), *((self.focus, name) for name in self.others)])
        parts = self.split(batch.features, masks)
        shared, views = self._vectors(batch, parts, masks)
        heads = {name: head(views[name]) for name, head in self.heads.items()}
        private = {name: hidden for name, (_, hidden) in heads.items()}
        y, fused = self.fuse([*private.values(), torch.cat(shared, dim=1)])
        named = {f"shared_{name}": x for name, x in zip(self.modalities, shared, strict=True)}
        named |= {f"private_{name}": x for name, x in private.items()}
        losses = {}
        if self.training and batch.labels is not None:
            labels, real = batch.labels.to(y.device), {name: batch.mask(name) for name in self.modalities}
            losses = self.split.losses(parts, masks, real, labels, self.config.margin)
            losses |= self._task_losses(labels, shared, {name: prediction for name, (prediction, _) in heads.items()})
        return Output(self.shaped(y), losses, named | {"fused": fused})

    def _vectors(self, batch: Batch, parts: Parts, masks: Masks) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Shared parts as vectors, and the focus's view of every modality's private part, its own included: (B, width) each."""
        encoders, streams = [*self.read_shared.values(), self.read_focus], [*parts.shared.values(), parts.private[self.focus]]
        *shared, own = self.ends(encoders, streams, [*self.modalities, self.focus], batch, masks)
        seen = self.look(self.attract.values(), parts.private, [(self.focus, name) for name in self.others], batch, masks)
        views = self.ends(self.memory.values(), seen, [self.focus] * len(seen), batch, masks)
        return shared, {self.focus: own, **dict(zip(self.others, views, strict=True))}

    def _task_losses(self, labels: Tensor, shared: Sequence[Tensor], predictions: Mapping[str, Tensor]) -> dict[str, Tensor]:
        together, _ = self.shared_head(torch.cat(list(shared), dim=1))
        losses = {name: self.task_loss(y, labels) for name, y in predictions.items()}
        focus = losses.pop(self.focus)
        return {"shared": self.task_loss(together, labels), "focus": focus, "others": sum(losses.values(), torch.zeros_like(focus))}
