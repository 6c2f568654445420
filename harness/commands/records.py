"""``records``: those of several machines united, and checked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from harness.errors import Stopped
from harness.experiments.merging import Merged, merge, store_of
from harness.experiments.verifying import faults
from harness.experiments.workspace import Workspace


def merge_records(folders: Sequence[Path], into: Path | None) -> None:
    """Copy the records of ``folders`` into a results folder. Exit code 1 where some are damaged or in conflict."""
    workspace = Workspace(into.resolve()) if into else Workspace.default()
    sources = [store_of(folder) for folder in folders]
    try:
        with workspace.writing() as reserve:
            merged = merge(sources, workspace.store, reserve.protect)
    except KeyboardInterrupt:
        raise Stopped("stopped; what was merged is kept", "The same command continues where this one stopped.") from None
    _say("\n".join(_lines(merged, workspace)))
    if not merged.sound:
        raise SystemExit(1)


def verify_records(folder: Path | None) -> None:
    """Check every record of a results folder. Exit code 1 where one is not what it says."""
    store = store_of(folder or Workspace.default().root)
    keys, bad = store.keys(), 0
    for key in keys:
        found = faults(store, key)
        bad += bool(found)
        for fault in found:
            _say(fault)
    _say(f"{len(keys)} records in {store.root}: {len(keys) - bad} sound, {bad} not; {len(store.failed())} trials failed.")
    if bad:
        raise SystemExit(1)


def _lines(merged: Merged, workspace: Workspace) -> list[str]:
    lines = [f"damaged, left out: {text}" for text in merged.damaged]
    for conflict in merged.conflicts:
        lines.append(f"conflict, left as it was: {conflict.key}")
        lines += [f"    {place}" for place in conflict.places]
        lines += [f"    {difference}" for difference in conflict.differences or ("predictions or losses differ",)]
    lines += [f"the damaged record of {key} was set aside, a sound one took its place" for key in merged.replaced]
    counts = f"{len(merged.added)} records added, {len(merged.known)} there before, {len(merged.failures)} failures added"
    return [*lines, f"{workspace.store.root}: {counts}, {len(merged.conflicts)} in conflict, {len(merged.damaged)} damaged."]


def _say(text: str) -> None:
    Console().print(text, highlight=False, markup=False, soft_wrap=True)
