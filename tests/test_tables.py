"""Tables: what is measured, tested, marked and written from a table's file and made-up records."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from harness.data.schema import Card, ModalityCard, Source, Task
from harness.data.splits import Fold, folds
from harness.errors import ConfigError
from harness.experiments import papers
from harness.experiments.environment import Environment
from harness.experiments.papers import TableSpec
from harness.experiments.records import Failure, Predictions, Record, RecordError, RecordStore, Runtime
from harness.experiments.trials import Identity, Trial
from harness.reporting.collect import Measured, collect
from harness.reporting.compare import choose_reference, compare_rows
from harness.reporting.latex import escape as escape_latex
from harness.reporting.layout import Cell, Line, mark_lines, number
from harness.reporting.markdown import escape as escape_markdown
from harness.reporting.tables import CSV_COLUMNS, RenderedTable, render
from harness.training.metrics import metrics
from harness.training.settings import BUDGETS

CLIPS, VIDEOS = 60, 12
SEEDS = (1, 2, 3)
SPEC_TEXT = """
title = "Made up"
citation = "Doe, J. & Roe, R. 2020. 100% of nothing"
datasets = ["mosi"]
metrics = ["mae", "corr", "acc2_nonneg"]
seeds = [1, 2, 3]
reference = "Strong"

[[rows]]
name = "Weak_1"
method = "weak"
citation = "Poe 2019"
published.mosi = { mae = 0.900, corr = 0.5, acc2_nonneg = 80.0 }

[[rows]]
name = "Strong"
method = "strong"
rerun = true
published.mosi = { mae = { mean = 0.80, std = 0.010, dagger = true }, corr = { mean = 0.50, std = 0.020 } }

[[rows]]
name = "Only | cited"
method = "future"
printed = "引用"
published.mosi = { mae = 0.850, acc2_nonneg = 70.0 }

[[holes]]
rows = ["Strong"]
metrics = ["acc2_nonneg"]
reason = "torn page"

[[findings]]
text = "Nothing adds up."
"""
NOISE = {"Weak_1": 1.4, "Strong": 0.6, "majority": None, "ridge": 1.0}  # row -> noise of its predictions, None: a constant


# ---- what tables are made from


def a_card(*, simulated: bool = False, name: str = "mosi@tiny") -> Card:
    return Card(
        name=name,
        dataset="mosi",
        title="CMU-MOSI",
        simulated=simulated,
        task=Task(kind="regression", low=-3, high=3),
        metrics=("mae", "corr"),
        modalities={"text": ModalityCard(dim=384, frames=700, shortest=1, mean_length=11.6, longest=50)},
        clips={"train": 100, "valid": 20, "test": CLIPS},
        groups={"train": 20, "valid": 4, "test": VIDEOS},
        labels={},
        source=Source(layout="made by a test"),
        best_possible={"mae": 0.5} if simulated else {},
        fingerprint="f" * 64,
    )


def a_trial(method: str, seed: int, card: Card, fold: Fold | None = None) -> Trial:
    identity = Identity(
        method=method,
        code={"m": "0"},
        config={},
        dataset=card.name,
        data=card.fingerprint,
        modalities=("text",),
        seed=seed,
        fold=fold or Fold(),
    )
    return Trial(identity=identity, budget="quick")


ENVIRONMENT = Environment(
    python="3",
    packages={},
    machine="",
    processor="",
    instructions="",
    cores=1,
    threads=1,
    device="cpu",
    commit="",
    dirty=False,
)


def truth() -> np.ndarray:
    return np.round(np.clip(np.random.default_rng(7).normal(0, 1.4, CLIPS), -3, 3), 1)


def guesses(row: str, seed: int) -> np.ndarray:
    """Predictions of one run, with two decimals."""
    noise = NOISE[row]
    if noise is None:
        return np.full(CLIPS, 0.25)
    rng = np.random.default_rng([seed, sum(map(ord, row))])
    return np.round(truth() + rng.normal(0, noise, CLIPS), 2)


def a_record(trial: Trial, values: Sequence[float], *, simulated: bool = False, labels: Sequence[float] | None = None) -> Record:
    """A finished trial with these predictions; its stored scores are wrong on purpose, tables must not believe them."""
    predictions = Predictions(
        ids=tuple(f"c{i}" for i in range(CLIPS)),
        groups=tuple(f"v{i % VIDEOS}" for i in range(CLIPS)),
        truth=tuple(truth() if labels is None else labels),
        values=tuple(map(float, values)),
    )
    return Record(
        identity=trial.identity,
        budget=trial.budget,
        simulated=simulated,
        environment=ENVIRONMENT,
        parameters=1,
        split_hash="",
        best_epoch=1,
        history=(),
        valid={},
        test={"mae": 99.0},
        predictions=predictions,
    )


@dataclass
class Case:
    """A table's file, its plan, and a store in which every run finished."""

    spec: TableSpec
    card: Card
    plan: dict[str, list[Trial]]
    store: RecordStore

    def put(self, row: str, seed: int, values: Sequence[float] | None = None) -> None:
        trial = a_trial(row, seed, self.card)
        record = a_record(trial, guesses(row, seed) if values is None else values, simulated=self.card.simulated)
        self.store.put(record, Runtime(seconds=1, epoch_seconds=(), peak_memory_mb=1, finished="now"))

    def fail(self, row: str, seed: int, message: str = "training loss is nan in epoch 3\nmore") -> None:
        trial = a_trial(row, seed, self.card)
        self.lose(row, seed)
        self.store.put_failure(Failure(identity=trial.identity, budget="quick", reason="diverged", message=message))

    def lose(self, row: str, seed: int) -> None:
        (self.store.folder(a_trial(row, seed, self.card).key) / "record.json").unlink()

    def measured(self) -> dict[str, Measured]:
        return collect(self.spec.metrics, self.card, self.plan, self.store)

    def render(self, out: Path) -> RenderedTable:
        return render(self.spec, self.card, BUDGETS["quick"], self.plan, self.store, out, resamples=500)


