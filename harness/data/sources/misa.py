"""The lists of MISA: ``train.pkl``, ``dev.pkl``, ``test.pkl``, and, where one has it, ``embedding_and_mapping.pt``.

Each list holds ``((word ids, visual, acoustic, words), label, segment)`` per clip, aligned by word and not padded. Which split
a list is stands nowhere but in its file's name, which must hold the word train, dev (or valid, val) or test.

Word ids are rows of the embedding matrix, the first thing in the ``.pt`` file. Without that file there are no text features;
the words themselves become the transcript, which a text encoder can read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.data.catalogue import Facts
from harness.data.schema import SPLITS
from harness.data.sources.layout import Layout, Opened, Raw, as_text, layouts, split_id, split_name
from harness.data.sources.part import NUMBERS
from harness.errors import DataError

FORM = "Each entry must be ((word ids, visual, acoustic, words), label, segment)."
MOSEI_LABELS = 7  # sentiment, then six emotions


@layouts.register("misa")
class Misa(Layout):
    """Lists of clips, one file per split, and perhaps the embedding."""

    title = "lists of MISA, one pickle per split, with or without the embedding file"

    def recognise(self, files: Sequence[Opened]) -> bool:
        lists = [file for file in files if file.kind == "pickle"]
        others = [file for file in files if file.kind != "pickle"]
        return bool(lists) and all(_is_list(file.content) for file in lists) and [file.kind for file in others] in ([], ["tensors"])

    def read(self, files: Sequence[Opened], facts: Facts) -> Raw:
        embedding = next((_matrix(file) for file in files if file.kind == "tensors"), None)
        lists = {_split(file.path): file for file in files if file.kind == "pickle"}
        if len(lists) < sum(file.kind == "pickle" for file in files):
            raise DataError(f"two of {', '.join(file.path.name for file in files)} are the same split", "Give one list per split.")
        clips = [
            _Clip(f"{lists[split].path.name}[{row}]", split, entry)
            for split in SPLITS
            if split in lists
            for row, entry in enumerate(lists[split].content)
        ]
        features = {m: [clip.frames(m) for clip in clips] for m in ("audio", "vision")}
        if embedding is not None:
            features = {"text": [clip.vectors(embedding) for clip in clips], **features}
        note = "word vectors of the embedding file" if embedding is not None else "none: without the embedding file word ids mean nothing"
        return Raw(pd.DataFrame([clip.row() for clip in clips]), features, {"text": note})


class _Clip:
    """One entry, its form checked."""

    def __init__(self, where: str, split: str, entry: Any) -> None:
        if not _is_entry(entry):
            raise DataError(f"{where} is not a clip", FORM)
        (self._words, visual, acoustic, *text), self._label, segment = entry
        self.where, self.split = where, split
        self.id, self.group = split_id(as_text(segment))
        self._text = " ".join(map(as_text, text[0])) if text and isinstance(text[0], list | tuple | np.ndarray) else ""
        self._frames = {"audio": acoustic, "vision": visual}

    def row(self) -> dict[str, Any]:
        """The clip's line in the table of clips."""
        return {"id": self.id, "group": self.group, "split": self.split, "label": self._number(), "text": self._text}

    def frames(self, modality: str) -> np.ndarray:
        """Frames of audio or vision, (words, features)."""
        frames = np.asarray(self._frames[modality])
        if frames.ndim != 2 or frames.dtype.kind not in NUMBERS:
            raise DataError(
                f"{self.where}: {modality} of clip '{self.id}' is of type {frames.dtype}, shape {frames.shape}",
                "(words, features) is needed.",
            )
        return frames

    def vectors(self, embedding: np.ndarray) -> np.ndarray:
        """The words' rows of ``embedding``, (words, width)."""
        ids = np.asarray(self._words)
        if ids.ndim != 1 or ids.dtype.kind not in NUMBERS or (ids < 0).any() or (ids >= len(embedding)).any() or (ids % 1).any():
            raise DataError(
                f"{self.where}: the word ids of clip '{self.id}' are not rows of the embedding, which has {len(embedding)}",
                "Give the embedding file that was written with these lists.",
            )
        return np.asarray(embedding[ids.astype(int)])

    def _number(self) -> Any:
        """The label: one number, or the first of MOSEI's seven, which is the sentiment."""
        values = np.asarray(self._label)
        fits = values.dtype.kind in NUMBERS and values.size in (1, MOSEI_LABELS)
        return float(values.ravel()[0]) if fits else values.tolist()


def _is_list(content: Any) -> bool:
    return isinstance(content, list | tuple) and bool(content) and _is_entry(content[0])


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, list | tuple) and len(entry) == 3 and isinstance(entry[0], list | tuple) and len(entry[0]) >= 3


def _split(path: Path) -> str:
    found = {split_name(word) for word in re.split(r"[^a-z]+", path.stem.lower())} & set(SPLITS)
    if len(found) != 1:
        raise DataError(f"{path.name} does not say which split it is", "Its name must hold the word train, dev or test.")
    return found.pop()


def _matrix(file: Opened) -> np.ndarray:
    """The embedding matrix (words, width): the first thing in the file, or the file's only one."""
    content = file.content[0] if isinstance(file.content, list | tuple) and file.content else file.content
    shape = getattr(content, "shape", None)
    if shape is None or len(shape) != 2:
        raise DataError(
            f"{file.path.name} does not begin with an embedding matrix", "Needed: the matrix (words, width), or (matrix, word2id)."
        )
    return np.asarray(content.numpy(), dtype=np.float32)
