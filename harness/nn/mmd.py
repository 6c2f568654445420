"""Maximum mean discrepancy."""

from __future__ import annotations

import torch
from torch import Tensor


def mmd(x: Tensor, y: Tensor) -> Tensor:
    """Squared maximum mean discrepancy of two samples, x (M, D) and y (N, D); a scalar, 0 for equal samples.

    mean k(x, x') + mean k(y, y') - 2 mean k(x, y) over all pairs, a point with itself included (Gretton et al. 2012,
    eq. 5, the biased estimate), with k(x, y) = exp(-||x - y||^2 / D^2), the kernel of the factorised model's authors
    (Tsai et al. 2019).
    """
    return kernel(x, x).mean() + kernel(y, y).mean() - 2 * kernel(x, y).mean()


def kernel(x: Tensor, y: Tensor) -> Tensor:
    """exp(-||x_i - y_j||^2 / D^2) for x (M, D), y (N, D) -> (M, N), without the M N D differences."""
    squared = x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T
    return torch.exp(-squared.clamp(min=0) / x.shape[1] ** 2)