def a_spec(folder: Path, text: str = SPEC_TEXT) -> TableSpec:
    path = folder / "reports" / "made" / "t1.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return papers.read(path)


def a_case(folder: Path, *, simulated: bool = False, seeds: Sequence[int] = SEEDS, rows: Sequence[str] = tuple(NOISE)) -> Case:
    card = a_card(simulated=simulated)
    plan = {row: [a_trial(row, seed, card) for seed in seeds] for row in rows}
    case = Case(a_spec(folder), card, plan, RecordStore(folder / "records"))
    for row, seed in itertools.product(rows, seeds):
        case.put(row, seed)
    return case


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return a_case(tmp_path)


def table_lines(markdown: str) -> list[list[str]]:
    """Cells of the first table of a Markdown text, head and rule left out."""
    block = next(part for part in markdown.split("\n\n") if part.startswith("|"))
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in block.splitlines()[2:]]


def csv_rows(rendered: RenderedTable) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(rendered.csv.read_text(encoding="utf-8"))))


# ---- measured numbers


def test_means_and_sample_deviations_come_from_the_predictions(case: Case) -> None:
    row = case.measured()["Strong"]
    errors = [float(np.abs(guesses("Strong", seed) - truth()).mean()) for seed in SEEDS]
    assert row.mean("mae") == pytest.approx(np.mean(errors), rel=1e-12)
    assert row.std("mae") == pytest.approx(np.std(errors, ddof=1), rel=1e-12)
    correlations = [stats.pearsonr(guesses("Strong", seed), truth()).statistic for seed in SEEDS]
    assert row.mean("corr") == pytest.approx(np.mean(correlations), rel=1e-12)
    assert row.complete and row.finished == 3


def test_failed_and_missing_runs_are_counted_named_and_left_out(case: Case) -> None:
    case.fail("Weak_1", 2)
    case.lose("Weak_1", 3)
    row = case.measured()["Weak_1"]
    assert (row.finished, len(row.expected), row.complete) == (1, 3, False)
    assert {unit.seed: reason for unit, reason in row.faults.items()} == {2: "diverged: training loss is nan in epoch 3", 3: "not run"}
    assert row.mean("mae") == pytest.approx(np.abs(guesses("Weak_1", 1) - truth()).mean(), rel=1e-12)
    assert math.isnan(row.std("mae"))


