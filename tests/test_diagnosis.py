"""Diagnosis best-on-test: what it finds, what it must leave alone, and that nobody can take it for a result."""

from __future__ import annotations

import csv
import io
import random
from dataclasses import replace
from math import isnan, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kit import TOY, call, stored, tiny_dataset, trial

from harness.analysis.selection import best_epoch, inflations
from harness.data import store
from harness.data.schema import Dataset, Ragged
from harness.data.splits import Fold
from harness.experiments import runner
from harness.experiments.events import Event, Failed, Finished, Started, Warned
from harness.experiments.executors import Executor, Inline, Processes
from harness.experiments.plugins import load_file
from harness.experiments.records import Diagnosis, Predictions, RecordStore
from harness.experiments.runner import Options, outstanding
from harness.experiments.tracking import Tracker
from harness.experiments.trials import Trial, make_trial, resolve_config
from harness.experiments.worker import Job, run_trial
from harness.experiments.workspace import Workspace
from harness.reporting import diagnoses
from harness.reporting.diagnoses import LABEL, gather
from harness.training.contract import methods
from harness.training.settings import BUDGETS

SCRIPTED = Path(__file__).with_name("scripted_method.py")


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    stored(root)
    store.save(scripted_dataset(), root)
    return root


def scripted_dataset() -> Dataset:
    """The tiny data set; every text frame holds the clip's label and whether it is a test clip."""
    tiny = tiny_dataset(name="mosi@scripted")
    text, lengths = tiny.features["text"], tiny.features["text"].lengths.numpy()
    values = np.zeros(tuple(text.values.shape), dtype=np.float32)
    values[:, 0] = np.repeat(tiny.clips["label"].to_numpy(), lengths)
    values[:, 1] = np.repeat((tiny.clips["split"] == "test").to_numpy(), lengths)
    return replace(tiny, features={**tiny.features, "text": Ragged(torch.from_numpy(values), text.offsets)})


def scripted(root: Path, seed: int = 1, **settings: Any) -> Trial:
    load_file(SCRIPTED)
    overrides = {key.replace("__", "."): value for key, value in settings.items()}
    config = resolve_config(methods["scripted"], "scripted", BUDGETS["paper"], "cpu", overrides)
    return make_trial("scripted", store.load("mosi@scripted", root).card, config, seed=seed, fold=Fold(), budget="paper")


def toy(root: Path, seed: int = 1, **settings: Any) -> Trial:
    return trial(store.load("mosi@tiny", root), seed, **settings)


def finish(one: Trial, root: Path, folder: Path, diagnose: bool, plugin: Path = SCRIPTED, report: Any = None) -> Finished:
    job = Job(one, root, folder / f"{one.key}.pt", 0.0, plugin, diagnose)
    done = run_trial(job, report or (lambda event: None))
    assert isinstance(done, Finished)
    return done


def run(place: Path, root: Path, trials: list[Trial], *, diagnose: bool, plugin: Path = TOY, executor: Executor | None = None) -> Any:
    workspace, events = Workspace(place), list[Event]()
    options = Options(root, 0.0, plugin=plugin, diagnose=diagnose)
    outcome = runner.run(trials, workspace, executor or Inline(), Unpublished(workspace, "test"), options, events.append)
    return outcome, workspace.store, events


class Unpublished(Tracker):
    """MLflow's part is tested elsewhere."""

    def publish(self, *_: Any) -> None:
        pass


# ---- what it finds


def test_the_epoch_best_on_test_is_found_and_its_inflation_is_exact(data_root: Path, tmp_path: Path) -> None:
    found = finish(scripted(data_root), data_root, tmp_path, diagnose=True).diagnosis
    assert found is not None and found.chosen == 5
    assert [epoch["mae"] for epoch in found.epochs] == pytest.approx([abs(e - 2) for e in range(1, 8)], abs=1e-6)
    scores = {name: [epoch[name] for epoch in found.epochs] for name in ("mae", "corr")}
    mae, corr = inflations({name: [float(value) for value in column if value is not None] for name, column in scores.items()}, 5, "mae")
    assert (mae.chosen, mae.best, mae.inflation, mae.own_inflation) == pytest.approx((3, 0, 3, 3), abs=1e-6)
    assert (corr.chosen, corr.best, corr.inflation) == pytest.approx((1, 1, 0), abs=1e-6)


