"""The search for settings: its space, its data, its order of events, its files, and what a user types."""

from __future__ import annotations

import json
import math
import re
import shutil
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from helpers import NAMES
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import TOY, call, stored, tiny_dataset, trial

from harness.data import store
from harness.data.schema import Dataset
from harness.data.splits import Fold, cut, folds
from harness.errors import ConfigError, DataError, HarnessError
from harness.experiments import code, tracking, tuned
from harness.experiments.candidates import Candidate, passes
from harness.experiments.development import inner_parts, kept_apart, without_test
from harness.experiments.events import Evaluated, InnerRun
from harness.experiments.search import START_UP, WARM_UP, Search, curve, limits, objective, search_space
from harness.experiments.study import Proposal, TrialFiles, TrialRecord, best, conduct, open_study, propose
from harness.experiments.trials import flatten, resolve_config
from harness.experiments.worker import attempt
from harness.reporting import tuning as shown
from harness.training.contract import methods
from harness.training.loop import Epoch
from harness.training.ranges import Range, each, read_note, tunable, untuned, weight_range
from harness.training.settings import BUDGETS

ALL = ("text", "audio", "vision")
DRAWABLE, PUBLISH = shown.drawable, tracking.publish_search
FAST = ["--inline", "--confirm", "0", "--budget", "smoke"]


# ---- ranges


@given(st.floats(1e-6, 1e3), st.floats(1.1, 1e4), st.floats(0, 1e7), st.booleans())
def test_a_range_widens_to_hold_what_it_can_and_names_the_nearest_value(low: float, ratio: float, value: float, log: bool) -> None:
    narrow = Range(low=low, high=low * ratio, log=log)
    wide = narrow.around(value)
    assert narrow.nearest(value) == min(max(value, low), low * ratio)
    assert wide.low <= low and wide.high >= low * ratio
    nearest = wide.nearest(value)
    assert isinstance(nearest, float) and wide.low <= nearest <= wide.high
    assert nearest == value or (log and value == 0 and nearest == low)


def test_whole_numbers_stay_whole_and_choices_keep_their_order() -> None:
    assert Range(low=4, high=32, log=True).around(64) == Range(low=4, high=64, log=True)
    assert Range(choices=(16, 32)).around(24).choices == (16, 24, 32)
    assert Range(choices=("a", "b")).around("c").choices == ("a", "b", "c")
    assert Range(choices=(32, 64)).around(None).choices == (32, 64, None)
    assert not Range(low=0.0, high=1.0).whole and Range(low=0, high=2).whole


@pytest.mark.parametrize("wrong", [{"low": 2, "high": 1}, {"low": 0.0, "high": 1.0, "log": True}, {"low": 1}, {}])
def test_an_empty_range_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="range|search"):
        tunable(**wrong)


def test_notes_read_back_as_written() -> None:
    parts = each(width=tunable(8, 64, log=True), dropout=tunable(0.0, 0.5))["tune"]
    assert read_note(tunable(0.0, 0.6)["tune"], "text") == Range(low=0.0, high=0.6)
    assert read_note(parts, "width") == Range(low=8, high=64, log=True)
    assert read_note(parts, "dropout") == Range(low=0.0, high=0.5)
    assert read_note(parts, "other") is None and untuned()["tune"] is None


@given(st.floats(1e-6, 1e4))
def test_a_loss_weight_lies_within_its_range(value: float) -> None:
    found = weight_range(value)
    assert found.log and found.low < value < found.high and math.isclose(found.high / found.low, 1000)
    assert weight_range(0.0).low > 0


# ---- the space of a method


def space_of(name: str, wanted: Sequence[str] = (), modalities: Sequence[str] = ALL, **fixed: Any) -> dict[str, Range]:
    fixed = {key.replace("__", "."): value for key, value in fixed.items()}
    config = resolve_config(methods[name], "mosi", BUDGETS["quick"], "cpu", fixed)
    return search_space(config, modalities, wanted, fixed)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("majority", "ridge", "logistic")])
@pytest.mark.parametrize("dataset", ["mosi", "mosei"])
def test_every_proposal_within_a_methods_ranges_is_a_valid_configuration(name: str, dataset: str) -> None:
    config = resolve_config(methods[name], dataset, BUDGETS["quick"], "cpu", {})
    space = search_space(config, ALL, (), {})
    assert {"training.learning_rate", "training.weight_decay", "training.batch_size"} <= set(space)
    assert {f"weights.{weight}" for weight in config.weights.model_dump()} - set(space) <= {"weights.discrimination"}
    ends = [{key: (r.choices[place] if r.choices else (r.low, r.high)[place]) for key, r in space.items()} for place in (0, -1)]
    for chosen in [*ends, *({key: value} for end in ends for key, value in end.items())]:
        found = dict(flatten(resolve_config(methods[name], dataset, BUDGETS["quick"], "cpu", chosen).model_dump()))
        assert all(found[key] == value for key, value in chosen.items())


