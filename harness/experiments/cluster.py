"""Trials on a Ray cluster: a task each, on whichever node is free. Records come back to this process, which alone writes.

Nodes need the same installed code, which is checked, and no shared disk: data sets travel through Ray's object store, once per
node. A node's checkpoints stay there, for a trial whose worker dies; a trial whose node dies starts anew elsewhere.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import ConfigError, HarnessError
from harness.experiments.events import Evaluated, Event, Failed, Finished, Listener, Started, Warned
from harness.experiments.executors import ONE_THREAD, Queue, failure_of
from harness.experiments.interrupts import undisturbed
from harness.experiments.nodes import Parcel, at_home, pack, pack_dataset
from harness.experiments.worker import Job, attempt

TRIES = 4  # of a trial whose worker or node dies; nodes of a cluster go for reasons that are not the trial's
WAIT_SECONDS = 0.2
AHEAD = 2  # tasks in the cluster's hands, for each that it can run: none idles between two, and a cluster that grows sees demand


@dataclass
class _Task:
    job: Job
    tries: int
    began: float | None = None  # when it reported its start: waiting for a node does not count
    overdue: bool = False


class Ray:
    """A trial takes one CPU and ``gpus`` of a GPU: 0.25 puts four on one; 0: none, or a whole one with ``--device cuda``.

    ``timeout`` is in seconds.

    ``address``: ``auto`` for the cluster that this machine belongs to, ``local`` for one of this machine alone (of ``workers``
    CPUs, 0: all), or a cluster's own. The connection stays open until the process ends.
    """

    def __init__(self, address: str = "auto", workers: int = 0, gpus: float = 0.0, timeout: float | None = None) -> None:
        self.gpus = gpus
        self.timeout = timeout
        self._ray = connect(address, workers)

    @property
    def workers(self) -> int:
        """Trials that run at a time, at this moment."""
        there = self._ray.cluster_resources()
        by_gpu = there.get("GPU", 0.0) / self.gpus if self.gpus else float("inf")
        return max(1, int(min(there.get("CPU", 1.0), by_gpu)))

    def run(self, jobs: Sequence[Job], on_event: Listener) -> None:
        on_gpu = any(job.trial.identity.config["training"]["device"] == "cuda" for job in jobs)
        self.gpus = self.gpus or float(on_gpu)
        _Campaign(self, self._ray, jobs, on_event).run()


def connect(address: str, workers: int = 0) -> Any:
    """The module ``ray``, connected. ConfigError where it is not installed or no cluster answers."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    for name in ONE_THREAD:
        os.environ.setdefault(name, "1")
    try:
        import ray
    except ImportError:
        raise ConfigError("ray is not installed", "Install it: pip install 'mer-harness[ray]'.") from None
    if not ray.is_initialized():
        quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
        try:
            if address == "local":
                ray.init(address="local", num_cpus=workers or None, include_dashboard=False, **quiet)
            else:
                ray.init(address=address, **quiet)
        except (ConnectionError, ValueError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise ConfigError(
                f"--address {address}: no Ray cluster answers ({reason})", "Start one (ray start --head), or use --address local."
            ) from None
    return ray


class Mailbox:
    """Lives beside the driver; tasks put in what they report, the driver takes it out."""

    def __init__(self) -> None:
        self._events: list[Event] = []

    def put(self, event: Event) -> None:
        self._events.append(event)

    def take(self) -> list[Event]:
        events, self._events = self._events, []
        return events


def work(job: Job, data: Parcel, plugin: Parcel | None, mailbox: Any) -> Event:
    """A task's life: one trial, its events sent to the mailbox; how it ended is returned."""
    import ray

    ended: list[Event] = []

    def report(event: Event) -> None:
        if isinstance(event, Finished | Failed | Evaluated):
            ended.append(event)
        else:
            mailbox.put.remote(event)

    try:
        local = at_home(job, data, plugin, ray.get)
    except (HarnessError, OSError) as error:
        return Failed(failure_of(job, "error", f"on a node of the cluster: {error}"))
    attempt(local, report)
    local.checkpoint.unlink(missing_ok=True)
    return ended[-1]


class _Campaign:
    """One call of ``Ray.run``."""

    def __init__(self, executor: Ray, ray: Any, jobs: Sequence[Job], on_event: Listener) -> None:
        self.executor, self.ray, self.on_event = executor, ray, on_event
        self.waiting = Queue(jobs)
        self.active: dict[Any, _Task] = {}
        self.parcels: dict[tuple[str, Path], Parcel] = {}
        self.task = ray.remote(num_cpus=1, num_gpus=executor.gpus, max_retries=0, scheduling_strategy="SPREAD")(work)
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.mailbox = ray.remote(num_cpus=0, scheduling_strategy=here)(Mailbox).remote()

    def run(self) -> None:
        try:
            while self.waiting or self.active:
                self._submit()
                self.ray.wait(list(self.active), timeout=WAIT_SECONDS)
                with undisturbed():
                    self._receive()
                self._stop_overdue()
        except KeyboardInterrupt:
            with undisturbed():
                self._receive(last=True)
            raise
        finally:
            for reference in self.active:
                self.ray.cancel(reference, force=True)
            self.ray.kill(self.mailbox)

    def _submit(self) -> None:
        room = AHEAD * self.executor.workers
        while self.waiting and len(self.active) < room:
            job, tries = self.waiting.take()
            plugin = self._parcel(job.plugin.name, job.plugin.parent) if job.plugin else None
            data = self._parcel(job.trial.identity.dataset, job.data_root)
            self.active[self.task.remote(job, data, plugin, self.mailbox)] = _Task(job, tries)

    def _parcel(self, name: str, root: Path) -> Parcel:
        """The data set or the file ``name`` in ``root``, handed over to the cluster once."""
        if (name, root) not in self.parcels:
            one_file = (root / name).is_file()
            self.parcels[name, root] = pack({name: root / name}, self.ray.put) if one_file else pack_dataset(name, root, self.ray.put)
        return self.parcels[name, root]

    def _receive(self, last: bool = False) -> None:
        """Pass on what was reported, then how tasks ended; with ``last``, nothing is started again."""
        done, _ = self.ray.wait(list(self.active), num_returns=len(self.active), timeout=0) if self.active else ([], [])
        self._hear()
        for reference in done:
            task = self.active.pop(reference)
            event = self._outcome(reference, task)
            if event is not None:
                if task.began is not None:
                    self.waiting.ended(task.job, time.monotonic() - task.began)
                self.on_event(event)
            elif not last:
                self.waiting.again(task.job, task.tries + 1)

    def _hear(self) -> None:
        tasks = {task.job.trial.key: task for task in self.active.values()}
        try:
            events = self.ray.get(self.mailbox.take.remote())
        except self.ray.exceptions.RayActorError:  # results do not come this way
            return
        for event in events:
            if event.key in tasks:  # a late word on a trial that has ended says nothing new
                if isinstance(event, Started):
                    tasks[event.key].began = time.monotonic()
                self.on_event(event)

    def _outcome(self, reference: Any, task: _Task) -> Event | None:
        """How the task ended, or None where it has to be run again."""
        errors = self.ray.exceptions
        try:
            event: Event = self.ray.get(reference)
            return event
        except errors.RayTaskError as error:
            return Failed(failure_of(task.job, "error", f"on a node of the cluster: {error.cause}"))
        except errors.RayError as error:
            how = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
            short = isinstance(error, errors.OutOfMemoryError)
        if task.overdue:
            return Failed(failure_of(task.job, "timeout", "the trial passed its time limit (--timeout)"))
        if task.tries < TRIES:
            self.on_event(Warned(task.job.trial.key, f"its worker or node died ({how}); it starts again"))
            return None
        return Failed(failure_of(task.job, "memory" if short else "died", f"its worker or node died {task.tries} times ({how})"))

    def _stop_overdue(self) -> None:
        now = time.monotonic()
        for reference, task in self.active.items():
            if self.executor.timeout and task.began is not None and now - task.began > self.executor.timeout and not task.overdue:
                task.overdue = True
                self.ray.cancel(reference, force=True)
