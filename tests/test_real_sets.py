"""The real sets whole, from their files to something one can train on; what tests/test_import_real.py (MOSI) and
tests/test_layouts_real.py (MISA's file, transcripts, RAVDESS per clip and by manifest) do not cover."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from kit import call

from harness.data import store
from harness.data.features.openface import INTENSITY, PRESENCE
from harness.data.importing import import_dataset

NAMES = {"train": "train", "val": "valid", "test": "test"}


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def simple_features(rows: list[dict[str, str]], ids: list[str], column: str, path: Path) -> str:
    """One vector per transcript, equal where the transcripts are, in a file beside the table: the bytes of its SHA-256."""
    digests = [np.frombuffer(hashlib.sha256(row[column].encode()).digest(), np.uint8) for row in rows]
    np.savez(path, ids=np.array(ids), text=np.array(digests, dtype=np.float32) / 255)
    return f"{path}:text"


def in_several_splits(rows: list[dict[str, str]], column: str) -> int:
    """Transcripts that are, letter for letter, in more than one split."""
    splits: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(row[column], set()).add(row["split"])
    return sum(len(found) > 1 for found in splits.values())


class TestWholeTables:
    """Every clip, label, split and group of the transcripts that are at hand, through the store, and what the checks say of them."""

    def test_mosei(self, shared: Path, tmp_path: Path) -> None:
        path = shared / "data/mosei/text_labels.csv"
        rows = rows_of(path)
        place = simple_features(rows, [row["id"] for row in rows], "text", tmp_path / "words.npz")
        data = import_dataset("mosei", [path], root=tmp_path / "store", features={"text": place})
        assert len(data) == len(rows) == 22749
        np.testing.assert_array_equal(data.clips["label"].to_numpy(), np.float32([float(row["label"]) for row in rows]))
        assert data.clips["split"].tolist() == [NAMES[row["split"]] for row in rows]
        assert data.card.clips == Counter(NAMES[row["split"]] for row in rows)
        videos = {split: {row["id"].rpartition("_")[0] for row in rows if NAMES[row["split"]] == split} for split in data.card.clips}
        assert data.card.groups == {split: len(found) for split, found in videos.items()}
        assert not videos["train"] & videos["test"] and not videos["valid"] & videos["test"]
        found = [(one.check, one.severity) for one in data.card.findings]
        assert found.count(("split-sizes", "warning")) == 1 and "error" not in dict(found).values()
        assert "train 16242 (16326), valid 1861 (1871), test 4646 (4659)" in str(data.card.findings[0])
        shared_texts = in_several_splits(rows, "text")
        assert shared_texts > 0 and f"{shared_texts} clips lie in more than one split" in " ".join(map(str, data.card.findings))
        for split, counts in data.card.labels.items():
            labels = [float(row["label"]) for row in rows if NAMES[row["split"]] == split]
            assert counts == {str(n): sum(round(label) == n for label in labels) for n in range(-3, 4)}

    def test_ur_funny(self, shared: Path, tmp_path: Path) -> None:
        path = next((shared / "data/ur_funny").glob("*.csv"))
        rows = rows_of(path)
        place = simple_features(rows, [row["id"] for row in rows], "punchline", tmp_path / "words.npz")
        data = import_dataset("ur_funny", [path], root=tmp_path / "store", features={"text": place})
        assert len(data) == len(rows) == 9581 and data.clips["id"].tolist() == [row["id"] for row in rows]
        assert data.clips["label"].tolist() == [int(row["label"]) for row in rows]
        assert data.clips["text"].tolist() == [row["punchline"].strip() for row in rows]
        assert data.card.clips == {"train": 7609, "valid": 980, "test": 992}
        shared_texts = in_several_splits(rows, "punchline")
        assert shared_texts > 0 and f"{shared_texts} clips lie in more than one split" in " ".join(map(str, data.card.findings))


class TestRavdess:
    def test_means_per_clip_are_sequences_of_one(self, shared: Path, tmp_path: Path) -> None:
        folder = shared / "data/ravdess"
        data = import_dataset("ravdess", [folder], root=tmp_path, features={"vision": f"{folder}/openface_au_mean.csv"})
        assert data.card.modalities["vision"].longest == data.card.modalities["vision"].shortest == 1
        assert (data.card.modalities["vision"].dim, len(data)) == (35, 1440)
        assert sorted(set(data.clips["group"])) == [f"{actor:02d}" for actor in range(1, 25)]

    def test_units_frame_by_frame_with_sound(
        self, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Actors 1-5 through the command line: the sound files, and the tables beside them in a folder, by the names of the films."""
        pytest.importorskip("soundfile")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("MER_DATA", str(tmp_path / "data"))
        monkeypatch.setenv("COLUMNS", "200")
        folder = shared / "data/ravdess"
        (tmp_path / "sound").mkdir()
        for path in (folder / "audio").iterdir():
            if int(path.stem[-2:]) <= 5:
                (tmp_path / "sound" / path.name).symlink_to(path)
        tables = folder / "openface_frames"
        assert call(capsys, "data", "import", "ravdess", "sound")[0] == 0
        arguments = ("--vision", "openface", "--set", f"openface.folder={tables}", "--audio", "mfcc", "--as", "au", "--workers", "1")
        code, out, err = call(capsys, "data", "extract", "ravdess", *arguments)
        assert code == 0, err
        assert str(shared) not in out  # a card names no one's folders
        data = store.load("ravdess@au", tmp_path / "data")
        assert len(data) == 300 and Counter(data.clips["group"]) == {f"{actor:02d}": 60 for actor in range(1, 6)}
        assert data.card.modalities["vision"].nonfinite_replaced == 0 == data.card.modalities["vision"].empty_clips
        clips = {row["clip"]: row for row in rows_of(folder / "clips.csv")}
        for row in (0, 77, 299):
            clip = data.clips["id"][row]
            expected = [[float(line[name]) for name in (*INTENSITY, *PRESENCE)] for line in rows_of(tables / f"{clip}.csv")]
            np.testing.assert_array_equal(data.features["vision"].clip(row), np.float32(expected))
            assert data.card.task.classes[data.clips["label"][row]] == clips[clip]["emotion"]
            seconds = float(clips[clip]["duration_s"])
            assert abs(len(data.features["vision"].clip(row)) / 30 - seconds) < 0.1  # film and sound of one take
            assert abs(len(data.features["audio"].clip(row)) * 128 / 16000 - seconds) < 0.1