def test_scores_at_the_chosen_epoch_are_the_records(data_root: Path, tmp_path: Path) -> None:
    done = finish(toy(data_root), data_root, tmp_path, diagnose=True, plugin=TOY)
    assert done.diagnosis is not None and len(done.diagnosis.epochs) == len(done.record.history) == 6
    assert done.diagnosis.epochs[done.record.best_epoch - 1] == done.record.test
    assert len({epoch["mae"] for epoch in done.diagnosis.epochs}) > 1


def test_an_epoch_whose_predictions_are_not_finite_has_no_scores(data_root: Path, tmp_path: Path) -> None:
    found = finish(scripted(data_root, fault="nan"), data_root, tmp_path, diagnose=True).diagnosis
    assert found is not None
    assert [epoch["mae"] is None for epoch in found.epochs] == [False, True, False, False, False, False, False]


def test_a_method_without_training_has_no_epoch_to_choose(data_root: Path, tmp_path: Path) -> None:
    card = store.load("mosi@tiny", data_root).card
    config = resolve_config(methods["ridge"], "mosi", BUDGETS["paper"], "cpu", {})
    one = make_trial("ridge", card, config, seed=1, fold=Fold(), budget="paper")
    _, records, _ = run(tmp_path, data_root, [one], diagnose=True)
    found = records.diagnosis(one.key)
    assert found is not None and found.epochs == ()
    assert gather("x", card, ["mae"], {"ridge": [one]}, records).untrained == ("ridge",)


values = st.lists(st.one_of(st.just(nan), st.integers(-5, 5).map(float)), min_size=1, max_size=8)


@given(values, values, st.integers(0, 7))
def test_inflation_is_never_negative_for_what_selects(mae: list[float], corr: list[float], place: int) -> None:
    epochs = min(len(mae), len(corr))
    scores, chosen = {"mae": mae[:epochs], "corr": corr[:epochs]}, place % epochs + 1
    for selecting in scores:
        for found in inflations(scores, chosen, selecting):
            sign = 1 if found.metric == "corr" else -1
            defined = [sign * value for value in scores[found.metric] if not isnan(value)]
            at = sign * scores[found.metric][chosen - 1]
            if isnan(at):
                assert isnan(found.own_inflation) and isnan(found.inflation)
                continue
            assert found.own_inflation == max(defined) - at >= 0
            if found.metric == selecting:
                assert found.inflation == found.own_inflation


def test_of_equal_epochs_the_first_counts() -> None:
    assert best_epoch([nan, 2.0, 3.0, 3.0, 1.0], higher_is_better=True) == 3
    assert best_epoch([nan, 2.0, 1.0, 3.0, 1.0], higher_is_better=False) == 3
    assert best_epoch([nan, nan], higher_is_better=True) == 0
    first, other = inflations({"mae": [1.0, 0.5, 0.5], "corr": [0.6, 0.2, 0.9]}, 1, "mae")
    assert (first.inflation, other.inflation, other.own_inflation) == pytest.approx((0.5, -0.4, 0.3))


# ---- what it leaves alone


@pytest.mark.parametrize("fault", ["", "draws", "outside", "counts", "nan", "raises"])
def test_the_record_is_the_same_with_and_without(data_root: Path, tmp_path: Path, fault: str) -> None:
    one, contents = scripted(data_root, fault=fault), []
    for diagnose in (False, True):
        random.seed(7)
        np.random.seed(7)
        done = finish(one, data_root, tmp_path / str(diagnose), diagnose)
        records = RecordStore(tmp_path / str(diagnose) / "records")
        records.put(done.record, done.runtime)
        contents.append((records.folder(one.key) / "record.json").read_bytes())
        assert (done.diagnosis is not None) == (diagnose and fault in ("", "nan"))
    assert contents[0] == contents[1]


def test_record_files_are_the_same_with_and_without(data_root: Path, tmp_path: Path) -> None:
    trials = [toy(data_root, seed) for seed in (1, 2)]
    contents = []
    for name, executor in {"without": Inline(), "with": Processes(2)}.items():
        outcome, records, _ = run(tmp_path / name, data_root, trials, diagnose=name == "with", executor=executor)
        assert len(outcome.finished) == 2 and not outcome.undiagnosed
        contents.append([(records.folder(one.key) / "record.json").read_bytes() for one in trials])
        assert all((records.diagnosis(one.key) is not None) == (name == "with") for one in trials)
    assert contents[0] == contents[1]


