"""The runner: of the trials that a table needs, run what is missing, store and mirror what ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from harness.errors import Stopped
from harness.experiments.diagnosis import unlike
from harness.experiments.events import Event, Failed, Finished, Listener, Warned
from harness.experiments.executors import Executor
from harness.experiments.records import Failure, RecordStore
from harness.experiments.tracking import Tracker
from harness.experiments.trials import Trial
from harness.experiments.worker import Job
from harness.experiments.workspace import Reserve, Workspace


@dataclass(frozen=True)
class Options:
    """How to run: where data lies, how often a checkpoint is written, whether failed trials get another try.

    ``diagnose``: finished trials without a diagnosis are run again for it; their records stay as they are.
    """

    data_root: Path
    checkpoint_seconds: float = 60.0
    retry_failed: bool = False
    plugin: Path | None = None
    diagnose: bool = False


@dataclass
class Outcome:
    """Keys of the trials of one call by what became of them; ``undiagnosed``: they have a record but no diagnosis, as was asked."""

    reused: list[str] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    undiagnosed: list[str] = field(default_factory=list)


def outstanding(trials: Sequence[Trial], store: RecordStore, retry_failed: bool, diagnose: bool = False) -> list[Trial]:
    """The trials that have to be run: no sound record yet, and no failure unless those are retried; or no diagnosis yet. Each key once."""
    unique = {trial.key: trial for trial in trials}
    return [trial for key, trial in unique.items() if _lacking(key, store, retry_failed, diagnose)]


def _lacking(key: str, store: RecordStore, retry_failed: bool, diagnose: bool) -> bool:
    if store.sound(key):
        return diagnose and store.diagnosis(key) is None
    return (
        retry_failed or key in store or store.failure(key) is None
    )  # a record that is there and damaged is as good as none, and no failure


def run(trials: Sequence[Trial], workspace: Workspace, executor: Executor, tracker: Tracker, options: Options, listen: Listener) -> Outcome:
    """Run the outstanding trials; every finished one is stored before anything else happens to it.

    Damaged records are set aside and run again. Raises HarnessError where the results folder cannot be written or the
    disk fills up, Stopped after Ctrl-C.
    """
    store = workspace.store
    with workspace.writing() as reserve:  # what is outstanding is asked under the lock: another process may just have ended
        waiting = outstanding(trials, store, options.retry_failed, options.diagnose)
        for trial in waiting:
            if trial.key in store and not store.sound(trial.key):
                _set_aside(trial.key, store, reserve, listen)
        outcome = _before(trials, waiting, store)
        jobs = [_job(trial, workspace, options) for trial in waiting]
        clerk = _Clerk(workspace, tracker, reserve, outcome, listen)
        try:
            executor.run(jobs, clerk)
            clerk.catch_up()
        except KeyboardInterrupt:
            raise Stopped("stopped; finished results are kept", "The same command continues where this one stopped.") from None
    if options.diagnose:
        keys = dict.fromkeys(trial.key for trial in trials)
        outcome.undiagnosed = [key for key in keys if key in store and store.diagnosis(key) is None]
    return outcome


def _job(trial: Trial, workspace: Workspace, options: Options) -> Job:
    place = workspace.checkpoint(trial.key)
    return Job(trial, options.data_root, place, options.checkpoint_seconds, options.plugin, options.diagnose)


def _before(trials: Sequence[Trial], waiting: Sequence[Trial], store: RecordStore) -> Outcome:
    """What became earlier of the trials; one with a record that waits for its diagnosis is among those reused."""
    keys, waits = dict.fromkeys(trial.key for trial in trials), {trial.key for trial in waiting}
    return Outcome(reused=[key for key in keys if key in store], failed=[key for key in keys if key not in store and key not in waits])


def _set_aside(key: str, store: RecordStore, reserve: Reserve, listen: Listener) -> None:
    places: list[Path] = []
    reserve.protect(lambda: places.append(store.set_aside(key)), f"the damaged record of trial {key}")
    listen(Warned(key, f"its record is damaged and was set aside as {places[0]}; the trial runs again"))


@dataclass
class _Clerk:
    """Writes down what workers report, then passes it on."""

    workspace: Workspace
    tracker: Tracker
    reserve: Reserve
    outcome: Outcome
    listen: Listener

    def __call__(self, event: Event) -> None:
        if isinstance(event, Finished) and event.key in self.workspace.store:
            event = self._check(event)
        elif isinstance(event, Finished):
            self._store(event)
        elif isinstance(event, Failed) and event.key not in self.workspace.store:
            self.reserve.protect(lambda: self.workspace.store.put_failure(event.failure), "a failure report")
            self.outcome.failed.append(event.key)
        self.listen(event)

    def _check(self, event: Finished) -> Finished | Failed:
        """A trial that has its record was run again for its diagnosis: the record stays, and both must be the same."""
        why = unlike(self.workspace.store.get(event.key), event.record)
        self.workspace.checkpoint(event.key).unlink(missing_ok=True)
        if not why:
            self._diagnosed(event)
            return event
        message = f"run again for its diagnosis, the trial did not give its record again, which is kept: it {why}"
        identity, budget = event.record.identity, event.record.budget
        return Failed(Failure(identity=identity, budget=budget, reason="error", message=message))

    def _diagnosed(self, event: Finished) -> None:
        found = event.diagnosis
        if found is not None:
            self.reserve.protect(lambda: self.workspace.store.put_diagnosis(found), f"the diagnosis of trial {event.key}")

    def catch_up(self) -> None:
        """Publish what MLflow lacks of the records that were there before: last, since to list its runs takes seconds."""
        for key in self.tracker.lacking(self.outcome.reused):
            self._mirror(key, partial(self._publish, key))

    def _publish(self, key: str) -> None:
        store = self.workspace.store
        self.tracker.publish(store.get(key), store.runtime(key))

    def _store(self, event: Finished) -> None:
        self.reserve.protect(lambda: self.workspace.store.put(event.record, event.runtime), f"the record of trial {event.key}")
        self.outcome.finished.append(event.key)
        self._diagnosed(event)
        self.workspace.checkpoint(event.key).unlink(missing_ok=True)
        self._mirror(event.key, lambda: self.tracker.publish(event.record, event.runtime))

    def _mirror(self, key: str, publish: Callable[[], None]) -> None:
        sound = not self.tracker.problem
        self.reserve.protect(publish, "a note of what MLflow still lacks")
        if sound and self.tracker.problem:
            text = f"MLflow does not answer ({self.tracker.problem}); records are kept, `harness track` publishes them later"
            self.listen(Warned(key, text))
