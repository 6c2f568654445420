"""A worker's life: trials of one kind, one after another, in a process that ends with its parent."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import traceback
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from queue import SimpleQueue

from harness.experiments.condition import Condition
from harness.experiments.events import Event, Failed
from harness.experiments.memory import forget_peak, keep_freed_memory, resident_mb
from harness.experiments.worker import Job, attempt

GROWTH, SLACK = 1.25, 64.0  # a worker may hold so many times what it held after its first trial, and so many MB more


@dataclass(frozen=True)
class Ready:
    """The trial is done, and its process is as good as new: it may be sent another of the same kind."""


def serve(connection: Connection) -> None:
    """Do the jobs that come through ``connection``, their events sent back; end with the parent, or when there is nothing more to do.

    A process that a trial has failed in, or that is not in the condition it was in, does no other. A terminal sends Ctrl-C to workers
    too, but it is the parent that stops them.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # it was blocked for the server and what it forks
    jobs: SimpleQueue[Job | None] = SimpleQueue()
    threading.Thread(target=_receive, args=(connection, jobs), daemon=True).start()
    keep_freed_memory()
    gc.freeze()  # what is imported stays: no collection needs to look at it
    before, most = None, 0.0
    while job := jobs.get():
        before = before or Condition.of(job)
        failed = isinstance(attempt(job, partial(_send, connection)), Failed)
        _flush()
        gc.collect()
        most = most or GROWTH * resident_mb() + SLACK
        if failed or not job.lasting or Condition.of(job).changes(before) or resident_mb() > most or not forget_peak():
            break  # without a way to forget it, the next trial's peak could be this one's
        _send(connection, Ready())
    os._exit(0)  # a thread or an exit handler that a method left behind must not keep a core from the next trial


def _send(connection: Connection, event: Event | Ready) -> None:
    try:
        connection.send(event)
    except OSError:
        os._exit(1)  # the parent is gone; ``_receive`` is about to find out


def _flush() -> None:
    """What the trial has printed is shown, even if the process is killed in the next one."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # closed by the method, or by whoever read it
            stream.flush()


def _receive(connection: Connection, jobs: SimpleQueue[Job | None]) -> None:
    """Take what the parent sends: jobs, None at the end. End of file: the parent died or gave this worker's trial up.

    An orphan must not go on writing a checkpoint that a restarted run already uses.
    """
    try:
        while True:
            jobs.put(connection.recv())
    except (EOFError, OSError):
        pass
    except BaseException:  # a job that cannot be read here: to wait for another would be to wait for ever
        traceback.print_exc()
    finally:
        os._exit(1)
