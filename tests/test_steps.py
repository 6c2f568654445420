"""Packed sequences: nothing but the padding is lost, and the gradients are those of plain indexing."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from harness.nn import attention
from harness.nn.attention import Dropouts, Encoder, attention_mask
from harness.nn.steps import Steps, packs, real_steps

EXACT = {"rtol": 1e-12, "atol": 1e-12}
some_lengths = st.lists(st.integers(1, 9), min_size=1, max_size=6)


def batch(lengths: list[int], extra: int = 2, width: int = 6, seed: int = 0) -> tuple[Tensor, Tensor, Steps]:
    counts = torch.tensor(lengths)
    x = torch.randn(len(lengths), max(lengths) + extra, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return x.requires_grad_(), counts, real_steps(counts, x.shape[1])


@given(some_lengths, st.integers(0, 3))
def test_pack_is_the_real_steps_clip_after_clip(lengths: list[int], extra: int) -> None:
    x, _, steps = batch(lengths, extra)
    assert torch.equal(steps.pack(x), torch.cat([clip[:n] for clip, n in zip(x, lengths, strict=True)]))


@given(some_lengths, st.integers(0, 3))
def test_pad_undoes_pack_and_repeats_the_last_step(lengths: list[int], extra: int) -> None:
    x, _, steps = batch(lengths, extra)
    back = steps.pad(steps.pack(x))
    assert back.shape == x.shape
    for before, after, n in zip(x, back, lengths, strict=True):
        assert torch.equal(after[:n], before[:n])
        assert torch.equal(after[n:], before[n - 1].expand(len(after) - n, -1))


@given(some_lengths)
def test_last_is_each_clips_last_real_step(lengths: list[int]) -> None:
    x, _, steps = batch(lengths)
    assert torch.equal(steps.last(steps.pack(x)), torch.stack([clip[n - 1] for clip, n in zip(x, lengths, strict=True)]))


@given(some_lengths)
def test_gradients_are_those_of_real_steps_alone(lengths: list[int]) -> None:
    x, counts, steps = batch(lengths)
    real = torch.arange(x.shape[1]) < counts[:, None]
    weight = torch.randn(int(real.sum()), x.shape[2], dtype=torch.float64)
    (ours,) = torch.autograd.grad((steps.pack(x) * weight).sum(), x)
    (plain,) = torch.autograd.grad((x[real] * weight).sum(), x)
    assert torch.equal(ours, plain)
    rows = x[real].detach().requires_grad_()
    everywhere = torch.randn_like(x)
    (ours,) = torch.autograd.grad((steps.pad(rows) * everywhere).sum(), rows)
    assert torch.equal(ours, everywhere[real])  # padding is a constant


@pytest.mark.parametrize("causal", [False, True])
def test_an_encoder_on_packed_steps_is_the_padded_one(monkeypatch: pytest.MonkeyPatch, causal: bool) -> None:
    encoder = Encoder(6, 3, 3, Dropouts()).double()
    (x, n, _), (source, m, _) = batch([5, 1, 8]), batch([3, 7, 2], seed=1)
    mask, own = attention_mask(x, source, n, m, causal), attention_mask(x, x, n, n, causal)
    real = torch.arange(x.shape[1]) < n[:, None]

    def results() -> list[Tensor]:
        seen, last = encoder(x, source, mask, n, m)[real], encoder.last(x, own, n)
        return [seen, last, *torch.autograd.grad((seen**2).sum() + (last**3).sum(), [x, source, *encoder.parameters()])]

    packed = results()
    monkeypatch.setattr(attention, "packs", lambda lengths, longest: False)
    for ours, plain in zip(packed, results(), strict=True):
        torch.testing.assert_close(ours, plain, **EXACT)


def test_what_is_packed() -> None:
    assert packs(torch.tensor([2, 1]), 2) and packs(torch.tensor([6, 9]), 10)
    assert not packs(torch.tensor([8, 9]), 10), "copies would cost what is saved"
    assert not packs(torch.empty(2, dtype=torch.int64, device="meta"), 2), "steps cannot be counted"
