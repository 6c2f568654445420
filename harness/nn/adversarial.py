"""Parts of adversarial training in one backward pass: a gradient that changes sign, and the classifier it fools."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * -ctx.scale, None


def reverse_gradient(x: Tensor, scale: float = 1.0) -> Tensor:
    """``x`` itself, of any shape; its gradient is multiplied by -``scale`` (Ganin and Lempitsky 2015)."""
    return _Reverse.apply(x, scale)  # type: ignore[no-untyped-call, no-any-return]


class Discriminator(nn.Module):
    """A two-layer classifier: x (..., width) -> logits (..., classes); leaky ReLU of slope 0.1 between."""

    def __init__(self, width: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, hidden), nn.LeakyReLU(0.1), nn.Linear(hidden, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)  # type: ignore[no-any-return]
