"""UR-FUNNY as its authors publish it: six pickles, version 1 or 2.

| content | what it is |
|---|---|
| ``train``, ``dev``, ``test`` -> list of ids | the split (``data_folds``) |
| id -> 0 or 1 | 1: the punchline is humorous (``humor_label_sdk``) |
| id -> ``punchline_features``, ``context_features`` | per word, COVAREP (81 wide: audio) or OpenFace (371, version 1: 75: vision) |
| id -> the same, or ``punchline_embedding_indexes``, ...; ``punchline_sentence``, ... | word indexes, and the words |
| list of vectors | GloVe vector of each word index (``word_embedding_list``) |

A clip is its punchline; with ``parts = ["context", "punchline"]`` in the data set's file, the sentences before it come first.
The files do not say who speaks: each clip is a group of its own. The authors' split is speaker-independent, folds are not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from harness.data.catalogue import Facts
from harness.data.sources.layout import Layout, Opened, Raw, as_text, count, layouts, single, split_name
from harness.data.sources.part import NUMBERS
from harness.errors import DataError

COVAREP = 81  # width of the audio features; the other word-aligned file is OpenFace
INDEXES = ("embedding_indexes", "features")  # version 1, version 2
ONE_VERSION = "Give files of one version."
NO_SPEAKERS = "the files do not say who speaks: folds by group may put one speaker on two sides; the official split does not"


@layouts.register("ur_funny")
class UrFunny(Layout):
    """Some or all of the six pickles: at least the split, the labels and one of features and language."""

    title = "pickles of UR-FUNNY"

    def recognise(self, files: Sequence[Opened]) -> bool:
        kinds = [_kind(file.content) for file in files if file.kind == "pickle"]
        return len(kinds) == len(files) >= 3 and {"split", "labels"} <= set(kinds) and "" not in kinds

    def read(self, files: Sequence[Opened], facts: Facts) -> Raw:
        content = _by_kind(files)
        parts = facts.parts or ("punchline",)
        clips = _clips(content, parts)
        ids = clips["id"].tolist()
        features: dict[str, list[np.ndarray]] = {
            m: _frames(content[m], ids, parts, "features", m) for m in ("audio", "vision") if m in content
        }
        if "language" in content and "vectors" in content:
            features = {"text": _words(content, ids, parts), **features}
        return Raw(clips, features, {"parts": ", ".join(parts)}, [NO_SPEAKERS])


def _kind(content: Any) -> str:
    """Which of the six a pickle is; empty if none."""
    if isinstance(content, list | np.ndarray):
        return "vectors" if count(content) and (count(content[0]) or 0) > 1 else ""
    if not isinstance(content, dict) or not content:
        return ""
    if set(content) >= {"train", "dev", "test"}:
        return "split"
    clips = [clip for clip in content.values() if isinstance(clip, dict)]
    if not clips:
        return "labels" if not isinstance(single(next(iter(content.values()))), str | list | tuple) else ""
    if any("punchline_embedding_indexes" in clip or "punchline_sentence" in clip for clip in clips):
        return "language"
    return _which(clips)


def _which(clips: Sequence[Mapping[str, Any]]) -> str:
    """Audio or vision, by the width of most clips' first word."""
    words = [clip["punchline_features"] for clip in clips if count(clip.get("punchline_features"))]
    widths = Counter(count(found[0]) for found in words)
    return ("audio" if widths.most_common(1)[0][0] == COVAREP else "vision") if widths else ""


