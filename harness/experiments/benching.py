"""Training epochs timed in worker processes, as trials run, but without a record.

A worker trains some epochs and measures nothing else meanwhile. Then, with the clock stopped, it trains one epoch of a few optimiser
steps under a counter of FLOPs and bytes, and one under PyTorch's profiler.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import torch

from harness.analysis.flops import Executed, Uncounted
from harness.analysis.roofline import Traffic, Work
from harness.data import store
from harness.data.schema import Dataset, Split
from harness.errors import HarnessError
from harness.experiments.events import Evaluated, Event, Failed, Listener
from harness.experiments.executors import Processes
from harness.experiments.memory import peak_mb
from harness.experiments.trials import Trial
from harness.experiments.worker import Job, Session
from harness.training import loop
from harness.training.contract import Inputs, Method, MethodConfig, methods

SAMPLE_STEPS = 2  # optimiser steps that are counted and profiled

W = TypeVar("W", bound=AbstractContextManager[Any])


class BenchFailed(HarnessError):
    """A training that was to be timed failed."""


@dataclass(frozen=True)
class Cost:
    """An operation's own time (without what it calls) as a share of all operations' time, and how often it runs in an epoch."""

    operation: str
    share: float
    calls: int


@dataclass(frozen=True)
class Figures:
    """What one worker found, of trainings on ``clips`` of the ``of`` training clips.

    ``train``: seconds of each epoch's training part, batches and optimiser included; ``whole``: with validation. ``peak_mb``: largest
    resident memory up to the last epoch's end. ``parameters``: trainable ones. ``work``: of a whole epoch of all ``of`` clips, estimated
    from ``SAMPLE_STEPS`` optimiser steps; ``costs``: all operations of those steps, the dearest first. Both only where asked for;
    ``uncounted`` says why there is no ``work`` all the same.
    """

    train: tuple[float, ...]
    whole: tuple[float, ...]
    clips: int
    of: int
    peak_mb: float
    parameters: int
    work: Work | None = None
    costs: tuple[Cost, ...] = ()
    uncounted: str = ""

    @property
    def scale(self) -> float:
        return self.of / self.clips

    @property
    def seconds(self) -> float:
        """Median of the training parts, scaled to all clips."""
        return median(self.train) * self.scale


@dataclass(frozen=True)
class Timed(Evaluated):
    """A training was timed; the end of a ``Timing``."""

    figures: Figures | None = None


@dataclass(frozen=True)
class Timing(Job):
    """A trial that is run for its times. ``clips``: how many of the training clips train, 0: all. ``look``: count and profile too."""

    clips: int = 0
    look: bool = False

    @property
    def lasting(self) -> bool:
        """The next timing is to find a process as new as this one's."""
        return False

    def run(self, report: Listener) -> Timed:
        began = time.monotonic()
        figures = _Watched(self, report).time(self.clips, self.look)
        return Timed(self.trial.key, (), False, time.monotonic() - began, figures)


def timings(trials: Sequence[Trial], data_root: Path, clips: int = 0, look: bool = False, plugin: Path | None = None) -> list[Timing]:
    """``trials`` as jobs; they write no checkpoint."""
    nowhere = data_root / "no checkpoint"
    return [Timing(trial, data_root, nowhere, float("inf"), plugin, clips=clips, look=look) for trial in trials]


def run(jobs: Sequence[Timing], workers: int) -> list[Figures]:
    """The figures of ``jobs``, in their order, ``workers`` of them at a time. BenchFailed where one fails."""
    found: dict[str, Figures] = {}
    failures: list[Failed] = []

    def listen(event: Event) -> None:
        if isinstance(event, Timed) and event.figures:
            found[event.key] = event.figures
        elif isinstance(event, Failed):
            failures.append(event)

    Processes(workers).run(jobs, listen)
    if failures:
        failure = failures[0].failure
        raise BenchFailed(f"{failure.identity.method} on {failure.identity.dataset}: {failure.message}", "`harness run` trains the same.")
    return [found[job.trial.key] for job in jobs]


