"""Every layout that is read: written from known arrays, imported, compared; wrong, cut and hostile files are data errors."""

from __future__ import annotations

import collections
import copy
import os
import pickle
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from layout_files import (
    DIMS,
    RAVDESS,
    Truth,
    enterface,
    manifest,
    misa,
    mmsa,
    mult,
    multibench,
    padded,
    ravdess,
    truth,
    ur_funny,
    ur_funny_truth,
    write,
)

from harness.data import catalogue, checks, store
from harness.data.assemble import assemble
from harness.data.importing import import_dataset
from harness.data.opening import need_features, open_dataset
from harness.data.schema import CLIP_COLUMNS, MORE_COLUMNS, Dataset, Source
from harness.data.sources import layout as layouts
from harness.data.sources.layout import Opened, open_files, read, recognise, split_id
from harness.data.sources.manifest import COLUMNS
from harness.data.sources.padding import unpad
from harness.errors import DataError
from harness.training.metrics import metrics

Bring = Callable[..., Dataset]


@pytest.fixture
def bring(tmp_path: Path) -> Bring:
    """Writes files and imports them as a data set: ``bring("mosi", {"a.pkl": content})``, or a folder as it is."""

    def run(name: str, files: dict[str, Any] | Path, **options: Any) -> Dataset:
        paths = [files] if isinstance(files, Path) else write(tmp_path, files)
        return import_dataset(name, paths, root=tmp_path / "store", **options)

    return run


def same(data: Dataset, known: Truth, ids: list[str] | None = None, modalities: tuple[str, ...] = ("text", "audio", "vision")) -> None:
    assert data.clips["id"].tolist() == (known.ids if ids is None else ids)
    assert data.clips["split"].tolist() == known.splits
    np.testing.assert_array_equal(data.clips["label"], np.array(known.labels, data.clips["label"].dtype))
    assert tuple(data.features) == modalities
    for modality in modalities:
        for row, frames in enumerate(known.frames[modality]):
            np.testing.assert_array_equal(data.features[modality].clip(row).numpy(), frames)


class TestPadding:
    @settings(max_examples=80, deadline=None)
    @given(
        lengths=st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=5), min_size=1, max_size=3),
        front=st.booleans(),
        seed=st.integers(0, 99),
    )
    def test_what_was_padded_is_what_comes_back(self, lengths: list[list[int]], front: bool, seed: int) -> None:
        """Whatever the side; where no clip is padded there is no side, and nothing to take off."""
        rng = np.random.default_rng(seed)
        clips = [[rng.uniform(1, 2, (length, 3)) for length in part] for part in lengths]
        splits = [{"audio": padded(part, 4, front)} for part in clips]
        found = unpad(splits).frames["audio"]
        for got, real in zip(found, (clip for part in clips for clip in part), strict=True):
            np.testing.assert_array_equal(got, real)

    def test_zeros_inside_and_on_the_other_side_are_data(self) -> None:
        clips = [np.array([[0.0], [1], [0], [2], [0]]), np.array([[3.0]]), np.array([[4.0], [5]])]
        found = unpad([{"audio": padded(clips, 6, front=True)}]).frames["audio"]
        assert [clip.ravel().tolist() for clip in found] == [
            [1, 0, 2, 0],
            [3],
            [4, 5],
        ]  # the first clip's silent start is lost, its end is not

    def test_modalities_as_long_as_the_text_share_the_widest_span(self) -> None:
        text, audio = [np.ones((2, 1)), np.ones((3, 1))], [np.array([[0.0], [1]]), np.array([[1.0], [1], [0]])]
        found = unpad([{"text": padded(text, 4, front=True), "audio": padded(audio, 4, front=True)}])
        assert [clip.ravel().tolist() for clip in found.frames["audio"]] == [[0, 1], [1, 1, 0]]
        assert found.notes["audio lengths"] == "leading zeros off, the widest span of text, audio"

    def test_nan_is_not_padding(self) -> None:
        array = np.array([[[0.0], [np.nan], [1.0]], [[0.0], [0.0], [1.0]]])
        assert [len(clip) for clip in unpad([{"audio": array}]).frames["audio"]] == [2, 1]

    def test_steps_of_none(self) -> None:
        assert [len(clip) for clip in unpad([{"audio": np.zeros((2, 0, 3))}]).frames["audio"]] == [0, 0]


