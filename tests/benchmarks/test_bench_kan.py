"""KAN linear against a plain implementation of the same sums: forward and backward, as a ratio in one run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from plain_kan import PlainKANLinear
from ratios import ratio, saved_bytes
from torch import Tensor, nn

from harness.nn.kan import KANConv1d, KANLinear, Spline

BATCH, WIDTH = 256, 64


def pair() -> tuple[KANLinear, PlainKANLinear, Tensor]:
    """The two layers with equal parameters, and inputs most of which lie in the grid."""
    torch.manual_seed(0)
    ours, plain = KANLinear(WIDTH, WIDTH, Spline(outside="zero")), PlainKANLinear(WIDTH, WIDTH)
    with torch.no_grad():
        ours.coefficients.copy_(plain.coefficients.transpose(1, 2))
        ours.base.copy_(plain.base)
    return ours, plain, torch.randn(BATCH, WIDTH).mul_(0.6).requires_grad_()


def step(layer: nn.Module, x: Tensor) -> Callable[[], object]:
    weight = torch.randn(BATCH, WIDTH)
    return lambda: layer(x).backward(weight)


def test_both_compute_the_same() -> None:
    ours, plain, x = pair()
    results = []
    for layer in (ours, plain):
        leaf = x.detach().clone().requires_grad_()
        y = layer(leaf)
        y.sum().backward()
        results.append((y.detach(), leaf.grad))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-4)  # sums of 576 terms in single precision


@pytest.mark.parametrize("outside", ["linear", "zero"])
def test_linear_is_several_times_faster(benchmark: Any, outside: str) -> None:
    """Three times on a quiet machine; what is asserted leaves room for a busy one."""
    ours, plain, x = pair()
    ours.spline = Spline(outside=outside)  # type: ignore[arg-type]
    benchmark.extra_info["times faster"] = faster = ratio(step(plain, x), step(ours, x), rounds=200)
    benchmark(step(ours, x))
    assert faster >= 2


def test_linear_saves_at_most_half_of_the_bytes(benchmark: Any) -> None:
    ours, plain, x = pair()
    kept = saved_bytes(lambda: ours(x)), saved_bytes(lambda: plain(x))
    benchmark.extra_info["bytes, ours and plain"] = kept
    benchmark(lambda: ours(x))
    assert kept[0] <= kept[1] / 2


def test_convolution_is_faster_than_a_linear_layer_on_patches(benchmark: Any) -> None:
    """Each input is expanded once, not once per place of the kernel."""
    layer = KANConv1d(32, 64, 5, padding=2)
    x = torch.randn(8, 32, 100, requires_grad=True)
    linear = KANLinear(32 * 5, 64)

    def patches() -> None:
        unfolded = nn.functional.pad(x, (2, 2)).unfold(2, 5, 1).permute(0, 2, 1, 3).flatten(2)
        linear(unfolded).sum().backward()

    benchmark.extra_info["times faster"] = faster = ratio(patches, lambda: layer(x).sum().backward(), rounds=20)
    benchmark(lambda: layer(x).sum().backward())
    assert faster > 1
