"""Protocols: who trains, validates and tests, and what may never happen between them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import tiny_dataset

from harness.data.schema import Dataset, Task
from harness.data.splits import PROTOCOLS, Fold, Parts, cut, folds, published_folds, strata
from harness.errors import ConfigError, DataError
from harness.experiments.plan import Effort, method_trials

ROLES = ("train", "valid", "test")
GROUPED = ("grouped", "stratified-grouped", "holdout", "consecutive", "published")


def dataset_of(
    groups: list[str], labels: list[float], classes: int = 0, fold: list[str] | None = None, split: list[str] | None = None
) -> Dataset:
    """A data set without features, with these columns."""
    base = tiny_dataset()
    count = len(groups)
    clips = base.clips.iloc[[0] * count].reset_index(drop=True)
    clips = clips.assign(id=[f"c{i}" for i in range(count)], group=groups, label=labels, split=split or ["train"] * count)
    task = Task(kind="classification", classes=tuple(f"k{i}" for i in range(classes))) if classes else base.card.task
    return replace(
        base, clips=clips if fold is None else clips.assign(fold=fold), card=base.card.model_copy(update={"task": task}), features={}
    )


@st.composite
def datasets(draw: st.DrawFn) -> Dataset:
    """8 to 14 groups of 1 to 12 clips, three classes; published folds that keep groups whole."""
    sizes = draw(st.lists(st.integers(1, 12), min_size=8, max_size=14))
    groups = [f"g{number}" for number, size in enumerate(sizes) for _ in range(size)]
    labels = draw(st.lists(st.integers(0, 2), min_size=len(groups), max_size=len(groups)))
    return dataset_of(groups, [float(label) for label in labels], classes=3, fold=[str(int(group[1:]) % 4) for group in groups])


def protocol_folds(data: Dataset, protocol: str, number: int = 4, repeats: int = 1, validation: float | None = None) -> list[Fold]:
    if protocol == "holdout":
        count = data.clips["group"].nunique()
        return folds(repeats=repeats, protocol=protocol, groups=(count - 4, 2, 2))
    return folds(number, repeats, protocol, validation=validation)


# ---- what holds for every protocol


@pytest.mark.parametrize("protocol", sorted(set(PROTOCOLS) - {"official"}))
@given(data=datasets())
@settings(max_examples=15, deadline=None)
def test_every_clip_has_one_role_and_groups_stay_whole(protocol: str, data: Dataset) -> None:
    for fold in protocol_folds(data, protocol):
        try:
            parts = cut(data, fold)
        except DataError as error:  # few large groups cannot always be dealt to four stratified folds
            assert protocol == "stratified-grouped" and ("leaves no clips" in str(error) or "no label with as many" in str(error))
            continue
        assert sorted(clip for part in parts.values() for clip in part.ids) == sorted(data.clips["id"])
        assert all(len(parts[role]) for role in ROLES)
        if protocol in GROUPED:
            groups = [set(parts[role].groups) for role in ROLES]
            assert not (groups[0] & groups[1] or groups[0] & groups[2] or groups[1] & groups[2])


@pytest.mark.parametrize("protocol", ["grouped", "stratified", "stratified-grouped", "consecutive", "published"])
@given(data=datasets())
@settings(max_examples=15, deadline=None)
def test_folds_test_and_validate_every_clip_once(protocol: str, data: Dataset) -> None:
    try:
        parts = [cut(data, fold) for fold in protocol_folds(data, protocol)]
    except DataError:
        assert protocol == "stratified-grouped"
        return
    for role in ("test", "valid"):
        assert sorted(clip for one in parts for clip in one[role].ids) == sorted(data.clips["id"])


@pytest.mark.parametrize("protocol", ["grouped", "stratified-grouped", "consecutive", "published", "stratified"])
@given(data=datasets(), share=st.floats(0.1, 0.4))
@settings(max_examples=15, deadline=None)
def test_a_stated_share_is_cut_out_of_training_and_leaves_the_test_part_alone(protocol: str, data: Dataset, share: float) -> None:
    plain, carved = protocol_folds(data, protocol), protocol_folds(data, protocol, validation=share)
    for without, fold in zip(plain, carved, strict=True):
        try:
            before, after = cut(data, without), cut(data, fold)
        except DataError:
            assert protocol == "stratified-grouped"
            continue
        assert before["test"].ids == after["test"].ids
        pool = len(after["train"]) + len(after["valid"])
        if protocol == "stratified":
            assert abs(len(after["valid"]) - share * pool) <= 1
        else:
            largest = max(np.unique(after["train"].groups + after["valid"].groups, return_counts=True)[1])
            assert abs(len(after["valid"]) - share * pool) <= largest
            assert not set(after["valid"].groups) & set(after["train"].groups)


@pytest.mark.parametrize("protocol", ["grouped", "stratified", "stratified-grouped", "holdout"])
def test_a_deal_is_repeated_exactly_and_the_next_repeat_is_another(protocol: str) -> None:
    data = tiny_dataset()
    first, again = ([cut(data, fold).hash for fold in protocol_folds(data, protocol, repeats=3)] for _ in range(2))
    assert first == again and len(set(first)) == len(first)


# ---- each protocol's own promise


def test_grouped_folds_are_balanced_in_clips() -> None:
    """Greedy dealing is off by less than the largest group."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 20, 40)
    data = dataset_of([f"g{i}" for i, size in enumerate(sizes) for _ in range(size)], [0.0] * int(sizes.sum()))
    counts = [len(cut(data, fold)["test"]) for fold in folds(5)]
    assert max(counts) - min(counts) <= sizes.max()


