"""What the parent does with its workers, message by message: each test plays a worker at the other end of a pipe."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kit import TOY, job, tiny_dataset, trial

from harness.errors import HarnessError
from harness.experiments import executors
from harness.experiments.events import EpochDone, Evaluated, Event, Failed, Warned
from harness.experiments.executors import GRACE, Processes, Queue, _bury, _drain, _stop, _stop_overdue, _Worker
from harness.experiments.serving import Ready
from harness.experiments.worker import Job

NOWHERE = Path("nowhere")


class Process:
    """A process that only notes what is done to it."""

    def __init__(self, exitcode: int = -9) -> None:
        self.exitcode, self.done = exitcode, list[str]()

    def kill(self) -> None:
        self.done.append("kill")

    def join(self, timeout: float | None = None) -> None:
        self.done.append("join")


class Scene:
    """A parent with one worker, which has a job since ``age`` seconds with a time limit of 10."""

    def __init__(self, age: float = 0.0, ended: bool = False, tries: int = 1) -> None:
        self.job = job(trial(tiny_dataset()), NOWHERE, NOWHERE)
        self.ours, self.theirs = multiprocessing.Pipe()
        self.process: Any = Process()
        began = time.monotonic() - age
        self.worker = _Worker(self.job, self.process, tries, began + 10, began, ended)
        self.active: dict[Connection, _Worker] = {self.ours: self.worker}
        self.queue, self.events = Queue([]), list[Event]()
        self.parent = Processes(1, timeout=10)

    @property
    def done(self) -> Evaluated:
        return Evaluated(self.job.trial.key, (), False, 1.0)

    def receive(self) -> None:
        self.parent._receive(self.ours, self.active, self.queue, self.events.append)


EPOCH = EpochDone("key", 1, 2, 0.5, 0.1)


# ---- time limits


def test_a_worker_past_its_limit_is_stopped_and_its_trial_has_failed() -> None:
    scene = Scene(age=11)
    _stop_overdue(scene.active, scene.events.append)
    (event,) = scene.events
    assert isinstance(event, Failed) and event.failure.reason == "timeout"
    assert not scene.active and scene.process.done == ["kill", "join"] and scene.ours.closed


def test_a_worker_within_its_limit_goes_on() -> None:
    scene = Scene(age=9)
    _stop_overdue(scene.active, scene.events.append)
    assert scene.active and not scene.events and not scene.process.done


def test_a_worker_that_is_done_and_does_not_get_ready_is_stopped_too() -> None:
    """Else the parent would wait for it for ever, and wake up all the time."""
    scene = Scene(age=11, ended=True)
    _stop_overdue(scene.active, scene.events.append)
    assert not scene.active and not scene.events and scene.process.done == ["kill", "join"]


def test_what_was_said_in_time_is_heard_though_the_parent_was_busy() -> None:
    scene = Scene(age=11)
    scene.theirs.send(scene.done)
    _stop_overdue(scene.active, scene.events.append)
    assert scene.active and not scene.events
    scene.receive()
    assert scene.events == [scene.done]
    late = Scene(age=11 + GRACE)
    late.theirs.send(EPOCH)
    _stop_overdue(late.active, late.events.append)
    assert not late.active and len(late.events) == 1


# ---- one job after another


def test_a_ready_worker_is_sent_the_next_job_of_its_kind_with_a_limit_of_its_own() -> None:
    scene = Scene(age=8, ended=True)
    scene.queue.again(scene.job, 1)
    scene.worker.tries, begun = 2, scene.worker.begun
    scene.theirs.send(Ready())
    scene.receive()
    assert scene.theirs.recv() == scene.job and scene.worker.begun == begun + 1
    assert scene.worker.tries == 1 and not scene.worker.ended and not scene.queue
    assert 9 < scene.worker.deadline - time.monotonic() <= 10 and time.monotonic() - scene.worker.started < 1


def test_a_ready_worker_is_let_go_where_the_next_job_is_of_another_kind_or_none() -> None:
    for others in ([], [job(trial(tiny_dataset("mosei@tiny")), NOWHERE, NOWHERE)]):
        scene = Scene(ended=True)
        for other in others:
            scene.queue.again(other, 1)
        scene.theirs.send(Ready())
        scene.receive()
        assert scene.theirs.recv() is None and scene.worker.ended and bool(scene.queue) == bool(others)


def test_a_worker_that_died_while_it_was_ready_costs_the_next_job_no_try() -> None:
    scene = Scene(ended=True)
    scene.queue.again(scene.job, 1)
    scene.theirs.send(Ready())
    scene.theirs.close()
    scene.receive()
    scene.receive()
    assert scene.queue.take() == (scene.job, 1) and not scene.active and not scene.events


def test_a_worker_that_dies_between_its_end_and_ready_loses_nothing() -> None:
    scene = Scene()
    scene.theirs.send(scene.done)
    scene.theirs.close()
    scene.receive()
    scene.receive()
    assert scene.events == [scene.done] and not scene.active and not scene.queue and scene.process.done == ["join"]


def test_what_comes_after_the_end_does_not_undo_it() -> None:
    scene = Scene()
    for event in (scene.done, EPOCH):
        scene.theirs.send(event)
        scene.receive()
    assert scene.worker.ended


@pytest.mark.parametrize(("tries", "kind"), [(1, Warned), (2, Failed)])
def test_a_job_has_two_tries(tries: int, kind: type[Any]) -> None:
    scene = Scene(tries=tries)
    _bury(scene.ours, scene.active, scene.queue, 2, scene.events.append)
    (event,) = scene.events
    assert isinstance(event, kind) and scene.ours.closed and scene.process.done == ["join"]
    assert scene.queue.take() == (scene.job, 2) if tries == 1 else not scene.queue


def failed(scene: Scene, reason: str) -> Failed:
    return Failed(executors.failure_of(scene.job, reason, "why"))


@pytest.mark.parametrize(
    ("begun", "tries", "reason", "again"),
    [(2, 1, "error", True), (2, 1, "memory", True), (2, 1, "diverged", False), (1, 1, "error", False), (2, 2, "error", False)],
)
def test_a_trial_that_fails_where_others_were_done_gets_a_new_process(begun: int, tries: int, reason: str, again: bool) -> None:
    scene = Scene(tries=tries)
    scene.worker.begun = begun
    scene.theirs.send(failed(scene, reason))
    scene.receive()
    (event,) = scene.events
    assert isinstance(event, Warned if again else Failed) and scene.worker.ended and bool(scene.queue) == again
    if isinstance(event, Warned):
        assert event.key == scene.job.trial.key and "why, in a process that had done other trials" in event.text
        assert not scene.queue.suits(scene.job)  # no process that did others before is given it
        assert scene.queue.take() == (scene.job, 2)


@pytest.mark.parametrize("begun", [1, 2])
def test_an_interrupt_stores_only_failures_that_are_a_trials_own(monkeypatch: pytest.MonkeyPatch, begun: int) -> None:
    scene = Scene()
    scene.worker.begun = begun
    scene.theirs.send(failed(scene, "error"))

    def start(context: Any, active: dict[Connection, _Worker], job: Any, tries: int) -> None:
        active.update(scene.active)
        raise KeyboardInterrupt

    monkeypatch.setattr(executors, "_context", lambda jobs: None)
    monkeypatch.setattr(scene.parent, "_start", start)
    with pytest.raises(KeyboardInterrupt):
        scene.parent.run([scene.job], scene.events.append)
    assert len(scene.events) == (begun == 1)


def test_a_worker_that_is_dead_before_its_first_job_is_buried_like_others(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    started = SimpleNamespace(start=lambda: None, join=lambda: None, exitcode=-9)
    context: Any = SimpleNamespace(Pipe=lambda: (scene.ours, scene.theirs), Process=lambda **options: started, get_start_method=str)
    scene.parent._start(context, scene.active, scene.job, 1)  # its end of the pipe is closed: nobody holds another
    scene.receive()
    assert isinstance(scene.events[0], Warned) and scene.queue.take() == (scene.job, 2)


def test_where_the_server_of_workers_is_killed_meanwhile_another_one_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    pipes: list[Any] = []
    refusals = [EOFError(), ConnectionResetError()]

    def pipe() -> Any:
        pipes.append(multiprocessing.Pipe())
        return pipes[-1]

    def start() -> None:
        if refusals:
            raise refusals.pop()

    monkeypatch.setattr(executors, "PAUSE", 0.0)
    process = SimpleNamespace(start=start)
    context: Any = SimpleNamespace(Pipe=pipe, Process=lambda **options: process, get_start_method=str)
    ours, started = executors._new_process(context)
    assert started is process and len(pipes) == 3 and ours is pipes[2][0] and not ours.closed
    assert all(one.closed for one in (*pipes[0], *pipes[1], pipes[2][1]))


@pytest.mark.parametrize("error", [EOFError(), BlockingIOError(11, "no more processes")])
def test_a_process_that_cannot_be_started_is_said_in_words(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "PAUSE", 0.0)

    def refuse() -> None:
        raise error

    scene = Scene()
    process = SimpleNamespace(start=refuse)
    context: Any = SimpleNamespace(Pipe=multiprocessing.Pipe, Process=lambda **options: process, get_start_method=str)
    with pytest.raises(HarnessError, match="no worker process could be started") as caught:
        scene.parent._start(context, {}, scene.job, 1)
    assert type(error).__name__ in str(caught.value)


# ---- the end


def test_an_interrupt_stores_what_workers_ended_and_stops_reading_there() -> None:
    scene = Scene()
    for event in (EPOCH, scene.done, Ready()):
        scene.theirs.send(event)
    _drain(scene.active, scene.events.append, lambda event, worker: False)
    assert scene.events == [scene.done] and scene.ours.poll() and isinstance(scene.ours.recv(), Ready)
    ready = Scene(ended=True)
    ready.theirs.send(Ready())
    _drain(ready.active, ready.events.append, lambda event, worker: False)
    assert not ready.events
    dead = Scene()
    dead.theirs.close()
    _drain(dead.active, dead.events.append, lambda event, worker: False)
    assert not dead.events


def test_workers_are_dead_and_their_pipes_closed_when_a_run_is_over() -> None:
    scenes = [Scene() for _ in range(2)]
    _stop({scene.ours: scene.worker for scene in scenes})
    assert all(scene.process.done == ["kill", "join"] and scene.ours.closed for scene in scenes)


def test_a_listener_that_fails_leaves_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()

    def start(context: Any, active: dict[Connection, _Worker], job: Any, tries: int) -> None:
        active.update(scene.active)
        scene.theirs.send(scene.done)

    def full(event: Event) -> None:
        raise HarnessError("the disk is full", "")

    monkeypatch.setattr(executors, "_context", lambda jobs: None)
    monkeypatch.setattr(scene.parent, "_start", start)
    with pytest.raises(HarnessError, match="full"):
        scene.parent.run([scene.job], full)
    assert scene.process.done == ["kill", "join"] and scene.ours.closed


# ---- kinds of jobs, and the server


def test_a_process_serves_one_kind_of_job() -> None:
    """Anything that makes the processes of two jobs different from the start: class, method, data, where they lie, and the user's file."""
    one = job(trial(tiny_dataset()), NOWHERE, NOWHERE)
    identity = one.trial.identity

    class Other(Job):
        pass

    def of(**changes: Any) -> Job:
        return replace(one, trial=one.trial.model_copy(update={"identity": identity.model_copy(update=changes)}))

    others = [
        Other(one.trial, one.data_root, one.checkpoint, one.checkpoint_seconds, one.plugin),
        of(method="another"),
        of(dataset="another"),
        replace(one, data_root=Path("elsewhere")),
        replace(one, plugin=Path("elsewhere") / TOY.name),
    ]
    assert all(other.kind != one.kind for other in others)
    assert of(seed=2).kind == replace(one, checkpoint=Path("another")).kind == one.kind


@pytest.mark.skipif(sys.platform != "linux", reason="signal masks are read in a file of Linux")
def test_the_server_of_workers_does_not_hear_ctrl_c_while_it_imports() -> None:
    executors._context([])
    executors._start_server()
    server: Any = executors.forkserver._forkserver
    os.kill(server._forkserver_pid, signal.SIGINT)
    status = Path(f"/proc/{server._forkserver_pid}/status").read_text()
    blocked = int(status.split("SigBlk:")[1].split()[0], 16)
    assert blocked >> (signal.SIGINT - 1) & 1
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
