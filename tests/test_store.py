"""Assembly's checks, and the store: what is saved is what is loaded, mapped, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data import store
from harness.data.assemble import assemble
from harness.data.catalogue import Facts
from harness.data.schema import CLIP_COLUMNS, Dataset, Ragged, Source, Task
from harness.errors import DataError

FACTS = Facts(
    name="toy", title="Toy", task=Task(kind="regression", low=-3, high=3), metrics=("mae",), splits={"train": 3, "valid": 1, "test": 2}
)
SPLIT = ["train", "train", "train", "valid", "test", "test"]


def clips(**columns: Any) -> pd.DataFrame:
    base = {
        "id": ["a_1", "a_2", "b_1", "c_1", "d_1", "d_2"],
        "group": ["a", "a", "b", "c", "d", "d"],
        "split": SPLIT,
        "label": [-3.0, 0.5, 1.5, 2.5, -0.4, 3.0],
        "text": ["one", "two", "three", "four", "five", "six"],
    }
    return pd.DataFrame({**base, **columns})


def features(dim: int = 2, lengths: tuple[int, ...] = (1, 2, 3, 1, 2, 4)) -> list[np.ndarray]:
    rng = np.random.default_rng(dim)
    return [rng.normal(size=(length, dim)) for length in lengths]


def toy(name: str = "toy", facts: Facts = FACTS, simulated: bool = False, **parts: Any) -> Dataset:
    given_clips = parts.pop("clips", clips())
    given_features = parts or {"text": features(), "audio": features(3)}
    source = Source(layout="toy", files={"toy.pkl": "0"})
    return assemble(name=name, facts=facts, clips=given_clips, features=given_features, source=source, simulated=simulated)


def equal(a: Dataset, b: Dataset) -> bool:
    return (
        a.clips.equals(b.clips)
        and list(a.features) == list(b.features)
        and all(torch.equal(a.features[m].values, b.features[m].values) for m in a.features)
        and all(torch.equal(a.features[m].offsets, b.features[m].offsets) for m in a.features)
    )


class TestAssembly:
    def test_frames_come_through_in_order(self) -> None:
        data = toy()
        assert list(data.features) == ["text", "audio"] and tuple(data.clips.columns) == CLIP_COLUMNS
        for row, frames in enumerate(features(3)):
            np.testing.assert_array_equal(data.features["audio"].clip(row).numpy(), frames.astype(np.float32))

    def test_the_card_says_what_is_in_it(self) -> None:
        card = toy().card
        assert card.clips == {"train": 3, "valid": 1, "test": 2} and card.groups == {"train": 2, "valid": 1, "test": 1}
        audio = card.modalities["audio"]
        assert (audio.dim, audio.frames, audio.shortest, audio.mean_length, audio.longest) == (3, 13, 1, 13 / 6, 4)
        assert (audio.nonfinite_replaced, audio.empty_clips, card.warnings) == (0, 0, ())

    def test_the_histogram_rounds_half_to_even(self) -> None:
        labels = toy(clips=clips(label=[-2.5, 0.5, 1.5, 2.5, -0.5, 3.0])).card.labels
        assert labels["train"] == {"-3": 0, "-2": 1, "-1": 0, "0": 1, "1": 0, "2": 1, "3": 0}
        assert labels["valid"]["2"] == 1 and labels["test"] == {"-3": 0, "-2": 0, "-1": 0, "0": 1, "1": 0, "2": 0, "3": 1}

    def test_modalities_stand_in_one_order_whatever_the_source_says(self) -> None:
        assert list(toy(vision=features(), text=features()).features) == ["text", "vision"]

    def test_values_that_are_not_finite_become_zero_and_are_counted(self) -> None:
        dirty = features()
        dirty[1][0, 1], dirty[2][2, 0], dirty[5][3, 1], dirty[0][0, 0] = np.nan, -np.inf, np.inf, 1e300
        data = toy(text=dirty, audio=features(3))
        assert data.card.modalities["text"].nonfinite_replaced == 4 and data.card.modalities["audio"].nonfinite_replaced == 0
        assert data.features["text"].clip(1)[0, 1] == 0 == data.features["text"].clip(0)[0, 0]
        assert torch.isfinite(data.features["text"].values).all()
        assert np.isnan(dirty[1][0, 1]), "the caller's array was changed"

    def test_a_clip_without_frames_gets_one_of_zeros_and_is_counted(self) -> None:
        data = toy(text=features(lengths=(0, 2, 3, 1, 0, 4)))
        assert data.card.modalities["text"].empty_clips == 2
        assert data.features["text"].lengths.tolist() == [1, 2, 3, 1, 1, 4]
        assert torch.equal(data.features["text"].clip(4), torch.zeros(1, 2))

    def test_ragged_input_gives_the_same_as_arrays(self) -> None:
        data = toy(text=features())
        assert equal(data, toy(text=data.features["text"]))

    def test_a_single_split_is_accepted(self) -> None:
        assert toy(clips=clips(split=["test"] * 6)).card.clips == {"test": 6}

    def test_classes_are_counted_by_name(self) -> None:
        facts = Facts(name="c", title="C", task=Task(kind="classification", classes=("sad", "glad")), metrics=("uar",))
        data = toy(facts=facts, clips=clips(label=[0, 1, 1, 0, "1", 0]))
        assert data.card.labels["train"] == {"sad": 1, "glad": 2} and data.rows([0, 4]).labels.dtype == torch.int64  # type: ignore[union-attr]
        for bad in (2, -1, 0.5):
            with pytest.raises(DataError, match=r"clip 'a_2' has the label .*\nAllowed: 0 \(sad\), 1 \(glad\)"):
                toy(facts=facts, clips=clips(label=[0, bad, 1, 0, 1, 0]))

    @pytest.mark.parametrize("bad", [3.2, -3.0001, np.nan, np.inf, "", "good", None, [1]])
    def test_a_label_outside_the_range_is_refused(self, bad: object) -> None:
        labels = pd.Series([0.0, 1.0, bad, 0.0, 0.0, 0.0], dtype=object)
        with pytest.raises(DataError, match=r"toy\.pkl: clip 'b_1' has the label .* \(1 clips.*\nAllowed: numbers from -3 to 3"):
            toy(clips=clips(label=labels))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"clips": clips().iloc[:0]}, "holds no clips"),
            ({"clips": clips().drop(columns="label")}, "no label"),
            ({"clips": clips(id=["a_1", "a_1", "b_1", "c_1", "d_1", "d_2"])}, "clip 'a_1' is more than once in train"),
            ({"clips": clips(id=["a_1", "a_2", "b_1", "c_1", "a_2", "d_2"])}, "clip 'a_2' is in train and in test"),
            ({"clips": clips(split=[*SPLIT[:5], "dev"])}, "clip 'd_2' has the split 'dev'.*\nAllowed: train, valid, test"),
            ({"clips": clips(group=["a", None, "b", "c", "d", "d"])}, "1 clips have no group, the first is number 2"),
            ({"clips": clips(id=["a_1", "", "b_1", "c_1", "d_1", "d_2"])}, "1 clips have no id"),
            ({"text": features()[:5]}, "text has 5 clips, the labels have 6"),
            ({"text": [*features()[:5], np.ones((2, 3))]}, r"text of clip 'd_2' has the shape \(2, 3\)"),
            ({"text": [*features()[:5], np.ones(2)]}, r"text of clip 'd_2' has the shape \(2,\)"),
            ({"text": [np.ones((2, 0))] * 6}, r"text of clip 'a_1' has the shape \(2, 0\)"),
            ({"text": [*features()[:5], np.ones((2, 2), dtype=complex)]}, "text of clip 'd_2' is of type complex128"),
            ({"text": [np.full((1, 2), "x")] * 6}, "text of clip 'a_1' is of type <U1"),
            ({"txt": features()}, "no modality 'txt'\nDid you mean 'text'"),
        ],
    )
    def test_what_cannot_be_used_is_refused_with_its_place(self, change: dict[str, Any], message: str) -> None:
        with pytest.raises(DataError, match=r"^toy\.pkl(?s:.)*" + message):
            toy(**change)

    def test_no_modality_at_all_is_refused(self) -> None:
        with pytest.raises(DataError, match="no features"):
            assemble(name="toy", facts=FACTS, clips=clips(), features={}, source=Source(layout="toy"))


class TestStore:
    def test_what_is_loaded_is_what_was_saved(self, tmp_path: Path) -> None:
        before = toy("toy@x")
        saved = store.save(before, tmp_path)
        loaded = store.load("toy@x", tmp_path, verify=True)
        assert equal(before, loaded) and equal(before, saved)
        hashes = {"fingerprint": store.fingerprint(before), "transcripts": loaded.card.transcripts}
        assert loaded.card == before.card.model_copy(update=hashes) == saved.card
        assert sorted(path.name for path in (tmp_path / "toy@x").iterdir()) == ["card.json", "clips.parquet", "features.safetensors"]
        assert {path.name for path in tmp_path.iterdir()} == {"toy@x", ".lock"}

    def test_a_second_import_takes_the_place_of_the_first(self, tmp_path: Path) -> None:
        first = store.save(toy(), tmp_path)
        values = first.features["text"].values.clone()
        store.save(toy(vision=features(5)), tmp_path)
        assert list(store.load("toy", tmp_path).features) == ["vision"]
        assert torch.equal(first.features["text"].values, values), "an open data set must keep its values"

    def test_features_are_mapped_not_copied(self, tmp_path: Path) -> None:
        """Loading 120 MB must not take memory for them until they are read."""
        store.save(toy(text=[np.ones((800_000, 6), np.float32)] * 6), tmp_path)
        store.load("toy", tmp_path)  # whatever libraries load on first use
        before = psutil.Process().memory_info().rss
        data = store.load("toy", tmp_path)
        grown = psutil.Process().memory_info().rss - before
        assert data.features["text"].values.nbytes == 115_200_000 and grown < 10_000_000
        assert float(data.features["text"].values.sum()) == 800_000 * 36

    def test_names_lists_what_is_stored(self, tmp_path: Path) -> None:
        for name in ("toy@b", "toy@a", "other"):
            store.save(toy(name), tmp_path)
        (tmp_path / "datasets").mkdir()
        (tmp_path / ".toy.new").mkdir()
        (tmp_path / ".toy.new" / "card.json").write_text("{}")
        assert store.names(tmp_path) == ("other", "toy@a", "toy@b")
        assert store.names(tmp_path / "nowhere") == ()

    def test_resolve(self, tmp_path: Path) -> None:
        assert store.resolve("toy", tmp_path) is None
        store.save(toy("toy@simulated", simulated=True), tmp_path)
        assert store.resolve("toy", tmp_path) == "toy@simulated"
        store.save(toy("toy@glove"), tmp_path)
        assert store.resolve("toy", tmp_path) == "toy@glove"
        assert store.resolve("toy@simulated", tmp_path) == "toy@simulated"
        assert store.resolve("toy@minilm", tmp_path) is None
        store.save(toy("toyota@x"), tmp_path)
        assert store.resolve("toy", tmp_path) == "toy@glove"
        store.save(toy("toy@minilm"), tmp_path)
        with pytest.raises(DataError, match="toy@glove or toy@minilm"):
            store.resolve("toy", tmp_path)
        store.save(toy(), tmp_path)
        assert store.resolve("toy", tmp_path) == "toy"

    def test_a_missing_data_set_is_named_with_its_neighbours(self, tmp_path: Path) -> None:
        store.save(toy("toy@minilm"), tmp_path)
        with pytest.raises(DataError, match=r"no data set 'toy@minlm'(?s:.)*Did you mean 'toy@minilm'(?s:.)*harness data import toy FILE"):
            store.load("toy@minlm", tmp_path)

    @pytest.mark.parametrize("name", ["../evil", "a/b", "", ".hidden", "a@b@c", "a b", "a\n"])
    def test_a_name_cannot_leave_the_folder(self, tmp_path: Path, name: str) -> None:
        for act in (lambda: store.load(name, tmp_path), lambda: store.save(toy(name), tmp_path)):
            with pytest.raises(DataError, match="cannot be the name"):
                act()
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("name", [store.FEATURES, store.CLIPS, store.CARD])
    @pytest.mark.parametrize("damage", ["gone", "empty", "cut", "garbage"])
    def test_a_damaged_file_is_named(self, tmp_path: Path, name: str, damage: str) -> None:
        store.save(toy(), tmp_path)
        path = tmp_path / "toy" / name
        raw = path.read_bytes()
        path.unlink()
        if damage != "gone":
            path.write_bytes({"empty": b"", "cut": raw[: len(raw) // 2], "garbage": b"\xff" * len(raw)}[damage])
        message = "no data set 'toy'" if (name, damage) == (store.CARD, "gone") else f"{name} is missing or damaged"
        with pytest.raises(DataError, match=message) as caught:
            store.load("toy", tmp_path)
        assert str(tmp_path) in caught.value.problem and "mport" in caught.value.fix

    def test_files_of_two_imports_mixed_are_seen(self, tmp_path: Path) -> None:
        store.save(toy("a"), tmp_path)
        store.save(toy("b", text=features(lengths=(2, 2, 2, 2, 2, 2)), audio=features(3)), tmp_path)
        store.save(toy("c", vision=features()), tmp_path)
        store.save(toy("d", clips=clips(split=["test"] * 6)), tmp_path)
        for other, name in (("b", store.FEATURES), ("c", store.FEATURES), ("d", store.CLIPS), ("d", store.CARD)):
            path = tmp_path / "a" / name
            kept = path.read_bytes()
            path.write_bytes((tmp_path / other / name).read_bytes())
            with pytest.raises(DataError, match="is damaged"):
                store.load("a", tmp_path)
            path.write_bytes(kept)

    def test_verify_sees_one_changed_bit(self, tmp_path: Path) -> None:
        store.save(toy(), tmp_path)
        path = tmp_path / "toy" / store.FEATURES
        raw = bytearray(path.read_bytes())
        raw[-1] ^= 1
        path.write_bytes(raw)
        store.load("toy", tmp_path)
        with pytest.raises(DataError, match="the values are not those that were stored"):
            store.load("toy", tmp_path, verify=True)

    @pytest.mark.parametrize("step", ["save_file", "sync_folder"])
    def test_a_full_disk_leaves_the_older_import(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
        before = store.save(toy(), tmp_path)

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(store, step, full)
        with pytest.raises(DataError, match="toy could not be written.*No space left"):
            store.save(toy(vision=features(5)), tmp_path)
        monkeypatch.undo()
        assert equal(before, store.load("toy", tmp_path, verify=True))
        assert {path.name for path in tmp_path.iterdir()} == {"toy", ".lock"}

    def test_what_a_killed_import_left_is_in_nobodys_way(self, tmp_path: Path) -> None:
        (tmp_path / ".toy.new").mkdir(parents=True)
        (tmp_path / ".toy.new" / "rest").write_text("x")
        store.save(toy(), tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {"toy", ".lock"}

    def test_writers_at_the_same_time_take_turns(self, tmp_path: Path) -> None:
        with ThreadPoolExecutor(4) as pool:
            saved = list(pool.map(lambda _: store.save(toy(), tmp_path), range(20)))
        assert all(equal(toy(), data) for data in saved)
        assert equal(toy(), store.load("toy", tmp_path, verify=True))

    def test_the_root_is_the_environments_or_data(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("MER_DATA", str(tmp_path))
        assert store.data_root() == tmp_path
        monkeypatch.delenv("MER_DATA")
        assert store.data_root() == Path("data")


def change_value(data: Dataset, at: int) -> Dataset:
    name = sorted(data.features)[at % len(data.features)]
    values = data.features[name].values.clone()
    flat = values.view(-1)
    flat[at % len(flat)] = torch.nextafter(flat[at % len(flat)], torch.tensor(9.0))
    return replace(data, features={**data.features, name: Ragged(values, data.features[name].offsets)})


def change_column(column: str) -> Callable[[Dataset, int], Dataset]:
    def change(data: Dataset, at: int) -> Dataset:
        table = data.clips.copy()
        row, place = at % len(table), table.columns.get_loc(column)
        old = table.iloc[row, place]
        table.iloc[row, place] = np.nextafter(np.float32(old), np.float32(0.1)) if column == "label" else f"{old}x"
        return replace(data, clips=table)

    return change


def move_frame(data: Dataset, at: int) -> Dataset:
    """Same values, one boundary between two clips shifted."""
    name = sorted(data.features)[at % len(data.features)]
    offsets = data.features[name].offsets.clone()
    offsets[2] += 1
    return replace(data, features={**data.features, name: Ragged(data.features[name].values, offsets)})


def change_task(data: Dataset, at: int) -> Dataset:
    task = Task(kind="regression", low=-3, high=3 + at + 1)
    return replace(data, card=data.card.model_copy(update={"task": task}))


def drop_modality(data: Dataset, at: int) -> Dataset:
    return replace(data, features={"text": data.features["text"]})


def rename_modality(data: Dataset, at: int) -> Dataset:
    return replace(data, features={"text": data.features["text"], "vision": data.features["audio"]})


@cache
def unchanged() -> Dataset:
    return toy()


CHANGES = [change_value, *map(change_column, ("id", "group", "split", "label")), move_frame, change_task, drop_modality, rename_modality]


class TestFingerprint:
    @settings(max_examples=100, deadline=None)
    @given(change=st.sampled_from(CHANGES), at=st.integers(0, 1000))
    def test_any_one_change_changes_it(self, change: Callable[[Dataset, int], Dataset], at: int) -> None:
        data = unchanged()
        assert store.fingerprint(change(data, at)) != store.fingerprint(data)

    def test_names_and_orders_of_dictionaries_do_not(self, tmp_path: Path) -> None:
        data = toy()
        other = replace(
            toy("another", clips=clips(text=["x"] * 6)),
            features=dict(reversed(data.features.items())),
        )
        other = replace(other, card=other.card.model_copy(update={"title": "Else", "source": Source(layout="else")}))
        assert store.fingerprint(other) == store.fingerprint(data) == store.save(data, tmp_path).card.fingerprint

    def test_ids_cannot_run_into_each_other(self) -> None:
        one, two = toy(clips=clips(id=["a", "bc", *"1234"])), toy(clips=clips(id=["ab", "c", *"1234"]))
        assert store.fingerprint(one) != store.fingerprint(two)

    def test_it_is_what_its_definition_says(self) -> None:
        """Spelled out byte by byte, because records of finished trials carry it: a change would orphan them all."""
        data = toy(text=[np.full((1, 2), 0.5)] * 6)
        spelled = (
            b'["regression", -3.0, 3.0, []]'
            b'["a_1", "a_2", "b_1", "c_1", "d_1", "d_2"]["a", "a", "b", "c", "d", "d"]'
            b'["train", "train", "train", "valid", "test", "test"]'
            + struct.pack("<6d", -3, 0.5, 1.5, 2.5, float(np.float32(-0.4)), 3)
            + b'["text", 2, 6]'
            + struct.pack("<6q", *[1] * 6)
            + struct.pack("<12f", *[0.5] * 12)
        )
        assert store.fingerprint(data) == hashlib.sha256(spelled).hexdigest()


def test_a_card_is_plain_json_without_anyones_folders(tmp_path: Path) -> None:
    store.save(toy(), tmp_path)
    card = json.loads((tmp_path / "toy" / "card.json").read_text())
    assert card["clips"] == {"train": 3, "valid": 1, "test": 2} and str(tmp_path) not in json.dumps(card)
