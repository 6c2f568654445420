"""Kolmogorov-Arnold layers with B-splines on a uniform grid: linear, and convolution over one or two dimensions.

Every edge from input i to output o carries a function of its own (Liu et al. 2024, arXiv:2404.19756; as the kernel of a
convolution Bodner et al. 2024, arXiv:2406.13155):

    f(x) = scale * sum_k coefficient_k B_k(x) + base * silu(x)

Evaluated is the closed form of the B_k, not their recursion, once per input even where a convolution reads it several
times; one matrix product or convolution then serves all edges. The zeros among the bases are multiplied too: on a CPU to
put order + 1 of them in their places takes longer than to evaluate all.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

BLOCK = 1 << 18  # entries of expanded input that are handled together: 1 MB in float32, which a processor's cache holds
GPU_BLOCKS = 64  # as many of them at once keep a GPU busy
NOISE = 0.1  # deviation of a layer's spline part at the start, for bases of order 1

Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Spline:
    """The B-splines of degree ``order`` on ``grid`` equal cells of [low, high], continued by ``order`` cells on either side.

    There are ``count`` = grid + order of them. On [low, high] they sum to 1, and order + 1 of them differ from 0.
    ``outside`` says what they do beyond [low, high]:

    * ``linear``: each goes on along its tangent at the border, so that they still sum to 1 and their slopes stay alive;
    * ``zero``: they run out over the next ``order`` cells and are 0 from there on, as in most public implementations;
      an edge's gradient there is that of its base alone.

    Raises ValueError for an order outside 2 ... 5 (below, slopes jump; above, single precision suffers), a grid below 1
    or an empty interval.
    """

    grid: int = 5
    order: int = 3
    low: float = -1.0
    high: float = 1.0
    outside: Literal["linear", "zero"] = "linear"

    def __post_init__(self) -> None:
        if not 2 <= self.order <= 5:
            raise ValueError(f"spline order {self.order} is not in 2 ... 5")
        if self.grid < 1:
            raise ValueError(f"a spline needs at least one grid cell, not {self.grid}")
        if not self.low < self.high:
            raise ValueError(f"the spline's interval [{self.low}, {self.high}] is empty")
        if self.outside not in ("linear", "zero"):
            raise ValueError(f"outside = '{self.outside}' is neither 'linear' nor 'zero'")

    @property
    def count(self) -> int:
        """Number of bases."""
        return self.grid + self.order

    @torch.no_grad()
    def values(self, x: Tensor) -> Tensor:
        """Every basis at every x: (...) -> (count, ...). No gradient is recorded."""
        return expansion(x[None, None], self)[0, :-1, 0]

    @torch.no_grad()
    def slopes(self, x: Tensor) -> Tensor:
        """Derivative of every basis at every x: (...) -> (count, ...). No gradient is recorded."""
        return expansion_slopes(x[None, None], self)[1][0, :-1, 0]


# ---- bases and silu of x (B, in, ...), as (B, count + 1, in, ...)
#
# A basis at distance d from its peak, in cells, is for n = order + 1
#
#     sum over j < n / 2 of (-1)^j binomial(n, j) (n / 2 - j - d)_+^order / order!
#
# (truncated powers, counted from the nearer end of the support, where they are few and hardly cancel). Soft shrinkage leads
# from one term to the next: it is (near - 1)_+ for near >= 0. What counts here is the number of passes over memory.


def expansion(x: Tensor, spline: Spline) -> Tensor:
    """What a KAN layer's weights multiply: the bases and, last, silu of x (B, in, ...), as (B, count + 1, in, ...).

    This and ``expansion_slopes`` are for layers that write their own backward pass: no gradient may be recorded meanwhile.
    """
    out, spare = x.new_empty(2, len(x), spline.count + 1, *x.shape[1:]).unbind()
    bases, near = out[:, :-1], spare[:, :-1]
    inside, excess = _cells(x, spline)
    torch.pow(_from_end(inside, near, spline), spline.order, out=bases)
    for factor in _factors(spline):
        near = F.softshrink(near, _root(spline))
        bases.add_(near.pow(spline.order), alpha=factor)
    _continue(excess, bases, spline)
    out[:, -1].copy_(F.silu(x))
    return out


def _with_slopes(x: Tensor, spline: Spline) -> tuple[Tensor, Tensor]:
    """``expansion`` and the derivative by x of each of its entries in units of ``_unit``; both come from the same powers."""
    shape = len(x), spline.count + 1, *x.shape[1:]
    (out, slopes), spare = x.new_empty(2, *shape), x.new_empty(2, *shape)
    bases, rise, near, power = (part[:, :-1] for part in (out, slopes, *spare))
    inside, excess = _cells(x, spline)
    torch.pow(_from_end(inside, near, spline), spline.order - 1, out=rise)
    torch.mul(rise, near, out=bases)
    for factor in _factors(spline):
        near = F.softshrink(near, _root(spline))
        torch.pow(near, spline.order - 1, out=power)
        rise.add_(power, alpha=factor)
        bases.addcmul_(power, near, value=factor)
    torch.copysign(rise, torch.sub(_peaks(x, spline), inside[:, None], out=power), out=rise)
    _continue(excess, bases, spline)
    gate = x.sigmoid()
    torch.mul(gate, x, out=out[:, -1])
    torch.div(gate.addcmul(out[:, -1], 1 - gate), _unit(spline), out=slopes[:, -1])
    return out, slopes


def _cells(x: Tensor, spline: Spline) -> tuple[Tensor, Tensor | None]:
    """x in cells from the grid's lower end, moved to the nearer border where it lies outside, and by how much it was moved."""
    u = (x - spline.low).mul_(_rate(spline))
    if spline.outside == "zero":
        return u, None
    inside = u.clamp(0, spline.grid)
    return inside, u.sub_(inside)


