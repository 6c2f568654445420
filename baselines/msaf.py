"""MSAF: multimodal split attention between the networks of film and sound.

Reference: Su et al. 2020, section 3 (harness.nn.gating.SplitAttention), section 4.2 for RAVDESS.

Open, and read as: networks start from scratch. The authors start from networks that were trained alone on the same fold
(``harness`` has no weights to start from); cross-entropy on the sum of both heads' logits, Adam at 1e-3, batches of 4, 70 epochs.
With ``least`` 0, the published value, 66 gates sum to 1: channels shrink to a sixty-sixth on average, which batch norm undoes in
training.

Not reproduced: block dropout that is applied twice (kept blocks come out times 1.5625 in training); padding of the wrong size where
blocks do not divide a modality's channels; a stem without its ReLU; crops and flips drawn anew for every frame; scales
above the picture; pictures squeezed before the face is cut out; blue-green-red frames normalised as red-green-blue; actors 04, 14 and
24 read as 0, 1 and 2; the best epoch chosen on the test fold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field, PositiveInt
from torch import nn

from harness.nn.gating import SplitAttention
from harness.training import Batch, Inputs, Method, Output, Task, register_method
from harness.training.audiovisual import FACES, StreamConfig, presets, shaped
from harness.training.by_modality import Rate


@register_method("msaf")
class MSAF(Method):
    """Networks of all modalities joined by split attention at two sites: 25,940,724 parameters at ``ravdess`` with 13 MFCC, 224 x 224.

    A single modality attends among its own blocks. Representations: each network's vector.
    """

    class Config(StreamConfig):
        block_channels: tuple[PositiveInt, PositiveInt] = Field((16, 32), description="channels of a block at the two sites")
        reduction: PositiveInt = Field(4, description="how much narrower the joint layer is than a block")
        block_dropout: Rate = Field(0.2, description="probability that a clip loses a block")
        least: float = Field(0.0, ge=0, le=1, description="smallest gate (lambda)")

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = presets(FACES)
    reference = "Su et al. 2020, MSAF: Multimodal Split Attention Fusion, arXiv:2012.07175"

    def __init__(self, inputs: Inputs, task: Task, config: Config) -> None:
        super().__init__(inputs, task, config)
        self.task = task
        self.streams = config.streams(inputs, task)
        self.attention = nn.ModuleList(
            SplitAttention(self.streams.sites(site), block, config.reduction, config.block_dropout, config.least)
            for site, block in enumerate(config.block_channels)
        )

    def forward(self, batch: Batch) -> Output:
        first, second = self.attention
        x = self.streams.late(first(self.streams.early(batch.features, batch.lengths)))
        vectors = self.streams.vectors(second(x))
        logits = torch.stack(list(self.streams.heads(vectors).values()))
        return Output(shaped(logits.sum(0), self.task), representations=vectors)
