"""How long an evaluation takes on this machine: median and spread, after warming up, refused where the machine is too restless."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import quantiles

import torch
from torch import nn
from torch.utils.benchmark import Timer

from harness.data.batches import Batch

WARM_UP = 10  # calls; the first ones fill caches and choose kernels, and may take a hundred times as long
NOISY = 0.10  # interquartile range over median above which a time says nothing
ROUNDS = 3  # measurements before a time is refused
LEAST_BLOCKS = 5  # fewer have no quartiles to speak of


@dataclass(frozen=True)
class Latency:
    """Seconds per evaluation of ``batch`` clips in inference mode, transfers excluded.

    ``median`` and ``iqr`` are over blocks of calls; the steadiest of up to ``ROUNDS`` measurements. ``peak_bytes``: largest memory
    that the evaluation held on a GPU; None on a CPU, where PyTorch does not know it.
    """

    batch: int
    median: float
    iqr: float
    calls: int
    rounds: int
    threads: int
    device: str
    peak_bytes: int | None = None
    warm_up: int = WARM_UP

    @property
    def noise(self) -> float:
        """Interquartile range over median."""
        return self.iqr / self.median

    @property
    def noisy(self) -> bool:
        """Whether the times scatter too much to be quoted."""
        return self.noise > NOISY

    @property
    def per_clip(self) -> float:
        return self.median / self.batch


def measure(method: nn.Module, batch: Batch, threads: int = 1, seconds: float = 2.0) -> Latency:
    """Time evaluations of ``batch`` for at least ``seconds`` a round; the method and the batch are on one device."""
    method.eval()

    def run() -> None:
        with torch.inference_mode():
            method(batch)

    return time_calls(run, len(batch), batch.position.device, threads, seconds)


def time_calls(
    run: Callable[[], object], clips: int, device: torch.device, threads: int = 1, seconds: float = 2.0, warm_up: int = WARM_UP
) -> Latency:
    """Time ``run``, which works on ``clips`` clips, as ``measure`` times evaluations."""
    with _threads(threads):
        for _ in range(warm_up):
            run()
    peak = _peak(run, device)
    best, rounds = _round(run, threads, seconds), 1
    while best[1] > NOISY * best[0] and rounds < ROUNDS:
        best, rounds = min(best, _round(run, threads, seconds), key=lambda found: found[1] / found[0]), rounds + 1
    median, iqr, calls = best
    return Latency(clips, median, iqr, calls, rounds, threads, device.type, peak, warm_up)


def _round(run: Callable[[], object], threads: int, seconds: float) -> tuple[float, float, int]:
    """Median, interquartile range and number of calls; the timer waits for a GPU before it reads the clock."""
    timer = Timer("run()", globals={"run": run}, num_threads=threads)
    found = timer.blocked_autorange(min_run_time=seconds)
    blocks = [*found.times, *(timer.timeit(found.number_per_run).times[0] for _ in range(LEAST_BLOCKS - len(found.times)))]
    low, median, high = quantiles(blocks, n=4, method="inclusive")
    return median, high - low, found.number_per_run * len(blocks)


def _peak(run: Callable[[], object], device: torch.device) -> int | None:
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    run()
    torch.cuda.synchronize(device)
    return int(torch.cuda.max_memory_allocated(device))


class _threads:
    """So many threads inside, as many as before outside."""

    def __init__(self, number: int) -> None:
        self.number, self.before = number, torch.get_num_threads()

    def __enter__(self) -> None:
        torch.set_num_threads(self.number)

    def __exit__(self, *_: object) -> None:
        torch.set_num_threads(self.before)
