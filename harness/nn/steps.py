"""The real steps of padded sequences, end to end: layers that act on each step alone need not compute the padding.

Clips padded to a common length, (B, T, D), become rows (N, D), N the sum of their lengths, clip after clip.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

FULL = 0.75  # share of real steps above which copies cost about what the padding does; .6 and .9 are within 2 % of it


@dataclass(frozen=True)
class Steps:
    """Where the real steps of a batch are: ``rows`` (N,) their places among all B T, ``places`` (B T,) the row shown at each.

    A padded place shows its clip's last real step. ``lengths`` are (B,), ``longest`` is T.
    """

    lengths: Tensor
    longest: int
    rows: Tensor
    places: Tensor

    def pack(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (N, D)."""
        return pack(x, self.rows)

    def pad(self, x: Tensor) -> Tensor:
        """(N, D) -> (B, T, D), at padding the clip's last step, as a constant: no gradient flows from there."""
        return _Pad.apply(x, self)  # type: ignore[no-any-return, no-untyped-call]

    def last(self, x: Tensor) -> Tensor:
        """Each clip's last step: (N, D) -> (B, D)."""
        return x[self.lengths.cumsum(0) - 1]


def real_steps(lengths: Tensor, longest: int) -> Steps:
    """The steps of clips with ``lengths`` (B,), at least 1 each, padded to ``longest``."""
    steps = torch.arange(longest, device=lengths.device)
    rows = (steps < lengths[:, None]).flatten().nonzero().squeeze(1)
    starts = lengths.cumsum(0) - lengths
    places = (starts[:, None] + torch.minimum(steps, lengths[:, None] - 1)).flatten()
    return Steps(lengths, longest, rows, places)


def pack(x: Tensor, rows: Tensor) -> Tensor:
    """The steps of x (B, T, D) at the places ``rows`` (N,), each of them once, among all B T: (N, D)."""
    return _Pack.apply(x, rows)  # type: ignore[no-any-return, no-untyped-call]


def packs(lengths: Tensor, longest: int) -> bool:
    """Whether packing pays: on a CPU, where a quarter of the steps is padding. Elsewhere counting them waits for the device."""
    if lengths.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    return bool(lengths.sum() <= FULL * len(lengths) * longest)


class _Pack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor) -> Tensor:
        ctx.rows, ctx.shape = rows, x.shape
        return x.flatten(0, 1).index_select(0, rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        whole = gradient.new_zeros(ctx.shape)
        whole.view(-1, ctx.shape[2]).index_copy_(0, ctx.rows, gradient)
        return whole, None


class _Pad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, steps: Steps) -> Tensor:
        ctx.steps = steps
        return x.index_select(0, steps.places).view(len(steps.lengths), steps.longest, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return gradient.flatten(0, 1).index_select(0, ctx.steps.rows), None
