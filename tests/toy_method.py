"""A small method in a file of its own, as a user would write one; its settings make it fail, die or dawdle on purpose."""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from pathlib import Path

import torch
from pydantic import Field
from torch import nn

from harness.training import Batch, Inputs, LossWeights, Method, MethodConfig, Output, Task, Training, register_method
from harness.training.ranges import tunable


class Weights(LossWeights):
    size: float = Field(0.01, ge=0, description="mean square of the hidden layer")


@register_method("toy")
class Toy(Method):
    """Mean of every modality, one hidden layer with dropout."""

    class Config(MethodConfig):
        hidden: int = Field(8, ge=1, description="width of the hidden layer", json_schema_extra=tunable(4, 32, log=True))
        dropout: float = Field(0.3, ge=0, lt=1, description="dropout on the hidden layer", json_schema_extra=tunable(0.0, 0.6))
        trouble: str = Field("", description="nan, crash, die, die_once:PATH, hang, memory, limit or linger, in training")
        pause: float = Field(0.0, ge=0, description="seconds to wait in every training batch")
        weights: Weights = Weights()
        training: Training = Training(batch_size=16, max_epochs=6, patience=6)

    def __init__(self, inputs: Inputs, task: Task, config: Config) -> None:
        super().__init__(inputs, task, config)
        self.config = config
        self.modalities = inputs.modalities
        self.hidden = nn.Linear(sum(inputs.dims.values()), config.hidden)
        self.dropout = nn.Dropout(config.dropout)
        self.out = nn.Linear(config.hidden, task.outputs)
        self.classes = task.kind == "classification"

    def forward(self, batch: Batch) -> Output:
        if self.training:
            self._make_trouble()
        hidden = self.dropout(torch.tanh(self.hidden(torch.cat([batch.mean(name) for name in self.modalities], 1))))  # (B, hidden)
        prediction = self.out(hidden)  # (B, outputs)
        if self.config.trouble == "nan":
            prediction = prediction * float("nan")
        return Output(prediction if self.classes else prediction.squeeze(1), losses={"size": hidden.square().mean()})

    def _make_trouble(self) -> None:
        time.sleep(self.config.pause)
        kind, _, path = self.config.trouble.partition(":")
        if kind == "crash":
            raise RuntimeError("a fault in the method")
        if kind == "hang":
            time.sleep(3600)
        if kind == "memory":
            torch.empty(2**50)
        if kind == "limit":
            fill_a_small_memory()
        if kind == "linger" and threading.active_count() < 5:
            threading.Thread(target=time.sleep, args=(3600,)).start()
        if kind == "die" or (kind == "die_once" and not os.path.exists(path)):
            if path:
                open(path, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)


def fill_a_small_memory() -> None:
    """As on a machine with 256 MB left, for a worker process that has its life behind it then."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**28,) * 2)
    kept = []
    while True:
        kept.append(torch.ones(2**22))
