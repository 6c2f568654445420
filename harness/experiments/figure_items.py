"""Figures of a paper: ``reports/<paper>/<item>.toml`` with ``kind = "figure"``, drawn from the runs of one row of its tables.

``shows = "confusion"`` is drawn from records. What a model holds inside (``features``, ``gates``, ``spatial`` and ``temporal``
adjacency, ``splines``) is no record's: the row's first run is trained again for it.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from harness.data.schema import Frozen
from harness.errors import ConfigError
from harness.experiments import papers, toml_lines
from harness.experiments.item_files import Items
from harness.experiments.papers import Finding, TableSpec

Shows = Literal["confusion", "features", "gates", "spatial", "temporal", "splines"]


class FigureSpec(Frozen):
    """A figure; ``paper`` and ``item`` come from the file's place."""

    paper: str
    item: str
    kind: Literal["figure"]
    title: str = Field(min_length=1)
    caption: str = ""
    citation: str = ""
    source: str = ""
    shows: Shows
    tables: tuple[str, ...] = Field(min_length=1, description="items of this paper whose row it is drawn of")
    row: str = Field(min_length=1, description="name of the row, in each of these tables")
    datasets: tuple[str, ...] = Field((), description="empty: all data sets of these tables")
    findings: tuple[Finding, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.paper}/{self.item}"

    @property
    def trains(self) -> bool:
        """Whether a model has to be trained again for it."""
        return self.shows != "confusion"


def _keys(place: toml_lines.Place) -> list[str]:
    """The keys of the TOML table at ``place``."""
    kind: type[Frozen] = Finding if place else FigureSpec
    return [name for name in kind.model_fields if name not in ("paper", "item")]


_files = Items("figure", FigureSpec, _keys)
items, is_item, of, read = _files.items, _files.is_item, _files.of, _files.read


def tables_of(spec: FigureSpec) -> list[tuple[TableSpec, tuple[str, ...]]]:
    """The tables that it is drawn from, each with its data sets. ConfigError where one of them, its row or a data set is missing."""
    found = [papers.load(spec.paper, item) for item in spec.tables]
    for table in found:
        row = table.row(spec.row)
        if row is None or row.method is None:
            raise ConfigError(f"{spec.name}: {table.name} has no row '{spec.row}' with a method", "Mend `row` or `tables`.")
    known = {name for table in found for name in table.datasets}
    if unknown := set(spec.datasets) - known:
        raise ConfigError(
            f"{spec.name}: datasets {', '.join(sorted(unknown))}: none of {', '.join(spec.tables)} has them", "Mend `datasets`."
        )
    chosen = [(table, tuple(name for name in table.datasets if not spec.datasets or name in spec.datasets)) for table in found]
    return [(table, datasets) for table, datasets in chosen if datasets]