def test_a_metric_that_is_undefined_for_one_run_has_no_mean(case: Case) -> None:
    case.put("Strong", 2, [0.5] * CLIPS)
    row = case.measured()["Strong"]
    assert math.isnan(row.mean("corr")) and row.undefined("corr")
    assert not math.isnan(row.mean("mae")) and not row.undefined("mae")


def test_a_damaged_record_is_a_run_that_is_missing(case: Case) -> None:
    trial = a_trial("Strong", 2, case.card)
    path = case.store.folder(trial.key) / "record.json"
    path.write_bytes(path.read_bytes().replace(b'"best_epoch":1', b'"best_epoch":2'))
    row = case.measured()["Strong"]
    assert row.finished == 2 and [reason for reason in row.faults.values() if trial.key in reason and "damaged" in reason]


def test_a_record_of_other_data_stays_out(case: Case) -> None:
    other = a_record(a_trial("Strong", 2, a_card(simulated=True)), guesses("Strong", 2), simulated=True)
    case.store.put(other, Runtime(seconds=1, epoch_seconds=(), peak_memory_mb=1, finished="now"))
    row = case.measured()["Strong"]
    assert row.finished == 2 and "other data" in " ".join(row.faults.values())


# ---- comparisons


def test_the_family_is_all_compared_rows_times_metrics(case: Case) -> None:
    family = compare_rows(case.spec, case.measured(), resamples=200, seed=0)
    assert family.reference == "Strong" and family.rows == ("Weak_1", "majority", "ridge")
    assert len(family.tests) == 3 * 3
    # Holm with the declared m: the smallest p is multiplied by all 9, though the constant's correlation could not be tested.
    made = [test for test in family.tests if not math.isnan(test.adjusted)]
    smallest = min(test.main.p for test in made if test.main)
    assert len(made) == 8
    assert min(test.adjusted for test in made) == pytest.approx(min(1.0, 9 * smallest), rel=1e-12)


def test_adjusted_values_are_holms(case: Case) -> None:
    family = compare_rows(case.spec, case.measured(), resamples=200, seed=0)
    raw = [1.0 if test.main is None or math.isnan(test.main.p) else test.main.p for test in family.tests]
    order, running, expected = sorted(range(9), key=raw.__getitem__), 0.0, {}
    for place, index in enumerate(order):
        running = max(running, min(1.0, (9 - place) * raw[index]))
        expected[index] = running
    for index, test in enumerate(family.tests):
        assert math.isnan(test.adjusted) or test.adjusted == pytest.approx(expected[index], rel=1e-12)


def test_swapping_row_and_reference_turns_every_sign(case: Case) -> None:
    measured = {name: row for name, row in case.measured().items() if name in ("Strong", "Weak_1")}
    there = compare_rows(case.spec, measured, resamples=200, seed=0)
    back = compare_rows(case.spec.model_copy(update={"reference": "Weak_1"}), measured, resamples=200, seed=0)
    verdicts = {"better": "worse", "worse": "better", "inconclusive": "inconclusive"}
    for one, other in zip(there.tests, back.tests, strict=True):
        assert one.main and other.main and one.conditional and other.conditional
        assert one.main.difference == pytest.approx(-other.main.difference, rel=1e-12)
        assert (one.main.low, one.main.high) == pytest.approx((-other.main.high, -other.main.low), rel=1e-9)
        assert one.main.p == pytest.approx(other.main.p, rel=1e-9)
        assert one.conditional.p == pytest.approx(other.conditional.p, rel=1e-9)
        assert verdicts[one.verdict(0.05)] == other.verdict(0.05)
    assert there.tests[0].verdict(0.05) == "worse"


def test_the_seeds_only_test_is_scipys_paired_t(case: Case) -> None:
    test = compare_rows(case.spec, case.measured(), resamples=200, seed=0).find("Weak_1", "mae")
    assert test and test.conditional
    errors = [[np.abs(guesses(row, seed) - truth()).mean() for seed in SEEDS] for row in ("Weak_1", "Strong")]
    assert test.conditional.p == pytest.approx(stats.ttest_rel(*errors).pvalue, rel=1e-9)
    assert test.conditional.conditional_on == "this test set"


