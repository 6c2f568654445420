"""The critical-difference diagram: mean ranks of systems over data sets, bars over those that do not differ (Demsar 2006)."""

from __future__ import annotations

from math import isnan
from typing import TYPE_CHECKING

from harness.analysis.friedman import Diagram
from harness.reporting.figures.style import INK, SOFT, panels, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, LETTER = 6.0, 0.075  # inches: of the figure, of a letter
AXIS, STEP = 0.0, 0.5  # height of the axis of ranks, and of one line below it


def critical_difference_diagram(found: Diagram, simulated: bool = False) -> Figure:
    """Rank 1, the best, on the left. Each system hangs from its mean rank; a bar joins systems of which no two differ."""
    count = len(found.systems)
    half = (count + 1) // 2
    bars = [(min(ranks), max(ranks)) for clique in found.cliques if (ranks := [_rank(found, name) for name in clique])]
    depth = STEP * (len(bars) + half + 1)
    unit = LETTER * (count + 0.6) / WIDTH  # a letter in ranks
    reach = [unit * (len(name) + 6) for name in found.systems]
    left_end = min([0.6, *(rank - room for rank, room in zip(found.mean_ranks[:half], reach[:half], strict=True))])
    right_end = max([count + 0.4, *(rank + room for rank, room in zip(found.mean_ranks[half:], reach[half:], strict=True))])
    wide = WIDTH * (right_end - left_end + 0.8) / (count + 0.6)  # names get room of their own: a rank keeps its inches
    with styled():
        figure, (place,) = panels(1, 1, wide, 0.9 + 0.5 * depth, simulated)
        place.set(xlim=(left_end - 0.4, right_end + 0.4), ylim=(-depth, 1.2))
        place.axis("off")
        place.plot([1, count], [AXIS, AXIS], color=INK, linewidth=1, label="axis")
        for tick in range(1, count + 1):
            place.plot([tick, tick], [AXIS, AXIS + 0.12], color=INK, linewidth=1)
            place.text(tick, AXIS + 0.2, str(tick), ha="center", va="bottom", fontsize=8)
        for number, (low, high) in enumerate(bars):
            height = AXIS - STEP * (0.5 + number * 0.6)
            place.plot([low - 0.04, high + 0.04], [height, height], color=INK, linewidth=3, solid_capstyle="butt", label=f"clique {number}")
        for number, (name, rank) in enumerate(zip(found.systems, found.mean_ranks, strict=True)):
            left = number < half
            line = -(number if left else count - 1 - number) * STEP - STEP * (len(bars) * 0.6 + 1)
            end = left_end if left else right_end
            place.plot([rank, rank, end], [AXIS, line, line], color=SOFT, linewidth=0.8, label=name)
            place.text(end, line, f"{name} {rank:.2f} " if not left else f" {name} {rank:.2f}", ha="left" if left else "right", va="bottom")
        place.set_title(_heading(found), fontsize=9, loc="left")
    return figure


def _rank(found: Diagram, name: str) -> float:
    return found.mean_ranks[found.systems.index(name)]


def _heading(found: Diagram) -> str:
    p = "< 0.001" if found.friedman.p < 0.001 else f"= {found.friedman.p:.3f}"
    test = f"Friedman p {p} over {found.friedman.datasets} data sets; {found.post_hoc}, alpha = {found.alpha:g}"
    return test if isnan(found.critical_difference) else f"{test}, critical difference {found.critical_difference:.2f}"
