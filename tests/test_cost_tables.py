"""Tables of costs: transcription, counts against hand formulae, times that are refused, and what the files say."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from kit import call, stored, tiny_dataset
from torch import nn

from harness.analysis import complexity, latency, rounds
from harness.analysis.audit import published
from harness.analysis.latency import Latency
from harness.commands import costs
from harness.data import store
from harness.errors import ConfigError
from harness.experiments import cost_tables, papers
from harness.experiments.cost_tables import CostSpec
from harness.experiments.executors import Inline
from harness.experiments.plan import Effort, method_trials
from harness.experiments.runner import Options, run
from harness.experiments.tracking import Tracker
from harness.experiments.workspace import Workspace
from harness.reporting.page import document
from harness.training import Inputs, methods
from harness.training.loop import build

ROOT = Path(__file__).parents[1]

# The papers' tables once more, typed from their texts and not from the table files.
IIDAF_T9 = """
MuT | 2.57 | 1.9 | 21.0 | 40.0
MISA | 3.10 | 1.7 | 20.5 | 40.8
DLF | 4.53 | 1.8 | 21.6 | 44.5
本模型(w/o IAMD) | 7.28 | 1.9 | 23.5 | 45.4
本模型(w/o MIC) | 5.57 | 1.9 | 22.5 | 44.5
本模型(w/o SGAFF) | 7.39 | 1.9 | 23.7 | 44.5
本模型 | 8.63 | 1.9 | 24.5 | 45.8
"""
MIKL_T3 = """
TFN | 2.43 | 27' 13"
LMF | 1.26 | 18' 07"
MFM | 2.14 | 22' 37"
MuT | 2.57 | 32' 23"
MISA | 3.10 | 37' 42"
LNLN | 3.32 | 42' 25"
MIKL | 3.58 | 47' 35"
"""
SPEC = """
kind = "cost"
title = "Made & up"
dataset = "mosi"
columns = ["parameters", "flops", "latency", "round", "acc2_nonneg"]
clips = 100
seeds = [1, 2]
[inputs]
text = { dim = 7, frames = 4 }
audio = { dim = 3, frames = 6 }