def test_the_same_runs_in_both_rows_are_never_different(case: Case) -> None:
    for seed in SEEDS:
        case.put("Weak_1", seed, guesses("Strong", seed).tolist())
    family = compare_rows(case.spec, case.measured(), resamples=200, seed=0)
    for name in case.spec.metrics:
        test = family.find("Weak_1", name)
        assert test and test.main and test.main.difference == 0 and test.verdict(0.05) == "equivalent"


def test_only_runs_of_the_same_seed_form_pairs(case: Case) -> None:
    case.lose("Weak_1", 1)
    case.lose("Strong", 3)
    test = compare_rows(case.spec, case.measured(), resamples=200, seed=0).find("Weak_1", "mae")
    assert test and test.main and (test.pairs, test.expected) == (1, 3)
    difference = np.abs(guesses("Weak_1", 2) - truth()).mean() - np.abs(guesses("Strong", 2) - truth()).mean()
    assert test.main.difference == pytest.approx(difference, rel=1e-12)
    case.lose("Weak_1", 2)
    none = compare_rows(case.spec, case.measured(), resamples=200, seed=0).find("Weak_1", "mae")
    assert none and none.main is None and none.verdict(0.05) == "not tested"


def test_records_of_other_clips_are_not_compared(case: Case) -> None:
    trial = a_trial("Weak_1", 1, case.card)
    other = a_record(trial, guesses("Weak_1", 1), labels=(truth() + 1).tolist())
    case.store.put(other, Runtime(seconds=1, epoch_seconds=(), peak_memory_mb=1, finished="now"))
    with pytest.raises(RecordError, match="same test clips"):
        compare_rows(case.spec, case.measured(), resamples=10, seed=0)


def test_without_its_own_runs_the_reference_is_the_best_row_that_is_no_floor(tmp_path: Path) -> None:
    case = a_case(tmp_path, rows=("Weak_1", "majority", "ridge"))
    name, why = choose_reference(case.spec, case.measured())
    assert name == "Weak_1" and "Strong has no finished run" in why and "Weak_1 stands in" in why  # ridge is better, but a floor


def test_a_complete_row_stands_in_before_a_better_incomplete_one(case: Case) -> None:
    spec = case.spec.model_copy(update={"reference": "Only | cited"})
    case.lose("Strong", 1)
    assert choose_reference(spec, case.measured())[0] == "Weak_1"
    for seed in SEEDS:
        case.lose("Weak_1", seed)
    assert choose_reference(spec, case.measured())[0] == "Strong"


def test_floors_alone_leave_no_reference(tmp_path: Path) -> None:
    case = a_case(tmp_path, rows=("majority", "ridge"))
    family = compare_rows(case.spec, case.measured(), resamples=10, seed=0)
    assert family.reference is None and family.tests == () and "no other row" in family.why


# ---- marks


def a_line(values: Sequence[str], *, ranked: bool = True) -> Line:
    cells = tuple(Cell(text, value=None if text == "–" else float(text)) for text in values)
    return Line("row", "measured", "measured", cells, ranked=ranked)


def marks(columns: Sequence[Sequence[str]], names: Sequence[str], unranked: Sequence[int] = ()) -> list[list[str]]:
    """Marks by column of a table given by column."""
    lines = [a_line(row, ranked=i not in unranked) for i, row in enumerate(zip(*columns, strict=True))]
    marked = mark_lines(lines, [metrics[name] for name in names])
    return [[line.cells[i].mark for line in marked] for i in range(len(columns))]


@pytest.mark.parametrize(
    ("name", "column", "expected"),
    [
        ("corr", ["0.1", "0.3", "0.2"], ["", "best", "second"]),
        ("mae", ["0.1", "0.3", "0.2"], ["best", "", "second"]),
        ("mae", ["0.100", "0.1", "0.2", "0.20", "0.3"], ["best", "best", "second", "second", ""]),
        ("corr", ["–", "-0.3", "–"], ["", "best", ""]),
        ("corr", ["–", "–"], ["", ""]),
        ("acc7", ["53.2", "54.6", "53.2", "9.9"], ["second", "best", "second", ""]),
    ],
)
def test_best_and_second(name: str, column: list[str], expected: list[str]) -> None:
    assert marks([column], [name]) == [expected]


