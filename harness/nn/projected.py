"""Attention whose queries, keys and values are projected to widths of their own."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from harness.nn.dropout import dropout


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: int,
    mask: Tensor | None = None,
    scale: float | None = None,
    p: float = 0.0,
    training: bool = False,
) -> Tensor:
    """Scaled dot-product attention of ``heads`` heads: q (B, Tq, I), k (B, Tk, I), v (B, Tk, V) -> (B, Tq, V).

    ``mask`` is added to the scores, (B, 1, 1 or Tq, Tk); ``scale`` multiplies them, unset: 1 / sqrt(I / heads).
    Attention weights are dropped with probability ``p`` (Vaswani et al. 2017, section 3.2).
    """
    q, k, v = (x.reshape(*x.shape[:2], heads, -1).transpose(1, 2) for x in (q, k, v))
    if p == 0:
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    else:
        scores = (q * (1 / math.sqrt(q.shape[3]) if scale is None else scale)) @ k.transpose(2, 3)
        mixed = dropout((scores if mask is None else scores + mask).softmax(-1), p, training=True) @ v
    return mixed.transpose(1, 2).flatten(2)


class ProjectedAttention(nn.Module):
    """Attention from ``query`` (B, Tq, query) to ``key`` (B, Tk, key) and ``value`` (B, Tk, value) -> (B, Tq, query).

    Projections have no bias. ``inner`` is the width of projected queries and keys, ``mixed`` that of values, over all
    heads, which must divide both; ``bias`` is that of the last layer. ``scale`` and ``dropout`` are those of ``attend``.
    """

    def __init__(
        self,
        query: int,
        key: int,
        value: int,
        *,
        heads: int,
        inner: int,
        mixed: int,
        bias: bool = True,
        scale: float | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if inner % heads or mixed % heads:
            raise ValueError(f"{heads} attention heads do not divide widths of {inner} and {mixed}")
        self.heads, self.scale, self.dropout = heads, scale, dropout
        self.query = nn.Linear(query, inner, bias=False)
        self.key = nn.Linear(key, inner, bias=False)
        self.value = nn.Linear(value, mixed, bias=False)
        self.out = nn.Linear(mixed, query, bias=bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = self.query(query), self.key(key), self.value(value)
        return self.out(attend(q, k, v, self.heads, mask, self.scale, self.dropout if self.training else 0.0))  # type: ignore[no-any-return]
