"""The inner part of attention with a backward pass of its own: few copies, few small kernels, little kept for the gradient.

On a CPU, short sequences cost more in copies and calls than in products. Queries, keys and values are therefore split into
heads by one copy of their common projection, gradients are joined by one, and dropout keeps a byte or two per weight. Long
ones cost in memory, whose size and speed the weights of all heads exceed: ``mix_blocks`` makes them piece by piece, twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from harness.nn.dropout import draw, kept

LANES = 16  # float32 entries of a 512-bit register: a softmax over fewer takes up to six times as long
BLOCK = 1 << 18  # weights that are made at a time: a mebibyte, which stays in a core's cache


def mix(queries: Tensor, pairs: Tensor | None, mask: Tensor | None, heads: int, p: float) -> Tensor:
    """softmax(q k' / sqrt(D) + mask), with dropout ``p``, times v (Vaswani et al. 2017, eq. 1): (B, Tq, width).

    ``queries`` (B, Tq, width) and ``pairs`` (B, Tk, 2 width) hold projected queries, keys and values, heads of D = width /
    ``heads`` columns side by side; with ``pairs`` None, ``queries`` (B, Tq, 3 width) holds all three. ``mask`` is added to
    the scores, (B, 1, Tq, Tk). Gradients reach ``queries`` and ``pairs``, once. All is computed in the dtype of the
    projections, under autocast too.
    """
    keys = (queries if pairs is None else pairs).shape[1]
    wide = max(keys, LANES) if queries.device.type == "cpu" else keys
    if wide > keys:
        mask = _hide_from(keys, wide, queries) if mask is None else F.pad(mask, (0, wide - keys), value=-math.inf)
    with _as_given(queries):
        return _Mix.apply(queries, pairs, mask, heads, p, wide)  # type: ignore[no-any-return, no-untyped-call]


def _as_given(x: Tensor) -> AbstractContextManager[Any]:
    """Without autocast, which would mix dtypes between products and softmax."""
    device = x.device.type
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


def _hide_from(keys: int, wide: int, like: Tensor) -> Tensor:
    """A mask that hides the columns ``keys`` ... ``wide`` from all."""
    return F.pad(like.new_zeros(1, 1, 1, keys), (0, wide - keys), value=-math.inf)


def _split(x: Tensor, count: int, heads: int, steps: int) -> Tensor:
    """(B, T, count width) -> (count, B heads, ``steps``, D), zero from T on; one copy."""
    b, t, columns = x.shape
    width = columns // (count * heads)
    out = x.new_empty(count, b, heads, steps, width)
    out[:, :, :, :t] = x.view(b, t, count, heads, width).permute(2, 0, 3, 1, 4)
    if steps > t:
        out[:, :, :, t:] = 0
    return out.view(count, b * heads, steps, width)


def _join(x: Tensor, heads: int, steps: int) -> Tensor:
    """The inverse of ``_split``: (count, B heads, T, D) -> (B, ``steps``, count width); one copy."""
    count, rows, t, width = x.shape
    parts = x.view(count, rows // heads, heads, t, width)[:, :, :, :steps]
    return parts.permute(1, 3, 0, 2, 4).reshape(rows // heads, steps, count * heads * width)


def _times(a: Tensor, b: Tensor, factor: float, out: Tensor | None = None) -> Tensor:
    """``factor`` a b, batched."""
    if out is None:
        out = a.new_empty(a.shape[0], a.shape[1], b.shape[2])
    return torch.baddbmm(out, a, b, beta=0, alpha=factor, out=out)


class _Mix(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, queries: Tensor, pairs: Tensor | None, mask: Tensor | None, heads: int, p: float, wide: int) -> Tensor:
        steps = queries.shape[1]
        if pairs is None:
            q, k, v = _split(queries, 3, heads, wide)
            q = q[:, :steps]
        else:
            (q,), (k, v) = _split(queries, 1, heads, steps), _split(pairs, 2, heads, wide)
        scores = _times(q, k.transpose(1, 2), 1 / math.sqrt(q.shape[2]))
        if mask is not None:
            scores.view(len(queries), heads, steps, wide).add_(mask)
        weights = scores.softmax(-1)
        draws, below, scale = draw(weights, p) if p else (None, 0, 1.0)
        ctx.save_for_backward(q, k, v, weights, draws)
        ctx.sizes = heads, below, scale, steps, None if pairs is None else pairs.shape[1]
        thinned = weights if draws is None else weights * kept(draws, below, weights.dtype)
        return _join(_times(thinned, v, scale)[None], heads, steps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, weights, draws = ctx.saved_tensors
        heads, below, scale, steps, keys = ctx.sizes
        mask = None if draws is None else kept(draws, below, weights.dtype)
        (out,) = _split(gradient, 1, heads, steps)
        together = q.new_empty(3 if keys is None else 2, *k.shape)
        _times((weights if mask is None else weights * mask).transpose(1, 2), out, scale, together[-1])
        towards = _times(out, v.transpose(1, 2), scale)
        if mask is not None:
            towards *= mask
        scores = torch._softmax_backward_data(towards, weights, -1, weights.dtype)
        by = 1 / math.sqrt(q.shape[2])
        _times(scores.transpose(1, 2), q, by, together[-2])
        if keys is None:
            together[0, :, :steps] = _times(scores, k, by)
            return _join(together, heads, steps), None, None, None, None, None
        return _join(_times(scores, k, by)[None], heads, steps), _join(together, heads, keys), None, None, None, None


def mix_blocks(queries: Tensor, pairs: Tensor | None, mask: Tensor | None, heads: int, p: float) -> Tensor:
    """What ``mix`` computes, for long sequences: the weights of a few heads of one clip at a time, which are not kept.

    The backward pass makes them again, dropout from the same place of the default generator's stream: twice the products, for
    memory that grows with the steps and no longer with their square.
    """
    with _as_given(queries):
        return _MixBlocks.apply(queries, pairs, mask, heads, p)  # type: ignore[no-any-return, no-untyped-call]


def _blocks(heads: int, rows: int, weights: int) -> Iterator[tuple[slice, int]]:
    """Parts of ``rows`` = B ``heads`` with at most ``BLOCK`` weights, of ``weights`` each, and each part's clip."""
    size = max(part for part in range(1, heads + 1) if heads % part == 0 and (part == 1 or part * weights <= BLOCK))
    yield from ((slice(first, first + size), first // heads) for first in range(0, rows, size))


class _MixBlocks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, queries: Tensor, pairs: Tensor | None, mask: Tensor | None, heads: int, p: float) -> Tensor:
        q, k, v = _heads(queries, pairs, heads)
        ctx.save_for_backward(q, k, v, mask)
        ctx.settings = heads, p, pairs is None, torch.get_rng_state()
        out = torch.empty_like(q)
        for rows, clip in _blocks(heads, len(q), q.shape[1] * k.shape[1]):
            weights = _weights(q[rows], k[rows], mask, clip)
            if p:
                draws, below, scale = draw(weights, p)
                weights *= kept(draws, below, weights.dtype)
            _times(weights, v[rows], scale if p else 1.0, out[rows])
        return _join(out[None], heads, q.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (q, k, v, mask), (heads, p, alone, state) = ctx.saved_tensors, ctx.settings
        (out,) = _split(gradient, 1, heads, q.shape[1])
        towards_q, together = torch.empty_like(q), k.new_empty(2, *k.shape)
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(state)
            for rows, clip in _blocks(heads, len(q), q.shape[1] * k.shape[1]):
                parts = q[rows], k[rows], v[rows], out[rows]
                _block_gradients(_weights(q[rows], k[rows], mask, clip), p, parts, towards_q[rows], together[:, rows])
        if alone:
            return _join(torch.cat([towards_q[None], together]), heads, q.shape[1]), None, None, None, None
        return _join(towards_q[None], heads, q.shape[1]), _join(together, heads, k.shape[1]), None, None, None


def _heads(queries: Tensor, pairs: Tensor | None, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries (B heads, Tq, D), keys and values (B heads, Tk, D)."""
    if pairs is None:
        q, k, v = _split(queries, 3, heads, queries.shape[1])
        return q, k, v
    (q,), (k, v) = _split(queries, 1, heads, queries.shape[1]), _split(pairs, 2, heads, pairs.shape[1])
    return q, k, v


def _weights(q: Tensor, k: Tensor, mask: Tensor | None, clip: int) -> Tensor:
    """Attention weights of some heads (n, Tq, Tk) of one clip."""
    scores = _times(q, k.transpose(1, 2), 1 / math.sqrt(q.shape[2]))
    if mask is not None:
        scores += mask[clip if len(mask) > 1 else 0]
    return scores.softmax(-1)


def _block_gradients(weights: Tensor, p: float, parts: tuple[Tensor, ...], towards_q: Tensor, together: Tensor) -> None:
    """Write the gradients of queries, and of keys and values, of one block."""
    (q, k, v, out), by = parts, 1 / math.sqrt(parts[0].shape[2])
    draws, below, scale = draw(weights, p) if p else (None, 0, 1.0)
    mask = None if draws is None else kept(draws, below, weights.dtype)
    towards = _times(out, v.transpose(1, 2), scale)
    _times((weights if mask is None else weights * mask).transpose(1, 2), out, scale, together[1])
    if mask is not None:
        towards *= mask
    scores = torch._softmax_backward_data(towards, weights, -1, weights.dtype)
    _times(scores.transpose(1, 2), q, by, together[0])
    _times(scores, k, by, towards_q)
