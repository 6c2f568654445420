"""Workers that do one trial after another: which process does which, and when it is replaced."""

from __future__ import annotations

import gc
import io
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from kit import TOY, job, stored, tiny_dataset, trial

from harness.data import store
from harness.experiments import executors, memory, serving, worker
from harness.experiments.events import Evaluated, Event, Failed, Finished, Listener, Warned
from harness.experiments.executors import Inline, Processes
from harness.experiments.memory import forget_peak, peak_mb, resident_mb
from harness.experiments.serving import Ready
from harness.experiments.worker import Job
from harness.training.contract import methods

NOWHERE = Path("nowhere")
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="peaks are reset by a file of Linux")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    stored(root)
    stored(root, name="mosei@tiny", seed=1)
    return root


@dataclass(frozen=True)
class Telling(Job):
    """A job that tells its process, and then does to it what ``deed`` says."""

    deed: str = ""

    def run(self, report: Listener) -> Any:
        report(Warned(self.trial.key, str(os.getpid())))
        done = super().run(report)
        DEEDS[self.deed]()
        return done


@dataclass(frozen=True)
class Alone(Telling):
    @property
    def lasting(self) -> bool:
        return False


kept: list[Any] = []
DEEDS: dict[str, Callable[[], Any]] = {
    "": lambda: None,
    "dtype": lambda: torch.set_default_dtype(torch.float64),
    "folder": lambda: os.chdir("/"),
    "gradients": lambda: torch.set_grad_enabled(False),
    "deterministic": lambda: torch.use_deterministic_algorithms(True),
    "state": lambda: setattr(methods["toy"], "seen", [1]),
    "exit": lambda: sys.exit(3),
    "memory": lambda: kept.append(bytearray(b"x") * (400 << 20)),
    "garbage": lambda: [[]].append(bytearray(b"x") * (1 << 20)),
    "sleep": lambda: time.sleep(0.2),
}


def jobs(
    root: Path, tmp_path: Path, seeds: Sequence[int], kind: type[Telling] = Telling, name: str = "mosi@tiny", **options: Any
) -> list[Job]:
    settings = {key: value for key, value in options.items() if key != "deed"}
    trials = [trial(store.load(name, root), seed=seed, **settings) for seed in seeds]
    return [kind(one, root, tmp_path / f"{one.key}.pt", 60.0, TOY, deed=options.get("deed", "")) for one in trials]


def done(these: Sequence[Job], executor: Any) -> tuple[dict[str, str], list[Event]]:
    """The last process of each trial, and all events."""
    events: list[Event] = []
    executor.run(these, events.append)
    processes = {event.key: event.text for event in events if isinstance(event, Warned) and event.text.isdigit()}
    return processes, events