def test_fields_are_found_by_name_group_and_modality() -> None:
    assert set(space_of("misa", ["weights"])) == {"weights.similarity", "weights.difference", "weights.reconstruction"}
    assert set(space_of("tfn", ["dropout", "training.learning_rate"], ("text", "audio"))) == {
        "dropout.text",
        "dropout.audio",
        "training.learning_rate",
    }
    assert "hidden.text" not in space_of("tfn", hidden__text=64) and "hidden.audio" in space_of("tfn", hidden__text=64)
    assert {"keep.width", "keep.dropout", "memory"} <= set(space_of("mfn"))
    assert "weights.discrimination" not in space_of("iidaf") and "text_encoder.learning_rate" not in space_of("iidaf")
    assert space_of("mult")["width"].choices == (30, 50, 60, 90)  # with the published one


@pytest.mark.parametrize(
    ("wanted", "fixed", "words"),
    [
        (["hiden"], {}, ["hiden", "no such setting", "Did you mean 'hidden"]),
        (["weights"], {}, ["weights", "no such loss weight", "training.learning_rate"]),
        (["training.max_epochs"], {}, ["training.max_epochs", "no range"]),
        (["text_out"], {"text_out": 8}, ["text_out", "fixed by --set"]),
        ([], dict.fromkeys(("hidden", "dropout"), None), []),
    ],
)
def test_a_field_that_cannot_be_searched_is_refused_by_name(wanted: list[str], fixed: dict[str, Any], words: list[str]) -> None:
    config = resolve_config(methods["tfn"], "mosi", BUDGETS["quick"], "cpu", {})
    if not words:
        assert not any(key.startswith(("hidden", "dropout")) for key in search_space(config, ALL, wanted, fixed))
        return
    with pytest.raises(ConfigError) as caught:
        search_space(config, ALL, wanted, fixed)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_nothing_left_to_search_is_said() -> None:
    config = resolve_config(methods["tfn"], "mosi", BUDGETS["quick"], "cpu", {})
    everything = {key: 1 for key in search_space(config, ALL, (), {})}
    with pytest.raises(ConfigError, match="nothing is left"):
        search_space(config, ALL, (), everything)


def test_a_range_changes_no_fingerprint_and_no_configuration() -> None:
    bare = b"from pydantic import Field\nclass Config(Base):\n    x: int = Field(3, ge=1)\n"
    noted = (
        b"from pydantic import Field\nfrom harness.training.ranges import tunable\n"
        b"class Config(Base):\n    x: int = Field(3, ge=1, json_schema_extra=tunable(1, 9))\n"
    )
    other = noted.replace(b"(3,", b"(4,")
    prints = [code._parse(source, "m", False)[0] for source in (bare, noted, other)]
    assert prints[0] == prints[1] != prints[2]
    found = code.fingerprints("baselines.tfn")
    assert "baselines.tfn" in found and "harness.training.ranges" not in found
    assert "tune" not in json.dumps(methods["mfn"].Config().model_dump(mode="json"))


# ---- curves and limits


def run_of(losses: Sequence[float], seed: int = 1) -> InnerRun:
    epochs = (Epoch(epoch=n, train_loss=1.0, losses={}, valid_loss=loss, learning_rate=0.1) for n, loss in enumerate(losses, 1))
    return InnerRun(seed=seed, history=tuple(epochs))


def test_the_curve_is_the_mean_of_lowest_losses_so_far() -> None:
    runs = [run_of([3.0, 1.0, 2.0]), run_of([5.0, 4.0, 0.5, 9.0])]
    assert curve(runs, 5) == {1: 3.0, 2: 1.0, 3: 1.0, 6: 3.0, 7: 2.5, 8: 0.75, 9: 0.75}
    assert objective(runs) == 0.75 == list(curve(runs, 5).values())[-1]


losses = st.lists(st.floats(0.1, 10), min_size=1, max_size=8)


