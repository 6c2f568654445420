"""What a worker tells the parent while it trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.data.schema import Frozen
from harness.experiments.records import Diagnosis, Failure, Record, Runtime
from harness.training.loop import Epoch


class InnerRun(Frozen):
    """One training behind a trial of a search: its seed, which inner fold validated, and its epochs."""

    seed: int
    fold: int = 0
    history: tuple[Epoch, ...]

    @property
    def lowest(self) -> float:
        """The lowest validation loss."""
        return min(epoch.valid_loss for epoch in self.history)


@dataclass(frozen=True)
class Started:
    """A trial begins, or resumes after ``epoch`` epochs."""

    key: str
    epoch: int
    max_epochs: int


@dataclass(frozen=True)
class EpochDone:
    """One epoch of a trial is done."""

    key: str
    epoch: int
    max_epochs: int
    valid_loss: float
    seconds: float


@dataclass(frozen=True)
class Warned:
    """Something went wrong that does not stop the trial."""

    key: str
    text: str


@dataclass(frozen=True)
class Advised:
    """A remark on the method itself: every trial of it makes the same one, so it is shown once."""

    key: str
    text: str


@dataclass(frozen=True)
class Finished:
    """A trial has its record, and where it was asked for a diagnosis."""

    record: Record
    runtime: Runtime
    diagnosis: Diagnosis | None = None

    @property
    def key(self) -> str:
        return self.record.key


@dataclass(frozen=True)
class Failed:
    """A trial ended without a record."""

    failure: Failure

    @property
    def key(self) -> str:
        return self.failure.identity.key


@dataclass(frozen=True)
class Evaluated:
    """A trial of a search is done, or given up: ``pruned``. It has no record, and never saw a test clip."""

    key: str
    runs: tuple[InnerRun, ...]
    pruned: bool
    seconds: float


Event = Started | EpochDone | Warned | Advised | Finished | Failed | Evaluated
Listener = Callable[[Event], None]
