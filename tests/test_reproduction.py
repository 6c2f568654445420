"""Reproduction verdicts: the rule at its edges, why cells have none, and what the counts say."""

from __future__ import annotations

from decimal import Decimal
from math import isnan, nan, sqrt
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from test_tables import Case, a_case

from harness.data.schema import ModalityCard
from harness.data.splits import Fold
from harness.experiments.papers import Published, Row
from harness.reporting.collect import Measured, Unit
from harness.reporting.reproduction import Judged, judge, judge_table, not_comparable, published_margin, sentences, summarise
from harness.training.metrics import metrics

MAE, ACC = metrics["mae"], metrics["acc2_nonneg"]


def printed(mean: str, std: str | None = None, percent: bool = False) -> Published:
    return Published(mean=Decimal(mean), std=None if std is None else Decimal(std), percent=percent)


def runs(*values: float, name: str = "mae", expected: int | None = None) -> Measured:
    """Finished runs with these values; records play no part in a verdict."""
    units = [Unit(seed, Fold()) for seed in range(expected or len(values))]
    done = dict(zip(units, values, strict=False))
    return Measured("row", tuple(units), {unit: None for unit in done}, {unit: "not run" for unit in units[len(values) :]}, {name: done})


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return a_case(tmp_path)


# ---- the rule


@pytest.mark.parametrize(
    ("mean", "outcome"),
    [("0.800", "reproduced"), ("0.780", "worse"), ("0.820", "better")],
)
def test_an_error_that_is_lower_is_better(mean: str, outcome: str) -> None:
    """Half the measured interval is 4.303 · 0.001 / sqrt 3 = 0.0025."""
    assert judge(printed(mean), runs(0.799, 0.800, 0.801), MAE, 1).outcome == outcome


@pytest.mark.parametrize(("mean", "outcome"), [("80.0", "reproduced"), ("75.0", "better"), ("85.0", "worse")])
def test_an_accuracy_that_is_higher_is_better(mean: str, outcome: str) -> None:
    found = judge(printed(mean, percent=True), runs(0.80, 0.805, 0.795, name="acc2_nonneg"), ACC, 1)
    assert found.outcome == outcome
    assert found.difference == pytest.approx(0.80 - float(mean) / 100)


@given(st.floats(0.001, 0.2), st.floats(0.001, 0.2), st.integers(2, 9))
def test_the_larger_interval_decides_and_is_scipys(own: float, theirs: float, n: int) -> None:
    values = [1.0 - own, 1.0 + own] * n
    cell = printed("0.900", f"{theirs:.3f}")
    half = np.diff(stats.t.interval(0.95, 2 * n - 1, loc=1, scale=stats.sem(values)))[0] / 2
    other = stats.t.ppf(0.975, 4) * float(f"{theirs:.3f}") / sqrt(5)
    found = judge(cell, runs(*values), MAE, seeds=5)
    assert found.margin == pytest.approx(max(half, other, 0.0005), rel=1e-9)
    assert (found.outcome == "reproduced") == (found.margin * (1 + 1e-9) >= 0.1)
    assert ("measured interval" in found.reason) == (half >= max(other, 0.0005))


def test_the_edge_belongs_to_the_interval() -> None:
    margin = published_margin(printed("0.800", "0.010"), 5)
    equal = runs(0.8 + margin, 0.8 + margin)
    assert judge(printed("0.800", "0.010"), equal, MAE, 5).outcome == "reproduced"
    beyond = runs(0.8 + 1.001 * margin, 0.8 + 1.001 * margin)
    assert judge(printed("0.800", "0.010"), beyond, MAE, 5).outcome == "worse"


def test_a_number_without_a_deviation_is_known_to_its_last_digit() -> None:
    assert published_margin(printed("0.80"), 5) == pytest.approx(0.005)
    assert published_margin(printed("80.8", percent=True), 5) == pytest.approx(0.0005)
    assert published_margin(printed("80.80", "0.00", percent=True), 5) == pytest.approx(0.00005)
    assert published_margin(printed("0.800", "0.010"), 1) == pytest.approx(0.0005)
    same = judge(printed("0.80"), runs(0.804, 0.804), MAE, 1)
    assert same.outcome == "reproduced" and "last printed digit" in same.reason


def test_one_run_is_judged_by_the_published_interval_alone() -> None:
    assert judge(printed("0.800", "0.010"), runs(0.805), MAE, 5).outcome == "reproduced"
    alone = judge(printed("0.800"), runs(0.805), MAE, 1)
    assert alone.outcome == "open" and "one run" in alone.reason


# ---- cells without a verdict