@given(st.lists(st.tuples(losses, losses), min_size=1, max_size=9), st.tuples(losses, losses))
@settings(max_examples=40, deadline=None)
def test_limits_give_up_what_optunas_median_pruner_gives_up(known: list[tuple[list[float], list[float]]], new: Any) -> None:
    """The pruner sees the same curves, with the steps filled that a run did without (it would compare with fewer trials there)."""
    epochs = 8
    curves = [curve([run_of(run) for run in runs], epochs) for runs in known]
    limit = limits(curves, epochs, 2)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=START_UP, n_warmup_steps=0)
    reference = optuna.create_study(pruner=pruner)
    for one in curves:
        filled = {step: one[max(s for s in one if s <= step)] for step in range(1, 2 * epochs + 1)}
        reference.add_trial(optuna.trial.create_trial(value=1.0, intermediate_values=filled))
    asked = reference.ask()
    for step, value in curve([run_of(run) for run in new], epochs).items():
        asked.report(value, step)
        frozen = reference.get_trials()[asked.number]
        early = (step - 1) % epochs < WARM_UP
        # Optuna compares the best value so far; a curve of means may rise where its second run begins: the present one counts.
        lowest = min(v for s, v in frozen.intermediate_values.items() if s <= step)
        if lowest == value:
            assert passes(step, value, limit) == (asked.should_prune() and not early), (step, value, limit)
        else:
            assert passes(step, value, limit) or early or not asked.should_prune()


def test_there_are_no_limits_before_enough_trials_finished() -> None:
    assert limits([{1: 1.0}] * (START_UP - 1), 4, 2) == (None,) * 8
    found = limits([{1: float(n)} for n in range(START_UP)], 4, 2)
    assert found == (None, None, None, 2.0, None, None, None, 2.0)


# ---- development data


@pytest.mark.parametrize("fold", [Fold(), *folds(3), *folds(3, protocol="stratified", validation=0.2)[:1]])
def test_development_data_hold_what_trains_and_validates_and_nothing_else(fold: Fold) -> None:
    whole = tiny_dataset()
    parts, found = cut(whole, fold), without_test(whole, fold)
    assert set(found.clips["id"]) == {*parts["train"].ids, *parts["valid"].ids} and not set(found.clips["id"]) & set(parts["test"].ids)
    for role in ("train", "valid"):
        old, new = parts[role], found.rows(np.flatnonzero(found.clips["split"] == role).tolist())
        assert sorted(old.ids) == sorted(new.ids)
        place = {clip: row for clip, row in zip(old.ids, old.rows.tolist(), strict=True)}
        for clip, row, label in zip(new.ids, new.rows.tolist(), new.labels.tolist(), strict=True):
            assert all(torch.equal(whole.features[m].clip(place[clip]), found.features[m].clip(row)) for m in whole.features)
            assert label == pytest.approx(whole.clips["label"][place[clip]], rel=1e-6)
    assert all(len(r.values) == int(r.lengths.sum()) == int(r.offsets[-1]) for r in found.features.values())


def test_the_files_that_a_trial_may_open_hold_no_value_of_a_test_clip(tmp_path: Path) -> None:
    whole = tiny_dataset()
    test = cut(whole, Fold())["test"]
    kept_apart(whole, Fold(), tmp_path)
    content = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    frame = whole.features["text"].clip(int(cut(whole, Fold())["train"].rows[0]))[0].numpy().tobytes()
    assert frame in content
    assert not any(whole.features["text"].clip(row)[0].numpy().tobytes() in content for row in test.rows.tolist())
    assert store.load("mosi@tiny", tmp_path, verify=True).card.clips == {"train": 60, "valid": 21}


def test_inner_folds_deal_groups_and_refuse_clips_that_test() -> None:
    whole = tiny_dataset()
    found = without_test(whole, Fold())
    tested: list[str] = []
    for number in range(4):
        train, valid = inner_parts(found, number, 4)
        assert not set(train.groups) & set(valid.groups) and len(train) + len(valid) == len(found)
        tested += valid.ids
    assert sorted(tested) == sorted(found.clips["id"])
    with pytest.raises(DataError, match="test"):
        inner_parts(whole, 0, 0)


# ---- one trial


def candidate(root: Path, tmp_path: Path, limit: Sequence[float | None] = (), **overrides: Any) -> Candidate:
    one = trial(store.load("mosi@tiny", root), **overrides)
    return Candidate(one, root, tmp_path / f"{one.key}.pt", 0.0, TOY, seeds=(7001, 7002), limits=tuple(limit))


def evaluate(job: Candidate) -> Any:
    events: list[Any] = []
    attempt(job, events.append)
    return events[-1]


def test_a_trial_sees_development_data_only_and_test_clips_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    original = store.load

    def spy(name: str, root: Path, **options: Any) -> Dataset:
        opened.append(root)
        return original(name, root, **options)

    monkeypatch.setattr(store, "load", spy)
    whole = tiny_dataset()
    spoiled = spoil_test_clips(whole)
    found = []
    for number, data in enumerate((whole, spoiled)):
        store.save(data, tmp_path / f"real{number}")
        kept_apart(store.load("mosi@tiny", tmp_path / f"real{number}"), Fold(), tmp_path / f"apart{number}")
        job = candidate(tmp_path / f"apart{number}", tmp_path)
        shutil.rmtree(tmp_path / f"real{number}")
        opened.clear()
        found.append(evaluate(job))
        assert opened == [tmp_path / f"apart{number}"]
    assert isinstance(found[0], Evaluated) and found[0].runs == found[1].runs


