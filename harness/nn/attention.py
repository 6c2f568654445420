"""Transformer encoders over one modality or from one modality to another, for sequences padded at the end.

Masks are added to attention scores, (B, 1, Tq, Tk): 0 where a query may look, -inf elsewhere. Every query of a clip
may look at its first key, so no row of a softmax is empty, not even at padding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.nn.dropout import Dropout
from harness.nn.mixing import mix, mix_blocks
from harness.nn.recurrent import last_step
from harness.nn.steps import Steps, packs, real_steps

Packed = tuple[Steps | None, Steps | None]  # of query and source; None: padded, (B, T, D)

FUSED = 64  # keys from which a CPU's fused attention, which keeps no weights, is the faster one without dropout


def attention_mask(query: Tensor, key: Tensor, query_lengths: Tensor, key_lengths: Tensor, causal: bool = False) -> Tensor:
    """(B, 1, Tq, Tk), 0 at real keys j, if ``causal`` only at j <= i + |clip's keys - clip's queries|, else -inf.

    ``query`` (B, Tq, D) and ``key`` (B, Tk, D) give steps, device and dtype. Both lengths are (B,) and count each
    clip's own real steps (the offset of Tsai et al. 2019 is that of the padded lengths).
    """
    keys = torch.arange(key.shape[1], device=key.device)
    last = (key_lengths - 1)[:, None].expand(-1, query.shape[1])
    if causal:
        steps = torch.arange(query.shape[1], device=query.device)
        last = torch.minimum(last, steps + (key_lengths - query_lengths).abs()[:, None])
    hidden = (keys > last[..., None])[:, None]
    return torch.zeros_like(hidden, dtype=query.dtype).masked_fill_(hidden, -math.inf)


def sinusoid(steps: int, width: int, like: Tensor) -> Tensor:
    """Sinusoidal positions 1 ... ``steps``, (steps, width), dtype and device of ``like`` (Vaswani et al. 2017, section 3.5).

    Sines fill the first half of the columns, cosines the second, an odd last column is zero; the wavelengths run
    from 2 pi to 2 pi 10000.
    """
    half = width // 2
    rate = torch.exp(torch.arange(half, device=like.device) * (-math.log(10000.0) / max(half - 1, 1)))
    angle = torch.arange(1, steps + 1, device=like.device)[:, None] * rate
    return F.pad(torch.cat([angle.sin(), angle.cos()], dim=1), (0, width % 2)).to(like.dtype)


def embed(x: Tensor, positions: bool) -> Tensor:
    """What an encoder reads: sqrt(D) x, plus ``sinusoid`` if ``positions``; x (B, T, D)."""
    scaled = x * math.sqrt(x.shape[2])
    return scaled + sinusoid(x.shape[1], x.shape[2], x) if positions else scaled


class Attention(nn.Module):
    """Multi-head attention: query (B, Tq, width), source (B, Tk, width), mask -> (B, Tq, width).

    Starts from Xavier-uniform weights and zero biases. ``heads`` must divide ``width``. With ``packed``, the steps of
    query and source, either may come as rows (N, width) of real steps, and the result has the shape of the query; the
    mask has to hide the padding.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} attention heads do not divide a width of {width}")
        self.heads, self.dropout = heads, dropout
        self.inward = _xavier(nn.Linear(width, 3 * width))
        self.outward = _xavier(nn.Linear(width, width))

    def forward(self, query: Tensor, source: Tensor, mask: Tensor | None = None, packed: Packed = (None, None)) -> Tensor:
        queries, pairs = self._project(query, source)
        of_query, of_source = packed
        whole = queries if of_query is None else of_query.pad(queries)
        seen = pairs if pairs is None or of_source is None else of_source.pad(pairs)
        mixed = self._mix(whole, seen, mask)
        return self.outward(mixed if of_query is None else of_query.pack(mixed))  # type: ignore[no-any-return]

    def _mix(self, queries: Tensor, pairs: Tensor | None, mask: Tensor | None) -> Tensor:
        p, keys = self.dropout if self.training else 0.0, (queries if pairs is None else pairs).shape[1]
        if queries.device.type == "cuda" or (p == 0 and keys >= FUSED):
            return self._fused(queries, pairs, mask, p)
        return (mix_blocks if keys >= FUSED else mix)(queries, pairs, mask, self.heads, p)

    def _project(self, query: Tensor, source: Tensor) -> tuple[Tensor, Tensor | None]:
        """Queries (..., width) and keys with values (..., 2 width); for self-attention all in one and None."""
        if query is source:
            return self.inward(query), None
        width, weight, bias = query.shape[-1], self.inward.weight, self.inward.bias
        return F.linear(query, weight[:width], bias[:width]), F.linear(source, weight[width:], bias[width:])

    def _fused(self, queries: Tensor, pairs: Tensor | None, mask: Tensor | None, p: float) -> Tensor:
        parts = queries.chunk(3, dim=-1) if pairs is None else (queries, *pairs.chunk(2, dim=-1))
        q, k, v = (x.view(*x.shape[:2], self.heads, -1).transpose(1, 2) for x in parts)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=None if mask is None else mask.to(q.dtype), dropout_p=p)
        return mixed.transpose(1, 2).flatten(2)