@given(counts=st.lists(st.integers(5, 40), min_size=2, max_size=5), number=st.integers(3, 5))
@settings(max_examples=20, deadline=None)
def test_stratified_folds_have_every_class_in_equal_numbers(counts: list[int], number: int) -> None:
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(len(counts)), counts)).astype(float)
    data = dataset_of([f"g{i // 3}" for i in range(len(labels))], labels.tolist(), classes=len(counts))
    found = np.array([np.bincount(cut(data, fold)["test"].labels, minlength=len(counts)) for fold in folds(number, protocol="stratified")])
    assert (np.ptp(found, axis=0) <= 1).all() and np.ptp(found.sum(1)) <= 1


def test_stratified_grouped_folds_are_nearer_to_the_label_shares_than_grouped_ones() -> None:
    rng = np.random.default_rng(2)
    groups = [f"g{i // 10}" for i in range(600)]
    mood = rng.integers(0, 3, 60)  # each group mostly has one class
    labels = np.where(rng.random(600) < 0.8, np.repeat(mood, 10), rng.integers(0, 3, 600)).astype(float)
    data = dataset_of(groups, labels.tolist(), classes=3)
    whole = np.bincount(labels.astype(int)) / 600

    def distance(protocol: str) -> float:
        shares = [np.bincount(cut(data, fold)["test"].labels, minlength=3) / len(cut(data, fold)["test"]) for fold in folds(5, 4, protocol)]
        return float(np.abs(np.array(shares) - whole).sum(1).mean())

    assert distance("stratified-grouped") < 0.5 * distance("grouped")


def test_intensities_are_stratified_by_the_nearest_whole_number() -> None:
    data = dataset_of(["g"] * 5, [-3.0, -0.5, 0.4, 1.5, 2.5])
    assert strata(data.clips["label"], data.card.task).tolist() == [-3, 0, 0, 2, 2]


def test_a_hold_out_draws_so_many_groups_as_it_says() -> None:
    """16/4/4 of 24 actors; over many draws every actor tests about as often as the others."""
    data = dataset_of([f"actor{i % 24:02}" for i in range(240)], [0.0] * 240)
    drawn = folds(repeats=60, protocol="holdout", groups=(16, 4, 4))
    parts = [cut(data, fold) for fold in drawn]
    assert all([len(set(one[role].groups)) for role in ROLES] == [16, 4, 4] for one in parts)
    counts = np.unique([group for one in parts for group in set(one["test"].groups)], return_counts=True)[1]
    # 60 draws at chance 1/6: mean 10, standard deviation 2.9; 24 actors stay within 4 standard deviations.
    assert len(counts) == 24 and counts.min() > 0 and counts.max() < 22
    assert str(drawn[2]) == "hold-out 3 of 16/4/4 groups"


def test_consecutive_folds_are_the_actors_in_their_order() -> None:
    """Six of 24 are those of the RAVDESS literature, however the clips lie and the actors are spelled."""
    rng = np.random.default_rng(0)
    for spelling in ("{:02}", "{}", "s{}", "Actor_{}"):
        actor = rng.permutation(np.repeat(np.arange(1, 25), 3))
        data = dataset_of([spelling.format(number) for number in actor], [0.0] * len(actor))
        parts = [cut(data, fold) for fold in folds(6, protocol="consecutive")]
        for number, one in enumerate(parts):
            first = 4 * number + 1
            assert set(one["test"].groups) == {spelling.format(first + i) for i in range(4)}
            assert set(one["valid"].groups) == {spelling.format((first + 4 + i - 1) % 24 + 1) for i in range(4)}