def of(events: Sequence[Event], kind: type[Any]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def test_one_process_does_the_trials_of_a_method_and_gives_the_records_that_are_made_here(root: Path, tmp_path: Path) -> None:
    these = jobs(root, tmp_path, range(5))
    processes, events = done(these, Processes(1))
    assert len(processes) == 5 and len(set(processes.values())) == 1 and str(os.getpid()) not in processes.values()
    here = of(done(these, Inline())[1], Finished)
    assert [event.record for event in of(events, Finished)] == [event.record for event in here]


def test_two_workers_are_two_processes(root: Path, tmp_path: Path) -> None:
    processes, events = done(jobs(root, tmp_path, range(6), deed="sleep"), Processes(2))
    assert len(of(events, Finished)) == 6 and len(set(processes.values())) == 2


def test_another_data_set_gets_another_process(root: Path, tmp_path: Path) -> None:
    these = jobs(root, tmp_path, (1, 2)) + jobs(root, tmp_path, (1, 2), name="mosei@tiny")
    processes, events = done(these, Processes(1))
    mosi, mosei = ({processes[job.trial.key] for job in part} for part in (these[:2], these[2:]))
    assert len(of(events, Finished)) == 4 and len(mosi) == len(mosei) == 1 and mosi != mosei


def test_a_job_that_is_not_lasting_has_its_process_alone(root: Path, tmp_path: Path) -> None:
    assert len(set(done(jobs(root, tmp_path, range(3), Alone), Processes(1))[0].values())) == 3


@pytest.mark.parametrize("deed", ["dtype", "folder", "gradients", "deterministic", "state"])
def test_a_process_that_is_not_as_it_was_does_no_other_trial(root: Path, tmp_path: Path, deed: str) -> None:
    processes, events = done(jobs(root, tmp_path, (1, 2), deed=deed), Processes(1))
    assert len(of(events, Finished)) == 2 and len(set(processes.values())) == 2


@LINUX
def test_a_process_that_keeps_what_trials_leave_does_not_grow_on(root: Path, tmp_path: Path) -> None:
    """The first trial says what is usual; the second holds 400 MB more."""
    these = jobs(root, tmp_path, (1,)) + jobs(root, tmp_path, (2, 3), deed="memory") + jobs(root, tmp_path, (4,))
    processes, events = done(these, Processes(1))
    one, two, three, four = (processes[job.trial.key] for job in these)
    assert len(of(events, Finished)) == 4 and one == two != three and three == four
    few = jobs(root, tmp_path, range(4), deed="garbage")
    assert len(set(done(few, Processes(1))[0].values())) == 1


def test_a_method_that_exits_has_failed_and_its_process_does_no_other_trial(root: Path, tmp_path: Path) -> None:
    these = jobs(root, tmp_path, (1,), deed="exit") + jobs(root, tmp_path, (2,))
    processes, events = done(these, Processes(1))
    assert [(event.key, event.failure.message) for event in of(events, Failed)] == [(these[0].trial.key, "SystemExit: 3")]
    assert len(set(processes.values())) == 2 and not [event for event in of(events, Warned) if "died" in event.text]


def test_a_process_in_which_a_trial_failed_does_no_other(root: Path, tmp_path: Path) -> None:
    these = jobs(root, tmp_path, (1,)) + jobs(root, tmp_path, (2,), trouble="nan") + jobs(root, tmp_path, (3,))
    processes, events = done(these, Processes(1))
    one, two, three = (processes[job.trial.key] for job in these)
    assert one == two != three and [event.key for event in of(events, Failed)] == [these[1].trial.key]


def test_a_trial_that_fails_after_others_fails_in_a_process_of_its_own(root: Path, tmp_path: Path) -> None:
    these = jobs(root, tmp_path, (1,)) + jobs(root, tmp_path, (2,), trouble="crash") + jobs(root, tmp_path, (3,))
    processes, events = done(these, Processes(1))
    assert len(set(processes.values())) == 3 and [event.key for event in of(events, Failed)] == [these[1].trial.key]
    tried = {event.text for event in of(events, Warned) if event.key == these[1].trial.key and event.text.isdigit()}
    assert len(tried) == 2 and processes[these[0].trial.key] in tried


def test_a_trial_that_kills_its_process_is_tried_again_and_the_others_keep_their_records(root: Path, tmp_path: Path) -> None:
    flag = tmp_path / "died"
    these = jobs(root, tmp_path, (1,)) + jobs(root, tmp_path, (2,), trouble=f"die_once:{flag}") + jobs(root, tmp_path, (3,))
    processes, events = done(these, Processes(1))
    assert [event.key for event in of(events, Finished)] == [these[0].trial.key, these[2].trial.key, these[1].trial.key]
    assert processes[these[0].trial.key] != processes[these[1].trial.key] and flag.exists()
    assert sum("the worker died" in event.text for event in of(events, Warned)) == 1


def test_the_time_limit_is_each_trials_own(root: Path, tmp_path: Path) -> None:
    """Four trials of 2.4 s each pass a limit of 9 s together; one that hangs does not, and is not waited for."""
    slow = jobs(root, tmp_path, range(4), pause=0.1)  # 4 batches in 6 epochs
    events = done(slow, Processes(1, timeout=9.0))[1]
    assert len(of(events, Finished)) == 4
    began = time.monotonic()
    hung = jobs(root, tmp_path, (1,)) + jobs(root, tmp_path, (2,), trouble="hang") + jobs(root, tmp_path, (3,))
    events = done(hung, Processes(1, timeout=4.0))[1]
    assert [event.failure.reason for event in of(events, Failed)] == ["timeout"] and len(of(events, Finished)) == 2
    assert time.monotonic() - began < 60


@dataclass(frozen=True)
class Dying(Telling):
    """Its process is killed after it has said that it is done."""

    def run(self, report: Listener) -> Any:
        done = super().run(report)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        return done


def test_a_process_that_dies_between_two_trials_loses_neither(root: Path, tmp_path: Path) -> None:
    """Its alarm rings while it waits, or early in the trial after; a trial has two tries, which may both be hit."""
    these = jobs(root, tmp_path, range(4), Dying, pause=0.01)
    events = done(these, Processes(1, tries=len(these) + 1))[1]
    assert {event.key for event in of(events, Finished)} == {job.trial.key for job in these} and not of(events, Failed)


@pytest.mark.skipif("forkserver" not in multiprocessing.get_all_start_methods(), reason="workers are forked from a server only on Unix")
def test_a_run_goes_on_whose_server_of_workers_has_just_been_killed(root: Path, tmp_path: Path) -> None:
    """It is stopped first, and dies while the worker is being started: until then it is there and does not answer."""
    these = jobs(root, tmp_path, (1, 2))
    executors._context(these)
    executors._start_server()
    server: Any = executors.forkserver._forkserver
    os.kill(server._forkserver_pid, signal.SIGSTOP)
    threading.Timer(1.0, os.kill, (server._forkserver_pid, signal.SIGKILL)).start()
    events = done(these, Processes(1))[1]
    assert len(of(events, Finished)) == 2 and not of(events, Failed)


# ---- what a worker remembers and counts


def test_opened_data_are_remembered_until_their_files_change(tmp_path: Path) -> None:
    stored(tmp_path)
    one = worker.opened("mosi@tiny", tmp_path)
    assert worker.opened("mosi@tiny", tmp_path) is one
    stored(tmp_path, seed=3)
    other = worker.opened("mosi@tiny", tmp_path)
    assert other is not one and other.card.fingerprint == store.load("mosi@tiny", tmp_path).card.fingerprint != one.card.fingerprint
    card = tmp_path / "mosi@tiny" / store.CARD
    content = json.loads(card.read_text())
    card.write_text(json.dumps(content | {"title": "another"}))
    assert worker.opened("mosi@tiny", tmp_path).card.title == "another"


@LINUX
def test_a_peak_is_counted_from_when_it_is_forgotten() -> None:
    gc.collect()
    block = bytearray(b"x") * (300 << 20)
    del block
    high = peak_mb()
    forget_peak()
    low = peak_mb()
    assert high - low > 250 and abs(low - resident_mb()) < 30
    block = bytearray(b"x") * (100 << 20)
    del block
    assert 80 < peak_mb() - low < 150


@LINUX
def test_the_peak_of_a_trial_is_its_own(root: Path, tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Large(Job):
        def run(self, report: Listener) -> Any:
            block = bytearray(b"x") * (300 << 20)
            del block
            return super().run(report)

    plain = jobs(root, tmp_path, (1,))[0]
    peaks = []
    for kind in (Large, Job, Large):
        events = done([kind(plain.trial, root, tmp_path / "none.pt", 60.0, TOY)], Inline())[1]
        peaks.append(of(events, Finished)[0].runtime.peak_memory_mb)
    assert max(peaks) - min(peaks) < 50


# ---- the worker's end of the pipe


class Exited(BaseException):
    pass


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    codes: list[int] = []

    def leave(code: int) -> None:
        codes.append(code)
        raise Exited

    monkeypatch.setattr(serving.os, "_exit", leave)
    return codes


@pytest.mark.parametrize("garbage", [b"", b"this is no pickle"])
def test_a_worker_ends_when_the_parent_does_or_sends_what_it_cannot_read(
    exits: list[int], garbage: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = multiprocessing.Pipe()
    jobs: SimpleQueue[Any] = SimpleQueue()
    ours.send(None)
    if garbage:
        ours.send_bytes(garbage)
    ours.close()
    with pytest.raises(Exited):
        serving._receive(theirs, jobs)
    assert exits == [1] and jobs.get() is None and jobs.empty()
    assert ("UnpicklingError" in capsys.readouterr().err) == bool(garbage)


def test_a_worker_whose_parent_is_gone_ends_without_a_word(exits: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    ours, theirs = multiprocessing.Pipe()
    serving._send(theirs, Ready())
    assert ours.recv() == Ready() and not exits
    ours.close()
    with pytest.raises(Exited):
        serving._send(theirs, Ready())
    assert exits == [1] and not capsys.readouterr().err


def test_streams_that_a_method_closed_do_not_trouble_its_worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with open(tmp_path / "out", "w") as closed:
        pass
    with open(tmp_path / "err", "w") as err:
        err.write("a warning")
        monkeypatch.setattr(sys, "stdout", closed)
        monkeypatch.setattr(sys, "stderr", err)
        serving._flush()
        assert (tmp_path / "err").read_text() == "a warning"
        monkeypatch.setattr(sys, "stdout", None)
        serving._flush()


@pytest.fixture
def serving_here(monkeypatch: pytest.MonkeyPatch, exits: list[int]) -> Iterator[list[Any]]:
    """``serve`` in this process, with trials that only print; what each did to the process is in the list."""
    deeds: list[Any] = []

    def attempt(one: Any, report: Any) -> Event:
        print(f"trial {one.trial.identity.seed}")
        (deeds.pop(0) if deeds else lambda: None)()
        event = Evaluated(one.trial.key, (), False, 1.0)
        report(event)
        return event

    for name in ("keep_freed_memory", "gc"):
        monkeypatch.setattr(serving, name, SimpleNamespace(freeze=lambda: None, collect=lambda: None) if name == "gc" else lambda: None)
    monkeypatch.setattr(serving, "attempt", attempt)
    monkeypatch.setattr(serving, "_receive", lambda connection, jobs: receive(connection, jobs))
    before = signal.getsignal(signal.SIGINT)
    yield deeds
    signal.signal(signal.SIGINT, before)


def receive(connection: Connection, jobs: SimpleQueue[Any]) -> None:
    with suppress(EOFError):
        while True:
            jobs.put(connection.recv())


def served(count: int) -> list[str]:
    """Kinds of all messages of a worker that was sent so many jobs, then that there are none; it exits well."""
    ours, theirs = multiprocessing.Pipe()
    for seed in range(count):
        ours.send(job(trial(tiny_dataset(), seed=seed), NOWHERE, NOWHERE))
    ours.send(None)
    with pytest.raises(Exited):
        serving.serve(theirs)
    found = []
    while ours.poll():
        found.append(type(ours.recv()).__name__)
    return found


def test_a_worker_says_after_each_trial_that_it_is_ready_and_shows_what_was_printed(
    serving_here: list[Any], exits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(write=out.write, flush=lambda: shown.append(out.getvalue())))
    serving_here.append(lambda: signal.raise_signal(signal.SIGINT))  # which a worker does not heed
    assert served(2) == ["Evaluated", "Ready"] * 2 and exits == [0]
    assert shown == ["trial 0\n", "trial 0\ntrial 1\n"]


def test_a_worker_that_cannot_forget_a_peak_does_one_trial(serving_here: list[Any], exits: list[int], monkeypatch: Any) -> None:
    monkeypatch.setattr(memory, "OWN", NOWHERE)
    assert served(2) == ["Evaluated"] and exits == [0]


def test_what_the_first_trial_needs_is_the_measure_of_the_others(serving_here: list[Any], monkeypatch: Any) -> None:
    """It may hold a quarter more and 64 MB."""
    held = iter([100.0, 100.0, 188.0, 190.0, 0.0])
    monkeypatch.setattr(serving, "resident_mb", lambda: next(held))
    assert served(4) == ["Evaluated", "Ready", "Evaluated", "Ready", "Evaluated"]