@dataclass(frozen=True)
class Dropouts:
    """Dropout probabilities of an encoder: attention weights, embedded inputs, hidden activations, residual branches."""

    attention: float = 0.0
    embedding: float = 0.0
    activation: float = 0.0
    residual: float = 0.0


class EncoderLayer(nn.Module):
    """Attention from ``query`` to ``source``, then a two-layer network, each with a residual connection.

    ``norm_first``: one layer norm serves query and source alike, as in MulT (Tsai et al. 2019, eq. 4 and 5);
    otherwise each norm follows its residual sum (Vaswani et al. 2017).
    """

    def __init__(self, width: int, heads: int, inner: int, drop: Dropouts, norm_first: bool = True) -> None:
        super().__init__()
        self.norm_first = norm_first
        self.attention = Attention(width, heads, drop.attention)
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.feed = nn.Sequential(_xavier(nn.Linear(width, inner)), nn.ReLU(), Dropout(drop.activation), _xavier(nn.Linear(inner, width)))
        self.drop = Dropout(drop.residual)

    def forward(self, query: Tensor, source: Tensor, mask: Tensor | None = None, packed: Packed = (None, None)) -> Tensor:
        """query (B, Tq, width), source (B, Tk, width), or as ``packed`` says; one tensor twice for self-attention. -> as query."""
        attend, feed = self.norms
        if not self.norm_first:
            x = attend(query + self.drop(self.attention(query, source, mask, packed)))
            return feed(x + self.drop(self.feed(x)))  # type: ignore[no-any-return]
        normed = attend(query)
        x = query + self.drop(self.attention(normed, normed if source is query else attend(source), mask, packed))
        return x + self.drop(self.feed(feed(x)))  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """MulT's encoder: embedding dropout, ``layers`` pre-norm layers of inner width 4 ``width``, a last layer norm.

    Keys and values come from ``source`` as it is, at every layer (low-level features, Tsai et al. 2019, section 3.2).
    Streams come in through ``embed``. One dropout mask serves keys and values alike.
    """

    def __init__(self, width: int, heads: int, layers: int, drop: Dropouts) -> None:
        super().__init__()
        self.drop = Dropout(drop.embedding)
        self.layers = nn.ModuleList(EncoderLayer(width, heads, 4 * width, drop) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, target: Tensor, source: Tensor, mask: Tensor, lengths: Tensor, source_lengths: Tensor) -> Tensor:
        """Crossmodal: target (B, Tq, width) looks at source (B, Tk, width) -> (B, Tq, width), meaningless at padding.

        ``lengths`` and ``source_lengths`` (B,) count each clip's real steps, which ``mask`` lets be seen alone.
        """
        packed = _packed(target, lengths), _packed(source, source_lengths)
        x, source = (self.drop(_in(x, steps)) for x, steps in zip((target, source), packed, strict=True))
        for layer in self.layers:
            x = layer(x, source, mask, packed)
        x = self.norm(x)
        return x if packed[0] is None else packed[0].pad(x)

    def last(self, x: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
        """Self-attention, read at each clip's last real step: x (B, T, width), lengths (B,) -> (B, width).

        The top layer computes that step only; it may look at all of its clip, causal or not.
        """
        steps, sight = _packed(x, lengths), attention_mask(x[:, :1], x, lengths, lengths)
        x = self.drop(_in(x, steps))
        *below, top = self.layers
        for layer in below:
            x = layer(x, x, mask, (steps, steps))
        end = (last_step(x, lengths) if steps is None else steps.last(x))[:, None]
        return self.norm(top(end, x, sight, (None, steps))).squeeze(1)  # type: ignore[no-any-return]


def _packed(x: Tensor, lengths: Tensor) -> Steps | None:
    """The real steps of x (B, T, D) where it pays to compute with them alone."""
    return real_steps(lengths, x.shape[1]) if packs(lengths, x.shape[1]) else None


def _in(x: Tensor, steps: Steps | None) -> Tensor:
    return x if steps is None else steps.pack(x)


def _xavier(linear: nn.Linear) -> nn.Linear:
    nn.init.xavier_uniform_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