def _rate(spline: Spline) -> float:
    """Cells per unit of x."""
    return spline.grid / (spline.high - spline.low)


def _peaks(x: Tensor, spline: Spline) -> Tensor:
    """Where the bases peak, in cells; broadcasts over (B, count, ...)."""
    peaks = torch.arange(spline.count, device=x.device, dtype=x.dtype)
    return peaks.sub_((spline.order - 1) / 2).view(1, -1, *[1] * (x.ndim - 1))


def _root(spline: Spline) -> float:
    """Its power of ``order`` is 1 / order!: what is scaled by it needs no division once it was raised to that power."""
    return float(math.factorial(spline.order) ** (-1 / spline.order))


def _unit(spline: Spline) -> float:
    """Slope, per unit of x, of a power that was scaled by ``_root``."""
    return spline.order * _root(spline) * _rate(spline)


def _from_end(inside: Tensor, out: Tensor, spline: Spline) -> Tensor:
    """(n / 2 - distance)_+ times ``_root``: how deep in each support ``inside`` (B, ...) lies; fills and returns ``out``."""
    root = _root(spline)
    end = inside.new_full((), (spline.order + 1) / 2 * root)
    torch.sub(inside[:, None], _peaks(inside, spline), out=out)
    torch.abs(out, out=out)
    return torch.add(end, out, alpha=-root, out=out).relu_()


