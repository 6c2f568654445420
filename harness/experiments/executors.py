"""Executors: where trials run. Workers report; only the parent writes records."""

from __future__ import annotations

import itertools
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Protocol

from harness.experiments.events import Evaluated, Event, Failed, Finished, Listener, Warned
from harness.experiments.interrupts import undisturbed
from harness.experiments.memory import keep_freed_memory
from harness.experiments.records import Failure
from harness.experiments.worker import Job, attempt
from harness.training.contract import methods

LATE = (
    "torch._dynamo",
    "pyarrow.parquet",
    "pyarrow.dataset",
)  # what the first optimiser and the first table import: seconds, in every process anew
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Executor(Protocol):
    """Runs jobs and reports their events; every job ends with Finished, Failed or, in a search, Evaluated."""

    @property
    def workers(self) -> int:
        """Trials that run at a time."""

    def run(self, jobs: Sequence[Job], on_event: Listener) -> None: ...


class Inline:
    """All trials in this process, one after another: for debuggers and small runs."""

    workers = 1

    def run(self, jobs: Sequence[Job], on_event: Listener) -> None:
        for job in jobs:
            attempt(job, on_event)


@dataclass
class _Worker:
    job: Job
    process: BaseProcess
    tries: int
    deadline: float
    started: float
    ended: bool = False


class Queue:
    """Jobs that wait, with the number of their try. One of each method goes first, then the method whose trials took longest:
    so the last worker to finish is not left alone with the longest trial."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._numbers = itertools.count()
        self._waiting: dict[str, deque[tuple[int, Job, int]]] = {}  # by method: place in the line, job, number of its try
        self._seconds: dict[str, float] = {}  # the last trial of each method; 0 while its first runs
        for job in jobs:
            self.again(job, 1)

    def __bool__(self) -> bool:
        return any(self._waiting.values())

    def take(self) -> tuple[Job, int]:
        there = [method for method, line in self._waiting.items() if line]
        method = max(there, key=lambda name: (self._seconds.get(name, math.inf), -self._waiting[name][0][0]))  # the first, if equal
        self._seconds.setdefault(method, 0.0)
        _, job, tries = self._waiting[method].popleft()
        return job, tries

    def again(self, job: Job, tries: int) -> None:
        line = self._waiting.setdefault(job.trial.identity.method, deque())
        line.append((next(self._numbers), job, tries))

    def ended(self, job: Job, seconds: float) -> None:
        self._seconds[job.trial.identity.method] = seconds


class Processes:
    """One process of one thread per trial, ``workers`` at a time.

    A process per trial gives every trial a clean memory reading and keeps a crash to itself. A worker that dies (killed,
    out of memory) is started once more, from its checkpoint; then the trial counts as failed. ``timeout`` is in seconds.
    """

    def __init__(self, workers: int, timeout: float | None = None, tries: int = 2) -> None:
        self.workers = workers
        self.timeout = timeout
        self.tries = tries

    def run(self, jobs: Sequence[Job], on_event: Listener) -> None:
        context = _context(jobs)
        waiting = Queue(jobs)
        active: dict[Connection, _Worker] = {}
        try:
            while waiting or active:
                while waiting and len(active) < self.workers:
                    self._start(context, active, *waiting.take())
                for connection in wait(list(active), timeout=self._patience(active)):
                    assert isinstance(connection, Connection)
                    with undisturbed():
                        _receive(connection, active, waiting, self.tries, on_event)
                _stop_overdue(active, on_event)
        except KeyboardInterrupt:
            _drain(active, on_event)
            raise
        finally:
            for worker in active.values():
                worker.process.kill()

    def _start(self, context: BaseContext, active: dict[Connection, _Worker], job: Job, tries: int) -> None:
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(job, theirs), daemon=True)  # type: ignore[attr-defined]
        process.start()
        theirs.close()
        deadline = time.monotonic() + self.timeout if self.timeout else float("inf")
        active[ours] = _Worker(job, process, tries, deadline, time.monotonic())

    def _patience(self, active: dict[Connection, _Worker]) -> float | None:
        nearest = min((worker.deadline for worker in active.values()), default=float("inf"))
        return None if nearest == float("inf") else max(0.0, nearest - time.monotonic())


def _context(jobs: Sequence[Job]) -> BaseContext:
    """Processes forked from a clean server that has imported torch and the methods once: a trial starts in milliseconds."""
    for name in ONE_THREAD:
        os.environ.setdefault(name, "1")
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    used = {methods[job.trial.identity.method].__module__ for job in jobs if job.plugin is None}
    # A worker runs the imports of the command's own file anew, which takes .5 s where the server has not done them.
    ours = {name for name in sys.modules if name.startswith("harness.")} - {"harness.experiments.warm"}
    context.set_forkserver_preload([*sorted(ours | used), "harness.experiments.warm", *LATE])
    return context


def _serve(job: Job, connection: Connection) -> None:
    """A worker's life: one trial, its events sent to the parent; it ends at once when the parent is gone, and after its trial.

    A terminal sends Ctrl-C to workers too, but it is the parent that stops them.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, args=(connection,), daemon=True).start()
    keep_freed_memory()
    attempt(job, connection.send)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # a thread or an exit handler that a method left behind must not keep a core from the next trial


