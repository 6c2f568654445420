"""What a target selects, what a plan says, and a table file of a user's own, from the skeleton to the rendered table."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from kit import TOY, call, stored
from kit import trial as toy
from test_tables import a_card, a_record, a_trial, guesses

from harness.errors import ConfigError
from harness.experiments import cost_tables, figure_items, papers
from harness.experiments.estimates import forecast, recorded_seconds, survey
from harness.experiments.records import Diagnosis, Failure, RecordStore, Runtime
from harness.experiments.trials import Trial
from harness.reporting.forecast import described

ROOT = Path(__file__).parents[1]
UNKNOWN = "time unknown for 4 (toy: no recorded trial on this data with this budget)"
MINE = """
title = "Mine"
datasets = ["mosi"]
metrics = ["mae"]
seeds = [1, 2]
reference = "Ridge"
floors = ["majority"]
protocol = [{ kind = "stratified", folds = 3, name = "random" }, { kind = "grouped", folds = 4, name = "by video" }]

[[rows]]
name = "Ridge"
method = "ridge"

[[rows]]
name = "Theirs"
published.mosi = { mae = 0.900 }
"""


def write(place: Path, text: str = MINE, name: str = "mine/t1") -> None:
    path = place / "reports" / f"{name}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


# ---- what a target selects


def test_a_data_set_selects_comparisons_and_a_paper_all() -> None:
    assert [(spec.name, datasets) for spec, datasets in papers.select("mosi")] == [("iidaf/t3", ("mosi",)), ("mikl/t1", ("mosi",))]
    assert [spec.name for spec, _ in papers.select("ravdess")] == ["mkcc/t3"]
    assert {spec.name for spec, _ in papers.select("mikl")} >= {"mikl/t1", "mikl/t2", "mikl/t4", "mikl/t5", "mikl/t6"}
    assert [(spec.name, spec.kind) for spec, _ in papers.select("mikl/t4")] == [("mikl/t4", "ablation")]


def test_a_data_set_without_comparisons_is_answered_with_the_items_that_have_it() -> None:
    with pytest.raises(ConfigError, match="selects comparisons alone") as caught:
        papers.select("iemocap6")
    assert "mikl/t6" in caught.value.fix


def test_help_says_what_a_target_selects(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = call(capsys, "reproduce", "--help")
    assert code == 0 and "no ablations" in re.sub(r"\s+", " ", out) and "--plan" in out


def test_all_tables_are_listed_with_their_kind(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "list", "tables")
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert code == 0 and set(lines) == {"/".join(one) for one in (*papers.items(), *cost_tables.items(), *figure_items.items())}
    assert (
        "cost" in lines["iidaf/t9"]
        and "comparison" in lines["mikl/t1"]
        and "ablation" in lines["mikl/t4"]
        and "robustness" in lines["mikl/t5"]
    )
    assert "random folds" in lines["amcm/t3"] and "folds by subject" in lines["amcm/t3"]


# ---- forecasts


def finish(store: RecordStore, trial: Trial, seconds: float) -> None:
    runtime = Runtime(seconds=seconds, epoch_seconds=(), peak_memory_mb=1, finished="now")
    store.put(a_record(trial, guesses("ridge", trial.identity.seed)), runtime)


def test_a_forecast_counts_each_trial_once_and_takes_times_of_its_kind(tmp_path: Path) -> None:
    store, card = RecordStore(tmp_path), a_card()
    trials = {(row, seed): a_trial(row, seed, card) for row in ("ridge", "Strong", "Weak_1") for seed in (1, 2, 3)}
    for one, seconds in {("ridge", 1): 10.0, ("ridge", 2): 20.0, ("Strong", 1): 90.0}.items():
        finish(store, trials[one], seconds)
    failed = trials["Strong", 2]
    store.put_failure(Failure(identity=failed.identity, budget="quick", reason="diverged", message=""))
    everything = [*trials.values(), *trials.values()]
    known = survey(everything, store)
    assert known.seconds == {("ridge", card.fingerprint, "quick"): 15.0, ("Strong", card.fingerprint, "quick"): 90.0}
    found = forecast(everything, known)
    assert (found.trials, found.recorded, found.failed, found.to_run, found.again) == (9, 3, 1, 5, 0)
    assert (found.seconds, found.longest, found.timed) == (15.0 + 90.0, 90.0, 2)
    assert {trial.identity.method for trial in found.unknown} == {"Weak_1"}
    assert (found.wall(1), found.wall(2), found.wall(50)) == (105.0, 90.0, 90.0)
    again = forecast(trials.values(), survey(everything, store, retry_failed=True))
    assert (again.failed, again.to_run, again.seconds) == (0, 6, 195.0)


def test_damaged_records_and_records_without_their_diagnosis_are_to_run_again(tmp_path: Path) -> None:
    store, trials = RecordStore(tmp_path), [a_trial("ridge", seed, a_card()) for seed in (1, 2, 3, 4)]
    for one in trials[:3]:
        finish(store, one, 10.0)
    raw = store.path(trials[0].key).read_bytes()
    store.path(trials[0].key).write_bytes(raw.replace(b"1", b"2"))
    record = store.get(trials[1].key)
    found = Diagnosis(key=record.key, predictions=record.predictions.fingerprint, chosen=1, epochs=({},))
    store.put_diagnosis(found)
    plain = forecast(trials, survey(trials, store))
    assert (plain.recorded, plain.to_run, plain.again, plain.failed) == (2, 2, 1, 0)
    diagnosed = survey(trials, store, diagnose=True)
    asked = forecast(trials, diagnosed)
    assert (asked.recorded, asked.to_run, asked.again, asked.seconds) == (1, 3, 2, 30.0)
    assert "1 recorded, 3 to run (2 of them again" in described("x", {"ridge": trials}, diagnosed, 1)


def test_times_of_other_data_and_budgets_and_of_damaged_records_do_not_count(tmp_path: Path) -> None:
    store, card = RecordStore(tmp_path), a_card()
    for seed in (1, 2):
        finish(store, a_trial("ridge", seed, card), 10.0)
    assert recorded_seconds(store, {("ridge", card.fingerprint, "paper"), ("ridge", "0" * 64, "quick")}) == {}
    store.path(a_trial("ridge", 1, card).key).write_text("{")
    (store.folder(a_trial("ridge", 2, card).key) / "runtime.json").unlink()
    assert recorded_seconds(store, {("ridge", card.fingerprint, "quick")}) == {}


def test_times_of_the_same_trials_go_before_those_of_others_like_them(tmp_path: Path) -> None:
    """With other settings, hence other keys, a method may take any time; the same data under another name counts."""
    store, card = RecordStore(tmp_path), a_card(name="mosi@other")
    mine = [a_trial("ridge", seed, a_card()) for seed in (1, 2)]
    other = a_trial("ridge", 3, card)
    finish(store, other.model_copy(update={"identity": other.identity.model_copy(update={"config": {"size": 9}})}), 100.0)
    (kind,) = kinds = {("ridge", card.fingerprint, "quick")}
    assert recorded_seconds(store, kinds, mine) == {kind: 100.0}
    finish(store, mine[0], 10.0)
    assert recorded_seconds(store, kinds, mine) == {kind: 10.0} and recorded_seconds(store, kinds) == {kind: 55.0}


# ---- by command


def test_a_plan_runs_nothing_and_then_counts_what_was_run(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored(place / "data")
    write(place)
    code, out, _ = call(capsys, "reproduce", "mine/t1", "--data", "mosi@tiny", "--plan")
    assert code == 0 and not (place / "results").exists()
    assert "mine/t1 mosi@tiny (comparison; random (3 stratified folds); by video (4 grouped folds))" in out
    assert "28 trials: 0 recorded, 28 to run; time unknown for 28 (majority, ridge" in out
    assert "to run, by row: Ridge 14, majority 14" in out and "cited only: Theirs" in out
    code, out, err = call(capsys, "reproduce", "mine/t1", "--data", "mosi@tiny", "--seeds", "1", "--inline")
    assert code == 0, out + err
    lines = (place / "results" / "tables" / "mine_t1_mosi-tiny.md").read_text(encoding="utf-8")
    assert "measured, reference, random (n = 3/3)" in lines and "measured, floor, by video (n = 4/4)" in lines
    code, out, _ = call(capsys, "reproduce", "mine/t1", "--data", "mosi@tiny", "--seeds", "2", "--plan", "--workers", "1")
    assert "28 trials: 14 recorded, 14 to run; about" in out and "unknown" not in out and "with 1 worker" in out
    code, out, _ = call(capsys, "reproduce", "mine/t1", "--data", "mosi@tiny", "--plan", "--tuned")
    assert code == 0 and "no tuned rows, since a preset is of one cut of the data and this table has 7" in out
    folds = [json.loads(path.read_text())["identity"]["fold"] for path in place.glob("results/records/*/record.json")]
    assert sorted((fold["protocol"], fold["of"], fold["index"]) for fold in folds) == sorted(
        [*[("stratified", 3, i) for i in range(3)], *[("grouped", 4, i) for i in range(4)]] * 2
    )


def test_a_dry_run_says_what_a_plan_says(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = stored(place / "data")
    command = ["run", str(TOY), "mosi@tiny", "--seeds", "4", "--workers", "2", "--dry-run"]
    code, out, _ = call(capsys, *command)
    assert code == 0 and not (place / "results").exists()
    assert f"run mosi@tiny\n  4 trials: 0 recorded, 4 to run; {UNKNOWN}\n  to run, by row: toy 4\n" in out
    trial = toy(data, seed=9)
    finish(RecordStore(place / "results" / "records"), trial.model_copy(update={"budget": "quick"}), 90.0)
    code, out, _ = call(capsys, *command)
    assert code == 0 and "4 to run; about 3 min 00 s with 2 workers (6 min 00 s of work)" in out, out
    assert "to run, by row: toy 4 (1 min 30 s each)" in out and [path.name for path in (place / "results").iterdir()] == ["records"]
    code, _, err = call(capsys, *command, "--executor", "rya")
    assert code == 2 and "Did you mean 'ray'" in err
    code, _, err = call(capsys, *command[:3], "--dry-run", "--inline", "--timeout", "5")
    assert code == 2 and "--timeout" in err
    write(place)
    plans = [call(capsys, "reproduce", "mine/t1", "--data", "mosi@tiny", option)[1] for option in ("--plan", "--dry-run")]
    assert plans[0] == plans[1] and "28 to run" in plans[0]


def test_a_table_without_its_data_set_is_left_out_and_that_is_said(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored(place / "data")
    write(place)
    write(
        place,
        MINE.replace('"mosi"', '"ur_funny"')
        .replace("published.mosi", "published.ur_funny")
        .replace('"mae"', '"accuracy"', 1)
        .replace("mae = 0.900", "accuracy = 60.0"),
        "mine/t2",
    )
    code, out, err = call(capsys, "reproduce", "mine", "--plan")
    assert code == 0 and "mine/t2 is left out: UR-FUNNY (ur_funny) was not imported" in out and "mine/t1 mosi@tiny" in out, out + err
    code, _, err = call(capsys, "reproduce", "mine/t2", "--plan")
    assert code == 2 and "ur_funny" in err and "harness data import ur_funny" in err
    code, _, err = call(capsys, "reproduce", "mine", "--data", "mosei", "--plan")
    assert code == 2 and "mine has no such data set" in err and "mosi, ur_funny" in err
    code, out, _ = call(capsys, "reproduce", "mine", "--data", "mosi@tiny", "--plan")
    assert code == 0 and "mine/t1 mosi@tiny" in out and "mine/t2" not in out


def test_a_new_table_is_valid_and_stands_beside_the_papers(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "new-table", "mine/t9")
    path = place / "reports" / "mine" / "t9.toml"
    assert code == 0 and "reports/mine/t9.toml" in out and len(path.read_text().splitlines()) < 60
    assert {"mine/t9", "iidaf/t3"} <= {spec.name for spec, _ in papers.select("mosi")}
    code, _, err = call(capsys, "new-table", "mine/t9")
    assert code == 2 and "exists" in err


def test_every_commented_key_of_the_skeleton_is_one(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(capsys, "new-table", "mine/t9")
    path = place / "reports" / "mine" / "t9.toml"
    before = papers.read(path)
    text = path.read_text()
    for commented in (
        "kind =",
        "modalities =",
        "published.mosi =",
        "[[holes]]",
        "rows =",
        "metrics = [",
        "reason =",
        "[[findings]]",
        "text =",
    ):
        assert f"# {commented}" in text, commented
        text = text.replace(f"# {commented}", commented)
    text = text.replace('protocol = "official"\n# protocol', "protocol")
    path.write_text(text)
    after = papers.read(path)
    assert after.kind == "ablation" and after.protocol[0].folds == 5 and after.holes and after.findings and after != before
    assert after.rows[1].modalities == ("text", "audio") and after.rows[1].published["mosi"]["mae"].dagger


@pytest.mark.parametrize("name", ["mine", "mine/", "/t1", "../t1", "mine/t1/x", "Mine/T1", "mine/../t1", "mine\\t1"])
def test_names_that_are_no_place_are_refused(place: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    code, _, err = call(capsys, "new-table", name)
    assert code == 2 and "PAPER/ITEM" in err and not (place / "reports").exists()


# ---- the documentation


def test_the_tables_of_the_documentation_are_valid(place: Path) -> None:
    blocks = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "tables.md").read_text(encoding="utf-8"), flags=re.S)
    (figure,) = [block for block in blocks if block.startswith("kind =")]
    whole = [block for block in blocks if block.startswith("title =")]
    parts = [block for block in blocks if not block.startswith(("title =", "kind ="))]
    assert len(whole) == 1 and parts
    write(place, whole[0], "mine/t1")
    base = papers.load("mine", "t1")
    for number, part in enumerate(parts):
        text = re.sub(r"protocol = .*\n", "", whole[0]) if "protocol" in part else whole[0]
        top, rows = text.split("[[rows]]", 1)
        merged = f"{top}{part}\n[[rows]]{rows}" if not part.startswith("[[rows]]") else f"{text}\n{part}"
        write(place, merged, f"mine/p{number}")
        assert papers.load("mine", f"p{number}") != base.model_copy(update={"item": f"p{number}"}), part
    write(place, figure, "mine/f1")
    assert figure_items.read(place / "reports" / "mine" / "f1.toml").shows == "features"


def test_the_documentation_names_every_key() -> None:
    text = (ROOT / "docs" / "tables.md").read_text(encoding="utf-8")
    models = (papers.TableSpec, papers.Row, papers.Published, papers.Finding, papers.Hole, papers.Scheme)
    derived = {"paper", "item", "percent", "trials"}
    for model in models:
        for key in model.model_fields.keys() - derived:
            assert f"`{key}`" in text, f"{model.__name__}.{key}"