@pytest.mark.parametrize(
    ("fault", "why"), [("draws", "predicts otherwise"), ("outside", "predicts otherwise"), ("raises", "not at epoch 2; training goes on")]
)
def test_a_diagnosis_that_cannot_be_trusted_is_given_up_and_said(data_root: Path, tmp_path: Path, fault: str, why: str) -> None:
    one = scripted(data_root, fault=fault)
    outcome, records, events = run(tmp_path, data_root, [one], diagnose=True, plugin=SCRIPTED)
    assert one.key in records and records.diagnosis(one.key) is None
    assert (outcome.finished, outcome.undiagnosed) == ([one.key], [one.key])
    assert [event for event in events if isinstance(event, Warned) and event.text.startswith("no diagnosis") and why in event.text]


def test_a_finished_trial_is_run_again_for_its_diagnosis_alone(data_root: Path, tmp_path: Path) -> None:
    one = toy(data_root)
    _, records, _ = run(tmp_path, data_root, [one], diagnose=False)
    path = records.folder(one.key) / "record.json"
    before = {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in path.parent.iterdir()}
    assert outstanding([one], records, False) == [] and outstanding([one], records, False, diagnose=True) == [one]
    outcome, _, _ = run(tmp_path, data_root, [one], diagnose=True)
    assert (outcome.reused, outcome.finished, outcome.undiagnosed) == ([one.key], [], [])
    after = {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in path.parent.iterdir()}
    assert after.keys() - before.keys() == {"diagnosis.json"} and all(after[name] == before[name] for name in before)
    direct = finish(one, data_root, tmp_path, diagnose=True, plugin=TOY).diagnosis
    assert records.diagnosis(one.key) == direct
    _, _, events = run(tmp_path, data_root, [one], diagnose=True)
    assert not events and not list((tmp_path / "checkpoints").glob("*"))


def test_a_trial_that_does_not_give_its_record_again_is_an_error(data_root: Path, tmp_path: Path) -> None:
    one = toy(data_root)
    _, records, _ = run(tmp_path, data_root, [one], diagnose=False)
    record, runtime = records.get(one.key), records.runtime(one.key)
    assert runtime is not None
    first, *rest = record.predictions.values
    assert isinstance(first, float)
    moved = Predictions(**{**record.predictions.model_dump(), "values": (np.nextafter(first, 9), *rest)})
    elsewhere = record.environment.model_copy(update={"processor": "another one"})
    records.put(record.model_copy(update={"predictions": moved, "environment": elsewhere}), runtime)
    changed = (records.folder(one.key) / "record.json").read_bytes()
    outcome, _, events = run(tmp_path, data_root, [one], diagnose=True)
    failure = next(event.failure for event in events if isinstance(event, Failed))
    assert "did not give its record again" in failure.message and "differs in predictions" in failure.message
    assert "processor: 'another one' then" in failure.message
    assert outcome.undiagnosed == [one.key] and not outcome.failed and records.diagnosis(one.key) is None
    assert {file.name for file in records.folder(one.key).iterdir()} == {"record.json", "runtime.json"}
    assert (records.folder(one.key) / "record.json").read_bytes() == changed


def test_a_diagnosis_of_other_predictions_is_none(data_root: Path, tmp_path: Path) -> None:
    one = toy(data_root)
    _, records, _ = run(tmp_path, data_root, [one], diagnose=True)
    found = records.diagnosis(one.key)
    assert isinstance(found, Diagnosis)
    for wrong in (found.model_copy(update={"predictions": "0" * 64}), found.model_copy(update={"label": "a result"})):
        path = records.folder(one.key) / "diagnosis.json"
        path.write_text(wrong.model_dump_json() if wrong.label == found.label else "{}")
        assert records.diagnosis(one.key) is None and outstanding([one], records, False, diagnose=True) == [one]


# ---- interruption


class Cut(Exception):
    pass


def cut_at(epoch: int) -> Any:
    def report(event: Event) -> None:
        if getattr(event, "epoch", 0) == epoch:
            raise Cut

    return report


@pytest.mark.parametrize(("first", "then", "resumed"), [(True, True, 3), (False, True, 0), (True, False, 3)])
def test_an_interrupted_trial_ends_the_same(data_root: Path, tmp_path: Path, first: bool, then: bool, resumed: int) -> None:
    one = toy(data_root)
    whole = finish(one, data_root, tmp_path / "whole", diagnose=True, plugin=TOY)
    with pytest.raises(Cut):
        finish(one, data_root, tmp_path, first, TOY, report=cut_at(4))
    events = list[Event]()
    done = finish(one, data_root, tmp_path, then, TOY, report=events.append)
    assert isinstance(events[0], Started) and events[0].epoch == resumed
    assert done.record == whole.record
    assert done.diagnosis == (whole.diagnosis if then else None)


