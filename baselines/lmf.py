"""LMF: low-rank multimodal fusion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from harness.nn.subnets import Utterances
from harness.training import Batch, Inputs, Method, MethodConfig, Output, Task, Training, register_method
from harness.training.by_modality import ByModality, Rate
from harness.training.ranges import tunable


@register_method("lmf")
class LMF(Method):
    """TFN's tensor with a low-rank weight (Liu et al. 2018); parameters at ``mosi`` with 768/5/20: 505,071.

    The presets are MMSA's. Departures from its code, none of which changes the number of parameters:

    * The weights over ranks and the bias are trained; MMSA's optimiser leaves them out.
    * The text LSTM is read at a clip's last real word, audio and vision are averaged over real frames only.
    * ``dropout.text`` acts on the LSTM's state; MMSA gives it to a one-layer LSTM, which ignores it.
    * The peers' dropout after fusion is declared and never used; so there is none.

    As in the authors' code, ranks are summed with learned weights (the paper's eq. 7 sums them plainly).
    Representations: each modality's vector.
    """

    class Config(MethodConfig):
        hidden: ByModality[PositiveInt] = Field(
            ByModality[PositiveInt](text=128, audio=16, vision=128),
            description="width of each modality's network",
            json_schema_extra=tunable(16, 256, log=True),
        )
        text_out: PositiveInt = Field(
            64, description="width of the text vector; the peers take half of hidden.text", json_schema_extra=tunable(16, 128, log=True)
        )
        rank: PositiveInt = Field(3, description="rank of the weight tensor", json_schema_extra=tunable(1, 12))
        dropout: ByModality[Rate] = Field(
            ByModality[Rate](text=0.3, audio=0.3, vision=0.3), description="in each modality's network", json_schema_extra=tunable(0.0, 0.6)
        )
        factor_learning_rate: float = Field(
            1e-3,
            gt=0,
            description="learning rate of the factors; training.learning_rate is the others'",
            json_schema_extra=tunable(1e-4, 1e-2, log=True),
        )
        training: Training = Training(batch_size=64, learning_rate=1e-3, weight_decay=0.005)

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "mosi": {},
        "mosei": {
            "rank": 4,
            "dropout": {"text": 0.2, "audio": 0.2, "vision": 0.2},
            "training": {"batch_size": 32, "learning_rate": 1e-3, "weight_decay": 0.001},
        },
    }
    reference = "Liu et al. 2018, Efficient Low-rank Multimodal Fusion with Modality-Specific Factors, ACL"

    def __init__(self, inputs: Inputs, task: Task, config: Config) -> None:
        super().__init__(inputs, task, config)
        self.task, self.config = task, config
        self.encode = Utterances(inputs.dims, config.hidden.model_dump(), config.text_out, config.dropout.model_dump())
        self.factors = nn.ParameterDict(
            {name: nn.init.xavier_normal_(torch.empty(config.rank, width + 1, task.outputs)) for name, width in self.encode.widths.items()}
        )
        self.rank_weights = nn.Parameter(nn.init.xavier_normal_(torch.empty(1, config.rank)))
        self.bias = nn.Parameter(torch.zeros(task.outputs))

    def forward(self, batch: Batch) -> Output:
        vectors = self.encode(batch.features, batch.lengths)
        y = self.fuse(vectors)
        return Output(y.squeeze(1) if self.task.kind == "regression" else y, representations=vectors)

    def fuse(self, vectors: Mapping[str, Tensor]) -> Tensor:
        """Product of the low-rank weight tensor with the outer product of all [1; z], (B, outputs), never forming either.

        Liu et al. 2018, eq. 6 and 7.
        """
        product = torch.ones((), dtype=self.bias.dtype, device=self.bias.device)
        for name, z in vectors.items():
            product = product * (F.pad(z, (1, 0), value=1.0) @ self.factors[name])
        return (self.rank_weights.view(-1, 1, 1) * product).sum(0) + self.bias

    def parameter_groups(self, training: Training) -> list[dict[str, Any]]:
        factors = list(self.factors.values())
        known = {id(factor) for factor in factors}
        others = [parameter for parameter in self.parameters() if id(parameter) not in known]
        return [{"params": factors, "lr": self.config.factor_learning_rate}, {"params": others}]
