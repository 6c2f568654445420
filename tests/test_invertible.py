"""Invertible blocks: exact inverses, volumes, and attention masks against plain loops."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from harness.nn.invertible import AdditiveCoupling, AttentionMask, Disentangler, Householder, InvertibleBlock, Permutation

EXACT = {"rtol": 0.0, "atol": 1e-10}  # float64 rounding through some hundred products


def vectors(clips: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(clips, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def made(module: nn.Module) -> nn.Module:
    return module.double()


@given(width=st.integers(1, 12), reflections=st.integers(1, 5))
@settings(deadline=None, max_examples=30)
def test_householder_is_the_orthogonal_matrix_of_its_definition(width: int, reflections: int) -> None:
    mix = made(Householder(width, reflections))
    product = np.eye(width)
    for v in mix.vectors.detach().numpy():
        product = product @ (np.eye(width) - 2 * np.outer(v, v) / (v @ v))
    matrix = mix.matrix().detach()
    torch.testing.assert_close(matrix, torch.from_numpy(product), **EXACT)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(width, dtype=torch.float64), **EXACT)
    assert torch.linalg.det(matrix).item() == pytest.approx((-1) ** reflections, abs=1e-10)
    h = vectors(4, width)
    torch.testing.assert_close(mix(h), h @ matrix.T, **EXACT)
    torch.testing.assert_close(mix.inverse(mix(h)), h, **EXACT)


def test_householder_ignores_the_length_of_its_vectors() -> None:
    mix = made(Householder(6, 3))
    before = mix.matrix().detach()
    with torch.no_grad():
        mix.vectors.mul_(torch.tensor([[0.01], [3.0], [-50.0]]))
    torch.testing.assert_close(mix.matrix().detach(), before, **EXACT)


def test_coupling_shifts_the_second_half_by_a_function_of_the_first() -> None:
    couple = made(AdditiveCoupling(8, 5))
    h = vectors(3, 8)
    result = couple(h)
    assert torch.equal(result[:, :4], h[:, :4])
    torch.testing.assert_close(result[:, 4:] - h[:, 4:], couple.shift(h[:, :4]), **EXACT)
    torch.testing.assert_close(couple.inverse(result), h, **EXACT)
    with pytest.raises(ValueError, match="7 is odd"):
        AdditiveCoupling(7, 5)


def test_permutation_is_drawn_once_and_stored() -> None:
    torch.manual_seed(0)
    first, other = Permutation(20), Permutation(20)
    h = torch.arange(20.0)[None]
    assert sorted(first(h)[0].tolist()) == h[0].tolist() and not torch.equal(first(h), other(h))
    assert torch.equal(first.inverse(first(h)), h)
    assert not list(first.parameters())
    other.load_state_dict(first.state_dict())
    assert torch.equal(first(h), other(h))


@given(half=st.integers(1, 6), hidden=st.integers(1, 9), blocks=st.integers(1, 6), reflections=st.integers(1, 4))
@settings(deadline=None, max_examples=20)
def test_inverse_is_exact_and_volume_is_kept_without_norm_and_mask(half: int, hidden: int, blocks: int, reflections: int) -> None:
    flow = made(Disentangler(2 * half, hidden, blocks, reflections, norm=False, mask="none"))
    h = vectors(5, 2 * half)
    torch.testing.assert_close(flow.inverse(flow(h)), h, **EXACT)
    torch.testing.assert_close(flow(flow.inverse(h)), h, **EXACT)
    jacobian = torch.autograd.functional.jacobian(lambda x: flow(x[None])[0], h[0])
    sign, log = torch.linalg.slogdet(jacobian)
    assert log.item() == pytest.approx(0.0, abs=1e-10) and abs(sign.item()) == 1


def test_a_block_is_its_four_steps() -> None:
    block = made(InvertibleBlock(6, 4))
    nn.init.normal_(block.norm.weight)
    mixed = vectors(3, 6) @ block.mix.matrix().T
    normed = (mixed - mixed.mean(1, keepdim=True)) / (mixed.var(1, correction=0, keepdim=True) + block.norm.eps).sqrt()
    u, r = (normed * block.norm.weight + block.norm.bias).chunk(2, dim=1)
    expected = torch.cat([u, r + block.couple.shift(u)], dim=1)[:, block.permute.order]
    torch.testing.assert_close(block(vectors(3, 6)), expected, **EXACT)


def test_inverse_passes_over_norm_and_mask() -> None:
    """The same weights without layer norm and mask undo the same way; with them, forward is not undone."""
    full = made(Disentangler(8, 5, blocks=2, mask="channel", place="every"))
    bare = copy.deepcopy(full)
    for block in bare.blocks:
        block.norm = nn.Identity()
    bare.masks = nn.ModuleList(nn.Identity() for _ in bare.masks)
    h = vectors(4, 8)
    torch.testing.assert_close(full.inverse(h), bare.inverse(h), **EXACT)
    torch.testing.assert_close(bare.inverse(bare(h)), h, **EXACT)
    assert (full.inverse(full(h)) - h).abs().max() > 0.01


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


def by_loops(mask: AttentionMask, h: np.ndarray) -> np.ndarray:
    """Eq. 7-9 clip by clip, or with one attention between clips."""
    half = h.shape[1] // 2
    maps = [layer.weight.detach().numpy().reshape(3, half, half) for layer in (mask.from_u, mask.from_r)]
    (qu, ku, vu), (qr, kr, vr) = ([x @ w.T for w in weights] for x, weights in zip((h[:, :half], h[:, half:]), maps, strict=True))
    if mask.over == "batch":
        alpha, beta = (np.diag(softmax(q @ k.T / math.sqrt(half)))[:, None] for q, k in ((qu, kr), (qr, ku)))
    else:
        alpha, beta = (
            np.stack([np.diag(softmax(np.outer(q[i], k[i]) / math.sqrt(half))) for i in range(len(h))]) for q, k in ((qu, kr), (qr, ku))
        )
    return np.hstack([(1 - beta) * vu + alpha * vr, (1 - alpha) * vr + beta * vu])


@pytest.mark.parametrize("over", ["channel", "batch"])
def test_mask_is_its_equations(over: str) -> None:
    mask = made(AttentionMask(5, over))  # type: ignore[arg-type]
    h = 3 * vectors(4, 10)
    torch.testing.assert_close(mask(h).detach(), torch.from_numpy(by_loops(mask, h.numpy())), **EXACT)
    apart = (mask(h)[:1] - mask(h[:1])).abs().max()
    assert (apart < 1e-12) == (over == "channel")


def test_mask_over_a_batch_of_one_swaps_the_halves() -> None:
    """Every weight is 1, so u becomes V_r and r becomes V_u: why attention over single vectors says nothing."""
    mask = made(AttentionMask(3, "batch"))
    h = vectors(1, 6)
    swapped = torch.cat([mask.from_r(h[:, 3:])[:, 6:], mask.from_u(h[:, :3])[:, 6:]], dim=1)
    torch.testing.assert_close(mask(h), swapped, **EXACT)


@pytest.mark.parametrize(("mask", "place", "count"), [("none", "every", 0), ("channel", "last", 1), ("batch", "every", 3)])
def test_masks_stand_where_they_are_said_to(mask: str, place: str, count: int) -> None:
    flow = Disentangler(4, 3, blocks=3, mask=mask, place=place)  # type: ignore[arg-type]
    masks = [m for m in flow.masks if isinstance(m, AttentionMask)]
    assert len(masks) == count and all(m.over == mask for m in masks)
    assert count != 1 or isinstance(flow.masks[-1], AttentionMask)