def test_a_worker_that_is_killed_while_diagnosing_goes_on(data_root: Path, tmp_path: Path) -> None:
    flag = tmp_path / "died"
    one = toy(data_root, trouble=f"die_once:{flag}")
    flag.touch()
    run(tmp_path / "a", data_root, [one], diagnose=True)
    flag.unlink()
    outcome, records, events = run(tmp_path / "b", data_root, [one], diagnose=True, executor=Processes(1))
    assert flag.exists() and outcome.finished == [one.key] and any(isinstance(event, Warned) for event in events)
    assert records.diagnosis(one.key) == Workspace(tmp_path / "a").store.diagnosis(one.key) is not None


# ---- what people see


@pytest.fixture
def place(tmp_path: Path, data_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MER_DATA", str(data_root))
    monkeypatch.setenv("MER_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def test_the_command_says_what_it_would_have_gained_and_labels_it(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", str(SCRIPTED), "mosi@scripted", "--budget", "paper", "--seeds", "2", "--inline"]
    code, out, err = call(capsys, *arguments, "--diagnose", "best-on-test")
    assert code == 0, err
    told = out[out.index(LABEL) :]
    line = next(line for line in told.splitlines() if line.startswith("scripted"))
    assert " ".join(line.split()) == "scripted MAE 2 3.000 ± 0.000 0.000 ± 0.000 +3.000 ± 0.000 0.000 ± 0.000 +3.000 ± 0.000"
    assert LABEL not in out[: out.index(LABEL)] and "SIMULATED" in told
    markdown, rows = (next((place / "results" / "diagnoses").glob(f"*.{suffix}")).read_text() for suffix in ("md", "csv"))
    assert markdown.startswith(f"# {LABEL}") and markdown.count(LABEL) == 2 and "| 5 / 2 / 7 |" in " ".join(markdown.split())
    lines = list(csv.DictReader(io.StringIO(rows)))
    assert len(lines) == 2 * 3 and {line["label"] for line in lines} == {LABEL} and {line["simulated"] for line in lines} == {"SIMULATED"}
    mae = [line for line in lines if line["metric"] == "mae"]
    assert [float(line["inflation"]) for line in mae] == pytest.approx([3, 3], abs=1e-6)
    assert [(line["epoch_valid"], line["epoch_test"], line["epochs"]) for line in mae] == [("5", "2", "7")] * 2


def test_a_table_is_the_same_with_and_without(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["reproduce", "iidaf/t3", "--data", "mosi@tiny", "--methods", "lmf", "--budget", "smoke", "--seeds", "2", "--inline"]
    contents = []
    for name in ("without", "with"):
        monkeypatch.setenv("MER_RESULTS", str(place / name))
        code, out, err = call(capsys, *arguments, *(["--diagnose", "best-on-test"] if name == "with" else []))
        assert code == 0 and (LABEL in out) == (name == "with"), err
        contents.append({path.name: path.read_bytes() for path in (place / name / "tables").iterdir()})
        assert (place / name / "diagnoses").exists() == (name == "with")
    assert contents[0] == contents[1] and {Path(name).suffix for name in contents[0]} == {".md", ".tex", ".csv", ".json"}
    text = next((place / "with" / "diagnoses").glob("*.md")).read_text()
    assert "LMF" in text and "there is nothing to choose: majority, ridge" in text


def test_what_lacks_a_diagnosis_is_named(data_root: Path, tmp_path: Path) -> None:
    trials = [toy(data_root, seed) for seed in (1, 2)]
    _, records, _ = run(tmp_path, data_root, trials[:1], diagnose=True)
    found = gather("x", store.load("mosi@tiny", data_root).card, ["mae", "corr"], {"Toy": trials}, records)
    text = diagnoses.console(found)
    assert "Toy: no diagnosis of seed 2." in text and "±" not in next(line for line in text.splitlines() if line.startswith("Toy  "))


def test_another_diagnosis_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, "run", str(TOY), "mosi@tiny", "--diagnose", "best")
    assert code == 2 and "--diagnose best" in err and "best-on-test" in err