def _exit_with_parent(connection: Connection) -> None:
    # The parent never sends: recv returns only by end of file, that is, when the parent died or gave this trial up.
    # An orphan must not go on writing a checkpoint that a restarted run already uses.
    try:
        connection.recv()
    except (EOFError, OSError):
        os._exit(1)


def _receive(connection: Connection, active: dict[Connection, _Worker], waiting: Queue, tries: int, on_event: Listener) -> None:
    """Pass one event on; a job whose worker died waits again while it has a try left."""
    worker = active[connection]
    try:
        event: Event = connection.recv()
    except (EOFError, OSError):
        return _bury(connection, active, waiting, tries, on_event)
    worker.ended = isinstance(event, Finished | Failed | Evaluated)
    if worker.ended:
        waiting.ended(worker.job, time.monotonic() - worker.started)
    on_event(event)


def _drain(active: dict[Connection, _Worker], on_event: Listener) -> None:
    """Store what workers have finished and nobody has read yet."""
    with undisturbed():
        for connection, worker in active.items():
            with suppress(EOFError, OSError):
                while not worker.ended and connection.poll():
                    event = connection.recv()
                    worker.ended = isinstance(event, Finished | Failed | Evaluated)
                    if worker.ended:
                        on_event(event)


def _bury(connection: Connection, active: dict[Connection, _Worker], waiting: Queue, tries: int, on_event: Listener) -> None:
    worker = active.pop(connection)
    connection.close()
    worker.process.join()
    if worker.ended:
        return
    how = _cause_of_death(worker.process.exitcode)
    if worker.tries < tries:
        on_event(Warned(worker.job.trial.key, f"the worker died ({how}); it starts again from its checkpoint"))
        waiting.again(worker.job, worker.tries + 1)
    else:
        on_event(Failed(failure_of(worker.job, "died", f"the worker died {worker.tries} times ({how}); memory may be short")))


def _stop_overdue(active: dict[Connection, _Worker], on_event: Listener) -> None:
    now = time.monotonic()
    for connection, worker in list(active.items()):
        if worker.deadline <= now and not worker.ended:
            worker.process.kill()
            worker.process.join()
            connection.close()
            del active[connection]
            on_event(Failed(failure_of(worker.job, "timeout", "the trial passed its time limit (--timeout)")))


def _cause_of_death(exitcode: int | None) -> str:
    return f"signal {-exitcode}" if exitcode is not None and exitcode < 0 else f"exit code {exitcode}"


def failure_of(job: Job, reason: str, message: str) -> Failure:
    return Failure.model_validate({"identity": job.trial.identity, "budget": job.trial.budget, "reason": reason, "message": message})
