"""Task losses, as sums over clips, so that means over batches of unequal size can be formed exactly."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from harness.data.schema import Task
from harness.errors import ConfigError
from harness.registry import suggest
from harness.training.contract import MethodConfig

Objective = Callable[[Tensor, Tensor], Tensor]


def l1(prediction: Tensor, label: Tensor) -> Tensor:
    """Sum of absolute errors; prediction and label (B,)."""
    return F.l1_loss(prediction, label, reduction="sum")


def mse(prediction: Tensor, label: Tensor) -> Tensor:
    """Sum of squared errors; prediction and label (B,)."""
    return F.mse_loss(prediction, label, reduction="sum")


def cross_entropy(prediction: Tensor, label: Tensor) -> Tensor:
    """Sum of cross-entropies; prediction (B, classes) logits, label (B,) int64."""
    return F.cross_entropy(prediction, label, reduction="sum")


_BY_KIND: dict[str, dict[str, Objective]] = {
    "regression": {"l1": l1, "mse": mse},
    "classification": {"cross_entropy": cross_entropy},
}


def task_objective(config: MethodConfig, task: Task) -> Objective:
    """The loss that ``config`` names for ``task``; a regression loss on a classification task falls to its default.

    A method whose published loss is a regression's (say, MSE) still serves classes: there cross-entropy stands in.
    """
    known = _BY_KIND[task.kind]
    if config.task_loss is None or (task.kind == "classification" and config.task_loss in _BY_KIND["regression"]):
        return next(iter(known.values()))
    if config.task_loss not in known:
        raise ConfigError(f"task_loss = '{config.task_loss}' does not fit a {task.kind} task", suggest(config.task_loss, known))
    return known[config.task_loss]
