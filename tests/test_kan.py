"""B-splines against SciPy's, KAN layers against sums over edges written out, gradients against differences."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.interpolate import BSpline
from torch import Tensor, nn

from harness.analysis.flops import count
from harness.nn import kan
from harness.nn.kan import KANConv1d, KANConv2d, KANLinear, Spline

EXACT = {"rtol": 0.0, "atol": 1e-12}
SINGLE = {"rtol": 0.0, "atol": 1e-6}
SPLINES = [Spline(grid, order) for grid, order in product([1, 2, 5, 8], [2, 3, 4, 5])] + [Spline(5, 3, -3.0, 4.5), Spline(4, 2, 0.0, 1.0)]
splines = st.builds(
    lambda grid, order, low, width, outside: Spline(grid, order, low, low + width, outside),
    st.integers(1, 9),
    st.integers(2, 5),
    st.floats(-3, 3),
    st.floats(0.2, 6),
    st.sampled_from(["linear", "zero"]),
)


def knots(spline: Spline) -> np.ndarray:
    steps = np.arange(-spline.order, spline.grid + spline.order + 1)
    return spline.low + steps * (spline.high - spline.low) / spline.grid


def inside(spline: Spline, points: int = 301, dtype: torch.dtype = torch.float64) -> Tensor:
    """Points of [low, high], none of them on a knot, where rounding decides between two cells."""
    shares = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    return (spline.low + shares * (spline.high - spline.low)).to(dtype)


def scipy_bases(spline: Spline, x: Tensor, derivative: int = 0) -> Tensor:
    """One basis at a time, on its own knots and zero beyond them: (...) -> (count, ...)."""
    found = []
    for k in range(spline.count):
        one = BSpline.basis_element(knots(spline)[k : k + spline.order + 2], extrapolate=False)
        one = one.derivative(derivative) if derivative else one
        found.append(np.nan_to_num(one(x.double().numpy())))
    return torch.from_numpy(np.stack(found))


@pytest.mark.parametrize("spline", SPLINES, ids=str)
def test_bases_are_those_of_scipy(spline: Spline) -> None:
    x = inside(spline)
    torch.testing.assert_close(spline.values(x), scipy_bases(spline, x), **EXACT)
    torch.testing.assert_close(spline.slopes(x), scipy_bases(spline, x, 1), rtol=1e-12, atol=1e-12)


def test_bases_in_single_precision() -> None:
    x = inside(Spline(), 4001, torch.float32)
    torch.testing.assert_close(Spline().values(x).double(), scipy_bases(Spline(), x), **SINGLE)


@given(splines, st.lists(st.floats(0, 1), min_size=1, max_size=20))
@settings(deadline=None)
def test_partition_of_unity(spline: Spline, shares: list[float]) -> None:
    x = spline.low + torch.tensor(shares, dtype=torch.float64) * (spline.high - spline.low)
    torch.testing.assert_close(spline.values(x).sum(0), torch.ones_like(x), **EXACT)
    torch.testing.assert_close(spline.slopes(x).sum(0), torch.zeros_like(x), rtol=0, atol=1e-10)  # slopes reach grid / width = 45
    assert (spline.values(x) > -1e-15).all()


@given(splines, st.lists(st.floats(0.001, 0.999), min_size=1, max_size=20))
@example(Spline(4, 2, 1.0, 1.2, "linear"), [0.5])
@settings(deadline=None)
def test_local_support(spline: Spline, shares: list[float]) -> None:
    """At most order + 1 neighbours differ from zero: those whose support holds the cell of x.

    A point on a knot may be taken to lie on either side of it, by rounding: a basis rises from its first knot like distance ** order.
    """
    rounding = 4 * np.finfo(float).eps * max(abs(spline.low), abs(spline.high)) * spline.grid / (spline.high - spline.low)  # in cells
    x = spline.low + torch.tensor(shares, dtype=torch.float64) * (spline.high - spline.low)
    for one, column in zip(x.tolist(), spline.values(x).T, strict=True):
        ends = knots(spline)
        far = [k for k in range(spline.count) if not ends[k] < one < ends[k + spline.order + 1]]
        assert (column[far].abs() <= rounding**spline.order).all()
        assert int((column > 1e-30).sum()) <= spline.order + 1


@pytest.mark.parametrize("spline", SPLINES, ids=str)
def test_linear_outside_goes_on_along_the_tangents(spline: Spline) -> None:
    beyond = torch.tensor([0.1, 1.0, 7.5, 300.0], dtype=torch.float64)
    for border, direction in [(spline.low, -1), (spline.high, 1)]:
        edge = torch.tensor(border, dtype=torch.float64)
        value, slope = spline.values(edge)[:, None], spline.slopes(edge)[:, None]
        x = border + direction * beyond
        torch.testing.assert_close(spline.values(x), value + slope * direction * beyond, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(spline.slopes(x), slope.expand(-1, 4), **EXACT)
        assert slope.abs().max() > 0.1 * spline.grid / (spline.high - spline.low)


@pytest.mark.parametrize("spline", SPLINES, ids=str)
def test_zero_outside_runs_out_on_the_extended_knots(spline: Spline) -> None:
    spline = Spline(spline.grid, spline.order, spline.low, spline.high, "zero")
    width = spline.high - spline.low
    x = torch.linspace(spline.low - 2 * spline.order * width, spline.high + 2 * spline.order * width, 700, dtype=torch.float64)
    torch.testing.assert_close(spline.values(x), scipy_bases(spline, x), **EXACT)
    torch.testing.assert_close(spline.slopes(x), scipy_bases(spline, x, 1), rtol=1e-12, atol=1e-12)
    assert not spline.values(x[:1]).any()


@pytest.mark.parametrize("outside", ["linear", "zero"])
def test_gradient_is_alive_far_outside(outside: Any) -> None:
    layer = KANLinear(3, 2, Spline(outside=outside))
    x = torch.tensor([[50.0, -0.5, 9.0]], requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None and x.grad.all()


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"order": 1}, "order 1"),
        ({"order": 6}, "order 6"),
        ({"grid": 0}, "grid cell"),
        ({"low": 1.0}, "empty"),
        ({"outside": "clip"}, "clip"),
    ],
)
def test_spline_refuses(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Spline(**wrong)


def test_layers_refuse_empty_sizes_and_the_wrong_number_of_them() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        KANLinear(0, 3)
    with pytest.raises(ValueError, match="at least 1"):
        KANConv1d(2, 3, 0)
    with pytest.raises(ValueError, match="KANConv2d takes one number or 2"):
        KANConv2d(2, 3, (3, 3, 3))


def edge_sums(layer: KANLinear, x: Tensor) -> Tensor:
    """The definition, one edge at a time, with SciPy's splines on points of the grid: x (N, in) -> (N, out)."""
    y = torch.zeros(len(x), layer.outputs, dtype=torch.float64)
    for o, i in product(range(layer.outputs), range(layer.inputs)):
        spline = BSpline(knots(layer.spline), layer.coefficients[o, :, i].detach().numpy(), layer.spline.order)(x[:, i].numpy())
        scale = 1.0 if layer.scale is None else layer.scale[o, i].item()
        y[:, o] += scale * torch.from_numpy(spline) + layer.base[o, i].item() * F.silu(x[:, i])
    return y


