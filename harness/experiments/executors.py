"""Executors: where trials run. Workers report; only the parent writes records."""

from __future__ import annotations

import itertools
import math
import multiprocessing
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Protocol, TypeGuard

from harness.errors import HarnessError
from harness.experiments.condition import Condition
from harness.experiments.events import Evaluated, Event, Failed, Finished, Listener, Warned
from harness.experiments.interrupts import undisturbed, unheard
from harness.experiments.records import Failure
from harness.experiments.serving import Ready, serve
from harness.experiments.worker import Job, attempt
from harness.training.contract import methods

LATE = ("pyarrow.parquet", "pyarrow.dataset")  # what the first table imports, in every process anew
WARM = "harness.experiments.warm"
STARTS, PAUSE = 5, 0.5  # of a worker process, and seconds between: a server that was killed refuses for as long as it takes to die
GRACE = 60.0  # seconds in which a parent that was busy may still read what a worker has said in time
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
            attempt(job, _Watchful(job, on_event))


class _Watchful:
    """A listener that first says what a trial left in this process: inline there is no other one for the next trial."""

    def __init__(self, job: Job, on_event: Listener) -> None:
        self.job, self.on_event, self.before = job, on_event, Condition.of(job)

    def __call__(self, event: Event) -> None:
        changes = Condition.of(self.job).changes(self.before) if isinstance(event, Finished | Failed | Evaluated) else []
        if changes:
            text = f"the trial changed {', '.join(changes)}; later trials in this process may give other numbers, workers are replaced"
            self.on_event(Warned(self.job.trial.key, text))
        self.on_event(event)


@dataclass
class _Worker:
    job: Job
    process: BaseProcess
    tries: int = 1
    deadline: float = math.inf
    started: float = 0.0
    ended: bool = False
    begun: int = 0

    def begin(self, job: Job, tries: int, timeout: float | None) -> None:
        """Another trial for the same process."""
        now = time.monotonic()
        self.begun += 1
        self.job, self.tries, self.started, self.ended = job, tries, now, False
        self.deadline = now + (timeout or math.inf)


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

    def _next(self) -> str:
        there = [method for method, line in self._waiting.items() if line]
        return max(there, key=lambda name: (self._seconds.get(name, math.inf), -self._waiting[name][0][0]))  # the first, if equal

    def suits(self, done: Job) -> bool:
        """Whether the next job, if any, may be done by the process that has done ``done``: its first try, if it is of that kind."""
        _, job, tries = self._waiting[self._next()][0] if self else (0, done, math.inf)
        return tries == 1 and job.kind == done.kind

    def take(self) -> tuple[Job, int]:
        method = self._next()
        self._seconds.setdefault(method, 0.0)
        _, job, tries = self._waiting[method].popleft()
        return job, tries

    def again(self, job: Job, tries: int) -> None:
        line = self._waiting.setdefault(job.trial.identity.method, deque())
        line.append((next(self._numbers), job, tries))

    def ended(self, job: Job, seconds: float) -> None:
        self._seconds[job.trial.identity.method] = seconds


