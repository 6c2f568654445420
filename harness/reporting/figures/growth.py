"""Figure of how an epoch's time grows with the number of clips and with their length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from harness.reporting.figures.style import COLOURS, LIGHT, MARKERS, panels, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curves = Mapping[str, Sequence[tuple[float, float]]]  # by method: size, seconds


def growth(parts: Mapping[str, Curves], simulated: bool = False) -> Figure:
    """A panel per kind of size (its axis label): a line per method over logarithmic axes, where a power of the size is straight."""
    from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

    with styled():
        figure, axes = panels(len(parts), 2, 3.4, 2.8, simulated, sharey=True)
        for place, (label, curves) in zip(axes, parts.items(), strict=True):
            for number, (name, points) in enumerate(curves.items()):
                x, y = zip(*points, strict=True)
                colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
                place.plot(x, y, color=colour, marker=marker, markersize=4, linewidth=1.2, label=name)
            place.set(xscale="log", yscale="log", xlabel=label)
            sizes = sorted({size for points in curves.values() for size, _ in points})
            place.xaxis.set_major_locator(FixedLocator(sizes))
            place.xaxis.set_minor_locator(NullLocator())
            place.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
            place.grid(color=LIGHT, linewidth=0.5)
        axes[0].set_ylabel("seconds per epoch")
        axes[0].legend(fontsize=8)
    return figure