def thinned(split: Split, clips: int) -> Split:
    """``clips`` clips of ``split``, evenly spread over it; all of them where it has no more, or for 0."""
    if not 0 < clips < len(split):
        return split
    places = torch.linspace(0, len(split) - 1, clips).round().long()
    chosen = places.tolist()
    return replace(
        split,
        rows=split.rows[places],
        ids=tuple(split.ids[i] for i in chosen),
        groups=tuple(split.groups[i] for i in chosen),
        labels=None if split.labels is None else split.labels[places],
    )


@dataclass
class _Watched(Session):
    """A session that trains and tells how that went."""

    seconds: list[float] = field(default_factory=list)

    def time(self, clips: int, look: bool) -> Figures:
        dataset = store.load(self.identity.dataset, self.job.data_root)
        config = methods[self.identity.method].Config.model_validate(self.identity.config)
        train, valid, _ = self._splits(dataset, config)
        part, judged = thinned(train, clips), thinned(valid, clips)
        method = self._trained(dataset, config, part, judged, _Stopwatch(self.seconds))
        if not self.seconds:
            raise BenchFailed(f"{self.identity.method} trains no parameters: it has no epochs to time", "Name another method.")
        found = Figures(
            train=tuple(self.seconds),
            whole=tuple(self.epoch_seconds),
            clips=len(part),
            of=len(train),
            peak_mb=peak_mb(),
            parameters=sum(parameter.numel() for parameter in method.parameters() if parameter.requires_grad),
        )
        return self._looked(found, dataset, config, train, valid) if look else found

    def _looked(self, found: Figures, dataset: Dataset, config: MethodConfig, train: Split, valid: Split) -> Figures:
        sample = thinned(train, SAMPLE_STEPS * config.training.batch_size * config.training.accumulate)
        once = config.model_copy(update={"training": config.training.model_copy(update={"max_epochs": 1})})
        share = len(train) / len(sample)

        def under(watch: W) -> W:
            self._trained(dataset, once, sample, thinned(valid, 2), watch)
            return watch

        with _quiet():
            profiler = under(torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]))
        found = replace(found, costs=_costs(profiler, share))
        try:
            return replace(found, work=Work(under(Executed()).flops, under(Traffic()).bytes).times(share))
        except Uncounted as error:
            return replace(found, uncounted=error.problem)

    def _trained(self, dataset: Dataset, config: MethodConfig, train: Split, valid: Split, watch: AbstractContextManager[Any]) -> Method:
        """A new method, trained; ``watch`` is entered for each epoch's training part."""
        inputs = Inputs.of(train)
        method = loop.build(methods[self.identity.method], inputs, dataset.card.task, config, self.identity.seed)
        watch_training(method, watch)
        last = time.perf_counter()

        def after(run: loop.Run) -> None:
            nonlocal last
            now = time.perf_counter()
            self.epoch_seconds.append(now - last)
            last = now

        loop.train(method, train, valid, dataset.card.task, config, self.identity.seed, after_epoch=after)
        return method


def watch_training(method: Method, watch: AbstractContextManager[Any]) -> None:
    """Enter ``watch`` when the loop turns ``method`` to training; leave it when it turns it to evaluation, at the end of that part of an
    epoch."""
    plain: Callable[[bool], Method] = method.train
    inside = False

    def train(mode: bool = True) -> Method:
        nonlocal inside
        if inside and not mode:
            watch.__exit__(None, None, None)
        plain(mode)
        if mode and not inside:
            watch.__enter__()
        inside = mode
        return method

    method.train = train  # type: ignore[method-assign]


class _Stopwatch:
    """Adds the seconds inside ``with`` to a list."""

    def __init__(self, seconds: list[float]) -> None:
        self.seconds = seconds

    def __enter__(self) -> None:
        self.began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds.append(time.perf_counter() - self.began)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without standard error, where PyTorch's profiler notes its starts and stops past all of Python."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _costs(profiler: torch.profiler.profile, scale: float) -> tuple[Cost, ...]:
    events = [event for event in profiler.key_averages() if event.self_cpu_time_total > 0]
    total = sum(event.self_cpu_time_total for event in events)
    ordered = sorted(events, key=lambda event: -event.self_cpu_time_total)
    return tuple(Cost(event.key.removeprefix("aten::"), event.self_cpu_time_total / total, round(event.count * scale)) for event in ordered)
