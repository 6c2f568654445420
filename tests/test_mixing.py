"""The inner part of attention against its definition, its gradient against finite differences, in double precision."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from harness.nn import mixing
from harness.nn.attention import FUSED, Attention
from harness.nn.dropout import draw, kept
from harness.nn.mixing import LANES, mix, mix_blocks

SHAPES = [(3, 5), (1, LANES), (4, LANES - 1), (7, LANES + 4)]  # queries, keys
HEADS, WIDTH = 3, 6


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def holes(queries: int, keys: int) -> Tensor:
    """A mask that hides about a third of the keys, never the first."""
    mask = torch.zeros(2, 1, queries, keys, dtype=torch.float64)
    mask[torch.rand(mask.shape, generator=torch.Generator().manual_seed(1)) < 1 / 3] = -math.inf
    return mask.index_fill(3, torch.tensor([0]), 0.0)


def by_definition(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, thin: Callable[[Tensor], Tensor] = lambda w: w) -> Tensor:
    q, k, v = (x.unflatten(2, (HEADS, -1)).transpose(1, 2) for x in (q, k, v))
    scores = q @ k.transpose(2, 3) / math.sqrt(WIDTH // HEADS)
    weights = (scores if mask is None else scores + mask).softmax(-1)
    return (thin(weights) @ v).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(("queries", "keys"), SHAPES)
def test_mix_is_softmax_of_scores_times_values(queries: int, keys: int, masked: bool) -> None:
    q, pairs, mask = random(2, queries, WIDTH), random(2, keys, 2 * WIDTH, seed=1), holes(queries, keys) if masked else None
    expected = by_definition(q, *pairs.chunk(2, dim=2), mask)
    torch.testing.assert_close(mix(q, pairs, mask, HEADS, 0.0), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("keys", [5, LANES, LANES + 4])
def test_one_projection_of_all_three_is_self_attention(keys: int) -> None:
    x = random(2, keys, 3 * WIDTH)
    torch.testing.assert_close(mix(x, None, None, HEADS, 0.0), by_definition(*x.chunk(3, dim=2), None), rtol=0, atol=1e-12)


@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize(("queries", "keys"), SHAPES)
def test_gradients_agree_with_finite_differences(queries: int, keys: int, p: float) -> None:
    def drawn(q: Tensor, pairs: Tensor) -> Tensor:
        torch.manual_seed(4)  # the same weights are dropped at every call
        return mix(q, pairs, holes(queries, keys), HEADS, p)

    assert torch.autograd.gradcheck(drawn, (random(2, queries, WIDTH), random(2, keys, 2 * WIDTH, seed=1)))


@pytest.mark.parametrize("keys", [5, LANES + 4])
def test_gradients_of_self_attention_agree_with_finite_differences(keys: int) -> None:
    assert torch.autograd.gradcheck(lambda x: mix(x, None, holes(keys, keys), HEADS, 0.0), (random(2, keys, 3 * WIDTH),))


def test_dropout_falls_on_the_weights_and_keeps_their_scale() -> None:
    queries, keys, p = 4, LANES, 0.25
    q, pairs = random(2, queries, WIDTH), random(2, keys, 2 * WIDTH, seed=1)
    torch.manual_seed(4)
    draws, below, scale = draw(torch.empty(2 * HEADS, queries, keys), p)
    mask = (draws < below).double()
    assert torch.equal(kept(draws, below, torch.float64), mask)
    expected = by_definition(q, *pairs.chunk(2, dim=2), None, lambda w: w * mask.view(w.shape) * scale)
    torch.manual_seed(4)
    torch.testing.assert_close(mix(q, pairs, None, HEADS, p), expected, rtol=0, atol=1e-12)
    assert 0.1 < 1 - mask.mean() < 0.4


@pytest.mark.parametrize("itself", [True, False])
def test_fused_and_own_attention_agree_where_one_takes_over_from_the_other(itself: bool) -> None:
    layer = Attention(WIDTH, HEADS).double()
    query = random(2, FUSED, WIDTH)
    source = query if itself else random(2, FUSED, WIDTH, seed=1)
    queries, pairs = layer._project(query, source)
    mask = holes(FUSED, FUSED)
    torch.testing.assert_close(layer._fused(queries, pairs, mask, 0.0), mix(queries, pairs, mask, HEADS, 0.0), rtol=0, atol=1e-12)
    torch.testing.assert_close(layer(query, source, mask), layer.outward(mix(queries, pairs, mask, HEADS, 0.0)), rtol=0, atol=1e-12)


def test_autocast_changes_the_dtype_and_little_else() -> None:
    q, pairs = random(2, 4, WIDTH).float(), random(2, 5, 2 * WIDTH, seed=1).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        halved = mix(q.bfloat16(), pairs.bfloat16(), None, HEADS, 0.0)
    assert halved.dtype == torch.bfloat16
    torch.testing.assert_close(halved.float(), mix(q, pairs, None, HEADS, 0.0), rtol=0, atol=0.05)


def test_shapes_are_known_without_data() -> None:
    assert mix(torch.empty(2, 4, WIDTH, device="meta"), torch.empty(2, 5, 2 * WIDTH, device="meta"), None, HEADS, 0.3).shape == (
        2,
        4,
        WIDTH,
    )


BLOCKS = [1, 40, 10**9]  # weights at a time: one head of 4 x 7, two (of three: so one), all


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("itself", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_blocks_give_what_is_computed_at_once(block: int, itself: bool, shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixing, "BLOCK", block)
    inputs = (random(2, 7, 3 * WIDTH),) if itself else (random(2, 4, WIDTH), random(2, 7, 2 * WIDTH, seed=1))
    mask = holes(inputs[0].shape[1], 7)[: 1 if shared else 2]
    both = [attend(*(*inputs, None)[:2], mask, HEADS, 0.0) for attend in (mix, mix_blocks)]
    torch.testing.assert_close(both[1], both[0], rtol=0, atol=1e-12)
    upstream = random(*both[0].shape, seed=2).detach()
    wanted, got = (torch.autograd.grad((one * upstream).sum(), inputs) for one in both)
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("block", BLOCKS)
def test_gradients_of_blocks_agree_with_finite_differences_under_dropout(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixing, "BLOCK", block)

    def drawn(q: Tensor, pairs: Tensor) -> Tensor:
        torch.manual_seed(4)
        return mix_blocks(q, pairs, holes(4, 7), HEADS, 0.3)

    assert torch.autograd.gradcheck(drawn, (random(2, 4, WIDTH), random(2, 7, 2 * WIDTH, seed=1)))


def test_the_way_back_leaves_the_generator_as_it_was() -> None:
    out = mix_blocks(random(2, 7, 3 * WIDTH), None, None, HEADS, 0.3)
    torch.manual_seed(5)
    out.sum().backward()
    after = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(3))


def test_blocks_drop_weights_at_the_rate_and_keep_the_mean() -> None:
    torch.manual_seed(0)
    x = torch.zeros(8, 64, 3 * WIDTH)
    x[..., 2 * WIDTH :] = 1.0  # equal weights, values of one: what is left is the sum of kept weights
    sums = mix_blocks(x, None, None, HEADS, 0.25)
    assert abs(float(sums.mean()) - 1) < 0.01  # 98,304 draws of variance p / (1 - p): the mean's standard error is .0005
    assert abs(float(sums.std()) - math.sqrt(0.25 / 0.75 / 64)) < 0.01


def test_long_sequences_keep_no_weights_for_the_gradient() -> None:
    def saved(steps: int) -> int:
        kept_bytes = []

        def note(x: Tensor) -> Tensor:
            kept_bytes.append(x.nbytes)
            return x

        layer = Attention(WIDTH, HEADS, dropout=0.1)
        x = torch.randn(1, steps, WIDTH)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
            layer(x, x)
        return sum(kept_bytes)

    assert saved(8 * FUSED) < 9 * saved(FUSED)  # weights would make it some 60 times
