"""One trial, from stored data to a record. Runs in a worker process or inline; writes nothing but its checkpoint."""

from __future__ import annotations

import random
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from harness import seeds
from harness.data import splits, store
from harness.data.schema import Dataset, Split
from harness.data.transforms import shortened, standardise
from harness.errors import ConfigError, DataError, HarnessError
from harness.experiments import code, diagnosis
from harness.experiments.environment import environment
from harness.experiments.events import Advised, EpochDone, Evaluated, Event, Failed, Finished, Listener, Started, Warned
from harness.experiments.memory import forget_peak, peak_mb
from harness.experiments.plugins import load_file
from harness.experiments.records import Diagnosis, Failure, Further, Predictions, Record, Runtime, Scores
from harness.experiments.trials import Identity, Trial
from harness.training import dead, loop, metrics, missing, text_encoder
from harness.training.checkpoints import Checkpoint
from harness.training.contract import Inputs, Method, MethodConfig, methods


@dataclass(frozen=True)
class Job:
    """A trial and where its data and checkpoint lie; ``plugin`` is the user's own file that defines the method.

    ``diagnose``: look at the test split after every epoch, for ``harness.experiments.diagnosis``.
    """

    trial: Trial
    data_root: Path
    checkpoint: Path
    checkpoint_seconds: float = 60.0
    plugin: Path | None = None
    diagnose: bool = False

    @property
    def lasting(self) -> bool:
        """Whether a process that has done it may do another of its kind. PyTorch's compiler gives up after a few trials of a method."""
        return not self.trial.identity.config["training"]["compile"]

    @property
    def kind(self) -> tuple[str, ...]:
        """What jobs have in common that one process may do in turn: method, data set and what is made of them."""
        return type(self).__name__, self.trial.identity.method, self.trial.identity.dataset, str(self.data_root), str(self.plugin)

    def run(self, report: Listener) -> Finished | Evaluated:
        """Do the work; called on one thread."""
        return Session(self, report).finish()


def attempt(job: Job, report: Listener) -> Event:
    """Run ``job``, report how it ended, never an exception of the trial's own, and return that."""
    try:
        event: Event = run_trial(job, report)
    except loop.Diverged as error:
        event = Failed(_failure(job.trial, "diverged", str(error)))
    except HarnessError as error:
        event = Failed(_failure(job.trial, "error", str(error)))
    except (Exception, SystemExit) as error:  # a method may fail in any way: that is a failed trial, not a failed run
        reason = "memory" if is_memory_short(error) else "error"
        event = Failed(_failure(job.trial, reason, f"{type(error).__name__}: {error}", traceback.format_exc()))
    report(event)
    return event


def is_memory_short(error: BaseException) -> bool:
    """Whether an allocation failed; PyTorch says so by a type of its own on a GPU, and in words on a CPU."""
    words = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(part in str(error) for part in words)
    )


def run_trial(job: Job, report: Listener) -> Finished | Evaluated:
    """Train, predict and score one trial on one thread."""
    if job.plugin:
        _refuse_another_file(job.plugin, load_file(job.plugin), job.trial.identity)
    _seed_other_generators(job.trial.identity.seed)
    with _arithmetic(), threadpool_limits(limits=1):
        return job.run(report)


def _refuse_another_file(path: Path, method: str, identity: Identity) -> None:
    module = methods[method].__module__
    if identity.code.get(module, "") not in ("", code.of_file(path, module)):
        raise ConfigError(f"{path} was changed while the run went on", "Type the same command again: it runs what the file says now.")


def _seed_other_generators(seed: int) -> None:
    """Python's and NumPy's own, which the harness never draws from, for methods that do: the same whatever the process did before."""
    random.seed(seeds.derive(seed, "python"))
    np.random.seed(seeds.derive(seed, "numpy") % 2**32)


def opened(name: str, root: Path) -> Dataset:
    """``store.load``; the last one is remembered while its files stay as they are: to read it takes longer than a small trial.

    One that a trial has written into is read anew.
    """
    stamp = store.stamp(name, root)
    dataset = _opened(name, root, stamp)
    if any(ragged.values._version or ragged.offsets._version for ragged in dataset.features.values()):
        _opened.cache_clear()
        dataset = _opened(name, root, stamp)
    return dataset


@lru_cache(maxsize=1)
def _opened(name: str, root: Path, stamp: object) -> Dataset:
    return store.load(name, root)


