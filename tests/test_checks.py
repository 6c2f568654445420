"""Each check finds its fault, and nothing on sound data; the survey against brute force; the probe against the tables' metrics."""

from __future__ import annotations

import re
import runpy
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import stored, tiny_dataset
from sklearn.linear_model import Ridge

from harness.cli import main
from harness.data import checks, store
from harness.data.catalogue import Facts, facts
from harness.data.checks import Subject, probe, survey
from harness.data.checks.registry import some
from harness.data.importing import import_dataset
from harness.data.schema import Dataset, Finding, Ragged, Task
from harness.data.simulate import simulate
from harness.data.splits import Fold, folds
from harness.errors import HarnessError
from harness.training import metrics

FACTS = Facts(name="mosi", title="Tiny", task=Task(kind="regression", low=-3, high=3), metrics=("mae",))


@cache
def sound() -> Dataset:
    """A data set in which no check finds anything: 240 clips of 60 videos, a text that shows the label in part."""
    rng = np.random.default_rng(0)
    split = np.repeat(["train", "valid", "test"], [160, 40, 40])
    base = tiny_dataset()
    label = np.round(rng.uniform(-3, 3, 240), 1)
    clips = pd.DataFrame({"id": [f"v{i // 4}_{i}" for i in range(240)], "group": [f"v{i // 4}" for i in range(240)], "split": split})
    clips = clips.assign(label=label, text=[f"words of clip {i}" for i in range(240)])
    features = {name: ragged([rng.normal(size=(rng.integers(2, 9), dim)) for _ in range(240)]) for name, dim in (("text", 6), ("audio", 3))}
    for name in features:
        features[name].values[:, 0] += torch.from_numpy(np.repeat(label, features[name].lengths.numpy())).float()
    update = {"clips": {"train": 160, "valid": 40, "test": 40}, "simulated": False}
    modalities = {name: base.card.modalities[name].model_copy(update={"frames": len(features[name].values)}) for name in features}
    return Dataset(base.card.model_copy(update={**update, "modalities": modalities}), clips, features)


def ragged(parts: Sequence[np.ndarray]) -> Ragged:
    offsets = torch.tensor([0, *np.cumsum([len(part) for part in parts])], dtype=torch.int64)
    return Ragged(torch.from_numpy(np.concatenate(parts).astype(np.float32)), offsets)


def parts_of(data: Dataset, modality: str) -> list[np.ndarray]:
    return [data.features[modality].clip(row).numpy().copy() for row in range(len(data))]


def with_parts(data: Dataset, modality: str, parts: Sequence[np.ndarray]) -> Dataset:
    return replace(data, features={**data.features, modality: ragged(parts)})


def with_clips(**columns: Any) -> Dataset:
    return replace(sound(), clips=sound().clips.assign(**columns))


def column(name: str, **changes: Any) -> Any:
    """A column of the sound clips with some entries changed: ``column("id", at={3: "x"})``."""
    values = sound().clips[name].to_numpy(copy=True).astype(object)
    for row, value in changes["at"].items():
        values[row] = value
    return values


def on_card(data: Dataset, modality: str, **counts: int) -> Dataset:
    card = data.card.modalities[modality].model_copy(update=counts)
    return replace(data, card=data.card.model_copy(update={"modalities": {**data.card.modalities, modality: card}}))


def found(name: str, data: Dataset, known: Facts = FACTS) -> list[Finding]:
    return checks.checks[name](Subject(data, known))


def only(name: str, data: Dataset, known: Facts = FACTS) -> Finding:
    """The one finding of the check ``name``, told by a full examination too."""
    (one,) = found(name, data, known)
    assert one in checks.examine(data, known) and one.check == name and one.message and one.remedy
    return one


# ---- nothing on sound data


@pytest.mark.parametrize("name", list(checks.checks))
def test_a_check_finds_nothing_on_sound_data(name: str) -> None:
    assert found(name, sound()) == []


