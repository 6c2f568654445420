"""The live view of a run: trials done, running and failed, epochs, time to go. Without a terminal, one line per trial."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from harness.experiments.events import Advised, EpochDone, Event, Failed, Finished, Started, Warned
from harness.experiments.trials import Trial

TYPICAL_SHARE = 0.6  # of max_epochs that a trial uses before patience runs out; only until its method has finished once


@dataclass
class Clock:
    """Estimates the time to go from epochs seen and trials finished, by method.

    ``workers`` trials run at a time. Pure: times are passed in.
    """

    methods: dict[str, str]
    workers: int
    durations: dict[str, list[float]] = field(default_factory=dict)
    epoch_seconds: dict[str, float] = field(default_factory=dict)
    max_epochs: dict[str, int] = field(default_factory=dict)

    def saw_epoch(self, key: str, seconds: float, max_epochs: int) -> None:
        method = self.methods[key]
        self.epoch_seconds[method] = seconds
        self.max_epochs[method] = max_epochs

    def saw_end(self, key: str, seconds: float) -> None:
        self.durations.setdefault(self.methods[key], []).append(seconds)

    def estimate(self, method: str) -> float | None:
        """Seconds that a trial of ``method`` takes, or None where nothing is known."""
        if method in self.durations:
            return sum(self.durations[method]) / len(self.durations[method])
        if method in self.epoch_seconds:
            return self.epoch_seconds[method] * self.max_epochs[method] * TYPICAL_SHARE
        return None

    def to_go(self, waiting: Sequence[str], running: dict[str, float]) -> float | None:
        """Seconds until all end: ``waiting`` keys, and ``running`` keys with the seconds each has run; None if unknown."""
        methods = {self.methods[key] for key in (*waiting, *running)}
        known = {method: seconds for method in methods if (seconds := self.estimate(method)) is not None}
        if not known:
            return None if methods else 0.0
        usual = sum(known.values()) / len(known)
        rest = [known.get(self.methods[key], usual) for key in waiting]
        rest += [max(0.0, known.get(self.methods[key], usual) - spent) for key, spent in running.items()]
        return max(sum(rest) / self.workers, max(rest, default=0.0))


@dataclass
class _Running:
    epoch: int
    max_epochs: int
    began: float
    valid_loss: float | None = None


class Progress:
    """A listener that shows what it hears; use as a context manager."""

    def __init__(self, trials: Sequence[Trial], total: int, workers: int, console: Console) -> None:
        self.labels = {trial.key: trial.label for trial in trials}
        self.clock = Clock({trial.key: trial.identity.method for trial in trials}, workers)
        self.waiting = dict.fromkeys(self.labels)
        self.running: dict[str, _Running] = {}
        self.total = total
        self.done = total - len(self.labels)
        self.failed = 0
        self.advised: set[str] = set()
        self.began = time.monotonic()
        self.console = console
        self.live = Live(get_renderable=self._view, console=console, refresh_per_second=4, transient=True) if console.is_terminal else None

    def __enter__(self) -> Progress:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.live:
            self.live.stop()

    def __call__(self, event: Event) -> None:
        match event:
            case Started(key, epoch, max_epochs):
                self.waiting.pop(key, None)
                self.running[key] = _Running(epoch, max_epochs, time.monotonic())
            case EpochDone(key, epoch, max_epochs, valid_loss, seconds):
                self.clock.saw_epoch(key, seconds, max_epochs)
                self.running[key].epoch, self.running[key].valid_loss = epoch, valid_loss
            case Warned(key, text):
                self.console.print(f"[yellow]![/] {self.labels.get(key, key)}: {text}", highlight=False, soft_wrap=True)
            case Advised(_, text) if text not in self.advised:
                self.advised.add(text)
                self.console.print(f"! {text}", style="yellow", highlight=False, markup=False, soft_wrap=True)
            case Finished() | Failed():
                self._end(event)

    def _end(self, event: Finished | Failed) -> None:
        self.waiting.pop(event.key, None)
        self.running.pop(event.key, None)
        if isinstance(event, Failed):
            self.failed += 1
            self.console.print(
                f"[red]x[/] {self.labels[event.key]}: {event.failure.reason}: {event.failure.message}", highlight=False, soft_wrap=True
            )
            return
        self.done += 1
        self.clock.saw_end(event.key, event.runtime.seconds)
        if not self.live:
            score = _first_score(event)
            self.console.print(
                f"{self.done}/{self.total} {self.labels[event.key]}: {score} in {event.runtime.seconds:.1f} s{self._eta()}",
                highlight=False,
                soft_wrap=True,
            )

    def _eta(self) -> str:
        now = time.monotonic()
        seconds = self.clock.to_go(list(self.waiting), {key: now - trial.began for key, trial in self.running.items()})
        return "" if seconds is None else f", about {duration(seconds)} to go"

    def _view(self) -> RenderableType:
        head = Text(f"{self.done}/{self.total} trials done, {len(self.running)} running, {self.failed} failed")
        head.append(f", {duration(time.monotonic() - self.began)} so far{self._eta()}")
        grid = Table.grid(padding=(0, 2))
        for key, trial in self.running.items():
            loss = "" if trial.valid_loss is None else f"validation loss {trial.valid_loss:.3f}"
            bar = ProgressBar(total=trial.max_epochs, completed=trial.epoch, width=24)
            grid.add_row(self.labels[key], bar, f"epoch {trial.epoch}/{trial.max_epochs}", loss)
        return Group(ProgressBar(total=max(1, self.total), completed=self.done + self.failed, width=60), head, grid)


def _first_score(event: Finished) -> str:
    name, value = next(iter(event.record.test.items()))
    return f"test {name} {value:.3f}" if value is not None else f"test {name} undefined"


def duration(seconds: float) -> str:
    """``45 s``, ``2 min 05 s``, ``3 h 10 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60:02d} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02d} min"
