"""Invertible mixing of two halves of a vector, and the attention mask that lets the halves exchange what they hold.

One block: orthogonal mixing by Householder reflections, layer norm (optional), additive coupling of the second half with
the first, a fixed random permutation of the channels. Without the layer norm a block is volume preserving, |det| = 1, and
``inverse`` undoes it to rounding error. Layer norm discards two statistics of a vector and the mask mixes with weights of
its own input, so neither has an inverse: ``inverse`` passes over both, and what is then missing is what a penalty on
inverse(forward(h)) - h measures (IIDAF, eq. 11).

Source: IIDAF (Yang, Sun, Zhu 2026, eq. 3-9); reflections after Tomczak and Welling 2016, additive coupling after Dinh et
al. 2015, blocks with fixed permutations after Esser et al. 2020.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MaskKind = Literal["channel", "batch", "none"]
MaskPlace = Literal["last", "every"]


class Householder(nn.Module):
    """h (..., width) -> Q h with Q = H_1 H_2 ... H_J, H_j = I - 2 v_j v_j^T / |v_j|^2, the v_j trained (IIDAF, eq. 3).

    Q is orthogonal whatever the v_j are; its determinant is (-1)^J.
    """

    def __init__(self, width: int, reflections: int = 3) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(reflections, width))

    def forward(self, h: Tensor) -> Tensor:
        return _reflect(h, F.normalize(self.vectors, dim=1).flip(0).unbind())

    def inverse(self, h: Tensor) -> Tensor:
        """Q^T h: every reflection is its own inverse, so the product in the other order."""
        return _reflect(h, F.normalize(self.vectors, dim=1).unbind())

    def matrix(self) -> Tensor:
        """Q, (width, width)."""
        return self.forward(torch.eye(self.vectors.shape[1], dtype=self.vectors.dtype, device=self.vectors.device)).T


def _reflect(h: Tensor, units: Iterable[Tensor]) -> Tensor:
    for unit in units:
        h = h - 2 * (h @ unit)[..., None] * unit
    return h


class AdditiveCoupling(nn.Module):
    """[u; r] (..., width) -> [u; r + t(u)], t a linear layer, GELU and a linear layer; even width (IIDAF, eq. 4 and 5)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        if width % 2:
            raise ValueError(f"a coupling needs two halves of one width: {width} is odd")
        half = width // 2
        self.shift = nn.Sequential(nn.Linear(half, hidden), nn.GELU(), nn.Linear(hidden, half))

    def forward(self, h: Tensor) -> Tensor:
        u, r = h.chunk(2, dim=-1)
        return torch.cat([u, r + self.shift(u)], dim=-1)

    def inverse(self, h: Tensor) -> Tensor:
        u, r = h.chunk(2, dim=-1)
        return torch.cat([u, r - self.shift(u)], dim=-1)


class Permutation(nn.Module):
    """Channels in a fixed random order, drawn when the module is made (torch's default generator) and stored with it."""

    order: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("order", torch.randperm(width))

    def forward(self, h: Tensor) -> Tensor:
        return h[..., self.order]

    def inverse(self, h: Tensor) -> Tensor:
        return h[..., self.order.argsort()]


class InvertibleBlock(nn.Module):
    """Reflections, layer norm if ``norm``, additive coupling, permutation: h (..., width) -> (..., width); even width.

    ``inverse`` is exact without the layer norm and passes over it otherwise.
    """

    def __init__(self, width: int, hidden: int, reflections: int = 3, norm: bool = True) -> None:
        super().__init__()
        self.mix = Householder(width, reflections)
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.couple = AdditiveCoupling(width, hidden)
        self.permute = Permutation(width)

    def forward(self, h: Tensor) -> Tensor:
        return self.permute(self.couple(self.norm(self.mix(h))))  # type: ignore[no-any-return]

    def inverse(self, h: Tensor) -> Tensor:
        return self.mix.inverse(self.couple.inverse(self.permute.inverse(h)))


class AttentionMask(nn.Module):
    """Two halves of a clip's vector exchange what attention weights say: h = [u; r] (B, 2 half) -> (B, 2 half).

    alpha = diag softmax(Q_u K_r^T / sqrt(half)), beta = diag softmax(Q_r K_u^T / sqrt(half)), then
    u <- (1 - beta) V_u + alpha V_r and r <- (1 - alpha) V_r + beta V_u, all maps linear without bias (IIDAF, eq. 7-9).

    ``over`` says between what the attention runs. "batch", as printed with one vector per clip: Q K^T is (B, B) and a
    clip has one weight, which depends on the other clips of its batch. "channel": the channels of one clip's two halves
    attend to each other, Q K^T is the (half, half) outer product of two vectors, and every channel has a weight that
    depends on its clip alone.
    """

    def __init__(self, half: int, over: Literal["channel", "batch"] = "channel") -> None:
        super().__init__()
        self.over = over
        self.from_u = nn.Linear(half, 3 * half, bias=False)
        self.from_r = nn.Linear(half, 3 * half, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        u, r = h.chunk(2, dim=-1)
        query_u, key_u, u = self.from_u(u).chunk(3, dim=-1)
        query_r, key_r, r = self.from_r(r).chunk(3, dim=-1)
        alpha, beta = self._weights(query_u, key_r), self._weights(query_r, key_u)
        return torch.cat([(1 - beta) * u + alpha * r, (1 - alpha) * r + beta * u], dim=-1)

    def _weights(self, query: Tensor, key: Tensor) -> Tensor:
        """The softmax's diagonal: (B, half) over channels, (B, 1) over the batch."""
        query = query / math.sqrt(query.shape[1])
        if self.over == "batch":
            return (query @ key.T).softmax(dim=1).diagonal()[:, None]
        scores = query[:, :, None] * key[:, None, :]
        return (query * key - scores.logsumexp(dim=2)).exp()


class Disentangler(nn.Module):
    """Invertible blocks and the attention mask: h (B, width) -> [u; r] (B, width), even width (IIDAF, eq. 2).

    ``place``: the mask follows the last block, or every block with weights of its own. ``inverse`` runs the blocks
    backwards and passes over layer norms and masks; it is exact with ``norm=False`` and ``mask="none"``.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        blocks: int = 4,
        reflections: int = 3,
        norm: bool = True,
        mask: MaskKind = "channel",
        place: MaskPlace = "last",
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(InvertibleBlock(width, hidden, reflections, norm) for _ in range(blocks))
        masked = set() if mask == "none" else {blocks - 1} if place == "last" else set(range(blocks))
        self.masks = nn.ModuleList(AttentionMask(width // 2, _over(mask)) if i in masked else nn.Identity() for i in range(blocks))

    def forward(self, h: Tensor) -> Tensor:
        for block, mask in zip(self.blocks, self.masks, strict=True):
            h = mask(block(h))
        return h

    def inverse(self, h: Tensor) -> Tensor:
        for block in reversed(self.blocks):
            h = block.inverse(h)  # type: ignore[operator]
        return h


def _over(mask: MaskKind) -> Literal["channel", "batch"]:
    return "batch" if mask == "batch" else "channel"