def test_a_full_examination_finds_nothing_on_sound_and_on_simulated_data() -> None:
    assert checks.examine(sound(), FACTS) == ()
    assert checks.examine(simulate(facts("mosi"), sizes={"train": 400, "valid": 100, "test": 200}, dims={"text": 32}), FACTS) == ()


def test_a_data_set_of_media_files_alone_is_examined_too() -> None:
    assert checks.examine(replace(sound(), features={}), FACTS) == ()


def test_every_check_of_the_table_is_registered_and_the_other_way_round() -> None:
    rows = [line.split("``")[1] for line in (checks.__doc__ or "").splitlines() if line.startswith("| ``")]
    assert sorted(rows) == list(checks.checks)


# ---- structure


@pytest.mark.parametrize(
    ("offsets", "words"),
    [
        ([0, 2, 99], "clip 'b' ends at frame 99 of 4"),
        ([0, 0, 4], "clip 'a' has 0 frames"),
        ([0, 5, 4], "clip 'a' ends at frame 5 of 4"),
        ([0, 3, 2], "clip 'b' has -1 frames"),
        ([1, 2, 4], "1 of 4 frames belong to no clip"),
        ([0, 4], "2 offsets for 2 clips"),
    ],
)
def test_lengths_beyond_arrays_and_empty_clips_are_errors_and_nothing_else_is_read(offsets: list[int], words: str) -> None:
    clips = pd.DataFrame({"id": ["a", "b"], "group": ["a", "b"], "split": "train", "label": [1.0, -1.0], "text": ""})
    faulty = {"audio": Ragged(torch.ones(4, 2), torch.tensor(offsets))}
    data = replace(sound(), clips=clips, features=faulty)
    one = only("lengths", data)
    assert one.severity == "error" and words in one.message
    assert not {other.check for other in checks.examine(data, FACTS)} & {"constant-features", "repeated-frames"}


def test_an_id_that_occurs_twice_is_an_error() -> None:
    one = only("shared-ids", with_clips(id=column("id", at={200: "v0_3"})))
    assert one.severity == "error" and "1 ids" in one.message and "'v0_3' in train, test" in one.message


def test_a_group_in_two_parts_is_a_warning() -> None:
    one = only("shared-groups", with_clips(group=column("group", at={0: "v50", 1: "v51"})))
    assert one.severity == "warning" and "2 videos" in one.message and "v50, v51" in one.message


def test_split_sizes_are_compared_with_the_official_ones() -> None:
    official = FACTS.model_copy(update={"splits": {"train": 160, "valid": 40, "test": 40}})
    assert found("split-sizes", sound(), official) == []
    one = only("split-sizes", sound(), official.model_copy(update={"splits": {"train": 161, "valid": 40, "test": 39}}))
    assert one.severity == "warning" and one.message.endswith("in brackets: train 160 (161), test 40 (39)")
    known = official.model_copy(update={"splits": {"train": 1}, "other_splits": {"version 1": {"train": 160, "valid": 40, "test": 40}}})
    assert only("split-sizes", sound(), known).message.endswith("train 160 (1); they are those of version 1")


@pytest.mark.parametrize(("official", "severity"), [({}, "notice"), ({"test": 240}, "warning")])
def test_a_single_split_is_for_cross_validation_only(official: dict[str, int], severity: str) -> None:
    one = only("split-sizes", with_clips(split="test"), FACTS.model_copy(update={"splits": official}))
    assert one.severity == severity and one.message == "no clips in train and valid: for cross-validation only"


def test_clips_are_counted_where_there_is_no_official_split() -> None:
    assert found("split-sizes", sound(), FACTS.model_copy(update={"clips": 240})) == []
    assert only("split-sizes", sound(), FACTS.model_copy(update={"clips": 241})).message == "240 clips, published are 241"


# ---- labels


