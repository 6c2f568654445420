"""What a trial may leave in its process: noticed, said, and without a way into the next trial's numbers."""

from __future__ import annotations

import os
import random
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from kit import TOY, job, stored, trial

from harness.data import store
from harness.experiments import code, memory, worker
from harness.experiments.condition import READINGS, Condition
from harness.experiments.events import Event, Failed, Finished, Listener, Warned
from harness.experiments.executors import Inline
from harness.experiments.worker import Job
from harness.training.contract import methods


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    stored(root)
    return root


def heard(one: Job) -> list[Event]:
    events: list[Event] = []
    Inline().run([one], events.append)
    return events


# ---- what is noticed


@contextmanager
def undone(do: Callable[[], Any], undo: Callable[[], Any]) -> Iterator[None]:
    do()
    try:
        yield
    finally:
        undo()


@contextmanager
def one_thread_more() -> Iterator[None]:
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    yield
    end.set()
    thread.join()


here, limit = os.getcwd(), sys.getrecursionlimit()
CHANGES: dict[str, Callable[[], Any]] = {
    "its threads": one_thread_more,
    "the current folder": lambda: undone(lambda: os.chdir("/"), lambda: os.chdir(here)),
    "torch's default dtype": lambda: undone(lambda: torch.set_default_dtype(torch.float64), lambda: torch.set_default_dtype(torch.float32)),
    "torch's default device": lambda: torch.device("meta"),
    "torch.is_grad_enabled": torch.no_grad,
    "torch.inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "deterministic algorithms": lambda: undone(
        lambda: torch.use_deterministic_algorithms(True), lambda: torch.use_deterministic_algorithms(False)
    ),
    "the precision of matrix products": lambda: undone(
        lambda: torch.set_float32_matmul_precision("medium"), lambda: torch.set_float32_matmul_precision("highest")
    ),
    "torch's detection of anomalies": lambda: undone(
        lambda: torch.autograd.set_detect_anomaly(True), lambda: torch.autograd.set_detect_anomaly(False)
    ),
    "numpy's treatment of floating-point errors": lambda: np.errstate(under="raise"),
    "the recursion limit": lambda: undone(lambda: sys.setrecursionlimit(limit + 1), lambda: sys.setrecursionlimit(limit)),
}


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("name", READINGS)
def test_every_setting_that_a_trial_may_leave_changed_is_named(name: str) -> None:
    before = Condition.now()
    with CHANGES[name]():
        changes = Condition.now().changes(before)
    # inference mode is a mode without gradients
    assert changes == (["torch.is_grad_enabled", name] if name == "torch.inference_mode" else [name])
    assert Condition.now() == before


def test_a_thread_that_has_ended_is_no_change() -> None:
    with one_thread_more():
        before = Condition.now()
    assert not Condition.now().changes(before) and before.changes(Condition.now()) == ["its threads"]


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    made: Any = ModuleType("left_behind")
    source = (
        "import numpy as np, random, threading\n"
        "seen, cache, lock, rng, own = [], {}, threading.Lock(), np.random.default_rng(0), random.Random(0)\n"
        "class Own:\n    pass\nkept = Own()\n"
        "class Holder:\n    rows = []\n    count = 0\n    odd = [lambda: 0]\n"
    )
    monkeypatch.setitem(sys.modules, "left_behind", made)
    exec(source, vars(made))
    return made


