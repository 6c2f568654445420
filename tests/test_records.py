"""Identity, records and the runner: what a key depends on, what survives a fault."""

from __future__ import annotations

import errno
import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kit import TOY, job, stored, tiny_dataset, trial

from harness.data.splits import Fold, folds
from harness.errors import HarnessError
from harness.experiments import code, runner
from harness.experiments.events import Event, Failed, Finished, Started, Warned
from harness.experiments.executors import Inline, Processes
from harness.experiments.plan import Effort, method_trials
from harness.experiments.records import Failure, RecordError, RecordStore
from harness.experiments.runner import Options, outstanding
from harness.experiments.tracking import Tracker, publish_pending
from harness.experiments.trials import Identity, explain, make_trial, resolve_config
from harness.experiments.worker import attempt, run_trial
from harness.experiments.workspace import DiskFull, Workspace
from harness.training import metrics
from harness.training.contract import methods
from harness.training.settings import BUDGETS


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    stored(root)
    return root


@pytest.fixture(scope="module")
def dataset(data_root: Path) -> Any:
    from harness.data import store

    return store.load("mosi@tiny", data_root)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'results' / 'mlflow.db'}")
    return Workspace(tmp_path / "results")


def finish(data_root: Path, tmp_path: Path, **settings: Any) -> Finished:
    from harness.data import store

    return run_trial(job(trial(store.load("mosi@tiny", data_root), **settings), data_root, tmp_path), lambda event: None)


# ---- identity


def test_the_key_changes_with_everything_that_can_change_a_number(dataset: Any) -> None:
    base = trial(dataset)
    other = {
        "seed": trial(dataset, seed=2),
        "fold": trial(dataset, fold=folds(5)[0]),
        "config": trial(dataset, hidden=9),
        "training": trial(dataset, training__learning_rate=0.5),
        "device": trial(dataset, training__device="cuda"),
        "data": trial(tiny_dataset(seed=1)),
    }
    keys = {name: one.key for name, one in other.items()}
    assert base.key not in keys.values() and len(set(keys.values())) == len(keys)
    code_changed = base.identity.model_copy(update={"code": {**base.identity.code, "harness.training.loop": "0"}})
    assert code_changed.key != base.key


def test_the_key_depends_on_nothing_else(dataset: Any) -> None:
    base = trial(dataset).identity
    renamed = base.model_copy(update={"dataset": "mosi@another"})
    reordered = Identity.model_validate(json.loads(json.dumps(base.model_dump(mode="json"), sort_keys=True)))
    assert base.key == renamed.key == reordered.key


def test_explain_names_what_changed(dataset: Any) -> None:
    before, now = trial(dataset).identity, trial(dataset, seed=2, hidden=9).identity
    assert explain(before, before) == []
    assert explain(now, before) == ["config.hidden: 8 was recorded, 9 is asked for", "seed: 1 was recorded, 2 is asked for"]


@pytest.mark.parametrize(
    ("source", "same"),
    [
        ("def f(x):\n    # a comment\n    return x + 1\n", True),
        ('"""Docs."""\ndef f(x):\n    """More."""\n    return (x + 1)\n', True),
        ("def f(x):\n    return x + 2\n", False),
        ("def f(y):\n    return y + 1\n", False),
        ("def f(x):\n    return x + True\n", False),
    ],
)
def test_code_counts_by_what_it_does(source: str, same: bool) -> None:
    reference = code._parse(b"def f(x):\n    return x + 1\n", "m", False)[0]
    assert (code._parse(source.encode(), "m", False)[0] == reference) is same


def test_code_follows_imports_within_the_project_only(dataset: Any) -> None:
    found = trial(dataset).identity.code
    assert {"user_toy_method", "harness.training.loop", "harness.data.batches", "harness.training.metrics", "harness.seeds"} <= set(found)
    assert not any(name.startswith(("torch", "harness.reporting", "harness.experiments", "harness.errors")) for name in found)