@pytest.mark.parametrize("label", [3.1, -4.0, float("nan")])
def test_a_label_outside_the_scale_is_an_error(label: float) -> None:
    one = only("label-range", with_clips(label=column("label", at={7: label}).astype(float)))
    assert one.severity == "error" and f"'v1_7' has the label {label:g}" in one.message and "-3 to 3" in one.remedy


def classes(names: Sequence[str] = ("sad", "glad", "calm")) -> Dataset:
    """The sound clips with the classes 0, 1, 2 in turn."""
    task = Task(kind="classification", classes=tuple(names))
    return replace(with_clips(label=np.arange(240) % 3), card=sound().card.model_copy(update={"task": task}))


@pytest.mark.parametrize("label", [3, -1, 0.5])
def test_a_label_that_is_no_class_is_an_error(label: float) -> None:
    assert found("label-range", classes()) == []
    data = replace(classes(), clips=classes().clips.assign(label=[label, *classes().clips["label"][1:]]))
    assert f"'v0_0' has the label {label:g}" in only("label-range", data).message


def test_a_class_that_a_part_lacks_is_a_warning() -> None:
    assert found("missing-class", classes()) == []
    label = classes().clips["label"].to_numpy(copy=True)
    label[200:] = label[200:] % 2
    one = only("missing-class", replace(classes(), clips=classes().clips.assign(label=label)))
    assert one.severity == "warning" and one.message == "the test part has no clip labelled calm" and "leave these out" in one.remedy
    (one,) = found("missing-class", replace(classes(), clips=classes().clips.assign(label=np.where(np.arange(240) < 160, 0, label))))[:1]
    assert "the train part has no clip labelled glad, calm" in one.message and "never sees" in one.remedy


def test_a_part_without_one_sign_is_a_warning() -> None:
    label = sound().clips["label"].to_numpy(copy=True)
    label[160:200] = abs(label[160:200])
    assert only("missing-class", with_clips(label=label)).message == "the valid part has no clip labelled below 0"


def test_labels_that_are_not_distributed_as_published_are_a_warning() -> None:
    """Published labels up to chance are sound; signs turned, or classes in place of intensities, are not."""
    real = {split: dict(counts) for split, counts in facts("mosi").labels.items()}
    known = FACTS.model_copy(update={"labels": real})
    counts = [count for count in real["train"].values()]
    label = np.repeat(np.arange(-3.0, 4.0), counts)
    clips = pd.DataFrame({"id": [f"c{i}" for i in range(1284)], "group": "g", "split": "train", "label": label, "text": ""})
    data = replace(sound(), clips=clips, features={})
    assert found("label-histogram", data, known) == []
    assert found("label-histogram", replace(data, clips=clips.assign(label=label + 0.2 * (label < 3))), known) == []
    one = only("label-histogram", replace(data, clips=clips.assign(label=-label)), known)
    assert one.severity == "warning" and "-3 4% (2%)" in one.message
    assert found("label-histogram", replace(data, clips=clips.assign(label=np.sign(label))), known)
    assert found("label-histogram", replace(data, clips=clips.assign(label=-label).iloc[:600]), known) == []  # sizes differ: not compared


def test_a_difference_from_the_published_labels_must_be_large_as_well_as_certain() -> None:
    """A shift of 3 per cent in 16,000 clips is beyond chance, and may come from clips that are no longer to be had."""
    known = FACTS.model_copy(update={"labels": {"train": {"-1": 8000, "1": 8000}}})
    label = np.repeat([-1.0, 1.0], [7520, 8480])
    clips = pd.DataFrame({"id": [f"c{i}" for i in range(16000)], "group": "g", "split": "train", "label": label, "text": ""})
    assert found("label-histogram", replace(sound(), clips=clips, features={}), known) == []
    assert found("label-histogram", replace(sound(), clips=clips.assign(label=np.repeat([-1.0, 1.0], [7000, 9000])), features={}), known)