@contextmanager
def _arithmetic() -> Iterator[None]:
    """One thread, and tiny numbers flushed to zero (they slow a CPU down): the same bits inline as in a worker process."""
    threads, strict = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    _choose_deterministic_kernels()
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(threads)
        if torch.cuda.is_available():
            torch.set_deterministic_debug_mode(strict)


@dataclass
class Session:
    """The work of one job, step by step."""

    job: Job
    report: Listener
    began: float = field(default_factory=time.monotonic)
    epoch_seconds: list[float] = field(default_factory=list)
    resumed_at: int = 0
    watch: diagnosis.Watch | None = None
    _last: float = 0.0

    @property
    def identity(self) -> Identity:
        return self.job.trial.identity

    def finish(self) -> Finished:
        forget_peak()
        identity, dataset = self.identity, self._data()
        config = methods[identity.method].Config.model_validate(identity.config)
        train, valid, test = self._splits(dataset, config)
        inputs = Inputs.of(train)
        method = loop.build(methods[identity.method], inputs, dataset.card.task, config, identity.seed)
        # The test split enters without labels; they are read again only to score, after the last prediction.
        seen = missing.at_rate(missing.weighted(test, config.input_weights), config.missing.rate, identity.seed)
        if self.job.diagnose:
            self.watch = diagnosis.Watch(lambda: self._twin(inputs, train, dataset, config), seen.without_labels(), config.training)
        run = self._train(method, train, valid, dataset, config)
        values = {
            "valid": loop.predict(method, valid, config.training),
            "test": loop.predict(method, seen.without_labels(), config.training),
        }
        scores = {name: _score(dataset, split, values[name]) for name, split in {"valid": valid, "test": test}.items()}
        record = Record(
            identity=identity,
            budget=self.job.trial.budget,
            simulated=dataset.card.simulated,
            environment=environment(config.training.device),
            parameters=sum(p.numel() for p in method.parameters() if p.requires_grad),
            split_hash=splits.Parts(train=train, valid=valid, test=test).hash,
            best_epoch=run.best_epoch,
            history=tuple(run.history),
            valid=scores["valid"],
            test=scores["test"],
            predictions=_predictions(test, values["test"]),
            further=tuple(self._further(method, test, dataset, config)),
        )
        return Finished(record, self._runtime(), self._diagnosis(record, dataset, test))

    def _data(self) -> Dataset:
        """The data set of the trial's key, not another one that has come to have its name."""
        dataset = opened(self.identity.dataset, self.job.data_root)
        if dataset.card.fingerprint != self.identity.data:
            name = self.identity.dataset
            raise DataError(f"{name} was imported anew while the run went on", "Type the same command again: it runs on the new.")
        return dataset

    def _splits(self, dataset: Dataset, config: MethodConfig) -> list[Split]:
        """What trains, what validates, and the test split before anything of it is taken away or weighted."""
        parts = splits.cut(text_encoder.tokenised(dataset, config.text_encoder), self.identity.fold)
        train, valid, test = (parts[name].only(self.identity.modalities) for name in ("train", "valid", "test"))
        return prepared(train, valid, [test], config, self.identity.seed)

    def _further(self, method: Method, test: Split, dataset: Dataset, config: MethodConfig) -> Iterator[Further]:
        for changes, split in missing.further_tests(test, config.missing, config.input_weights, self.identity.seed):
            values = loop.predict(method, split.without_labels(), config.training)
            yield Further(changes=changes, test=_score(dataset, test, values), values=tuple(values.tolist()))

    def _twin(self, inputs: Inputs, train: Split, dataset: Dataset, config: MethodConfig) -> Method:
        """The method once more, before its training."""
        twin = loop.build(methods[self.identity.method], inputs, dataset.card.task, config, self.identity.seed)
        twin.fit(missing.for_training(train, config.missing, self.identity.seed, 0))
        return twin

    def _diagnosis(self, record: Record, dataset: Dataset, test: Split) -> Diagnosis | None:
        if self.watch is None:
            return None
        found = diagnosis.conclude(record, self.watch.seen, lambda values: _score(dataset, test, values))
        if isinstance(found, Diagnosis):
            return found
        self.report(Warned(self.identity.key, f"no diagnosis: {found}"))
        return None

    def _usable(self, stored: dict[str, Any] | None) -> dict[str, Any] | None:
        """A checkpoint to continue from: of this trial, and with all that a diagnosis needs where one is asked for."""
        if not stored or stored.get("key") != self.identity.key:
            return None
        return stored if self.watch is None or len(stored.get("diagnosis", ())) == len(stored["seconds"]) else None

    def _train(self, method: Method, train: Split, valid: Split, dataset: Dataset, config: MethodConfig) -> loop.Run:
        checkpoint = Checkpoint(self.job.checkpoint, self.job.checkpoint_seconds)
        usable = self._usable(checkpoint.read())
        if checkpoint.fault:
            self.report(Warned(self.identity.key, checkpoint.fault))
        if usable:
            self.epoch_seconds = list(usable["seconds"])
            if self.watch:
                self.watch.seen = list(usable["diagnosis"])
            self.resumed_at = len(self.epoch_seconds)
        self.report(Started(self.identity.key, self.resumed_at, config.training.max_epochs))
        self._last = time.monotonic()
        resume = usable["run"] if usable else None
        return loop.train(
            method, train, valid, dataset.card.task, config, self.identity.seed,
            resume=resume, after_epoch=lambda run: self._after_epoch(run, checkpoint),
        )  # fmt: skip

    def _after_epoch(self, run: loop.Run, checkpoint: Checkpoint) -> None:
        now = time.monotonic()
        seconds, self._last = now - self._last, now
        self.epoch_seconds.append(seconds)
        epoch = run.history[-1]
        self.report(EpochDone(self.identity.key, epoch.epoch, run.settings.max_epochs, epoch.valid_loss, seconds))
        if epoch.epoch == 1 and run.watch.unreached:
            self.report(Advised(self.identity.key, dead.warning(self.identity.method, run.watch.unreached)))
        if self.watch:
            self._look(self.watch, run.judged)
        if checkpoint.due():
            self._save(run, checkpoint)

    def _look(self, watch: diagnosis.Watch, method: Method) -> None:
        """Diagnose this epoch; a look that fails ends the diagnosis, never the trial. Its time is no part of the epoch's."""
        began = time.monotonic()
        try:
            watch.look(method)
        except Exception as error:  # whatever a copy of the method may do
            self.watch = None
            self.report(Warned(self.identity.key, f"no diagnosis: {type(error).__name__}: {error}; training goes on"))
        self._last += time.monotonic() - began

    def _save(self, run: loop.Run, checkpoint: Checkpoint) -> None:
        state: dict[str, Any] = {"key": self.identity.key, "run": run.state(), "seconds": self.epoch_seconds}
        state |= {"diagnosis": self.watch.seen} if self.watch else {}
        try:
            checkpoint.write(state)
        except OSError as error:
            self.report(Warned(self.identity.key, f"checkpoint not written ({error.strerror}: {checkpoint.path}); training goes on"))

    def _runtime(self) -> Runtime:
        return Runtime(
            seconds=round(time.monotonic() - self.began, 3),
            epoch_seconds=tuple(round(value, 4) for value in self.epoch_seconds),
            peak_memory_mb=round(peak_mb(), 1),
            resumed_at=self.resumed_at,
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
        )


