"""MMTM: multimodal transfer modules between the networks of film and sound.

Reference: Vaezi Joze et al. 2020, eq. 1-5 (harness.nn.gating.MMTM); its use on RAVDESS is Su et al. 2020's, who give no code.
MKCC's table 3 cites another paper for it (Nagrani et al. 2021, attention bottlenecks).

Open, and read as: the two sites are those of MSAF on RAVDESS, after the film network's third and fourth stage; the result is the mean of
both heads' logits, as the authors do on NTU. ``gate_scale`` 1 and ``ratio`` 4 are their code; their text has gates of 2 sigmoid,
neutral at 0. The published 31.97 million parameters would need a further head of 3712 - 128 - 8, of which nobody speaks; it is left out.

Not reproduced: weights that an initialisation only prints; the second person's features, which are the first one's again, and whose
gates are never applied (both on NTU); the best epoch chosen on the test fold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field, PositiveInt
from torch import nn

from harness.nn.gating import MMTM
from harness.training import Batch, Inputs, Method, Output, Task, register_method
from harness.training.audiovisual import FACES, StreamConfig, presets, shaped


@register_method("mmtm")
class TransferModules(Method):
    """Networks of all modalities whose channels gate each other twice: 31,496,512 parameters at ``ravdess`` with 13 MFCC, 224 x 224.

    A single modality gates itself. Representations: each network's vector.
    """

    class Config(StreamConfig):
        ratio: PositiveInt = Field(4, description="the joint layer is 2 / ratio as wide as all channels together")
        gate_scale: float = Field(1.0, gt=0, description="of the sigmoid gates: 1 as in the authors' code, 2 as in their text")

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = presets(FACES)
    reference = "Vaezi Joze et al. 2020, MMTM: Multimodal Transfer Module for CNN Fusion, CVPR"

    def __init__(self, inputs: Inputs, task: Task, config: Config) -> None:
        super().__init__(inputs, task, config)
        self.task = task
        self.streams = config.streams(inputs, task)
        self.transfer = nn.ModuleList(MMTM(self.streams.sites(site), config.ratio, config.gate_scale) for site in range(2))

    def forward(self, batch: Batch) -> Output:
        first, second = self.transfer
        x = self.streams.late(first(self.streams.early(batch.features, batch.lengths)))
        vectors = self.streams.vectors(second(x))
        logits = torch.stack(list(self.streams.heads(vectors).values()))
        return Output(shaped(logits.mean(0), self.task), representations=vectors)
