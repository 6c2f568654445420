"""Distances between representations."""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-6


def central_moments(x: Tensor, count: int) -> Tensor:
    """Row 0: the mean; row k - 1: the k-th central moment, by column. x (B, D) -> (count, D)."""
    mean = x.mean(0)
    centred = x - mean
    power, rows = centred, [mean]
    for _ in range(count - 1):
        power = power * centred
        rows.append(power.mean(0))
    return torch.stack(rows)


def cmd(x: Tensor, y: Tensor, moments: int = 5, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Central moment discrepancy of two samples x, y (B, D) with entries in [low, high]; a scalar.

    Sum over k = 1 ... ``moments`` of ||difference of the k-th (central) moments|| / (high - low)^k
    (Zellinger et al. 2017, eq. 8; MISA eq. 6). Its gradient is zero, not NaN, where two moments are equal.
    """
    difference = central_moments(x, moments) - central_moments(y, moments)
    order = torch.arange(1, moments + 1, device=x.device)
    distances: Tensor = torch.linalg.vector_norm(difference, dim=1) / (high - low) ** order
    return distances.sum()


def orthogonality(x: Tensor, y: Tensor) -> Tensor:
    """Mean squared entry of X^T Y for x, y (B, D), columns centred over the batch and rows of unit length; a scalar.

    MISA's "Diff" (Hazarika et al. 2020, eq. 8); no gradient flows through the rows' lengths, as published.
    """
    return (_unit_rows(x).T @ _unit_rows(y)).square().mean()


def _unit_rows(x: Tensor) -> Tensor:
    centred = x - x.mean(0)
    length: Tensor = torch.linalg.vector_norm(centred, dim=1, keepdim=True)
    return centred / (length.detach() + EPSILON)
