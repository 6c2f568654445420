"""TFN: the tensor fusion network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from harness.nn.subnets import Utterances
from harness.nn.tensor_fusion import OuterLinear
from harness.training import Batch, Inputs, Method, MethodConfig, Output, Task, Training, register_method
from harness.training.by_modality import ByModality, Rate
from harness.training.ranges import tunable


@register_method("tfn")
class TFN(Method):
    """Outer product of all modalities' vectors (Zadeh et al. 2017); parameters at ``mosi`` with 768/5/20: 9,497,043.

    The presets are MMSA's. Departures from its code, none of which changes the number of parameters:

    * The text LSTM is read at a clip's last real word, audio and vision are averaged over real frames only.
    * ``dropout.text`` acts on the LSTM's state, as in the paper's code; MMSA gives it to a one-layer LSTM, which ignores it.
    * Intensities are squeezed into the task's range, low + (high - low) sigmoid(.); that is 6 sigmoid(.) - 3 for [-3, 3].
      The original code's range is wider than the labels', 8 sigmoid(.) - 4.

    Representations: each modality's vector, and ``fused`` (B, post_fusion), the last hidden layer.
    """

    class Config(MethodConfig):
        hidden: ByModality[PositiveInt] = Field(
            ByModality[PositiveInt](text=128, audio=32, vision=128),
            description="width of each modality's network",
            json_schema_extra=tunable(16, 256, log=True),
        )
        text_out: PositiveInt = Field(32, description="width of the text vector", json_schema_extra=tunable(16, 128, log=True))
        post_fusion: PositiveInt = Field(
            64, description="width of the two layers after the outer product", json_schema_extra=tunable(16, 128, log=True)
        )
        dropout: ByModality[Rate] = Field(
            ByModality[Rate](text=0.3, audio=0.3, vision=0.3), description="in each modality's network", json_schema_extra=tunable(0.0, 0.6)
        )
        post_fusion_dropout: Rate = Field(0.5, description="on the outer product", json_schema_extra=tunable(0.0, 0.6))
        training: Training = Training(batch_size=32, learning_rate=1e-3)

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "mosi": {},
        "mosei": {
            "hidden": {"text": 128, "audio": 16, "vision": 128},
            "text_out": 128,
            "post_fusion": 16,
            "dropout": {"text": 0.4, "audio": 0.4, "vision": 0.4},
            "post_fusion_dropout": 0.4,
            "training": {"batch_size": 128, "learning_rate": 5e-3},
        },
    }
    reference = "Zadeh et al. 2017, Tensor Fusion Network for Multimodal Sentiment Analysis, EMNLP"

    def __init__(self, inputs: Inputs, task: Task, config: Config) -> None:
        super().__init__(inputs, task, config)
        self.task = task
        self.encode = Utterances(inputs.dims, config.hidden.model_dump(), config.text_out, config.dropout.model_dump())
        self.fuse = OuterLinear(list(self.encode.widths.values()), config.post_fusion, config.post_fusion_dropout)
        self.post_fusion = nn.Sequential(nn.ReLU(), nn.Linear(config.post_fusion, config.post_fusion), nn.ReLU())
        self.out = nn.Linear(config.post_fusion, task.outputs)

    def forward(self, batch: Batch) -> Output:
        vectors = self.encode(batch.features, batch.lengths)
        fused = self.post_fusion(self.fuse(list(vectors.values())))
        return Output(self._prediction(self.out(fused)), representations=vectors | {"fused": fused})

    def _prediction(self, y: Tensor) -> Tensor:
        if self.task.kind == "classification":
            return y
        return self.task.low + (self.task.high - self.task.low) * y.squeeze(1).sigmoid()
