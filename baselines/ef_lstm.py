"""EF-LSTM: early fusion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from harness.nn.dropout import Dropout
from harness.nn.memory import align
from harness.nn.recurrent import last_step
from harness.training import Batch, Inputs, Method, MethodConfig, Output, Task, Training, register_method
from harness.training.by_modality import Rate
from harness.training.ranges import tunable

EPSILON, MOMENTUM = 1e-5, 0.1  # as in nn.BatchNorm1d


class StepNorm(nn.Module):
    """Batch norm with a channel per time step: x (B, T, D), zero at padding, T <= ``steps``; lengths (B,) -> (B, T, D).

    In training a step has the mean and variance of all features of all clips that reach it, in evaluation its running
    ones. Equal to ``nn.BatchNorm1d(steps)`` where every clip is that long. The result is meaningless at padding.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(steps))
        self.bias = nn.Parameter(torch.zeros(steps))
        self.register_buffer("running_mean", torch.zeros(steps))
        self.register_buffer("running_var", torch.ones(steps))

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        steps = x.shape[1]
        mean, variance = self._observe(x, lengths) if self.training else (self.running_mean[:steps], self.running_var[:steps])
        scale = self.weight[:steps] * (variance + EPSILON).rsqrt()
        return (x - mean[:, None]) * scale[:, None] + self.bias[:steps, None]

    def _observe(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and (biased) variance by step, (T,) each; moves the running ones at the steps that some clip reaches."""
        real = (torch.arange(x.shape[1], device=x.device) < lengths[:, None])[..., None]
        reached = real.sum((0, 2)) * x.shape[2]
        count = reached.clamp(min=1)
        mean = x.sum((0, 2)) / count
        variance = ((x - mean[:, None]) * real).square().sum((0, 2)) / count
        with torch.no_grad():
            unbiased = variance * count / (count - 1).clamp(min=1)
            for running, now in ((self.running_mean, mean), (self.running_var, unbiased)):
                old = running[: len(now)]
                old += MOMENTUM * (now - old) * (reached > 0)
        return mean, variance


@register_method("ef_lstm")
class EFLSTM(Method):
    """All features of a time step side by side, read by one LSTM; parameters at ``mosi`` with 768/5/20: 885,605.

    The early-fusion baseline of MMSA, the platform that came with CH-SIMS (Yu et al. 2020); the presets are its own.

    Left open, and how it is read:

    * MMSA's data are word-aligned and padded to 50 steps. Here audio and vision are averaged over each word's share of
      the clip's time (without text, the longest modality sets the steps), and a clip of more than ``steps`` steps is
      averaged down to as many; MMSA cuts it there.
    * Its batch norm has a channel per time step, over all features together; so has this one.

    Faults of the peer that are not reproduced: the LSTM is read at a clip's last real step and batch statistics leave
    padding out; a batch of one clip works. The published weight decay is kept: on small sets it can drive the whole
    network to a constant; set ``training.weight_decay`` to 0 to see.

    Representations: ``fused`` (B, hidden), the LSTM's last state.
    """

    class Config(MethodConfig):
        hidden: PositiveInt = Field(128, description="width of the LSTM", json_schema_extra=tunable(32, 256, log=True))
        layers: PositiveInt = Field(4, description="layers of the LSTM", json_schema_extra=tunable(1, 4))
        dropout: Rate = Field(
            0.5,
            description="between layers, on the last state and on the hidden layer before the output",
            json_schema_extra=tunable(0.0, 0.6),
        )
        steps: PositiveInt = Field(50, description="most time steps of a clip")
        training: Training = Training(batch_size=32, learning_rate=1e-3, weight_decay=0.005)

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "mosi": {},
        "mosei": {
            "hidden": 256,
            "layers": 2,
            "dropout": 0.4,
            "training": {"batch_size": 128, "learning_rate": 5e-3, "weight_decay": 1e-4},
        },
    }
    reference = "Yu et al. 2020, CH-SIMS: A Chinese Multimodal Sentiment Analysis Dataset, ACL (EF-LSTM of its platform MMSA)"

    def __init__(self, inputs: Inputs, task: Task, config: Config) -> None:
        super().__init__(inputs, task, config)
        self.task, self.steps = task, config.steps
        hidden, between = config.hidden, config.dropout if config.layers > 1 else 0.0
        self.norm = StepNorm(config.steps)
        self.lstm = nn.LSTM(sum(inputs.dims.values()), hidden, config.layers, batch_first=True, dropout=between)
        self.out = nn.Sequential(
            Dropout(config.dropout),
            *(nn.Linear(hidden, hidden), nn.ReLU(), Dropout(config.dropout)),
            nn.Linear(hidden, task.outputs),
        )

    def forward(self, batch: Batch) -> Output:
        features, lengths = align(batch.features, batch.lengths, self.steps)
        states, _ = self.lstm(self.norm(torch.cat(list(features.values()), dim=2), lengths))
        fused = last_step(states, lengths)
        y = self.out(fused)
        return Output(y.squeeze(1) if self.task.kind == "regression" else y, representations={"fused": fused})