def spoil_test_clips(whole: Dataset) -> Dataset:
    """The same data set with other labels and features of the clips that test."""
    rows = cut(whole, Fold())["test"].rows
    clips = whole.clips.copy()
    clips.loc[rows.numpy(), "label"] = 3.0
    features = {}
    for name, ragged in whole.features.items():
        values = ragged.values.clone()
        for row in rows.tolist():
            values[int(ragged.offsets[row]) : int(ragged.offsets[row + 1])] = 1e6
        features[name] = replace(ragged, values=values)
    return replace(whole, clips=clips, features=features)


def test_a_trial_on_data_that_test_is_refused(tmp_path: Path) -> None:
    stored(tmp_path)
    failed = evaluate(candidate(tmp_path, tmp_path))
    assert failed.failure.reason == "error" and "test" in failed.failure.message


def test_a_trial_that_passes_its_limit_is_given_up_there(tmp_path: Path) -> None:
    kept_apart(tiny_dataset(), Fold(), tmp_path)
    whole = evaluate(candidate(tmp_path, tmp_path))
    values = curve(whole.runs, 6)
    assert not whole.pruned and [len(run.history) for run in whole.runs] == [6, 6]
    limit = [None] * 8 + [values[9] - 1e-6] + [None] * 3
    given_up = evaluate(candidate(tmp_path, tmp_path, limit))
    assert given_up.pruned and curve(given_up.runs, 6) == {step: values[step] for step in range(1, 10)}
    kept = evaluate(candidate(tmp_path, tmp_path, [None] * 8 + [values[9]] + [None] * 3))
    assert not kept.pruned and kept.runs == whole.runs


class Killed(BaseException):
    pass


def test_a_trial_that_was_killed_continues_with_the_same_numbers(tmp_path: Path) -> None:
    kept_apart(tiny_dataset(), Fold(), tmp_path)
    whole = evaluate(candidate(tmp_path, tmp_path / "a"))
    for step in (1, 6, 7, 11):
        steps = 0

        def stop(event: Any, at: int = step) -> None:
            nonlocal steps
            steps += type(event).__name__ == "EpochDone"
            if steps > at:
                raise Killed

        with pytest.raises(Killed):
            attempt(candidate(tmp_path, tmp_path / f"b{step}"), stop)
        again: list[Any] = []
        attempt(candidate(tmp_path, tmp_path / f"b{step}"), again.append)
        assert again[-1].runs == whole.runs
        assert sum(type(event).__name__ == "EpochDone" for event in again) < 12


# ---- the search, with an objective that costs nothing


def search(together: int = 4, epochs: int = 6) -> Search:
    dataset = tiny_dataset()
    one = trial(dataset, training__max_epochs=epochs)
    config = methods["toy"].Config.model_validate(one.identity.config)
    space = search_space(config, ("text", "audio"), ["hidden", "dropout", "training", "weights"], {})
    return Search(
        method="toy", code={}, config=one.identity.config, fixed={}, space=space, dataset="mosi@tiny", data="d",
        modalities=("text", "audio"), fold=Fold(), seeds=(7001, 7002), budget="quick", together=together,
    )  # fmt: skip


def made_up(one: Search, proposal: Proposal) -> TrialRecord:
    """A smooth function of the settings, falling over the epochs; given up at its limits."""
    s = proposal.settings
    final = 1 + (math.log10(s["training.learning_rate"]) + 3) ** 2 / 4 + (s["dropout"] - 0.2) ** 2 + abs(math.log2(s["hidden"]) - 4) / 10
    runs = []
    for seed in one.seeds:
        history: list[float] = []
        for epoch in range(1, 7):
            history.append(final * (1 + 1 / epoch))
            now = curve([*runs, run_of(history, seed)], 6)
            if passes(max(now), now[max(now)], proposal.limits):
                return TrialRecord(
                    search=one.key, number=proposal.number, settings=s, outcome="pruned", runs=(*runs, run_of(history, seed))
                )
        runs.append(run_of(history, seed))
    return TrialRecord(search=one.key, number=proposal.number, settings=s, outcome="finished", objective=objective(runs), runs=tuple(runs))


def write(action: Callable[[], None], what: str) -> None:
    action()