def test_marks_are_set_by_column_and_skip_incomplete_lines() -> None:
    assert marks([["1", "2", "3"], ["1", "2", "3"]], ["mae", "corr"], unranked=[0]) == [["", "best", "second"], ["", "second", "best"]]


@pytest.mark.parametrize(
    ("value", "name", "sign", "text"),
    [
        (0.80514, "acc7", False, "80.51"),
        (0.7005, "mae", False, "0.701"),
        (-0.0001, "corr", False, "0.000"),
        (-0.0001, "corr", True, "0.000"),
        (0.012, "corr", True, "+0.012"),
        (-0.012, "acc7", True, "-1.20"),
    ],
)
def test_numbers_as_shown(value: float, name: str, sign: bool, text: str) -> None:
    assert number(value, metrics[name], sign=sign) == text


# ---- the rendered table


def test_published_and_measured_numbers_stand_one_above_the_other(case: Case, tmp_path: Path) -> None:
    lines = table_lines(case.render(tmp_path / "out").markdown.read_text(encoding="utf-8"))
    assert [line[:2] for line in lines] == [
        [r"Weak\_1", "published, cited"],
        ["", "measured (n = 3/3)"],
        ["Strong", "published, re-run"],
        ["", "measured, reference (n = 3/3)"],
        [r"Only \| cited", "published, cited"],
        ["majority", "measured, floor (n = 3/3)"],
        ["ridge", "measured, floor (n = 3/3)"],
    ]
    published = [line[2:] for line in lines if line[1].startswith("published")]
    assert published == [
        ["0.900", "**0.5**", "**80.0**"],
        ["**0.80** ± 0.010†", "**0.50** ± 0.020", "?"],
        ["<u>0.850</u>", "–", "<u>70.0</u>"],
    ]
    assert lines[5][3] == "n/a"  # the correlation of a constant


def test_measured_marks_and_numbers(case: Case, tmp_path: Path) -> None:
    lines = table_lines(case.render(tmp_path / "out").markdown.read_text(encoding="utf-8"))
    row = case.measured()["Strong"]
    assert lines[3][2] == f"**{row.mean('mae'):.3f}** ± {row.std('mae'):.3f}"
    assert lines[6][2].startswith("<u>")


def test_a_dagger_stands_where_the_adjusted_test_finds_the_row_better(case: Case, tmp_path: Path) -> None:
    case.spec = case.spec.model_copy(update={"reference": "Weak_1"})
    rendered = case.render(tmp_path / "out")
    rows = [row for row in csv_rows(rendered) if row["kind"] == "measured"]
    daggers = {(row["row"], row["metric"]) for row in rows if "dagger" in row["marks"]}
    assert ("Strong", "mae") in daggers
    for row in rows:
        better = row["difference"] != "" and (float(row["difference"]) > 0) == metrics[row["metric"]].higher_is_better
        assert ((row["row"], row["metric"]) in daggers) == (better and row["p_adjusted"] != "" and float(row["p_adjusted"]) < 0.05)


def test_an_incomplete_row_shows_it_everywhere_and_carries_no_mark(case: Case, tmp_path: Path) -> None:
    case.fail("Strong", 3)
    case.fail("Strong", 1, "out of memory")
    rendered = case.render(tmp_path / "out")
    for text in (rendered.markdown.read_text(encoding="utf-8"), rendered.latex.read_text(encoding="utf-8"), rendered.console):
        assert "(n = 1/3)" in text
        assert "Strong: 1 of 3 runs finished" in text and "diverged: out of memory" in text
    rows = [row for row in csv_rows(rendered) if (row["row"], row["kind"]) == ("Strong", "measured")]
    assert {(row["n"], row["expected"], row["marks"]) for row in rows} == {("1", "3", "")}
    assert "1 of 3 pairs" in rendered.markdown.read_text(encoding="utf-8")


