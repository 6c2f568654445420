"""Training times beside what the machine can do: a table for people, a document for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np
from tabulate import tabulate

from harness.analysis.roofline import Ceilings, Work
from harness.experiments.benching import SAMPLE_STEPS, Cost, Figures
from harness.experiments.environment import Environment

DEAREST = 5  # operations that are named


@dataclass(frozen=True)
class Bench:
    """One method on one data set: a worker ``alone``, and those that ran ``together``.

    An optimiser step takes ``accumulate`` batches of ``batch`` clips.
    """

    method: str
    dataset: str
    simulated: bool
    batch: int
    accumulate: int
    alone: Figures
    together: tuple[Figures, ...]

    @property
    def seconds(self) -> float:
        """Median over the epochs of all workers that ran together, scaled to all clips."""
        return median([second * worker.scale for worker in self.together for second in worker.train])

    @property
    def rate(self) -> float:
        """Epochs per minute, of all workers together."""
        return 60 * len(self.together) / self.seconds

    @property
    def peak_mb(self) -> float:
        return max(figures.peak_mb for figures in (self.alone, *self.together))


@dataclass(frozen=True)
class Point:
    """One time of a growth: ``seconds`` for an epoch of ``clips`` clips of ``frames`` frames each; None: every clip its own length."""

    method: str
    clips: int
    frames: int | None
    seconds: float
    peak_mb: float


@dataclass(frozen=True)
class Place:
    """Where was measured: ``load`` is the machine's load average before."""

    environment: Environment
    ceilings: Ceilings
    load: float


def bench_text(benches: Sequence[Bench], place: Place) -> str:
    """The table, a column per method and data set, the dearest operations, and what must be known to read it."""
    rows = [_row(bench, place.ceilings) for bench in benches]
    labels = dict.fromkeys(label for row in rows for label in row)
    heads = [f"{bench.method}, {bench.dataset}" for bench in benches]
    table = [[label, *(row.get(label, "-") for row in rows)] for label in labels]
    grid = tabulate(table, ["", *heads], tablefmt="github", disable_numparse=True)
    dearest = [f"{head}: {_dearest(bench.alone.costs)}" for head, bench in zip(heads, benches, strict=True) if bench.alone.costs]
    own = "\n".join(["Own time of operations, share of all:", *dearest])
    return "\n\n".join([_machine(place), grid, own, "\n".join(_notes(benches, place))])


def growth_text(points: Sequence[Point]) -> str:
    """Times by number of clips and by length, and the power of each that a straight line on logarithmic axes gives."""
    parts = [_growth([p for p in points if p.frames is None], "clips"), _growth([p for p in points if p.frames is not None], "frames")]
    return "\n\n".join(part for part in parts if part)


def power(x: Sequence[float], y: Sequence[float]) -> float:
    """The exponent e of y = c x^e, least squares on logarithms; two points or more."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def bench_document(benches: Sequence[Bench], points: Sequence[Point], place: Place) -> dict[str, Any]:
    """All figures, as JSON takes them."""
    return {
        "environment": place.environment.model_dump(mode="json"),
        "load": place.load,
        "ceilings": asdict(place.ceilings),
        "methods": [
            asdict(bench) | {"seconds": bench.seconds, "epochs_per_minute": bench.rate, "peak_mb": bench.peak_mb} for bench in benches
        ],
        "growth": [asdict(point) for point in points],
    }


def _row(bench: Bench, ceilings: Ceilings) -> dict[str, str]:
    alone, steps = bench.alone, f"{bench.batch} x {bench.accumulate}" if bench.accumulate > 1 else str(bench.batch)
    low, high = min(alone.train) * alone.scale, max(alone.train) * alone.scale
    row = {
        "clips per epoch": f"{alone.of:,}" if alone.clips == alone.of else f"{alone.of:,}, scaled from {alone.clips:,}",
        "clips per optimiser step": steps,
        "parameters": f"{alone.parameters:,}",
        "epoch, one worker (s)": f"{alone.seconds:.3g}",
        "from, to": f"{low:.3g}, {high:.3g}",
        f"epoch, {len(bench.together)} workers at a time (s)": f"{bench.seconds:.3g}",
        "epochs per minute, all workers": f"{bench.rate:.3g}",
        "peak memory of a worker (MB)": f"{bench.peak_mb:,.0f}",
    }
    return row | (_of_roof(alone.work, alone.seconds, ceilings) if alone.work else {})


def _of_roof(work: Work, seconds: float, ceilings: Ceilings) -> dict[str, str]:
    rate = work.flops / seconds
    reachable = ceilings.reachable(work)
    return {
        "GFLOPs of an epoch": f"{work.flops / 1e9:.3g}",
        "GB read and written": f"{work.bytes / 1e9:.3g}",
        "FLOPs per byte": f"{work.intensity:.2g}",
        "GFLOP/s": f"{rate / 1e9:.3g}",
        "share of the matrix product's": f"{rate / ceilings.flops:.0%}",
        "share of what its bytes allow": f"{rate / reachable:.0%}" if reachable else "-",
        "GB/s": f"{work.bytes / seconds / 1e9:.3g}",
        "share of the copy's": f"{work.bytes / seconds / ceilings.bandwidth:.0%}",
    }


def _dearest(costs: Sequence[Cost]) -> str:
    return ", ".join(f"{cost.operation} {cost.share:.0%} ({cost.calls:,} calls an epoch)" for cost in costs[:DEAREST])


def _machine(place: Place) -> str:
    here, top = place.environment, place.ceilings
    where = f"{here.processor}, {here.cores} cores, {here.instructions}, torch {here.packages['torch']}"
    return (
        f"{where}. Ceilings of one thread: float32 matrix product {top.flops / 1e9:.0f} GFLOP/s, "
        f"copy {top.bandwidth / 1e9:.1f} GB/s read and written."
    )


def _notes(benches: Sequence[Bench], place: Place) -> list[str]:
    notes = [
        "Epoch: median of the training part (reading, forward, backward, optimiser) without validation; workers have one thread each.",
        f"FLOPs: matrix products, convolutions, outer products; bytes: every operation's operands and results once, as if there were no "
        f"caches, so more than the copy's is possible. Both from {SAMPLE_STEPS} optimiser steps. No record was written.",
    ]
    if place.load > 0.5:
        notes.append(f"Other programs were running (load average {place.load:.1f}): times are too long, ceilings too low.")
    if any(bench.simulated for bench in benches):
        notes.append("Simulated data: times depend on the clips' number, widths and lengths alone.")
    return notes + [f"{bench.method}: no FLOPs, {bench.alone.uncounted}" for bench in benches if bench.alone.uncounted]


def _growth(points: Sequence[Point], what: str) -> str:
    if not points:
        return ""
    sizes = sorted({_size(point) for point in points})
    rows = []
    for method in dict.fromkeys(point.method for point in points):
        found = {_size(point): point for point in points if point.method == method}
        times = [f"{found[size].seconds:.3g} s, {found[size].peak_mb:,.0f} MB" for size in sizes]
        rows.append([method, *times, f"{power(sizes, [found[size].seconds for size in sizes]):.2f}" if len(sizes) > 1 else "-"])
    return tabulate(rows, [f"epoch, {what}:", *(f"{size:,}" for size in sizes), "grows as power"], tablefmt="github", disable_numparse=True)


def _size(point: Point) -> int:
    return point.clips if point.frames is None else point.frames
