"""Mutual information from counts, in nats (MIKL, eq. 1 to 6)."""

from __future__ import annotations

import torch
from torch import Tensor


def mutual_information(table: Tensor) -> Tensor:
    """I(X; Y) of joint frequencies ``table`` (..., K, L), counts or shares, at least one of them positive; (...) float64.

    The sum over cells of p(x, y) log(p(x, y) / (p(x) p(y))), empty cells counting 0 (eq. 3).
    """
    p = table.double() / table.double().sum((-2, -1), keepdim=True)
    independent = p.sum(-1, keepdim=True) * p.sum(-2, keepdim=True)
    return torch.where(p > 0, p * (p / independent).log(), torch.zeros_like(p)).sum((-2, -1)).clamp_min(0)


def quantile_bins(x: Tensor, bins: int) -> Tensor:
    """Each entry's bin among those that cut its column into ``bins`` parts of equal size: (N, D) -> (N, D) int64.

    Bin b holds what lies from the b-th cut on. Equal values share a bin, so that a column with few values fills few
    bins; order is all that counts, so that a rising function of a column has the same bins.
    """
    if bins < 1:
        raise ValueError(f"a histogram needs at least one bin, not {bins}")
    columns = x.t().contiguous()
    cuts = torch.arange(1, bins) * len(x) // bins
    edges = columns.sort(dim=1).values[:, cuts].contiguous()
    return torch.searchsorted(edges, columns, right=True).t()


def histogram_information(x: Tensor, label: Tensor, bins: int = 16) -> Tensor:
    """I(column; label) of a sample: columns x (N, D) in quantile bins, label (N,) int64 from 0 on; (D,) float64.

    The plug-in estimate: about (filled bins - 1)(labels - 1) / (2 N) too high, for all columns alike unless ties leave
    them with different numbers of bins. Raises ValueError for an empty sample or lengths that differ.
    """
    if not len(x) or len(x) != len(label):
        raise ValueError(f"{len(x)} rows and {len(label)} labels are no sample")
    codes, labels = quantile_bins(x, bins), int(label.max()) + 1
    column = torch.arange(x.shape[1])
    cell = ((column * bins + codes) * labels + label[:, None]).flatten()
    counts = torch.bincount(cell, minlength=x.shape[1] * bins * labels)
    return mutual_information(counts.view(-1, bins, labels))