def test_an_incomplete_row_that_tests_as_better_gets_no_dagger(case: Case, tmp_path: Path) -> None:
    case.spec = case.spec.model_copy(update={"reference": "Weak_1"})
    case.lose("Strong", 3)
    rendered = case.render(tmp_path / "out")
    row = next(row for row in csv_rows(rendered) if (row["row"], row["kind"], row["metric"]) == ("Strong", "measured", "mae"))
    assert float(row["p_adjusted"]) < 0.05 and float(row["difference"]) < 0 and row["marks"] == ""


def test_a_complete_row_with_pairs_missing_gets_no_dagger(case: Case, tmp_path: Path) -> None:
    case.spec = case.spec.model_copy(update={"reference": "Weak_1"})
    case.lose("Weak_1", 3)
    rendered = case.render(tmp_path / "out")
    row = next(row for row in csv_rows(rendered) if (row["row"], row["kind"], row["metric"]) == ("Strong", "measured", "mae"))
    assert (row["n"], row["expected"], row["pairs"], row["pairs_expected"]) == ("3", "3", "2", "3")
    assert float(row["p_adjusted"]) < 0.05 and float(row["difference"]) < 0 and "dagger" not in row["marks"]


def test_a_row_without_any_finished_run_shows_the_hole(case: Case, tmp_path: Path) -> None:
    for seed in SEEDS:
        case.lose("Weak_1", seed)
    rendered = case.render(tmp_path / "out")
    assert table_lines(rendered.markdown.read_text(encoding="utf-8"))[1] == ["", "measured (n = 0/3)", "–", "–", "–"]
    assert [row["mean"] for row in csv_rows(rendered) if (row["row"], row["kind"]) == ("Weak_1", "measured")] == ["", "", ""]


def test_nothing_run_yet_still_gives_the_published_table(tmp_path: Path) -> None:
    case = Case(a_spec(tmp_path), a_card(), {}, RecordStore(tmp_path / "records"))
    text = case.render(tmp_path / "out").markdown.read_text(encoding="utf-8")
    assert "0.850" in text and "No tests" in text and "no runs" in text


def test_a_single_seed_claims_nothing_about_other_seeds(tmp_path: Path) -> None:
    rendered = a_case(tmp_path, seeds=(1,)).render(tmp_path / "out")
    assert "over 60 clips clustered by video (12), 500 resamples, conditional on one training run of each system" in rendered.console
    lines = table_lines(rendered.markdown.read_text(encoding="utf-8"))
    assert lines[1][1] == "measured (n = 1/1)" and not any("±" in cell for cell in lines[1])
    assert {row["p_conditional"] for row in csv_rows(rendered)} == {""}


@pytest.mark.parametrize(("dataset", "finding"), [("mosi", "p = 0.06"), ("mosei", "")])
def test_iidaf_t3_renders_before_anything_was_run(tmp_path: Path, dataset: str, finding: str) -> None:
    spec = papers.read(Path(__file__).parents[1] / "reports" / "iidaf" / "t3.toml")
    card = a_card().model_copy(update={"dataset": dataset})
    rendered = render(spec, card, BUDGETS["paper"], {}, RecordStore(tmp_path / "records"), tmp_path)
    text = rendered.markdown.read_text(encoding="utf-8")
    lines = table_lines(text)
    assert [line[0] for line in lines] == [row.name for row in spec.rows] and {len(line) for line in lines} == {2 + len(spec.metrics)}
    assert sum(cell == "?" for line in lines for cell in line) == 4
    assert finding in text and text.count("Findings") == 1
    assert ("p = 0.06" in text) == (dataset == "mosi")


def test_a_method_that_is_not_registered_is_cited_only(case: Case, tmp_path: Path) -> None:
    text = case.render(tmp_path / "out").markdown.read_text(encoding="utf-8")
    assert r"Only \| cited: no method called 'future' is registered." in text


