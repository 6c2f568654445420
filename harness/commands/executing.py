"""How and where trials are executed, as the command line asks for it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from harness.errors import ConfigError
from harness.experiments.cluster import Ray
from harness.experiments.diagnosis import BEST_ON_TEST
from harness.experiments.executors import Executor, Inline, Processes
from harness.registry import suggest

EXECUTORS = ("inline", "processes", "ray")


@dataclass(frozen=True)
class Where:
    """The executor's name; of a Ray cluster, its address and the part of a GPU that a trial takes."""

    executor: str = "processes"
    address: str = "auto"
    gpu_share: float = 0.0


@dataclass(frozen=True)
class Running:
    """How trials are executed: everything that cannot change a number. ``dry``: ``run`` only says what it would run."""

    workers: int = 0
    timeout: float | None = None
    retry_failed: bool = False
    checkpoint_seconds: float = 60.0
    where: Where = field(default_factory=Where)
    diagnose: str = ""
    dry: bool = False

    def __post_init__(self) -> None:
        if self.diagnose not in ("", BEST_ON_TEST):
            raise ConfigError(f"--diagnose {self.diagnose} is not known", f"Allowed: {BEST_ON_TEST}.")

    def executor(self) -> Executor:
        """ConfigError where the options do not fit together, or no cluster answers."""
        match self.where.executor:
            case "inline" if self.timeout:
                raise ConfigError("--timeout cannot stop a trial that runs inline", "Leave one of the two out.")
            case "inline":
                return Inline()
            case "processes":
                return Processes(self.workers or os.cpu_count() or 1, self.timeout)
            case "ray":
                return Ray(self.where.address, self.workers, self.where.gpu_share, self.timeout)
            case other:
                raise ConfigError(f"--executor {other} is not known", suggest(other, EXECUTORS))
