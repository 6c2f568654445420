"""What the harness costs beside training: python tests/benchmarks/overheads.py [--only trial,step,workers,start]

``trial``: per trial, all but its epochs; ``step``: from a trial's submission to a warm worker until its first optimiser step is done;
``workers``: twenty equal trials on two workers against one; ``start``: until the first new trial begins, with so many finished ones
beside none. Prints a line of JSON for each. Figures are processor time, which a busy machine stretches less than time on the clock, but
for ``step``, and for ``workers``, whose trials wait most of their time.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # a worker imports this file anew, as it does the command's own, and needs none of that
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from kit import TOY, stored, trial

from harness.experiments import executors, runner
from harness.experiments.events import EpochDone, Event, Finished, Listener, Started, Warned
from harness.experiments.executors import Inline, Processes
from harness.experiments.plan import Effort, method_trials
from harness.experiments.records import RecordStore
from harness.experiments.runner import Options, outstanding
from harness.experiments.tracking import Tracker
from harness.experiments.trials import Trial
from harness.experiments.worker import Job
from harness.experiments.workspace import Workspace
from harness.training import loop


class NoTracker(Tracker):
    def publish(self, record: Any, runtime: Any) -> None: ...

    def lacking(self, keys: Sequence[str]) -> list[str]:
        return []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--finished", type=int, default=10_000)
    parser.add_argument("--clips", type=int, default=686, help="test clips in each of the finished records: their size")
    parser.add_argument("--pause", type=float, default=0.05, help="seconds in each of an equal trial's 24 batches")
    parser.add_argument("--only", default="trial,step,workers,start")
    options = parser.parse_args()
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        stored(root / "data")
        measures = {
            "trial": lambda: per_trial(root, options.trials),
            "step": lambda: first_step(root, options.trials),
            "workers": lambda: two_workers(root, options.trials, options.pause),
            "start": lambda: first_start(root, options.finished, options.clips),
        }
        for name in options.only.split(","):
            print(json.dumps(measures[name]()), flush=True)


# ---- per trial


@dataclass(frozen=True)
class Clocked(Job):
    """A trial that tells how much of its process's own time was over when it ended, and by that clock its epochs'."""

    def run(self, report: Listener) -> Any:
        time.monotonic = time.process_time
        done = super().run(report)
        report(Warned(self.trial.key, json.dumps([time.process_time(), sum(done.runtime.epoch_seconds)])))
        return done


def per_trial(root: Path, count: int) -> dict[str, float]:
    """Milliseconds per trial: of the driver, by part, and of the worker beside its epochs, for its first trial and the others."""
    parts: dict[str, list[float]] = {"store the record": [], "mirror to MLflow": []}
    clock, workers = [0.0], list[float]()

    def listen(event: Event) -> None:
        if isinstance(event, Warned):
            total, epochs = json.loads(event.text)
            workers.append(total - clock[-1] - epochs)
            clock.append(total)

    space = Workspace(root / "per trial")
    tracker = Tracker(space, "x")
    tracker.lacking(["-"])  # the database is made before the clock starts
    trials = [trial(load(root), seed=seed) for seed in range(count)]
    with ExitStack() as timers:
        timers.enter_context(timed(RecordStore, "put", parts["store the record"]))
        timers.enter_context(timed(Tracker, "publish", parts["mirror to MLflow"]))
        began = time.process_time()
        runner.run(trials, space, Measuring(1), tracker, Options(root / "data", plugin=TOY), listen)
        driver = (time.process_time() - began) / count
    found = {f"driver: {part}": statistics.median(times) for part, times in parts.items()}
    found |= {
        "driver: all": driver,
        "worker, its first trial: all but epochs": workers[0],
        "worker, the others: all but epochs": statistics.median(workers[1:]),
        "driver: an epoch's report": report_seconds(root),
    }
    return {f"{name}, ms": round(1000 * seconds, 2) for name, seconds in found.items()}


class Measuring(Processes):
    def run(self, jobs: Sequence[Job], on_event: Listener) -> None:
        super().run([Clocked(job.trial, job.data_root, job.checkpoint, job.checkpoint_seconds, job.plugin) for job in jobs], on_event)


@dataclass(frozen=True)
class Talker(Job):
    """Reports so many epochs and does nothing else."""

    epochs: int = 20_000

    def run(self, report: Listener) -> Any:
        for epoch in range(self.epochs):
            report(EpochDone(self.trial.key, epoch, self.epochs, 0.0, 0.0))
        raise RuntimeError("said all")


def report_seconds(root: Path) -> float:
    """The driver's time for one report."""
    job = Talker(trial(load(root)), root / "data", root / "none.pt", 0.0, TOY)
    began = time.process_time()
    Processes(1).run([job], lambda event: None)
    return (time.process_time() - began) / job.epochs


# ---- step


@dataclass(frozen=True)
class Stepping(Job):
    """A trial that tells when its first gradient is there, by the clock that all processes share."""

    def run(self, report: Listener) -> Any:
        whole, times = loop._clip, list[float]()
        loop._clip = lambda *arguments: (times.append(time.monotonic()), whole(*arguments))[1]  # called right before each step
        try:
            return super().run(report)
        finally:
            loop._clip = whole
            report(Warned(self.trial.key, json.dumps(times[0])))