LEFT: dict[str, Callable[[Any], Any]] = {
    "seen": lambda module: module.seen.append(1),
    "cache": lambda module: module.cache.update(a=torch.ones(2)),
    "rng": lambda module: module.rng.random(),
    "own": lambda module: module.own.random(),
    "kept": lambda module: setattr(module.kept, "value", 1),
    "Holder.rows": lambda module: module.Holder.rows.append(2),
    "Holder.count": lambda module: setattr(module.Holder, "count", 1),
    "Holder.odd": lambda module: module.Holder.odd.append(lambda: 1),  # of what cannot be pickled, the number
    "Holder.new": lambda module: setattr(module.Holder, "new", 0),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_a_module_and_its_classes_remember_is_named(module: Any, name: str) -> None:
    before = Condition.now("left_behind")
    assert Condition.now("left_behind") == before
    LEFT[name](module)
    assert Condition.now("left_behind").changes(before) == [name]


def test_imported_classes_and_modules_that_are_not_there_hold_nothing(module: Any) -> None:
    module.Imported = type("Imported", (), {"__module__": "elsewhere", "rows": []})
    before = Condition.now("left_behind")
    module.Imported.rows.append(1)
    assert Condition.now("left_behind") == before
    assert Condition.now("no_such_module") == Condition.now()


# ---- what is said inline, where there is no other process for the next trial


def test_a_trial_that_leaves_things_behind_says_so_before_it_ends(root: Path, tmp_path: Path) -> None:
    class Leaving(Job):
        def run(self, report: Listener) -> Any:
            torch.set_default_dtype(torch.float64)
            return super().run(report)

    plain = job(trial(store.load("mosi@tiny", root), training__max_epochs=1), root, tmp_path)
    assert not [event for event in heard(plain) if isinstance(event, Warned)]
    try:
        events = heard(Leaving(plain.trial, root, tmp_path / "none.pt", 60.0, TOY))
    finally:
        torch.set_default_dtype(torch.float32)
    said = [event.text for event in events if isinstance(event, Warned)]
    assert len(said) == 1 and said[0].startswith("the trial changed torch's default dtype; later trials in this process")
    assert isinstance(events[-1], Finished | Failed) and isinstance(events[-2], Warned)


# ---- what has no way into the next trial


def test_a_method_that_exits_is_a_failed_trial(root: Path, tmp_path: Path) -> None:
    class Leaving(Job):
        def run(self, report: Listener) -> Any:
            raise SystemExit("enough")

    plain = job(trial(store.load("mosi@tiny", root)), root, tmp_path)
    (event,) = heard(Leaving(plain.trial, root, tmp_path / "none.pt", 60.0, TOY))
    assert isinstance(event, Failed) and event.failure.message == "SystemExit: enough" and event.failure.reason == "error"


def test_numbers_from_the_generators_of_python_and_numpy_depend_on_the_seed_alone(root: Path, tmp_path: Path) -> None:
    drawn = []

    class Drawing(Job):
        def run(self, report: Listener) -> Any:
            drawn.append((random.random(), float(np.random.rand())))
            raise SystemExit

    dataset = store.load("mosi@tiny", root)
    for seed in (1, 2, 1):
        heard(Drawing(trial(dataset, seed=seed), root, tmp_path / "none.pt", 60.0, TOY))
    assert drawn[0] == drawn[2] and drawn[0][0] != drawn[1][0] and drawn[0][1] != drawn[1][1]


def test_what_a_trial_writes_into_the_data_is_gone_for_the_next(root: Path) -> None:
    one = worker.opened("mosi@tiny", root)
    values = one.features["audio"].values
    before = values.clone()
    values[:3] += 1
    other = worker.opened("mosi@tiny", root)
    assert other is not one and torch.equal(other.features["audio"].values, before)
    assert worker.opened("mosi@tiny", root) is other


def test_a_data_sets_stamp_changes_with_any_file(tmp_path: Path) -> None:
    stored(tmp_path)
    folder = tmp_path / "mosi@tiny"
    card = folder / store.CARD

    def stamp() -> Any:
        return store.stamp("mosi@tiny", tmp_path)

    first, at = stamp(), card.stat()
    assert stamp() == first and {entry[0] for entry in first} == {path.name for path in folder.iterdir()}
    content = card.read_text()
    card.write_text(content.replace("Tiny", "Tinz"))  # as long as it was
    os.utime(card, ns=(at.st_atime_ns, at.st_mtime_ns + 1))
    second = stamp()
    card.write_text(f"{content} ")
    os.utime(card, ns=(at.st_atime_ns, at.st_mtime_ns + 1))  # another length, at the same time
    third = stamp()
    (tmp_path / "copy").write_text(f"{content} ")
    os.utime(tmp_path / "copy", ns=(at.st_atime_ns, at.st_mtime_ns + 1))
    (tmp_path / "copy").replace(card)  # another file of that length and time
    fourth = stamp()
    card.unlink()
    assert len({first, second, third, fourth, stamp()}) == 5
    assert store.stamp("mosei@tiny", tmp_path) == ()


def test_a_mean_of_weights_is_what_is_diagnosed(root: Path, tmp_path: Path) -> None:
    plain = job(trial(store.load("mosi@tiny", root), training__max_epochs=3, training__average=0.9), root, tmp_path)
    (ending,) = [event for event in heard(replace(plain, diagnose=True)) if isinstance(event, Finished)]
    assert ending.diagnosis is not None and len(ending.diagnosis.epochs) == 3


def test_a_data_set_that_was_imported_anew_is_not_what_the_trial_is_of(tmp_path: Path) -> None:
    planned = job(trial(stored(tmp_path)), tmp_path, tmp_path)
    stored(tmp_path, seed=5)
    (event,) = heard(planned)
    assert isinstance(event, Failed) and "mosi@tiny was imported anew while the run went on" in event.failure.message


def test_a_method_file_that_was_changed_is_not_what_the_trial_is_of(root: Path, tmp_path: Path) -> None:
    planned = job(trial(store.load("mosi@tiny", root), training__max_epochs=1), root, tmp_path)
    module = methods["toy"].__module__
    assert code.of_file(TOY, module) == planned.trial.identity.code[module]
    changed, noted = tmp_path / TOY.name, tmp_path / "noted" / TOY.name
    changed.write_text(TOY.read_text().replace("torch.tanh", "torch.sin"))
    noted.parent.mkdir()
    noted.write_text(f"{TOY.read_text()}# a remark\n")
    endings = [heard(Job(planned.trial, root, tmp_path / "none.pt", 60.0, place))[-1] for place in (changed, noted)]
    assert isinstance(endings[0], Failed) and endings[0].failure.message.startswith(f"{changed} was changed while the run went on")
    assert isinstance(endings[1], Finished)
    changed.write_text("def (")
    assert code.of_file(changed, module) == code.of_file(tmp_path / "none.py", module) == ""


@pytest.mark.parametrize("strict", [False, True])
def test_kernels_are_chosen_as_before_when_a_trial_is_over(monkeypatch: pytest.MonkeyPatch, strict: bool) -> None:
    """On a GPU every trial asks for deterministic kernels; left so, no process would be as it was."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with undone(lambda: torch.use_deterministic_algorithms(strict), lambda: torch.use_deterministic_algorithms(False)):
        before, threads = Condition.now(), torch.get_num_threads()
        with worker._arithmetic():
            assert torch.are_deterministic_algorithms_enabled() and torch.get_num_threads() == 1
        assert Condition.now() == before and torch.get_num_threads() == threads


def test_a_peak_that_cannot_be_forgotten_is_said_to_be_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "OWN", tmp_path / "absent")
    assert not memory.forget_peak() and memory.peak_mb() > 10
    (tmp_path / "there").mkdir()
    monkeypatch.setattr(memory, "OWN", tmp_path / "there")
    assert memory.forget_peak() and (tmp_path / "there" / "clear_refs").read_text() == "5"


def test_a_compiled_trial_has_its_process_alone(root: Path, tmp_path: Path) -> None:
    dataset = store.load("mosi@tiny", root)
    lasting = [job(trial(dataset, training__compile=compiled), root, tmp_path).lasting for compiled in (False, True)]
    assert lasting == [True, False]
