"""The one style of all figures, and how they become files: PDF, SVG and PNG, the same bytes from the same figure."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError
from harness.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Told apart by the colour-blind (Okabe and Ito 2008), the lightest left out: it fades on paper. Shapes double them.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#000000")
MAIN, ACCENT = "#0072b2", "#d55e00"
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
INK, SOFT, LIGHT = "#1b1f24", "#6b7280", "#d5d9de"
SIMULATED = "SIMULATED DATA"
FORMATS = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {"Software": None}}  # a time would change the bytes
SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same on every machine
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "axes.edgecolor": SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "text.parse_math": False,  # names are no formulas
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text: a tenth of the size, and readable by machines
    "svg.hashsalt": "figure",
    "pdf.fonttype": 42,
}


def require() -> None:
    """ConfigError where matplotlib is not installed; it is not imported."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError("the package 'matplotlib' is not installed", 'Install it with: pip install "mer-harness[figures]"')


@contextmanager
def styled() -> Iterator[None]:
    """The style while figures are drawn and saved. ConfigError where matplotlib is not installed."""
    require()
    import matplotlib

    with matplotlib.rc_context(SETTINGS):
        yield


def panels(
    count: int, columns: int, width: float, height: float, simulated: bool = False, sharey: bool = False, margin: float = 0.0
) -> tuple[Figure, list[Axes]]:
    """A figure with ``count`` panels of this size in inches, at most ``columns`` in a row; what is left over is not drawn.

    ``simulated`` writes so on it; ``sharey``: all have one vertical axis; ``margin``: inches for what stands left of them.
    """
    from matplotlib.figure import Figure

    across = max(1, min(count, columns))
    rows = max(1, -(-count // across))
    figure = Figure(figsize=(across * width + margin, rows * height + (0.25 if simulated else 0)), layout="constrained")
    axes = list(figure.subplots(rows, across, squeeze=False, sharey=sharey).ravel())
    for unused in axes[count:]:
        unused.set_axis_off()
    if simulated:
        figure.suptitle(SIMULATED, color=ACCENT, fontsize=9, fontweight="bold", x=0.99, ha="right")
    return figure, axes[:count]


def encoded(figure: Figure, kind: str) -> bytes:
    """The figure as a file of the kind svg, pdf or png. Its layout is settled by the first call."""
    buffer = io.BytesIO()
    with styled():
        engine = figure.get_layout_engine()
        if engine is not None:
            engine.execute(figure)
            figure.set_layout_engine(None)  # to settle it again, or to draw it for that, takes as long as to write the file
        figure.savefig(buffer, format=kind, dpi=200, metadata=FORMATS[kind])
    return buffer.getvalue()


def save(figure: Figure, stem: Path, formats: Sequence[str] = tuple(FORMATS)) -> None:
    """Write ``stem`` with the endings ``formats``, each whole or not at all. OSError on a full disk."""
    for kind in formats:
        write_atomic(stem.with_name(f"{stem.name}.{kind}"), encoded(figure, kind))


def parse_formats(text: str) -> tuple[str, ...]:
    """``svg,pdf`` as endings, svg always among them; ``none``: no figures. ConfigError for another one."""
    wanted = [part.strip().lower().lstrip(".") for part in text.split(",") if part.strip()]
    if wanted == ["none"]:
        return ()
    for kind in wanted:
        if kind not in FORMATS:
            raise ConfigError(f"--figures {text}: '{kind}' is no format of figures", f"Allowed: {', '.join(FORMATS)}, or none.")
    return tuple(kind for kind in FORMATS if kind in wanted or kind == "svg")
