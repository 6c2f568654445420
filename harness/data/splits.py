"""Splits: the official one, or folds that keep every group (video, actor) on one side."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from harness import seeds
from harness.data.schema import SPLITS, Dataset, Frozen, Split
from harness.errors import DataError


class Fold(Frozen):
    """Which clips train, validate and test.

    ``official``: the split the data set ships. ``grouped``: fold ``index`` of ``of``; groups are dealt to folds so
    that clip counts are balanced, fold ``index`` tests, the next one validates, the others train. ``repeat`` names a
    new random deal.
    """

    protocol: Literal["official", "grouped"] = "official"
    index: int = Field(0, ge=0)
    of: int = Field(1, ge=1)
    repeat: int = Field(0, ge=0)

    def __str__(self) -> str:
        return "official split" if self.protocol == "official" else f"fold {self.index + 1}/{self.of}, repeat {self.repeat + 1}"


class Parts(dict[str, Split]):
    """The splits ``train``, ``valid`` and ``test`` of one fold."""


def folds(number: int, repeats: int = 1) -> list[Fold]:
    """The folds of a grouped cross-validation with ``number`` folds (at least 3: train, validation, test)."""
    if number < 3:
        raise DataError(f"{number} folds cannot be cut into training, validation and test", "Ask for at least 3 folds.")
    return [Fold(protocol="grouped", index=i, of=number, repeat=r) for r in range(repeats) for i in range(number)]


def cut(dataset: Dataset, fold: Fold) -> Parts:
    """The three splits of ``fold``; DataError where the data set cannot give them."""
    return Parts(zip(SPLITS, (_official if fold.protocol == "official" else _grouped)(dataset, fold), strict=True))


def _official(dataset: Dataset, fold: Fold) -> list[Split]:
    column = dataset.clips["split"].to_numpy()
    rows = [np.flatnonzero(column == name) for name in SPLITS]
    missing = [name for name, found in zip(SPLITS, rows, strict=True) if not len(found)]
    if missing:
        raise DataError(
            f"{dataset.card.name} has no clips in {', '.join(missing)}: the official split cannot be run",
            "Run it by cross-validation instead: --folds 5.",
        )
    return [dataset.rows(found.tolist()) for found in rows]


def _grouped(dataset: Dataset, fold: Fold) -> list[Split]:
    groups = dataset.clips["group"].to_numpy().astype(str)
    names, sizes = np.unique(groups, return_counts=True)
    if len(names) < fold.of:
        raise DataError(f"{dataset.card.name} has {len(names)} groups, too few for {fold.of} folds", f"Ask for at most {len(names)} folds.")
    place = dict(zip(names, _deal(sizes, fold), strict=True))
    where = np.array([place[group] for group in groups])
    test, valid = where == fold.index, where == (fold.index + 1) % fold.of
    return [dataset.rows(np.flatnonzero(part).tolist()) for part in (~test & ~valid, valid, test)]


def _deal(sizes: np.ndarray, fold: Fold) -> np.ndarray:
    """Fold of each group: in random order, each to the fold with the fewest clips so far."""
    order = seeds.generator(fold.repeat, "folds", fold.of).permutation(len(sizes))
    load, place = np.zeros(fold.of), np.zeros(len(sizes), dtype=int)
    for group in order:
        place[group] = load.argmin()
        load[place[group]] += sizes[group]
    return place
