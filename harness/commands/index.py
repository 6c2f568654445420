"""What ``harness list`` says, kept beside the code, so that listing loads no library.

``index.json`` holds for methods, tables and data sets what is printed and a checksum of each file that it comes from. Where a
file has changed since, is new or is gone, the index is passed over and everything is looked up anew. ``python -m
harness.commands.index`` writes it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import TypedDict

from harness.errors import ConfigError
from harness.experiments.table_files import KINDS, files

FILE = Path(__file__).with_name("index.json")


class Listing(TypedDict):
    """``sources``: name of a file -> beginning of its SHA-256."""

    sources: dict[str, str]
    entries: list[list[str]]


def entries(what: str) -> list[list[str]] | None:
    """What is kept of ``what``, or None where the index does not speak of the files that are there."""
    try:
        kept: Listing = json.loads(FILE.read_bytes())[what]
        return kept["entries"] if kept["sources"] == sources(what) else None
    except (OSError, ValueError, KeyError, ConfigError):
        return None


def sources(what: str) -> dict[str, str]:
    """The files that ``what`` (methods, tables or datasets) is listed from, each with the beginning of its SHA-256."""
    found = {"methods": _methods, "tables": _tables, "datasets": _datasets}[what]()
    return {name: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for name, path in sorted(found)}


def stored(root: Path) -> list[str]:
    """Names of the data sets in the folder ``root``."""
    return sorted(path.parent.name for path in root.glob("[!.]*/card.json"))


def data_root() -> Path:
    """As ``harness.data.store.data_root``, which cannot be had without its libraries."""
    return Path(os.environ.get("MER_DATA") or "data")


def _methods() -> Iterator[tuple[str, Path]]:
    for point in entry_points(group="harness.methods"):
        spec = find_spec(point.module.partition(".")[0])
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            yield from ((f"{Path(folder).name}/{path.name}", path) for path in Path(folder).glob("*.py"))


def _tables() -> Iterator[tuple[str, Path]]:
    for kind in KINDS:
        yield from (("/".join(place), path) for place, path in files(kind).items())


def _datasets() -> Iterator[tuple[str, Path]]:
    yield from ((path.name, path) for path in (Path(__file__).parents[1] / "data" / "datasets").glob("*.toml"))
    yield from ((str(path), path) for path in (data_root() / "datasets").glob("*.toml"))


def main() -> None:
    """Write the index anew."""
    from harness.commands.inventories import ENTRIES

    content = {what: Listing(sources=sources(what), entries=find()) for what, find in ENTRIES.items()}
    FILE.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
