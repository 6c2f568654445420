"""Importing files as users have them: layouts, lengths, encoders, faults."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.data import store
from harness.data.importing import import_dataset
from harness.data.schema import Dataset
from harness.errors import ConfigError, DataError

STEPS = 5


def part(ids: list[str], lengths: list[int], **more: Any) -> dict[str, Any]:
    """One split in MMSA's form: random frames up to ``lengths``, zeros after them."""
    rng = np.random.default_rng(len(ids))
    real = np.arange(STEPS) < np.array(lengths)[:, None]
    made: dict[str, Any] = {
        "id": ids,
        "raw_text": np.array(["word"] * len(ids), dtype=object),
        "regression_labels": rng.uniform(-3, 3, len(ids)),
    }
    for modality, dim in (("text", 4), ("audio", 3), ("vision", 2)):
        made[modality] = (rng.uniform(1, 2, (len(ids), STEPS, dim)) * real[..., None]).astype(np.float32)
    return {key: value for key, value in {**made, **more}.items() if value is not None}


def mmsa(**more: Any) -> dict[str, Any]:
    return {
        "train": part(["a$_$1", "a$_$2", "b_b$_$1"], [1, 3, 5], **more),
        "valid": part(["c$_$1"], [2], **more),
        "test": part(["d$_$1", "d$_$10"], [4, 2], **more),
    }


def wide(modality: str, steps: int, dim: int = 3) -> dict[str, Any]:
    """MMSA's form with ``modality`` of ``steps`` steps, all of them non-zero: not aligned with the text."""
    data = mmsa()
    for split in data.values():
        split[modality] = np.ones((len(split["id"]), steps, dim), np.float32)
    return data


@pytest.fixture
def bring(tmp_path: Path) -> Any:
    """Imports a text (as a table), bytes (as they are) or anything else (as a pickle) as mosi."""

    def run(content: Any, name: str = "mosi", **options: Any) -> Dataset:
        path = tmp_path / "file.dat"
        raw = {str: str.encode, bytes: bytes}.get(type(content), pickle.dumps)(content)
        path.write_bytes(raw)
        return import_dataset(name, [path], root=tmp_path / "store", **options)

    return run


def lengths(data: Dataset, modality: str) -> list[int]:
    return data.features[modality].lengths.tolist()