class TestMult:
    @pytest.mark.parametrize("front", [True, False])
    @pytest.mark.parametrize("aligned", [True, False])
    def test_round_trip(self, bring: Bring, aligned: bool, front: bool) -> None:
        known = truth(aligned=aligned)
        data = bring("mosi", {"mosi_data.pkl": mult(known, aligned=aligned, front=front)})
        same(data, known, [f"{group}_{row}_{row}.5" for row, group in enumerate(known.groups)])
        assert data.clips["group"].tolist() == known.groups and data.card.source.layout == "mult"

    def test_a_file_without_ids_numbers_its_clips_and_says_so(self, bring: Bring) -> None:
        known = truth(aligned=True)
        data = bring("mosei", {"mosei.pkl": mult(known, aligned=True, ids=False)})
        same(data, known, [f"{split}_{row}" for split, count in (("train", 4), ("valid", 2), ("test", 3)) for row in range(count)])
        assert any("names no clips" in warning for warning in data.card.warnings)

    def test_infinities_are_missing_values(self, bring: Bring) -> None:
        known = truth(aligned=True)
        raw = mult(known, aligned=True)
        raw["train"]["audio"][0, -1, 0] = -np.inf
        assert bring("mosi", {"m.pkl": raw}).card.modalities["audio"].nonfinite_replaced == 1

    @staticmethod
    def iemocap() -> tuple[Truth, dict[str, Any]]:
        """Clip 1 has no class, clip 5 has two, the others one each."""
        known = truth(aligned=True, classes=4)
        raw = mult(known, aligned=True)
        scores = np.zeros((len(known.ids), 4, 2))
        scores[:, :, 0] = 1
        for row, label in enumerate(known.labels):
            scores[row, int(label)] = (0, 1)
        scores[1], scores[5, :2] = (1, 0), (0, 1)
        scores[5, 2:] = (1, 0)
        for split, part in raw.items():
            part["labels"] = scores[known.rows(split)]
        return known, raw

    def test_iemocaps_scores_become_classes_and_clips_without_one_are_left_out(self, bring: Bring) -> None:
        known, raw = self.iemocap()
        data = bring("iemocap4", {"iemocap_data.pkl": raw})
        kept = [row for row in range(len(known.ids)) if row not in (1, 5)]
        left = Truth(
            splits=[known.splits[row] for row in kept],
            labels=[known.labels[row] for row in kept],
            frames={m: [frames[row] for row in kept] for m, frames in known.frames.items()},
        )
        same(data, left, [f"{known.groups[row]}_{row}_{row}.5" for row in kept])
        assert data.card.task.classes == ("neutral", "happy", "sad", "angry")
        assert "2 clips are left out: the file scores none or several of neutral, happy, sad, angry" in data.card.warnings

    def test_iemocaps_classes_are_matched_by_name(self, bring: Bring) -> None:
        """In a data set whose classes stand in another order, a clip keeps its class, not its number."""
        known, raw = self.iemocap()
        four, six = (bring(name, {"iemocap_data.pkl": raw}) for name in ("iemocap4", "iemocap6"))
        assert [four.card.task.classes[label] for label in four.clips["label"]] == [
            six.card.task.classes[label] for label in six.clips["label"]
        ]

    def test_scores_of_emotions_are_no_sentiment(self, bring: Bring) -> None:
        with pytest.raises(
            DataError, match=r"m\.pkl\[train\]\['labels'\] scores neutral.*CMU-MOSI has other labels\nImport it as iemocap4"
        ):
            bring("mosi", {"m.pkl": self.iemocap()[1]})

    def test_labels_of_another_shape(self, bring: Bring) -> None:
        raw = mult(truth(aligned=True), aligned=True)
        raw["test"]["labels"] = np.zeros((3, 1, 7))
        with pytest.raises(DataError, match=r"m\.pkl\[test\]\['labels'\] has 7 entries per clip"):
            bring("mosi", {"m.pkl": raw})


class TestMultiBench:
    def test_round_trip(self, bring: Bring) -> None:
        known = truth(aligned=True)
        data = bring("mosi", {"mosi_raw.pkl": multibench(known)})
        same(data, known)
        assert data.clips["group"].tolist() == known.groups and data.card.source.layout == "multibench"

    def test_flattened_ur_funny(self, bring: Bring) -> None:
        known = truth(aligned=True, classes=2)
        data = bring("ur_funny", {"humor.pkl": multibench(known, numbers=True)})
        same(data, known, [str(row) for row in range(len(known.ids))])

    def test_clips_called_by_their_video_are_numbered(self, bring: Bring) -> None:
        known = truth(aligned=True)
        raw = multibench(known)
        for split, part in raw.items():
            part["id"] = np.array([known.groups[row] for row in known.rows(split)])
        data = bring("mosi", {"m.pkl": raw})
        assert data.clips["id"].tolist()[:4] == ["trainv0_0", "trainv0_1", "trainv1_0", "trainv1_1"]
        assert data.clips["group"].tolist() == known.groups

    def test_clips_without_text_stay(self, bring: Bring) -> None:
        raw = multibench(truth(aligned=True))
        for modality in DIMS:
            raw["train"][modality][0] = 0
        data = bring("mosi", {"m.pkl": raw})
        assert data.card.clips["train"] == 4 and data.card.modalities["text"].empty_clips == 1
        assert data.card.source.notes["clips without text"].startswith("1 kept")


class TestMmsa:
    def test_round_trip_with_the_labels_of_sims(self, bring: Bring) -> None:
        known = truth(aligned=False)
        known.labels = [label / 3 for label in known.labels]
        of_one = np.array(known.labels)[::-1]
        more = {f"regression_labels_{letter}": of_one for letter in "TAV"}
        data = bring("sims", {"unaligned_39.pkl": mmsa(known, **more)})
        same(data, known)
        assert data.clips["text"].tolist() == known.texts and (data.card.task.low, data.card.task.high) == (-1, 1)
        assert data.card.source.notes["labels not used"] == "regression_labels_T, regression_labels_A, regression_labels_V"

    def test_a_published_file_is_known_by_its_checksum(self, bring: Bring, monkeypatch: pytest.MonkeyPatch) -> None:
        known = truth(aligned=False)
        first = bring("mosi", {"a.pkl": mmsa(known)})
        assert first.card.source.notes["published files"].startswith("none of MMSA MOSI aligned_50.pkl")
        facts = catalogue.facts("mosi").model_copy(update={"checksums": {"the file": first.card.source.files["a.pkl"][:10]}})
        monkeypatch.setattr(catalogue, "facts", lambda name: facts)
        assert bring("mosi", {"a.pkl": mmsa(known)}).card.source.notes["a.pkl is"] == "the published the file, by its SHA-256"


