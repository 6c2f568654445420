"""``harness compare`` and ``harness rank``: every statistic reachable, each against an independent computation."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from kit import call, stored, tiny_dataset
from scipy import stats
from test_tables import CLIPS, SEEDS, Case, a_case, a_record, a_trial, guesses, truth

from harness.analysis.statistics import Scores, diagram
from harness.data import store
from harness.data.splits import Fold
from harness.errors import ConfigError
from harness.experiments.records import Predictions, Runtime
from harness.reporting.collect import Measured, collect
from harness.reporting.ranking import ranking_text
from harness.reporting.versus import Section, Versus, sections, text, versus
from harness.training.metrics import metrics

RUNTIME = Runtime(seconds=1, epoch_seconds=(), peak_memory_mb=1, finished="now")
NAMES = ["mae", "corr", "acc2_nonneg"]


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return a_case(tmp_path)


def put(case: Case, a: str = "Weak_1", b: str = "Strong") -> Versus:
    measured = case.measured()
    return versus(measured[a], measured[b], case.card, NAMES, alpha=0.05, resamples=400)


def section(found: Versus, title: str) -> Section:
    return next(one for one in sections(found) if title in one.title)


def rows(found: Versus, title: str) -> dict[str, dict[str, str]]:
    """First column -> head -> cell of one section."""
    one = section(found, title)
    return {row[0]: dict(zip(one.heads, row, strict=True)) for row in one.rows}


def errors(row: str) -> list[float]:
    return [float(np.abs(guesses(row, seed) - truth()).mean()) for seed in SEEDS]


def number(cell: str) -> float:
    return float(cell.split()[0])


# ---- several seeds of a fixed split


def test_differences_and_intervals_are_of_a_minus_b(case: Case) -> None:
    line = rows(put(case), "Test by design")["MAE"]
    a, b = errors("Weak_1"), errors("Strong")
    assert number(line["A"]) == pytest.approx(np.mean(a), abs=5e-4) and number(line["B"]) == pytest.approx(np.mean(b), abs=5e-4)
    difference = float(np.mean(a) - np.mean(b))
    assert number(line["A − B"]) == pytest.approx(difference, abs=6e-4) and difference > 0
    low, high = map(float, line["95 % interval"].strip("[]").split(", "))
    assert low < difference < high and line["Verdict"] == "worse" and "bootstrap" in line["Test"]
    back = rows(put(case, "Strong", "Weak_1"), "Test by design")["MAE"]
    assert (back["Verdict"], back["A"], back["p"]) == ("better", line["B"], line["p"])


def test_tests_over_runs_are_scipys(case: Case) -> None:
    line = rows(put(case), "Over runs only")["MAE"]
    found = stats.ttest_rel(errors("Weak_1"), errors("Strong"))
    assert line["t (df)"] == f"{found.statistic:.2f} (2)"
    shown = line["paired t-test p"]
    assert shown == "< 0.001" if found.pvalue < 0.001 else number(shown) == pytest.approx(found.pvalue, abs=6e-4)
    assert number(line["Wilcoxon p"]) == stats.wilcoxon(errors("Weak_1"), errors("Strong"), method="exact").pvalue == 0.25
    interval = found.confidence_interval(0.95)
    assert list(map(float, line["95 % t interval of A − B"].strip("[]").split(", "))) == pytest.approx(list(interval), abs=6e-4)
    assert any("cannot fall below 0.25" in note for note in section(put(case), "Over runs only").notes)


def test_effect_sizes_are_the_textbooks(case: Case) -> None:
    line = rows(put(case), "effect sizes")["MAE"]
    a, b = np.array(errors("Weak_1")), np.array(errors("Strong"))
    above = np.mean([(x > y) + 0.5 * (x == y) for x, y in itertools.product(a, b)])
    assert number(line["d_z"]) == pytest.approx((a - b).mean() / (a - b).std(ddof=1), abs=6e-3)
    assert (number(line["A12"]), number(line["r"])) == (above, 1.0)
    assert number(line["IQM A"]) == pytest.approx(stats.trim_mean(a, 0.25), abs=6e-4)


def test_hits_and_misses_are_counted_run_by_run(case: Case) -> None:
    one = section(put(case), "hits and misses")
    assert "takes clips as independent; clips of one cluster are not" in one.said and len(one.rows) == 3
    for seed, row in zip(SEEDS, one.rows, strict=True):
        right = [(guesses(name, seed) >= 0) == (truth() >= 0) for name in ("Weak_1", "Strong")]
        only_a, only_b = int((right[0] & ~right[1]).sum()), int((~right[0] & right[1]).sum())
        p = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
        assert row[1] == f"seed {seed}" and row[4] == f"only A is right on {only_a} clips, only B on {only_b}"
        assert row[3] == "< 0.001" if p < 0.001 else number(row[3]) == pytest.approx(p, abs=6e-4)


def test_swaps_posterior_intervals_and_sources_are_there(case: Case) -> None:
    found = put(case)
    swap = rows(found, "Swaps")["MAE"]
    assert "exact" in swap["Test"] and "these training runs" in swap["Holds for"]
    shares = rows(found, "Bayesian")["MAE"]
    assert sum(number(shares[head]) for head in ("below", "within", "above")) == pytest.approx(1, abs=2e-3)
    assert shares["Verdict"] == "worse" and shares["ROPE"] == "±0.010"
    interval = rows(found, "Intervals over clips")["MAE"]
    assert number(interval["A − B"]) == pytest.approx(np.mean(errors("Weak_1")) - np.mean(errors("Strong")), abs=6e-4)
    assert interval["A"].startswith(f"{np.mean(errors('Weak_1')):.3f} [")
    notes = section(found, "Variance").notes
    assert [note.partition(":")[0] for note in notes] == [metrics[name].label for name in NAMES] and "power" in notes[0]


def test_holm_is_over_the_metrics(case: Case) -> None:
    lines = rows(put(case), "Test by design")
    raw = sorted(number(line["p"].replace("< ", "")) for line in lines.values())
    smallest = min(lines.values(), key=lambda line: number(line["p"].replace("< ", "")))
    assert number(smallest["Holm p"].replace("< ", "")) == pytest.approx(min(1.0, 3 * raw[0]), abs=3e-3)


def test_missing_pairs_are_said_first(case: Case) -> None:
    case.lose("Weak_1", 1)
    case.fail("Strong", 3)
    told = text(put(case))
    assert "- INCOMPLETE: 1 of 3 pairs of runs; only these are compared." in told
    assert "Weak_1: no record of seed 1: not run" in told and "Strong: no record of seed 3: diverged" in told
    assert "conditional on one training run of each system" in told


def test_nothing_shared_is_refused(case: Case) -> None:
    case.lose("Weak_1", 1)
    case.lose("Weak_1", 2)
    case.lose("Strong", 3)
    with pytest.raises(ConfigError, match="share no finished run.*Weak_1: 1 of 3 runs finished; Strong: 2 of 3"):
        put(case)


def test_a_note_that_is_true_of_all_metrics_is_said_once(case: Case) -> None:
    case.lose("Weak_1", 1)
    case.lose("Weak_1", 3)
    notes = section(put(case), "Over runs only").notes
    assert notes[0].startswith("All: paired t-test: undefined: a t-test needs at least 2 runs") and len(notes) == 2


def test_constants_ties_and_single_runs_have_words_for_numbers(case: Case) -> None:
    for seed in SEEDS:
        case.put("Weak_1", seed, guesses("Strong", seed).tolist())
        case.put("ridge", seed, [0.25] * CLIPS)
    for told in (text(put(case)), text(put(case, "ridge")), text(put(case, "majority", "ridge"))):
        assert not re.search(r"(?i)(?<![a-z])(nan|inf)(?![a-z])", told)
    assert rows(put(case), "Test by design")["MAE"]["Verdict"] == "equivalent"
    assert rows(put(case, "ridge"), "effect sizes")["Corr"]["d_z"] == "n/a"
    assert any("undefined for 3 of 3 runs of A" in note for note in section(put(case, "ridge"), "Test by design").notes)


def test_simulated_data_is_said(tmp_path: Path) -> None:
    told = text(put(a_case(tmp_path, simulated=True)))
    assert "SIMULATED" in told.splitlines()[0] and "- SIMULATED data" in told


# ---- folds


def folded(case: Case, row: str, repeats: int, noise: float) -> Measured:
    """Out-of-fold runs: 3 folds of whole videos, clips 0, 3, 6, ... in the first."""
    plan = []
    for repeat, index in itertools.product(range(repeats), range(3)):
        trial = a_trial(row, 1, case.card, Fold(protocol="grouped", index=index, of=3, repeat=repeat))
        whole = a_record(trial, np.round(truth() + np.random.default_rng([repeat, ord(row[0])]).normal(0, noise, CLIPS), 2).tolist())
        mine = [i for i in range(CLIPS) if (i % 12 + repeat) % 3 == index]
        parts = {name: tuple(value[i] for i in mine) for name, value in whole.predictions.model_dump().items()}
        case.store.put(whole.model_copy(update={"predictions": Predictions(**parts)}), RUNTIME)
        plan.append(trial)
    return collect(NAMES, case.card, {row: plan}, case.store)[row]


@pytest.mark.parametrize("repeats", [1, 3])
def test_over_folds_the_corrected_test_stands_beside_the_plain_one(case: Case, repeats: int) -> None:
    a, b = folded(case, "a", repeats, 1.2), folded(case, "b", repeats, 0.7)
    found = versus(a, b, case.card, NAMES, alpha=0.05, resamples=400)
    line = rows(found, "Over folds")["MAE"]
    differences = [a.values["mae"][unit] - b.values["mae"][unit] for unit in a.records]
    n = len(differences)
    assert line["folds"] == str(n) == str(3 * repeats)
    assert number(line["plain t p"].replace("< ", "")) == pytest.approx(max(0.001, stats.ttest_1samp(differences, 0).pvalue), abs=6e-4)
    t = np.mean(differences) / np.sqrt((1 / n + 20 / found.pair.train_clips) * np.var(differences, ddof=1))
    assert number(line["corrected p"].replace("< ", "")) == pytest.approx(max(0.001, 2 * stats.t.sf(abs(t), n - 1)), abs=6e-4)
    titles = [one.title for one in sections(found)]
    assert not any("hits" in title or "Swaps" in title for title in titles) and any("Intervals" in title for title in titles)
    assert "grouped" not in text(found) and "repeated k-fold" in text(found)


# ---- the commands


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two data sets, and records of two floors on both."""
    root = tmp_path_factory.mktemp("place")
    stored(root / "data")
    store.save(tiny_dataset(name="mosei@tiny", seed=1), root / "data")
    return root


