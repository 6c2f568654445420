"""Verdicts of a table and the lines that say where a difference's variance comes from."""

from __future__ import annotations

from dataclasses import replace
from math import nan

import numpy as np
import pytest
from simulated_pairs import rng, systems
from test_tables import Case, a_case, a_record, a_trial, guesses

from harness.analysis.power import Plan, plan_seeds
from harness.analysis.statistics import Comparison, Decomposition, Part, decompose
from harness.experiments.records import RecordError
from harness.reporting import compare
from harness.reporting.collect import Measured
from harness.reporting.compare import compare_rows
from harness.reporting.verdicts import source_lines, verdict_rule
from harness.training.metrics import metrics


@pytest.fixture
def case(tmp_path) -> Case:
    return a_case(tmp_path)


def outcome(difference: float, margin: float, adjusted: float) -> compare.Tested:
    main = Comparison(
        test="t",
        conditional_on="",
        metric="mae",
        difference=difference,
        p=adjusted,
        low=difference - margin,
        high=difference + margin,
        df=20.0,
    )
    return compare.Tested("row", "mae", 5, 5, main, main, adjusted, rope=0.01)


@pytest.mark.parametrize(
    ("difference", "margin", "adjusted", "verdict"),
    [
        (-0.05, 0.02, 0.001, "better"),
        (0.05, 0.02, 0.001, "worse"),
        (0.001, 0.005, 0.6, "equivalent"),
        (0.001, 0.05, 0.6, "inconclusive"),
        (0.012, 0.02, 0.2, "inconclusive"),
        (0.001, 0.0005, 0.001, "worse"),  # told apart, however small
        (0.0, 0.0, 1.0, "equivalent"),
        (0.0, 0.0, nan, "not tested"),
    ],
)
def test_verdicts(difference: float, margin: float, adjusted: float, verdict: str) -> None:
    assert outcome(difference, margin, adjusted).verdict(0.05) == verdict


def test_a_test_without_an_interval_finds_no_equivalence() -> None:
    one = outcome(0.001, nan, 0.6)
    assert one.verdict(0.05) == "inconclusive" and replace(one, main=None).verdict(0.05) == "not tested"


def test_the_region_is_half_a_point_or_a_share_of_the_label_scale(case: Case) -> None:
    family = compare_rows(case.spec, case.measured(), resamples=50, seed=0, span=2.0)
    assert {test.metric: test.rope for test in family.tests} == {"mae": pytest.approx(1 / 300), "corr": 0.005, "acc2_nonneg": 0.005}
    said = verdict_rule(case.spec.metrics, 0.05, 2.0)
    assert "Holm p at 0.05" in said and "MAE ±0.00333, Corr ±0.005, Acc-2 (neg/non-neg) ±0.5 points" in said


def test_the_variance_is_that_of_the_first_metric_of_every_compared_row(case: Case) -> None:
    for seed in (1, 2, 3):
        case.lose("ridge", seed)
    family = compare_rows(case.spec, case.measured(), resamples=50, seed=0)
    assert set(family.sources) == {"Weak_1", "majority"}  # ridge has no runs to compare
    found = family.sources["Weak_1"]
    test = family.find("Weak_1", "mae")
    assert test and test.main and found.metric == "mae" and found.difference == pytest.approx(test.main.difference)


def test_records_of_other_data_are_not_compared(case: Case) -> None:
    measured = case.measured()
    other = a_record(a_trial("Weak_1", 1, case.card.model_copy(update={"fingerprint": "e" * 64})), guesses("Weak_1", 1))
    row = measured["Weak_1"]
    mixed = Measured(row.name, row.expected, {**row.records, row.expected[0]: other}, row.faults, row.values)
    with pytest.raises(RecordError, match="different data .fingerprints"):
        compare_rows(case.spec, {**measured, "Weak_1": mixed}, resamples=10, seed=0)


# ---- in words


def line(found: Decomposition) -> str:
    return next(source_lines({"A row": found}, "speaker"))


def test_a_line_names_sources_seeds_and_what_can_be_found() -> None:
    found = decompose(metrics["mae"], systems(rng("line")))
    assert found.plan is not None
    shares = {part.name: f"{100 * part.share:.0f} %" for part in found.parts}
    text = line(found)
    assert text.startswith(f"A row: seed {shares['seed']}, speaker {shares['cluster']}, clip {shares['clip']}, seed × clip")
    assert text.endswith(f"these runs have it for {found.plan.detectable:.3f}.")


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (plan_seeds(0.5, 0.0, 31, 1.0, 5), "80 % power for a difference of this size takes 34 seeds; "),
        (plan_seeds(0.01, 0.008**2, 31, 1e-8, 5), "times as many, whatever the seeds (2 seeds for these very clips)"),
        (replace(plan_seeds(0.01, 0.008**2, 31, 1.0, 5), seeds=None, clips=1.04), "more clips than these, 1.1 times as many"),
        (plan_seeds(1e-9, 0.008**2, 31, 1.0, 5), "more clips than these, over a million times as many"),
        (plan_seeds(1e-5, 0.008**2, 31, 1.0, 5), "(over 1000 seeds for these very clips)"),
        (plan_seeds(0.0, 0.1, 31, 0.1, 5), "no difference was observed"),
        (None, "one run each: the seeds' part is not known"),
    ],
)
def test_every_plan_has_its_words(plan: Plan | None, said: str) -> None:
    part = Part("seed", 5, 1.0, 0.2, 1.0, True)
    text = line(Decomposition("mae", 0.1, 5, 100, (part,), plan))
    assert said in text and not {"nan", "inf"} & set(text.split())


def test_what_could_not_be_taken_apart_is_said() -> None:
    pair = systems(rng("said"))
    assert line(decompose(metrics["corr"], replace(pair, a=np.zeros_like(pair.a)))).startswith("A row: undefined for a run")
