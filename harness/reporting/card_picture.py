"""A data card as a picture: clips, labels and lengths of every split, and what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.data.schema import Dataset
from harness.errors import ConfigError
from harness.reporting.card_counts import Bars, labels, lengths, missing, sizes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}  # without the time, twice gives the same bytes
COLOURS = {
    "train": "#0072b2", "valid": "#e69f00", "test": "#009e73", "clips": "#555555", "groups": "#bbbbbb",
}  # told apart by the colour-blind (Okabe, Ito 2008)  # fmt: skip
COLUMNS, WIDTH, HEIGHT = 2, 5.0, 2.8  # panels in a row; inches of a panel
MOST_LABELLED = 12  # bars of a panel that carry their number


def write_picture(dataset: Dataset, path: Path) -> None:
    """Draw the card of ``dataset`` to ``path``: .png, .svg or .pdf. The same card gives the same bytes.

    ConfigError for another ending, a place that cannot be written, or where matplotlib is not installed.
    """
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"--picture {path} ends in '{path.suffix}'", f"Allowed: {', '.join(FORMATS)}.")
    with _settings():
        picture = draw(dataset)
        try:
            picture.savefig(path, format=path.suffix.lower()[1:], dpi=150, metadata=FORMATS[path.suffix.lower()])
        except OSError as error:
            raise ConfigError(
                f"{path} could not be written: {error}", "Name a file in a folder that is there and may be written."
            ) from error


def draw(dataset: Dataset) -> Figure:
    """The picture: a panel of bars for each of harness.reporting.card_counts; each bar's height is its count."""
    from matplotlib.figure import Figure

    panels = [bars for bars in [sizes(dataset), labels(dataset), *lengths(dataset), missing(dataset)] if bars.names]
    rows = -(-len(panels) // COLUMNS)
    figure = Figure(figsize=(COLUMNS * WIDTH, rows * HEIGHT), layout="constrained")
    axes = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for place, bars in zip(axes, panels, strict=False):
        _panel(place, bars)
    for place in axes[len(panels) :]:
        place.set_axis_off()
    kind = "SIMULATED, no real clip" if dataset.card.simulated else "real data"
    figure.suptitle(f"{dataset.card.title} ({dataset.card.name}): {kind}")
    return figure


def _panel(place: Axes, bars: Bars) -> None:
    thick = 0.8 / len(bars.counts)
    middle = np.arange(len(bars.names))
    for number, (name, counts) in enumerate(bars.counts.items()):
        shift = (number - (len(bars.counts) - 1) / 2) * thick
        drawn = place.bar(middle + shift, counts, thick, label=name, color=COLOURS[name])
        if len(bars.names) * len(bars.counts) <= MOST_LABELLED:
            place.bar_label(drawn, fontsize=7)
    place.set_title(bars.title, fontsize=10)
    turn: dict[str, Any] = {"rotation": 45, "ha": "right"} if sum(map(len, bars.names)) > 40 else {}
    place.set_xticks(middle, bars.names, fontsize=8, **turn)
    place.set_ylim(0, max(1, *map(max, bars.counts.values())) * 1.15)
    place.spines[["top", "right"]].set_visible(False)
    if len(bars.counts) > 1:
        place.legend(fontsize=8, frameon=False)


def _settings() -> Any:
    """matplotlib's settings while drawing: names are no formulas, and names inside an .svg depend on nothing but the drawing."""
    try:
        import matplotlib
    except ImportError as error:
        raise ConfigError("the package 'matplotlib' is not installed", 'Install it with: pip install "mer-harness[figures]"') from error
    return matplotlib.rc_context({"text.parse_math": False, "svg.hashsalt": "card", "svg.fonttype": "path"})