def go(one: Search, trials: int, folder: Path, order: int = 1, stop_after: int = 10**6) -> list[TrialRecord]:
    count = 0

    def evaluate_all(proposals: Sequence[Proposal], keep: Callable[[TrialRecord], None]) -> None:
        nonlocal count
        for proposal in list(proposals)[::order]:
            count += 1
            if count > stop_after:
                raise Killed
            keep(made_up(one, proposal))

    return conduct(one, trials, folder, evaluate_all, write)


class Trials(list[TrialRecord]):
    def __repr__(self) -> str:  # hypothesis prints all arguments of a test, and warns where that is long
        return f"{len(self)} trials"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[TrialRecord]:
    return Trials(go(search(), 26, tmp_path_factory.mktemp("undisturbed")))


def test_the_published_settings_are_trial_0_and_the_search_improves_on_them(undisturbed: list[TrialRecord]) -> None:
    one = search()
    assert undisturbed[0].settings == one.published and undisturbed[0].settings["training.weight_decay"] == 0.0
    assert [trial.number for trial in undisturbed] == list(range(26))
    assert len({json.dumps(trial.settings) for trial in undisturbed}) == 26  # resumed samplers would repeat themselves
    found = best(undisturbed)
    assert found is not None and found.objective is not None and found.objective < undisturbed[0].objective  # type: ignore[operator]
    assert found.objective == min(trial.objective for trial in undisturbed if trial.objective is not None)
    assert {"finished", "pruned"} == {trial.outcome for trial in undisturbed}
    for trial_ in undisturbed[1:]:
        for key, value in trial_.settings.items():
            range_ = one.space[key]
            assert value in range_.choices if range_.choices else range_.low <= value <= range_.high


def test_a_sampler_that_learns_beats_random_settings(undisturbed: list[TrialRecord]) -> None:
    def typical(trials: Sequence[TrialRecord]) -> float:
        return statistics.median(max(curve(trial.runs, 6).values()) for trial in trials)

    assert typical(undisturbed[14:]) < typical(undisturbed[1:10])


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.sampled_from([1, -1]))
@settings(max_examples=8, deadline=None)
def test_interruptions_and_the_order_of_workers_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, undisturbed: list[TrialRecord], stops: list[int], order: int
) -> None:
    folder = tmp_path_factory.mktemp("disturbed")
    for stop in stops:
        with pytest.raises(Killed):
            go(search(), 26, folder, order, stop)
        tear(folder)
    assert go(search(), 26, folder, order) == undisturbed
    journal = open_study(search(), folder).get_trials()
    assert [one.user_attrs["settings"] for one in journal] == [one.settings for one in undisturbed]
    assert [one.value for one in journal if one.state.name == "COMPLETE"] == [
        one.objective for one in undisturbed if one.outcome == "finished"
    ]


def tear(folder: Path) -> None:
    """What a kill in the middle of a write may leave: half a line, a lock, half a trial file."""
    with open(folder / "journal.log", "ab") as file:
        file.write(b'{"op_code":4,"worker')
    (folder / "journal.log.lock").touch()
    newest = max((folder / "trials").glob("*.json"), default=None)
    if newest is not None:
        newest.write_bytes(newest.read_bytes()[:50])


def test_more_trials_go_on_from_those_that_are_there(tmp_path: Path, undisturbed: list[TrialRecord]) -> None:
    assert go(search(), 12, tmp_path) == undisturbed[:12]
    assert go(search(), 26, tmp_path) == undisturbed


def test_a_trial_file_of_other_settings_is_not_taken(tmp_path: Path, undisturbed: list[TrialRecord]) -> None:
    wrong = undisturbed[2].model_copy(update={"settings": undisturbed[3].settings, "objective": 0.0})
    TrialFiles(tmp_path).put(wrong)
    assert go(search(), 4, tmp_path) == undisturbed[:4]


def test_proposals_depend_on_earlier_batches_alone(undisturbed: list[TrialRecord]) -> None:
    one = search()
    first = propose(one, undisturbed[:12], range(12, 16))
    assert first == propose(one, undisturbed[:12], range(12, 16))
    assert [proposal.settings for proposal in first] == [trial.settings for trial in undisturbed[12:16]]
    other = [trial.model_copy(update={"objective": 5.0 - (trial.objective or 0)}) for trial in undisturbed[:12]]
    assert [p.settings for p in propose(one, other, range(12, 16))] != [p.settings for p in first]


