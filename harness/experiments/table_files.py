"""Where table files lie: ``reports/<paper>/<item>.toml`` of the working folder and of the project."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, get_args

from harness.errors import ConfigError

Kind = Literal["scores", "cost", "figure"]
KINDS: tuple[Kind, ...] = get_args(Kind)


def roots() -> list[Path]:
    """The folders that hold tables: ``./reports``, then the papers' own, in the installed package or in the source checkout.

    Raises ConfigError where none of them holds any.
    """
    package = Path(__file__).parents[1]
    found = [place for place in (Path("reports"), package / "_reports", package.parent / "reports") if any(place.glob("*/*.toml"))]
    if not found:
        raise ConfigError("no table files were found (looked for reports/<paper>/<item>.toml)", "Run from the project's root folder.")
    return found


def files(kind: Kind = "scores") -> dict[tuple[str, str], Path]:
    """(paper, item) -> its file, sorted; of two files of one name the working folder's counts. ``kind``: which tables, or figures."""
    found = {(path.parent.name, path.stem): path for root in reversed(roots()) for path in root.glob("*/*.toml")}
    return {place: path for place, path in sorted(found.items()) if kind_of(path) == kind}


def kind_of(path: Path) -> str:
    """``cost`` or ``figure`` by the file's line ``kind = "cost"``; ``scores`` for every other table."""
    try:
        found = re.search(r'^kind *= *"(cost|figure)" *$', path.read_text(encoding="utf-8"), re.MULTILINE)
    except (OSError, UnicodeDecodeError):
        return "scores"
    return found[1] if found else "scores"
