"""How long a training epoch takes on this machine, from the time of one optimiser step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from harness.analysis import latency
from harness.analysis.latency import Latency
from harness.data.batches import Batch
from harness.data.schema import Task
from harness.training.contract import Method, MethodConfig
from harness.training.objectives import task_objective
from harness.training.schedules import make_optimiser

WARM_UP = 2  # steps


@dataclass(frozen=True)
class Round:
    """An epoch of ``clips`` clips as ``steps`` times the measured ``step``; validation and reading of the data are not in it."""

    step: Latency
    clips: int

    @property
    def steps(self) -> int:
        """Batches of an epoch, the last one as long as the others."""
        return math.ceil(self.clips / self.step.batch)

    @property
    def seconds(self) -> float:
        return self.steps * self.step.median


def measure(method: Method, task: Task, config: MethodConfig, batch: Batch, clips: int, threads: int = 1, seconds: float = 2.0) -> Round:
    """Time forward, backward pass and optimiser on ``batch``; changes the method's weights. One epoch has ``clips`` clips."""
    objective, optimiser = task_objective(config, task), make_optimiser(method, config.training)
    method.train()

    def step() -> None:
        assert batch.labels is not None
        optimiser.zero_grad(set_to_none=True)
        output = method(batch)
        loss = sum(output.losses.values(), objective(output.prediction.float(), batch.labels))
        loss.backward()
        optimiser.step()

    return Round(latency.time_calls(step, len(batch), batch.position.device, threads, seconds, WARM_UP), clips)
