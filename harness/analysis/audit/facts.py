"""What is known of a data set's test split: clips, clips labelled exactly zero, the label histogram, clips by class.

MOSI and MOSEI come from the catalogue's files, read as they are: the catalogue's own reader imports PyTorch, which would take
longer than a whole audit. Other data sets: ``facts.toml``.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import ConfigError

Floats = NDArray[np.float64]

NEGATIVE, ZERO, POSITIVE = 3, 4, 5  # of the catalogue's nine label bins: -3, -2, -1, negative 0, exactly 0, positive 0, 1, 2, 3
EXACT_ZEROS = ("mosi",)  # MOSEI's counts are scaled from most of its clips
ZEROS_SLACK = 0.01  # of the test clips, where the zeros are not exact


@dataclass(frozen=True)
class Labels:
    """The distinct test labels in [-3, 3] and the share of clips of each, (K,) each; shares sum to 1."""

    values: Floats
    shares: Floats


@dataclass(frozen=True)
class Facts:
    """``zeros``: least and greatest number of test clips labelled exactly 0, where labels are intensities."""

    test: int | None = None
    zeros: tuple[int, int] | None = None
    labels: Labels | None = None
    classes: dict[str, int] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)

    def denominators(self, metric: str) -> tuple[int, ...]:
        """Numbers of clips that an accuracy called ``metric`` may be a share of; empty: it is no accuracy, or none is known.

        ``acc2`` without a half may be over all clips or over those whose label is not zero.
        """
        nonzero = self.test - self.zeros[0] if self.test and self.zeros and self.zeros[0] == self.zeros[1] else None
        known = {"accuracy": [self.test], "acc7": [self.test], "acc5": [self.test], "acc2_nonneg": [self.test]}
        known |= {"acc2_nonzero": [nonzero], "acc2": [self.test, nonzero] if nonzero else []}
        return tuple(n for n in known.get(metric, []) if n)


@cache
def facts(data: str) -> Facts:
    """What is known of ``data``; ConfigError where nothing is."""
    own = tomllib.loads((files(__package__) / "facts.toml").read_text(encoding="utf-8"))
    if data in own:
        entry = own[data]
        return Facts(entry.get("test"), classes=entry.get("classes", {}), counts=entry)
    file = files("harness.data") / "datasets" / f"{data}.toml"
    if not file.is_file():
        raise ConfigError(f"nothing is known of the data set '{data}'", "Add its counts to facts.toml.")
    return _from_catalogue(data, tomllib.loads(file.read_text(encoding="utf-8")))


def _from_catalogue(data: str, entry: dict[str, Any]) -> Facts:
    shape = entry["simulated"]
    test, histogram = entry["splits"]["test"], shape["splits"]["test"]["labels"]
    slack = 0 if data in EXACT_ZEROS else round(ZEROS_SLACK * test)
    counts = {
        "clips": sum(entry["splits"].values()),
        "test": test,
        "videos": sum(split["videos"] for split in shape["splits"].values()),
    }
    zeros = (histogram[ZERO] - slack, histogram[ZERO] + slack)
    return Facts(test, zeros, spread(histogram, shape["grid"]), counts=counts)


def spread(histogram: list[int], grid: float, towards: float = 0.0) -> Labels:
    """Labels of a histogram over the nine bins: each bin's clips spread evenly over the multiples of ``grid`` inside it.

    ``towards`` -1 puts all clips of a bin on its label nearest zero, 1 on the one farthest from it.
    """
    steps = round(3 / grid)
    values: Floats = np.arange(-steps, steps + 1) * np.float64(grid)
    place = _bin(values)
    shares = np.zeros(len(values))
    for number, clips in enumerate(histogram):
        inside = np.flatnonzero(place == number)
        if towards:
            inside = inside[[np.argmax(towards * np.abs(values[inside]))]]
        shares[inside] += clips / len(inside)
    held = shares > 0
    return Labels(values[held], shares[held] / shares.sum())


def _bin(values: Floats) -> NDArray[np.int64]:
    """Number of the bin of each label, (K,)."""
    rounded = np.round(values).astype(int)
    near = np.select([np.abs(values) < 1e-9, values < 0], [ZERO, NEGATIVE], POSITIVE)
    return np.where(rounded == 0, near, rounded + np.where(rounded < 0, 3, 5))