def first_step(root: Path, count: int) -> dict[str, float]:
    """Milliseconds on the clock from a trial's submission until its first optimiser step, in a worker that has done others."""
    begun, waits, real = dict[str, float](), list[float](), executors._Worker.begin

    def begin(worker: Any, job: Job, tries: int, timeout: float | None) -> None:
        begun[job.trial.key] = time.monotonic()
        real(worker, job, tries, timeout)

    def listen(event: Event) -> None:
        if isinstance(event, Warned):
            waits.append(json.loads(event.text) - begun[event.key])

    executors._Worker.begin = begin  # type: ignore[method-assign]
    try:
        trials = [trial(load(root), seed=seed) for seed in range(count)]
        Processes(1).run([Stepping(one, root / "data", root / "none.pt", 60.0, TOY) for one in trials], listen)
    finally:
        executors._Worker.begin = real  # type: ignore[method-assign]
    figures = {"first trial of a worker": waits[0], "others, median": statistics.median(waits[1:]), "others, most": max(waits[1:])}
    return {f"to the first step, {name}, ms": round(1000 * seconds, 1) for name, seconds in figures.items()}


# ---- workers


def two_workers(root: Path, count: int, pause: float) -> dict[str, float]:
    """Seconds on the clock of ``count`` equal trials."""
    seconds = {}
    for workers in (1, 2):
        space = Workspace(root / f"workers{workers}")
        trials = [trial(load(root), seed=seed, pause=pause) for seed in range(count)]
        began = time.monotonic()
        runner.run(trials, space, Processes(workers), NoTracker(space, "x"), Options(root / "data", plugin=TOY), lambda event: None)
        seconds[workers] = time.monotonic() - began
    return {"1 worker, s": round(seconds[1], 2), "2 workers, s": round(seconds[2], 2), "ratio": round(seconds[2] / seconds[1], 3)}


# ---- start


def first_start(root: Path, finished: int, clips: int) -> dict[str, float]:
    """Seconds from the planning of all trials, of which all but one are finished, to that one's start."""
    seconds = {}
    trial(load(root))  # registers the method
    for count in (0, finished):
        space = Workspace(root / f"start{count}")
        fill(space, root, planned(root, count), clips)
        clock: list[float] = []

        def listen(event: Event, clock: list[float] = clock) -> None:
            if isinstance(event, Started):
                clock.append(time.process_time())

        began = time.process_time()
        plan = planned(root, count + 1)
        outstanding(plan, space.store, False)  # the command asks once to say how much is to do, and once again under its lock
        runner.run(plan, space, Inline(), NoTracker(space, "x"), Options(root / "data", plugin=TOY), listen)
        seconds[f"{count} finished: s to the first start"] = round(clock[0] - began, 2)
    return seconds


def planned(root: Path, count: int) -> list[Trial]:
    return method_trials("toy", load(root).card, Effort(budget="paper"), {}, range(count))


def fill(space: Workspace, root: Path, trials: Sequence[Trial], clips: int) -> None:
    """Records of all these trials, as large as those of so many test clips: that of the first, under their seeds and keys."""
    if not trials:
        return
    finished: list[Finished] = []
    Inline().run(
        [Job(trials[0], root / "data", root / "none.pt", 60.0, TOY)], lambda e: finished.append(e) if isinstance(e, Finished) else None
    )
    record, runtime = finished[0].record, finished[0].runtime
    times = -(-clips // len(record.predictions.ids))
    longer = {name: tuple(getattr(record.predictions, name)) * times for name in ("ids", "groups", "truth", "values")}
    space.store.put(record.model_copy(update={"predictions": record.predictions.model_copy(update=longer)}), runtime)
    raw = re.sub(rb'"checksum":"[0-9a-f]{64}",', b"", space.store.path(trials[0].key).read_bytes())
    for one in trials[1:]:
        content = raw.replace(b'"seed":0}', b'"seed":%d}' % one.identity.seed, 1)
        assert len(content) >= len(raw) and content != raw
        place = space.store.path(one.key)
        place.parent.mkdir()
        checksum = b'"checksum":"%s",' % hashlib.sha256(content).hexdigest().encode()
        place.write_bytes(content.replace(b'"environment":', checksum + b'"environment":', 1))


# ---- tools


def load(root: Path) -> Any:
    from harness.data import store

    return store.load("mosi@tiny", root / "data")


@contextmanager
def timed(owner: Any, name: str, into: list[float]) -> Iterator[None]:
    """Note the processor time of each call of a method."""
    real: Callable[..., Any] = getattr(owner, name)

    def call(*arguments: Any) -> Any:
        began = time.process_time()
        try:
            return real(*arguments)
        finally:
            into.append(time.process_time() - began)

    setattr(owner, name, call)
    try:
        yield
    finally:
        setattr(owner, name, real)


if __name__ == "__main__":
    main()
