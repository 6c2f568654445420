"""Files as spreadsheets and other people's scripts leave them: read as they are meant, or refused; never read as something else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layout_files import Truth, mmsa, mult, multibench, truth, write

from harness.cli import main
from harness.data import store
from harness.data.importing import import_dataset
from harness.data.schema import Dataset
from harness.data.sources.featurefiles import numbers, read_frames, read_table
from harness.errors import DataError


def refused(tmp_path: Path, name: str, content: str | bytes, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(DataError, match=words) as caught:
        import_dataset("mosi", [path], root=tmp_path / "store")
    assert name in caught.value.problem and caught.value.fix
    assert "pickle" not in str(caught.value)


class TestSplitNames:
    """A split called dev or val is the validation part; it must not be passed over."""

    @staticmethod
    def renamed(content: dict[str, Any], name: str) -> dict[str, Any]:
        return {name if split == "valid" else split: part for split, part in content.items()}

    @pytest.mark.parametrize("name", ["dev", "val", "validation"])
    @pytest.mark.parametrize("layout", ["mmsa", "mult", "multibench"])
    def test_dev_and_val_are_the_validation_part(self, tmp_path: Path, layout: str, name: str) -> None:
        known = truth(aligned=True)
        forms: dict[str, Callable[[Truth], dict[str, Any]]] = {
            "mmsa": mmsa,
            "mult": lambda known: mult(known, aligned=True),
            "multibench": multibench,
        }
        data = import_dataset("mosi", write(tmp_path, {"a.pkl": self.renamed(forms[layout](known), name)}), root=tmp_path / "store")
        assert data.card.source.layout == layout
        assert data.clips["split"].tolist() == known.splits
        for modality, frames in known.frames.items():
            for row, clip in enumerate(frames):
                np.testing.assert_array_equal(data.features[modality].clip(row).numpy(), clip)

    def test_two_names_of_one_split_are_refused(self, tmp_path: Path) -> None:
        content = mmsa(truth(aligned=True))
        paths = write(tmp_path, {"a.pkl": {**content, "dev": content["valid"]}})
        with pytest.raises(DataError, match=r"a\.pkl has both 'valid' and 'dev'"):
            import_dataset("mosi", paths, root=tmp_path / "store")

    def test_lists_in_the_place_of_arrays_are_named(self, tmp_path: Path) -> None:
        content = mult(truth(aligned=True), aligned=True)
        paths = write(tmp_path, {"a.pkl": {split: {**part, "text": part["text"].tolist()} for split, part in content.items()}})
        with pytest.raises(DataError, match=r"a\.pkl\[train\]\['text'\] is a list"):
            import_dataset("mosi", paths, root=tmp_path / "store")


class TestFrames:
    """One clip's features as .csv."""

    @pytest.mark.parametrize(
        ("text", "frames"),
        [
            ("1,,5\n3,4,6\n", [[1, np.nan, 5], [3, 4, 6]]),
            ("NA,2\n3,4\n", [[np.nan, 2], [3, 4]]),
            ("1,2,\n3,4,\n", [[1, 2, np.nan], [3, 4, np.nan]]),
            ("x,y,\n1,2,\n", [[1, 2, np.nan]]),
            ("x,y\n1,\n", [[1, np.nan]]),
        ],
    )
    def test_empty_cells_cost_no_frame(self, tmp_path: Path, text: str, frames: list[list[float]]) -> None:
        (tmp_path / "a.csv").write_text(text)
        np.testing.assert_array_equal(read_frames(tmp_path / "a.csv"), frames)

    @pytest.mark.parametrize("text", ["x,y\n1,2,\n3,4,\n", "x,y\n1,2,9\n3,4\n", "x,y\n1,2\n3,4,5\n", "x;y\n1,5;2,5\n"])
    def test_rows_of_more_cells_than_the_header_are_refused(self, tmp_path: Path, text: str) -> None:
        """pandas takes the first column for row names: every value would move by one feature."""
        (tmp_path / "a.csv").write_text(text)
        with pytest.raises(DataError, match=r"a\.csv cannot be read as \.csv"):
            read_frames(tmp_path / "a.csv")

    def test_a_table_of_clips_does_not_move_either(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text("id,x,y\na_1,1,2,\na_2,3,4,\n")
        with pytest.raises(DataError, match="its rows have more cells than its first line"):
            numbers(read_table(tmp_path / "a.csv", header=True), tmp_path / "a.csv")

    @pytest.mark.parametrize("name", ["a.csv", "a.npy"])
    def test_a_file_without_a_feature_is_named(self, tmp_path: Path, name: str) -> None:
        np.save(tmp_path / "a.npy", np.zeros((3, 0)))
        (tmp_path / "a.csv").write_text("frame,time\n0,0.1\n")
        with pytest.raises(DataError, match=rf"{name} is of type float64, shape \(., 0\)"):
            read_frames(tmp_path / name)


class TestTables:
    """What spreadsheets save under the name .csv."""

    def test_another_separator_is_named(self, tmp_path: Path) -> None:
        refused(tmp_path, "m.csv", "id;group;label;audio\na;g;1;a.wav\n", "cells separated by ';'")
        refused(tmp_path, "m.csv", "id\tgroup\tlabel\taudio\na\tg\t1\ta.wav\n", r"cells separated by '\\t'")

    @pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
    def test_another_encoding_is_named(self, tmp_path: Path, encoding: str) -> None:
        refused(tmp_path, "m.csv", "id,group,label,audio\nä,g,1,a.wav\n".encode(encoding), "'utf-8' codec can't decode")

    def test_an_empty_file_is_named(self, tmp_path: Path) -> None:
        refused(tmp_path, "m.csv", "", "No columns to parse")

    def test_rows_of_more_cells_than_the_header_are_refused(self, tmp_path: Path) -> None:
        refused(tmp_path, "m.csv", "id,group,label,audio\na,g,1,a.wav,\nb,h,2,b.wav,\n", "more cells than its first line")

    def test_an_array_by_itself_has_no_labels(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.ones((2, 3)))
        refused(tmp_path, "a.npy", (tmp_path / "a.npy").read_bytes(), "an array, which has no labels")


class TestNext:
    """The command that is named after an import is one that works: tables there are of a few data sets only."""

    @pytest.fixture
    def mine(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("MER_DATA", str(tmp_path / "data"))
        monkeypatch.setenv("COLUMNS", "200")
        (tmp_path / "data" / "datasets").mkdir(parents=True)
        (tmp_path / "data" / "datasets" / "mine.toml").write_text(
            'title = "Mine"\nmetrics = ["accuracy"]\n[task]\nkind = "classification"\nclasses = ["calm", "angry"]\n'
        )
        np.save(tmp_path / "a.npy", np.ones((2, 3)))
        return tmp_path

    @pytest.mark.parametrize(
        ("column", "told"), [("audio_features", "Use it: harness run METHOD mine"), ("audio", "no features yet: harness data extract mine")]
    )
    def test_after_an_import(self, mine: Path, capsys: pytest.CaptureFixture[str], column: str, told: str) -> None:
        (mine / "m.csv").write_text(f"id,group,label,{column}\na,g,calm,a.npy\nb,h,angry,a.npy\n")
        with pytest.raises(SystemExit) as ended:
            main(["data", "import", "mine", str(mine / "m.csv")])
        assert not ended.value.code
        out = capsys.readouterr().out
        assert told in out and "harness reproduce" not in out


def test_a_crash_between_the_old_and_the_new_data_set_loses_neither(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process ends where the old folder is out of place and the new one is not yet in it."""

    def brought(label: float) -> Dataset:
        known = truth(aligned=True)
        known.labels = [label] * len(known.labels)
        return import_dataset("mosi", write(tmp_path, {"a.pkl": mmsa(known)}), root=tmp_path / "store")

    old, rename = brought(1.0), Path.rename
    child = os.fork()
    if not child:
        monkeypatch.setattr(Path, "rename", lambda self, to: os._exit(9) if self.name == ".mosi.new" else rename(self, to))
        brought(2.0)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert not (tmp_path / "store" / "mosi").exists()
    assert store.load("mosi", tmp_path / "store", verify=True).card.fingerprint == old.card.fingerprint
    assert store.names(tmp_path / "store") == ("mosi",)
    assert brought(2.0).clips["label"].eq(2.0).all()
    assert {path.name for path in (tmp_path / "store").iterdir()} == {"mosi", ".lock"}
