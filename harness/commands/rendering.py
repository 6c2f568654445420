"""Tables, their figures and the page on disk; what has not changed is not made again."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from harness.data.schema import Card
from harness.errors import ConfigError
from harness.experiments.papers import TableSpec
from harness.experiments.trials import Trial
from harness.experiments.workspace import Workspace
from harness.reporting import cost_tables, describe_costs, memory
from harness.reporting.cost_tables import CostTable
from harness.reporting.describe import Places, alone, describe_all, describe_audit
from harness.reporting.figures import of_tables
from harness.reporting.figures.drawing import FigureFiles
from harness.reporting.links import mlflow_pages
from harness.reporting.memory import NUMBERS, OUTCOMES
from harness.reporting.page import compose, document, freshness
from harness.reporting.page.document import FigureItemPart, FigurePart, PaperPart, TablePart
from harness.reporting.tables import render, stem
from harness.reporting.texts import Told
from harness.training.settings import Budget


def spare_cores() -> int:
    """Processes that may draw figures while this one computes: as many as it has cores, none where it has one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores if cores > 1 else 0


@contextmanager
def without_collections() -> Iterator[None]:
    """No search for garbage: hundreds of thousands of numbers and texts are held at a time, and next to nothing refers to itself."""
    seeking = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if seeking:
            gc.enable()


