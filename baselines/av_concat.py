"""Concatenation and fully connected layers over both networks' vectors (early fusion of MKCC's table 3).

Reference: Su et al. 2020, table of RAVDESS ("Concat + FC"; MKCC cites Middya et al. 2022 for it). No equations, no code of it.

Open, and read as: a hidden layer of 256, which gives the published 26.87 million parameters if both networks keep their heads; ReLU,
dropout .2. The authors start from networks that were trained alone; here these heads' losses train them along
(``weights.unimodal``; 0: the concatenation's loss alone).

Not reproduced: the best epoch chosen on the test fold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field, PositiveInt
from torch import nn

from harness.nn.dropout import Dropout
from harness.training import Batch, Inputs, Method, Output, Task, register_method
from harness.training.audiovisual import FACES, StreamConfig, UnimodalLoss, UnimodalWeights, presets, shaped
from harness.training.by_modality import Rate


@register_method("av_concat")
class Concat(Method):
    """Vectors of all modalities' networks, two layers: 26,868,664 parameters at ``ravdess`` with 13 MFCC and 224 x 224 colours.

    Representations: each network's vector, and ``fused``, the hidden layer.
    """

    class Config(StreamConfig):
        hidden: PositiveInt = Field(256, description="width of the layer after the concatenation")
        fused_dropout: Rate = Field(0.2, description="after that layer")
        weights: UnimodalWeights = UnimodalWeights()

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = presets(FACES)
    reference = "Su et al. 2020, MSAF: Multimodal Split Attention Fusion, arXiv:2012.07175 (its baseline 'Concat + FC')"

    def __init__(self, inputs: Inputs, task: Task, config: Config) -> None:
        super().__init__(inputs, task, config)
        self.task = task
        self.streams = config.streams(inputs, task)
        width = sum(stream.width for stream in self.streams.each.values())
        self.fuse = nn.Sequential(nn.Linear(width, config.hidden), nn.ReLU(), Dropout(config.fused_dropout))
        self.out = nn.Linear(config.hidden, task.outputs)
        self.loss = UnimodalLoss(config, task)

    def forward(self, batch: Batch) -> Output:
        vectors = self.streams(batch.features, batch.lengths)
        fused = self.fuse(torch.cat(list(vectors.values()), dim=1))
        heads = [shaped(y, self.task) for y in self.streams.heads(vectors).values()]
        losses = {} if batch.labels is None else {"unimodal": self.loss(batch, heads)}
        return Output(shaped(self.out(fused), self.task), losses, vectors | {"fused": fused})
