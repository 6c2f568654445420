"""Pairs of systems that are equal, or not, on a set of MOSI's size: what the tests of statistics draw from."""

from __future__ import annotations

import numpy as np

from harness.analysis.statistics import Pair
from harness.seeds import generator


def rng(*name: str | int) -> np.random.Generator:
    return generator(11, "test statistics", *name)


def systems(
    random: np.random.Generator, *, videos: int = 31, seeds: int = 5, better: float = 0.0, own: float = 0.6, seed_noise: float = 0.2
) -> Pair:
    """Two systems on a set of MOSI's size and labels, equal on the population of clips unless ``better``.

    Each has an error of its own on every clip, the same in all its seeds (``own``), next to one that both share.
    ``seed_noise`` is what a seed adds clip by clip; ``better`` shrinks the errors of A.
    """
    sizes = random.permutation(np.tile([10, 14, 16, 16, 18, 20, 22, 22, 24, 27, 30, 31, 43], 3))[:videos]
    video = np.repeat(np.arange(videos), sizes)
    clips = len(video)
    truth = np.round(5 * np.clip(0.9 * random.normal(size=videos)[video] + 1.3 * random.normal(size=clips), -3, 3)) / 5
    shared = 0.7 * truth + 0.6 * random.normal(size=clips)

    def system(scale: float) -> np.ndarray:
        return shared + scale * (own * random.normal(size=clips) + seed_noise * random.normal(size=(seeds, clips)))

    return Pair(system(1 - better), system(1.0), truth, video)