def prepared(train: Split, valid: Split, others: Sequence[Split], config: MethodConfig, seed: int) -> list[Split]:
    """What training and validation read, then ``others``, which are shortened and standardised alike but complete and not weighted."""
    if config.training.longest is not None:
        train, valid, *others = shortened([train, valid, *others], config.training.longest, ("audio", "vision"))
    scaled = [name for name in config.training.standardise if name != "text" or config.text_encoder.path is None]
    train, valid, *others = standardise(train, [valid, *others], scaled)
    if config.input_weights.where == "all":
        train, valid = (missing.weighted(split, config.input_weights) for split in (train, valid))
    return [train, missing.for_training(valid, config.missing, seed, 0), *others]


def _score(dataset: Dataset, split: Split, values: torch.Tensor) -> Scores:
    assert split.labels is not None
    scores = metrics.score(dataset.card.metrics, values.numpy(), split.labels.numpy())
    return {name: value if value == value else None for name, value in scores.items()}  # NaN has no JSON


def _predictions(test: Split, values: torch.Tensor) -> Predictions:
    assert test.labels is not None
    rows = values.tolist()
    return Predictions(ids=test.ids, groups=test.groups, truth=tuple(test.labels.tolist()), values=tuple(rows))


def _failure(trial: Trial, reason: Any, message: str, trace: str = "") -> Failure:
    return Failure(identity=trial.identity, budget=trial.budget, reason=reason, message=message, traceback=trace)


def _choose_deterministic_kernels() -> None:
    if torch.cuda.is_available():
        with suppress(RuntimeError):
            torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False