def _by_kind(files: Sequence[Opened]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for file in files:
        kind = _kind(file.content)
        if kind in content:
            raise DataError(f"{file.path.name}: two files give {kind}", "Give each of the six once.")
        content[kind] = file.content
    return content


def _clips(content: Mapping[str, Any], parts: Sequence[str]) -> pd.DataFrame:
    """The clips of the split, in its order; those without a label or features are named in the error."""
    labels = {as_text(key): label for key, label in content["labels"].items()}
    rows = [(as_text(clip), split_name(split)) for split, listed in content["split"].items() for clip in _listed(listed, split)]
    _all_there([clip for clip, _ in rows], labels, "the labels")
    texts = _texts(content["language"], [clip for clip, _ in rows], parts) if "language" in content else [""] * len(rows)
    return pd.DataFrame(
        {
            "id": [clip for clip, _ in rows],
            "group": [clip for clip, _ in rows],
            "split": [split for _, split in rows],
            "label": pd.Series([single(labels[clip]) for clip, _ in rows], dtype=object),
            "text": texts,
        }
    )


def _listed(listed: Any, split: str) -> Sequence[Any]:
    if not isinstance(listed, list | tuple | np.ndarray):
        raise DataError(f"the split '{split}' is a {type(listed).__name__}", "It must be a list of clip ids.")
    return list(listed)


def _all_there(ids: Sequence[str], found: Mapping[str, Any], what: str) -> None:
    missing = [clip for clip in ids if clip not in found]
    if missing:
        raise DataError(f"{what} lack {len(missing)} of {len(ids)} clips of the split, the first is '{missing[0]}'", ONE_VERSION)


def _of_clips(content: Mapping[Any, Any], ids: Sequence[str], what: str) -> list[dict[str, Any]]:
    found = {as_text(key): value for key, value in content.items()}
    _all_there(ids, found, what)
    odd = next((clip for clip in ids if not isinstance(found[clip], dict)), None)
    if odd is not None:
        raise DataError(f"{what} of clip '{odd}' are a {type(found[odd]).__name__}", "A dictionary with punchline_features is needed.")
    return [found[clip] for clip in ids]


def _items(clip: Mapping[str, Any], parts: Sequence[str], name: str) -> list[Any]:
    """The words of a clip in order; those of the context are nested by sentence."""
    words: list[Any] = []
    for part in parts:
        found = clip.get(f"{part}_{name}")
        found = list(found) if isinstance(found, list | tuple | np.ndarray) else []
        words += chain.from_iterable(found) if part == "context" else found
    return words


def _frames(content: Mapping[Any, Any], ids: Sequence[str], parts: Sequence[str], name: str, what: str) -> list[np.ndarray]:
    """Each clip's features per word, (words, width)."""
    frames = [_numbers(_items(found, parts, name), clip, what) for clip, found in zip(ids, _of_clips(content, ids, what), strict=True)]
    width = next((part.shape[1] for part in frames if part.ndim == 2), 1)
    return [part if part.size else np.zeros((0, width), dtype=np.float32) for part in frames]


def _numbers(words: list[Any], clip: str, what: str) -> np.ndarray:
    try:
        frames = np.array(words or np.zeros(0))
    except ValueError:  # words of different widths
        frames = np.array(None)
    if frames.dtype.kind not in NUMBERS or (frames.size and frames.ndim != 2):
        raise DataError(f"{what} of clip '{clip}' are not (words, width) of numbers", "Give the files as they were published.")
    return frames.astype(np.float32)


def _words(content: Mapping[str, Any], ids: Sequence[str], parts: Sequence[str]) -> list[np.ndarray]:
    vectors = np.asarray(content["vectors"])
    if vectors.ndim != 2 or vectors.dtype.kind not in NUMBERS:
        raise DataError("the list of word vectors is not (words, width)", "Give word_embedding_list.pkl as it was published.")
    clips = _of_clips(content["language"], ids, "the words")
    version = next((name for name in INDEXES if any(f"punchline_{name}" in clip for clip in clips)), INDEXES[0])
    return [_vectors(vectors, _items(found, parts, version), clip) for clip, found in zip(ids, clips, strict=True)]


def _vectors(vectors: np.ndarray, words: list[Any], clip: str) -> np.ndarray:
    """The word vectors of the indexes ``words``, each a number or a list of one, (words, width)."""
    indexes = [single(word) for word in words]
    if not all(isinstance(index, int | float | np.integer | np.floating) and 0 <= index < len(vectors) for index in indexes):
        raise DataError(f"the words of clip '{clip}' are not indexes into the {len(vectors)} word vectors", ONE_VERSION)
    return np.asarray(vectors[np.array(indexes, dtype=int)], dtype=np.float32)


def _texts(language: Mapping[Any, Any], ids: Sequence[str], parts: Sequence[str]) -> list[str]:
    return [" ".join(_sentence(clip, part) for part in parts).strip() for clip in _of_clips(language, ids, "the words")]


def _sentence(clip: Mapping[str, Any], part: str) -> str:
    """The text of one part; a sentence is a string or a list of words, the context a list of sentences."""
    found = clip.get("punchline_sentence" if part == "punchline" else f"{part}_sentences")
    return _joined(found)


def _joined(found: Any) -> str:
    if isinstance(found, list | tuple | np.ndarray):
        return " ".join(_joined(item) for item in found)
    return "" if found is None else as_text(found)