def test_the_key_of_a_search_changes_with_all_that_can_change_what_it_finds() -> None:
    one = search()
    changes: dict[str, Any] = {
        "method": "other", "code": {"m": "1"}, "config": {}, "fixed": {"a": 1}, "space": {"hidden": Range(low=1, high=2)}, "data": "e",
        "modalities": ("text",), "fold": Fold(protocol="grouped", of=3), "seeds": (1,), "inner_folds": 3, "budget": "paper", "together": 2,
    }  # fmt: skip
    keys = {one.model_copy(update={field: value}).key for field, value in changes.items()}
    assert len(keys | {one.key}) == len(changes) + 1
    assert one.model_copy(update={"dataset": "mosi@renamed"}).key == one.key


def test_trials_that_diverge_are_avoided_and_a_search_that_only_fails_stops(tmp_path: Path) -> None:
    def end(outcome: str) -> Any:
        def evaluate_all(proposals: Sequence[Proposal], keep: Callable[[TrialRecord], None]) -> None:
            for p in proposals:
                ended = {"search": "s", "number": p.number, "settings": p.settings, "outcome": outcome, "message": "a reason"}
                keep(TrialRecord.model_validate(ended))

        return evaluate_all

    found = conduct(search(), 8, tmp_path / "a", end("diverged"), write)
    assert best(found) is None and {one.state.name for one in open_study(search(), tmp_path / "a").get_trials()} == {"PRUNED"}
    with pytest.raises(HarnessError, match="all of the first 4 trials failed; the published settings: a reason"):
        conduct(search(), 8, tmp_path / "b", end("failed"), write)


# ---- preset files


def preset(**changes: Any) -> tuned.Tuned:
    found = tuned.Found(
        fold=Fold(), search="0123", trial=7, objective=0.5, published=None, finished=5, pruned=3, failed=0,
        settings={"training.learning_rate": 1.25e-05, "hidden": 12, "positions": True, "name": 'a "b"\\'},
    )  # fmt: skip
    content: dict[str, Any] = {
        "method": "toy", "dataset": "mosi@tiny", "data": "d", "modalities": ("text", "audio"), "budget": "quick", "trials": 8,
        "seeds": (7001, 7002), "code": {"m.n": "1"}, "fixed": ("training.clip_norm=null", "dropout=0.1"), "found": (found,),
    }  # fmt: skip
    return tuned.Tuned(**{**content, **changes})


def test_a_preset_survives_its_file_and_gives_its_settings(tmp_path: Path) -> None:
    one = preset()
    tuned.write(one, tmp_path / "x.toml")
    again = tuned.read(tmp_path / "x.toml")
    assert again == one
    assert again.settings(Fold()) == {**one.found[0].settings, "training.clip_norm": None, "dropout": 0.1}
    with pytest.raises(ConfigError, match="not tuned .* fold 1/3"):
        again.settings(folds(3)[0])
    assert "8 trials" in one.said() and "3 given up" in one.said() and "7001, 7002" in one.said()


@pytest.mark.parametrize("content", ["method = ", 'method = "toy"\n', "\xff"])
def test_a_damaged_preset_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.toml").write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"x\.toml"):
        tuned.read(tmp_path / "x.toml")


def test_a_preset_of_other_data_is_not_used_and_changed_code_is_said(tmp_path: Path) -> None:
    card = tiny_dataset().card.model_copy(update={"fingerprint": "d"})
    trial(tiny_dataset())  # registers toy
    path = tuned.place(tmp_path, "toy", card, ("text", "audio"))
    assert tuned.place(tmp_path, "toy", card, ("text",)).name == "toy-mosi@tiny-text.toml"
    assert tuned.find(tmp_path, "toy", card, ("text", "audio"))[0] is None
    tuned.write(preset(), path)
    found, remark = tuned.find(tmp_path, "toy", card, ("text", "audio"))
    assert found is not None and "user_toy_method" in remark
    now = preset(code=code.fingerprints(methods["toy"].__module__))
    tuned.write(now, path)
    assert tuned.find(tmp_path, "toy", card, ("text", "audio")) == (now, "")
    found, remark = tuned.find(tmp_path, "toy", card.model_copy(update={"fingerprint": "e"}), ("text", "audio"))
    assert found is None and "other data" in remark


# ---- pictures


