"""The tensor fusion layer against the product written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import harness.nn.tensor_fusion as tensor_fusion
from harness.nn.tensor_fusion import OuterLinear, outer

EXACT = {"rtol": 0.0, "atol": 1e-12}
WIDTHS = [(3,), (3, 2), (2, 4, 3)]


@pytest.mark.parametrize("widths", WIDTHS)
def test_outer_product_is_every_product(widths: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    vectors = [rng.normal(size=(2, width)) for width in widths]
    extended = [np.hstack([np.ones((2, 1)), z]) for z in vectors]
    cells = [math.prod(z[0, i] for z, i in zip(extended, index, strict=True)) for index in np.ndindex(*(w + 1 for w in widths))]
    result = outer([torch.from_numpy(z) for z in vectors])
    np.testing.assert_allclose(result[0].numpy(), cells, rtol=1e-14)
    assert result.shape == (2, math.prod(w + 1 for w in widths))


def build(widths: tuple[int, ...], p: float) -> tuple[OuterLinear, list[Tensor]]:
    torch.manual_seed(0)
    layer = OuterLinear(widths, 5, p).double()
    return layer, [torch.randn(4, width, dtype=torch.float64, requires_grad=True) for width in widths]


@pytest.mark.parametrize("block", [1, 7, 1 << 13])
@pytest.mark.parametrize("widths", WIDTHS)
def test_layer_is_a_linear_map_of_the_product(widths: tuple[int, ...], block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values and gradients of every input, however the product is cut."""
    monkeypatch.setattr(tensor_fusion, "BLOCK", block)
    layer, vectors = build(widths, 0.0)
    leaves = [*vectors, layer.weight, layer.bias]
    ours, plain = layer(vectors), F.linear(outer(vectors), layer.weight.T, layer.bias)
    torch.testing.assert_close(ours, plain, **EXACT)
    seed = torch.randn_like(ours)
    for mine, theirs in zip(torch.autograd.grad(ours, leaves, seed), torch.autograd.grad(plain, leaves, seed), strict=True):
        torch.testing.assert_close(mine, theirs, **EXACT)


@pytest.mark.parametrize("block", [7, 1 << 13])
def test_dropout_hits_entries_of_the_product(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One output per cell shows the entries themselves: each is 0 or its product over the share that is kept."""
    monkeypatch.setattr(tensor_fusion, "BLOCK", block)
    _, vectors = build((9, 11), 0.0)
    layer = OuterLinear((9, 11), 120, 0.25).double()
    with torch.no_grad():
        layer.weight.copy_(torch.eye(120))
        layer.bias.zero_()
    dropped, whole = layer(vectors), outer(vectors)
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], (whole / 0.75)[kept], **EXACT)
    share = 1 - kept.double().mean().item()
    assert abs(share - 0.25) < 5 * math.sqrt(0.25 * 0.75 / kept.numel())
    assert torch.equal(layer.eval()(vectors), layer(vectors))
    torch.testing.assert_close(layer(vectors), whole, **EXACT)


@pytest.mark.parametrize("block", [7, 1 << 13])
def test_gradient_knows_the_mask(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the draws repeated the layer is a smooth function, so finite differences must agree."""
    monkeypatch.setattr(tensor_fusion, "BLOCK", block)
    layer, vectors = build((2, 4, 3), 0.5)

    def repeated(*inputs: Tensor) -> Tensor:
        torch.manual_seed(5)
        return layer(inputs)  # type: ignore[no-any-return]

    assert torch.autograd.gradcheck(repeated, tuple(vectors))
    torch.manual_seed(5)
    y = layer(vectors).square().sum()
    y.backward()
    grad, step = layer.weight.grad, 1e-6
    assert grad is not None
    for cell in (0, 17, 59):
        with torch.no_grad():
            layer.weight[cell, 2] += step
            torch.manual_seed(5)
            moved = layer(vectors).square().sum()
            layer.weight[cell, 2] -= step
        assert (moved - y).item() / step == pytest.approx(grad[cell, 2].item(), rel=1e-4, abs=1e-5)


def test_the_product_is_never_whole() -> None:
    """What stays for the backward pass: the inputs, and the mask at a byte per entry."""
    layer = OuterLinear((32, 32, 128), 64, 0.5)
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
        layer([torch.randn(8, width, requires_grad=True) for width in (32, 32, 128)])
    entries = 8 * 33 * 33 * 129
    own = {x.data_ptr(): x.numel() * x.element_size() for x in saved if x.data_ptr() != layer.weight.data_ptr()}
    assert entries <= sum(own.values()) < 1.5 * entries
