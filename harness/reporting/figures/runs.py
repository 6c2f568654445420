"""Figures of runs: values per seed, learning curves, scores over missing rates or input weights, scores against cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from harness.analysis.effects import t_interval
from harness.reporting.figures.style import ACCENT, COLOURS, INK, LIGHT, MAIN, MARKERS, SOFT, panels, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LETTER = 0.075  # inches, a wide letter of 9 points
MUCH = 8  # between costs: a logarithmic axis over less would have a tick or two


@dataclass(frozen=True)
class Strip:
    """One metric's values per model and run, as printed, and the published number of each model that has one."""

    label: str
    values: Mapping[str, Sequence[float]]
    published: Mapping[str, float]


@dataclass(frozen=True)
class Curve:
    """One run's losses per epoch, (E,) each, and the epoch (from 1) whose weights were kept."""

    train: Sequence[float]
    valid: Sequence[float]
    best_epoch: int


def strips(metrics: Sequence[Strip], simulated: bool = False) -> Figure:
    """A panel per metric: a dot per run, a bar at their mean, a diamond at the published number."""
    rows = list(dict.fromkeys(name for strip in metrics for name in strip.values))
    with styled():
        names = LETTER * max(map(len, rows), default=0)
        figure, axes = panels(len(metrics), 4, 2.3, 0.24 * len(rows) + 0.9, simulated, sharey=True, margin=names)
        for place, strip in zip(axes, metrics, strict=True):
            _strip(place, strip, rows)
            place.set_xlabel(strip.label)
            place.grid(axis="y", color=LIGHT, linewidth=0.5)
        for place in axes[:1]:  # of all, who share it
            place.set_yticks(range(len(rows)), rows)
            place.set_ylim(len(rows) - 0.5, -0.5)
    return figure


def learning_curves(runs: Mapping[str, Sequence[Curve]], simulated: bool = False) -> Figure:
    """A panel per model: validation loss of each run (line) with the kept epoch (dot), and its training loss (dashes)."""
    from matplotlib.ticker import MaxNLocator

    with styled():
        figure, axes = panels(len(runs), 4, 2.3, 1.9, simulated)
        for place, (name, curves) in zip(axes, runs.items(), strict=True):
            epochs = [range(1, len(curve.valid) + 1) for curve in curves]
            kept = [(one.best_epoch, one.valid[one.best_epoch - 1]) for one in curves if 0 < one.best_epoch <= len(one.valid)]
            place.plot(_with_gaps(epochs), _with_gaps([c.train for c in curves]), color=SOFT, linewidth=0.6, linestyle=(0, (3, 2)))
            place.plot(_with_gaps(epochs), _with_gaps([c.valid for c in curves]), color=MAIN, linewidth=0.9)
            if kept:
                place.plot(*zip(*kept, strict=True), "o", color=ACCENT, markersize=3)
            place.set(title=name, xlabel="epoch", ylabel="loss")
            place.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    return figure


def robustness(steps: ArrayLike, scores: Mapping[str, ArrayLike], xlabel: str, ylabel: str, simulated: bool = False) -> Figure:
    """Scores over ``steps`` (X,), such as missing rates: a line at the mean of the runs, scores (R, X), a band at its 95 % interval."""
    x = np.asarray(steps, dtype=np.float64)
    with styled():
        figure, (place,) = panels(1, 1, 5.0, 3.2, simulated)
        for number, (name, values) in enumerate(scores.items()):
            runs = np.atleast_2d(np.asarray(values, dtype=np.float64))
            colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
            place.plot(x, runs.mean(axis=0), color=colour, marker=marker, markersize=4, linewidth=1.2, label=name)
            if len(runs) > 1:
                low, high = np.array([t_interval(runs[:, i]) for i in range(len(x))]).T
                place.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
        place.set(xlabel=xlabel, ylabel=ylabel, xticks=x)
        place.legend(fontsize=8)
    return figure


def score_against_cost(points: Mapping[str, tuple[float, Sequence[float]]], xlabel: str, ylabel: str, simulated: bool = False) -> Figure:
    """A point per model: cost, mean score with the range of its runs. Costs are above 0; the axis is logarithmic where they differ
    much, eightfold."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    with styled():
        figure, (place,) = panels(1, 1, 5.0, 3.2, simulated)
        for number, (name, (cost, values)) in enumerate(points.items()):
            mean = float(np.mean(values))
            reach = [[mean - min(values)], [max(values) - mean]]
            place.errorbar(
                [cost], [mean], yerr=reach, fmt=MARKERS[number % len(MARKERS)], color=COLOURS[number % len(COLOURS)], markersize=5
            )
            place.annotate(name, (cost, mean), xytext=(5, 3), textcoords="offset points", fontsize=8)
        place.set(xlabel=xlabel, ylabel=ylabel)
        costs = [cost for cost, _ in points.values()]
        if max(costs) >= MUCH * min(costs):
            place.set_xscale("log")
            place.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            place.xaxis.set_minor_formatter(NullFormatter())
        place.xaxis.set_major_formatter(EngFormatter())
        place.margins(x=0.15, y=0.12)
    return figure


def _with_gaps(lines: Sequence[Sequence[float]]) -> list[float]:
    """All of ``lines`` as one, with a gap before each but the first: hundreds of them are then a single thing to draw."""
    return [value for i, line in enumerate(lines) for value in ((nan, *line) if i else line)]


def _strip(place: Axes, strip: Strip, rows: Sequence[str]) -> None:
    """All points of a kind together."""
    printed = [(strip.published[name], height) for height, name in enumerate(rows) if name in strip.published]
    known = [[value for value in strip.values.get(name, ()) if not isnan(value)] for name in rows]
    dots = [(value, height) for height, values in enumerate(known) for value in values]
    means = [(float(np.mean(values)), height) for height, values in enumerate(known) if values]
    if printed:
        place.plot(*zip(*printed, strict=True), "D", markersize=5, markerfacecolor="none", markeredgecolor=ACCENT)
    if dots:
        place.plot(*zip(*dots, strict=True), "o", color=MAIN, markersize=3.5, alpha=0.7, markeredgewidth=0)
        place.plot(*zip(*means, strict=True), "|", color=INK, markersize=11, markeredgewidth=1.4)
