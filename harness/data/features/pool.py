"""Extraction of many clips in worker processes of one thread each.

A worker that dies takes one clip with it, which is tried once more in a fresh process; then it counts as failed. Results go from the
worker straight to the cache; through the pipe come only their places.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from harness.data.features.base import Extractor
from harness.data.features.cache import Shelf, kept
from harness.errors import ConfigError, DataError, HarnessError

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
TRIES = 2
AHEAD = 3  # jobs that a worker has at a time: it need not wait for this process, which may be slow to answer on a busy machine


class _Turn(NamedTuple):
    number: int
    tries: int


@dataclass(frozen=True)
class Task:
    """One clip for one extractor; ``clip`` is its id, for messages."""

    clip: str
    extractor: Extractor
    source: Path | str
    shelf: Shelf


@dataclass(frozen=True)
class Job:
    """A task that the cache does not know, and where its result goes."""

    task: Task
    entry: Path


@dataclass(frozen=True)
class Result:
    """How a task ended: where its features lie, or why there are none. ``fatal`` is no fault of the clip: all others share it."""

    entry: Path | None = None
    known: bool = False
    fault: str = ""
    fatal: HarnessError | None = None


Listener = Callable[[Result], None]


def run(tasks: Sequence[Task], workers: int, listen: Listener) -> list[Result]:
    """Results of all ``tasks``, in order; ``listen`` hears of each as it comes.

    What the cache knows is not done again. One worker is this process. Raises the first fatal error at once; what was finished by
    then is in the cache.
    """
    results: dict[int, Result] = {}

    def note(number: int, result: Result) -> None:
        if result.fatal is not None:
            raise result.fatal
        results[number] = result
        listen(result)

    jobs: dict[int, Job] = {}
    with ThreadPoolExecutor(max(1, workers)) as threads:  # hashing leaves the interpreter to the others
        for number, found in enumerate(threads.map(_look_up, tasks)):
            if found.known or found.fault:
                note(number, found)
            elif found.entry:
                jobs[number] = Job(tasks[number], found.entry)
    if min(workers, len(jobs)) <= 1:
        with threadpool_limits(limits=1):
            for number, job in jobs.items():
                note(number, perform(job))
    else:
        _Pool(jobs, min(workers, len(jobs)), note).run()
    return [results[number] for number in range(len(tasks))]


def _look_up(task: Task) -> Result:
    """Where the features of a clip lie or shall lie."""
    try:
        entry = task.shelf.entry(task.source)
    except OSError as error:
        return Result(fault=f"{task.source}: {error.strerror or error}")
    return Result(entry, known=kept(entry))


def perform(job: Job) -> Result:
    """Extract one clip and store it in the cache."""
    task, entry = job.task, job.entry
    if kept(entry):  # another clip of the same content came first
        return Result(entry, known=True)
    try:
        frames = _checked(task.extractor.extract(task.source), task.extractor)
    except DataError as error:
        return Result(fault=error.problem)
    except HarnessError as error:
        return Result(fatal=error)
    except Exception as error:  # a library may fail on a damaged file in any way: one clip's fault, not the end of all
        return Result(fault=f"{task.source if isinstance(task.source, Path) else 'transcript'}: {type(error).__name__}: {error}")
    try:
        task.shelf.put(entry, frames)
    except OSError as error:
        return Result(fatal=DataError(f"{entry} could not be written: {error}", "Free some space or set MER_DATA to another folder."))
    return Result(entry)


def _checked(frames: np.ndarray, extractor: Extractor) -> np.ndarray:
    if frames.ndim != 2 or frames.dtype not in (np.float32, np.uint8) or not frames.shape[1]:
        raise ConfigError(
            f"the extractor '{extractor.name}' gave an array of shape {frames.shape}, type {frames.dtype}",
            "extract() must return (frames, dim) float32, or uint8 for pixels.",
        )
    return frames


@dataclass
class _Worker:
    process: BaseProcess
    given: deque[_Turn] = field(default_factory=deque)  # what it was sent and has not answered, in order: it works on the first


@dataclass
class _Pool:
    jobs: Mapping[int, Job]
    workers: int
    note: Callable[[int, Result], None]
    active: dict[Connection, _Worker] = field(default_factory=dict)
    waiting: deque[_Turn] = field(default_factory=deque)

    def run(self) -> None:
        context = _context([job.task for job in self.jobs.values()])
        self.waiting.extend(_Turn(number, 1) for number in self.jobs)
        try:
            while self.waiting or self.active:
                while self.waiting and len(self.active) < self.workers:
                    self._start(context)
                for connection in wait(list(self.active)):
                    assert isinstance(connection, Connection)
                    self._receive(connection)
        finally:
            for worker in self.active.values():
                worker.process.kill()
                worker.process.join()

    def _start(self, context: BaseContext) -> None:
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs,), daemon=True)  # type: ignore[attr-defined]
        process.start()
        theirs.close()
        self.active[ours] = _Worker(process)
        self._supply(ours)

    def _supply(self, connection: Connection) -> None:
        """Keep a worker in work; without any left for it, it ends when its pipe does."""
        given = self.active[connection].given
        while self.waiting and len(given) < AHEAD:
            given.append(self.waiting.popleft())
            with suppress(OSError):  # it died meanwhile: the end of its pipe is the next thing heard of it
                connection.send(self.jobs[given[-1].number])
        if not given:
            self._dismiss(connection)

    def _receive(self, connection: Connection) -> None:
        try:
            result: Result = connection.recv()
        except (EOFError, OSError):
            self._bury(connection)
            return
        self.note(self.active[connection].given.popleft().number, result)
        self._supply(connection)

    def _dismiss(self, connection: Connection) -> None:
        worker = self.active.pop(connection)
        connection.close()
        worker.process.join()

    def _bury(self, connection: Connection) -> None:
        """Put back what a dead worker had; the clip it died of once more, then never again."""
        worker = self.active[connection]
        self._dismiss(connection)
        died_of = worker.given.popleft()
        self.waiting.extendleft(reversed(worker.given))
        if died_of.tries < TRIES:
            self.waiting.appendleft(_Turn(died_of.number, died_of.tries + 1))
        else:
            self.note(died_of.number, Result(fault=self._obituary(died_of, worker.process.exitcode)))

    def _obituary(self, turn: _Turn, code: int | None) -> str:
        source = self.jobs[turn.number].task.source
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        place = f"{source}: " if isinstance(source, Path) else ""
        return f"{place}the worker process died {turn.tries} times ({how}); memory may be short"


def _context(tasks: Sequence[Task]) -> BaseContext:
    """Processes forked from a clean server that has imported the extractors once."""
    for name in ONE_THREAD:
        os.environ.setdefault(name, "1")
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *sorted({type(task.extractor).__module__ for task in tasks})])
    return context


def _serve(connection: Connection) -> None:
    """A worker's life: tasks in, results out, until the parent closes the pipe or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears of Ctrl-C too, and ends its workers
    with threadpool_limits(limits=1):
        while True:
            try:
                connection.send(perform(connection.recv()))
            except (EOFError, OSError):
                return
