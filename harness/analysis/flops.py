"""Floating-point operations of a call, counted by shape, with a guard that refuses to leave out a heavy operation.

The module is copied to the ``meta`` device, where tensors have shapes and no values: there PyTorch decomposes LSTM, attention and
encoder layers into matrix products, each of which has a formula, so that the count depends neither on the device nor on fused
kernels. Where a call needs values (``.item()``, boolean indexing) it is counted on the CPU with fused kernels switched off.

Counted: matrix products, convolutions, and outer products however they are written: a product of two tensors that are both
broadcast, which is also how a matrix product looks that is written as a product and a sum. One multiply-accumulate (MAC) is two
FLOPs; an entry of an outer product counts as one MAC, as in ``bmm``. Not counted: all else that works entry by entry (activations,
norms, sums), and in a backward pass the reductions of an outer product that was written as a broadcast.

The guard: every operation that reaches a kernel must have a formula, or be a view, a factory, pointwise, or one of a list of light
ones (sums, norms, softmax, indexing, pooling, sorting). Anything else ends in ``Uncounted``, not in a count that is too small.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from harness.errors import HarnessError

Call = Callable[[nn.Module, torch.device], object]
Shape = torch.Size

OWN_NAMESPACES = ("aten", "prim", "prims", "profiler")  # any other operation is someone's own, and costs what only its author knows
# Work that grows with the number of entries, at most times a logarithm. Views, factories and what PyTorch tags as pointwise come on top.
LIGHT = re.compile(
    "|".join(
        (
            r"to_copy|copy|copy_from|clone|contiguous|detach|alias|lift_fresh|resize|set|fill|zero|\w+_like|new_\w+",
            r"(unsafe_)?(view|split|split_with_sizes|chunk)|transpose|t|squeeze|unsqueeze|cat|\w*stack|flip|roll|repeat|repeat_interleave",
            r"(reflection|replication|constant)_pad_?\w*|(unsafe_)?index\w*|gather\w*|scatter\w*|take\w*|put|masked_\w+|where|nonzero\w*",
            r"(select|slice|diagonal|unfold|as_strided|trace|value_selecting_reduction|embedding)\w*_backward|(select|slice|diagonal)_scatter",
            r"embedding|tril\w*|triu\w*|bucketize|searchsorted|sort|argsort|msort|topk|kthvalue|unique\w*|bincount|histc|isin|multinomial",
            r"a?max|a?min|argmax|argmin|aminmax|all|any|sum|nansum|mean|nanmean|prod|var|var_mean|std|std_mean|median|nanmedian|mode|quantile",
            r"linalg_vector_norm|norm|dist|renorm|weight_norm\w*|logsumexp|logcumsumexp|cumsum|cumprod|cummax|cummin|count_\w+|equal|is_\w+",
            r"(log_|safe_)?softmax(_backward_data)?|log_softmax\w*|\w*batch_norm\w*|native_(layer|group)_norm\w*|fused_rms_norm\w*",
            r"\w*(max|avg)_pool[123]d\w*|upsample_\w+|pixel_\w*shuffle|native_dropout\w*|bernoulli|random|uniform|normal|exponential|rand\w*",
            r"pack_padded_sequence(_backward)?|fused_(adamw?|sgd|adagrad)|floor_divide|(leaky_relu|elu|softplus|hardtanh|prelu_kernel)_backward",
            r"local_scalar_dense|item|\w+_loss\w*|nll_\w+|binary_cross_entropy\w*|kl_div|foreach_\w+|assert_\w*",
        )
    )
)


class Uncounted(HarnessError):
    """The call contains an operation whose cost has no formula; a count without it would be wrong."""


@dataclass(frozen=True)
class Count:
    """FLOPs by operation, and by module (dotted name; a parent includes its children).

    ``device``: ``meta``, or ``cpu`` where the call needs values; ``reason`` then says why.
    """

    by_operation: dict[str, int]
    by_module: dict[str, int]
    device: str
    reason: str = ""

    @property
    def flops(self) -> int:
        return sum(self.by_operation.values())

    @property
    def macs(self) -> float:
        """Multiply-accumulates: half the FLOPs."""
        return self.flops / 2


def count(module: nn.Module, call: Call) -> Count:
    """FLOPs of ``call(copy of module, device)``, which makes its inputs on ``device`` and may run a backward pass.

    Raises Uncounted for an operation without a formula (give it one: ``torch.utils.flop_counter.register_flop_formula``).
    The module itself is left as it is; random streams too.
    """
    try:
        return _counted(copy.deepcopy(module).to("meta"), call, torch.device("meta"))
    except Uncounted:
        raise
    except Exception as error:  # whatever has no meaning without values; if the fault is the call's own, it comes again below
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
    with torch.random.fork_rng(devices=[]):
        return _counted(copy.deepcopy(module).to("cpu"), call, torch.device("cpu"), reason)


class Executed:
    """FLOPs of all that runs inside ``with``, by what a CPU executes: where a layer leaves padding out, so does the count.

    Entered once; ``flops`` afterwards. Raises Uncounted on leaving, for an operation without a formula.
    """

    flops = 0

    def __enter__(self) -> Executed:
        self._watch, self._counter = _Watch(), FlopCounterMode(display=False, custom_mapping=FORMULAS)
        self._stack = ExitStack()
        for context in (_plain_kernels(), self._watch, self._counter):
            self._stack.enter_context(context)
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        self._stack.__exit__(kind, *rest)
        if kind is None:
            self.flops = sum(_totals(self._watch, self._counter, "the call").values())


def _counted(module: nn.Module, call: Call, device: torch.device, reason: str = "") -> Count:
    watch, counter = _Watch(), FlopCounterMode(display=False, custom_mapping=FORMULAS)
    with _plain_kernels(), watch, counter:
        call(module, device)
    return Count(_totals(watch, counter, type(module).__name__), _by_module(counter, module), device.type, reason)


def _totals(watch: _Watch, counter: FlopCounterMode, who: str) -> dict[str, int]:
    """FLOPs by operation."""
    lacking = sorted(
        {str(func.overloadpacket) for func in watch.seen if func.overloadpacket not in counter.flop_registry and not light(func)}
    )
    if lacking:
        raise Uncounted(
            f"{who} runs operations whose FLOPs have no formula: {', '.join(lacking)}",
            "Write one: torch.utils.flop_counter.register_flop_formula.",
        )
    return {str(packet): flops for packet, flops in counter.get_flop_counts().get("Global", {}).items() if flops}


def _by_module(counter: FlopCounterMode, module: nn.Module) -> dict[str, int]:
    """The counter names a module by its class and then its path."""
    top = f"{type(module).__name__}."
    found = {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    return {name.removeprefix(top): flops for name, flops in found.items() if flops and name.startswith(top)}


def light(func: Any) -> bool:
    """Whether the operation ``func`` (an OpOverload) is known to cost no more than its entries, so that it needs no formula."""
    namespace, _, name = str(func.overloadpacket).partition(".")
    if namespace not in OWN_NAMESPACES:
        return False
    made = not any("Tensor" in str(argument.type) for argument in func._schema.arguments)  # a factory: arange, zeros, ...
    return made or func.is_view or torch.Tag.pointwise in func.tags or LIGHT.fullmatch(name.strip("_")) is not None


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every operation that reaches a kernel."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: set[Any] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.add(func)
        return func(*args, **(kwargs or {}))


@contextmanager
def _plain_kernels() -> Iterator[None]:
    """No fused attention, encoder or recurrent kernels: their parts are counted instead."""
    fast = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast)
        torch.backends.mha.set_fastpath_enabled(False)
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", message="TF32")  # the setter of oneDNN's flags warns of a GPU that nobody asked for
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(torch.backends.mkldnn.flags(enabled=False))
        yield


# ---- formulae that PyTorch lacks: from shapes to FLOPs


def _outer(a: Any, b: Any, *_: Any, out_shape: Shape | None = None, **__: Any) -> int:
    """A product of two tensors that are both broadcast is an outer product; any other is entry by entry and free."""
    shapes = [side for side in (a, b) if isinstance(side, torch.Size)]
    size = prod(out_shape or ())
    return 2 * size if len(shapes) == 2 and size > max(map(prod, shapes)) else 0


def _mv(a: Shape, *_: Any, **__: Any) -> int:
    return 2 * prod(a)


def _addmv(_bias: Any, a: Shape, *_: Any, **__: Any) -> int:
    return 2 * prod(a)


def _addr(_bias: Any, a: Shape, b: Shape, *_: Any, **__: Any) -> int:
    return 2 * prod(a) * prod(b)


def _cdist(a: Shape, b: Shape, *_: Any, **__: Any) -> int:
    """Distances of all pairs: one MAC per pair and dimension (a difference, squared and added)."""
    flops: int = 2 * prod(a[:-2]) * a[-2] * b[-2] * a[-1]
    return flops


def _cdist_backward(_grad: Any, a: Shape, b: Shape, *_: Any, **__: Any) -> int:
    """The gradient of one side: the difference of every pair again, weighted and summed."""
    return _cdist(a, b)


def _trilinear(a: Shape, w: Shape, b: Shape, into_a: Any, into_w: Any, into_b: Any, *_: Any, **__: Any) -> int:
    """Of ``nn.Bilinear``: the three factors with sizes 1 put in at the places ``into_...``, one MAC per entry of their product."""
    sizes = [_widened(shape, places) for shape, places in ((a, into_a), (w, into_w), (b, into_b))]
    whole: list[int] = [max(triple) for triple in zip(*sizes, strict=True)]
    return 2 * prod(whole)


def _widened(shape: Shape, places: Iterable[int]) -> list[int]:
    sizes = list(shape)
    for place in sorted(places):
        sizes.insert(place, 1)
    return sizes


_ATEN = torch.ops.aten
FORMULAS: dict[Any, Callable[..., int]] = {
    _ATEN.mul: _outer,
    _ATEN.mv: _mv,
    _ATEN.dot: _mv,
    _ATEN.vdot: _mv,
    _ATEN.addmv: _addmv,
    _ATEN.addr: _addr,
    _ATEN._cdist_forward: _cdist,
    _ATEN._cdist_backward: _cdist_backward,
    _ATEN._euclidean_dist: _cdist,
    _ATEN._trilinear: _trilinear,
}
