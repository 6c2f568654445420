"""Confusion matrices: what clips of each class were taken for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.reporting.figures.style import INK, panels, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BOUND = 3  # intensities are counted in the seven classes of Acc-7
BINS = tuple(f"{value:+d}" if value else "0" for value in range(-BOUND, BOUND + 1))


def count_classes(prediction: ArrayLike, truth: ArrayLike, classes: int) -> NDArray[np.int64]:
    """(C, C) clips by true class (row) and predicted class: scores (..., N, C), truth (N,); leading axes are added up."""
    guess = np.asarray(prediction).argmax(axis=-1)
    return _counted(guess, np.asarray(truth).astype(np.int64), classes)


def count_bins(prediction: ArrayLike, truth: ArrayLike) -> NDArray[np.int64]:
    """(7, 7) clips by rounded true and predicted intensity, clipped to ±3, halves to even as in Acc-7; predictions (..., N)."""
    guess, true = (np.rint(np.clip(np.asarray(values), -BOUND, BOUND)).astype(np.int64) + BOUND for values in (prediction, truth))
    return _counted(guess, true, 2 * BOUND + 1)


def confusion(counts: Mapping[str, ArrayLike], names: Sequence[str], simulated: bool = False) -> Figure:
    """One panel per model: the share of each true class that was predicted as each class, per cent, rows sum to 100.

    ``counts``: model -> (C, C) clips, true classes in rows. A class without clips has an empty row.
    """
    with styled():
        size = max(2.4, 0.42 * len(names) + 0.9)
        figure, axes = panels(len(counts), 3, size, size, simulated)
        for place, (model, matrix) in zip(axes, counts.items(), strict=True):
            _panel(place, model, np.asarray(matrix, dtype=np.float64), names)
    return figure


def _counted(guess: NDArray[np.int64], true: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    pairs = np.broadcast_to(true, guess.shape) * classes + guess
    return np.bincount(pairs.ravel(), minlength=classes**2).reshape(classes, classes)


def _panel(place: Axes, model: str, counts: NDArray[np.float64], names: Sequence[str]) -> None:
    totals = counts.sum(axis=1, keepdims=True)
    shares = 100 * np.divide(counts, totals, out=np.full_like(counts, np.nan), where=totals > 0)
    place.pcolormesh(np.ma.masked_invalid(shares), cmap="Blues", vmin=0, vmax=100, edgecolors="white", linewidth=0.5)
    for row, column in zip(*np.nonzero(counts), strict=True):
        dark = shares[row, column] > 55
        shown = f"{shares[row, column]:.0f}"
        text = place.text(column + 0.5, row + 0.5, shown, ha="center", va="center", fontsize=7, color="white" if dark else INK)
        text.set_in_layout(False)  # it lies inside its cell
    middles = np.arange(len(names)) + 0.5
    place.set_xticks(middles, names, rotation=45 if max(map(len, names)) > 3 else 0, fontsize=7)
    place.set_yticks(middles, names, fontsize=7)
    place.invert_yaxis()
    place.set_aspect("equal")
    place.tick_params(length=0)
    place.spines[:].set_visible(False)
    place.set_title(model, y=1)  # stated, it is not looked for in every layout
    place.set(xlabel="predicted", ylabel="true")