class Processes:
    """Processes of one thread, ``workers`` at a time; each does one trial after another of one method on one data set.

    A new process for each method and data set gives trials clean memory readings; a new one after a failure keeps a crash to itself. A
    trial whose worker dies (killed, out of memory) is started once more, from its checkpoint, in a process of its own; then it counts as
    failed. One that fails in a process that did others before has that second try as well. ``timeout`` is in seconds, for each trial.
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
                        self._receive(connection, active, waiting, on_event)
                _stop_overdue(active, on_event)
        except KeyboardInterrupt:
            _drain(active, on_event, self._may_do_better_alone)
            raise
        finally:
            _stop(active)

    def _start(self, context: BaseContext, active: dict[Connection, _Worker], job: Job, tries: int) -> None:
        ours, process = _new_process(context)
        active[ours] = worker = _Worker(job, process)
        worker.begin(job, tries, self.timeout)
        with suppress(OSError):  # it is dead already: it will be buried, and the job tried again
            ours.send(job)

    def _receive(self, connection: Connection, active: dict[Connection, _Worker], waiting: Queue, on_event: Listener) -> None:
        """Pass one event on; a worker that is ready does the next job, and a job whose worker died waits again while it has a try left."""
        worker = active[connection]
        try:
            event: Event | Ready = connection.recv()
        except (EOFError, OSError):
            return _bury(connection, active, waiting, self.tries, on_event)
        if isinstance(event, Ready):
            return self._go_on(connection, worker, waiting)
        if isinstance(event, Finished | Failed | Evaluated):
            worker.ended = True
            waiting.ended(worker.job, time.monotonic() - worker.started)
        if self._may_do_better_alone(event, worker):
            waiting.again(worker.job, worker.tries + 1)
            why = f"{event.failure.message}, in a process that had done other trials; it starts again in a new one"
            event = Warned(event.key, why)
        on_event(event)

    def _may_do_better_alone(self, event: Event, worker: _Worker) -> TypeGuard[Failed]:
        """Whether a trial failed that may not have in a new process: some things can be set up but once in each."""
        anew = worker.begun > 1 and worker.tries < self.tries
        return anew and isinstance(event, Failed) and event.failure.reason in ("error", "memory")

    def _go_on(self, connection: Connection, worker: _Worker, waiting: Queue) -> None:
        """Send the next job to a worker of its kind, or let it go: it ends, and the next job gets a new one."""
        job, tries = waiting.take() if waiting.suits(worker.job) else (None, 0)
        try:
            connection.send(job)
        except OSError:  # it died while it waited; the job has not begun, and keeps its tries
            if job:
                waiting.again(job, tries)
            return
        if job:
            worker.begin(job, tries, self.timeout)

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
    used |= {type(job).__module__ for job in jobs} - {"__main__"}
    # A worker runs the imports of the command's own file anew. Nothing more is loaded: every worker would hold it.
    ours = {name for name in sys.modules if name.startswith("harness.cli")} | {serve.__module__}
    context.set_forkserver_preload([*sorted(ours | used), *LATE, WARM])
    return context


def _new_process(context: BaseContext) -> tuple[Connection, BaseProcess]:
    """A worker that waits for its first job. Where the server that forks it was killed, another one is started, ``STARTS`` times in all."""
    for last in [False] * (STARTS - 1) + [True]:
        ours, theirs = context.Pipe()
        try:
            if context.get_start_method() == "forkserver":
                _start_server()
            process: BaseProcess = context.Process(target=serve, args=(theirs,), daemon=True)  # type: ignore[attr-defined]
            process.start()
            break
        except (OSError, EOFError) as error:
            ours.close()  # ends a worker that was forked all the same
            if last:
                why = f"no worker process could be started ({type(error).__name__}: {error})"
                raise HarnessError(why, "Memory or processes may be short: try fewer --workers. Finished results are kept.") from None
            time.sleep(PAUSE)
        finally:
            theirs.close()
    return ours, process


def _start_server() -> None:
    """Start what forks workers, or a new one where it was killed. Ctrl-C, sent to all processes of a terminal, would end its imports."""
    resource_tracker.ensure_running()  # before the block: it unblocks what it blocks
    with unheard():
        forkserver.ensure_running()


def _drain(active: dict[Connection, _Worker], on_event: Listener, skip: Callable[[Event, _Worker], bool]) -> None:
    """Store what workers have finished and nobody has read yet."""
    with undisturbed():
        for connection, worker in active.items():
            with suppress(EOFError, OSError):
                while not worker.ended and connection.poll():
                    event = connection.recv()
                    worker.ended = isinstance(event, Finished | Failed | Evaluated)
                    if worker.ended and not skip(event, worker):
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
    """Stop workers past their time limit, also one that is done and does not get ready. What they have said already is heard first."""
    now = time.monotonic()
    late = {c: worker for c, worker in active.items() if worker.deadline <= now and (now > worker.deadline + GRACE or not c.poll())}
    for connection, worker in late.items():
        _stop({connection: worker})
        del active[connection]
        if not worker.ended:
            on_event(Failed(failure_of(worker.job, "timeout", "the trial passed its time limit (--timeout)")))


def _stop(workers: dict[Connection, _Worker]) -> None:
    """Kill them and wait until they are dead: none may go on writing a checkpoint that the next run already reads."""
    with undisturbed():
        for worker in workers.values():
            worker.process.kill()
        for connection, worker in workers.items():
            connection.close()  # ends also one that can no longer be killed, since the server that knew of it is gone
            worker.process.join(5.0)


def _cause_of_death(exitcode: int | None) -> str:
    return f"signal {-exitcode}" if exitcode is not None and exitcode < 0 else f"exit code {exitcode}"


def failure_of(job: Job, reason: str, message: str) -> Failure:
    return Failure.model_validate({"identity": job.trial.identity, "budget": job.trial.budget, "reason": reason, "message": message})
