"""KAN linear as it is usually written: the recursion of Cox and de Boor over all knots, gradients left to autograd.

What the library's layer is timed against. Parameters are laid out alike, so that they can be copied.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def bases(x: Tensor, knots: Tensor, order: int) -> Tensor:
    """B-splines of degree ``order`` on ``knots``: x (...) -> (..., len(knots) - order - 1)."""
    x = x[..., None]
    found = ((x >= knots[:-1]) & (x < knots[1:])).to(x.dtype)
    for p in range(1, order + 1):
        rising = (x - knots[: -p - 1]) / (knots[p:-1] - knots[: -p - 1])
        falling = (knots[p + 1 :] - x) / (knots[p + 1 :] - knots[1:-p])
        found = rising * found[..., :-1] + falling * found[..., 1:]
    return found


class PlainKANLinear(nn.Module):
    """x (N, inputs) -> (N, outputs) on [-1, 1]; zero outside the extended knots."""

    knots: Tensor

    def __init__(self, inputs: int, outputs: int, grid: int = 5, order: int = 3) -> None:
        super().__init__()
        self.order = order
        self.coefficients = nn.Parameter(torch.randn(outputs, inputs, grid + order) * 0.1)
        self.base = nn.Parameter(torch.randn(outputs, inputs) * 0.1)
        self.register_buffer("knots", torch.arange(-order, grid + order + 1) * (2 / grid) - 1)

    def forward(self, x: Tensor) -> Tensor:
        spline = F.linear(bases(x, self.knots, self.order).flatten(1), self.coefficients.flatten(1))
        return F.linear(F.silu(x), self.base) + spline
