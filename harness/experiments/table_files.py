"""Where table files lie: ``reports/<paper>/<item>.toml`` of the working folder and of the project."""

from __future__ import annotations

import re
from pathlib import Path

from harness.errors import ConfigError


def roots() -> list[Path]:
    """The folders that hold tables: ``./reports``, then the papers' own, in the installed package or in the source checkout.

    Raises ConfigError where none of them holds any.
    """
    package = Path(__file__).parents[1]
    found = [place for place in (Path("reports"), package / "_reports", package.parent / "reports") if any(place.glob("*/*.toml"))]
    if not found:
        raise ConfigError("no table files were found (looked for reports/<paper>/<item>.toml)", "Run from the project's root folder.")
    return found


def files(costs: bool = False) -> dict[tuple[str, str], Path]:
    """(paper, item) -> its file, sorted; of two files of one name the working folder's counts. ``costs``: tables of costs instead."""
    found = {(path.parent.name, path.stem): path for root in reversed(roots()) for path in root.glob("*/*.toml")}
    return {place: path for place, path in sorted(found.items()) if is_cost(path) == costs}


def is_cost(path: Path) -> bool:
    """Whether the file is a table of costs: a line ``kind = "cost"``."""
    try:
        return re.search(r'^kind *= *"cost" *$', path.read_text(encoding="utf-8"), re.MULTILINE) is not None
    except (OSError, UnicodeDecodeError):
        return False