class TestMmsa:
    @pytest.mark.parametrize("name", ["mosi", "mosei"])
    def test_splits_ids_groups_labels_and_texts(self, bring: Any, name: str) -> None:
        raw = mmsa()
        data = bring(raw, name)
        assert data.clips["id"].tolist() == ["a_1", "a_2", "b_b_1", "c_1", "d_1", "d_10"]
        assert data.clips["group"].tolist() == ["a", "a", "b_b", "c", "d", "d"]
        assert data.clips["split"].tolist() == ["train"] * 3 + ["valid"] + ["test"] * 2
        assert data.clips["text"].tolist() == ["word"] * 6
        labels = np.concatenate([split["regression_labels"] for split in raw.values()]).astype(np.float32)
        np.testing.assert_array_equal(data.clips["label"], labels)
        assert (data.card.name, data.card.source.layout, data.card.metrics[0]) == (name, "mmsa", "mae")

    def test_frames_are_those_of_the_file(self, bring: Any) -> None:
        raw = mmsa()
        data = bring(raw)
        np.testing.assert_array_equal(data.features["vision"].clip(1).numpy(), raw["train"]["vision"][1, :3])
        np.testing.assert_array_equal(data.features["text"].clip(5).numpy(), raw["test"]["text"][1, :2])

    def test_stated_lengths_win(self, bring: Any) -> None:
        """Zeros inside a stated length are data; what lies beyond it is padding whatever it holds."""
        raw = wide("audio", 9)
        for split in raw.values():
            split["audio_lengths"] = [7] * len(split["id"])
            split["text_lengths"] = np.array([5] * len(split["id"]))
        data = bring(raw)
        assert lengths(data, "audio") == [7] * 6 and lengths(data, "text") == lengths(data, "vision") == [5] * 6
        assert data.card.source.notes["audio lengths"] == "as audio_lengths says"
        assert data.card.source.notes["vision lengths"] == "aligned with text"

    def test_a_length_of_zero_is_an_empty_clip_and_one_above_the_steps_is_cut(self, bring: Any) -> None:
        raw = wide("audio", 9)
        for split in raw.values():
            split["audio_lengths"] = [0] + [12] * (len(split["id"]) - 1)
        data = bring(raw)
        assert lengths(data, "audio") == [1, 9, 9, 1, 1, 9] and data.card.modalities["audio"].empty_clips == 3
        assert "2 above the array's steps cut" in data.card.source.notes["audio lengths, train"]

    def test_the_mask_of_text_bert_is_the_texts_length_and_that_of_all_aligned_with_it(self, bring: Any) -> None:
        raw = mmsa()
        for split in raw.values():
            count = len(split["id"])
            split["text_bert"] = np.stack([np.ones((count, STEPS)), np.arange(STEPS) < np.full((count, 1), 4), np.zeros((count, STEPS))], 1)
        data = bring(raw)
        assert lengths(data, "text") == lengths(data, "audio") == lengths(data, "vision") == [4] * 6
        assert {key: note for key, note in data.card.source.notes.items() if "lengths" in key} == {
            "text lengths": "by the mask in text_bert",
            "audio lengths": "aligned with text",
            "vision lengths": "aligned with text",
        }

    def test_without_any_lengths_trailing_zeros_are_padding_and_aligned_modalities_stay_aligned(self, bring: Any) -> None:
        raw = mmsa()
        raw["train"]["audio"][1, 2] = 0  # the last word of a_2 is silent
        raw["train"]["audio"][2, 1] = 0  # and one in the middle of b_b_1
        data = bring(raw)
        assert lengths(data, "text") == lengths(data, "audio") == lengths(data, "vision") == [1, 3, 5, 2, 4, 2]
        assert not data.features["audio"].clip(1)[2].any()

    def test_unaligned_modalities_without_lengths_lose_their_own_trailing_zeros(self, bring: Any) -> None:
        raw = wide("audio", 9)
        raw["test"]["audio"][0, 6:] = 0
        data = bring(raw)
        assert lengths(data, "audio") == [9, 9, 9, 9, 6, 9] and lengths(data, "vision") == [1, 3, 5, 2, 4, 2]

    def test_only_real_frames_are_cleaned_and_counted(self, bring: Any) -> None:
        raw = wide("audio", 9)
        for split in raw.values():
            split["audio"][:, 0, 0], split["audio"][:, 8, :] = -np.inf, np.nan
            split["audio_lengths"] = [8] * len(split["id"])
        data = bring(raw)
        assert data.card.modalities["audio"].nonfinite_replaced == 6 and torch.isfinite(data.features["audio"].values).all()

    def test_a_trailing_frame_of_nan_is_a_real_frame(self, bring: Any) -> None:
        raw = wide("audio", 9)
        raw["train"]["audio"][0, 4:] = 0
        raw["train"]["audio"][0, 6] = -np.inf
        assert lengths(bring(raw), "audio")[0] == 7

    @pytest.mark.parametrize("gone", ["text", "audio", "vision"])
    def test_a_missing_modality_is_allowed(self, bring: Any, gone: str) -> None:
        data = bring(mmsa(**{gone: None}))
        assert list(data.features) == [m for m in ("text", "audio", "vision") if m != gone]

    def test_one_split_only_is_accepted(self, bring: Any) -> None:
        data = bring({"test": part(["a$_$1", "b$_$1"], [1, 2])})
        assert data.card.clips == {"test": 2} and any("for cross-validation only" in found.message for found in data.card.findings)

    def test_vectors_are_clips_of_one_step(self, bring: Any) -> None:
        data = bring({"train": part(["a$_$1", "b$_$1"], [1, 1], audio=np.ones((2, 7)), text=None, vision=None)})
        assert lengths(data, "audio") == [1, 1] and data.card.modalities["audio"].dim == 7

    def test_ids_as_an_array_of_strings_and_labels_as_columns(self, bring: Any) -> None:
        ids = np.array(["a$_$1", "b$_$1"])
        data = bring({"train": part(ids, [1, 1], regression_labels=np.array([[1.0], [-2.0]]))})  # type: ignore[arg-type]
        assert data.clips["id"].tolist() == ["a_1", "b_1"] and data.clips["label"].tolist() == [1, -2]

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ({"train": part(["a$_$1"], [1], regression_labels=[3.2])}, "clip 'a_1' has the label 3.2.*\nAllowed: numbers from -3 to 3"),
            ({"train": part(["a$_$1"], [1], regression_labels=np.float32([-3.5]))}, r"clip 'a_1' has the label -3\.5 \(1 clips"),
            ({"train": part(["a$_$1", "a$_$1"], [1, 1])}, "clip 'a_1' is more than once in train"),
            ({"train": part(["a$_$1"], [1]), "test": part(["a$_$1"], [1])}, "clip 'a_1' is in train and in test"),
            ({"train": part([], []), "test": part([], [])}, "holds no clips"),
            ({"train": part(["a$_$1"], [1], text=None, audio=None, vision=None)}, "holds no features\n.*--text-encoder minilm"),
            ({"train": part(["a$_$1"], [1]), "test": part(["b$_$1"], [1], audio=None)}, r"\[train\] has text, audio, vision.*\[test\]"),
            ({"train": part(["a$_$1"], [1], audio=np.ones((2, 5, 3)))}, r"\[train\]\['audio'\] has 2 entries, 'id' has 1"),
            ({"train": part(["a$_$1"], [1], audio=[["x"]])}, r"\[train\]\['audio'\] is a list"),
            ({"train": part(["a$_$1"], [1], audio=np.array(["x"]))}, r"\['audio'\] is an array of type <U1, shape \(1,\)"),
            ({"train": part(["a$_$1"], [1], audio_lengths=[-1])}, r"\['audio_lengths'\] of clip 'a\$_\$1' is -1.*\n.*from 0 to 5"),
            ({"train": part(["a$_$1"], [1], audio_lengths=["x"])}, r"\['audio_lengths'\] of clip 'a\$_\$1' is 'x'"),
            ({"train": part(["a$_$1"], [1], audio_lengths=[1, 2])}, r"\['audio_lengths'\] has 2 entries"),
            ({"train": part(["a$_$1"], [1], regression_labels=[[1, 2]])}, r"has the label \[1, 2\]"),
            ({"train": part(["a$_$1"], [1]), "test": [1]}, r"\[test\] is a list"),
            ({"train": {"id": ["a"], "labels": 1}}, "no known layout: file.dat: a dictionary with the keys train, inside id, labels"),
            ({"train": part(["a$_$1"], [1], regression_labels=None, classification_labels=[1])}, "no list 'regression_labels'"),
            ([1, 2], "no known layout: file.dat: a list of 2\nKnown layouts: .*mmsa .*table"),
            (b"\x80\x04\x95garbage", "not a whole pickle"),
        ],
    )  # fmt: skip
    def test_what_does_not_fit_is_named(self, bring: Any, tmp_path: Path, content: Any, message: str) -> None:
        with pytest.raises(DataError, match=r"file\.dat(?s:.)*" + message if "no known" not in message else message):
            bring(content)
        assert store.names(tmp_path / "store") == ()

    def test_variants_lie_side_by_side(self, bring: Any, tmp_path: Path) -> None:
        assert bring(mmsa(), variant="glove").card.name == "mosi@glove" and bring(mmsa(), variant="b.2").card.name == "mosi@b.2"
        assert store.names(tmp_path / "store") == ("mosi@b.2", "mosi@glove")
        for variant in ("simulated", "../x", "a@b", "a b"):
            with pytest.raises(ConfigError, match=variant):
                bring(mmsa(), variant=variant)

    def test_the_same_content_has_the_same_fingerprint_in_every_form(self, bring: Any) -> None:
        """Protocol, key order, list or array, padding: none of it is data."""
        raw = mmsa()
        other = {split: dict(reversed(raw[split].items())) for split in raw}
        for split in other.values():
            split["id"] = np.array(split["id"])
            for modality in ("text", "audio", "vision"):
                split[modality] = np.pad(split[modality].astype(np.float64), ((0, 0), (0, 2), (0, 0)))
        assert bring(raw).card.fingerprint == bring(other, variant="x").card.fingerprint


