"""Has anything changed since? States of files by size and time of change, of code by content; nothing heavy is imported."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from collections.abc import Iterable, Iterator
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

CODE = (".py", ".j2", ".css", ".js", ".toml")


def digest(*parts: Any) -> str:
    """A short hash of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def state(path: Path | str) -> tuple[int, int] | None:
    """Size and time of the last change; None for a file that is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def states(paths: Iterable[Path | str]) -> str:
    """One hash over the states of these files."""
    return digest([(str(path), state(path)) for path in paths])


def record_files(folder: Path, keys: Iterable[str]) -> Iterator[str]:
    """The files of the trials ``keys`` that a table is made from."""
    for key in keys:
        yield from (os.path.join(folder, key, name) for name in ("record.json", "failure.json", "runtime.json"))


def engine_files() -> list[Path]:
    """Every source file of the harness, and of the packages that methods are registered from; none is imported."""
    roots = {Path(__file__).parents[2]}
    for point in entry_points(group="harness.methods"):
        found = importlib.util.find_spec(point.module.partition(".")[0])
        roots |= {Path(place) for place in (found.submodule_search_locations or ())} if found else set()
    return sorted(path for root in roots for path in root.rglob("*") if path.suffix in CODE)


@lru_cache(maxsize=1)
def code() -> str:
    """A hash of what makes a table from records: reporting, analysis, and the modules that read files and score."""
    root = Path(__file__).parents[2]
    parts = (
        "reporting",
        "analysis",
        "experiments",
        "data/datasets",
        "training/metrics.py",
        "training/by_class.py",
        "commands/rendering.py",
    )
    files = [path for part in parts for path in ([root / part] if (root / part).is_file() else (root / part).rglob("*"))]
    chosen = sorted(path for path in files if path.suffix in CODE)
    return digest([(str(path.relative_to(root)), hashlib.sha256(path.read_bytes()).hexdigest()) for path in chosen])