def test_a_key_is_that_of_the_content_however_it_came_about(dataset: Any) -> None:
    """It is computed once: a copy must not keep the other's, and that it was computed must show nowhere else."""
    one = trial(dataset).identity
    fresh = Identity.model_validate(one.model_dump())
    key = one.key
    changed = [one.model_copy(update=update) for update in ({"seed": 2}, {"method": "other"}, {"config": {}})]
    assert len({key, *(copy.key for copy in changed)}) == 4 and one.key == key
    for copy in [fresh, one.model_copy(), one.model_copy(deep=True), pickle.loads(pickle.dumps(one)), *changed]:
        content = copy.model_dump(mode="json", exclude={"dataset"})
        content["config"].get("text_encoder", {}).pop("path", None)
        assert copy.key == hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:20]
    assert one == fresh and one.model_dump_json() == Identity.model_validate(one.model_dump()).model_dump_json()


def test_trials_of_a_plan_have_the_keys_of_trials_made_one_by_one(dataset: Any) -> None:
    effort = Effort(budget="quick", folds=3, protocol="stratified")
    planned = method_trials("ridge", dataset.card, effort, {}, (1, 2))
    config = resolve_config(methods["ridge"], "mosi", BUDGETS["quick"], "cpu", {})
    alone = [make_trial("ridge", dataset.card, config, seed=seed, fold=fold, budget="quick") for seed in (1, 2) for fold in effort.cuts()]
    assert len(planned) == 6 and planned == alone and [one.key for one in planned] == [one.key for one in alone]


# ---- records


def test_a_record_survives_storing_and_its_metrics_follow_from_its_predictions(data_root: Path, tmp_path: Path) -> None:
    done = finish(data_root, tmp_path)
    store = RecordStore(tmp_path / "records")
    store.put(done.record, done.runtime)
    record = store.get(done.key)
    assert record == done.record and store.runtime(done.key) == done.runtime and store.keys() == [done.key]
    values, truth = record.predictions.arrays()
    assert metrics.score(list(record.test), values, truth) == pytest.approx(record.test)
    assert record.parameters == (6 + 3) * 8 + 8 + 8 + 1


def test_a_record_takes_the_place_of_an_earlier_failure(data_root: Path, tmp_path: Path) -> None:
    done, store = finish(data_root, tmp_path), RecordStore(tmp_path / "records")
    store.put_failure(Failure(identity=done.record.identity, budget="paper", reason="memory", message="too little"))
    assert store.failed() == [done.key] and store.failure(done.key)
    store.put(done.record, done.runtime)
    assert store.failed() == [] and store.failure(done.key) is None and store.keys() == [done.key]


def test_a_record_says_which_clips_trained_validated_and_tested(data_root: Path, dataset: Any, tmp_path: Path) -> None:
    from harness.data.splits import cut

    hashes = {}
    for fold in (Fold(), *folds(3)[:2]):
        record = finish(data_root, tmp_path / str(fold.index), fold=fold).record
        assert record.split_hash == cut(dataset, fold).hash and record.predictions.ids == cut(dataset, fold)["test"].ids
        hashes[record.split_hash] = fold
    assert len(hashes) == 3


def test_two_runs_of_a_trial_leave_the_same_bytes(data_root: Path, tmp_path: Path) -> None:
    contents = []
    for name in ("a", "b"):
        done = finish(data_root, tmp_path / name)
        store = RecordStore(tmp_path / name / "records")
        store.put(done.record, done.runtime)
        contents.append((store.folder(done.key) / "record.json").read_bytes())
    assert contents[0] == contents[1]


def test_a_changed_record_is_refused(data_root: Path, tmp_path: Path) -> None:
    done = finish(data_root, tmp_path)
    store = RecordStore(tmp_path / "records")
    store.put(done.record, done.runtime)
    path = store.folder(done.key) / "record.json"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"mae":', b'"mae":1', 1))
    with pytest.raises(RecordError, match="checksum"):
        store.get(done.key)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RecordError, match="damaged"):
        store.get(done.key)


