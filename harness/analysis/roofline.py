"""What one thread of this machine can do at most, and what a piece of work asks of it (Williams et al. 2009, Roofline).

Two ceilings are measured: floating-point operations per second in a float32 matrix product, bytes per second in a copy. Work of so many
FLOPs per byte can reach the lower of the first and of that many times the second.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

SIDES = (256, 512, 1024, 2048)  # of the square matrices, of which the fastest counts
COPIED, PIECE = 1 << 28, 1 << 24  # bytes, more than caches hold, and those of them that one call copies
SINGLE = 4  # bytes of a float32
FREE = ("empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "_unsafe_view")  # allocations, and a view by another name


@dataclass(frozen=True)
class Work:
    """FLOPs, as ``harness.analysis.flops`` counts them, and bytes that the operations read and write."""

    flops: int
    bytes: int

    @property
    def intensity(self) -> float:
        """FLOPs per byte; 0 where nothing is moved."""
        return self.flops / self.bytes if self.bytes else 0.0

    def times(self, factor: float) -> Work:
        """So many times this work, rounded."""
        return Work(round(self.flops * factor), round(self.bytes * factor))


@dataclass(frozen=True)
class Ceilings:
    """``flops`` per second of a float32 matrix product, ``bandwidth``: bytes per second that a copy reads and writes together."""

    flops: float
    bandwidth: float
    threads: int

    def reachable(self, work: Work) -> float:
        """FLOPs per second that ``work`` can reach: the roof over its intensity."""
        return min(self.flops, work.intensity * self.bandwidth)


def measure(threads: int = 1, seconds: float = 0.5) -> Ceilings:
    """The best of all calls within ``seconds`` for each size: other programs lengthen a call and never shorten it."""
    with _threads(threads):
        return Ceilings(max(_product(side, seconds) for side in SIDES), _copy(COPIED, seconds), threads)


def _product(side: int, seconds: float) -> float:
    """FLOPs per second of a product of two square matrices."""
    rng = torch.Generator().manual_seed(0)
    a, b = (torch.randn(side, side, generator=rng) for _ in range(2))
    out = torch.empty_like(a)
    return 2 * side**3 / _best(lambda: torch.mm(a, b, out=out), seconds)


def _copy(size: int, seconds: float) -> float:
    """Bytes per second of a copy, each read once and written once: pieces of ``size`` bytes, too many for a cache, in turn."""
    source, piece = torch.ones(size // SINGLE), min(PIECE, size)
    sides = (torch.split(whole, piece // SINGLE) for whole in (source.clone(), source))
    pairs = cycle(zip(*sides, strict=True))

    def call() -> None:
        target, read = next(pairs)
        target.copy_(read)

    return 2 * piece / _best(call, seconds)


def _best(call: Callable[[], object], seconds: float) -> float:
    """The shortest time of a call; the first one, which touches new memory, does not count."""
    call()
    best, end = float("inf"), time.perf_counter() + seconds
    while best == float("inf") or time.perf_counter() < end:
        began = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - began)
    return best


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """``bytes`` that the operations inside ``with`` read and write: every operand and every result once, views and allocations nothing.

    That is the traffic of a machine without caches; what a cache still holds from one operation to the next costs less than this.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        result = func(*args, **given)
        if not func.is_view and func.overloadpacket.__name__ not in FREE:
            read = {name: value for name, value in given.items() if name != "out"}
            written = result if func._schema.returns else _changed(func, args)
            self.bytes += sum(map(_size, tree_leaves((args, read, written))))
        return result


def _changed(func: Any, args: Any) -> list[Any]:
    """What an operation without a result, such as a fused optimiser, writes to."""
    pairs = zip(func._schema.arguments, args, strict=False)
    return [value for argument, value in pairs if argument.alias_info and argument.alias_info.is_write]


def _size(value: object) -> int:
    """Bytes of a tensor, of a broadcast one those that are there; 0 of anything else."""
    if not isinstance(value, Tensor):
        return 0
    return min(value.numel() * value.element_size(), value.untyped_storage().nbytes())
