"""Task losses, as sums over clips, so that means over batches of unequal size can be formed exactly."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor

from harness.data.schema import Task
from harness.errors import ConfigError
from harness.nn.focal import DynamicFocal, WeightedFocal, calibrated_focal, focal
from harness.registry import suggest
from harness.training.contract import MethodConfig
from harness.training.settings import FocalLoss

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


_REGRESSION: dict[str, Objective] = {"l1": l1, "mse": mse}


def task_objective(config: MethodConfig, task: Task) -> Objective:
    """The loss that ``config`` names for ``task``, the same in every epoch: what selects the best one, and serves further heads.

    A loss of the other kind falls to the task's default if it is a regression's or the method's own default: a method that
    is published for intensities (say, with MSE) still serves classes, and one for classes intensities.
    """
    known = _REGRESSION if task.kind == "regression" else _classification(config.focal)
    name = config.task_loss
    if name is None or (name not in known and (name in _REGRESSION or name == type(config).model_fields["task_loss"].default)):
        return next(iter(known.values()))
    if name not in known:
        raise ConfigError(f"task_loss = '{name}' does not fit a {task.kind} task", suggest(name, known))
    return known[name]


def training_objective(config: MethodConfig, task: Task) -> Objective:
    """``task_objective``, or the loss with weights from the epoch before that it stands for with weights of 1 (EpochWeighted)."""
    classes, gamma = len(task.classes), config.focal.gamma
    if classes and config.task_loss == "weighted_focal":
        return WeightedFocal(classes, gamma, config.focal.class_weight, "sum")
    if classes and config.task_loss == "fldw":
        return DynamicFocal(classes, gamma, "sum")
    return task_objective(config, task)


def _classification(settings: FocalLoss) -> dict[str, Objective]:
    """Losses of classification by name, the default first."""
    plain = partial(focal, gamma=settings.gamma, reduction="sum")
    calibrated = partial(calibrated_focal, gamma=settings.gamma, form=settings.calibration, weight=settings.entropy_weight, reduction="sum")
    return {"cross_entropy": cross_entropy, "focal": plain, "weighted_focal": plain, "calibrated_focal": calibrated, "fldw": plain}
