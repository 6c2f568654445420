"""Faults: what is damaged, full, hung, killed or interrupted costs time at most, and is named."""

from __future__ import annotations

import ast
import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from kit import TOY, call, job, stored, trial

import harness
from harness.errors import ConfigError, HarnessError, Stopped
from harness.experiments import runner
from harness.experiments.events import Event, Failed, Finished, Started, Warned
from harness.experiments.executors import Executor, Inline, Processes
from harness.experiments.interrupts import undisturbed
from harness.experiments.runner import Options, Outcome, outstanding
from harness.experiments.tracking import Tracker, _client, _published, publish_pending
from harness.experiments.worker import is_memory_short, run_trial
from harness.experiments.workspace import Reserve, Workspace
from harness.reporting.progress import Clock
from harness.training import checkpoints
from harness.training.checkpoints import Checkpoint


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    stored(root)
    return root


@pytest.fixture(scope="module")
def dataset(data_root: Path) -> Any:
    from harness.data import store

    return store.load("mosi@tiny", data_root)


class NoTracker(Tracker):
    """Mirrors nothing: these tests are about records."""

    def publish(self, record: Any, runtime: Any) -> None:
        pass

    def lacking(self, keys: Any) -> list[str]:
        return []


def run(
    workspace: Workspace, data_root: Path, trials: list[Any], executor: Executor | None = None, listen: Any = None
) -> tuple[Outcome, list[Event]]:
    events: list[Event] = []

    def hear(event: Event) -> None:
        events.append(event)
        if listen:
            listen(event)

    options = Options(data_root, 0.0, plugin=TOY)
    return runner.run(trials, workspace, executor or Inline(), NoTracker(workspace, "test"), options, hear), events


def warnings(events: list[Event]) -> str:
    return "\n".join(event.text for event in events if isinstance(event, Warned))


# ---- damage


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[: len(raw) // 2], lambda raw: raw.replace(b'"parameters":', b'"parameters":1'), lambda raw: b""]
)
def test_a_damaged_record_is_set_aside_and_its_trial_run_again(data_root: Path, dataset: Any, tmp_path: Path, damage: Any) -> None:
    workspace, one = Workspace(tmp_path), trial(dataset)
    run(workspace, data_root, [one])
    path = workspace.store.path(one.key)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert outstanding([one], workspace.store, retry_failed=False) == [one]
    outcome, events = run(Workspace(tmp_path), data_root, [one])
    assert outcome.finished == [one.key] and not outcome.reused and not outcome.failed
    assert path.read_bytes() == whole
    aside = path.with_name("record.json.damaged")
    assert aside.read_bytes() == damage(whole) and str(aside) in warnings(events)
    assert not run(Workspace(tmp_path), data_root, [one])[1]


def test_one_damaged_record_does_not_hide_the_others(data_root: Path, dataset: Any, tmp_path: Path) -> None:
    workspace, trials = Workspace(tmp_path), [trial(dataset, seed=seed) for seed in (1, 2)]
    run(workspace, data_root, trials)
    workspace.store.path(trials[0].key).write_bytes(b"{}")
    assert [record.key for record in workspace.store.records()] == [trials[1].key]


def a_state() -> dict[str, Any]:
    return {"key": "k", "run": {"weights": torch.arange(500, dtype=torch.float32)}, "seconds": [1.0]}


def test_a_checkpoint_with_one_changed_bit_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "one.pt"
    Checkpoint(path).write(a_state())
    raw = path.read_bytes()
    state = Checkpoint(path).read()
    assert state and torch.equal(state["run"]["weights"], a_state()["run"]["weights"])
    for position in range(0, len(raw), 97):
        changed = raw[:position] + bytes([raw[position] ^ 4]) + raw[position + 1 :]
        path.write_bytes(changed)
        checkpoint = Checkpoint(path)
        assert checkpoint.read() is None and "checksum" in checkpoint.fault, position
        assert not path.exists() and path.with_name("one.pt.damaged").read_bytes() == changed
    absent = Checkpoint(path)
    assert absent.read() is None and not absent.fault


def test_a_checkpoint_is_due_so_long_after_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(checkpoints, "time", SimpleNamespace(monotonic=lambda: now[0]))
    checkpoint = Checkpoint(tmp_path / "one.pt", every=60.0)

    def due(at: float) -> bool:
        now[0] = at
        return checkpoint.due()

    assert [due(at) for at in (100.0, 159.0, 160.0)] == [False, False, True]
    checkpoint.write(a_state())
    assert [due(at) for at in (161.0, 219.0, 220.0)] == [False, False, True]


