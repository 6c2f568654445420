"""Averaging: the mean of what each modality's own network says (late fusion of MKCC's table 3).

Reference: Su et al. 2020, table of RAVDESS ("Averaging"). There are no equations, and no code of it.

Open, and read as: ``scores`` says what is averaged, probabilities (default) or logits. The networks are trained together, each by its
own loss alone: no parameter of one enters another's loss, and Adam treats every parameter by itself, so they are those that
training apart in the same batches would give, but for the epoch that is kept, which is the best one of the average.

Not reproduced: the best epoch chosen on the test fold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from harness.training import Batch, Inputs, Method, Output, Task, register_method
from harness.training.audiovisual import FACES, StreamConfig, UnimodalLoss, UnimodalWeights, presets, shaped


@register_method("av_average")
class Average(Method):
    """Mean of the scores of one network per modality: 25,916,080 parameters at ``ravdess`` with 13 MFCC and 224 x 224 colours.

    The average teaches nothing (its gradient is cut), ``weights.unimodal`` weighs the networks' own losses. These are ``task_loss``
    as it selects: where its weights change by epoch, without them. Prediction: logarithm of the mean probability, mean logit
    or mean intensity. Representations: each network's vector.
    """

    class Config(StreamConfig):
        scores: Literal["probabilities", "logits"] = Field(
            "probabilities", description="what is averaged; of intensities, these themselves"
        )
        weights: UnimodalWeights = UnimodalWeights()

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = presets(FACES)
    reference = "Su et al. 2020, MSAF: Multimodal Split Attention Fusion, arXiv:2012.07175 (its baseline 'Averaging')"

    def __init__(self, inputs: Inputs, task: Task, config: Config) -> None:
        super().__init__(inputs, task, config)
        self.task, self.config = task, config
        self.streams = config.streams(inputs, task)
        self.loss = UnimodalLoss(config, task)

    def forward(self, batch: Batch) -> Output:
        vectors = self.streams(batch.features, batch.lengths)
        predictions = [shaped(y, self.task) for y in self.streams.heads(vectors).values()]
        losses = {} if batch.labels is None else {"unimodal": self.loss(batch, predictions)}
        return Output(self._mean(torch.stack(predictions).detach()), losses, vectors)

    def _mean(self, y: Tensor) -> Tensor:
        """y (modalities, B[, classes]) -> (B[, classes])."""
        if self.task.kind == "regression" or self.config.scores == "logits":
            return y.mean(0)
        return y.log_softmax(2).logsumexp(0) - torch.tensor(float(len(y)), dtype=y.dtype, device=y.device).log()