def test_unfinished_rows_are_open_and_say_how_far_they_are() -> None:
    assert judge(printed("0.8"), None, MAE, 1) == Judged("open", "not measured")
    some = judge(printed("0.8"), runs(0.8, 0.8, expected=5), MAE, 1)
    assert (some.outcome, some.reason) == ("open", "2 of 5 runs finished") and isnan(some.difference)
    assert judge(printed("0.8"), runs(0.8, nan), MAE, 1).reason == "undefined for a run"


def test_other_data_gives_a_difference_but_no_verdict() -> None:
    found = judge(printed("0.8"), runs(0.8, 0.8), MAE, 1, apart="simulated data")
    assert (found.outcome, found.reason) == ("not comparable", "simulated data") and found.difference == pytest.approx(0)


def with_widths(case: Case, **widths: int):
    cards = {name: ModalityCard(dim=dim, frames=9, shortest=1, mean_length=2, longest=5) for name, dim in widths.items()}
    return case.card.model_copy(update={"modalities": cards})


def test_what_makes_runs_incomparable(case: Case) -> None:
    row = Row(name="x")
    assert not_comparable(row, with_widths(case, text=768, audio=5, vision=20), None) == ""
    assert not_comparable(row, with_widths(case, text=300, audio=74, vision=47), None) == ""
    mixed = with_widths(case, text=768, audio=74, vision=47)
    assert "other inputs: text 768-d, audio 74-d" in not_comparable(row, mixed, None)
    assert not_comparable(row, with_widths(case, text=768, audio=5), None) == "other modalities: without vision"
    two = Row(name="x", modalities=("audio", "vision"))
    assert "with text besides" in not_comparable(two, with_widths(case, text=768, audio=5, vision=20), None)
    assert not_comparable(two, with_widths(case, audio=5, vision=20), None) == ""
    simulated = with_widths(case, text=768, audio=5, vision=20).model_copy(update={"simulated": True})
    assert not_comparable(row, simulated, None) == "simulated data"


def test_modalities_are_those_of_the_records(case: Case) -> None:
    card = with_widths(case, text=768, audio=5, vision=20)
    assert not_comparable(Row(name="x"), card, case.measured()["Strong"]) == "other modalities: without audio and vision"
    assert not_comparable(Row(name="x", modalities=("text",)), card, case.measured()["Strong"]) == ""


def test_every_printed_number_of_the_data_set_gets_an_outcome(case: Case) -> None:
    case.lose("Strong", 2)
    found = judge_table(case.spec, with_widths(case, text=768, audio=5, vision=20), case.measured())
    assert {row: {name for one, name in found if one == row} for row, _ in found} == {
        "Weak_1": {"mae", "corr", "acc2_nonneg"},
        "Strong": {"mae", "corr"},
        "Only | cited": {"mae", "acc2_nonneg"},
    }
    assert {found["Strong", name].reason for name in ("mae", "corr")} == {"2 of 3 runs finished"}
    assert found["Only | cited", "mae"].reason == "not measured"
    assert found["Weak_1", "mae"].outcome == "not comparable"


def test_rerun_rows_have_the_tables_seeds_and_cited_rows_one(case: Case) -> None:
    """A wide published deviation counts where the paper's authors ran the row, as often as the table has seeds."""
    own = np.diff(stats.t.interval(0.95, 2, loc=0, scale=stats.sem(list(case.measured()["Strong"].values["corr"].values()))))[0] / 2
    for rerun, margin in ((True, stats.t.ppf(0.975, 2) * 0.9 / sqrt(3)), (False, max(0.005, own))):
        row = case.spec.row("Strong")
        assert row
        wide = {"mosi": {"corr": printed("0.50", "0.90")}}
        row = row.model_copy(update={"modalities": ("text",), "rerun": rerun, "published": wide})
        found = judge_table(case.spec.model_copy(update={"rows": (row,)}), with_widths(case, text=768), case.measured())
        assert found["Strong", "corr"].margin == pytest.approx(margin, rel=1e-9)


# ---- summaries


def test_counts_and_sentences() -> None:
    cells = [Judged("reproduced", "a"), Judged("worse", "b"), Judged("better", "c"), Judged("worse", "d"), Judged("open", "not measured")]
    summary = summarise([*cells, Judged("open", "not measured"), Judged("not comparable", "simulated data")])
    assert dict(summary.counts) == {"reproduced": 1, "better": 1, "worse": 2, "not comparable": 1, "open": 2}
    assert summary.reasons == (("not measured", 2), ("simulated data", 1))
    assert list(sentences(summary)) == [
        "1 of 4 comparable numbers were reproduced; 1 came out better, 2 worse.",
        "2 of 7 without a verdict: not measured.",
        "1 of 7 without a verdict: simulated data.",
    ]
    assert list(sentences(summarise(cells[-1:])))[0] == "None of the 1 printed numbers can be compared yet."
    assert list(sentences(summarise([]))) == ["No published number stands here."]