def test_a_damaged_checkpoint_is_reported_and_the_result_the_same(data_root: Path, dataset: Any, tmp_path: Path) -> None:
    one = job(trial(dataset), data_root, tmp_path)
    whole = run_trial(one, lambda event: None)
    raw = bytearray(one.checkpoint.read_bytes())
    raw[len(raw) // 2] ^= 1
    one.checkpoint.write_bytes(raw)
    events: list[Event] = []
    again = run_trial(one, events.append)
    assert again.record == whole.record and again.runtime.resumed_at == 0
    assert "checkpoint is damaged" in warnings(events) and one.checkpoint.with_name(f"{one.checkpoint.name}.damaged").read_bytes() == raw


# ---- memory


@pytest.mark.parametrize("trouble", ["memory", "limit"])
def test_a_trial_without_memory_fails_by_that_name_and_the_others_go_on(
    data_root: Path, dataset: Any, tmp_path: Path, trouble: str
) -> None:
    workspace, bad, good = Workspace(tmp_path), trial(dataset, trouble=trouble), trial(dataset)
    outcome, _ = run(workspace, data_root, [bad, good], Processes(1))
    failure = workspace.store.failure(bad.key)
    assert outcome.finished == [good.key] and outcome.failed == [bad.key]
    assert failure and failure.reason == "memory" and "allocate" in failure.message


def test_only_a_failed_allocation_is_a_lack_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert is_memory_short(caught.value) and is_memory_short(MemoryError()) and is_memory_short(torch.OutOfMemoryError("out of memory"))
    assert not is_memory_short(RuntimeError("shape mismatch")) and not is_memory_short(ValueError("out of memory"))


# ---- processes


def test_a_method_that_leaves_a_thread_behind_does_not_keep_its_worker(data_root: Path, dataset: Any, tmp_path: Path) -> None:
    trials = [trial(dataset, seed=seed, trouble="linger") for seed in (1, 2)]
    outcome, _ = run(Workspace(tmp_path), data_root, trials, Processes(1, timeout=120))
    assert sorted(outcome.finished) == sorted(one.key for one in trials)


def test_what_workers_finished_before_an_interrupt_is_stored(data_root: Path, dataset: Any, tmp_path: Path) -> None:
    """Ctrl-C while one record is being written and another one waits in its worker's pipe."""
    workspace, trials = Workspace(tmp_path), [trial(dataset, seed=seed) for seed in (1, 2, 3)]
    flags = {"done": False}

    def interrupt(event: Event) -> None:
        if isinstance(event, Finished) and not flags["done"]:
            flags["done"] = True
            signal.raise_signal(signal.SIGINT)
            wait_for_the_other_worker(event.key)

    def wait_for_the_other_worker(key: str) -> None:
        started = {one.key for one in trials[:2]} - {key}
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not all((workspace.checkpoint(other)).exists() for other in started):
            time.sleep(0.05)
        time.sleep(3)

    with pytest.raises(Stopped) as stopped:
        run(workspace, data_root, trials, Processes(2), interrupt)
    assert stopped.value.exit_code == 130
    assert sorted(workspace.store.keys()) == sorted(one.key for one in trials[:2])
    outcome, _ = run(workspace, data_root, trials)
    assert outcome.finished == [trials[2].key]


def test_an_interrupt_waits_for_the_write(tmp_path: Path) -> None:
    written = []

    def write() -> None:
        signal.raise_signal(signal.SIGINT)
        written.append("whole")

    with Reserve(tmp_path / "reserve") as reserve, pytest.raises(KeyboardInterrupt):
        reserve.protect(write, "a record")
    assert written == ["whole"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_nested_blocks_wait_for_the_outer_one() -> None:
    steps = []
    with pytest.raises(KeyboardInterrupt), undisturbed():
        with undisturbed():
            signal.raise_signal(signal.SIGINT)
            steps.append("inner")
        steps.append("outer")
    assert steps == ["inner", "outer"]


def test_other_threads_need_no_handler() -> None:
    steps = []

    def work() -> None:
        with undisturbed():
            steps.append(threading.current_thread() is threading.main_thread())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert steps == [False]


def test_a_time_limit_needs_worker_processes(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.commands.executing import Running, Where

    with pytest.raises(ConfigError, match="inline"):
        Running(timeout=1.0, where=Where("inline")).executor()


# ---- the results folder


def test_the_holder_of_a_results_folder_is_named(tmp_path: Path) -> None:
    with (
        Workspace(tmp_path).writing(),
        pytest.raises(HarnessError, match=rf"pid {os.getpid()} on .* since 20"),
        Workspace(tmp_path).writing(),
    ):
        pass
    with Workspace(tmp_path).writing():  # the name of the last holder is no lock
        assert (tmp_path / ".lock").read_text().count("\n") == 1


def test_a_record_that_another_process_just_finished_is_not_run_again(data_root: Path, dataset: Any, tmp_path: Path) -> None:
    one = trial(dataset)
    late = Workspace(tmp_path)
    assert outstanding([one], late.store, retry_failed=False) == [one]
    run(Workspace(tmp_path), data_root, [one])
    assert run(late, data_root, [one])[0].reused == [one.key]


def test_a_read_only_results_folder_is_named_before_anything_runs(
    data_root: Path, read_only: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MER_DATA", str(data_root))
    monkeypatch.setenv("MER_RESULTS", str(read_only))
    began: list[Event] = []
    monkeypatch.setattr(Inline, "run", lambda self, jobs, on_event: began.append(Started("", 0, 0)))
    code, _, err = call(capsys, "run", "majority", "mosi@tiny", "--inline")
    assert code == 2 and not began and str(read_only) in err and "cannot be written" in err and "MER_RESULTS" in err


# ---- clocks


def test_a_clock_that_runs_backwards_changes_nothing(
    data_root: Path, dataset: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = [trial(dataset, seed=seed) for seed in (1, 2)]
    run(Workspace(tmp_path / "steady"), data_root, trials)
    real, calls = time.time, [0]

    def backwards() -> float:
        calls[0] += 1
        return real() - 3600.0 * calls[0]

    monkeypatch.setattr(time, "time", backwards)
    time.time()
    outcome, events = run(Workspace(tmp_path / "jumping"), data_root, trials)
    assert outcome.finished == [one.key for one in trials]
    for one in trials:
        runtime = Workspace(tmp_path / "jumping").store.runtime(one.key)
        assert runtime and 0 < runtime.seconds < 600 and all(0 <= seconds < 600 for seconds in runtime.epoch_seconds)
        assert (
            Workspace(tmp_path / "jumping").store.path(one.key).read_bytes()
            == Workspace(tmp_path / "steady").store.path(one.key).read_bytes()
        )


def test_no_duration_is_taken_from_the_wall_clock() -> None:
    """``time.time`` and ``datetime.now`` may name a moment for people, in these functions, and nowhere else."""
    allowed = {("worker.py", "_runtime"), ("workspace.py", "_sign")}
    found = set()
    for path in Path(harness.__file__).parent.rglob("*.py"):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef):
                calls = {ast.unparse(node.func) for node in ast.walk(function) if isinstance(node, ast.Call)}
                if calls & {"time.time", "time", "datetime.now", "datetime.utcnow", "datetime.today"}:
                    found.add((path.name, function.name))
    assert found == allowed


def test_the_estimate_is_never_negative() -> None:
    clock = Clock({"a": "m", "b": "m"}, 2)
    clock.saw_end("a", 10.0)
    assert clock.to_go([], {"b": 1e9}) == 0.0


# ---- MLflow's store


@pytest.mark.filterwarnings("default")
def test_a_database_that_was_cut_off_half_made_is_made_anew(
    data_root: Path, dataset: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a run that was cut off is published again whole, unless it is another folder's."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    workspace, one = Workspace(tmp_path), trial(dataset)
    run(workspace, data_root, [one])
    (tmp_path / ".mlflow.db.new").write_bytes(b"SQLite format 3\0 and no more")
    tracker = Tracker(workspace, "test")
    tracker.publish(workspace.store.get(one.key), workspace.store.runtime(one.key))
    assert not tracker.problem and (tmp_path / "mlflow.db").exists() and not list(tmp_path.glob(".mlflow.db.new*"))

    client = _client(workspace.tracking_uri)
    experiment = client.get_experiment_by_name("test").experiment_id
    ours, theirs = (
        client.create_run(experiment, tags={"trial_key": "k", "results": name}).info.run_id for name in (workspace.name, "other")
    )
    assert list(_published(client, experiment, workspace)) == [one.key]
    assert client.get_run(ours).info.lifecycle_stage == "deleted" and client.get_run(theirs).info.lifecycle_stage == "active"
    assert Tracker(workspace, "test").lacking([one.key, "k"]) == ["k"]


def test_a_damaged_note_is_named_and_the_others_are_published(
    data_root: Path, dataset: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, trials = Workspace(tmp_path), [trial(dataset, seed=seed) for seed in (1, 2)]
    run(workspace, data_root, trials)
    refused = Tracker(workspace, "test")
    refused.problem = "down"
    for one in trials:
        refused.publish(workspace.store.get(one.key), None)
    first, second = sorted(workspace.pending.glob("*.json"))
    first.write_text("{")
    published: list[str] = []

    def publish(self: Tracker, record: Any, runtime: Any) -> None:
        published.append(record.key)
        second.unlink()

    monkeypatch.setattr(Tracker, "publish", publish)
    done, problems = publish_pending(workspace)
    assert done == len(published) == 1 and published[0] in second.name
    assert len(problems) == 1 and str(first) in problems[0]


def test_a_failed_trial_is_named(data_root: Path, dataset: Any, tmp_path: Path) -> None:
    """A loss that is no number."""
    _, events = run(Workspace(tmp_path), data_root, [trial(dataset, trouble="nan")])
    failed = [event for event in events if isinstance(event, Failed)]
    assert failed[0].failure.reason == "diverged" and "loss is nan in epoch 1" in failed[0].failure.message
