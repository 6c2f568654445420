"""All statistics of a table of MOSEI's size, timed: run as a program, it prints seconds and memory as JSON."""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path

import numpy as np

from harness.data.splits import Fold
from harness.experiments.environment import Environment
from harness.experiments.papers import Row, TableSpec
from harness.experiments.records import Predictions, Record
from harness.experiments.trials import Identity
from harness.reporting.collect import Measured, Unit
from harness.reporting.compare import Family, compare_rows
from harness.training.metrics import metrics

ROWS, SEEDS, CLIPS, VIDEOS, RESAMPLES = 14, 5, 4659, 676, 10_000
STATUS = Path("/proc/self/status")
METRICS = ("mae", "corr", "acc2_nonneg", "acc2_nonzero", "f1_nonneg", "f1_nonzero", "acc7")
NOWHERE = Environment(
    python="", packages={}, machine="", processor="", instructions="", cores=2, threads=2, device="cpu", commit="", dirty=False
)


def peak_mb() -> float:
    """This program's largest resident set. Linux hands ``ru_maxrss`` on to the programs that a large process starts, ``VmHWM`` not."""
    if STATUS.exists():
        return int(STATUS.read_text().partition("VmHWM:")[2].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def table() -> tuple[TableSpec, dict[str, Measured]]:
    """Rows whose errors on a clip repeat from seed to seed, a little better from row to row."""
    rng = np.random.default_rng(0)
    truth = np.round(np.clip(rng.normal(0.2, 1.1, CLIPS), -3, 3) * 3) / 3
    video = np.sort(rng.integers(VIDEOS, size=CLIPS))
    names = [f"row {i}" for i in range(ROWS)]
    spec = TableSpec(
        paper="made",
        item="t1",
        title="Made up",
        datasets=("mosei",),
        metrics=METRICS,
        seeds=tuple(range(SEEDS)),
        reference=names[-1],
        floors=(),
        rows=tuple(Row(name=name) for name in names),
    )
    return spec, {name: _row(name, truth, video, rng, 1 - 0.02 * place) for place, name in enumerate(names)}


def _row(name: str, truth: np.ndarray, video: np.ndarray, rng: np.random.Generator, scale: float) -> Measured:
    own = rng.normal(size=CLIPS)
    runs = [0.7 * truth + scale * (0.6 * own + 0.3 * rng.normal(size=CLIPS)) for _ in range(SEEDS)]
    units = tuple(Unit(seed, Fold()) for seed in range(SEEDS))
    records = {unit: _record(name, unit.seed, truth, video, run) for unit, run in zip(units, runs, strict=True)}
    values = {metric: {unit: metrics[metric].score(*records[unit].predictions.arrays()) for unit in units} for metric in METRICS}
    return Measured(name, units, records, {}, values)


def _record(name: str, seed: int, truth: np.ndarray, video: np.ndarray, run: np.ndarray) -> Record:
    identity = Identity(method=name, code={}, config={}, dataset="mosei", data="", modalities=("text",), seed=seed, fold=Fold())
    ids, groups = tuple(map(str, range(CLIPS))), tuple(f"v{number}" for number in video)
    predictions = Predictions(ids=ids, groups=groups, truth=tuple(truth.tolist()), values=tuple(run.tolist()))
    return Record(
        identity=identity, budget="paper", simulated=True, environment=NOWHERE, parameters=1, split_hash="", best_epoch=1, history=(),
        valid={}, test={}, predictions=predictions,
    )  # fmt: skip


def measure() -> tuple[Family, dict[str, float]]:
    """Every test, adjustment, verdict and decomposition of the table; seconds on the clock and of the processor, peak in MB."""
    spec, measured = table()
    wall, cpu = time.monotonic(), time.process_time()
    family = compare_rows(spec, measured, resamples=RESAMPLES, seed=0)
    for test in family.tests:
        test.verdict(spec.alpha)
    figures = {"wall": time.monotonic() - wall, "cpu": time.process_time() - cpu}
    return family, {**figures, "peak_mb": peak_mb(), "tests": len(family.tests), "sources": len(family.sources)}


if __name__ == "__main__":
    print(json.dumps(measure()[1]))