class TestMisa:
    def files(self, known: Truth) -> dict[str, Any]:
        lists, embedding = misa(known)
        return {"train.pkl": lists["train"], "dev.pkl": lists["valid"], "test.pkl": lists["test"], "embedding_and_mapping.pt": embedding}

    def sdk_ids(self, known: Truth) -> list[str]:
        return [f"{group}[{clip.rpartition('_')[2]}]" for clip, group in zip(known.ids, known.groups, strict=True)]

    def test_round_trip_with_the_embedding(self, bring: Bring) -> None:
        known = truth(aligned=True)
        data = bring("mosi", self.files(known))
        same(data, known, self.sdk_ids(known))
        assert data.clips["text"].tolist() == known.texts and data.clips["group"].tolist() == known.groups

    def test_without_the_embedding_the_words_are_text_and_nothing_else(self, bring: Bring) -> None:
        known = truth(aligned=True)
        files = self.files(known)
        del files["embedding_and_mapping.pt"]
        data = bring("mosi", files)
        same(data, known, self.sdk_ids(known), ("audio", "vision"))
        assert data.clips["text"].tolist() == known.texts and "word ids mean nothing" in data.card.source.notes["text"]

    def test_a_folder_stands_for_the_files_in_it(self, tmp_path: Path) -> None:
        known = truth(aligned=True)
        (tmp_path / "MOSI").mkdir()
        write(tmp_path / "MOSI", self.files(known))
        same(import_dataset("mosi", [tmp_path / "MOSI"], root=tmp_path / "store"), known, self.sdk_ids(known))

    @pytest.mark.parametrize("legacy", [True, False])
    def test_the_embedding_as_misa_writes_it(self, tmp_path: Path, legacy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        """With a defaultdict whose rule is a function of MISA's module, in the old file form and the new."""
        module = types.ModuleType("create_dataset")

        def return_unk() -> int:
            raise AssertionError("code of the file was run")

        return_unk.__module__, return_unk.__qualname__ = "create_dataset", "return_unk"
        module.return_unk = return_unk  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "create_dataset", module)
        known = truth(aligned=True)
        files = self.files(known)
        matrix, words = files.pop("embedding_and_mapping.pt")
        paths = write(tmp_path, files)
        torch.save((matrix, collections.defaultdict(return_unk, words)), tmp_path / "e.pt", _use_new_zipfile_serialization=not legacy)
        monkeypatch.delitem(sys.modules, "create_dataset")
        same(import_dataset("mosi", [*paths, tmp_path / "e.pt"], root=tmp_path / "store"), known, self.sdk_ids(known))

    def test_moseis_seven_labels_are_the_sentiment_and_six_emotions(self, bring: Bring) -> None:
        known = truth(aligned=True)
        files = self.files(known)
        for name in ("train.pkl", "dev.pkl", "test.pkl"):
            files[name] = [
                (sample, np.concatenate([label, np.full((1, 6), 2.0)], axis=1), segment) for sample, label, segment in files[name]
            ]
        same(bring("mosei", files), known, self.sdk_ids(known))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda f: {"first.pkl": f["train.pkl"]}, r"first\.pkl does not say which split it is"),
            (lambda f: {"train_dev.pkl": f["train.pkl"]}, r"train_dev\.pkl does not say which split it is"),
            (lambda f: {"dev.pkl": f["dev.pkl"], "val.pkl": f["test.pkl"]}, "are the same split"),
            (lambda f: {"dev.pkl": [*f["dev.pkl"], ("x", 1)]}, r"dev\.pkl\[2\] is not a clip"),
            (lambda f: {**f, "embedding_and_mapping.pt": (torch.zeros(3, 4), {})}, "not rows of the embedding, which has 3"),
            (lambda f: {**f, "embedding_and_mapping.pt": {"words": 1}}, "does not begin with an embedding matrix"),
            (lambda f: {"dev.pkl": [((*s[:1], np.ones(3), *s[2:]), y, i) for s, y, i in f["dev.pkl"]]}, "vision of clip .* float64"),
            (lambda f: {"dev.pkl": [(s, np.ones((1, 3)), i) for s, y, i in f["dev.pkl"]]}, r"has the label .*\[\[1"),
        ],
    )  # fmt: skip
    def test_what_does_not_fit_is_named(self, bring: Bring, change: Callable[[dict[str, Any]], dict[str, Any]], message: str) -> None:
        with pytest.raises(DataError, match=message):
            bring("mosi", change(self.files(truth(aligned=True))))

    def test_a_hostile_embedding_runs_nothing(self, tmp_path: Path) -> None:
        class Attack:
            def __reduce__(self) -> Any:
                return os.system, (f"touch {tmp_path}/ran",)

        files = write(tmp_path, self.files(truth(aligned=True)))
        for new in (True, False):
            torch.save((torch.zeros(2, 2), Attack()), tmp_path / "embedding_and_mapping.pt", _use_new_zipfile_serialization=new)
            with pytest.raises(DataError, match=r"embedding_and_mapping\.pt cannot be read as a PyTorch file.*posix.system"):
                import_dataset("mosi", files, root=tmp_path / "store")
        assert not (tmp_path / "ran").exists()

    def test_a_cut_embedding_is_a_data_error(self, tmp_path: Path) -> None:
        files = write(tmp_path, self.files(truth(aligned=True)))
        whole = files[-1].read_bytes()
        for end in range(1, len(whole), len(whole) // 20):
            files[-1].write_bytes(whole[:end])
            with pytest.raises(DataError, match=r"embedding_and_mapping\.pt"):
                import_dataset("mosi", files, root=tmp_path / "store")


class TestUrFunny:
    def files(self, known: Truth, **options: Any) -> dict[str, Any]:
        return {f"{name}.pkl": content for name, content in ur_funny(known, **options).items()}

    def ids(self, known: Truth) -> list[str]:
        return [str(100 + row) for row in range(len(known.ids))]

    @pytest.mark.parametrize("version", [1, 2])
    def test_round_trip(self, bring: Bring, version: int) -> None:
        known = ur_funny_truth()
        data = bring("ur_funny", self.files(known, version=version))
        same(data, known, self.ids(known))
        assert data.clips["text"].tolist() == (known.texts if version == 2 else [""] * len(known.ids))
        assert any("do not say who speaks" in warning for warning in data.card.warnings)

    def test_the_context_comes_first_where_the_data_set_asks_for_it(self, bring: Bring, monkeypatch: pytest.MonkeyPatch) -> None:
        facts = catalogue.facts("ur_funny").model_copy(update={"parts": ("context", "punchline")})
        monkeypatch.setattr(catalogue, "facts", lambda name: facts)
        known = ur_funny_truth()
        data = bring("ur_funny", self.files(known))
        for row, text in enumerate(known.frames["text"]):
            np.testing.assert_array_equal(data.features["text"].clip(row), np.concatenate([text, np.zeros((1, DIMS["text"])), text]))
            np.testing.assert_array_equal(data.features["vision"].clip(row), known.frames["vision"][row])
        assert data.clips["text"][0] == f"before it and more {known.texts[0]}"

    def test_some_of_the_six_are_enough(self, bring: Bring) -> None:
        known = ur_funny_truth()
        files = self.files(known)
        data = bring("ur_funny", {name: files[name] for name in ("data_folds.pkl", "humor_label_sdk.pkl", "covarep_features_sdk.pkl")})
        same(data, known, self.ids(known), ("audio",))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda f: f["humor_label_sdk.pkl"].pop(100), "the labels lack 1 of 9 clips of the split, the first is '100'"),
            (lambda f: f["covarep_features_sdk.pkl"].pop(101), "audio lack 1 of 9 clips"),
            (lambda f: f["language_sdk.pkl"][100].update(punchline_features=[99999]), "the words of clip '100' are not indexes into"),
            (lambda f: f["covarep_features_sdk.pkl"][100].update(punchline_features=[["x"]]), "audio of clip '100' are not"),
            (lambda f: f["openface_features_sdk.pkl"].update({100: 3}), "vision of clip '100' are a int"),
            (lambda f: f["humor_label_sdk.pkl"].update({100: 2}), "clip '100' has the label 2"),
            (lambda f: f.update({"more.pkl": f["covarep_features_sdk.pkl"]}), "two files give audio"),
            (lambda f: f["data_folds.pkl"].update(train=3), "the split 'train' is a int"),
        ],
    )
    def test_what_does_not_fit_is_named(self, bring: Bring, change: Callable[[dict[str, Any]], Any], message: str) -> None:
        files = self.files(ur_funny_truth())
        change(files)
        with pytest.raises(DataError, match=message):
            bring("ur_funny", files)


