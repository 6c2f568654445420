"""The tensor fusion layer: a linear map of the outer product of all modalities' vectors, without the product in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import reduce
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from harness.nn.dropout import draw, kept

BLOCK = 1 << 13  # columns of the product per block: what a core's second-level cache holds for some 32 clips


def outer(vectors: Sequence[Tensor]) -> Tensor:
    """All products of one entry each of [1; z], over the vectors z (B, D_i): (B, prod(D_i + 1)), the last index fastest.

    Zadeh et al. 2017, eq. 2.
    """
    return reduce(lambda fused, z: (fused[:, :, None] * z[:, None, :]).flatten(1), [F.pad(z, (1, 0), value=1.0) for z in vectors])


class OuterLinear(nn.Module):
    """A linear map of ``dropout(outer(vectors), p)``, as many parameters as ``nn.Linear(prod(D_i + 1), out)``, (B, D_i) -> (B, out).

    The outer product of vectors 32, 32 and 128 wide has 140,481 entries per clip, each used once: on a CPU it is made, used and
    differentiated block by block, so that no block leaves the cache. Only the dropout mask is kept for the backward pass, a
    byte or two per entry. ``weight`` is (prod(D_i + 1), out), so that a block of it lies in one piece. Dropout acts in training only.
    """

    def __init__(self, widths: Sequence[int], out: int, p: float) -> None:
        super().__init__()
        cells = prod(width + 1 for width in widths)
        bound = 1 / math.sqrt(cells)  # what nn.Linear starts from
        self.weight = nn.Parameter(torch.empty(cells, out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(out).uniform_(-bound, bound))
        self.p = p

    def forward(self, vectors: Sequence[Tensor]) -> Tensor:
        first, *others = (z.to(self.weight.dtype) for z in vectors)
        left, right = F.pad(first, (1, 0), value=1.0), outer(others) if others else torch.ones_like(first[:, :1])
        y: Tensor = _OuterLinear.apply(left, right, self.weight, self.p if self.training else 0.0)  # type: ignore[no-untyped-call]
        return y + self.bias


class _OuterLinear(torch.autograd.Function):
    """left (B, L), right (B, R), weight (L R, out) -> (B, out)."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, weight: Tensor, p: float) -> Tensor:
        draws, below, scale = draw(left.new_empty(len(weight), len(left)), p) if p else (None, 0, 1.0)
        ctx.save_for_backward(left, right, weight, draws)
        ctx.below, ctx.scale = below, scale
        y = left.new_zeros(len(left), weight.shape[1])
        with _full_precision(left.device.type):
            for rows, cells in _blocks(left, right):
                block = _outer(left, right, rows)
                y += (block if draws is None else block.mul_(_mask(draws, below, cells, block.dtype))) @ weight[cells]
        return y.mul_(scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        left, right, weight, draws = ctx.saved_tensors
        grad = grad * ctx.scale
        d_left, d_right, d_weight = torch.empty_like(left), torch.zeros_like(right), torch.empty_like(weight)
        for rows, cells in _blocks(left, right):
            block, inner = _outer(left, right, rows), grad @ weight[cells].T
            if draws is not None:
                mask = _mask(draws, ctx.below, cells, inner.dtype)
                block, inner = block.mul_(mask), inner.mul_(mask)
            torch.mm(block.T, grad, out=d_weight[cells])
            inner = inner.view(len(left), -1, right.shape[1])
            d_left[:, rows] = (inner * right[:, None]).sum(2)
            d_right += torch.bmm(left[:, None, rows], inner).squeeze(1)
        return d_left, d_right, d_weight, None


def _full_precision(device: str) -> AbstractContextManager[Any]:
    """Autocast, where the device has one, casts nothing inside."""
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


def _blocks(left: Tensor, right: Tensor) -> Iterator[tuple[slice, slice]]:
    """Ranges of ``left``'s columns, and of the product's: as many as fit a block; off the CPU all of them."""
    width = right.shape[1]
    step = max(BLOCK // width, 1) if left.device.type == "cpu" else left.shape[1]
    for start in range(0, left.shape[1], step):
        stop = min(start + step, left.shape[1])
        yield slice(start, stop), slice(start * width, stop * width)


def _outer(left: Tensor, right: Tensor, rows: slice) -> Tensor:
    """The product's columns of some of ``left``'s: (B, cells)."""
    return (left[:, rows, None] * right[:, None, :]).flatten(1)


def _mask(draws: Tensor, below: int, cells: slice, dtype: torch.dtype) -> Tensor:
    """The mask of some cells, (B, cells): whichever entries they are, as long as every block has its own, in one piece."""
    return kept(draws[cells], below, dtype).view(draws.shape[1], -1)