def test_a_record_is_the_same_in_another_layout_and_with_any_text(data_root: Path, tmp_path: Path) -> None:
    done = finish(data_root, tmp_path)
    store, path = RecordStore(tmp_path / "records"), tmp_path / "records" / done.key / "record.json"
    text = '"checksum":"' + 64 * "0" + '",'
    for record in (done.record, done.record.model_copy(update={"budget": text})):
        store.put(record, done.runtime)
        assert store.get(done.key) == record
        path.write_text(json.dumps(json.loads(path.read_bytes()), indent=1))
        assert store.get(done.key) == record


def test_no_host_name_and_no_path_in_a_record(data_root: Path, tmp_path: Path) -> None:
    import platform

    text = finish(data_root, tmp_path).record.model_dump_json()
    assert str(tmp_path) not in text and str(data_root) not in text and f'"{platform.node()}"' not in text


def test_classes_are_predicted_as_scores(tmp_path: Path) -> None:
    one = trial(stored(tmp_path, name="mosi@classes", classes=("sad", "glad", "calm")))
    record = run_trial(job(one, tmp_path, tmp_path), lambda event: None).record
    values, truth = record.predictions.arrays()
    assert values.shape == (33, 3) and record.test["accuracy"] == pytest.approx((values.argmax(1) == truth).mean())


# ---- resuming


def test_a_trial_resumes_from_its_checkpoint_and_ends_the_same(data_root: Path, dataset: Any, tmp_path: Path) -> None:
    whole = finish(data_root, tmp_path / "whole")
    one = job(trial(dataset), data_root, tmp_path)

    class Cut(Exception):
        pass

    def cut_at_three(event: Event) -> None:
        if getattr(event, "epoch", 0) == 4:
            raise Cut

    with pytest.raises(Cut):
        run_trial(one, cut_at_three)
    events: list[Event] = []
    resumed = run_trial(one, events.append)
    assert isinstance(events[0], Started) and events[0].epoch == 3 == resumed.runtime.resumed_at
    assert resumed.record == whole.record and len(resumed.runtime.epoch_seconds) == 6


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x80\x04cposix\nsystem\n."])
def test_a_damaged_checkpoint_only_costs_time(data_root: Path, dataset: Any, tmp_path: Path, content: bytes) -> None:
    one = job(trial(dataset), data_root, tmp_path)
    one.checkpoint.write_bytes(content)
    assert run_trial(one, lambda event: None).runtime.resumed_at == 0


def test_a_checkpoint_of_another_trial_is_not_used(data_root: Path, dataset: Any, tmp_path: Path) -> None:
    first, second = job(trial(dataset), data_root, tmp_path), job(trial(dataset, seed=2), data_root, tmp_path)
    run_trial(first, lambda event: None)
    second.checkpoint.write_bytes(first.checkpoint.read_bytes())
    assert run_trial(second, lambda event: None).runtime.resumed_at == 0


def test_a_checkpoint_that_cannot_be_written_does_not_stop_the_trial(data_root: Path, dataset: Any, tmp_path: Path) -> None:
    folder = tmp_path / "file"
    folder.write_text("not a folder")
    events: list[Event] = []
    done = run_trial(job(trial(dataset), data_root, folder), events.append)
    assert done.record.best_epoch and any(isinstance(event, Warned) for event in events)


# ---- executors and the runner


def run(workspace: Workspace, data_root: Path, trials: list[Any], executor: Any = None, **options: Any) -> tuple[Any, list[Event]]:
    events: list[Event] = []
    tracker = Tracker(workspace, "test")
    settings = Options(data_root, 0.0, plugin=TOY, **options)
    return runner.run(trials, workspace, executor or Inline(), tracker, settings, events.append), events