class TestManifest:
    def test_round_trip(self, bring: Bring, tmp_path: Path) -> None:
        known = truth(aligned=False)
        data = bring("mosi", manifest(tmp_path / "mine", known))
        known.frames["audio"][-1] = np.zeros((1, DIMS["audio"]), np.float32)
        same(data, known, modalities=("audio", "vision"))
        assert data.card.modalities["audio"].empty_clips == 1 and data.clips["text"].tolist() == known.texts
        assert data.clips["group"].tolist() == known.groups and data.clips["audio"][0] == f"{known.ids[0]}.wav"
        assert data.media("audio")[0] == (tmp_path / "mine" / f"{known.ids[0]}.wav").resolve() and data.media("video")[0] is None

    def test_any_subset_will_do(self, bring: Bring, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.arange(3.0))
        data = bring("ravdess", {"m.csv": "id,label,vision_features,colour\nx,Happy,a.npy,red\ny,0,a.npy,blue\n"})
        assert data.clips["label"].tolist() == [2, 0] and data.clips["split"].tolist() == ["train"] * 2
        assert data.features["vision"].lengths.tolist() == [1, 1] and data.card.source.notes["columns not used"] == "colour"
        assert any("no column 'group'" in warning for warning in data.card.warnings)

    def test_folds_and_media_without_features(self, bring: Bring, tmp_path: Path) -> None:
        (tmp_path / "a.wav").touch()
        data = bring("enterface05", {"m.csv": "id,group,fold,label,audio\nx,p,1,anger,a.wav\ny,q,0,fear,\n"})
        assert data.clips["fold"].tolist() == ["1", "0"] and not data.features
        assert data.media("audio") == [(tmp_path / "a.wav").resolve(), None]
        with pytest.raises(DataError, match="enterface05 has no features: only media files"):
            need_features(data)

    @pytest.mark.parametrize(
        ("files", "message"),
        [
            ({"m.csv": "id,label,audio\nx,1,no.wav\n"}, r"m\.csv: audio of clip 'x' is 'no\.wav', which is not there \(1 such\)"),
            ({"m.csv": "id,label,audio_features\nx,1,f.csv\n", "f.csv": "a,b\n1,two\n"}, r"f\.csv: row 1, column 'b' holds 'two'"),
            (
                {"m.csv": "id,label,audio_features\nx,1,f.csv\n", "f.csv": "a,b\n1,2,3,4\n1\n1,2,3,4,5,6\n"},
                r"f\.csv cannot be read as \.csv",
            ),
            ({"m.csv": "id,label,audio_features\nx,1,f.npy\n", "f.npy": "junk,"}, r"f\.npy cannot be read as \.npy"),
            ({"m.csv": "id,label,audio_features\nx,1,f.txt\n", "f.txt": "1"}, r"f\.txt is neither \.npy nor \.csv"),
            ({"m.csv": "id,label,group\nx,1,p\n"}, "holds no features"),
            ({"m.csv": "id,label,audio_features,group\nx,9,f.csv,p\n", "f.csv": "1,2\n"}, "clip 'x' has the label '9'"),
            ({"m.csv": "id,label,audio_features,group\nx,1,f.csv,\n", "f.csv": "1,2\n"}, "1 clips have no group"),
            ({"m.csv": "id,label,audio_features,split\nx,1,f.csv,later\n", "f.csv": "1,2\n"}, "clip 'x' has the split 'later'"),
            ({"m.csv": "id,label,audio_features\nx,1,f.csv\nx,1,f.csv\n", "f.csv": "1,2\n"}, "clip 'x' is more than once"),
            ({"m.csv": "id,label,audio_features\n"}, r"m\.csv holds no clips"),
        ],
    )
    def test_what_does_not_fit_is_named(self, bring: Bring, tmp_path: Path, files: dict[str, str], message: str) -> None:
        write(tmp_path, {name: content for name, content in files.items() if name != "m.csv"})
        with pytest.raises(DataError, match=message):
            bring("mosi", {"m.csv": files["m.csv"]})

    def test_arrays_of_objects_and_of_another_shape_are_refused(self, bring: Bring, tmp_path: Path) -> None:
        for array, message in ((np.array([{}], dtype=object), "cannot be read as .npy"), (np.zeros((1, 2, 3)), r"shape \(1, 2, 3\)")):
            np.save(tmp_path / "f.npy", array, allow_pickle=True)
            with pytest.raises(DataError, match=message):
                bring("mosi", {"m.csv": "id,label,audio_features\nx,1,f.npy\n"})


