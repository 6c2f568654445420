"""FDMER: feature-disentangled multimodal emotion recognition, in our reading."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from harness.nn.adversarial import Discriminator, reverse_gradient
from harness.nn.attention import Dropouts, EncoderLayer
from harness.nn.dependence import hsic_of_grams
from harness.nn.divergences import cmd, orthogonality
from harness.nn.dropout import Dropout
from harness.nn.utterances import ClipVectors, project
from harness.training import Batch, Inputs, LossWeights, Method, MethodConfig, Output, Task, Training, register_method
from harness.training.by_modality import Rate
from harness.training.ranges import tunable
from harness.training.settings import TaskLoss

INNER, ENCODER_DROPOUT = 2048, 0.1  # of the fusion layer, as in MISA
TRAINING = {"learning_rate": 1e-4, "clip_value": 1.0, "schedule": "plateau", "plateau_factor": 0.5, "plateau_patience": 6, "patience": 20}


class Weights(LossWeights):
    """Weights of the auxiliary losses; the published ones are not known."""

    consistency: float = Field(0.1, ge=0, description="distance between the modalities' common vectors")
    disparity: float = Field(0.1, ge=0, description="dependence of private and common vectors")
    discrimination: float = Field(0.1, ge=0, description="cross-entropy of the modality told from a private vector")
    confusion: float = Field(0.1, ge=0, description="cross-entropy of the modality told from a common vector; its encoders maximise it")


@register_method("fdmer")
class FDMER(Method):
    """FDMER (our reading): common and private vectors that a modality discriminator guides (Yang et al. 2022).

    Neither code nor equations could be had, only the abstract: common and private encoders, a consistency and a
    disparity loss, an adversarial modality discriminator, cross-modal attention that weighs what is fused. All below
    is our reading of it, no number is the authors', and a row in a table must say so. Parameters at ``mosi`` with
    768/5/20: 1,093,360.

    * Vectors of clips, their projection and the fusion layer are MISA's, which the paper builds on.
    * Common vectors: Linear and sigmoid, shared. Private vectors: the same, one per modality.
    * ``consistency``: mean squared difference of two modalities' similarity matrices, X X^T of rows of unit length (or
      MISA's central moment discrepancy). A mean over pairs, as the discriminator's losses are means over vectors.
    * ``disparity``: Hilbert-Schmidt independence criterion with those matrices as kernels, of a modality's private and
      common vectors and of two modalities' private vectors (or MISA's orthogonality); a sum, as MISA's.
    * The discriminator's gradient is reversed on its way to common vectors, not to private ones.
    * Adaptive weights are those of the attention over all vectors.
    * Training is that of MISA's authors; batch sizes are theirs for each data set.

    With one modality there is nothing to tell apart or to make alike: no discriminator is made, three losses are 0.
    Representations: ``private_<modality>`` and ``common_<modality>``, (B, hidden), and ``fused``, (B, 2 modalities hidden).
    """

    class Config(MethodConfig):
        task_loss: TaskLoss | None = Field("mse", description="loss on the prediction; cross_entropy for classes")
        hidden: PositiveInt = Field(
            128, description="width of private and common vectors; even", json_schema_extra=tunable(choices=(64, 128, 256))
        )
        heads: PositiveInt = Field(2, description="heads of the fusion's attention; must divide hidden")
        dropout: Rate = Field(0.5, description="on the hidden layer before the output", json_schema_extra=tunable(0.0, 0.6))
        consistency: Literal["similarity", "cmd"] = Field("similarity", description="what makes common vectors alike")
        disparity: Literal["hsic", "orthogonality"] = Field("hsic", description="what keeps private vectors apart")
        discriminator_hidden: PositiveInt = Field(
            64, description="hidden units of the modality discriminator", json_schema_extra=tunable(16, 128, log=True)
        )
        reversal: float = Field(1.0, ge=0, description="factor of the reversed gradient", json_schema_extra=tunable(0.1, 2.0, log=True))
        recurrent: PositiveInt | None = Field(None, description="width of the LSTMs of audio and vision; unset: the input's")
        text_recurrent: PositiveInt | None = Field(None, description="width of LSTMs that read text; unset: the mean over tokens")
        weights: Weights = Weights()
        training: Training = Training(batch_size=64, **TRAINING)

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "mosi": {},
        "mosei": {"training": {"batch_size": 16, **TRAINING}},
        "ur_funny": {"training": {"batch_size": 32, **TRAINING}},
    }
    reference = "our reading of Yang et al. 2022, Disentangled Representation Learning for Multimodal Emotion Recognition, ACM Multimedia"

    def __init__(self, inputs: Inputs, task: Task, config: Config) -> None:
        super().__init__(inputs, task, config)
        self.task, self.config = task, config
        width, fused = config.hidden, 2 * config.hidden * len(inputs.dims)
        self.read = ClipVectors(inputs.dims, config.recurrent, config.text_recurrent)
        self.project = nn.ModuleDict({name: project(dim, width) for name, dim in self.read.widths.items()})
        self.private = nn.ModuleDict({name: nn.Sequential(nn.Linear(width, width), nn.Sigmoid()) for name in inputs.dims})
        self.common = nn.Sequential(nn.Linear(width, width), nn.Sigmoid())
        modalities = len(inputs.dims)
        self.discriminator = Discriminator(width, config.discriminator_hidden, modalities) if modalities > 1 else None
        drop = Dropouts(attention=ENCODER_DROPOUT, activation=ENCODER_DROPOUT, residual=ENCODER_DROPOUT)
        self.fusion = EncoderLayer(width, config.heads, INNER, drop, norm_first=False)
        self.out = nn.Sequential(nn.Linear(fused, fused // 2), Dropout(config.dropout), nn.ReLU(), nn.Linear(fused // 2, task.outputs))

    def forward(self, batch: Batch) -> Output:
        whole = {name: self.project[name](x) for name, x in self.read(batch.features, batch.lengths).items()}
        private = {name: self.private[name](x) for name, x in whole.items()}
        common = {name: self.common(x) for name, x in whole.items()}
        parts = torch.stack([*private.values(), *common.values()], dim=1)
        fused = self.fusion(parts, parts).flatten(1)
        y = self.out(fused)
        named = {f"private_{name}": x for name, x in private.items()} | {f"common_{name}": x for name, x in common.items()}
        losses = self._losses(list(private.values()), list(common.values()))
        return Output(y.squeeze(1) if self.task.kind == "regression" else y, losses, named | {"fused": fused})

    def _losses(self, private: list[Tensor], common: list[Tensor]) -> dict[str, Tensor]:
        alike = {"similarity": similarity_distance, "cmd": cmd}[self.config.consistency]
        apart = {"hsic": dependence, "orthogonality": orthogonality}[self.config.disparity]
        distances = [alike(x, y) for x, y in combinations(common, 2)]
        pairs = [*zip(private, common, strict=True), *combinations(private, 2)]
        none = private[0].new_zeros(())
        return {
            "consistency": torch.stack(distances).mean() if distances else none,
            "disparity": torch.stack([apart(x, y) for x, y in pairs]).sum(),
            "discrimination": self._told(torch.stack(private)) if self.discriminator else none,
            "confusion": self._told(reverse_gradient(torch.stack(common), self.config.reversal)) if self.discriminator else none,
        }

    def _told(self, vectors: Tensor) -> Tensor:
        """Mean cross-entropy of each vector's modality: vectors (modalities, B, hidden)."""
        assert self.discriminator is not None
        modality = torch.arange(len(vectors), device=vectors.device).repeat_interleave(vectors.shape[1])
        return F.cross_entropy(self.discriminator(vectors.flatten(0, 1)), modality)


def similarities(x: Tensor) -> Tensor:
    """Cosines between all clips' vectors: x (B, D) -> (B, B)."""
    unit = F.normalize(x, dim=1)
    return unit @ unit.T


def similarity_distance(x: Tensor, y: Tensor) -> Tensor:
    """Mean squared difference of two samples' ``similarities``; x, y (B, D), a scalar."""
    return (similarities(x) - similarities(y)).square().mean()


def dependence(x: Tensor, y: Tensor) -> Tensor:
    """Hilbert-Schmidt independence criterion of x and y (B, D) with ``similarities`` as kernels; a scalar >= 0."""
    return hsic_of_grams(similarities(x), similarities(y))