def _factors(spline: Spline) -> list[int]:
    """Signed binomials of the terms j = 1, 2, ..."""
    n = spline.order + 1
    return [(-1) ** j * math.comb(n, j) for j in range(1, (n + 1) // 2)]


def _continue(excess: Tensor | None, bases: Tensor, spline: Spline) -> None:
    """Add to ``bases`` what their tangents at the borders gain over ``excess`` cells."""
    if excess is None:
        return
    below, above = excess.clamp(max=0), excess.clamp(min=0)
    for k, slope in enumerate(_border_slopes(spline.order)):
        if slope:
            bases[:, k].add_(below, alpha=slope)
            bases[:, spline.grid + k].add_(above, alpha=slope)


@functools.cache
def _border_slopes(order: int) -> list[float]:
    """Slopes per cell, at a knot, of the ``order`` bases that live on both sides of it."""
    return Spline(1, order, 0.0, 1.0, "zero").slopes(torch.zeros((), dtype=torch.float64)).tolist()[:order]


def expansion_slopes(x: Tensor, spline: Spline) -> tuple[Tensor, Tensor]:
    """``expansion`` and the derivative by x of each of its entries; both (B, count + 1, in, ...)."""
    expanded, slopes = _with_slopes(x, spline)
    return expanded, slopes.mul_(_unit(spline))


# ---- sums over edges; weights are (out, count + 1, in, *kernel), the base last


class _Product:
    """How expanded inputs of a linear layer meet its weights. Inputs stand along columns: every basis fills contiguous memory."""

    def arrange(self, x: Tensor) -> Tensor:
        """x (N, in) as it is expanded: (1, in, N)."""
        return x.t()[None].contiguous()

    def restore(self, x: Tensor) -> Tensor:
        """Back from ``arrange``."""
        return x[0].t()

    def forward(self, expanded: Tensor, weight: Tensor) -> Tensor:
        return expanded[0].flatten(0, 1).t() @ weight.flatten(1).t()

    def backward(self, grad: Tensor, expanded: Tensor, weight: Tensor, inward: bool) -> tuple[Tensor | None, Tensor]:
        """Gradients at ``expanded``, if ``inward``, and at ``weight``, in their sizes but for how these are folded."""
        to_weight = grad.t() @ expanded[0].flatten(0, 1).t()
        return weight.flatten(1).t() @ grad.t() if inward else None, to_weight


@dataclass(frozen=True)
class _Convolution(_Product):
    """The same for a convolution of x (B, in, *size), which is expanded as it is."""

    stride: Sizes
    dilation: Sizes

    def arrange(self, x: Tensor) -> Tensor:
        return x

    def restore(self, x: Tensor) -> Tensor:
        return x

    def forward(self, expanded: Tensor, weight: Tensor) -> Tensor:
        return torch.convolution(expanded.flatten(1, 2), weight.flatten(1, 2), None, *self._geometry())

    def backward(self, grad: Tensor, expanded: Tensor, weight: Tensor, inward: bool) -> tuple[Tensor | None, Tensor]:
        to_expanded, to_weight, _ = torch.ops.aten.convolution_backward(
            grad, expanded.flatten(1, 2), weight.flatten(1, 2), None, *self._geometry(), (inward, True, False)
        )
        return to_expanded, to_weight

    def _geometry(self) -> tuple[Any, ...]:
        still = (0,) * len(self.stride)
        return self.stride, still, self.dilation, False, still, 1


class _Edges(torch.autograd.Function):
    """x, weight -> sums of edge functions.

    What fits the cache is expanded once, with its slopes, and both are kept for the backward pass. What does not is
    expanded block by block, none of it is kept, and the backward pass expands it again: memory grows with the input alone.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, spline: Spline, product: _Product, recorded: bool) -> Tensor:
        ctx.spline, ctx.product, ctx.blocks = spline, product, blocks(x, spline)
        if recorded and len(ctx.blocks) == 1:
            expanded, slopes = _with_slopes(product.arrange(x), spline)
            ctx.save_for_backward(weight, expanded, slopes)
            return product.forward(expanded, weight).to(x.dtype)
        ctx.save_for_backward(weight, x)
        parts = [product.forward(expansion(product.arrange(x[rows]), spline), weight) for rows in ctx.blocks]
        return _joined(parts).to(x.dtype)  # autocast may have narrowed it

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, *kept = ctx.saved_tensors
        to_x, to_weight = [], []
        for rows in ctx.blocks:
            expanded, slopes = kept if len(kept) == 2 else _with_slopes(ctx.product.arrange(kept[0][rows]), ctx.spline)
            inward, part = ctx.product.backward(grad[rows], expanded, weight, ctx.needs_input_grad[0])
            to_weight.append(part.view_as(weight))
            if inward is not None:
                to_x.append(ctx.product.restore(inward.view_as(slopes).mul_(slopes).sum(1).mul_(_unit(ctx.spline))))
        return _joined(to_x) if to_x else None, functools.reduce(torch.add, to_weight), None, None, None


def _joined(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def blocks(x: Tensor, spline: Spline) -> list[slice]:
    """The rows of x (N, ...), in slices small enough to be expanded together."""
    limit = BLOCK if x.device.type == "cpu" else BLOCK * GPU_BLOCKS
    size = max(1, limit // max(1, x[:1].numel() * (spline.count + 1)))
    return [slice(i, i + size) for i in range(0, max(1, len(x)), size)]


class _KAN(nn.Module):
    """Parameters of the edge functions from ``inputs`` to ``outputs``, one set per place of ``kernel``."""

    def __init__(self, inputs: int, outputs: int, kernel: Sizes, spline: Spline, scale: bool) -> None:
        super().__init__()
        if min(inputs, outputs, *kernel, 1) < 1:
            raise ValueError(f"a KAN layer needs sizes of at least 1, not {inputs} inputs, {outputs} outputs, kernel {kernel}")
        self.inputs, self.outputs, self.kernel, self.spline = inputs, outputs, kernel, spline
        edges = inputs * math.prod(kernel)
        self.coefficients = nn.Parameter(torch.randn(outputs, spline.count, inputs, *kernel) * (NOISE / math.sqrt(edges)))
        self.base = nn.Parameter(torch.empty(outputs, inputs, *kernel))
        nn.init.kaiming_uniform_(self.base, a=math.sqrt(5))
        self.scale = nn.Parameter(torch.ones(outputs, inputs, *kernel)) if scale else None

    def weight(self) -> Tensor:
        """Coefficients, scaled, and the base behind them: (out, count + 1, in, *kernel)."""
        splines = self.coefficients if self.scale is None else self.coefficients * self.scale[:, None]
        return torch.cat([splines, self.base[:, None]], dim=1)

    def _sums(self, x: Tensor, product: _Product) -> Tensor:
        return _Edges.apply(x, self.weight(), self.spline, product, torch.is_grad_enabled())  # type: ignore[no-untyped-call, no-any-return]

    def extra_repr(self) -> str:
        return f"{self.inputs}, {self.outputs}, {self.spline}"


class KANLinear(_KAN):
    """A KAN layer: x (..., inputs) -> (..., outputs), y_o = sum_i f_oi(x_i) (Liu et al. 2024).

    Per edge: ``spline.count`` coefficients, a base weight (w_2 of MKCC, eq. 7), and with ``scale`` one of the spline part (w_1), which the
    published form has though coefficients of another length would say the same. There is no bias: inside the grid the
    bases sum to 1. Coefficients start normal and small, base weights as those of ``nn.Linear``, scales at 1.

    Computes in the dtype of its parameters, under autocast too. Differentiable once. Raises ValueError for sizes below 1.
    """

    def __init__(self, inputs: int, outputs: int, spline: Spline = Spline(), scale: bool = False) -> None:
        super().__init__(inputs, outputs, (), spline, scale)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, self.inputs).to(self.base.dtype)
        return self._sums(flat, _Product()).view(*x.shape[:-1], self.outputs)


class _KANConv(_KAN):
    """Convolution over ``dims`` dimensions; what its two subclasses share."""

    dims = 0

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | Sizes,
        stride: int | Sizes = 1,
        padding: int | Sizes = 0,
        dilation: int | Sizes = 1,
        spline: Spline = Spline(),
        scale: bool = False,
    ) -> None:
        super().__init__(inputs, outputs, self._sizes(kernel), spline, scale)
        self.stride, self.padding, self.dilation = (self._sizes(value) for value in (stride, padding, dilation))

    def _sizes(self, value: int | Sizes) -> Sizes:
        sizes = (value,) * self.dims if isinstance(value, int) else tuple(value)
        if len(sizes) != self.dims:
            raise ValueError(f"{type(self).__name__} takes one number or {self.dims}, not {value}")
        return sizes

    def forward(self, x: Tensor) -> Tensor:
        around = [size for size in reversed(self.padding) for _ in range(2)]
        padded = F.pad(x.to(self.base.dtype), around)
        return self._sums(padded, _Convolution(self.stride, self.dilation))


class KANConv1d(_KANConv):
    """x (B, inputs, T) -> (B, outputs, T'): at each step a ``KANLinear`` of the steps that the kernel covers.

    Bodner et al. 2024, over one dimension (MKCC, eq. 9). T' follows ``nn.Conv1d``. ``padding`` zeros stand on each side of x
    and are inputs like any other: an edge function gives f(0) there, which is not zero. Parameters, dtypes and errors
    are those of ``KANLinear``, with a function of its own for every place of the kernel.
    """

    dims = 1


class KANConv2d(_KANConv):
    """x (B, inputs, H, W) -> (B, outputs, H', W'), as ``KANConv1d`` over two dimensions; one number or two per size."""

    dims = 2