class TestTranscripts:
    TABLE = "id,split,label,start,text\nv_1,train,1.0,0,some words\nv_2,val,-1,1,\nw-_3,test,0.5,2,more\n"

    def test_a_table_with_arrays(self, bring: Bring, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", ids=["v_2", "v_1", "w-_3"], audio=np.arange(6.0).reshape(3, 2))
        data = bring("mosei", {"t.csv": self.TABLE}, features={"audio": f"{tmp_path}/a.npz"})
        assert data.clips["split"].tolist() == ["train", "valid", "test"] and data.clips["group"].tolist() == ["v", "v", "w-"]
        assert data.clips["text"].tolist() == ["some words", "", "more"] and data.features["audio"].values[0].tolist() == [2, 3]

    def test_features_as_a_table_and_as_a_folder(self, bring: Bring, tmp_path: Path) -> None:
        (tmp_path / "au.csv").write_text("clip,x,y\nw-_3,5,6\nv_1,1,2\nv_2,3,4\n")
        folder = tmp_path / "frames" / "deep"
        folder.mkdir(parents=True)
        for row, clip in enumerate(("v_1", "v_2", "w-_3")):
            np.save(folder / f"{clip}.npy", np.full((row + 1, 2), row))
        data = bring("mosei", {"t.csv": self.TABLE}, features={"audio": f"{tmp_path}/au.csv", "vision": str(folder.parent)})
        assert data.features["audio"].values.tolist() == [[1, 2], [3, 4], [5, 6]]
        assert data.features["vision"].lengths.tolist() == [1, 2, 3] and data.card.source.notes["vision"] == "frames"
        (folder / "v_2.npy").unlink()
        with pytest.raises(DataError, match="frames lacks 1 of 3 clips, the first are v_2"):
            bring("mosei", {"t.csv": self.TABLE}, features={"vision": str(folder.parent)})

    def test_a_punchline_is_the_text_and_the_context_comes_first_where_asked(self, tmp_path: Path) -> None:
        (path,) = write(tmp_path, {"t.csv": "id,split,label,context,punchline\n1,train,1,before,after\n3,dev,0,a,b\n"})
        opened = open_files([path])
        _, layout = recognise(opened)
        facts = catalogue.facts("ur_funny")
        assert layout.read(opened, facts).clips["text"].tolist() == ["after", "b"]
        both = facts.model_copy(update={"parts": ("context", "punchline")})
        assert layout.read(opened, both).clips["text"].tolist() == ["before after", "a b"]


class TestRavdess:
    def test_speech_and_song_are_two_data_sets(self, bring: Bring, tmp_path: Path) -> None:
        folder = ravdess(tmp_path / "RAVDESS")
        speech, song = bring("ravdess", folder), bring("ravdess_song", folder)
        assert speech.clips["id"].tolist() == sorted(f"01-{take}" for take in RAVDESS[:4])
        assert len(song) == 5 and speech.card.source.notes["song left out"] == "1 files"
        names = [speech.card.task.classes[label] for label in speech.clips["label"]]
        assert dict(zip(speech.clips["id"], names, strict=True))[f"01-{RAVDESS[2]}"] == "surprised"
        assert sorted(names) == ["angry", "happy", "neutral", "surprised"] and set(speech.clips["group"]) == {"01", "02", "24"}
        assert speech.clips["text"].str.contains("the door").all() and not speech.features

    def test_takes_share_a_clip_and_film_with_sound_comes_before_film(self, bring: Bring, tmp_path: Path) -> None:
        clips = bring("ravdess", ravdess(tmp_path / "RAVDESS")).clips.set_index("id")
        first, second = f"01-{RAVDESS[0]}", f"01-{RAVDESS[1]}"
        assert clips.loc[first, "video"] == f"Actor_01/{first}.mp4" and clips.loc[first, "audio"] == f"Actor_01/03-{RAVDESS[0]}.wav"
        assert clips.loc[second, "video"] == f"Actor_01/02-{RAVDESS[1]}.mp4"

    def test_published_folds_come_with_the_actors(self, bring: Bring, tmp_path: Path) -> None:
        data = bring("ravdess", ravdess(tmp_path / "RAVDESS"))
        assert dict(zip(data.clips["group"], data.clips["fold"], strict=True)) == {"01": "4", "02": "0", "24": "3"}

    def test_a_copy_of_the_whole_folder_is_passed_over(self, bring: Bring, tmp_path: Path) -> None:
        """As the archive of a well-known site has it."""
        folder = ravdess(tmp_path / "RAVDESS")
        once = bring("ravdess", folder)
        ravdess(folder / "copy")
        twice = bring("ravdess", folder)
        assert twice.card.fingerprint == once.card.fingerprint and twice.card.source.notes["copies"].startswith("5 files")

    def test_the_root_is_kept_beside_the_card_and_can_be_changed(self, bring: Bring, tmp_path: Path) -> None:
        folder = ravdess(tmp_path / "RAVDESS")
        bring("ravdess", folder)
        stored = tmp_path / "store" / "ravdess"
        assert str(tmp_path) not in (stored / "card.json").read_text()
        assert store.load("ravdess", tmp_path / "store").media_root == folder.resolve()
        (stored / "media_root").write_text("/elsewhere\n")
        assert store.load("ravdess", tmp_path / "store", verify=True).media("audio")[0] == Path(f"/elsewhere/Actor_01/03-{RAVDESS[0]}.wav")

    def test_a_folder_without_speech(self, bring: Bring, tmp_path: Path) -> None:
        (tmp_path / "R").mkdir()
        (tmp_path / "R" / f"03-{RAVDESS[4]}.wav").touch()
        with pytest.raises(DataError, match="holds no RAVDESS clips of speech"):
            bring("ravdess", tmp_path / "R")


class TestEnterface:
    def test_labels_and_speakers_come_from_the_folders(self, bring: Bring, tmp_path: Path) -> None:
        data = bring("enterface05", enterface(tmp_path / "enterface database"))
        assert data.clips["id"].tolist() == ["s11_su_3", "s12_fe_1", "s12_fe_2", "s1_an_1", "s1_an_2", "s1_ha_1", "s1_ha_2"]
        assert data.clips["group"].tolist() == ["s11", "s12", "s12", "s1", "s1", "s1", "s1"]
        names = [data.card.task.classes[label] for label in data.clips["label"]]
        assert names == ["surprise", "fear", "fear", "anger", "anger", "happiness", "happiness"]
        assert data.media("video")[0] == (tmp_path / "enterface database/subject 11/surprise/sentence 3/s12_su_3avi.avi").resolve()

    def test_its_faults_are_told(self, bring: Bring, tmp_path: Path) -> None:
        card = bring("enterface05", enterface(tmp_path / "e")).card
        assert card.source.notes["misnamed files"].startswith("1:")
        assert any("1 files are left out" in warning and "s6_sa.avi" in warning for warning in card.warnings)
        assert "7 clips, published are 1287" in [found.message for found in card.findings]


def examples(folder: Path) -> dict[str, tuple[str, list[Path]]]:
    """One example of every layout: its name -> (data set, files)."""
    aligned, funny = truth(aligned=True), ur_funny_truth()
    lists, embedding = misa(aligned)
    pickles: dict[str, tuple[str, dict[str, Any]]] = {
        "mmsa": ("mosi", {"mmsa.pkl": mmsa(truth(aligned=False))}),
        "mult": ("mosi", {"mult.pkl": mult(aligned, aligned=True)}),
        "multibench": ("mosi", {"multibench.pkl": multibench(aligned)}),
        "misa": ("mosi", {"train.pkl": lists["train"], "dev.pkl": lists["valid"], "e.pt": embedding}),
        "ur_funny": ("ur_funny", {f"{name}.pkl": content for name, content in ur_funny(funny).items()}),
        "transcripts": ("mosei", {"t.csv": TestTranscripts.TABLE}),
        "table": ("mosi", {"l.csv": "video_id,clip_id,text,label,mode\nv,1,x,1,train\n"}),
    }
    found = {name: (data, write(folder, files)) for name, (data, files) in pickles.items()}
    found["manifest"] = ("mosi", [manifest(folder / "m", aligned)])
    found["ravdess"] = ("ravdess", [ravdess(folder / "r")])
    found["enterface"] = ("enterface05", [enterface(folder / "e")])
    return found


def test_every_layout_is_recognised_by_itself_alone(tmp_path: Path) -> None:
    found = examples(tmp_path)
    assert set(found) == set(layouts.layouts)
    for name, (_, paths) in found.items():
        opened = open_files(paths)
        assert [other for other in layouts.layouts if layouts.layouts[other]().recognise(opened)] == [name]


def test_an_empty_folder_and_an_archive_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no known layout: empty: a folder of 0 files(?s:.)*Known layouts"):
        import_dataset("mosi", [tmp_path / "empty"], root=tmp_path / "store")
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04rest")
    with pytest.raises(DataError, match="archive or .npz file"):
        import_dataset("mosi", [tmp_path / "a.zip"], root=tmp_path / "store")


@pytest.mark.parametrize("name", ["mmsa", "mult", "multibench", "misa", "ur_funny"])
def test_cut_files_are_data_errors_and_store_nothing(tmp_path: Path, name: str) -> None:
    data, paths = examples(tmp_path)[name]
    for path in paths:
        whole = path.read_bytes()
        for end in range(0, len(whole), len(whole) // 6 + 1):
            path.write_bytes(whole[:end])
            with pytest.raises(DataError, match=path.name):
                import_dataset(data, paths, root=tmp_path / "store")
        path.write_bytes(whole)
    assert store.names(tmp_path / "store") == ()


class Attack:
    """Pickles as a call of os.system."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.mark.parametrize("name", ["mmsa", "mult", "multibench", "misa", "ur_funny"])
def test_hostile_files_are_data_errors_and_run_nothing(tmp_path: Path, name: str) -> None:
    data, paths = examples(tmp_path)[name]
    for path in (path for path in paths if path.suffix == ".pkl"):
        content = pickle.loads(path.read_bytes())
        hostile = (
            [*content, Attack(f"touch {tmp_path}/ran")] if isinstance(content, list) else {**content, "x": Attack(f"touch {tmp_path}/ran")}
        )
        path.write_bytes(pickle.dumps(hostile))
        with pytest.raises(DataError, match=r"would run or load 'posix\.system': refused"):
            import_dataset(data, paths, root=tmp_path / "store")
        path.write_bytes(pickle.dumps(content))
    assert not (tmp_path / "ran").exists()


JUNK: list[Any] = [
    None, 1, -1, float("nan"), "x", "", b"x", [], {}, [[1], [2, 3]], [None], (1,), {"train": 1}, np.zeros(0), np.zeros((2, 2, 2, 2)),
    np.array([{}], dtype=object), np.array("x"), np.zeros((2, 1), complex), np.array(["a", "b"]), 10**400, True,
]  # fmt: skip


def _places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to everything inside containers, the first three entries of a list."""
    inside = (
        list(content.items()) if isinstance(content, dict) else list(enumerate(content))[:3] if isinstance(content, list | tuple) else []
    )
    return [place for key, value in inside for place in ((*path, key), *_places(value, (*path, key)))]


def _replaced(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    inner = _replaced(content[path[0]], path[1:], value)
    if isinstance(content, dict):
        return {**content, path[0]: inner}
    changed = [inner if place == path[0] else old for place, old in enumerate(content)]
    return tuple(changed) if isinstance(content, tuple) else changed


FUZZED = {
    "mmsa": ("mosi", [mmsa(truth(aligned=False))]),
    "mult": ("mosi", [mult(truth(aligned=True), aligned=True)]),
    "iemocap": ("iemocap4", [TestMult.iemocap()[1]]),
    "multibench": ("ur_funny", [multibench(truth(aligned=True, classes=2), numbers=True)]),
    "misa": ("mosi", [misa(truth(aligned=True))[0]["train"], misa(truth(aligned=True))[0]["test"]]),
    "ur_funny": ("ur_funny", list(ur_funny(ur_funny_truth()).values())),
}


@pytest.mark.parametrize("name", FUZZED)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_junk_anywhere_inside_is_read_or_a_data_error(name: str, data: st.DataObject) -> None:
    """One entry of a sound file replaced by something else: it is noticed as a DataError, or it did not matter; nothing else."""
    dataset, contents = FUZZED[name]
    which = data.draw(st.integers(0, len(contents) - 1))
    place = data.draw(st.sampled_from(_places(contents[which])))
    junk = copy.deepcopy(data.draw(st.sampled_from(JUNK)))
    changed = [_replaced(content, place, junk) if number == which else content for number, content in enumerate(contents)]
    splits = ["train.pkl", "test.pkl"] if name == "misa" else [f"{number}.pkl" for number in range(len(changed))]
    opened = [Opened(Path(file), "pickle", content) for file, content in zip(splits, changed, strict=True)]
    facts = catalogue.facts(dataset)
    try:
        raw = read(*recognise(opened), opened, facts)
        assemble(name="x", facts=facts, clips=raw.clips, features=raw.features, source=Source(layout=name, files={"0.pkl": ""}))
    except DataError:
        pass


CELLS = st.sampled_from(["", "x", "1", "-1", "a.npy", "nan", "1e400", "../x", "\u00e9", "train", "'"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.lists(CELLS, min_size=5, max_size=5), max_size=3), columns=st.permutations(["id", "label", "group", "split", "audio"])
)
@example(rows=[["x"] * 5], columns=["id", "id", "label", "group", "fold"])
def test_tables_of_junk_are_read_or_data_errors(tmp_path: Path, rows: list[list[str]], columns: list[str]) -> None:
    path = tmp_path / "m.csv"
    path.write_text("\n".join(",".join(row) for row in [columns, *rows]))
    try:
        opened = open_files([path])
        raw = read(*recognise(opened), opened, catalogue.facts("mosi"))
        assert isinstance(raw.clips, pd.DataFrame)
    except DataError:
        pass


@pytest.mark.parametrize(
    ("given_id", "expected"),
    [("v$_$7", ("v_7", "v")), ("a_b_7", ("a_b_7", "a_b")), ("v[7]", ("v[7]", "v")), ("v", ("v", "v")), ("-_x$_$0", ("-_x_0", "-_x"))],
)
def test_ids_name_their_videos(given_id: str, expected: tuple[str, str]) -> None:
    assert split_id(given_id) == expected


class TestCatalogue:
    @pytest.mark.parametrize("name", catalogue.known())
    def test_facts_fit_together(self, name: str) -> None:
        facts = catalogue.facts(name)
        assert set(facts.metrics) <= set(metrics) and set(facts.best_published) <= set(facts.metrics)
        assert bool(facts.best_published) == bool(facts.best_published_source)
        assert all(0 < value < 1 for value in facts.best_published.values())
        assert all(len(start) >= 8 and set(start) <= set("0123456789abcdef") for start in facts.checksums.values())
        assert facts.licence and facts.citation and facts.obtain and (facts.splits or facts.clips)
        for split, counts in facts.labels.items():
            assert sum(counts.values()) == (facts.splits.get(split) or facts.clips)
        groups = [group for fold in facts.folds for group in fold]
        assert len(groups) == len(set(groups))

    def test_sizes_and_classes(self) -> None:
        assert {name: sum(catalogue.facts(name).splits.values()) for name in ("ur_funny", "iemocap4", "sims")} == {
            "ur_funny": 10166, "iemocap4": 4453, "sims": 2281}  # fmt: skip
        assert sum(catalogue.facts("ur_funny").other_splits["version 1"].values()) == 16514
        assert sorted(group for fold in catalogue.facts("ravdess").folds for group in fold) == [f"{actor:02}" for actor in range(1, 25)]

    def test_other_sizes_in_circulation_are_named(self) -> None:
        facts = catalogue.facts("ur_funny").model_copy(update={"other_splits": {"mine": {"train": 2, "test": 1}}})
        clips = pd.DataFrame({"id": ["a", "b", "c"], "group": ["a", "b", "c"], "split": ["train", "train", "test"], "label": [0, 1, 0]})
        data = assemble(name="x", facts=facts, clips=clips, features={"audio": [np.ones((1, 1))] * 3}, source=Source(layout="x"))
        told = [found.message for found in checks.examine(data, facts)]
        assert any("train 2 (8074), test 1 (1058); they are those of mine" in message for message in told)

    def test_a_data_set_without_a_simulated_form_says_how_to_get_it(self, tmp_path: Path) -> None:
        with pytest.raises(
            DataError, match=r"RAVDESS, speech \(ravdess\) was not imported.*no simulated form\n.*data import ravdess.*zenodo"
        ):
            open_dataset("ravdess", tmp_path)


def test_a_data_set_without_features_can_be_checked(tmp_path: Path) -> None:
    data = import_dataset("ravdess", [ravdess(tmp_path / "r")], root=tmp_path / "store")
    assert isinstance(checks.examine(data, catalogue.facts("ravdess")), tuple)


def test_the_example_in_the_documentation_is_imported_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[1] / "docs" / "data.md").read_text(encoding="utf-8")
    toml, table = (page.partition(f"```{kind}\n")[2].partition("```")[0] for kind in ("toml", "csv"))
    monkeypatch.setenv("MER_DATA", str(tmp_path))
    for folder in ("datasets", "audio", "faces"):
        (tmp_path / folder).mkdir()
    (tmp_path / "datasets" / "mine.toml").write_text(toml)
    (tmp_path / "manifest.csv").write_text(table)
    for clip in ("anna_1", "anna_2", "ben_1"):
        np.save(tmp_path / "audio" / f"{clip}.npy", np.ones((4, 3)))
        (tmp_path / "faces" / f"{clip}.csv").write_text("frame,x\n1,0.5\n2,0.25\n")
    data = import_dataset("mine", [tmp_path / "manifest.csv"], root=tmp_path)
    assert data.card.labels == {"train": {"calm": 1, "angry": 2}} and data.card.groups == {"train": 2}
    assert data.features["audio"].lengths.tolist() == [4, 4, 4] and data.features["vision"].values.tolist() == [[0.5], [0.25]] * 2 + [[0]]


def test_the_documentation_names_every_layout_and_column() -> None:
    page = (Path(__file__).parents[1] / "docs" / "data.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in page for name in layouts.layouts)
    assert all(f"`{column}`" in page for column in (*CLIP_COLUMNS, *MORE_COLUMNS, *COLUMNS))