@dataclass
class Renderer:
    """Renders tables into the results folder. ``formats`` of figures; empty: none are drawn.

    ``workers``: processes that draw figures beside this one. With any of them, figures are there once ``page`` or ``finish``
    has returned, and ``finish`` has to be called whatever happens.
    """

    workspace: Workspace
    formats: tuple[str, ...] = ("svg",)
    workers: int = 0
    figures: FigureFiles = field(init=False)
    _pages: dict[str, str] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.figures = FigureFiles(self.workspace.root, self.formats, freshness.code(), self.workers)

    @property
    def folder(self) -> Path:
        return document.folder(self.workspace.root)

    @without_collections()
    def table(self, spec: TableSpec, card: Card, budget: Budget, plan: Mapping[str, Sequence[Trial]]) -> tuple[TablePart, ...]:
        """The table on disk in all its forms; as it is where neither its records, its file, the data nor the code have changed.

        One part per protocol; the first one has the text for the console.
        """
        keys = [trial.key for trials in plan.values() for trial in trials]
        pages = {key: self.pages[key] for key in keys if key in self.pages}
        records = freshness.states(freshness.record_files(self.workspace.store.root, keys))
        made_from = (spec.model_dump(mode="json"), card.model_dump(mode="json"), budget.name, {row: len(plan[row]) for row in plan}, keys)
        content = freshness.digest(freshness.code(), made_from, records, pages, self.formats)
        stored = self._stored(spec, card)
        if len(stored) == len(spec.protocol) and all(part.content == content and all(self._there(part)) for part in stored):
            return tuple(stored)
        parts = self._render(spec, card, budget, plan, Places(self.workspace.store, pages))
        parts = tuple(part.model_copy(update={"content": content}) for part in parts)
        for part in parts:
            document.write(self._place(part), part)
        for old in stored:
            if old.block > len(parts):  # of a protocol that the table's file no longer has
                self._place(old).unlink(missing_ok=True)
        return parts

    def costs(self, table: CostTable, plan: Mapping[str, Sequence[Trial]]) -> TablePart:
        """A table of costs on disk in all its forms, with its score-against-cost figure where runs were recorded."""
        rendered = cost_tables.render(table, self.workspace.tables)
        files = [str(path.relative_to(self.workspace.root)) for path in rendered.paths]
        part = describe_costs.describe(table, plan, Places(self.workspace.store, self.pages), files)
        drawn, why = self.draw(of_tables.of_costs(table), part.name)
        part = part.model_copy(update={"console": rendered.console, "figures": drawn, "no_figures": why})
        document.write(self._place(part), part)
        return part

    def stored_item(self, part: FigureItemPart, content: str) -> FigureItemPart | None:
        """The figure as it was drawn before from ``content``; None where it was not, or its files are gone."""
        stored = document.read(self._item_place(part), FigureItemPart)
        return stored if stored and stored.content == content and all(self._figures_there(stored.figures)) else None

    def store_item(self, part: FigureItemPart) -> None:
        document.write(self._item_place(part), part)

    def _item_place(self, part: FigureItemPart) -> Path:
        return self.folder / "figures" / f"{part.name}.json"

    @without_collections()
    def page(self) -> Path:
        """Write ``index.html`` from all tables that were rendered, the figures over several of them, and the papers' figures.

        Waits for all figures.
        """
        tables = document.read_all(self.workspace.root)
        more = {
            paper: self._paper(paper, [table for table in tables if table.paper == paper]) for paper in {table.paper for table in tables}
        }
        self.figures.finish()
        return compose.write(self.workspace.root, tables, document.with_items(more, self.workspace.root))

    @property
    def pages(self) -> dict[str, str]:
        if self._pages is None:
            self._pages = mlflow_pages(self.workspace.tracking_uri)
        return self._pages

    def _stored(self, spec: TableSpec, card: Card) -> list[TablePart]:
        """The parts of earlier renderings, by protocol."""
        paths = [self.folder / f"{stem(spec, card)}.json", *self.folder.glob(f"{stem(spec, card)}--*.json")]
        found = (document.read(path, TablePart) for path in paths)
        return sorted((part for part in found if part is not None), key=lambda part: part.block)

    def _place(self, part: TablePart) -> Path:
        return self.folder / f"{part.name}.json"

    def _render(
        self, spec: TableSpec, card: Card, budget: Budget, plan: Mapping[str, Sequence[Trial]], places: Places
    ) -> tuple[TablePart, ...]:
        tests, scores = (self.folder / kind / f"{stem(spec, card)}.json" for kind in ("tests", "scores"))
        outcomes, known = memory.load(tests, freshness.code(), OUTCOMES), memory.load(scores, freshness.code(), NUMBERS)
        rendered = render(spec, card, budget, plan, self.workspace.store, self.workspace.tables, memory=outcomes, known=known)
        files = [str(path.relative_to(self.workspace.root)) for path in rendered.paths]
        first, *others = map(self._with_figures, describe_all(rendered.told, plan, places, files), alone(rendered.told))
        memory.save(tests, freshness.code(), OUTCOMES, outcomes)
        memory.save(scores, freshness.code(), NUMBERS, known)
        return first.model_copy(update={"console": rendered.console}), *others

    def _with_figures(self, part: TablePart, told: Told) -> TablePart:
        drawn, why = self.draw(of_tables.of_table(told), part.name)
        return part.model_copy(update={"figures": drawn, "no_figures": why})

    def draw(self, figures: Iterable[of_tables.Drawn], name: str) -> tuple[tuple[FigurePart, ...], str]:
        """The figures' files, and why there are none, if so."""
        if not self.formats:
            return (), ""
        try:
            return tuple(self._save(drawn, name) for drawn in figures), ""
        except ConfigError as error:
            return (), f"No figures: {error.problem}. {error.fix}"

    def _save(self, drawn: of_tables.Drawn, name: str) -> FigurePart:
        place = f"figures/{name}_{drawn.kind}"
        self.figures.want(place, drawn.drawing)
        return FigurePart(stem=place, title=drawn.title, text=drawn.text, formats=self.formats)

    def _paper(self, paper: str, tables: Sequence[TablePart]) -> PaperPart:
        path = self.folder / "papers" / f"{paper}.json"
        content = freshness.digest(freshness.code(), [table.content for table in tables], self.formats)
        stored = document.read(path, PaperPart)
        if stored is not None and stored.content == content and all(self._figures_there(stored.figures)):
            return stored
        drawn, _ = self.draw(of_tables.of_paper(tables), paper)
        part = PaperPart(content=content, figures=drawn, audit=describe_audit(paper))
        document.write(path, part)
        return part

    def _there(self, part: TablePart) -> Iterator[bool]:
        yield from ((self.workspace.root / file).is_file() for file in part.files)
        yield from self._figures_there(part.figures)

    def _figures_there(self, figures: Sequence[FigurePart]) -> Iterator[bool]:
        yield from ((self.workspace.root / f"{figure.stem}.{kind}").is_file() for figure in figures for kind in figure.formats)
