"""Tests that swap the two systems: by cluster (sign flips), and clip by clip for hits (McNemar)."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bdtr

from harness.analysis.comparisons import ONE_RUN, THESE_RUNS, Comparison
from harness.analysis.pairs import Clustered, Pair
from harness.errors import DataError
from harness.seeds import generator
from harness.training.metrics import Floats, Metric

EXACT_CLUSTERS = 14  # up to this many, all 2^G swaps are tried


def _swaps(clusters: int, resamples: int, seed: int) -> Floats:
    """Which clusters swap A and B, one try per row: all 2^G where that is few, else random tries below the given one."""
    if clusters <= EXACT_CLUSTERS:
        return (np.arange(2**clusters)[:, None] >> np.arange(clusters) & 1).astype(np.float64)
    tries = generator(seed, "cluster sign flip").integers(2, size=(resamples + 1, clusters)).astype(np.float64)
    tries[0] = 0  # the given assignment is one of the possible ones, which keeps the test exact
    return tries


def _swapped(table: Clustered, swaps: Floats) -> Floats:
    """A - B, mean over runs, with these clusters swapped: (tries,)."""
    a, b = table.weighted(1 - swaps)[0].shape, None
    raise NotImplementedError
