"""``data fetch``: what is public is downloaded, for the rest it is said where to get it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from harness.data.catalogue import Download, Facts, facts
from harness.data.fetch import fetch as fetch_file
from harness.data.store import data_root
from harness.errors import ConfigError
from harness.registry import suggest


def fetch(name: str, only: str) -> None:
    """Download the files of the data set ``name``, or one part of them, and say what to do next."""
    known, console = facts(name), Console()
    folder = data_root() / "downloads" / name
    chosen = _chosen(known, only)
    if chosen:
        _say(console, f"{known.title}: {_amount(chosen)} to {folder}; {known.licence}")
        if not only:
            _say(
                console,
                "One part alone: --only PART, of " + ", ".join(f"{part} ({_amount(files)})" for part, files in _parts(known).items()),
            )
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as progress:
            for download in chosen:
                task = progress.add_task(download.file, total=download.size)
                done = fetch_file(download, folder, lambda done, total, task=task: progress.update(task, completed=done, total=total))  # type: ignore[misc]
                _say(progress.console, f"{done.path}: verified by {done.verified}; sha256 {done.sha256}")
                progress.remove_task(task)
        _say(console, f"Import it: harness data import {name} {folder}")
    if known.obtain:
        _say(console, f"{'More' if chosen else f'{known.title} cannot be fetched without asking'}: {known.obtain}")
    if not chosen:
        _say(console, f"Then: harness data import {name} FILE...")


def _chosen(known: Facts, only: str) -> Sequence[Download]:
    parts = _parts(known)
    if not only:
        return known.downloads
    if only not in parts:
        raise ConfigError(f"{known.name} has no part '{only}' that could be fetched", suggest(only, parts))
    return parts[only]


def _parts(known: Facts) -> dict[str, list[Download]]:
    return {part: [file for file in known.downloads if file.part == part] for part in dict.fromkeys(file.part for file in known.downloads)}


def _amount(files: Sequence[Download]) -> str:
    known = sum(file.size or 0 for file in files)
    unknown = "" if all(file.size for file in files) else "more than "
    return f"{len(files)} files, {unknown}{known / 1e9:.1f} GB"


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
