"""Dropout whose random bits are cheap on a CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 1 << 16  # one 16-bit draw decides one entry


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Zero each entry with probability ``p`` and scale the others so that the mean stays; identity unless ``training``.

    On a CPU, ``p`` is rounded to the nearest multiple of 1/65536 and the scale is that of the rounded ``p``, so the
    mean is kept exactly. Draws come from the default generator: ``torch.manual_seed`` makes them repeatable.
    """
    if not training or p == 0:
        return x
    if x.device.type == "cuda":  # one fused kernel there
        return F.dropout(x, p)
    keep = max(LEVELS - round(p * LEVELS), 1)
    kept = _bits16(x) < keep - LEVELS // 2
    return x * kept.to(x.dtype).mul_(LEVELS / keep)


def _bits16(like: Tensor) -> Tensor:
    """Uniform int16 over all of its 65536 values, shaped as ``like``.

    Four entries share one 64-bit draw: drawing, not arithmetic, is what dropout costs on a CPU.
    """
    words = torch.empty((like.numel() + 3) // 4, dtype=torch.int64, device=like.device)
    return words.random_(-(2**63), None).view(torch.int16)[: like.numel()].view(like.shape)


class Dropout(nn.Module):
    """``dropout`` as a module; 0 <= p < 1."""

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout probability {p} is not in [0, 1)")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}"