def test_inline_and_processes_leave_the_same_bytes(data_root: Path, dataset: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trials = [trial(dataset, seed=seed) for seed in (1, 2, 3)]
    contents = []
    for name, executor in {"inline": Inline(), "processes": Processes(2)}.items():
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / name}.db")
        space = Workspace(tmp_path / name)
        outcome, _ = run(space, data_root, trials, executor)
        assert sorted(outcome.finished) == sorted(one.key for one in trials)
        contents.append([(space.store.folder(one.key) / "record.json").read_bytes() for one in trials])
    assert contents[0] == contents[1]


def test_nothing_is_run_twice(workspace: Workspace, data_root: Path, dataset: Any) -> None:
    one = trial(dataset)
    first, _ = run(workspace, data_root, [one, one])
    again, events = run(workspace, data_root, [one])
    assert first.finished == again.reused == [one.key] and not again.finished and not events


@pytest.mark.parametrize(("trouble", "reason"), [("nan", "diverged"), ("crash", "error")])
def test_a_failed_trial_is_recorded_as_failed_and_not_tried_again_unasked(
    workspace: Workspace, data_root: Path, dataset: Any, trouble: str, reason: str
) -> None:
    bad, good = trial(dataset, trouble=trouble), trial(dataset)
    outcome, _ = run(workspace, data_root, [bad, good])
    failure = workspace.store.failure(bad.key)
    assert outcome.failed == [bad.key] and outcome.finished == [good.key]
    assert failure is not None and failure.reason == reason
    assert outstanding([bad, good], workspace.store, retry_failed=False) == []
    assert outstanding([bad, good], workspace.store, retry_failed=True) == [bad]
    assert run(workspace, data_root, [bad])[0].failed == [bad.key]


def test_a_worker_that_dies_once_is_started_again_and_ends_the_same(
    workspace: Workspace, data_root: Path, dataset: Any, tmp_path: Path
) -> None:
    flag = tmp_path / "died"
    one = trial(dataset, trouble=f"die_once:{flag}")
    outcome, events = run(workspace, data_root, [one], Processes(1))
    assert flag.exists() and outcome.finished == [one.key]
    assert any(isinstance(event, Warned) and "signal 9" in event.text for event in events)
    flag.touch()
    again = attempt_inline(one, data_root, tmp_path)
    assert again.record.predictions == workspace.store.get(one.key).predictions


def attempt_inline(one: Any, data_root: Path, tmp_path: Path) -> Finished:
    events: list[Event] = []
    attempt(job(one, data_root, tmp_path / "inline"), events.append)
    assert isinstance(events[-1], Finished)
    return events[-1]


def test_a_worker_that_always_dies_fails_its_trial_only(workspace: Workspace, data_root: Path, dataset: Any) -> None:
    bad, good = trial(dataset, trouble="die"), trial(dataset)
    outcome, _ = run(workspace, data_root, [bad, good], Processes(2))
    failure = workspace.store.failure(bad.key)
    assert outcome.finished == [good.key] and failure is not None and failure.reason == "died"


def test_a_trial_over_its_time_limit_fails(workspace: Workspace, data_root: Path, dataset: Any) -> None:
    slow = trial(dataset, trouble="hang")
    run(workspace, data_root, [slow], Processes(1, timeout=8.0))
    failure = workspace.store.failure(slow.key)
    assert failure is not None and failure.reason == "timeout"


def full_disk_after(count: int, monkeypatch: pytest.MonkeyPatch, reserve: Path) -> Callable[[], None]:
    """Make every sync fail with ENOSPC after ``count`` of them, for as long as the reserve file is there."""
    import os

    real, calls = os.fsync, [0]

    def fsync(descriptor: int) -> None:
        calls[0] += 1
        if calls[0] > count and reserve.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return lambda: monkeypatch.setattr(os, "fsync", real)