TABLE = (
    "video_id,clip_id,text,label,mode,start_s\nv,1,GOOD MOVIE,2.4,train,0\nv,2,BAD,-1.0,train,1\nw_x,1,,0.0,valid,0\nz,1,FINE,1.2,test,0\n"
)
IDS = ["v_1", "v_2", "w_x_1", "z_1"]


class TestTable:
    @pytest.fixture
    def arrays(self, tmp_path: Path) -> Path:
        rng = np.random.default_rng(0)
        frames = rng.uniform(1, 2, (5, 4, 3))
        frames[1, 2:] = 0
        path = tmp_path / "arrays.npz"
        order = [3, 1, 0, 2]
        ids = [*(IDS[i] for i in order), "spare_9"]
        np.savez(path, ids=ids, audio=rng.normal(size=(5, 6)), vision=frames, cut=frames, cut_lengths=[1, 2, 3, 4, 4], flat=np.ones(5))
        return path

    def test_labels_and_arrays_meet_by_id(self, bring: Any, arrays: Path) -> None:
        data = bring(TABLE, features={"audio": f"{arrays}:audio", "vision": f"{arrays}:vision"})
        assert data.clips["id"].tolist() == IDS and data.clips["group"].tolist() == ["v", "v", "w_x", "z"]
        assert data.clips["split"].tolist() == ["train", "train", "valid", "test"] and data.clips["text"].tolist()[2] == ""
        np.testing.assert_array_equal(data.clips["label"], np.float32([2.4, -1, 0, 1.2]))
        with np.load(arrays) as raw:
            np.testing.assert_array_equal(data.features["audio"].values, raw["audio"][[2, 1, 3, 0]].astype(np.float32))
        assert lengths(data, "audio") == [1] * 4 and lengths(data, "vision") == [4, 2, 4, 4]
        assert data.card.source.layout == "table" and set(data.card.source.files) == {"file.dat", "arrays.npz"}

    def test_stated_lengths_of_arrays(self, bring: Any, arrays: Path) -> None:
        assert lengths(bring(TABLE, features={"vision": f"{arrays}:cut"}), "vision") == [3, 2, 4, 1]

    def test_the_key_is_the_modality_unless_given(self, bring: Any, arrays: Path) -> None:
        assert bring(TABLE, features={"audio": str(arrays)}).card.modalities["audio"].dim == 6

    def test_a_byte_order_mark_and_windows_line_ends_are_fine(self, bring: Any, arrays: Path) -> None:
        plain = bring(TABLE, features={"audio": str(arrays)})
        assert bring("\ufeff" + TABLE.replace("\n", "\r\n"), features={"audio": str(arrays)}).card.fingerprint == plain.card.fingerprint

    def test_arrays_take_the_place_of_a_pickles_modality(self, bring: Any, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", ids=["a$_$1", "b_1"], audio=np.full((2, 2), 0.5))
        data = bring({"train": part(["a$_$1", "b$_$1"], [1, 1])}, features={"audio": str(tmp_path / "a.npz")})
        assert data.features["audio"].values.tolist() == [[0.5, 0.5]] * 2 and data.card.source.notes["audio"] == "a.npz:audio"

    @pytest.mark.parametrize(
        ("table", "message"),
        [
            (TABLE.replace("test", "dev"), "clip 'z_1' has the split 'dev'.*\nAllowed: train, valid, test"),
            (TABLE.replace("1.2", "3.5"), "clip 'z_1' has the label '3.5'"),
            (TABLE.replace("1.2", "?"), r"clip 'z_1' has the label '\?'"),
            (TABLE.replace("z,1", "v,1"), "clip 'v_1' is in train and in test"),
            (TABLE.splitlines()[0], "holds no clips"),
            (TABLE.replace("label", "score"), "no known layout: .*columns video_id, clip_id, text, score, mode"),
            (TABLE + "a,b,c,d,e,f,g,h\n", "not a table of comma-separated values"),
        ],
    )
    def test_what_does_not_fit_is_named(self, bring: Any, arrays: Path, table: str, message: str) -> None:
        with pytest.raises(DataError, match=message) as caught:
            bring(table, features={"audio": str(arrays)})
        assert "file.dat" in caught.value.problem

    @pytest.mark.parametrize(
        ("features", "message"),
        [
            ({}, "holds no features\n.*--text-encoder minilm.*--features audio="),
            ({"audio": "arrays.npz:sound"}, "no array 'sound'\nArrays there: ids, audio, vision, cut"),
            ({"audio": "arrays.npz:flat"}, r"'flat' has the shape \(5,\)"),
            ({"audio": "none.npz:audio"}, "none.npz is not there"),
            ({"audio": "objects.npz:audio"}, "objects.npz cannot be read as .npz: ValueError: Object arrays"),
            ({"audio": "broken.npz:audio"}, "broken.npz cannot be read as .npz"),
            ({"audio": "fewer.npz:audio"}, "fewer.npz lacks 3 of 4 clips, the first are v_2, w_x_1, z_1\n.*its first are v_1"),
            ({"audio": "twice.npz:audio"}, "1 of its ids are repeated"),
            ({"audio": "lengths.npz:audio"}, "'audio_lengths' does not fit"),
            ({"audio": "unnamed.npz:audio"}, "no array 'ids'"),
        ],
    )
    def test_arrays_that_do_not_fit_are_named(self, bring: Any, arrays: Path, features: dict[str, str], message: str) -> None:
        folder = arrays.parent
        np.savez(folder / "objects.npz", ids=IDS, audio=np.array([[{}]] * 4, dtype=object))
        (folder / "broken.npz").write_bytes(arrays.read_bytes()[:300])
        np.savez(folder / "fewer.npz", ids=["v_1"], audio=np.ones((1, 2)))
        np.savez(folder / "twice.npz", ids=[*IDS, "v_1"], audio=np.ones((5, 2)))
        np.savez(folder / "lengths.npz", ids=IDS, audio=np.ones((4, 2, 2)), audio_lengths=[1, 2, 3, 1])
        np.savez(folder / "unnamed.npz", audio=np.ones((4, 2)))
        with pytest.raises(DataError, match=message):
            bring(TABLE, features={key: str(folder / where) for key, where in features.items()})

    def test_options_that_do_not_fit_are_config_errors(self, bring: Any, arrays: Path) -> None:
        with pytest.raises(ConfigError, match="no modality 'sound'"):
            bring(TABLE, features={"sound": str(arrays)})
        with pytest.raises(ConfigError, match="given twice"):
            bring(TABLE, features={"text": str(arrays)}, text_encoder="minilm")
        with pytest.raises(ConfigError, match="no data set called 'moso'\nDid you mean 'mos"):
            bring(TABLE, name="moso", features={"audio": str(arrays)})
        with pytest.raises(ConfigError, match="'bert' is neither 'minilm' nor a folder"):
            bring(TABLE, text_encoder="bert")

    def test_files_that_are_none(self, arrays: Path, tmp_path: Path) -> None:
        for path, message in ((tmp_path / "x", "not there"), (tmp_path, "a folder"), (arrays, "npz file, which has arrays but no labels")):
            with pytest.raises(DataError, match=message):
                import_dataset("mosi", [path], root=tmp_path / "store")
