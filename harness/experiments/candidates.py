"""One trial of a search: some trainings on development data, given up where it falls behind. Runs in a worker or inline."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.data.schema import Dataset
from harness.errors import ConfigError
from harness.experiments.development import inner_parts
from harness.experiments.events import Advised, EpochDone, Evaluated, InnerRun, Listener, Started, Warned
from harness.experiments.search import curve
from harness.experiments.trials import Identity
from harness.experiments.worker import Job, opened, prepared
from harness.training import dead, loop, text_encoder
from harness.training.checkpoints import Checkpoint
from harness.training.contract import Inputs, Method, MethodConfig, methods


@dataclass(frozen=True)
class Candidate(Job):
    """Settings to be judged on data that has no test clips: ``data_root`` holds nothing else.

    ``limits``: the objective at each step above which the trial is given up (harness.experiments.search.limits).
    """

    seeds: tuple[int, ...] = ()
    inner_folds: int = 0
    limits: tuple[float | None, ...] = ()

    def plan(self) -> list[tuple[int, int]]:
        """Seed and inner fold of each training, in order."""
        return [(seed, fold) for seed in self.seeds for fold in range(max(1, self.inner_folds))]

    def run(self, report: Listener) -> Evaluated:
        return _Evaluation(self, report).finish()


class _GivenUp(Exception):
    """The trial passed its limit; ends a training from its callback."""


@dataclass
class _Evaluation:
    job: Candidate
    report: Listener
    began: float = field(default_factory=time.monotonic)
    runs: list[InnerRun] = field(default_factory=list)
    earlier: float = 0.0  # seconds before an interruption
    _last: float = field(default_factory=time.monotonic)

    @property
    def identity(self) -> Identity:
        return self.job.trial.identity

    def finish(self) -> Evaluated:
        identity = self.identity
        config = methods[identity.method].Config.model_validate(identity.config)
        dataset = text_encoder.tokenised(opened(identity.dataset, self.job.data_root), config.text_encoder)
        checkpoint = Checkpoint(self.job.checkpoint, self.job.checkpoint_seconds)
        resume = self._restore(checkpoint)
        epochs = config.training.max_epochs
        self.report(Started(identity.key, len(self.runs) * epochs, len(self.job.plan()) * epochs))
        pruned = False
        for seed, fold in self.job.plan()[len(self.runs) :]:
            run, pruned = self._train(dataset, config, seed, fold, checkpoint, resume)
            self.runs.append(run)
            resume = None
            if pruned:
                break
        return Evaluated(identity.key, tuple(self.runs), pruned, round(self.earlier + time.monotonic() - self.began, 3))

    def _train(
        self, dataset: Dataset, config: MethodConfig, seed: int, fold: int, checkpoint: Checkpoint, resume: loop.State | None
    ) -> tuple[InnerRun, bool]:
        """One training, and whether it ended by passing the limit."""
        train, valid = (part.only(self.identity.modalities) for part in inner_parts(dataset, fold, self.job.inner_folds))
        train, valid = prepared(train, valid, [], config, seed)
        inputs = Inputs.of(train)
        method = loop.build(methods[self.identity.method], inputs, dataset.card.task, config, seed)
        _need_training(method, self.identity.method)
        history: list[loop.Epoch] = []

        def after_epoch(run: loop.Run) -> None:
            history[:] = run.history
            self._after_epoch(run, InnerRun(seed=seed, fold=fold, history=tuple(history)), checkpoint)

        try:
            run = loop.train(method, train, valid, dataset.card.task, config, seed, resume=resume, after_epoch=after_epoch)
        except _GivenUp:
            return InnerRun(seed=seed, fold=fold, history=tuple(history)), True
        return InnerRun(seed=seed, fold=fold, history=tuple(run.history)), False

    def _after_epoch(self, run: loop.Run, so_far: InnerRun, checkpoint: Checkpoint) -> None:
        epochs, known = run.settings.max_epochs, curve([*self.runs, so_far], run.settings.max_epochs)
        step, value = max(known.items())
        now = time.monotonic()
        seconds, self._last = now - self._last, now
        self.report(EpochDone(self.identity.key, step, len(self.job.plan()) * epochs, value, seconds))
        if step == 1 and run.watch.unreached:
            self.report(Advised(self.identity.key, dead.warning(self.identity.method, run.watch.unreached)))
        if passes(step, value, self.job.limits):
            raise _GivenUp
        if checkpoint.due():
            self._save(run, checkpoint)

    def _restore(self, checkpoint: Checkpoint) -> loop.State | None:
        """The state of the training that was interrupted; trainings finished before it are taken over."""
        stored = checkpoint.read()
        if checkpoint.fault:
            self.report(Warned(self.identity.key, checkpoint.fault))
        if not stored or stored.get("key") != self.identity.key or stored.get("limits") != list(self.job.limits):
            return None
        self.runs = [InnerRun.model_validate(run) for run in stored["runs"]]
        self.earlier = stored["seconds"]
        return dict(stored["run"])

    def _save(self, run: loop.Run, checkpoint: Checkpoint) -> None:
        state: dict[str, Any] = {
            "key": self.identity.key,
            "limits": list(self.job.limits),
            "runs": [done.model_dump() for done in self.runs],
            "run": run.state(),
            "seconds": self.earlier + time.monotonic() - self.began,
        }
        try:
            checkpoint.write(state)
        except OSError as error:
            self.report(Warned(self.identity.key, f"checkpoint not written ({error.strerror}: {checkpoint.path}); training goes on"))


def passes(step: int, value: float, limits: Sequence[float | None]) -> bool:
    """Whether ``value`` at ``step`` (from 1) is above its limit."""
    limit = limits[step - 1] if step <= len(limits) else None
    return limit is not None and value > limit


def _need_training(method: Method, name: str) -> None:
    if not any(parameter.requires_grad for parameter in method.parameters()):
        raise ConfigError(f"{name} is not trained by gradient steps: no validation loss to search by", "Tune a method that is.")