def test_a_full_disk_loses_no_finished_result(workspace: Workspace, data_root: Path, dataset: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    trials = [trial(dataset, seed=seed) for seed in (1, 2)]
    heal = full_disk_after(1, monkeypatch, workspace.root / ".reserve")
    with pytest.raises(DiskFull, match="no finished result is lost"):
        run(workspace, data_root, trials)
    heal()
    assert workspace.store.keys() == [trials[0].key] and workspace.store.get(trials[0].key)
    outcome, _ = run(workspace, data_root, trials)
    assert outcome.reused == [trials[0].key] and outcome.finished == [trials[1].key]


def test_two_processes_cannot_write_to_one_results_folder(workspace: Workspace) -> None:
    with workspace.writing(), pytest.raises(HarnessError, match="another harness process"), workspace.writing():
        pass


def test_a_results_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HarnessError, match="file/results"), Workspace(tmp_path / "file" / "results").writing():
        pass


# ---- folds


@pytest.mark.parametrize("number", [3, 5])
def test_folds_keep_groups_together_and_test_every_clip_once(number: int) -> None:
    from harness.data.splits import cut

    data = tiny_dataset()
    tested: list[str] = []
    for fold in folds(number):
        parts = cut(data, fold)
        groups = [set(parts[name].groups) for name in ("train", "valid", "test")]
        assert not (groups[0] & groups[1] or groups[0] & groups[2] or groups[1] & groups[2])
        assert sum(map(len, parts.values())) == len(data)
        tested += parts["test"].ids
    assert sorted(tested) == sorted(data.clips["id"])
    assert {str(Fold())} == {"official split"}


# ---- tracking


def published(uri: str, experiment: str = "test") -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(experiment)
    return list(client.search_runs([found.experiment_id])) if found else []


@pytest.mark.filterwarnings("default")  # MLflow's own imports warn
def test_every_record_is_one_complete_mlflow_run(workspace: Workspace, data_root: Path, dataset: Any) -> None:
    one = trial(dataset)
    run(workspace, data_root, [one])
    run(workspace, data_root, [one])
    runs = published(workspace.tracking_uri)
    assert len(runs) == 1
    record, found = workspace.store.get(one.key), runs[0]
    assert found.data.tags["trial_key"] == one.key and found.data.tags["data"] == "simulated"
    assert found.data.tags["data_fingerprint"] == record.identity.data
    assert found.data.params["config.training.learning_rate"] == "0.001" and found.data.params["seed"] == "1"
    assert found.data.metrics["test/mae"] == pytest.approx(record.test["mae"])
    assert found.data.metrics["valid_loss"] == pytest.approx(record.history[-1].valid_loss)
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=workspace.tracking_uri)
    assert len(client.get_metric_history(found.info.run_id, "valid_loss")) == len(record.history)
    assert [entry.path for entry in client.list_artifacts(found.info.run_id)] == ["predictions.json"]


@pytest.mark.filterwarnings("default")
def test_without_mlflow_nothing_is_lost_and_it_is_published_later(
    workspace: Workspace, data_root: Path, dataset: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # the discard port: nothing answers
    trials = [trial(dataset, seed=seed) for seed in (1, 2)]
    outcome, events = run(workspace, data_root, trials)
    assert len(outcome.finished) == 2 and len(list(workspace.pending.glob("*.json"))) == 2
    assert sum(isinstance(event, Warned) and "harness track" in event.text for event in events) == 1
    assert publish_pending(workspace)[0] == 0
    uri = f"sqlite:///{tmp_path / 'later.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert publish_pending(workspace) == (2, [])
    assert len(published(uri)) == 2 and not list(workspace.pending.glob("*.json"))


def test_a_failed_trial_is_an_event(data_root: Path, dataset: Any, tmp_path: Path) -> None:
    events: list[Event] = []
    attempt(job(trial(dataset, trouble="crash"), data_root, tmp_path), events.append)
    assert isinstance(events[-1], Failed) and "a fault in the method" in events[-1].failure.traceback
