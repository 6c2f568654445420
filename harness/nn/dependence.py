"""Measures of dependence between two samples, as losses: HSIC, InfoNCE, and conditional mutual information.

All information is in nats. Everything here is defined over a batch; what needs two clips is 0 on a batch of one.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Terms = Literal["both", "first"]


def gram(x: Tensor, bandwidth: float | None = None) -> Tensor:
    """Gaussian Gram matrix of a sample x (B, D): exp(-|x_i - x_j|^2 / (2 bandwidth^2)), (B, B).

    Without a ``bandwidth`` its square is the median of the squared distances between different rows of x (the lower of
    two middle ones), a constant to the gradient; where that median is 0 the bandwidth is 1.
    """
    squared = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").square()
    return (squared / (-2 * (_median(squared.detach()) if bandwidth is None else bandwidth**2))).exp()


def _median(squared: Tensor) -> Tensor | float:
    clips = len(squared)
    if clips < 2:
        return 1.0
    row, column = torch.triu_indices(clips, clips, 1, device=squared.device)
    median = squared[row, column].median()
    return torch.where(median > 0, median, torch.ones_like(median))


def hsic_of_grams(one: Tensor, other: Tensor) -> Tensor:
    """(B - 1)^-2 Tr(H G H G') of two Gram matrices (B, B), H = I - 1/B; a scalar, 0 for a batch of one (IIDAF, eq. 14)."""
    centred = one - one.mean(0) - one.mean(1, keepdim=True) + one.mean()
    return (centred * other.T).sum() / max(len(one) - 1, 1) ** 2


def hsic(x: Tensor, y: Tensor, bandwidth: float | None = None) -> Tensor:
    """Hilbert-Schmidt independence criterion of paired samples x (B, D), y (B, E) with Gaussian kernels; a scalar >= 0.

    The biased estimate of Gretton et al. 2005. ``bandwidth`` serves both kernels; unset: see ``gram``.
    """
    return hsic_of_grams(gram(x, bandwidth), gram(y, bandwidth))


def info_nce(scores: Tensor) -> Tensor:
    """-1/B sum_i log(exp s_ii / sum_j exp s_ij), scores s_ij = s(x_i, y_j) (B, B); a scalar, 0 for a batch of one.

    log B - info_nce bounds I(x; y) from below in expectation and never exceeds log B (van den Oord et al. 2018; IIDAF,
    eq. 16). One direction: x_i is told from the other clips' y.
    """
    return -scores.log_softmax(dim=1).diagonal().mean()


class Critic(nn.Module):
    """Scores s(x_i, y_j) = f(x_i)^T g(y_j) of all pairs, f and g two-layer networks: x (B, D), y (B, E) -> (B, B).

    g's last layer has no bias: it would add the same number to all scores of a row, which ``info_nce`` cannot see.
    """

    def __init__(self, x_width: int, y_width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.f = nn.Sequential(nn.Linear(x_width, hidden), nn.ReLU(), nn.Linear(hidden, out))
        self.g = nn.Sequential(nn.Linear(y_width, hidden), nn.ReLU(), nn.Linear(hidden, out, bias=False))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.f(x) @ self.g(y).T  # type: ignore[no-any-return]


def draw_neighbour(condition: Tensor, count: int) -> Tensor:
    """For each row of ``condition`` (B, D) one of its ``count`` nearest other rows, drawn uniformly: indices (B,).

    z[draw_neighbour(r, count)] is a sample of z from about p(z | r), drawn independently of whatever else row i holds:
    the hard negatives of IIDAF's eq. 18 (k-nearest-neighbour sampling, Molavipour et al. 2020). Fewer clips than
    ``count`` + 1: all others. Draws come from the default generator. Raises ValueError for fewer than two rows.
    """
    clips = len(condition)
    if clips < 2:
        raise ValueError(f"{clips} rows have no neighbours")
    count = min(count, clips - 1)
    rows = torch.arange(clips, device=condition.device)
    distance = torch.cdist(condition.detach(), condition.detach(), compute_mode="donot_use_mm_for_euclid_dist")
    distance = distance.masked_fill(rows[:, None] == rows, torch.inf)
    nearest = distance.topk(count, largest=False).indices
    return nearest[rows, torch.randint(count, (clips,), device=condition.device)]


class Discriminator(nn.Module):
    """Log-odds that (u, z, r) are of one clip, log phi / (1 - phi): (B, U), (B, Z), (B, R) -> (B,).

    Three linear layers with ReLU and an output layer on [u; z; r] (IIDAF, section 2.3).
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Linear(width, hidden), nn.ReLU()),
            *(nn.Linear(hidden, hidden), nn.ReLU()),
            *(nn.Linear(hidden, hidden), nn.ReLU()),
            nn.Linear(hidden, 1),
        )

    def forward(self, u: Tensor, z: Tensor, r: Tensor) -> Tensor:
        return self.layers(torch.cat([u, z, r], dim=1)).squeeze(1)  # type: ignore[no-any-return]

    def frozen(self, u: Tensor, z: Tensor, r: Tensor) -> Tensor:
        """The same log-odds; gradients reach u, z and r only."""
        constants = {name: parameter.detach() for name, parameter in self.named_parameters()}
        return torch.func.functional_call(self, constants, (u, z, r))  # type: ignore[no-any-return]


def discrimination(joint: Tensor, product: Tensor) -> Tensor:
    """Binary cross-entropy of log-odds on joint (B,) and conditional-product (B,) samples: what fits a discriminator."""
    return (F.softplus(-joint).mean() + F.softplus(product).mean()) / 2


def conditional_information(joint: Tensor, product: Tensor, terms: Terms = "both", limit: float | None = None) -> Tensor:
    """Estimate of I(u; z | r) from log-odds on joint samples (u, z, r) (B,) and on (u, z', r) (B,), z' ~ p(z | r); a scalar.

    "both": E1 - E2 as IIDAF's eq. 18 prints it. At the best discriminator the log-odds are the log ratio of the joint to
    the conditional product, so E1 alone ("first") is I(u; z | r) and -E2 the divergence the other way round: the
    printed difference is the symmetrised Kullback-Leibler divergence, never below the information. On Gaussians with partial
    correlation rho: -log(1 - rho^2) / 2 and rho^2 / (1 - rho^2).
    ``limit`` clips log-odds to [-limit, limit]; beyond it there is no gradient.
    """
    if limit is not None:
        joint, product = joint.clamp(-limit, limit), product.clamp(-limit, limit)
    return joint.mean() if terms == "first" else joint.mean() - product.mean()
