"""What ``report`` renders where something has changed: a target's tables, or those of all papers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from harness.commands import costs, drawing
from harness.commands.rendering import Renderer, spare_cores
from harness.commands.reporting import say_page
from harness.commands.running import Planned, planned, settle, show
from harness.data.opening import base_name
from harness.errors import HarnessError
from harness.experiments import cost_tables, figure_items, papers
from harness.experiments.cost_tables import CostSpec
from harness.experiments.figure_items import FigureSpec
from harness.experiments.plan import Effort
from harness.experiments.workspace import Workspace
from harness.reporting.figures.style import parse_formats
from harness.reporting.page.document import TablePart


@dataclass(frozen=True)
class _Report:
    """What was asked for, and where it goes."""

    data: str
    effort: Effort
    methods: str
    tuned_root: Path | None
    renderer: Renderer
    console: Console

    def tables(self, target: str) -> list[TablePart]:
        found = planned(target, self.data, self.effort, self.methods, self.console, self.tuned_root)
        return [part for table in found for part in self._show(table)]

    def costs(self, specs: Sequence[CostSpec]) -> list[TablePart]:
        return [costs.table(spec, self.data, self.effort, self.renderer, self.console, measure=False) for spec in specs]

    def figures(self, specs: Sequence[FigureSpec]) -> None:
        for spec in specs:
            for _ in drawing.item(spec, self.data, self.effort, self.renderer, self.console, None):
                pass

    def _show(self, table: Planned) -> tuple[TablePart, ...]:
        return show(table, self.effort, self.renderer, self.console)

    def left_out(self, what: str, error: HarnessError) -> None:
        self.console.print(f"{what} is left out: {error.problem}", style="yellow", highlight=False, markup=False, soft_wrap=True)


def report(target: str, data: str, effort: Effort, seeds: str, methods: str, tuned_too: bool = False, figures: str = "svg") -> list[str]:
    """Render the tables of ``target`` (empty: of all papers), those of costs, and the page, from the records that exist.

    Returns the names of the tables' parts. A paper that cannot be rendered is an error where it is the
    target; among all papers it is left out, and that is said.
    """
    console, workspace = Console(), Workspace.default()
    renderer = Renderer(workspace, parse_formats(figures), spare_cores())
    asked = _Report(data, settle(effort, seeds), methods, workspace.root if tuned_too else None, renderer, console)
    with closing(renderer.figures):
        parts = _of_target(asked, target) if target else _of_all_papers(asked)
        say_page(renderer.page(), console)
    return [part.name for part in parts]


def _of_target(asked: _Report, target: str) -> list[TablePart]:
    cost_specs = cost_tables.of(target)
    costs.refuse_other_data(cost_specs, asked.data)
    tables = [] if cost_tables.is_item(target) or figure_items.is_item(target) else asked.tables(target)
    found = [*tables, *asked.costs(cost_specs)]
    asked.figures(figure_items.of(target))
    return found


def _of_all_papers(asked: _Report) -> list[TablePart]:
    """Raises the first paper's error where none of them can be rendered."""
    parts: list[TablePart] = []
    errors: list[HarnessError] = []
    for paper in dict.fromkeys(paper for paper, _ in papers.items()):
        try:
            parts += asked.tables(paper)
        except HarnessError as error:
            errors.append(error)
            asked.left_out(paper, error)
    if errors and not parts:
        raise errors[0]
    for place in cost_tables.items():
        (spec,) = cost_tables.of("/".join(place))
        if asked.data and base_name(asked.data) != spec.dataset:
            continue
        try:
            parts += asked.costs([spec])
        except HarnessError as error:
            asked.left_out(spec.name, error)
    for place in figure_items.items():
        asked.figures(figure_items.of("/".join(place)))
    return parts