@pytest.mark.parametrize("scale", [False, True])
def test_linear_is_the_sum_over_edges(scale: bool) -> None:
    torch.manual_seed(0)
    layer = KANLinear(4, 3, Spline(6, 3, -2.0, 1.0), scale).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    x = torch.rand(7, 4, dtype=torch.float64) * 3 - 2
    torch.testing.assert_close(layer(x).detach(), edge_sums(layer, x), **EXACT)
    assert layer(x.view(7, 1, 1, 4)).shape == (7, 1, 1, 3)
    assert layer(x[:0]).shape == (0, 3)


@pytest.fixture(params=[kan.BLOCK, 60], ids=["kept", "in blocks"])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways through the layers: expansions kept, and expansions of a few rows made anew."""
    monkeypatch.setattr(kan, "BLOCK", request.param)


@pytest.mark.parametrize("outside", ["linear", "zero"])
@pytest.mark.usefixtures("block")
def test_gradients_of_linear(outside: Any) -> None:
    torch.manual_seed(0)
    layer = KANLinear(3, 2, Spline(4, 3, outside=outside), scale=True).double()
    x = (torch.randn(5, 3, dtype=torch.float64) * 1.5).requires_grad_()
    names, values = zip(*layer.named_parameters(), strict=True)

    def call(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(call, (x, *values))


@pytest.mark.parametrize("order", [2, 4, 5])
def test_gradients_of_other_orders(order: int) -> None:
    layer = KANLinear(2, 2, Spline(3, order)).double()
    assert torch.autograd.gradcheck(layer, torch.linspace(-1.9, 1.9, 8, dtype=torch.float64).view(4, 2).requires_grad_())


@pytest.mark.parametrize(
    "layer, shape",
    [
        (KANConv1d(2, 3, 3, stride=2, padding=1, dilation=2, spline=Spline(3), scale=True), (2, 2, 8)),
        (KANConv2d(2, 2, (2, 3), stride=(1, 2), padding=(0, 1), spline=Spline(3)), (2, 2, 3, 4)),
    ],
    ids=["1d", "2d"],
)
@pytest.mark.usefixtures("block")
def test_gradients_of_convolution(layer: nn.Module, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer = layer.double()
    names, values = zip(*layer.named_parameters(), strict=True)

    def call(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(call, (torch.randn(shape, dtype=torch.float64, requires_grad=True), *values))


def linear_of(layer: KANConv1d | KANConv2d) -> KANLinear:
    """The linear layer whose inputs are a patch, in the order of ``F.unfold``."""
    linear = KANLinear(layer.inputs * int(np.prod(layer.kernel)), layer.outputs, layer.spline, layer.scale is not None).double()
    with torch.no_grad():
        linear.coefficients.copy_(layer.coefficients.flatten(2))
        linear.base.copy_(layer.base.flatten(1))
        if layer.scale is not None and linear.scale is not None:
            linear.scale.copy_(layer.scale.flatten(1))
    return linear


@pytest.mark.parametrize("kernel, stride, padding, dilation", [(1, 1, 0, 1), (3, 1, 1, 1), (5, 2, 2, 1), (4, 3, 0, 2), (7, 1, 3, 1)])
@pytest.mark.usefixtures("block")
def test_convolution_over_time_is_linear_on_patches(kernel: int, stride: int, padding: int, dilation: int) -> None:
    torch.manual_seed(0)
    layer = KANConv1d(3, 4, kernel, stride, padding, dilation, scale=True).double()
    x = torch.randn(2, 3, 17, dtype=torch.float64)
    patches = F.unfold(x[:, :, None], (1, kernel), (1, dilation), (0, padding), (1, stride))
    torch.testing.assert_close(layer(x), linear_of(layer)(patches.transpose(1, 2)).transpose(1, 2), **EXACT)


@pytest.mark.parametrize("kernel, stride, padding, dilation", [((3, 3), 1, 1, 1), ((2, 5), (2, 1), (0, 2), (1, 2))])
@pytest.mark.usefixtures("block")
def test_convolution_over_a_plane_is_linear_on_patches(kernel: Any, stride: Any, padding: Any, dilation: Any) -> None:
    torch.manual_seed(0)
    layer = KANConv2d(2, 3, kernel, stride, padding, dilation).double()
    x = torch.randn(2, 2, 9, 11, dtype=torch.float64)
    patches = F.unfold(x, kernel, dilation, padding, stride)
    y = layer(x)
    torch.testing.assert_close(y.flatten(2), linear_of(layer)(patches.transpose(1, 2)).transpose(1, 2), **EXACT)
    assert y.shape == F.conv2d(x, torch.zeros(3, 2, *kernel, dtype=torch.float64), None, stride, padding, dilation).shape


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    layer, x = KANLinear(5, 4).double(), torch.randn(50, 5, dtype=torch.float64)
    whole = torch.autograd.grad(layer(x).square().sum(), list(layer.parameters()))
    monkeypatch.setattr(kan, "BLOCK", 300)
    parts = torch.autograd.grad(layer(x).square().sum(), list(layer.parameters()))
    torch.testing.assert_close(whole, parts, **EXACT)


def test_backward_may_run_twice_and_without_a_gradient_at_the_input() -> None:
    layer, x = KANLinear(4, 3), torch.randn(6, 4)
    y = layer(x).sum()
    first, second = (torch.autograd.grad(y, layer.base, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    with_input = layer(x.requires_grad_()).sum()
    torch.testing.assert_close(torch.autograd.grad(with_input, [layer.base, x])[0], first)


@pytest.mark.parametrize("layer", [KANLinear(4, 3), KANConv1d(4, 3, 3)], ids=["linear", "convolution"])
def test_autocast_leaves_the_splines_in_single_precision(layer: nn.Module) -> None:
    x = torch.randn(2, 4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x.bfloat16())
    y.sum().backward()
    assert y.dtype == torch.float32
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in layer.parameters())


def test_flops_are_those_of_the_products() -> None:
    """Bases are entry by entry and free; (count + 1) multiply-accumulates per edge."""
    assert count(KANLinear(4, 3), lambda layer, device: layer(torch.zeros(5, 4, device=device))).macs == 5 * 4 * 3 * 9
    conv = KANConv1d(4, 3, 3, padding=1)
    assert count(conv, lambda layer, device: layer(torch.zeros(2, 4, 7, device=device))).macs == 2 * 7 * 4 * 3 * 3 * 9


def test_number_of_parameters() -> None:
    sizes = [sum(p.numel() for p in layer.parameters()) for layer in (KANLinear(4, 3), KANLinear(4, 3, scale=True), KANConv2d(4, 3, 3))]
    assert sizes == [4 * 3 * 9, 4 * 3 * 10, 4 * 3 * 9 * 9]


def test_a_spline_can_be_learnt() -> None:
    """One edge fits a smooth function to the accuracy of cubics on its grid."""
    torch.manual_seed(0)
    layer = KANLinear(1, 1, Spline(10)).double()
    x = torch.linspace(-1, 1, 200, dtype=torch.float64)[:, None]
    target = torch.sin(3 * x)
    with torch.no_grad():
        design = layer.spline.values(x[:, 0]).T
        layer.base.zero_()
        layer.coefficients.copy_(torch.linalg.lstsq(design, target).solution.view(1, -1, 1))
    assert (layer(x) - target).abs().max() < 5 * (0.2 * 3) ** 4 / 384  # h^4 max|f''''| / 384, up to a small constant