@given(data=datasets(), number=st.integers(3, 8))
@settings(max_examples=25, deadline=None)
def test_consecutive_folds_are_runs_of_like_numbers_of_groups(data: Dataset, number: int) -> None:
    """Against a walk along the groups: each belongs to the fold in which its share of the way ends."""
    tested = [cut(data, fold)["test"].groups for fold in folds(number, protocol="consecutive")]
    names = sorted(set(data.clips["group"]), key=lambda name: int(name[1:]))
    walk = [fold for name in names for fold, groups in enumerate(tested) if name in groups]
    assert len(walk) == len(names) and walk == sorted(walk)
    sizes = np.bincount(walk, minlength=number)
    assert sizes.sum() == len(names) and sizes.max() - sizes.min() <= 1


def test_published_folds_are_taken_as_they_are_in_the_order_of_their_numbers() -> None:
    names = ["10", "2", "0", "10", "2", "0"]
    data = dataset_of([f"g{i}" for i in range(6)], [0.0] * 6, fold=names)
    assert published_folds(data) == 3
    tested = [cut(data, fold)["test"].ids for fold in folds(3, protocol="published")]
    assert tested == [("c2", "c5"), ("c1", "c4"), ("c0", "c3")]
    assert [cut(data, fold)["valid"].ids for fold in folds(3, protocol="published")] == [*tested[1:], tested[0]]


def test_the_official_split_is_the_columns_and_a_share_stands_in_for_a_missing_validation_part() -> None:
    data = tiny_dataset()
    parts = cut(data, Fold())
    assert {role: len(part) for role, part in parts.items()} == {"train": 60, "valid": 21, "test": 33}
    without = replace(data, clips=data.clips.assign(split=data.clips["split"].replace("valid", "train")))
    carved = cut(without, Fold(validation=0.25))
    assert carved["test"].ids == parts["test"].ids and len(carved["train"]) + len(carved["valid"]) == 81
    assert not set(carved["train"].groups) & set(carved["valid"].groups)
    assert abs(len(carved["valid"]) - 0.25 * 81) <= 4  # groups have four clips
    again = [cut(without, fold).hash for fold in folds(repeats=3, validation=0.25)]
    assert len(set(again)) == 3 and again[0] == carved.hash


def test_leave_one_session_out_is_grouped_folds_over_as_many_sessions() -> None:
    data = dataset_of([f"session{i % 5}" for i in range(50)], [0.0] * 50)
    for fold in folds(5):
        parts = cut(data, fold)
        assert [len(set(parts[role].groups)) for role in ROLES] == [3, 1, 1]
    carved = cut(data, folds(5, validation=0.2)[0])
    assert [len(set(carved[role].groups)) for role in ROLES] == [3, 1, 1]  # 0.2 of four sessions is nearer to one than to none


# ---- the hash, and what a fold is


def test_the_hash_says_which_clip_has_which_role_and_nothing_else() -> None:
    data = tiny_dataset()
    parts = cut(data, Fold())
    by_hand = json.dumps([[role, sorted(parts[role].ids)] for role in ROLES])
    assert parts.hash == hashlib.sha256(by_hand.encode()).hexdigest()
    order = np.random.default_rng(0).permutation(len(data))
    shuffled = replace(data, clips=data.clips.iloc[order].reset_index(drop=True))
    assert cut(shuffled, Fold()).hash == parts.hash
    swapped = Parts(train=parts["train"], valid=parts["test"], test=parts["valid"])
    assert swapped.hash != parts.hash


def test_a_fold_enters_the_key_of_a_trial() -> None:
    card = tiny_dataset().card
    efforts: list[Effort] = [
        Effort(),
        Effort(folds=5),
        Effort(folds=5, validation=0.2),
        Effort(folds=5, protocol="stratified"),
        Effort(folds=5, protocol="stratified-grouped"),
        Effort(folds=5, protocol="consecutive"),
        Effort(groups=(20, 5, 5)),
        Effort(groups=(20, 5, 5), repeats=2),
    ]
    keys = [[trial.key for trial in method_trials("ridge", card, effort, {}, [1])] for effort in efforts]
    assert [len(found) for found in keys] == [1, 5, 5, 5, 5, 5, 1, 2]
    assert keys[6][0] == keys[7][0]
    assert len({key for found in keys for key in found}) == 28  # the first hold-out is in two of them


