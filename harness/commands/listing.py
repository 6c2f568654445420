"""``list``: methods, data sets, tables; from the index where it speaks of the files that are there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from harness.commands import index
from harness.errors import ConfigError
from harness.registry import suggest

KINDS = ("methods", "datasets", "tables")
HEAD = "kind, modalities that will do, trainable parameters at MOSI's preset and 768/5/20 inputs, reference"


def list_things(what: str, verbose: bool) -> None:
    """Print what there is of one kind."""
    if what not in KINDS:
        raise ConfigError(f"`list {what}` is not known", suggest(what, KINDS))
    entries = None if verbose else index.entries(what)
    if entries is None:
        from harness.commands import inventories

        entries = inventories.ENTRIES[what](verbose)
    console = Console()
    if what == "methods":
        console.print(HEAD, style="dim")
    for line in _with_stored(entries, index.data_root()) if what == "datasets" else [line for line, *_ in entries]:
        style = "yellow" if line.startswith("!") else None
        console.print(line, style=style, highlight=False, markup=False, soft_wrap=True)


def _with_stored(entries: Sequence[Sequence[str]], root: Path) -> list[str]:
    stored = index.stored(root)
    mine = {name: ", ".join(entry for entry in stored if entry.partition("@")[0] == name) for name, *_ in entries}
    return [f"{name:12} {title:24} stored: {mine[name] or nothing}" for name, title, nothing in entries]
