"""Tables under fold designs: what a file may state, which runs form pairs, several protocols side by side."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from simulated_folds import drawn, learned
from test_papers import MINIMAL, write
from test_tables import CLIPS, VIDEOS, Case, a_card, a_record, a_trial, csv_rows, table_lines, truth

from harness.analysis.statistics import UNTESTED, Pair, compare
from harness.data.splits import Fold, folds
from harness.errors import ConfigError
from harness.experiments import papers
from harness.experiments.plan import Effort, plan_table
from harness.experiments.records import Predictions, Record, RecordStore, Runtime
from harness.experiments.schemes import Scheme
from harness.reporting.collect import Measured, Unit
from harness.reporting.compare import compare_rows
from harness.reporting.pairing import paired, trained_per_tested
from harness.reporting.tables import RenderedTable, render
from harness.training.metrics import metrics
from harness.training.settings import BUDGETS

ACCURACY = metrics["accuracy"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ---- what a file may state


def stating(folder: Path, protocol: str) -> tuple[Scheme, ...]:
    return papers.read(write(folder, MINIMAL.replace("\n[[rows]]", f"{protocol}\n\n[[rows]]", 1))).protocol


def test_a_protocol_is_a_word_a_table_or_several_tables(folder: Path) -> None:
    assert stating(folder, "") == stating(folder, 'protocol = "official"') == (Scheme(),)
    grouped = Scheme(kind="grouped", folds=5, validation=0.1)
    assert stating(folder, 'protocol = { kind = "grouped", folds = 5, validation = 0.1 }') == (grouped,)
    assert stating(folder, '[protocol]\nkind = "grouped"\nfolds = 5\nvalidation = 0.1') == (grouped,)
    both = stating(folder, '[[protocol]]\nkind = "grouped"\nfolds = 5\n[[protocol]]\nkind = "holdout"\ngroups = [16, 4, 4]\nrepeats = 5')
    assert [scheme.said for scheme in both] == ["5 grouped folds", "5 draws of 16/4/4 groups"]


def test_schemes_are_cut_as_the_splits_module_cuts() -> None:
    assert Scheme(kind="stratified", folds=5, repeats=2, validation=0.2).cuts() == folds(5, 2, "stratified", validation=0.2)
    assert Scheme(kind="holdout", groups=(16, 4, 4), repeats=3).cuts() == folds(0, 3, groups=(16, 4, 4))
    assert Scheme(kind="published", folds=5).cuts() == folds(5, protocol="published") and Scheme().cuts() == [Fold()]


def test_schemes_say_what_they_are() -> None:
    assert Scheme().said == Scheme().label == Scheme().described == "official split"
    named = Scheme(kind="stratified", folds=5, repeats=2, validation=0.2, name="random")
    assert (named.label, named.described) == ("random", "random (5 stratified folds, dealt 2 times, 0.2 of training validates)")


@pytest.mark.parametrize(
    ("protocol", "words"),
    [
        ('protocol = "grouped"', ["grouped", "needs a number of folds", "docs/tables.md"]),
        ('protocol = "by-actor"', ["protocol.0.kind", "by-actor"]),
        ('protocol = { kind = "grouped", fold = 5 }', ["protocol.0.fold"]),
        ('protocol = { kind = "grouped", folds = 2 }', ["2 folds"]),
        ('protocol = { kind = "holdout" }', ["holdout", "groups"]),
        ('protocol = { kind = "holdout", groups = [16, 4] }', ["protocol.0.groups"]),
        ('protocol = { kind = "official", folds = 5 }', ["no folds"]),
        ("protocol = []", ["protocol"]),
        ("protocol = 5", ["protocol", "5"]),
        ('protocol = ["official", "official"]', ["protocol.0"]),
        ('protocol = [{ kind = "official" }, { kind = "official", name = "again" }]', ["the same cuts", "official split and again"]),
        ('protocol = [{ kind = "grouped", folds = 5, name = "x" }, { kind = "official", name = "x" }]', ["protocol.name", "'x'", "twice"]),
    ],
)
def test_protocols_that_mean_nothing_are_refused(folder: Path, protocol: str, words: Sequence[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        stating(folder, protocol)
    assert all(word in str(caught.value) for word in ["t1.toml", *words]), str(caught.value)


def test_a_row_is_planned_under_every_protocol(folder: Path) -> None:
    text = MINIMAL.replace("seeds = [1, 2]", 'seeds = [1, 2]\nprotocol = ["x"]').replace(
        '["x"]', '[{ kind = "grouped", folds = 3 }, { kind = "holdout", groups = [8, 2, 2], repeats = 4 }]'
    )
    spec = papers.read(write(folder, text))
    plan = plan_table(spec, a_card(), Effort())
    assert set(plan) == {"A", "majority", "ridge"}
    for trials in plan.values():
        cuts = [(trial.identity.seed, trial.identity.fold) for trial in trials]
        assert cuts == [(seed, fold) for scheme in spec.protocol for seed in (1, 2) for fold in scheme.cuts()]
    fewer = plan_table(spec, a_card(), Effort(seeds=(7,), protocol="grouped", folds=9))  # the table's protocols, not the command's
    assert [trial.identity.seed for trial in fewer["A"]] == [7] * 7


# ---- pairs


def measured(name: str, scores: np.ndarray, pair: Pair, cuts: Sequence[Sequence[Fold]], lost: Sequence[Unit] = ()) -> Measured:
    """A row whose runs are those of ``pair``: run s under seed s, a record per cut of ``cuts[s]``, its clips in some order."""
    labels, group, deal = np.asarray(pair.truth), np.asarray(pair.clusters), np.asarray(pair.folds)
    random, records = np.random.default_rng(3), {}
    for run, run_folds in enumerate(cuts):
        for fold in run_folds:
            mine = deal[run] != UNTESTED if fold.protocol == "holdout" else deal[run] == fold.index
            clips = np.random.default_rng([4, fold.repeat, fold.index]).permutation(np.flatnonzero(mine))
            record = a_record(a_trial(name, run, a_card(), fold), np.zeros(CLIPS))
            predictions = Predictions(
                ids=tuple(f"c{i}" for i in clips),
                groups=tuple(f"actor {group[i]}" for i in clips),
                truth=tuple(map(float, labels[clips])),
                values=tuple(tuple(map(float, row)) for row in scores[run, clips]),
            )
            records[Unit(run, fold)] = record.model_copy(update={"predictions": predictions})
    units = list(records)
    random.shuffle(units)
    kept = {unit: records[unit] for unit in sorted(units, key=lambda unit: unit.seed) if unit not in lost}
    return Measured(name, tuple(records), kept, dict.fromkeys(lost, "not run"), {})


def rows(pair: Pair, cuts: Sequence[Sequence[Fold]], lost: Sequence[Unit] = ()) -> tuple[Measured, Measured]:
    return measured("A", np.asarray(pair.a), pair, cuts), measured("B", np.asarray(pair.b), pair, cuts, lost)


def joined(a: Measured, b: Measured) -> Pair:
    return paired(a, b, [unit for unit in a.records if unit in b.records])


def five(run: int, repeat: int = 0) -> list[Fold]:
    return [Fold(protocol="grouped", index=i, of=5, repeat=repeat) for i in range(5)]


def test_folds_of_one_seed_are_one_run_over_all_clips() -> None:
    world = learned(np.random.default_rng(1), runs=3)
    found = joined(*rows(world, [five(run, run) for run in range(3)]))
    mine = compare([ACCURACY], found, seed=0)[0]
    direct = compare([ACCURACY], Pair(world.a, world.b, world.truth, world.clusters, folds=world.folds, train_clips=1440 / 5 * 3), seed=0)[
        0
    ]
    assert mine.test == direct.test == "corrected t-test" and (mine.seeds, mine.clips) == (15, 1440)
    assert (mine.difference, mine.p, mine.low) == pytest.approx((direct.difference, direct.p, direct.low), rel=1e-9)
    # Nadeau and Bengio by hand: accuracies fold by fold, training on three fifths
    hits = [np.asarray(side).argmax(-1) == np.asarray(world.truth) for side in (world.a, world.b)]
    deal = np.asarray(world.folds)
    d = [hits[0][run][deal[run] == i].mean() - hits[1][run][deal[run] == i].mean() for run in range(3) for i in range(5)]
    t = np.mean(d) / np.sqrt((1 / 15 + 1 / 3) * np.var(d, ddof=1))
    assert mine.p == pytest.approx(2 * stats.t.sf(abs(t), 14), rel=1e-9)


def test_one_deal_of_whole_actors_is_tested_over_actors() -> None:
    world = learned(np.random.default_rng(2), runs=2, same_deal=True)
    found = joined(*rows(world, [five(0), five(1)]))
    outcome = compare([ACCURACY], found, seed=0, resamples=200)[0]
    assert outcome.test == "two-level bootstrap" and outcome.clusters == 24 and "5 folds, pooled" in outcome.note
    hits = [(np.asarray(side).argmax(-1) == np.asarray(world.truth)).mean() for side in (world.a, world.b)]
    assert outcome.difference == pytest.approx(hits[0] - hits[1], rel=1e-9)


def test_draws_are_runs_that_test_some_clips() -> None:
    world = drawn(np.random.default_rng(3), draws=5)
    cuts = [[Fold(protocol="holdout", groups=(16, 4, 4), repeat=run)] for run in range(5)]
    found = joined(*rows(world, cuts))
    outcome = compare([ACCURACY], found, seed=0)[0]
    hits = [np.asarray(side).argmax(-1) == np.asarray(world.truth) for side in (world.a, world.b)]
    tested = np.asarray(world.folds) != UNTESTED
    d = [hits[0][run][tested[run]].mean() - hits[1][run][tested[run]].mean() for run in range(5)]
    t = np.mean(d) / np.sqrt((1 / 5 + 4 / 16) * np.var(d, ddof=1))
    assert outcome.test == "corrected t-test" and outcome.p == pytest.approx(2 * stats.t.sf(abs(t), 4), rel=1e-9)


def test_a_lost_fold_leaves_the_others() -> None:
    world = learned(np.random.default_rng(4), runs=2)
    cuts = [five(run, run) for run in range(2)]
    found = joined(*rows(world, cuts, lost=[Unit(1, cuts[1][2])]))
    outcome = compare([ACCURACY], found, seed=0)[0]
    assert outcome.seeds == 9 and (np.asarray(found.folds) == UNTESTED).sum() == (np.asarray(world.folds)[1] == 2).sum()


@pytest.mark.parametrize("protocol", ["grouped", "holdout"])
def test_a_single_cut_is_a_fixed_split(protocol: str) -> None:
    if protocol == "holdout":
        world, cuts = drawn(np.random.default_rng(5), draws=1), [[Fold(protocol="holdout", groups=(16, 4, 4))]]
        a, b = rows(world, cuts)
    else:
        world, cuts = learned(np.random.default_rng(5), runs=1), [five(0)]
        a, b = rows(world, cuts, lost=[Unit(0, fold) for fold in cuts[0][1:]])
    found = joined(a, b)
    assert found.folds is None and compare([ACCURACY], found, seed=0, resamples=100)[0].difference == pytest.approx(
        np.mean([(side.argmax(-1) == found.truth).mean() * sign for side, sign in ((found.a, 1), (found.b, -1))]) * 2
    )


@pytest.mark.parametrize(
    ("fold", "ratio"),
    [
        (Fold(protocol="grouped", of=5), 3.0),
        (Fold(protocol="stratified", of=5, validation=0.1), 3.6),
        (Fold(protocol="holdout", groups=(16, 4, 4)), 4.0),
    ],
)
def test_training_clips_for_each_test_clip(fold: Fold, ratio: float) -> None:
    assert trained_per_tested(fold) == pytest.approx(ratio)


def test_sources_that_cannot_be_told_apart_are_a_note(folder: Path) -> None:
    """One group in each fold: what is the fold's is the group's."""
    world = learned(np.random.default_rng(6), actors=5, runs=1)
    spec = papers.read(write(folder)).model_copy(update={"metrics": ("accuracy",), "reference": "B"})
    a, b = (Measured(row.name, row.expected, row.records, {}, {"accuracy": {}}) for row in rows(world, [five(0)]))
    family = compare_rows(spec, {"A": a, "B": b}, resamples=100, seed=0, span=0)
    assert family.find("A", "accuracy") and "told apart" in family.sources["A"].note


# ---- several protocols side by side


TWO = """
title = "Made up"
datasets = ["mosi"]
metrics = ["mae", "corr"]
seeds = [1]
reference = "Strong"

