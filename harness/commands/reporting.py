"""``report``: tables and the page from records that exist. Where nothing has changed, PyTorch is not even imported."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from harness.files import results_root
from harness.reporting.page import compose, document, freshness
from harness.reporting.page.document import Part, TablePart

SETTINGS = ("MER_DATA", "MER_RESULTS", "MLFLOW_TRACKING_URI")
PACKAGES = ("torch", "numpy")  # other versions may count and time other costs


@dataclass(frozen=True)
class Asked:
    """The options of the command line."""

    target: str
    data: str
    budget: str
    seeds: str
    methods: str
    tuned: bool
    device: str
    figures: str


class Stamp(Part):
    """What a report was made from, and which tables' parts it made."""

    state: str
    parts: tuple[str, ...]


def report(asked: Asked) -> None:
    """Render what was asked for, or say what was rendered before where no record, code, table file or data set has changed."""
    root = results_root()
    path = document.folder(root) / "asked" / f"{freshness.digest(asdict(asked), _surroundings())}.json"
    stamp = document.read(path, Stamp)
    tables = document.read_all(root) if stamp else []
    shown = [table for table in tables if stamp and table.name in stamp.parts]
    if stamp and len(shown) == len(stamp.parts) and stamp.state == _state(root, shown):
        return _repeat(root, shown, tables)
    from harness.commands import gathering
    from harness.experiments.plan import Effort

    effort = Effort(budget=asked.budget, device=asked.device)
    names = gathering.report(asked.target, asked.data, effort, asked.seeds, asked.methods, asked.tuned, asked.figures)
    made = [table for table in document.read_all(root) if table.name in names]
    if not names:  # a figure alone: nothing would be watched
        return
    document.write(path, Stamp(state=_state(root, made), parts=tuple(names)))


def say_table(part: TablePart, root: Path, console: Console) -> None:
    """The table as text, and where its other forms lie; nothing for a later protocol, which the text of the first one includes."""
    if not part.console:
        return
    console.print(part.console, highlight=False, markup=False, soft_wrap=True)
    console.print("Written: " + ", ".join(str(root / file) for file in part.files), highlight=False, markup=False, soft_wrap=True)


def say_page(path: Path, console: Console) -> None:
    console.print(f"The page: {path}", highlight=False, markup=False, soft_wrap=True)


def _repeat(root: Path, shown: Sequence[TablePart], tables: Sequence[TablePart]) -> None:
    console = Console()
    for name in dict.fromkeys(table.data for table in shown if table.simulated):
        console.print(
            f"The inputs are SIMULATED ({name}): no number below says anything about real clips.", highlight=False, soft_wrap=True
        )
    for table in shown:
        say_table(table, root, console)
    console.print("Nothing has changed since these tables were rendered.", highlight=False)
    say_page(compose.write(root, tables, document.read_papers(root)), console)


def _surroundings() -> list[str | None]:
    return [*(os.environ.get(name) for name in SETTINGS), *map(version, PACKAGES)]


def _state(root: Path, parts: Sequence[TablePart]) -> str:
    return freshness.states(_watched(root, parts))


def _watched(root: Path, parts: Sequence[TablePart]) -> Iterator[Path | str]:
    """Every file that can change what a report says: code, tables' files, data cards, found settings, records, and what was written."""
    package = Path(__file__).parents[1]
    yield from freshness.engine_files()
    for place in (Path("reports"), package / "_reports", package.parent / "reports"):
        yield from sorted(place.glob("*/*.toml"))
    data = Path(os.environ.get("MER_DATA", "data"))
    yield from sorted([*data.glob("*/card.json"), *data.glob("datasets/*.toml")])
    yield from sorted([*(root / "tuned").glob("*.toml"), *(root / "costs").glob("*.json")])
    yield from sorted((root / "page" / "figures").glob("*.json"))
    keys = (run.key for part in parts for row in part.rows for run in row.runs)
    yield from freshness.record_files(root / "records", keys)
    for part in parts:
        yield from (root / file for file in part.files)
        yield from (root / f"{figure.stem}.{kind}" for figure in part.figures for kind in figure.formats)