@pytest.fixture
def here(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    monkeypatch.chdir(place)
    monkeypatch.setenv("MER_DATA", str(place / "data"))
    monkeypatch.setenv("MER_RESULTS", str(place / "results"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if not (place / "results").exists():
        for method, data in itertools.product(("ridge", "majority"), ("mosi@tiny", "mosei@tiny")):
            assert call(capsys, "run", method, data, "--budget", "smoke", "--seeds", "2", "--inline")[0] == 0
    return place


def test_compare_reads_records_and_runs_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(path for path in (here / "results").rglob("*"))
    code, out, err = call(capsys, "compare", "ridge", "majority", "mosi@tiny", "--budget", "smoke", "--resamples", "200")
    assert code == 0, err
    assert "A: ridge, B: majority" in out and "SIMULATED" in out and "2 runs of each, 33 clips" in out
    assert sorted(path for path in (here / "results").rglob("*")) == before
    for title in (
        "Test by design",
        "Bayesian",
        "Over runs only",
        "effect sizes",
        "Intervals over clips",
        "Swaps",
        "hits and misses",
        "Variance",
    ):
        assert re.search(rf"^## .*{title}", out, re.MULTILINE), title
    one = call(
        capsys, "compare", "ridge", "majority", "mosi@tiny", "--budget", "smoke", "--metrics", "corr", "--seeds", "1", "--resamples", "200"
    )
    assert one[0] == 0 and "Acc-2" not in one[1] and "1 run of each" in one[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ridge", "ridge", "mosi@tiny"], ["ridge would be compared with itself"]),
        (["ridge", "majority", "mosi@tiny", "--metrics", "acc77"], ["no metric 'acc77'"]),
        (["ridge", "majority", "mosi@tiny", "--seeds", "7,8"], ["share no finished run", "ridge: 0 of 2 runs finished"]),
        (["ridge", "lmf", "mosi@tiny"], ["share no finished run", "lmf: 0 of 2"]),
        (["tfn", "lmf", "mosi@tiny"], ["no record of tfn or lmf on mosi@tiny"]),
        (["rigde", "majority", "mosi@tiny"], ["Did you mean 'ridge'"]),
        (["ridge", "majority", "mosi@tiny", "--set-a", "x=1"], ["no setting 'x'"]),
    ],
)
def test_what_cannot_be_compared_is_said(here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: list[str]) -> None:
    code, _, err = call(capsys, "compare", *arguments, "--budget", "smoke")
    assert code == 2 and all(word in err for word in words), err


def test_rank_orders_systems_over_data_sets(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "rank", "majority,ridge", "mosi@tiny,mosei@tiny", "--metric", "mae", "--budget", "smoke")
    assert code == 0, err
    lines = [line for line in out.splitlines() if re.match(r"\| (ridge|majority) ", line)]
    assert lines[0].split() == ["|", "ridge", "|", "1.00", "|"] and lines[1].split() == ["|", "majority", "|", "2.00", "|"]
    assert "Friedman" in out and "Not told apart: ridge, majority" in out and "mosi@tiny is SIMULATED data" in out
    code, _, err = call(capsys, "rank", "majority,lmf", "mosi@tiny,mosei@tiny", "--metric", "mae", "--budget", "smoke")
    assert code == 2 and "lmf has no score on mosi@tiny" in err


def test_a_ranking_shows_friedmans_numbers() -> None:
    values = np.random.default_rng(0).normal([0, 0.5, 2.0], 0.6, (9, 3))
    scores = Scores(values / 10 + 0.5, ["A", "B", "C"], [f"d{i}" for i in range(9)])
    told = ranking_text(diagram(scores), scores, metrics["acc7"], [])
    chi2 = stats.friedmanchisquare(*values.T).statistic
    f = 8 * chi2 / (9 * 2 - chi2)
    assert f"F(2, 16) = {f:.2f}" in told and f"chi-squared {chi2:.2f}" in told
    ranks = stats.rankdata(-values, axis=1).mean(axis=0)
    for name, rank in zip("ABC", ranks, strict=True):
        assert re.search(rf"\| {name} +\| +{rank:.2f} \|", told)