def test_class_histograms_are_compared_by_name() -> None:
    known = FACTS.model_copy(update={"labels": {"train": {"sad": 53, "glad": 53, "calm": 54}}})
    assert found("label-histogram", classes(), known) == []
    turned = known.model_copy(update={"labels": {"train": {"sad": 100, "glad": 30, "calm": 30}}})
    assert "sad 34% (62%)" in only("label-histogram", classes(), turned).message


# ---- values


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_an_error(value: float) -> None:
    parts = parts_of(sound(), "audio")
    parts[5][1, 2] = parts[9][0, 0] = value
    one = only("non-finite", with_parts(sound(), "audio", parts))
    assert one.severity == "error" and one.message == "audio: 2 values are NaN or infinite, first in clip 'v1_5'"


@pytest.mark.parametrize(("count", "severity"), [(3, "notice"), (300, "warning")])
def test_values_that_import_set_to_zero_are_told(count: int, severity: str) -> None:
    one = only("non-finite", on_card(sound(), "audio", nonfinite_replaced=count))
    assert one.severity == severity and f"audio: {count} values" in one.message


def test_features_that_never_change_are_told_and_a_modality_of_them_is_an_error() -> None:
    parts = [part.copy() for part in parts_of(sound(), "text")]
    for part in parts:
        part[:, [1, 4]] = 7
    one = only("constant-features", with_parts(sound(), "text", parts))
    assert one.severity == "warning" and "2 of 6 features never change: #1, #4" in one.message
    one = only("constant-features", with_parts(sound(), "text", [np.full_like(part, 0.5) for part in parts]))
    assert one.severity == "error" and one.message == "text: every frame of every clip is the same"


@pytest.mark.parametrize(("rows", "severity"), [([4], "notice"), ([4, 8, 12], "warning")])
def test_clips_of_nothing_but_zeros_are_told(rows: list[int], severity: str) -> None:
    parts = parts_of(sound(), "audio")
    for row in rows:
        parts[row][:] = 0
    one = only("empty-clips", on_card(with_parts(sound(), "audio", parts), "audio", empty_clips=1))
    assert one.severity == severity and f"audio: {len(rows)} clips" in one.message and "(1 had no frame): v1_4" in one.message


@pytest.mark.parametrize(("padded", "expected"), [(240, True), (24, True), (23, False)])
def test_frames_of_zeros_at_the_front_are_padding(padded: int, expected: bool) -> None:
    parts = [np.concatenate([np.zeros((10 - len(part), 3)), part]) for part in parts_of(sound(), "audio")]
    data = with_parts(sound(), "audio", parts[:padded] + parts_of(sound(), "audio")[padded:])
    if not expected:
        assert found("front-padding", data) == []
        return
    one = only("front-padding", data)
    first = sound().features["audio"].lengths[0]
    assert one.severity == "warning" and f"audio: {padded} of 240" in one.message and f"'v0_0' with {10 - first} of 10" in one.message


def test_padding_at_the_end_is_none_at_the_front() -> None:
    parts = [np.concatenate([part, np.zeros((10 - len(part), 3))]) for part in parts_of(sound(), "audio")]
    assert found("front-padding", with_parts(sound(), "audio", parts)) == []


def test_one_vector_written_as_many_frames_is_told() -> None:
    parts = [np.repeat(part[:1], len(part), axis=0) for part in parts_of(sound(), "audio")]
    one = only("repeated-frames", with_parts(sound(), "audio", parts))
    assert one.severity == "notice" and "audio: in 240 of 240 clips" in one.message
    assert found("repeated-frames", with_parts(sound(), "audio", [part[:1] for part in parts])) == []


# ---- copies


def copied(pairs: dict[int, int], modalities: Sequence[str] = ("text", "audio")) -> Dataset:
    """Sound data in which clip ``key`` has the frames of clip ``value``."""
    data = sound()
    for modality in modalities:
        parts = parts_of(data, modality)
        data = with_parts(data, modality, [parts[pairs.get(row, row)] for row in range(240)])
    return data


