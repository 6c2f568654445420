"""MISA: modality-invariant and -specific representations."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from harness.nn.attention import Dropouts, EncoderLayer
from harness.nn.divergences import cmd, orthogonality
from harness.nn.dropout import Dropout
from harness.nn.recurrent import BiLSTM
from harness.nn.utterances import StackedBiLSTM
from harness.training import Batch, Inputs, LossWeights, Method, MethodConfig, Output, Task, Training, register_method
from harness.training.by_modality import Rate
from harness.training.ranges import tunable
from harness.training.settings import TaskLoss

HEADS, INNER, ENCODER_DROPOUT = 2, 2048, 0.1  # of the fusion layer: fixed in the published code


class Weights(LossWeights):
    """Weights of MISA's auxiliary losses (Hazarika et al. 2020, eq. 11)."""

    similarity: float = Field(0.3, ge=0, description="central moment discrepancy of the shared vectors")
    difference: float = Field(0.1, ge=0, description="orthogonality of private and shared vectors")
    reconstruction: float = Field(1.0, ge=0, description="mean squared error of each modality's reconstruction")


@register_method("misa")
class MISA(Method):
    """A private and a shared vector per modality, fused by a transformer (Hazarika et al. 2020).

    Parameters at ``mosi`` with 768/5/20: 1,134,445. MMSA's are 1,138,033 without its text encoder: it makes a layer
    norm for text (3,072) and a discriminator (516) that take no part in training.

    The presets are MMSA's, which feed audio and vision as they come (``standardise`` is empty). Text arrives as frozen
    token states and is averaged over real tokens, which is what the paper does with a BERT that it fine-tunes; for word
    vectors that stay as they are, the authors' code reads text with the stacked LSTMs too: ``text_recurrent`` (there as
    wide as the input). Audio and vision are read to their own ends, while MMSA cuts them at the number of words. Nothing
    depends on the rest of the batch but the similarity and difference losses, which are defined over it.

    With one modality there is no pair to make similar: that loss is 0.
    Representations: ``private_<modality>`` and ``shared_<modality>``, (B, hidden), and ``fused``, (B, 2 modalities hidden).
    """

    class Config(MethodConfig):
        task_loss: TaskLoss | None = Field("mse", description="loss on the prediction; cross_entropy for classes")
        hidden: PositiveInt = Field(
            128, description="width of private and shared vectors; even", json_schema_extra=tunable(choices=(64, 128, 256))
        )
        dropout: Rate = Field(0.2, description="on the hidden layer before the output", json_schema_extra=tunable(0.0, 0.6))
        recurrent: PositiveInt | None = Field(None, description="width of the LSTMs of audio and vision; unset: the input's, as published")
        text_recurrent: PositiveInt | None = Field(
            None, description="width of LSTMs that read text; unset: the mean over tokens, as published for a fine-tuned encoder"
        )
        moments: PositiveInt = Field(5, description="moments that the similarity loss compares")
        orthogonal_init: bool = Field(False, description="orthogonal hidden-to-hidden weights at the start (the authors' code, not MMSA's)")
        weights: Weights = Weights()
        training: Training = Training(batch_size=16, accumulate=2, learning_rate=1e-4, clip_value=0.8, standardise=())

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "mosi": {},
        "mosei": {
            "dropout": 0.5,
            "weights": {"similarity": 0.8, "difference": 0.3, "reconstruction": 1.0},
            "training": {"batch_size": 64, "accumulate": 2, "learning_rate": 1e-4, "clip_value": 0.8, "standardise": ()},
        },
    }
    reference = "Hazarika et al. 2020, MISA: Modality-Invariant and -Specific Representations, ACM Multimedia"

    def __init__(self, inputs: Inputs, task: Task, config: Config) -> None:
        super().__init__(inputs, task, config)
        self.task, self.config = task, config
        width, fused = config.hidden, 2 * config.hidden * len(inputs.dims)
        recurrent = {name: config.recurrent or dim for name, dim in inputs.dims.items() if name != "text"}
        if config.text_recurrent and "text" in inputs.dims:
            recurrent["text"] = config.text_recurrent
        self.recurrent = nn.ModuleDict({name: StackedBiLSTM(inputs.dims[name], hidden) for name, hidden in recurrent.items()})
        read = {name: 4 * recurrent[name] if name in recurrent else dim for name, dim in inputs.dims.items()}
        self.project = nn.ModuleDict(
            {name: nn.Sequential(nn.Linear(dim, width), nn.ReLU(), nn.LayerNorm(width)) for name, dim in read.items()}
        )
        self.private = nn.ModuleDict({name: nn.Sequential(nn.Linear(width, width), nn.Sigmoid()) for name in read})
        self.shared = nn.Sequential(nn.Linear(width, width), nn.Sigmoid())
        self.reconstruct = nn.ModuleDict({name: nn.Linear(width, width) for name in read})
        drop = Dropouts(attention=ENCODER_DROPOUT, activation=ENCODER_DROPOUT, residual=ENCODER_DROPOUT)
        self.fusion = EncoderLayer(width, HEADS, INNER, drop, norm_first=False)
        self.out = nn.Sequential(nn.Linear(fused, fused // 2), Dropout(config.dropout), nn.ReLU(), nn.Linear(fused // 2, task.outputs))
        if config.orthogonal_init:
            for module in self.modules():
                if isinstance(module, BiLSTM):
                    module.orthogonal()

    def forward(self, batch: Batch) -> Output:
        whole = {name: project(self._utterance(batch, name)) for name, project in self.project.items()}
        private = {name: self.private[name](x) for name, x in whole.items()}
        shared = {name: self.shared(x) for name, x in whole.items()}
        parts = torch.stack([*private.values(), *shared.values()], dim=1)
        fused = self.fusion(parts, parts).flatten(1)
        y = self.out(fused)
        named = {f"private_{name}": x for name, x in private.items()} | {f"shared_{name}": x for name, x in shared.items()}
        return Output(y.squeeze(1) if self.task.kind == "regression" else y, self._losses(whole, private, shared), named | {"fused": fused})

    def _utterance(self, batch: Batch, name: str) -> Tensor:
        """One vector per clip: the LSTMs' final states, (B, 4 hidden); without LSTMs the mean over real tokens, (B, dim)."""
        if name not in self.recurrent:
            return batch.mean(name)
        return self.recurrent[name](batch.features[name], batch.lengths[name])  # type: ignore[no-any-return]

    def _losses(self, whole: dict[str, Tensor], private: dict[str, Tensor], shared: dict[str, Tensor]) -> dict[str, Tensor]:
        """Similarity and reconstruction are means over pairs and modalities, difference is a sum, as published."""
        alike = [cmd(x, y, self.config.moments) for x, y in combinations(shared.values(), 2)]
        apart = [orthogonality(private[name], shared[name]) for name in whole]
        apart += [orthogonality(x, y) for x, y in combinations(private.values(), 2)]
        errors = [F.mse_loss(self.reconstruct[name](private[name] + shared[name]), x) for name, x in whole.items()]
        return {
            "similarity": torch.stack(alike).mean() if alike else next(iter(whole.values())).new_zeros(()),
            "difference": torch.stack(apart).sum(),
            "reconstruction": torch.stack(errors).mean(),
        }
