"""A method whose prediction is the label plus an error that depends on the epoch, and is another one on test clips.

Needs ``scripted_dataset`` (tests/test_diagnosis.py): the first text feature is the label, the second says whether a clip is
a test clip. On validation the error at epoch e is |e - 5|, on test |e - 2|. With ``fault`` it does what a method must not.
"""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import nn

from harness.training import Batch, Inputs, Method, MethodConfig, Output, Task, Training, register_method


@register_method("scripted")
class Scripted(Method):
    """Counts its epochs; a batch is all training clips."""

    class Config(MethodConfig):
        fault: str = ""
        training: Training = Training(batch_size=1000, max_epochs=7, patience=7, standardise=())

    def __init__(self, inputs: Inputs, task: Task, config: Config) -> None:
        super().__init__(inputs, task, config)
        self.fault = config.fault
        self.weight = nn.Parameter(torch.zeros(()))
        self.register_buffer("epoch", torch.zeros((), dtype=torch.int64))
        self.hidden = 0.0  # no part of the state_dict

    def forward(self, batch: Batch) -> Output:
        label, test = batch.mean("text")[:, :2].T  # (B,) each
        if batch.labels is not None and bool((test > 0.5).any()):
            raise RuntimeError("test labels reached the method")
        if self.training:
            self.epoch += 1
            self.hidden = float(self.epoch)
        error = torch.where(test > 0.5, (self.epoch - 2).abs(), (self.epoch - 5).abs())
        return Output(label + error + self._fault(test) + 0 * self.weight)

    def _fault(self, test: torch.Tensor) -> float | torch.Tensor:
        if self.training:
            return 0.0
        if self.fault == "draws":
            return float(torch.rand(())) + random.random() + float(np.random.random())
        if self.fault == "outside":
            return self.hidden
        if self.fault == "counts":
            self.hidden += 1.0
            return self.hidden
        if self.fault == "nan" and int(self.epoch) == 2:
            return test * float("inf") if bool((test > 0.5).all()) else 0.0
        if self.fault == "raises" and int(self.epoch) == 2 and bool((test > 0.5).any()):
            raise ValueError("not at epoch 2")
        return 0.0
