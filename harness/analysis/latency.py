"""How long an evaluation takes on this machine: median and spread, after warming up, refused where the machine is restless or busy."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import quantiles

import torch
from torch import nn
from torch.utils.benchmark import Timer

from harness.data.batches import Batch

WARM_UP = 10  # calls; the first ones fill caches and choose kernels, and may take a hundred times as long
NOISY = 0.10  # interquartile range over median above which a time says nothing
OURS = 0.90  # share of the time in which this process must have had a processor: a busy machine is slow, and may be so steadily
ROUNDS = 3  # measurements before a time is refused
LEAST_BLOCKS = 5  # fewer have no quartiles to speak of


@dataclass(frozen=True)
class Latency:
    """Seconds per evaluation of ``batch`` clips in inference mode, transfers excluded.

    ``median`` and ``iqr`` are over blocks of calls; the steadiest of up to ``ROUNDS`` measurements. ``share``: part of their time in
    which this process had a processor, where it computes on one. ``peak_bytes``: largest memory that the evaluation held on a GPU;
    None on a CPU, where PyTorch does not know it.
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
    share: float = 1.0

    @property
    def refusal(self) -> str:
        """Why the time may not be quoted, or nothing."""
        return refusal(self.median, self.iqr, self.share)

    @property
    def noisy(self) -> bool:
        """Whether the times scatter too much to be quoted, or others had the processor."""
        return bool(self.refusal)

    @property
    def per_clip(self) -> float:
        return self.median / self.batch


def refusal(median: float, iqr: float, share: float) -> str:
    """Why a time may not be quoted: it scatters, or the process had to wait for a processor; empty where it may."""
    if share < OURS:
        return f"busy machine, {share:.0%} of the processor"
    return f"IQR {iqr / median:.0%} of median" if iqr > NOISY * median else ""


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
    found = [_round(run, threads, seconds, device)]
    while refusal(*_steadiest(found)[1:]) and len(found) < ROUNDS:
        found.append(_round(run, threads, seconds, device))
    calls, median, iqr, share = _steadiest(found)
    return Latency(clips, median, iqr, calls, len(found), threads, device.type, peak, warm_up, share)


_Round = tuple[int, float, float, float]  # calls, median, interquartile range, share


def _steadiest(rounds: Sequence[_Round]) -> _Round:
    """The one that comes nearest to what may be quoted."""
    return min(rounds, key=lambda found: max(found[2] / found[1] / NOISY, (1 - found[3]) / (1 - OURS)))


def _round(run: Callable[[], object], threads: int, seconds: float, device: torch.device) -> _Round:
    """The timer waits for a GPU before it reads the clock; how long this process waits for that is no sign of a busy machine."""
    timer = Timer("run()", globals={"run": run}, num_threads=threads)
    clock, own = time.perf_counter(), time.process_time()
    found = timer.blocked_autorange(min_run_time=seconds)
    blocks = [*found.times, *(timer.timeit(found.number_per_run).times[0] for _ in range(LEAST_BLOCKS - len(found.times)))]
    low, median, high = quantiles(blocks, n=4, method="inclusive")
    share = (time.process_time() - own) / (time.perf_counter() - clock) if device.type == "cpu" else 1.0
    return found.number_per_run * len(blocks), median, high - low, min(1.0, share)


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
