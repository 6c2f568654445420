"""The floor without inputs."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.training import Batch, Inputs, Method, MethodConfig, Output, Split, Task, register_method


@register_method("majority")
class Majority(Method):
    """The best constant: the training median for intensities (least mean absolute error), the most frequent class else.

    Nothing is trained. Logits are the logarithms of the training split's class frequencies (one clip added to each
    class), so that cross-entropy is finite.
    """

    class Config(MethodConfig):
        """Nothing to set."""

    reference = "constant prediction"
    closed_form = True
    constant: Tensor

    def __init__(self, inputs: Inputs, task: Task, config: Config) -> None:
        super().__init__(inputs, task, config)
        self.task = task
        self.register_buffer("constant", torch.zeros(task.outputs))

    def fit(self, train: Split) -> None:
        assert train.labels is not None
        if self.task.kind == "regression":
            self.constant.copy_(train.labels.quantile(0.5))
        else:
            counts = torch.bincount(train.labels, minlength=self.task.outputs) + 1.0
            self.constant.copy_((counts / counts.sum()).log())

    def forward(self, batch: Batch) -> Output:
        shape = (len(batch),) if self.task.kind == "regression" else (len(batch), self.task.outputs)
        return Output(self.constant.expand(shape))