def test_pictures_show_every_trial_and_setting(undisturbed: list[TrialRecord], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    one = search()
    written = shown.write_figures([(one, undisturbed)], tmp_path / "toy.toml")
    assert [path.name for path in written] == ["toy.history.png", "toy.slice.png", "toy.importance.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)
    finished = [trial for trial in undisturbed if trial.objective is not None]
    axes = shown.draw_history(undisturbed).axes[0]
    assert list(axes.lines[0].get_ydata()) == [trial.objective for trial in finished]
    assert min(axes.lines[1].get_ydata()) == min(trial.objective for trial in finished if trial.objective)
    assert [ax.get_title() for ax in shown.draw_slices(one, undisturbed).axes if ax.get_visible()] == list(one.space)
    shares = shown.importance(one, undisturbed)
    assert set(shares) == set(one.space) and sum(shares.values()) == pytest.approx(1)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert shown.importance(one, undisturbed[:3]) == {}


# ---- as a user types it


@pytest.fixture
def place(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # One test has both; they cost seconds.
    monkeypatch.setattr(shown, "drawable", lambda console: False)
    monkeypatch.setattr(tracking, "publish_search", lambda *search: "")
    stored(place / "data")
    return place


@pytest.fixture(autouse=True)
def unchanged_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    list(methods)
    monkeypatch.setattr(methods, "_entries", dict(methods._entries))
    yield
    for name in [name for name in sys.modules if name.startswith("user_")]:
        del sys.modules[name]


def preset_text(place: Path) -> str:
    return (place / "results/tuned/toy-mosi@tiny.toml").read_text()


def test_tune_finds_keeps_and_hands_over_settings(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown, "drawable", DRAWABLE)
    monkeypatch.setattr(tracking, "publish_search", PUBLISH)
    command = ["tune", str(TOY), "mosi@tiny", "--trials", "6", "--fields", "hidden,weights", *FAST]
    code_, out, err = call(capsys, *command)
    assert code_ == 0 and "published settings of 6" in out and "best of 6 trials" in out and "test clips are not read" in out, out + err
    first = preset_text(place)
    found = tuned.read(place / "results/tuned/toy-mosi@tiny.toml")
    assert set(found.found[0].settings) == {"hidden", "weights.size"} and found.seeds == (7001, 7002) and found.trials == 6
    assert not list(place.glob("results/records/*")) and not list(place.glob("results/tuned/searches/*/data"))
    assert len(list(place.glob("results/tuned/searches/*/trials/*.json"))) == 6
    assert {path.name for path in place.glob("results/tuned/*.png")} == {f"toy-mosi@tiny.{kind}.png" for kind in ("history", "slice")}
    code_, out, _ = call(capsys, *command)
    assert code_ == 0 and "trial 1 of 6" not in out and preset_text(place) == first

    code_, out, _ = call(capsys, "run", str(TOY), "mosi@tiny", "--tuned", "--inline", "--budget", "smoke")
    record = json.loads(next(place.glob("results/records/*/record.json")).read_text())
    assert code_ == 0 and record["identity"]["config"]["hidden"] == found.found[0].settings["hidden"]
    assert record["identity"]["config"]["weights"]["size"] == found.found[0].settings["weights.size"] and "6 trials" in out

    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{place}/results/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("tune mosi@tiny").experiment_id])
    parents = [run.info.run_id for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") in parents]
    assert (len(parents), len(children)) == (1, 6) and all("objective" in run.data.metrics for run in children)


def test_an_interrupted_search_and_one_of_two_workers_find_the_same(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["tune", str(TOY), "mosi@tiny", "--trials", "6", "--fields", "hidden,dropout", "--confirm", "0", "--budget", "smoke"]
    assert call(capsys, *command, "--inline")[0] == 0
    whole = preset_text(place)
    shutil.rmtree(place / "results")
    original, told = shown.say_trial, []

    def interrupt(*arguments: Any) -> None:
        original(*arguments)
        told.append(arguments)
        if len(told) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(shown, "say_trial", interrupt)
    code_, _, err = call(capsys, *command, "--inline")
    assert code_ == 130 and "continues where this one stopped" in err and not (place / "results/tuned/toy-mosi@tiny.toml").exists()
    code_, out, _ = call(capsys, *command, "--workers", "2")
    assert code_ == 0 and len(told) == 6 and preset_text(place) == whole


def test_cross_validation_tunes_every_fold_on_what_it_does_not_test(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "tune",
        str(TOY),
        "mosi@tiny",
        "--trials",
        "3",
        "--folds",
        "3",
        "--inner-folds",
        "3",
        "--seeds",
        "1",
        "--fields",
        "hidden",
        *FAST,
    ]
    code_, out, err = call(capsys, *command)
    assert code_ == 0, out + err
    found = tuned.read(place / "results/tuned/toy-mosi@tiny.toml")
    assert [one.fold.index for one in found.found] == [0, 1, 2] and found.inner_folds == 3
    trials = [json.loads(path.read_text()) for path in sorted(place.glob("results/tuned/searches/*/trials/0000.json"))]
    assert all([run["fold"] for run in one["runs"]] == [0, 1, 2] for one in trials) and len(trials) == 3
    code_, out, _ = call(capsys, "run", str(TOY), "mosi@tiny", "--tuned", "--folds", "3", "--inline", "--budget", "smoke")
    records = [json.loads(path.read_text())["identity"] for path in place.glob("results/records/*/record.json")]
    assert code_ == 0 and {one["fold"]["index"]: one["config"]["hidden"] for one in records} == {
        one.fold.index: one.settings["hidden"] for one in found.found
    }


def test_what_was_found_is_confirmed_on_fresh_seeds_and_stands_in_the_table(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code_, out, _ = call(
        capsys, "tune", str(TOY), "mosi@tiny", "--trials", "4", "--fields", "hidden", "--inline", "--budget", "smoke", "--confirm", "2"
    )
    assert code_ == 0 and re.search(r"seeds 42, 1, which the search did not use", out) and re.search(r"test +MAE", out)
    reports = place / "reports" / "mine"
    reports.mkdir(parents=True)
    (reports / "t1.toml").write_text(
        'title = "T"\ndatasets = ["mosi"]\nmetrics = ["mae"]\nseeds = [42, 1]\nfloors = ["majority"]\n'
        '[[rows]]\nname = "Toy"\nmethod = "toy"\npublished.mosi = { mae = 0.9 }\n'
        '[[rows]]\nname = "LMF"\nmethod = "lmf"\n'
        '[[rows]]\nname = "Ablated"\nmethod = "toy"\nconfig = { hidden = 5 }\n'
    )
    code_, out, err = call(
        capsys, "reproduce", "mine/t1", "--data", "mosi@tiny", "--tuned", "--inline", "--budget", "smoke", "--methods", "toy"
    )
    assert code_ == 0 and "Toy, tuned" in out and "4 reused" in out, out + err
    table = (place / "results/tables/mine_t1_mosi-tiny.md").read_text()
    assert table.count("Toy, tuned") >= 2 and "Toy, tuned 4; every other measured row none" in table and "Ablated, tuned" not in table
    assert "settings found on validation by 4 trials" in table
    line = next(line for line in table.splitlines() if line.startswith("| Toy, tuned"))
    assert "published" not in line
    untuned_ = call(capsys, "report", "mine/t1", "--data", "mosi@tiny", "--budget", "smoke", "--methods", "toy")[1]
    assert "tuned" not in untuned_


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["majority"], ["majority", "not trained by gradient steps"]),
        (["tfm"], ["tfm", "Did you mean 'tfn'"]),
        (["tfn", "--fields", "weights"], ["weights", "no such loss weight"]),
        (["tfn", "--fields", "hiddn"], ["hiddn", "no such setting"]),
        (["tfn", "--trials", "0"], ["--trials 0"]),
        (["tfn", "--inner-folds", "2"], ["--inner-folds 2", "at least 3"]),
        (["tfn", "--seeds", "a"], ["--seeds a"]),
        (["tfn", "--set", "hiden=3"], ["hiden"]),
        (["tfn", "--set", "text_out=32", "--fields", "text_out"], ["text_out", "fixed by --set"]),
    ],
)
def test_a_mistake_is_named(place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: list[str]) -> None:
    name, *rest = arguments
    code_, _, err = call(capsys, "tune", name, "mosi@tiny", *rest, "--inline")
    assert code_ == 2 and all(word in err for word in words), err
    assert not (place / "results" / "tuned").exists()


def test_data_without_a_validation_part_are_refused_with_what_to_do(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = tiny_dataset()
    clips = whole.clips.assign(split=whole.clips["split"].replace("valid", "train"))
    store.save(replace(whole, clips=clips, card=whole.card.model_copy(update={"clips": {"train": 81, "test": 33}})), place / "data")
    code_, _, err = call(capsys, "tune", str(TOY), "mosi@tiny", "--inline")
    assert code_ == 2 and "valid" in err and "--validation 0.15" in err, err


def test_a_package_that_is_not_there_is_named(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.experiments.study.find_spec", lambda name: None)
    code_, _, err = call(capsys, "tune", str(TOY), "mosi@tiny", "--inline")
    assert code_ == 2 and "optuna is not installed" in err and "mer-harness[tune]" in err


def test_without_a_preset_tuned_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code_, _, err = call(capsys, "run", str(TOY), "mosi@tiny", "--tuned", "--inline")
    assert code_ == 2 and "was not tuned" in err and "harness tune" in err


@pytest.mark.parametrize(("trouble", "words"), [("nan", "none of 4 trials"), ("crash", "all of the first 4 trials failed")])
def test_settings_that_never_train_end_in_a_message(place: Path, capsys: pytest.CaptureFixture[str], trouble: str, words: str) -> None:
    code_, _, err = call(capsys, "tune", str(TOY), "mosi@tiny", "--trials", "4", "--set", f"trouble={trouble}", "--fields", "hidden", *FAST)
    assert code_ == 2 and words in err, err