@pytest.mark.parametrize(
    ("fold", "text"),
    [
        (Fold(), "official split"),
        (Fold(validation=0.1), "official split, 0.1 of training validates"),
        (Fold(protocol="grouped", index=1, of=5, repeat=2), "fold 2/5, repeat 3"),
        (Fold(protocol="stratified", of=5), "stratified fold 1/5, repeat 1"),
        (Fold(protocol="published", of=5), "published fold 1/5"),
        (Fold(protocol="consecutive", index=5, of=6), "consecutive fold 6/6"),
        (Fold(protocol="consecutive", of=6, repeat=1, validation=0.2), "consecutive fold 1/6, repeat 2, 0.2 of training validates"),
    ],
)
def test_a_fold_has_a_name(fold: Fold, text: str) -> None:
    assert str(fold) == text


# ---- mistakes


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"protocol": "group"}, "no protocol called 'group'\nDid you mean 'grouped'"),
        ({"number": 2}, "2 folds cannot be cut.*\nAsk for at least 3"),
        ({"number": 1, "validation": 0.2}, "1 folds cannot be cut.*\nAsk for at least 2"),
        ({"protocol": "stratified"}, "needs a number of folds.*\n.*--folds 5"),
        ({"number": 5, "protocol": "official"}, "'official' has no folds"),
        ({"number": 5, "protocol": "holdout", "groups": (1, 1, 1)}, "'holdout' has no folds"),
        ({"protocol": "holdout"}, "belong together.*\n.*16/4/4"),
        ({"number": 5, "groups": (16, 4, 4)}, "belong together"),
        ({"groups": (16, 0, 4)}, "16/0/4"),
        ({"groups": (16, 4, 4), "validation": 0.1}, "without --validation"),
        ({"repeats": 3}, "nothing random to repeat"),
        ({"number": 6, "repeats": 3, "protocol": "consecutive"}, "'consecutive' has nothing random to repeat"),
        ({"protocol": "consecutive"}, "needs a number of folds"),
        ({"number": 5, "validation": 1.5}, "--validation 1.5"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        folds(**options)


@pytest.mark.parametrize(
    ("fold", "words"),
    [
        (Fold(protocol="grouped", of=99), "29 groups, too few for 99 folds\nAsk for at most 29"),
        (Fold(protocol="consecutive", of=99), "29 groups, too few for 99 folds\nAsk for at most 29"),
        (Fold(protocol="stratified", of=999), "114 clips, too few for 999 folds"),
        (Fold(protocol="holdout", groups=(16, 4, 4)), "29 groups, 16/4/4 makes 24\n.*29"),
        (Fold(protocol="published", of=5), "ships no folds"),
        (Fold(validation=0.2), "validation part of its own"),
    ],
)
def test_a_data_set_that_cannot_be_cut_so_says_why(fold: Fold, words: str) -> None:
    with pytest.raises(DataError, match=words):
        cut(tiny_dataset(), fold)


def test_faulty_published_folds_and_lonely_groups_are_named() -> None:
    data = dataset_of(["a", "b", "c"], [0.0] * 3, fold=["0", "", "1"])
    with pytest.raises(DataError, match="1 clips are in no fold, the first is 'c1'"):
        published_folds(data)
    data = dataset_of(["a", "b", "c"], [0.0] * 3, fold=["0", "1", "2"])
    with pytest.raises(DataError, match="ships 3 folds, 4 were asked for"):
        cut(data, Fold(protocol="published", of=4))
    with pytest.raises(DataError, match="a single group"):
        cut(dataset_of(["a", "a", "b"], [0.0] * 3), Fold(protocol="grouped", of=2, validation=0.5))
    with pytest.raises(DataError, match="no label with as many clips as there are folds, 3"):
        cut(dataset_of(["a", "b", "c"], [-1.0, 0.0, 1.0]), Fold(protocol="stratified-grouped", of=3))
    data = dataset_of(["a", "b"], [0.0] * 2, split=["train", "test"])
    with pytest.raises(DataError, match=r"no clips in valid(?s:.)*--validation 0.15"):
        cut(data, Fold())
