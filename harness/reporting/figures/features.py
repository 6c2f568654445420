"""Figures of what models hold inside: gate weights, shared and specific features, adjacency maps, learned splines."""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.errors import DataError
from harness.reporting.figures.style import COLOURS, INK, MAIN, MARKERS, SOFT, panels, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PERPLEXITY = 30.0
MOST_DRAWN = 3_000  # points that stand in a file as shapes; more are one picture, which is smaller


def gate_boxes(weights: Mapping[str, Mapping[str, ArrayLike]], simulated: bool = False) -> Figure:
    """Box plots of gate weights: data set -> branch (shared, specific) -> weights (N,). Whiskers reach 1.5 quartile ranges."""
    with styled():
        figure, (place,) = panels(1, 1, 5.0, 3.0, simulated)
        branches = list(dict.fromkeys(name for gates in weights.values() for name in gates))
        for number, branch in enumerate(branches):
            there = [(at, np.asarray(gates[branch])) for at, gates in enumerate(weights.values()) if branch in gates]
            places = [at + (number - (len(branches) - 1) / 2) * 0.3 for at, _ in there]
            drawn = place.boxplot([values for _, values in there], positions=places, widths=0.24, patch_artist=True, label=branch, sym=".")
            for box in drawn["boxes"]:
                box.set(facecolor=COLOURS[number % len(COLOURS)], alpha=0.55, edgecolor=INK)
            for line in drawn["medians"]:
                line.set(color=INK, linewidth=1.4)
        place.set_xticks(range(len(weights)), list(weights))
        place.set(ylabel="gate weight")
        place.legend(fontsize=8)
    return figure


def embed(features: ArrayLike, how: Literal["t-SNE", "PCA"] = "t-SNE", seed: int = 0) -> NDArray[np.float64]:
    """(N, 2) from features (N, D), N > 2. PCA: the two directions of largest variance, the sign such that the largest loading is
    positive. t-SNE starts from PCA; perplexity 30, or a third of the clips where there are few (van der Maaten and Hinton 2008)."""
    x = np.asarray(features, dtype=np.float64)
    if x.ndim != 2 or len(x) < 3 or not np.isfinite(x).all():
        raise DataError(f"features of shape {x.shape}", "Give finite features (N, D) of at least 3 clips.")
    if how == "PCA":
        u, s, v = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
        sign = np.sign(v[:2][np.arange(len(v[:2])), np.abs(v[:2]).argmax(axis=1)])
        flat = u[:, :2] * s[:2] * sign
        return np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))
    from sklearn.manifold import TSNE

    model = TSNE(perplexity=min(PERPLEXITY, (len(x) - 1) / 3), init="pca", random_state=seed, n_jobs=1)
    return np.asarray(model.fit_transform(x), dtype=np.float64)


def feature_map(
    features: Mapping[str, ArrayLike], how: Literal["t-SNE", "PCA"] = "t-SNE", seed: int = 0, simulated: bool = False
) -> Figure:
    """All clips' features in one plane: name (shared text, specific audio) -> (N, D), the same D; a colour and a shape each."""
    parts = {name: np.asarray(values, dtype=np.float64) for name, values in features.items()}
    points = embed(np.concatenate(list(parts.values())), how, seed)
    bounds, many = np.cumsum([0, *(len(values) for values in parts.values())]), len(points) > MOST_DRAWN
    with styled():
        figure, (place,) = panels(1, 1, 4.6, 4.2, simulated)
        for number, name in enumerate(parts):
            part = points[bounds[number] : bounds[number + 1]]
            colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
            place.scatter(part[:, 0], part[:, 1], s=9, c=colour, marker=marker, linewidths=0, alpha=0.75, label=name, rasterized=many)
        place.set(xticks=[], yticks=[], xlabel=f"{how} 1", ylabel=f"{how} 2")
        place.legend(fontsize=7, markerscale=1.6, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def adjacency_maps(maps: Mapping[str, ArrayLike], simulated: bool = False) -> Figure:
    """A panel per layer: matrix (n, n), entry [i, j] weighs the way from i to j; one symmetric scale for all, 0 is white.

    A spatial map (n, n, n, n) of patches is drawn as n x n blocks: in block (row, column) the ways that lead to that patch.
    """
    drawn = {name: _blocks(np.asarray(values, dtype=np.float64)) for name, values in maps.items()}
    limit = max((float(np.abs(values).max()) for values in drawn.values()), default=1.0) or 1.0
    with styled():
        figure, axes = panels(len(drawn), 4, 2.3, 2.4, simulated)
        mesh = None
        for place, (name, values) in zip(axes, drawn.items(), strict=True):
            mesh = place.pcolormesh(values, cmap="PuOr_r", vmin=-limit, vmax=limit, rasterized=values.size > 10_000)
            place.set(title=name, aspect="equal", xticks=[], yticks=[])
            place.invert_yaxis()
        if mesh is not None:
            figure.colorbar(mesh, ax=axes, shrink=0.8)
    return figure


def spline_curves(x: ArrayLike, curves: Mapping[str, ArrayLike], simulated: bool = False) -> Figure:
    """Learned functions of a KAN: inputs x (P,), edge -> values (P,); a panel each, at most 16 are drawn."""
    shown = dict(list(curves.items())[:16])
    with styled():
        figure, axes = panels(len(shown), max(1, isqrt(len(shown))), 1.7, 1.4, simulated)
        for place, (name, values) in zip(axes, shown.items(), strict=True):
            place.plot(np.asarray(x), np.asarray(values), color=MAIN, linewidth=1.2)
            place.axhline(0, color=SOFT, linewidth=0.5)
            place.set_title(name, fontsize=8)
            place.tick_params(labelsize=7)
    return figure


def _blocks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, n) as it is; (n, n, n, n) [row, column, row', column'] as (n n', n n'): block (row', column') holds what leads there."""
    if values.ndim == 2:
        return values
    if values.ndim != 4:
        raise DataError(f"an adjacency map of shape {values.shape}", "Give (n, n), or (n, n, n, n) for patches.")
    n, m, to_n, to_m = values.shape
    return values.transpose(2, 0, 3, 1).reshape(to_n * n, to_m * m)
