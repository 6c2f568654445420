"""What methods cost, side by side: a table for people, a document for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tabulate import tabulate

from harness.analysis import latency
from harness.analysis.complexity import Complexity
from harness.analysis.flops import Count
from harness.analysis.latency import NOISY, OURS, Latency
from harness.data.schema import Card
from harness.experiments.environment import Environment


@dataclass(frozen=True)
class Trained:
    """Times of recorded trials: seconds per epoch (median over all epochs), largest peak memory, from how many records."""

    records: int
    epoch_seconds: float
    peak_memory_mb: float


@dataclass(frozen=True)
class Profile:
    """One method's column."""

    method: str
    cost: Complexity
    latencies: tuple[Latency, ...]
    trained: Trained | None


@dataclass(frozen=True)
class Conditions:
    """Where times were taken; ``threads`` is None where none were."""

    environment: Environment
    threads: int | None


def costs_text(profiles: Sequence[Profile], card: Card, conditions: Conditions) -> str:
    """The table, one column per method, and what must be known to read it."""
    frames = ", ".join(f"{name} {number}" for name, number in profiles[0].cost.lengths.items())
    rows = [_row(p) for p in profiles]
    labels = dict.fromkeys(label for row in rows for label in row)
    table = [[label, *(row.get(label, "-") for row in rows)] for label in labels]
    head = f"{card.title} ({card.name}), frames per clip: {frames}. {_text_encoder(profiles)}"
    grid = tabulate(table, ["", *(p.method for p in profiles)], tablefmt="github", disable_numparse=True)
    return "\n\n".join([head, grid, "\n".join(_notes(profiles, conditions))])


def _row(p: Profile) -> dict[str, str]:
    cost, parameters = p.cost, p.cost.parameters
    row = {
        "parameters": f"{parameters.total:,}",
        "trainable": f"{parameters.trainable:,}",
        "trainable, never used": f"{parameters.never_used:,}",
        "forward, 1 clip (MFLOPs)": _mega(cost.forward.flops),
        "forward, 1 clip (MMACs)": _mega(cost.forward.macs),
    }
    if cost.has_text_encoder:
        size, flops = cost.without_text_encoder()
        row |= {"without text encoder: parameters": f"{size:,}", "without text encoder: forward (MFLOPs)": _mega(flops)}
    if cost.step:
        row |= {"training step (clips)": str(cost.batch), "training step (MFLOPs per clip)": _mega(cost.step.flops / cost.batch)}
    row["weights on disk (MB)"] = f"{cost.weights_bytes / 1e6:.2f}"
    for time in p.latencies:
        row |= _times(time)
    if p.trained:
        row["training time per epoch (s)"] = f"{p.trained.epoch_seconds:.3g}"
        row["peak memory in training (MB)"] = f"{p.trained.peak_memory_mb:.0f}"
        row["training figures from (records)"] = str(p.trained.records)
    return row


def _times(time: Latency) -> dict[str, str]:
    """The median, or a refusal: the time of a restless or busy machine is not worth its digits."""
    refused = f"refused: {time.refusal}"
    row = {f"latency, batch {time.batch} (ms)": refused if time.noisy else f"{1e3 * time.median:.3g} (IQR {1e3 * time.iqr:.2g})"}
    if time.batch > 1:
        row[f"latency, batch {time.batch}, per clip (ms)"] = "refused" if time.noisy else f"{1e3 * time.per_clip:.3g}"
    if time.peak_bytes is not None:
        row[f"GPU memory, batch {time.batch} (MB)"] = f"{time.peak_bytes / 1e6:.1f}"
    return row


def _mega(operations: float) -> str:
    return f"{operations / 1e6:,.3f}"


def _text_encoder(profiles: Sequence[Profile]) -> str:
    inside = [p.method for p in profiles if p.cost.has_text_encoder]
    return f"With a text encoder inside: {', '.join(inside)}." if inside else "Text encoders are outside: features are the input."


def _notes(profiles: Sequence[Profile], conditions: Conditions) -> list[str]:
    notes = ["FLOPs: matrix products, convolutions, outer products; 1 MAC is 2 FLOPs. What works entry by entry is not counted."]
    for p in profiles:
        counts: dict[str, Count | None] = {"forward pass": p.cost.forward, "training step": p.cost.step}
        notes += [f"{p.method}: {what} counted on the CPU ({c.reason})" for what, c in counts.items() if c and c.device == "cpu"]
        notes += [f"{p.method}: no gradient reaches {name} ({size:,})" for name, size in p.cost.parameters.unused.items()]
    if not all(p.trained for p in profiles):
        notes.append("Training times come from records of the same data and configuration (`harness run`); '-' where there is none.")
    return notes + _conditions(conditions)


def _conditions(conditions: Conditions) -> list[str]:
    if conditions.threads is None:
        return []
    here = conditions.environment
    where = here.processor if here.device == "cpu" else here.device
    return [
        f"Latency: {where}, threads: {conditions.threads}, inference mode, {latency.WARM_UP} calls to warm up, median over blocks; "
        f"refused where the interquartile range exceeds {NOISY:.0%} of the median, or this process had a processor for "
        f"less than {OURS:.0%} of the time. Times of two machines are not comparable."
    ]


def costs_document(profiles: Sequence[Profile], card: Card, conditions: Conditions) -> dict[str, Any]:
    """All figures, refused ones with their mark, as JSON takes them."""
    return {
        "dataset": card.name,
        "simulated": card.simulated,
        "environment": conditions.environment.model_dump(mode="json"),
        "methods": {p.method: _figures(p) for p in profiles},
    }


def _figures(p: Profile) -> dict[str, Any]:
    cost, trained = p.cost, p.trained
    return {
        "lengths": dict(cost.lengths),
        "parameters": {"total": cost.parameters.total, "trainable": cost.parameters.trainable, "unused": dict(cost.parameters.unused)},
        "forward": _counted(cost.forward, 1),
        "training_step": _counted(cost.step, cost.batch) if cost.step else None,
        "weights_bytes": cost.weights_bytes,
        "latency": [_timed(time) for time in p.latencies],
        "training": vars(trained) if trained else None,
    }


def _timed(time: Latency) -> dict[str, Any]:
    return {**vars(time), "noisy": time.noisy, "refusal": time.refusal}


def _counted(count: Count, clips: int) -> dict[str, Any]:
    return {"clips": clips, "flops": count.flops, "macs": count.macs, **vars(count)}