@pytest.mark.parametrize("simulated", [True, False])
def test_every_format_says_whether_the_data_is_simulated(tmp_path: Path, simulated: bool) -> None:
    rendered = a_case(tmp_path, simulated=simulated).render(tmp_path / "out")
    markdown, latex = (path.read_text(encoding="utf-8") for path in (rendered.markdown, rendered.latex))
    captions = re.findall(r"\\caption\{(.*)\}", latex)
    assert len(captions) == 2
    for text in (markdown.splitlines()[0], rendered.console.splitlines()[0], latex.splitlines()[0]):
        assert ("SIMULATED DATA" in text) == simulated
    for text in (*captions, markdown, rendered.console):
        assert ("SIMULATED" in text) == simulated and ("real data, mosi@tiny" in text) == (not simulated)
    kinds = {(row["kind"], row["simulated"]) for row in csv_rows(rendered)}
    assert kinds == {("published", "no"), ("measured", "SIMULATED" if simulated else "no")}


def test_the_caption_states_budget_protocol_seeds_test_family_and_n(case: Case, tmp_path: Path) -> None:
    rendered = case.render(tmp_path / "out")
    for text in (rendered.markdown.read_text(encoding="utf-8"), rendered.console):
        for part in (
            "budget 'quick' (at most 16 epochs, 64 frames of sound or features per clip)",
            "official split",
            "seeds 1, 2, 3",
            "two-level bootstrap over 60 clips",
        ):
            assert part in text
        for part in ("clustered by video (12) and 3 seeds", "500 resamples", "family of 9 tests (3 rows × 3 metrics)", "(n = 3/3)"):
            assert part in text


def test_csv_is_complete_and_holds_fractions(case: Case, tmp_path: Path) -> None:
    rows = csv_rows(case.render(tmp_path / "out"))
    assert tuple(rows[0]) == CSV_COLUMNS and len(rows) == (3 + 4) * 3
    cell = next(row for row in rows if (row["row"], row["kind"], row["metric"]) == ("Weak_1", "published", "acc2_nonneg"))
    assert (cell["mean"], cell["std"], cell["marks"], cell["budget"]) == ("0.8", "", "best", "")
    own = next(row for row in rows if (row["row"], row["kind"], row["metric"]) == ("ridge", "measured", "mae"))
    assert float(own["mean"]) == pytest.approx(case.measured()["ridge"].mean("mae"), rel=1e-9)
    assert own["reference"] == "Strong" and float(own["p_adjusted"]) >= float(own["p"])


def test_json_says_what_the_csv_says(case: Case, tmp_path: Path) -> None:
    """The same numbers and tests, and besides each run with its record."""
    rendered = case.render(tmp_path / "out")
    content = json.loads(rendered.json.read_text(encoding="utf-8"))
    cells = {(line["row"], line["kind"], name): cell for line in content["lines"] for name, cell in line["cells"].items()}
    rows = csv_rows(rendered)
    assert len(rows) == len(cells) and content["seeds"] == list(SEEDS) and content["simulated"] is False
    for row in rows:
        cell = cells[row["row"], row["kind"], row["metric"]]
        assert row["mean"] == ("" if cell["mean"] is None else f"{cell['mean']:.10g}") and row["marks"] == " ".join(cell["marks"])
        test = cell.get("test", {})
        assert row["verdict"] == test.get("verdict", "")
        assert row["p_adjusted"] == (f"{test['p_adjusted']:.10g}" if test.get("p_adjusted") is not None else "")
    runs = cells["Weak_1", "measured", "mae"]["runs"]
    assert [run["record"] for run in runs] == [trial.key for trial in case.plan["Weak_1"]]
    assert sum(run["value"] for run in runs) / 3 == pytest.approx(cells["Weak_1", "measured", "mae"]["mean"])
    assert content["protocols"][0]["reference"] == "Strong" and "two-level bootstrap" in content["protocols"][0]["test"]
    assert content["notes"]["Findings"] == ["Nothing adds up."]


def test_the_same_inputs_give_the_same_bytes_and_other_resamples_others(case: Case, tmp_path: Path) -> None:
    first, second = case.render(tmp_path / "a"), case.render(tmp_path / "b")
    assert [path.name for path in first.paths] == [f"made_t1_mosi-tiny.{suffix}" for suffix in ("md", "tex", "csv", "json")]
    assert [path.read_bytes() for path in first.paths] == [path.read_bytes() for path in second.paths]
    assert first.console == second.console
    other = render(case.spec, case.card, BUDGETS["quick"], case.plan, case.store, tmp_path / "c", resamples=500, seed=1)
    assert other.csv.read_bytes() != first.csv.read_bytes()