def test_a_clip_in_two_splits_under_two_ids_is_a_warning() -> None:
    one, torn = found("duplicate-clips", copied({230: 3}))
    assert one.severity == "warning" and one.message == "1 clips lie in more than one split under different ids: v0_3 = v57_230"
    assert "different labels" in torn.message


def test_a_clip_twice_in_one_group_is_a_notice_and_in_two_groups_a_warning() -> None:
    label = column("label", at={2: sound().clips["label"][1], 30: sound().clips["label"][1]}).astype(float)
    same_group = replace(copied({2: 1}), clips=sound().clips.assign(label=label))
    assert only("duplicate-clips", same_group).severity == "notice" and "v0_1 = v0_2" in only("duplicate-clips", same_group).message
    two_groups = replace(copied({30: 1}), clips=sound().clips.assign(label=label))
    assert (
        only("duplicate-clips", two_groups).severity == "warning" and "more than one group" in only("duplicate-clips", two_groups).message
    )


def test_clips_alike_in_one_modality_or_empty_in_all_are_no_duplicates() -> None:
    assert found("duplicate-clips", copied({230: 3}, ["audio"])) == []
    zeros = {name: [np.zeros((2, ragged.dim)) if row in (3, 230) else part for row, part in enumerate(parts_of(sound(), name))]
             for name, ragged in sound().features.items()}  # fmt: skip
    data = with_parts(with_parts(sound(), "text", zeros["text"]), "audio", zeros["audio"])
    assert found("duplicate-clips", data) == []


def test_a_content_that_many_clips_share_is_a_warning() -> None:
    one = only("identical-rows", copied(dict.fromkeys(range(20, 26), 3), ["audio"]))
    assert (
        one.severity == "warning" and "audio: 7 clips do not differ (1 contents), most often v0_3, v5_20, v5_21 and 4 more" in one.message
    )
    assert found("identical-rows", copied(dict.fromkeys(range(20, 24), 3), ["audio"])) == []
    empty = [np.zeros((2, 3)) if row < 30 else part for row, part in enumerate(parts_of(sound(), "audio"))]
    assert found("identical-rows", with_parts(sound(), "audio", empty)) == []  # empty-clips tells of these


def test_text_of_the_same_words_may_be_the_same() -> None:
    data = copied(dict.fromkeys(range(20, 60), 3), ["text"])
    assert found("identical-rows", data)
    spoken = column("text", at=dict.fromkeys([3, *range(20, 60)], "Kids are talking by the door."))
    assert found("identical-rows", replace(data, clips=data.clips.assign(text=spoken))) == []


# ---- the survey, against brute force


