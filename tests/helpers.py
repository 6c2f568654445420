"""Random ragged splits, for tests of layers and methods."""

from __future__ import annotations

import numpy as np
import torch

from harness.data.schema import Ragged, Split


def random_split(lengths: dict[str, list[int]], dims: dict[str, int], seed: int, classes: int | None = None) -> Split:
    """Clips with ``lengths[m]`` normal frames of width ``dims[m]``; labels in [-3, 3], or every class in turn.

    Two clips in a row share a group. Rows are shuffled, so that a clip's row and its position differ.
    """
    rng = np.random.default_rng(seed)
    features = {name: _ragged(counts, dims[name], rng) for name, counts in lengths.items()}
    clips = len(next(iter(lengths.values())))
    rows = torch.from_numpy(rng.permutation(clips))
    labels = torch.arange(clips) % classes if classes else torch.from_numpy(rng.uniform(-3, 3, clips).astype(np.float32))
    return Split(features, rows, tuple(f"clip{i}" for i in range(clips)), tuple(f"video{i // 2}" for i in range(clips)), labels)


def _ragged(counts: list[int], dim: int, rng: np.random.Generator) -> Ragged:
    offsets = torch.tensor([0, *np.cumsum(counts)], dtype=torch.int64)
    return Ragged(torch.from_numpy(rng.normal(size=(int(offsets[-1]), dim)).astype(np.float32)), offsets)
