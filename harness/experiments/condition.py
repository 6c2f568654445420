"""What a trial must leave as it was, lest the next one in the same process gives other numbers."""

from __future__ import annotations

import hashlib
import os
import pickle
import random
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch

from harness.experiments.plugins import load_file
from harness.experiments.worker import Job
from harness.training.contract import methods


def _folder() -> str:
    with suppress(OSError):  # it may have been deleted
        return os.getcwd()
    return ""


def _autocast() -> tuple[bool, ...]:
    return tuple(torch.is_autocast_enabled(device) for device in ("cpu", "cuda"))


THREADS = "its threads"
READINGS: Mapping[str, Callable[[], object]] = {
    THREADS: threading.active_count,
    "the current folder": _folder,
    "torch's default dtype": torch.get_default_dtype,
    "torch's default device": lambda: str(torch.empty(0).device),
    "torch.is_grad_enabled": torch.is_grad_enabled,
    "torch.inference_mode": torch.is_inference_mode_enabled,
    "autocast": _autocast,
    "deterministic algorithms": torch.are_deterministic_algorithms_enabled,
    "the precision of matrix products": torch.get_float32_matmul_precision,
    "torch's detection of anomalies": torch.is_anomaly_enabled,
    "numpy's treatment of floating-point errors": lambda: tuple(np.geterr().items()),
    "the recursion limit": sys.getrecursionlimit,
}
PLAIN = (
    *(list, dict, set, tuple, deque, bytearray, str, bytes, int, float, complex, type(None)),
    *(torch.Tensor, np.ndarray, np.random.Generator, np.random.RandomState, random.Random),
)  # what a module or a class may remember trials in


@dataclass(frozen=True)
class Condition:
    """Of this process: settings of its libraries, and what the module of a method holds, by name."""

    readings: Mapping[str, object]

    @classmethod
    def of(cls, job: Job) -> Condition:
        """Now, with what the module of the job's method holds; its file is imported for that, which is no trial's doing."""
        return cls.now(_module(job))

    @classmethod
    def now(cls, module: str = "") -> Condition:
        return cls({**{name: read() for name, read in READINGS.items()}, **dict(_held(module))})

    def changes(self, before: Condition) -> list[str]:
        """Names of what is not as it was ``before``."""
        names = dict.fromkeys([*before.readings, *self.readings])
        return [name for name in names if _differ(name, self.readings.get(name), before.readings.get(name))]


def _differ(name: str, now: object, before: object) -> bool:
    if name == THREADS and isinstance(now, int) and isinstance(before, int):
        return now > before  # one that has ended is no trial's doing
    return now != before


def _module(job: Job) -> str:
    """Where the job's method is defined; empty where it cannot be imported, which the trial itself will say."""
    with suppress(Exception):
        if job.plugin:
            load_file(job.plugin)
        return methods[job.trial.identity.method].__module__
    return ""


def _held(module: str) -> Iterator[tuple[str, object]]:
    """Digests of the plain values that a module and its classes hold. What a trial leaves there, the next one would find."""
    for name, value in _values(vars(sys.modules[module]) if module in sys.modules else {}):
        if isinstance(value, type) and value.__module__ == module:
            yield from ((f"{name}.{inner}", _digest(held)) for inner, held in _values(vars(value)) if _may_remember(held, module))
        elif _may_remember(value, module):
            yield name, _digest(value)


def _may_remember(value: object, module: str) -> bool:
    return isinstance(value, PLAIN) or (type(value).__module__ == module and not isinstance(value, type))


def _values(space: Mapping[str, object]) -> list[tuple[str, object]]:
    return [(name, value) for name, value in space.items() if not name.startswith("__")]


def _digest(value: object) -> object:
    """Of its content, or where that cannot be written down, of how much it is."""
    try:
        return hashlib.blake2b(pickle.dumps(value)).hexdigest()
    except Exception:  # whatever an object of the user's may do when it is pickled
        return len(value) if hasattr(value, "__len__") else type(value)
