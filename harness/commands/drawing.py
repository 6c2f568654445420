"""Figures of papers: drawn from records, or from a run that is trained again for them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from harness.commands.executing import Running
from harness.commands.inside import compared, figures
from harness.commands.rendering import Renderer
from harness.commands.running import Planned, execute, planned
from harness.data.store import data_root
from harness.errors import HarnessError
from harness.experiments import figure_items
from harness.experiments.figure_items import FigureSpec
from harness.experiments.inside import Inside, Look
from harness.experiments.plan import Effort
from harness.experiments.trials import Trial
from harness.experiments.worker import run_trial
from harness.reporting.blocks import plan_under
from harness.reporting.collect import collect
from harness.reporting.figures.of_tables import confusion_of
from harness.reporting.page import freshness
from harness.reporting.page.document import FigureItemPart

KINDS = {
    "features": ("tsne", "pca"),
    "gates": ("gates",),
    "spatial": ("spatial-maps",),
    "temporal": ("temporal-maps",),
    "splines": ("splines",),
}


def item(
    spec: FigureSpec, data: str, effort: Effort, renderer: Renderer, console: Console, running: Running | None
) -> Iterator[FigureItemPart]:
    """Draw ``spec`` on every data set of its tables that is there, and store the page's parts.

    With ``running``, what it lacks is run, or trained again; without, what cannot be drawn from records is told in its part.
    """
    for table in _tables(spec, data, effort, console):
        part = _part(spec, table)
        trials = plan_under(table.plan, table.spec.protocol[0]).get(spec.row, [])
        if not trials:
            part = part.model_copy(update={"missing": f"{table.card.name} has {', '.join(table.card.modalities)} only"})
        elif spec.trains:
            part = _inside(spec, table, trials[0], part, renderer, console, running is not None)
        else:
            part = _from_records(spec, table, trials, part, renderer, console, running)
        renderer.store_item(part)
        _say(part, renderer, console)
        yield part


def _tables(spec: FigureSpec, data: str, effort: Effort, console: Console) -> Iterator[Planned]:
    """One table for each data set, with the trials of its rows; a table whose data sets are not there is left out, and that is said."""
    for table, datasets in figure_items.tables_of(spec):
        row = table.row(spec.row)
        try:
            found = planned(table.name, data, effort, row.method or "" if row else "", console, None)
        except HarnessError as error:
            console.print(f"{spec.name} is left out: {error.problem}", style="yellow", highlight=False, markup=False, soft_wrap=True)
            continue
        yield from (one for one in found if one.card.dataset in datasets)


def _part(spec: FigureSpec, table: Planned) -> FigureItemPart:
    card = table.card
    return FigureItemPart(
        paper=spec.paper,
        item=spec.item,
        title=spec.title,
        caption=spec.caption,
        citation=spec.citation,
        dataset=card.dataset,
        data=card.name,
        data_title=card.title,
        simulated=card.simulated,
        findings=tuple(finding.text for finding in spec.findings),
    )


def _from_records(
    spec: FigureSpec,
    table: Planned,
    trials: Sequence[Trial],
    part: FigureItemPart,
    renderer: Renderer,
    console: Console,
    running: Running | None,
) -> FigureItemPart:
    workspace = renderer.workspace
    if running:
        execute(trials, f"{spec.name} {table.card.name}", workspace, running, console)
    own = collect(table.spec.metrics, table.card, {spec.row: trials}, workspace.store)[spec.row]
    missing = "" if own.complete else f"{own.finished} of {len(own.expected)} runs finished; `harness reproduce {spec.name}` makes the rest"
    said = f"{spec.row} of {table.spec.name}, {table.spec.protocol[0].described}: {own.finished} run{'' if own.finished == 1 else 's'}."
    drawn, why = renderer.draw(confusion_of(table.card, {spec.row: own}), part.name) if own.finished else ((), "")
    return part.model_copy(update={"figures": drawn, "missing": why or missing, "drawn_from": said})


def _inside(
    spec: FigureSpec, table: Planned, trial: Trial, part: FigureItemPart, renderer: Renderer, console: Console, train: bool
) -> FigureItemPart:
    """As it was drawn before, where neither the trial nor the drawing code has changed; else trained again, if that is asked for."""
    content = freshness.digest(freshness.code(), trial.key, renderer.formats)
    stored = renderer.stored_item(part, content)
    if stored is not None:
        return stored
    said = f"{spec.row} of {table.spec.name}, {trial.label}."
    if not train:
        missing = f"not drawn yet: `harness reproduce {spec.name}` trains {said.removesuffix('.')} again for it"
        return part.model_copy(update={"missing": missing})
    try:
        inside, note = _trained(trial, renderer)
    except Exception as error:  # a method may fail in any way: that is a hole in the page, not the end of the command
        return part.model_copy(update={"missing": f"{said} The run failed: {type(error).__name__}: {error}"})
    wanted = (one for one in figures(inside, table.card) if one.kind.startswith(KINDS[spec.shows]))
    drawn, why = renderer.draw(wanted, part.name)
    missing = why or ("" if drawn else f"{spec.row} shows no {spec.shows}")
    return part.model_copy(update={"content": content, "figures": drawn, "missing": missing, "drawn_from": f"{said} {note}"})


def _trained(trial: Trial, renderer: Renderer) -> tuple[Inside, str]:
    """What the trial's model holds inside, and whether its predictions are those of the record."""
    with tempfile.TemporaryDirectory() as folder:
        look = Look(trial, data_root().resolve(), Path(folder) / "checkpoint.pt")
        finished = run_trial(look, lambda event: None)
    return look.found[0], compared(finished.record, renderer.workspace.store)  # type: ignore[union-attr]


def _say(part: FigureItemPart, renderer: Renderer, console: Console) -> None:
    files = [str(renderer.workspace.root / f"{one.stem}.{kind}") for one in part.figures for kind in one.formats]
    text = "; ".join(each for each in (part.missing, f"written: {', '.join(files)}" if files else "") if each)
    console.print(f"{part.paper}/{part.item} {part.data}: {text}", highlight=False, markup=False, soft_wrap=True)
