"""The data card as histograms and as a picture: what is drawn equals what is counted in another way."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from kit import call, tiny_dataset

from harness.data.assemble import assemble
from harness.data.catalogue import facts
from harness.data.schema import Dataset, Source
from harness.errors import ConfigError
from harness.reporting.card_counts import BINS, Bars, labels, lengths, missing, sizes
from harness.reporting.card_picture import draw, write_picture
from harness.reporting.cards import histograms_text

pytest.importorskip("matplotlib")

SPLITS = {"train": 9, "valid": 4, "test": 6}


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    """Text and audio, no vision; some clips have no audio frames, some no transcript, some no sound file."""
    rng = np.random.default_rng(0)
    split = np.repeat(list(SPLITS), list(SPLITS.values()))
    count = len(split)
    frames = {"text": rng.integers(1, 5, count), "audio": rng.integers(1, 90, count)}
    frames["audio"][[0, 5]] = 0
    clips = pd.DataFrame(
        {
            "id": [f"v{i // 2}_{i}" for i in range(count)],
            "group": [f"v{i // 2}" for i in range(count)],
            "split": split,
            "label": rng.uniform(-3, 3, count),
            "text": ["" if i in (1, 2, 3) else "a word" for i in range(count)],
            "audio": ["" if i == 4 else "sound.wav" for i in range(count)],
        }
    )
    features = {m: [rng.normal(size=(n, 3)) for n in lengths] for m, lengths in frames.items()}
    return assemble(name="mosi@t", facts=facts("mosi"), clips=clips, features=features, source=Source(layout="made"), media_root=tmp_path)


def bounds(name: str) -> tuple[int, int]:
    """First and last number of frames of a bar."""
    low, _, high = name.partition("-")
    return int(low), int(high or low)


class TestCounts:
    def test_sizes_and_labels(self, data: Dataset) -> None:
        assert sizes(data).counts == {"clips": (9, 4, 6), "groups": (5, 3, 4)} and sizes(data).names == tuple(SPLITS)
        found = labels(data)
        for split in SPLITS:
            rounded = Counter(f"{round(label)}" for label in data.clips["label"][data.clips["split"] == split])
            assert dict(zip(found.names, found.counts[split], strict=True)) == {name: rounded[name] for name in found.names}

    @pytest.mark.parametrize("modality", ["text", "audio"])
    def test_lengths(self, data: Dataset, modality: str) -> None:
        found = next(bars for bars in lengths(data) if bars.title.startswith(modality))
        assert len(found.names) <= BINS and list(found.counts) == list(SPLITS)
        for split, counts in found.counts.items():
            frames = data.features[modality].lengths.numpy()[data.clips["split"] == split]
            expected = [sum(low <= length <= high for length in frames) for low, high in map(bounds, found.names)]
            assert list(counts) == expected and sum(counts) == SPLITS[split]

    def test_ranges_are_whole_numbers_without_gaps(self, data: Dataset) -> None:
        for bars in lengths(data):
            edges = [bounds(name) for name in bars.names]
            assert all(after[0] == before[1] + 1 for before, after in zip(edges, edges[1:], strict=False))

    def test_what_is_missing(self, data: Dataset) -> None:
        found = missing(data)
        assert dict(zip(found.names, found.counts["clips"], strict=True)) == {
            "text frames": 0, "audio frames": 2, "transcript": 3, "sound file": 1,
        }  # no clip has a film, so no film is missing  # fmt: skip

    def test_one_length_is_one_bar(self) -> None:
        one = tiny_dataset()
        steps = {m: [np.ones((1, 2))] * len(one) for m in ("text", "vision")}
        data = assemble(name="mosi@t", facts=facts("mosi"), clips=one.clips, features=steps, source=Source(layout="made"))
        assert [bars.names for bars in lengths(data)] == [("1",), ("1",)]


class TestPicture:
    def test_the_bars_are_the_counts(self, data: Dataset) -> None:
        panels: list[Bars] = [sizes(data), labels(data), *lengths(data), missing(data)]
        drawn = [axes for axes in draw(data).axes if axes.containers]
        assert [axes.get_title() for axes in drawn] == [bars.title for bars in panels]
        for axes, bars in zip(drawn, panels, strict=True):
            heights = {bar.get_label(): tuple(int(patch.get_height()) for patch in bar) for bar in axes.containers}
            assert heights == bars.counts and [tick.get_text() for tick in axes.get_xticklabels()] == list(bars.names)
            assert axes.get_ylim()[1] > max(map(max, bars.counts.values()))

    @pytest.mark.parametrize("form", ["png", "svg", "pdf"])
    def test_twice_the_same_bytes(self, data: Dataset, tmp_path: Path, form: str) -> None:
        first, second = tmp_path / f"a.{form}", tmp_path / f"b.{form}"
        write_picture(data, first)
        write_picture(data, second)
        assert first.read_bytes() == second.read_bytes() and len(first.read_bytes()) > 5000
        start = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[form]
        assert first.read_bytes().startswith(start)

    def test_names_are_no_formulas(self, data: Dataset, tmp_path: Path) -> None:
        from dataclasses import replace

        odd = replace(data, card=data.card.model_copy(update={"title": "costs $x^ and $"}))
        write_picture(odd, tmp_path / "odd.png")

    def test_media_without_features(self, data: Dataset, tmp_path: Path) -> None:
        bare = assemble(
            name="mosi@t", facts=facts("mosi"), clips=data.clips, features={}, source=Source(layout="made"), media_root=tmp_path
        )
        assert [axes.get_title() for axes in draw(bare).axes if axes.containers] == ["size", "label", "clips without"]
        assert "sound file" in histograms_text(bare)

    def test_what_cannot_be_written(self, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(ConfigError, match=r"card\.gif ends in '\.gif'\nAllowed: \.png, \.svg, \.pdf"):
            write_picture(data, tmp_path / "card.gif")
        with pytest.raises(ConfigError, match=r"no_folder/card\.png could not be written"):
            write_picture(data, tmp_path / "no_folder" / "card.png")
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        with pytest.raises(ConfigError, match=r"matplotlib(?s:.)*mer-harness\[figures\]"):
            write_picture(data, tmp_path / "card.png")

    def test_settings_stay_as_they_were_and_pyplot_away(self, tmp_path: Path) -> None:
        """In a process of its own: another test's library may have imported pyplot."""
        lines = (
            "import sys, kit, matplotlib",
            "from pathlib import Path",
            "from harness.reporting.card_picture import write_picture",
            "before = matplotlib.rcParams.copy()",
            f"write_picture(kit.tiny_dataset(), Path({str(tmp_path / 'card.svg')!r}))",
            "print(before == matplotlib.rcParams.copy(), 'matplotlib.pyplot' in sys.modules)",
        )
        place = Path(__file__).parent
        done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True, cwd=place)
        assert done.stdout.split() == ["True", "False"]


class TestCommand:
    def test_text_and_picture(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        from kit import stored

        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("MER_DATA", str(tmp_path / "data"))
        data = stored(tmp_path / "data")
        code, out, _ = call(capsys, "data", "show", "mosi@tiny", "--picture", "card.png")
        assert code == 0 and (tmp_path / "card.png").is_file() and "Drawn: card.png" in out
        counts = Counter(data.features["audio"].lengths.numpy()[data.clips["split"] == "train"].tolist())
        table = out[out.index("audio, frames per clip") :].splitlines()
        assert [cell.strip() for cell in table[0].split("|")[1:-1]] == ["1", "2", "3", "4", "5"]
        assert [int(cell) for cell in table[2].split("|")[2:-1]] == [counts[n] for n in range(1, 6)]
        code, _, err = call(capsys, "data", "show", "mosi@tiny", "--picture", "card.docx")
        assert code == 2 and ".docx" in err