def test_the_order_of_the_plan_changes_no_number(case: Case, tmp_path: Path) -> None:
    first = {tuple(row.values()) for row in csv_rows(case.render(tmp_path / "a"))}
    case.plan = {row: trials[::-1] for row, trials in reversed(case.plan.items())}
    assert {tuple(row.values()) for row in csv_rows(case.render(tmp_path / "b"))} == first


def test_a_data_set_or_a_protocol_that_is_not_the_tables_is_refused(case: Case, tmp_path: Path) -> None:
    case.card = case.card.model_copy(update={"dataset": "mosei"})
    with pytest.raises(ConfigError, match="no data set 'mosei'"):
        case.render(tmp_path / "out")
    case.card = a_card()
    case.plan["Strong"] = [a_trial("Strong", 1, case.card, folds(5)[0])]
    with pytest.raises(ConfigError, match="row 'Strong' was planned on fold 1/5"):
        case.render(tmp_path / "out")


# ---- LaTeX and Markdown are well formed


LATEX_CHARACTERS = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "[": "{[}",
    "*": "{*}",
}


@pytest.mark.parametrize("character", LATEX_CHARACTERS)
def test_latex_special_characters_print_as_themselves(character: str) -> None:
    assert escape_latex(f"a{character}b") == f"a{LATEX_CHARACTERS[character]}b"


def test_markdown_special_characters_print_as_themselves() -> None:
    assert escape_markdown("a|b_c*d\n<e>") == r"a\|b\_c\*d \<e\>"


def test_latex_is_balanced_and_every_row_has_all_columns(case: Case, tmp_path: Path) -> None:
    source = case.render(tmp_path / "out").latex.read_text(encoding="utf-8")
    lines = [line for line in source.splitlines() if not line.startswith("%")]
    code = "\n".join(lines)
    depth = list(itertools.accumulate({"{": 1, "}": -1}.get(character, 0) for character in re.sub(r"\\[{}]", "", code)))
    assert min(depth) >= 0 and depth[-1] == 0
    assert code.isascii() and not re.search(r"(?<!\\)[%#$]", code)
    opened, closed = (re.findall(rf"\\{what}\{{(\w+)\}}", code) for what in ("begin", "end"))
    assert opened == ["table", "tabular", "longtable"] and closed == ["tabular", "table", "longtable"]
    columns = {
        len(re.split(r"(?<!\\)&", line)) for line in lines if line.endswith(r"\\") and "&" in line and not line.startswith(r"\label")
    }
    assert columns == {5, 9}
    assert r"\toprule" in code and r"\midrule" in code and r"\bottomrule" in code
    assert r"Weak\_1 & published, cited & 0.900 & \bfseries 0.5 & \bfseries 80.0 \\" in lines
    own = r"Strong & published, re-run & \bfseries 0.80 {\mdseries\,\ensuremath{\pm}\,0.010\ensuremath{^{\dagger}}} &"
    assert any(line.startswith(own) for line in lines)
    assert any("S[table-format=1.3," in line and "S[table-format=2.2," in line for line in lines)


@pytest.mark.parametrize("simulated", [False, True])
def test_rendered_tables_match_the_golden_files(tmp_path: Path, golden: Callable[[str, str], None], simulated: bool) -> None:
    """The whole of every format; a failed run, a missing one and an unregistered method included."""
    case = a_case(tmp_path, simulated=simulated)
    if simulated:
        case.fail("Weak_1", 2)
        case.lose("ridge", 3)
        case.spec = case.spec.model_copy(update={"reference": "Only | cited"})
    rendered = case.render(tmp_path / "out")
    stem = "simulated" if simulated else "real"
    texts: Mapping[str, str] = {path.suffix: path.read_text(encoding="utf-8") for path in rendered.paths} | {
        ".txt": rendered.console + "\n"
    }
    for suffix, text in texts.items():
        golden(f"{stem}{suffix}", text)
