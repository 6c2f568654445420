"""Optimisers and learning-rate schedules, by name."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from harness.training.contract import Method
from harness.training.settings import Training


def make_optimiser(method: Method, settings: Training) -> Optimizer:
    """The optimiser that ``settings`` names over the method's own parameter groups."""
    groups = method.parameter_groups(settings)
    shared = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    optimiser: Optimizer
    match settings.optimiser:
        case "adam":
            optimiser = eager(torch.optim.Adam)(groups, **shared, fused=True)
        case "adamw":
            optimiser = eager(torch.optim.AdamW)(groups, **shared, fused=True)
        case "adamax":
            optimiser = eager(torch.optim.Adamax)(groups, **shared)
        case "sgd":
            optimiser = eager(torch.optim.SGD)(groups, **shared, momentum=settings.momentum)
    return optimiser


@cache
def eager(kind: type[Optimizer]) -> type[Any]:
    """``kind`` without the wrappers by which ``torch.compile`` leaves optimisers out.

    They import PyTorch's compiler when they are first called, compiled or not: a second, and 66 MB of every worker.
    """
    names = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    plain = {name: inspect.unwrap(getattr(kind, name)) for name in names}
    return type(kind.__name__, (kind,), plain | {"step": torch.no_grad()(inspect.unwrap(kind.step))})


class Schedule:
    """Moves the learning rate after steps and epochs; ``steps`` is the number of optimiser steps per epoch."""

    def __init__(self, optimiser: Optimizer, settings: Training, steps: int) -> None:
        self._by_step: LambdaLR | None = None
        self._by_epoch: ReduceLROnPlateau | LambdaLR | None = None
        if settings.schedule == "cosine":
            factor = partial(cosine, total=steps * settings.max_epochs, warmup=settings.warmup)
            self._by_step = LambdaLR(optimiser, factor)
        if settings.schedule == "plateau":
            self._by_epoch = ReduceLROnPlateau(optimiser, factor=settings.plateau_factor, patience=settings.plateau_patience)
        if settings.schedule == "milestones":
            fallen = partial(milestones, after=settings.milestones, by=settings.milestone_factor)
            self._by_epoch = LambdaLR(optimiser, fallen)

    def after_step(self) -> None:
        if self._by_step is not None:
            self._by_step.step()

    def after_epoch(self, valid_loss: float) -> None:
        if isinstance(self._by_epoch, ReduceLROnPlateau):
            self._by_epoch.step(valid_loss)
        elif self._by_epoch is not None:
            self._by_epoch.step()

    def state(self) -> dict[str, Any]:
        inner = self._by_step or self._by_epoch
        return {key: value for key, value in inner.state_dict().items() if key != "lr_lambdas"} if inner else {}

    def restore(self, state: dict[str, Any]) -> None:
        for inner in (self._by_step, self._by_epoch):
            if inner is not None:
                inner.__dict__.update(state)


def cosine(step: int, *, total: int, warmup: float) -> float:
    """Rate factor at ``step`` of ``total``: linear rise over the share ``warmup``, then half a cosine down to 0."""
    rise = warmup * total
    if step < rise:
        return (step + 1) / max(rise, 1.0)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1.0, total - rise))))


def milestones(epochs: int, *, after: Sequence[int], by: float) -> float:
    """Rate factor once ``epochs`` are done: ``by`` to the power of how many of the epochs ``after`` are past."""
    return by ** sum(epoch <= epochs for epoch in after)