[[rows]]
name = "LMF"
method = "lmf"
published = { parameters = 1.26, flops = 2.0, latency = 21.0, round = "18' 07\\"", acc2_nonneg = 80.10 }

[[rows]]
name = "Audio"
method = "ef_lstm"
modalities = ["audio"]

[[rows]]
name = "Cited"
published = { parameters = 9.90 }
"""


def read(folder: Path, text: str = SPEC) -> CostSpec:
    path = folder / "reports" / "made" / "t9.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return cost_tables.read(path)


# ---- the files


@pytest.mark.parametrize(("item", "typed"), [("iidaf/t9", IIDAF_T9), ("mikl/t3", MIKL_T3)])
def test_the_transcription_agrees_with_a_second_one(item: str, typed: str) -> None:
    spec = cost_tables.read(ROOT / "reports" / f"{item}.toml")
    columns = [column for column in spec.columns]
    again = [[cell.strip() for cell in line.split(" | ")] for line in typed.strip().splitlines()]
    assert [[row.printed or row.name, *(str(row.published[column]) for column in columns)] for row in spec.rows] == again


@pytest.mark.parametrize("item", ["iidaf/t9", "mikl/t3"])
def test_the_transcription_agrees_with_the_papers_text(item: str, shared: Path) -> None:
    paper, _, _ = item.partition("/")
    text = (shared / "papers" / f"{paper}.txt").read_text(encoding="utf-8")
    for row in cost_tables.read(ROOT / "reports" / f"{item}.toml").rows:
        assert "\t".join([row.printed or row.name, *map(str, row.published.values())]) in text


@pytest.mark.parametrize("item", ["iidaf/t9", "mikl/t3"])
def test_the_audit_reads_the_same_numbers(item: str) -> None:
    """The audit has a transcription of its own."""
    (table,) = [table for table in published.load(item.split("/")[0]).tables if table.item.lower() == item.split("/")[1]]
    rows = cost_tables.read(ROOT / "reports" / f"{item}.toml").rows
    columns = len(table.rows[0]) - 1  # an epoch's time is not audited
    assert [[str(cell) for cell in row.published.values()][:columns] for row in rows] == [list(row[1:]) for row in table.rows]


def test_units_are_those_of_the_heads() -> None:
    rows = cost_tables.read(ROOT / "reports" / "mikl" / "t3.toml").rows
    assert [row.value("round") for row in rows] == [1633, 1087, 1357, 1943, 2262, 2545, 2855]
    ours = cost_tables.read(ROOT / "reports" / "iidaf" / "t9.toml").rows[-1]
    assert (ours.value("parameters"), ours.value("latency"), ours.value("round")) == (8.63, 24.5, None)
    assert ours.value("acc7") == pytest.approx(0.458)


def test_tables_of_costs_are_no_tables_of_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert ("iidaf", "t9") in cost_tables.items() and ("iidaf", "t9") not in papers.items()
    assert ("iidaf", "t3") in papers.items() and ("iidaf", "t3") not in cost_tables.items()
    assert cost_tables.is_item("mikl/t3") and not cost_tables.is_item("mikl") and not cost_tables.is_item("mikl/t1")
    assert [spec.name for spec in cost_tables.of("mikl")] == ["mikl/t3"] and cost_tables.of("mosi") == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"flops"', '"flop"', ["columns", "flop", "Did you mean 'flops'"]),
        ('"mosi"', '"mosj"', ["dataset", "mosj", "Did you mean 'mosi'"]),
        ('"latency", "round"', '"latency", "latency", "round"', ["latency", "twice"]),
        ('"18\' 07\\""', "18.07", ["round", "27' 13"]),
        ("parameters = 1.26", 'parameters = "1.26"', ["parameters", "number as printed"]),
        ("acc2_nonneg = 80.10", "acc2_nonneg = 0.801", ["per cent as printed"]),
        ("acc2_nonneg = 80.10", "acc7 = 40.1", ["acc7", "no column"]),
        ('["audio"]', '["vision"]', ["Audio", "vision"]),
        ('name = "Cited"', 'name = "LMF"', ["LMF", "twice"]),
        ("dim = 7", "dim = 0", ["inputs.text.dim", "greater than 0"]),
        ('title = "Made & up"', "title = ", ["cannot be read"]),
        ("clips = 100", "clip = 100", ["clips", "Field required", "clip", "Did you mean 'clips'", "line 6"]),
    ],
)
def test_a_fault_in_a_file_is_named(tmp_path: Path, old: str, new: str, words: list[str]) -> None:
    assert old in SPEC
    with pytest.raises(ConfigError) as raised:
        read(tmp_path, SPEC.replace(old, new))
    assert all(word in str(raised.value) for word in ["t9.toml", *words])


# ---- what is counted and timed


def sizes(name: str, **settings: Any) -> int:
    config = methods[name].Config.model_validate({**methods[name].presets["mosi"], **settings})
    method = build(methods[name], Inputs({"text": 768, "audio": 5, "vision": 20}), costs.TASK, config, 0)
    return sum(parameter.numel() for parameter in method.parameters())


def test_iidafs_sizes_are_the_printed_ones() -> None:
    rows = {row.name: row for row in cost_tables.read(ROOT / "reports" / "iidaf" / "t9.toml").rows if row.method == "iidaf"}
    for row in rows.values():
        assert round(sizes("iidaf", **row.config) / 1e6, 2) == pytest.approx(row.value("parameters"), abs=0.006), row.name
    assert len(rows) == 4


def test_an_epoch_is_its_steps() -> None:
    step = Latency(batch=32, median=0.5, iqr=0.01, calls=5, rounds=1, threads=1, device="cpu")
    found = rounds.Round(step, clips=1284)
    assert (found.steps, found.seconds) == (41, 20.5)


class Slow(nn.Module):
    """Counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, batch: object) -> None:
        self.calls += 1


def test_quartiles_stand_on_at_least_five_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that takes longer than the round is timed five times all the same, and its spread is seen."""
    from types import SimpleNamespace

    times = iter([1.0, 2.0, 3.0, 4.0, 5.0])

    class Timer:
        def __init__(self, *_: object, **__: object) -> None: ...

        def blocked_autorange(self, min_run_time: float) -> Any:
            return SimpleNamespace(times=[next(times)], number_per_run=1)

        def timeit(self, number: int) -> Any:
            return SimpleNamespace(times=[next(times)])

    monkeypatch.setattr(latency, "Timer", Timer)
    monkeypatch.setattr(latency, "ROUNDS", 1)
    found = latency.time_calls(lambda: None, 1, torch.device("cpu"), warm_up=0)
    assert (found.median, found.iqr, found.calls, found.noisy) == (3.0, 2.0, 5, True)


def test_a_step_trains(tmp_path: Path) -> None:
    spec = read(tmp_path)
    config = methods["lmf"].Config()
    row = costs._Row(spec, spec.rows[0], "lmf", config)
    method = row.build()
    before = [parameter.detach().clone() for parameter in method.parameters() if parameter.requires_grad]
    found = rounds.measure(method, costs.TASK, config, row.batch(5), spec.clips, seconds=0.01)
    after = [parameter for parameter in method.parameters() if parameter.requires_grad]
    assert found.steps == 20 and found.step.batch == 5 and found.seconds > 0
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


# ---- the commands


@pytest.fixture
def place(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a table of costs and the tiny data set; times are made up."""
    stored(place / "data")
    read(place)
    timed(monkeypatch, lambda batch: (0.004, 0.0001))
    return place


