"""Two calls timed against each other in one run, so that neither the machine nor its other users enter the figure."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch


def seconds(call: Callable[[], object]) -> float:
    """Processor time, which a busy machine stretches less than time on the clock."""
    start = time.process_time()
    call()
    return time.process_time() - start


def ratio(slow: Callable[[], object], fast: Callable[[], object], rounds: int = 60, warm_up: int = 3) -> float:
    """How many times longer ``slow`` takes, by the best of ``rounds``, in each of which the two run one after the other.

    The best is the time without interruptions; other programs lengthen a call and never shorten it.
    """
    for _ in range(warm_up):
        slow(), fast()
    times = [(seconds(slow), seconds(fast)) for _ in range(rounds)]
    return min(slow for slow, _ in times) / min(fast for _, fast in times)


def saved_bytes(call: Callable[[], object], *parameters: torch.Tensor) -> int:
    """Bytes that autograd keeps for the backward pass of ``call``, each storage once, those of ``parameters`` left out."""
    kept: dict[int, int] = {}

    def pack(tensor: Any) -> Any:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = call()
    for parameter in parameters:
        kept.pop(parameter.untyped_storage().data_ptr(), None)
    del output
    return sum(kept.values())
