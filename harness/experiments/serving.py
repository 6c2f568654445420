"""A worker's life: trials of one kind, one after another, in a process that ends with its parent."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import SimpleQueue

import torch

from harness.experiments.events import Failed
from harness.experiments.memory import keep_freed_memory, resident_mb
from harness.experiments.worker import Job, attempt

GROWTH, SLACK = 1.25, 64.0  # a worker may hold so many times what it held after its first trial, and so many MB more


@dataclass(frozen=True)
class Ready:
    """The trial is done, and its process is as good as new: it may be sent another of the same kind."""


@dataclass(frozen=True)
class Condition:
    """What a trial must leave as it was, lest the next one gives other numbers, or a machine fills up."""

    threads: int
    folder: str
    dtype: torch.dtype
    gradients: bool
    deterministic: bool

    @classmethod
    def now(cls) -> Condition:
        """Of this process."""
        return cls(
            threads=threading.active_count(),
            folder=os.getcwd(),
            dtype=torch.get_default_dtype(),
            gradients=torch.is_grad_enabled(),
            deterministic=torch.are_deterministic_algorithms_enabled(),
        )


def serve(connection: Connection) -> None:
    """Do the jobs that come through ``connection``, their events sent back; end with the parent, or when there is nothing more to do.

    A process that a trial has failed in, or that is not in the condition it was in, does no other. A terminal sends Ctrl-C to workers
    too, but it is the parent that stops them.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    jobs: SimpleQueue[Job | None] = SimpleQueue()
    threading.Thread(target=_receive, args=(connection, jobs), daemon=True).start()
    keep_freed_memory()
    gc.freeze()  # what is imported stays: no collection needs to look at it
    before, most = Condition.now(), 0.0
    while job := jobs.get():
        failed = isinstance(attempt(job, connection.send), Failed)
        gc.collect()
        most = most or GROWTH * resident_mb() + SLACK
        if failed or not job.lasting or Condition.now() != before or resident_mb() > most:
            break
        connection.send(Ready())
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # a thread or an exit handler that a method left behind must not keep a core from the next trial


def _receive(connection: Connection, jobs: SimpleQueue[Job | None]) -> None:
    """Take what the parent sends: jobs, None at the end. End of file: the parent died or gave this worker's trial up.

    An orphan must not go on writing a checkpoint that a restarted run already uses.
    """
    try:
        while True:
            jobs.put(connection.recv())
    except (EOFError, OSError):
        os._exit(1)