@st.composite
def raggeds(draw: st.DrawFn) -> Ragged:
    """Clips of small whole numbers, so that copies, zeros and constant frames are frequent; now and then not finite."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    top = draw(st.integers(1, 3))
    parts = [rng.integers(0, top + 1, (rng.integers(1, 4), draw(st.just(2)))).astype(float) for _ in range(draw(st.integers(1, 30)))]
    if draw(st.booleans()):
        parts[-1][0, 0] = draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    return ragged(parts)


@pytest.mark.parametrize("piece", [1, 8, 2**20])
@given(data=raggeds())
@settings(max_examples=60, deadline=None)
def test_the_survey_is_what_a_plain_loop_finds(piece: int, data: Ragged) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(survey, "PIECE", piece)
        got = survey.survey(data)
    parts = [data.clip(row).numpy() for row in range(len(data.lengths))]
    clean = [np.where(np.isfinite(part), part, 0) for part in parts]
    finite = np.where(np.isfinite(data.values.numpy()), data.values.numpy(), np.nan)
    assert np.allclose(got.means, [part.mean(0) for part in clean])
    if not np.isnan(finite).all(0).any():
        assert np.array_equal(got.low, np.nanmin(finite, 0)) and np.array_equal(got.high, np.nanmax(finite, 0))
    assert got.nonfinite.tolist() == [int((~np.isfinite(part)).sum()) for part in parts]
    zeros = [(part == 0).all(1) for part in parts]
    assert got.leading.tolist() == [len(part) if part.all() else int(part.argmin()) for part in zeros]
    assert got.frozen.tolist() == [len(part) > 1 and bool((part == part[0]).all()) for part in parts]
    same = {tuple(other for other, two in enumerate(parts) if one.tobytes() == two.tobytes()) for one in parts}
    assert sorted(map(tuple, got.copies)) == sorted(rows for rows in same if len(rows) > 1)


# ---- the probe


def test_the_probe_is_ridge_regression_with_the_penalty_of_the_validation_part() -> None:
    data = sound()
    parts = {role: data.rows(np.flatnonzero(data.clips["split"] == role).tolist()) for role in ("train", "valid", "test")}
    x = {role: np.concatenate([part.means("text"), part.means("audio")], axis=1).astype(float) for role, part in parts.items()}
    mean, spread = x["train"].mean(0), x["train"].std(0)
    models = [Ridge(alpha=penalty).fit((x["train"] - mean) / spread, parts["train"].labels) for penalty in probe.PENALTIES]
    errors = [np.square(model.predict((x["valid"] - mean) / spread) - parts["valid"].labels.numpy()).sum() for model in models]
    expected = models[int(np.argmin(errors))].predict((x["test"] - mean) / spread)
    truth, guess, how = probe.probe(Subject(data, FACTS))
    assert how == "on the official split" and truth == pytest.approx(parts["test"].labels.numpy(), abs=1e-6)
    assert guess == pytest.approx(expected, abs=1e-5)  # the survey's means are sums in float32


@given(seed=st.integers(0, 2**32), kind=st.sampled_from(["regression", "classification"]))
@settings(max_examples=30, deadline=None)
def test_the_probes_scores_are_those_of_the_tables(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    task = FACTS.task if kind == "regression" else Task(kind="classification", classes=("a", "b", "c"))
    truth = np.round(rng.uniform(-3, 3, 50)) if kind == "regression" else rng.integers(0, 3, 50).astype(float)
    guess = truth + rng.normal(size=50) if kind == "regression" else rng.normal(size=(50, 3))
    got = probe._scores(truth, guess, task)
    assert {name: score.value for name, score in got.items()} == pytest.approx(metrics.score(list(got), guess, truth))


@pytest.mark.parametrize("kind", ["regression", "classification"])
def test_labels_in_the_features_are_too_good_to_be_true(kind: str) -> None:
    data = sound() if kind == "regression" else classes()
    label = data.clips["label"].to_numpy()
    shown = np.eye(3)[label.astype(int)] if kind == "classification" else np.repeat(label[:, None], 3, axis=1)
    leaky = with_parts(data, "audio", [part * 0.01 + shown[row] for row, part in enumerate(parts_of(data, "audio"))])
    one = only("too-good-to-be-true", leaky)
    assert one.severity == "warning" and ("corr 1.000 (0.990)" if kind == "regression" else "accuracy 1.000 (0.990)") in one.message


def test_the_bound_is_the_best_published_score_with_a_margin_for_chance() -> None:
    truth, guess, _ = probe.probe(Subject(sound(), FACTS))
    reached = metrics.score(["corr"], guess, truth)["corr"]
    error = (1 - reached**2) / np.sqrt(len(truth))
    for bound, count in ((reached - 2.1 * error, 1), (reached - 1.9 * error, 0)):
        assert len(found("too-good-to-be-true", sound(), FACTS.model_copy(update={"best_published": {"corr": bound}}))) == count
    low = metrics.score(["mae"], guess, truth)["mae"] + 3 * np.abs(guess - truth).std() / np.sqrt(len(truth))
    assert "mae" in only("too-good-to-be-true", sound(), FACTS.model_copy(update={"best_published": {"mae": float(low)}})).message


def test_without_an_official_split_the_probe_is_cross_validated() -> None:
    data = with_clips(split="test")
    truth, _, how = probe.probe(Subject(data, FACTS))
    assert how == "in five folds by group" and sorted(truth) == sorted(data.clips["label"])
    data = replace(data, clips=data.clips.assign(fold=[str(i // 4 % 6) for i in range(240)]))
    assert probe.probe(Subject(data, FACTS))[2] == "in the published folds"


# ---- before training, by command


def test_checks_before_training_look_at_the_parts_of_the_folds() -> None:
    told = checks.examine_folds(sound(), FACTS, folds(5, protocol="stratified"))
    assert [(one.check, one.severity) for one in told] == [("shared-groups", "warning")]
    assert told[0].message.startswith("stratified fold 1/5, repeat 1: ") and "videos have clips in more than one part" in told[0].message
    assert checks.examine_folds(sound(), FACTS, [Fold()]) == checks.examine_folds(sound(), FACTS, folds(5)) == ()
    mixed = with_clips(group=column("group", at={0: "v50"}))
    assert checks.examine_folds(mixed, FACTS, [Fold()]) and not checks.examine_folds(mixed, FACTS, folds(5))


def test_checks_before_training_repeat_what_import_found_in_the_values() -> None:
    leaked = Finding(check="too-good-to-be-true", severity="warning", message="m", remedy="r")
    stale = leaked.model_copy(update={"check": "shared-groups"})
    data = replace(sound(), card=sound().card.model_copy(update={"findings": (leaked, stale)}))
    assert checks.examine_folds(data, FACTS, folds(5)) == (leaked,)


def test_findings_come_worst_first_and_long_lists_are_cut() -> None:
    data = with_clips(group=column("group", at={0: "v50"}), label=column("label", at={7: 9.0}).astype(float), split="test")
    assert [(one.check, one.severity) for one in checks.examine(data, FACTS)] == [("label-range", "error"), ("split-sizes", "notice")]
    assert some(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more" and some(["a"]) == "a"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MER_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MER_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'm.db'}")
    return tmp_path / "data"


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code: Any = 0
    try:
        main(list(arguments))
    except SystemExit as ended:
        code = ended.code or 0
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return int(code), out + err


def test_the_command_prints_findings_and_strict_makes_warnings_errors(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored(place)
    code, out = call(capsys, "data", "check", "mosi@tiny")
    assert code == 0 and "warning (split-sizes)" in out and re.search("15 checks, 0 errors, . warnings?", out)
    code, out = call(capsys, "data", "check", "mosi@tiny", "--strict")
    assert code == 1 and "error (split-sizes)" in out and ", 0 warnings" in out


def test_what_is_found_is_said_before_training_and_errors_stop_it(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tiny_dataset()
    leaked = Finding(check="too-good-to-be-true", severity="warning", message="a probe beats all", remedy="Ask.")
    store.save(replace(data, card=data.card.model_copy(update={"findings": (leaked,)})), place)
    code, out = call(capsys, "run", "majority", "mosi@tiny", "--explain", "--folds", "3", "--protocol", "stratified")
    assert code == 0 and out.count("a probe beats all") == 1 and "videos have clips in more than one part" in out
    label = data.clips["label"].to_numpy(copy=True)
    label[4] = 17
    store.save(replace(data, clips=data.clips.assign(label=label)), place)
    code, out = call(capsys, "run", "majority", "mosi@tiny", "--inline")
    assert code == 2 and "cannot be trained on: clip 'v1_4' has the label 17" in out and "-3 to 3" in out


@pytest.mark.parametrize(
    ("arguments", "trials"),
    [
        (["--protocol", "grouped", "--folds", "3", "--validation", "0.2"], 3),
        (["--protocol", "holdout", "--groups", "20/4/5", "--repeats", "2"], 2),
        (["--protocol", "published"], 4),
        (["--protocol", "stratified-grouped", "--folds", "3"], 3),
    ],
)
def test_protocols_by_command(place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], trials: int) -> None:
    data = tiny_dataset()
    store.save(replace(data, clips=data.clips.assign(fold=[str(i // 4 % 4) for i in range(len(data))])), place)
    code, out = call(capsys, "run", "majority", "mosi@tiny", "--explain", *arguments)
    assert code == 0 and out.count("would be run") == trials


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--protocol", "groupd"], "Did you mean 'grouped'"),
        (["--protocol", "holdout", "--groups", "16,4,4"], "--groups 16,4,4 is not three numbers"),
        (["--protocol", "holdout", "--groups", "1/2/3"], "has 29 groups, 1/2/3 makes 6"),
        (["--protocol", "published"], "ships no folds"),
        (["--validation", "0.2"], "validation part of its own"),
    ],
)
def test_protocols_that_cannot_be_are_said_so(place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    stored(place)
    code, out = call(capsys, "run", "majority", "mosi@tiny", "--inline", *arguments)
    assert code == 2 and words in out


# ---- real data


@pytest.fixture(scope="module")
def mosi(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dataset]:
    """The real files, as MMSA pickles, imported."""
    folder = tmp_path_factory.mktemp("mosi")
    runpy.run_path(str(shared / "data" / "mosi" / "build_mmsa_pickle.py"))["main"](folder)
    return {
        name: import_dataset("mosi", [folder / f"mosi_{name}.pkl"], variant=name.replace("_", "-"), root=folder / "data")
        for name in ("text_audio", "trimodal_752", "trimodal_leaky")
    }


def test_the_leaking_features_are_flagged_at_import(mosi: dict[str, Dataset]) -> None:
    (leak,) = [one for one in mosi["trimodal_leaky"].card.findings if one.check == "too-good-to-be-true"]
    assert "acc2_nonzero 0.9" in leak.message and "(0.864)" in leak.message
    assert all(clean.card.findings == tuple(one for one in clean.card.findings if one.check != leak.check)
               for clean in (mosi["text_audio"], mosi["trimodal_752"]))  # fmt: skip


def test_real_sound_files_raise_no_warning(mosi: dict[str, Dataset]) -> None:
    assert mosi["text_audio"].card.findings == ()
    names = {one.check for one in mosi["trimodal_752"].card.findings}
    assert names == {"split-sizes", "constant-features"}
    with pytest.raises(HarnessError, match="cannot be run"):
        checks.examine_folds(mosi["trimodal_752"], facts("mosi"), [Fold()])


def test_the_one_true_pair_of_ravdess_is_found(shared: Path) -> None:
    """Actor 07, happy, statement 2, repetitions 1 and 2: identical action units upstream."""
    table = pd.read_csv(shared / "data" / "ravdess" / "openface_au_mean.csv")
    clips = pd.read_csv(shared / "data" / "ravdess" / "clips.csv").set_index("clip").loc[table.iloc[:, 0]].reset_index()
    known = facts("ravdess")
    values = table.select_dtypes("number").to_numpy(dtype=np.float32)
    frame = pd.DataFrame(
        {
            "id": clips["clip"],
            "group": clips["actor"].astype(str),
            "split": "train",
            "label": clips["emotion"].map(known.task.classes.index),
            "text": "",
            "fold": clips["published_fold"].astype(str),
        }
    )
    data = Dataset(sound().card.model_copy(update={"task": known.task}), frame, {"audio": ragged(list(values[:, None, :]))})
    told = checks.examine(data, known)
    (pair,) = [one for one in told if one.check == "duplicate-clips"]
    assert pair.severity == "notice" and "01-01-03-" in pair.message and pair.message.count(" = ") == 1
    assert {one.check for one in told} <= {"duplicate-clips", "split-sizes"}
    truth, guess, how = probe.probe(Subject(data, known))
    assert how == "in the published folds" and len(truth) == 1440 and 0.5 < (guess.argmax(1) == truth).mean() < 0.65
