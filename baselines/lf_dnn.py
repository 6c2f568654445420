"""LF-DNN: late fusion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field, PositiveInt
from torch import nn

from harness.nn.dropout import Dropout
from harness.nn.subnets import Utterances
from harness.training import Batch, Inputs, Method, MethodConfig, Output, Task, Training, register_method
from harness.training.by_modality import ByModality, Rate
from harness.training.ranges import tunable


@register_method("lf_dnn")
class LFDNN(Method):
    """TFN's network per modality, their vectors side by side, three layers; parameters at ``mosi`` with 768/5/20: 597,171.

    The late-fusion baseline of MMSA, the platform that came with CH-SIMS (Yu et al. 2020); the presets are its own. The
    networks per modality are those of Zadeh et al. 2017, section 4.1. Every modality keeps its own length.

    Faults of the peer that are not reproduced: the text LSTM is read at a clip's last real word, audio and vision are
    averaged over real frames only (there over padding too, which draws short clips towards 0); ``dropout.text`` acts on
    the LSTM's state (there a one-layer LSTM ignores it); a batch of one clip can be trained on.

    Representations: each modality's vector, and ``fused`` (B, post_fusion), the last hidden layer.
    """

    class Config(MethodConfig):
        hidden: ByModality[PositiveInt] = Field(
            ByModality[PositiveInt](text=128, audio=16, vision=128),
            description="width of each modality's network",
            json_schema_extra=tunable(16, 256, log=True),
        )
        text_out: PositiveInt = Field(256, description="width of the text vector", json_schema_extra=tunable(32, 512, log=True))
        post_fusion: PositiveInt = Field(
            128, description="width of the two layers after fusion", json_schema_extra=tunable(32, 256, log=True)
        )
        dropout: ByModality[Rate] = Field(
            ByModality[Rate](text=0.2, audio=0.2, vision=0.2), description="in each modality's network", json_schema_extra=tunable(0.0, 0.6)
        )
        post_fusion_dropout: Rate = Field(0.2, description="on the vectors side by side", json_schema_extra=tunable(0.0, 0.6))
        training: Training = Training(batch_size=128, learning_rate=1e-3, weight_decay=0.01)

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "mosi": {},
        "mosei": {
            "hidden": {"text": 128, "audio": 32, "vision": 128},
            "text_out": 128,
            "training": {"batch_size": 64, "learning_rate": 2e-3, "weight_decay": 0.001},
        },
    }
    reference = "Yu et al. 2020, CH-SIMS: A Chinese Multimodal Sentiment Analysis Dataset, ACL (LF-DNN of its platform MMSA)"

    def __init__(self, inputs: Inputs, task: Task, config: Config) -> None:
        super().__init__(inputs, task, config)
        self.task = task
        self.encode = Utterances(inputs.dims, config.hidden.model_dump(), config.text_out, config.dropout.model_dump())
        self.post_fusion = nn.Sequential(
            Dropout(config.post_fusion_dropout),
            *(nn.Linear(sum(self.encode.widths.values()), config.post_fusion), nn.ReLU()),
            *(nn.Linear(config.post_fusion, config.post_fusion), nn.ReLU()),
        )
        self.out = nn.Linear(config.post_fusion, task.outputs)

    def forward(self, batch: Batch) -> Output:
        vectors = self.encode(batch.features, batch.lengths)
        fused = self.post_fusion(torch.cat(list(vectors.values()), dim=1))
        y = self.out(fused)
        return Output(y.squeeze(1) if self.task.kind == "regression" else y, representations=vectors | {"fused": fused})
