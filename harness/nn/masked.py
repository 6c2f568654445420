"""Layers over channels and time, (B, C, T), that see real frames only: no statistic, maximum or mean includes padding."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def time_mask(x: Tensor, lengths: Tensor) -> Tensor:
    """True at real frames of x (B, C, T): (B, 1, T)."""
    return (torch.arange(x.shape[2], device=x.device) < lengths[:, None])[:, None]


def time_mean(x: Tensor, lengths: Tensor) -> Tensor:
    """Mean over real frames of x (B, C, T), zero at padding: (B, C)."""
    return x.sum(2) / lengths[:, None]


def max_pool(x: Tensor, lengths: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Maximum over every ``size`` frames of x (B, C, T), over the frames that are left at a clip's end: zero at padding, new lengths."""
    if size == 1:
        return x, lengths
    pooled = F.max_pool1d(x.masked_fill(~time_mask(x, lengths), -math.inf), size, ceil_mode=True)
    shorter = (lengths + size - 1) // size
    return pooled.masked_fill(~time_mask(pooled, shorter), 0), shorter


class MaskedBatchNorm(nn.Module):
    """Batch norm over the real frames of a batch (Ioffe and Szegedy 2015): x (B, C, T), zero at padding again in the result.

    On clips of equal length this is ``nn.BatchNorm1d``, whose parameters and buffers it has. Of a single frame there is
    no variance: it becomes the bias, and leaves the running variance as it was.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        real = time_mask(x, lengths)
        mean, variance = self._statistics(x, real, lengths.sum()) if self.training else (self.running_mean, self.running_var)
        scale = self.weight * (variance + self.eps).rsqrt()
        return ((x - mean[:, None]) * scale[:, None] + self.bias[:, None]).masked_fill(~real, 0)

    def _statistics(self, x: Tensor, real: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        mean = x.masked_fill(~real, 0).sum((0, 2)) / frames
        variance = (x - mean[:, None]).masked_fill(~real, 0).square().sum((0, 2)) / frames
        with torch.no_grad():
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            unbiased = variance * frames / (frames - 1).clamp_min(1)
            self.running_var.copy_(
                torch.where(frames > 1, self.running_var.lerp(unbiased.to(self.running_var.dtype), self.momentum), self.running_var)
            )
        return mean, variance
