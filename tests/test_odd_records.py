"""Records that do not fit together: each case has a defined outcome or a named refusal, in every format, and no silent NaN."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from test_tables import CLIPS, ENVIRONMENT, SEEDS, Case, a_card, a_case, a_record, a_trial, csv_rows, guesses, table_lines

from harness.experiments.records import RecordError, Runtime
from harness.reporting.collect import Measured
from harness.reporting.compare import compare_rows
from harness.reporting.tables import RenderedTable

RUNTIME = Runtime(seconds=1, epoch_seconds=(), peak_memory_mb=1, finished="now")
Spoil = Callable[[Case], None]


def against_weak(case: Case) -> None:
    """Strong beats the reference by far: its cells carry a dagger unless something forbids it."""
    case.spec = case.spec.model_copy(update={"reference": "Weak_1"})


def other_data(case: Case) -> None:
    other = a_record(a_trial("Strong", 2, a_card(simulated=True)), guesses("Strong", 2), simulated=True)
    own = case.store.folder(a_trial("Strong", 2, case.card).key) / "record.json"
    case.store.put(other, RUNTIME)
    own.write_bytes((case.store.folder(other.key) / "record.json").read_bytes())


def other_code(case: Case) -> None:
    case.lose("Strong", 2)
    trial = a_trial("Strong", 2, case.card)
    older = trial.model_copy(update={"identity": trial.identity.model_copy(update={"code": {"m": "an older state"}})})
    case.store.put(a_record(older, guesses("Strong", 2)), RUNTIME)


def other_versions(case: Case) -> None:
    trial = a_trial("Strong", 2, case.card)
    packages = {"torch": "1.13", "mer-harness": "0.0.1"}
    record = a_record(trial, guesses("Strong", 2)).model_copy(update={"environment": ENVIRONMENT.model_copy(update={"packages": packages})})
    case.store.put(record, RUNTIME)
    for row in case.plan:
        for seed in SEEDS:
            if (row, seed) != ("Strong", 2):
                usual = ENVIRONMENT.model_copy(update={"packages": {"torch": "2.13", "mer-harness": "0.0.1"}})
                record = case.store.get(a_trial(row, seed, case.card).key).model_copy(update={"environment": usual})
                case.store.put(record, RUNTIME)


def reference_lacks_a_run(case: Case) -> None:
    against_weak(case)
    case.lose("Weak_1", 2)


def no_shared_run(case: Case) -> None:
    against_weak(case)
    case.lose("Weak_1", 1)
    case.lose("Weak_1", 2)
    case.lose("Strong", 3)


def constant_row(case: Case) -> None:
    for seed in SEEDS:
        case.put("Weak_1", seed, [0.25] * CLIPS)


def constant_run_of_the_reference(case: Case) -> None:
    case.put("Strong", 2, [0.25] * CLIPS)


def one_seed(case: Case) -> None:
    case.plan = {row: trials[:1] for row, trials in case.plan.items()}


def ties_everywhere(case: Case) -> None:
    for row in case.plan:
        for seed in SEEDS:
            case.put(row, seed, guesses("Strong", 1).tolist())


def unequal_runs(case: Case) -> None:
    case.lose("ridge", 2)
    case.lose("ridge", 3)


CASES: list[Spoil] = [
    other_data,
    other_code,
    other_versions,
    reference_lacks_a_run,
    no_shared_run,
    constant_row,
    constant_run_of_the_reference,
    one_seed,
    ties_everywhere,
    unequal_runs,
]


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return a_case(tmp_path)


def spoilt(case: Case, out: Path, *spoil: Spoil) -> tuple[RenderedTable, str, str, str]:
    """What is written after ``spoil``, and its Markdown, LaTeX and console text."""
    for one in spoil:
        one(case)
    rendered = case.render(out)
    return rendered, rendered.markdown.read_text(encoding="utf-8"), rendered.latex.read_text(encoding="utf-8"), rendered.console


def cells(rendered: RenderedTable, row: str, metric: str) -> dict[str, str]:
    """The line of the CSV that holds the measured numbers of ``row`` in ``metric``."""
    return next(line for line in csv_rows(rendered) if (line["row"], line["kind"], line["metric"]) == (row, "measured", metric))


@pytest.mark.parametrize("spoil", CASES, ids=lambda spoil: spoil.__name__)
def test_no_nan_reaches_a_reader(case: Case, tmp_path: Path, spoil: Spoil) -> None:
    rendered, *texts = spoilt(case, tmp_path / "out", spoil)
    for text in [*texts, rendered.csv.read_text(encoding="utf-8")]:
        assert not re.search(r"(?i)(?<![a-z])(nan|inf)(?![a-z])", text)


@pytest.mark.parametrize("spoil", CASES, ids=lambda spoil: spoil.__name__)
def test_every_measured_cell_without_a_number_says_why(case: Case, tmp_path: Path, spoil: Spoil) -> None:
    rendered, *_ = spoilt(case, tmp_path / "out", spoil)
    for line in csv_rows(rendered):
        if line["kind"] == "measured" and line["n"] != "0" and not line["mean"]:
            assert "undefined" in line["note"], line
        if line["kind"] == "measured" and line["verdict"] == "not tested":
            assert line["note"] and not line["p_adjusted"], line


def test_a_record_of_other_data_is_left_out_and_named(case: Case, tmp_path: Path) -> None:
    rendered, markdown, latex, console = spoilt(case, tmp_path / "out", other_data)
    for text in (markdown, latex, console):
        assert "Strong: 2 of 3 runs finished" in text and "made from other data" in text and "(n = 2/3)" in text
    line = cells(rendered, "Strong", "mae")
    assert (line["n"], line["expected"], line["marks"]) == ("2", "3", "")
    assert float(line["mean"]) == pytest.approx(sum(case.measured()["Strong"].values["mae"].values()) / 2)


def test_records_of_different_data_are_never_paired(case: Case) -> None:
    measured = case.measured()
    row = measured["Weak_1"]
    foreign = {}
    for unit, run in row.records.items():
        identity = run.identity.model_copy(update={"data": "0" * 64})
        foreign[unit] = replace(run, head=run.head.model_copy(update={"identity": identity}))
    mixed = {**measured, "Weak_1": Measured("Weak_1", row.expected, foreign, row.faults, row.values)}
    with pytest.raises(RecordError, match="different data .fingerprints 0000000000000000 and ffffffffffffffff."):
        compare_rows(case.spec, mixed, resamples=100, seed=0)


def test_a_record_of_another_state_of_the_code_is_not_this_run(case: Case, tmp_path: Path) -> None:
    rendered, markdown, latex, console = spoilt(case, tmp_path / "out", other_code)
    for text in (markdown, latex, console):
        assert "Strong: 2 of 3 runs finished" in text and "seed 2: not run" in text
    assert cells(rendered, "Strong", "mae")["n"] == "2"


def test_records_of_different_versions_are_compared_and_it_is_said(case: Case, tmp_path: Path) -> None:
    rendered, markdown, latex, console = spoilt(case, tmp_path / "out", other_versions)
    for text in (markdown, latex, console):
        said = text.replace("\\", "")
        assert "torch: 2.13 in 11 runs; 1.13 in 1 run (Strong seed 2)" in said and "mer-harness:" not in said
    assert cells(rendered, "Strong", "mae")["n"] == "3"
    assert "Environments" not in a_case(tmp_path / "like").render(tmp_path / "like").markdown.read_text(encoding="utf-8")


def test_marks_need_all_pairs_and_missing_ones_are_said(case: Case, tmp_path: Path) -> None:
    whole, *_ = spoilt(case, tmp_path / "whole", against_weak)
    assert "dagger" in cells(whole, "Strong", "mae")["marks"]
    rendered, markdown, latex, console = spoilt(case, tmp_path / "out", reference_lacks_a_run)
    line = cells(rendered, "Strong", "mae")
    assert (line["n"], line["pairs"], line["pairs_expected"]) == ("3", "2", "3") and "dagger" not in line["marks"]
    for text in (markdown, latex, console):
        assert "Strong against Weak_1: 2 of 3 pairs of runs, no †" in text.replace("\\", "")
    compared = markdown[markdown.index("## Comparisons") :]
    assert all("2/3" in row for row in compared.splitlines() if row.startswith("| Strong"))
    assert re.search(r"Strong & MAE & 2/3 &", latex)
    assert not [cell for row in table_lines(markdown) if row[1].startswith("measured") for cell in row if "†" in cell]


def test_without_shared_runs_nothing_is_tested(case: Case, tmp_path: Path) -> None:
    rendered, markdown, latex, console = spoilt(case, tmp_path / "out", no_shared_run)
    line = cells(rendered, "Strong", "mae")
    assert (line["verdict"], line["pairs"], line["p"], line["note"]) == ("not tested", "0", "", "no shared runs")
    for text in (markdown, latex, console):
        assert "0 of 3 pairs of runs" in text
    assert "not tested" in latex and "not tested" in markdown


def test_constant_predictions_have_no_correlation_and_all_else(case: Case, tmp_path: Path) -> None:
    rendered, markdown, latex, console = spoilt(case, tmp_path / "out", constant_row)
    row = next(row for row in table_lines(markdown) if row[0] == "" and "n/a" in row)
    assert row[3] == "n/a" and "n/a" in latex and "n/a" in console
    corr, mae = cells(rendered, "Weak_1", "corr"), cells(rendered, "Weak_1", "mae")
    assert (corr["mean"], corr["p"], corr["verdict"]) == ("", "", "not tested") and "undefined for 3 of 3 runs of A" in corr["note"]
    assert mae["p"] and mae["verdict"] != "not tested"
    for text in (markdown, latex):
        assert "Weak_1, Corr: undefined for 3 of 3 runs of A" in text.replace("\\", "")


def test_an_undefined_run_of_the_reference_stops_the_tests_of_that_metric(case: Case, tmp_path: Path) -> None:
    rendered, markdown, *_ = spoilt(case, tmp_path / "out", constant_run_of_the_reference)
    for row in ("Weak_1", "ridge"):
        line = cells(rendered, row, "corr")
        assert (line["verdict"], line["p"]) == ("not tested", "") and "undefined for 1 of 3 runs of B" in line["note"]
        assert line["mean"], "the row's own mean is defined"
    assert cells(rendered, "Strong", "corr")["mean"] == "" and "undefined" in cells(rendered, "Strong", "corr")["note"]


def test_a_single_seed_is_tested_for_what_it_can_say(case: Case, tmp_path: Path) -> None:
    rendered, markdown, latex, console = spoilt(case, tmp_path / "out", one_seed)
    for text in (markdown, latex, console):
        assert "conditional on one training run of each system" in text
        assert not re.search(r"measured[^|&\n]*\|[^|\n]*±", text)
    line = cells(rendered, "Weak_1", "mae")
    assert line["p"] and not line["std"] and not line["p_conditional"]
    assert "needs at least 2 runs of each system: all of them" in markdown and "the seeds' part is not known" in markdown


def test_ties_everywhere_are_equivalent_and_all_best(case: Case, tmp_path: Path) -> None:
    rendered, markdown, *_ = spoilt(case, tmp_path / "out", ties_everywhere)
    for row in ("Weak_1", "majority", "ridge"):
        for metric in case.spec.metrics:
            line = cells(rendered, row, metric)
            assert (line["difference"], line["low"], line["high"], line["p"], line["verdict"]) == ("0", "0", "0", "1", "equivalent")
            assert (line["marks"], line["std"]) == ("best", "0"), "no rounding where all runs are equal"
    assert "differ by one same amount" in markdown


def test_rows_that_are_tested_otherwise_than_the_caption_says_are_named(case: Case, tmp_path: Path) -> None:
    rendered, markdown, latex, _ = spoilt(case, tmp_path / "out", unequal_runs)
    for text in (markdown, latex):
        assert re.search(
            r"Not as the caption says, but by two-level bootstrap, 1 run of each, conditional on one training run[^:]*: ridge MAE", text
        )
    assert cells(rendered, "ridge", "mae")["pairs"] == "1"