[[protocol]]
name = "random"
kind = "stratified"
folds = 4

[[protocol]]
name = "by video"
kind = "grouped"
folds = 3

[[rows]]
name = "Weak"
method = "weak"
published.mosi = { mae = 0.900, corr = 0.5 }

[[rows]]
name = "Strong"
method = "strong"
"""
NOISE = {("Weak", 4): 1.0, ("Weak", 3): 1.5, ("Strong", 4): 0.3, ("Strong", 3): 0.9, ("ridge", 4): 1.2, ("ridge", 3): 1.2}


def part(fold: Fold) -> np.ndarray:
    """Clips that a fold tests: every so-manieth clip, or every so-manieth video."""
    clips = np.arange(CLIPS)
    return clips[clips % fold.of == fold.index] if fold.protocol == "stratified" else clips[clips % VIDEOS % fold.of == fold.index]


def guesses(row: str, fold: Fold) -> np.ndarray:
    rng = np.random.default_rng([fold.of, fold.index, len(row)])
    return np.round(truth()[part(fold)] + rng.normal(0, NOISE[row, fold.of], len(part(fold))), 2)


def fold_record(row: str, fold: Fold) -> Record:
    record, clips = a_record(a_trial(row, 1, a_card(), fold), np.zeros(CLIPS)), part(fold)
    shown = Predictions(
        ids=tuple(f"c{i}" for i in clips),
        groups=tuple(f"v{i % VIDEOS}" for i in clips),
        truth=tuple(truth()[clips]),
        values=tuple(map(float, guesses(row, fold))),
    )
    return record.model_copy(update={"predictions": shown})


def a_case(folder: Path) -> Case:
    spec = papers.read(write(folder, TWO, "made/t1"))
    cuts = [fold for scheme in spec.protocol for fold in scheme.cuts()]
    plan = {row: [a_trial(row, 1, a_card(), fold) for fold in cuts] for row in ("Weak", "Strong", "ridge")}
    store = RecordStore(folder / "records")
    for row in plan:
        for fold in cuts:
            store.put(fold_record(row, fold), Runtime(seconds=1, epoch_seconds=(), peak_memory_mb=1, finished="now"))
    return Case(spec, a_card(), plan, store)


@pytest.fixture
def case(folder: Path) -> Case:
    return a_case(folder)


def rendered(case: Case, out: Path) -> RenderedTable:
    return render(case.spec, case.card, BUDGETS["quick"], case.plan, case.store, out, resamples=300)


def mean_error(row: str, kind: str, of: int) -> float:
    return float(np.mean([np.abs(guesses(row, fold) - truth()[part(fold)]).mean() for fold in folds(of, protocol=kind)]))


def test_every_row_has_a_line_per_protocol_and_one_of_what_they_differ_by(case: Case, tmp_path: Path) -> None:
    text = rendered(case, tmp_path / "out").markdown.read_text(encoding="utf-8")
    lines = table_lines(text)
    assert [line[:2] for line in lines] == [
        ["Weak", "published, cited"],
        ["", "measured, random (n = 4/4)"],
        ["", "measured, by video (n = 3/3)"],
        ["", "difference, by video minus random"],
        ["Strong", "measured, reference, random (n = 4/4)"],
        ["", "measured, reference, by video (n = 3/3)"],
        ["", "difference, by video minus random"],
        ["ridge", "measured, floor, random (n = 4/4)"],
        ["", "measured, floor, by video (n = 3/3)"],
        ["", "difference, by video minus random"],
    ]
    for row, first in (("Weak", 1), ("Strong", 4), ("ridge", 7)):
        random, video = mean_error(row, "stratified", 4), mean_error(row, "grouped", 3)
        numbers = [re.sub(r"[*†]|</?u>", "", lines[first + i][2]).split(" ±")[0] for i in range(3)]
        assert numbers == [f"{random:.3f}", f"{video:.3f}", f"{video - random:+.3f}"]
    for block in (1, 2):  # best and second within a protocol
        assert "**" in lines[3 + block][2] and "<u>" in lines[block][2] + lines[6 + block][2]
    assert "random (4 stratified folds); by video (3 grouped folds), budget" in text
    assert "random: † on measured lines: better than Strong" in text and "by video: † on measured lines" in text
    assert "no test is made of them" in text and "paired t-test over repeats, which takes them for independent" in text
    assert text.count("## Comparisons with Strong: ") == 2
    assert text.count("random: All comparisons: out-of-fold predictions of 4 folds, pooled.") == text.count("4 folds, pooled") == 1


def test_each_protocol_has_a_family_of_tests_of_its_own(case: Case, tmp_path: Path) -> None:
    found = csv_rows(rendered(case, tmp_path / "out"))
    own = {(row["row"], row["protocol"]): row for row in found if row["kind"] == "measured" and row["metric"] == "mae"}
    assert set(own) == {(row, protocol) for row in ("Weak", "Strong", "ridge") for protocol in ("random", "by video")}
    for (row, protocol), cell in own.items():
        kind, of = ("stratified", 4) if protocol == "random" else ("grouped", 3)
        assert float(cell["mean"]) == pytest.approx(mean_error(row, kind, of), rel=1e-9) and (cell["n"], cell["expected"]) == (str(of),) * 2
        if row != "Strong":
            pooled = [np.concatenate([np.abs(guesses(r, f) - truth()[part(f)]) for f in folds(of, protocol=kind)]) for r in (row, "Strong")]
            assert float(cell["difference"]) == pytest.approx(pooled[0].mean() - pooled[1].mean(), rel=1e-9)
    differences = [row for row in found if row["kind"] == "difference"]
    assert {row["protocol"] for row in differences} == {"by video minus random"} and {row["p"] for row in differences} == {""}
    assert {row["protocol"] for row in found if row["kind"] == "published"} == {""}


def test_a_row_that_is_incomplete_under_one_protocol_has_no_difference(case: Case, tmp_path: Path) -> None:
    lost = case.plan["Weak"][-1]
    (case.store.folder(lost.key) / "record.json").unlink()
    text = rendered(case, tmp_path / "out").markdown.read_text(encoding="utf-8")
    lines = table_lines(text)
    assert lines[2][1] == "measured, by video (n = 2/3)" and lines[3][2:] == ["–", "–"] and lines[7][2] != "–"
    assert "by video: Weak: 2 of 3 runs finished" in text and "by video: Weak against Strong: 2 of 3 pairs" in text


def test_latex_has_both_families_under_labels_of_their_own(case: Case, tmp_path: Path) -> None:
    source = rendered(case, tmp_path / "out").latex.read_text(encoding="utf-8")
    assert re.findall(r"\\label\{(.*?)\}", source) == [f"tab:made-t1-mosi-tiny{end}" for end in ("", "-tests", "-tests-2")]
    assert re.findall(r"real data, mosi@tiny\), (\w+ ?\w*), budget", source) == ["random", "by video"]
    bodies: Mapping[str, int] = {name: source.count(rf"\begin{{{name}}}") for name in ("table", "tabular", "longtable")}
    assert bodies == {"table": 1, "tabular": 1, "longtable": 2}
    assert r"difference, by video minus random" in source and source.count("{") == source.count("}")


def test_a_trial_on_a_cut_that_is_none_of_the_tables_is_refused(case: Case, tmp_path: Path) -> None:
    case.plan["Weak"] = [a_trial("Weak", 1, a_card(), Fold(protocol="grouped", of=5))]
    with pytest.raises(ConfigError, match="one of 4 stratified folds and 3 grouped folds; row 'Weak' was planned on fold 1/5"):
        rendered(case, tmp_path / "out")