def timed(monkeypatch: pytest.MonkeyPatch, times: Callable[[int], tuple[float, ...]]) -> list[int]:
    seen: list[int] = []

    def time_calls(run: Callable[[], object], clips: int, device: torch.device, threads: int = 1, *_: object) -> Latency:
        run()
        seen.append(clips)
        median, iqr, *share = times(clips)
        return Latency(clips, median, iqr, 1, 1, threads, "cpu", share=share[0] if share else 1.0)

    monkeypatch.setattr(latency, "time_calls", time_calls)
    return seen


def recorded(place: Path, *seeds: int) -> None:
    """Runs of the row LMF as the table plans them."""
    card = store.load("mosi@tiny", place / "data").card
    trials = method_trials("lmf", card, Effort(budget="smoke"), {}, seeds)

    class Unpublished(Tracker):
        def publish(self, *_: Any) -> None:
            pass

    space = Workspace(place / "results")
    run(trials, space, Inline(), Unpublished(space, "x"), Options(place / "data"), lambda event: None)


def table(text: str) -> dict[tuple[str, str], dict[str, str]]:
    """(row, kind) and column -> value of a CSV."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for line in csv.DictReader(io.StringIO(text)):
        found.setdefault((line["row"], line["kind"]), {})[line["column"]] = line["value"]
    return found


def csv_file(place: Path) -> str:
    return (place / "results" / "tables" / "made_t9_mosi-tiny.csv").read_text(encoding="utf-8")


OPTIONS = ["made/t9", "--data", "mosi@tiny", "--budget", "smoke"]


def test_reproduce_counts_and_times_every_row_that_has_a_method(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "reproduce", *OPTIONS)
    assert code == 0, err
    rows = table(csv_file(place))
    assert ("Cited", "here") not in rows and rows["Cited", "published"]["parameters"] == "9900000"
    for name, method, dims, lengths in [
        ("LMF", "lmf", {"text": 7, "audio": 3}, {"text": 4, "audio": 6}),
        ("Audio", "ef_lstm", {"audio": 3}, {"audio": 6}),
    ]:
        config = methods[method].Config.model_validate(dict(methods[method].presets.get("mosi", {})))
        built = build(methods[method], Inputs(dims), costs.TASK, config, 0)
        counted = complexity.forward(built, complexity.synthetic_batch(dims, lengths, 1, costs.TASK))
        here = rows[name, "here"]
        assert int(here["parameters"]) == sum(parameter.numel() for parameter in built.parameters())
        assert int(here["flops"]) == counted.flops
        assert float(here["latency"]) == 0.004
        assert float(here["round"]) == pytest.approx(0.004 * -(-100 // config.training.batch_size))
    assert "no finished" not in out and "acc2_nonneg" not in rows["LMF", "here"]
    markdown = (place / "results" / "tables" / "made_t9_mosi-tiny.md").read_text(encoding="utf-8")
    assert "SIMULATED" in markdown and "Cited: published only" in markdown and "0 of 2 runs finished" in markdown
    latex = (place / "results" / "tables" / "made_t9_mosi-tiny.tex").read_text(encoding="utf-8")
    assert r"Made \& up" in latex and latex.count(r"\\") >= 5 and "18' 07\"" in latex


def test_scores_and_epochs_come_from_records(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorded(place, 1)
    code, _, err = call(capsys, "report", *OPTIONS)
    assert code == 0, err
    here = table(csv_file(place))["LMF", "here"]
    space = Workspace(place / "results").store
    (key,) = space.keys()
    record, runtime = space.get(key), space.runtime(key)
    assert runtime is not None and record.test["acc2_nonneg"] is not None
    assert float(here["acc2_nonneg"]) == pytest.approx(record.test["acc2_nonneg"], rel=1e-9)
    assert min(runtime.epoch_seconds) <= float(here["round"]) <= max(runtime.epoch_seconds)
    assert "parameters" not in here and "latency" not in here, "report measures nothing"
    text = (place / "results" / "tables" / "made_t9_mosi-tiny.md").read_text(encoding="utf-8")
    assert "1 of 2 runs finished" in text and "(n = 1/2)" in text and "(records)" in text


def test_the_page_shows_costs_beside_the_printed_ones(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorded(place, 1)
    assert call(capsys, "reproduce", *OPTIONS)[0] == 0
    (part,) = document.read_all(place / "results")
    csv_rows, rows = table(csv_file(place)), {row.name: row for row in part.rows}
    parameters, flops, time, epoch, score = rows["LMF"].cells
    assert parameters.measured and parameters.measured.value == pytest.approx(int(csv_rows["LMF", "here"]["parameters"]) / 1e6)
    assert parameters.published and (parameters.published.text, parameters.published.value) == ("1.26", 1.26)
    assert parameters.outcome == "not comparable" and "another size" in parameters.reason
    assert time.measured and time.measured.value == pytest.approx(4.0) and time.published and time.published.value == 21.0
    assert flops.outcome == epoch.outcome == "not comparable" and epoch.published and epoch.published.value == 1087
    assert score.outcome == "open" and score.reason == "1 of 2 runs finished"
    assert [run.state for run in rows["LMF"].runs] == ["finished", "not run"] and rows["LMF"].runs[0].values[:4] == ("",) * 4
    assert rows["Cited"].cells[0].measured is None and rows["Cited"].expected is None
    page = (place / "results" / "index.html").read_text(encoding="utf-8")
    assert 'data-table="made_t9_mosi-tiny"' in page and "Made &amp; up" in page
    marked = page.count('title="simulated data">SIM')
    assert marked == 4, "two epochs' times, one difference and the score; counts and latencies are of no clips"
    text = json.loads((place / "results" / "tables" / "made_t9_mosi-tiny.json").read_text(encoding="utf-8"))
    lines = {(line["row"], line["kind"], line["column"]): line["value"] for line in text["lines"]}
    assert lines["LMF", "here", "parameters"] == csv_rows["LMF", "here"]["parameters"] and text["simulated"] is True


def test_parameters_are_reproduced_to_their_last_printed_digit(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    call(capsys, "reproduce", *OPTIONS)
    count = int(table(csv_file(place))["LMF", "here"]["parameters"]) / 1e6
    for printed, outcome in ((f"{count:.3f}", "reproduced"), (f"{count + 0.002:.3f}", "not comparable")):
        read(place, SPEC.replace("parameters = 1.26", f"parameters = {printed}"))
        call(capsys, "report", *OPTIONS)
        assert document.read_all(place / "results")[0].rows[0].cells[0].outcome == outcome


def test_a_restless_machines_times_are_refused_and_measured_again(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    timed(monkeypatch, lambda clips: (0.004, 0.001))
    assert call(capsys, "reproduce", *OPTIONS)[0] == 0
    text = csv_file(place)
    assert table(text)["LMF", "here"]["latency"] == "" and "refused" in text
    assert "refused: IQR 25%" in (place / "results" / "tables" / "made_t9_mosi-tiny.md").read_text(encoding="utf-8")
    timed(monkeypatch, lambda clips: (0.004, 0.0, 0.2))
    assert call(capsys, "reproduce", *OPTIONS)[0] == 0
    assert table(csv_file(place))["LMF", "here"]["latency"] == "" and "busy machine, 20% of the processor" in csv_file(place)
    seen = timed(monkeypatch, lambda clips: (0.002, 0.0))
    call(capsys, "reproduce", *OPTIONS)
    assert len(seen) == 4 and float(table(csv_file(place))["LMF", "here"]["latency"]) == 0.002
    seen.clear()
    call(capsys, "reproduce", *OPTIONS)
    assert not seen, "what is known is not measured again"
    assert call(capsys, "report", *OPTIONS)[0] == 0 and float(table(csv_file(place))["LMF", "here"]["latency"]) == 0.002


def test_what_is_kept_belongs_to_one_state_of_code_and_machine(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(capsys, "reproduce", *OPTIONS)
    path = place / "results" / "costs" / "made_t9.json"
    kept = json.loads(path.read_text())
    kept["rows"]["LMF"]["state"] = "another"
    path.write_text(json.dumps(kept))
    call(capsys, "report", *OPTIONS)
    rows = table(csv_file(place))
    assert "flops" not in rows.get(("LMF", "here"), {}) and "flops" in rows["Audio", "here"]
    path.write_text("{")
    assert call(capsys, "report", *OPTIONS)[0] == 0


def test_other_data_is_refused_before_anything_is_run(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, "reproduce", "made/t9", "--data", "mosei@x")
    assert code == 2 and "mosei@x" in err and "mosi" in err


def test_rows_whose_modalities_the_data_lack_say_so(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = tiny_dataset(name="mosi@text")
    card = tiny.card.model_copy(update={"modalities": {"text": tiny.card.modalities["text"]}})
    store.save(type(tiny)(card, tiny.clips, {"text": tiny.features["text"]}), place / "data")
    code, out, err = call(capsys, "report", "made/t9", "--data", "mosi@text")
    assert code == 0, err
    assert "no runs, mosi@text has text only" in (place / "results" / "tables" / "made_t9_mosi-text.md").read_text(encoding="utf-8")


def test_list_names_them(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "made/t9" in call(capsys, "list", "tables")[1]
