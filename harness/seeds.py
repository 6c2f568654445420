"""Named random streams: every random decision draws from a stream derived from (base seed, name).

A stream depends on nothing but its own name, so adding one shifts no other, and two methods that share
seed and fold share their shuffles. Streams that advance during training carry the epoch in their name,
which is why a trial can resume at any epoch without having stored a generator's state.
"""

from __future__ import annotations

import hashlib

import numpy as np


def derive(seed: int, *names: str | int) -> int:
    """The 63-bit seed of the stream called ``names`` under the base ``seed``."""
    text = "\x1f".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """A NumPy generator for the stream called ``names``."""
    return np.random.default_rng(derive(seed, *names))
