"""``reproduce --plan``: what would run, what exists, how long it takes; nothing is run."""

from __future__ import annotations

from rich.console import Console

from harness.commands.executing import Running
from harness.commands.running import Planned, planned, settle
from harness.experiments import cost_tables, figure_items
from harness.experiments.estimates import survey
from harness.experiments.plan import Effort
from harness.experiments.workspace import Workspace
from harness.reporting.forecast import described, said


def show_plan(target: str, data: str, effort: Effort, seeds: str, methods: str, running: Running, tuned_too: bool = False) -> None:
    """Print, item by item and in all, the trials that ``reproduce`` with the same options would need."""
    console, workspace, workers = Console(), Workspace.default(), running.executor().workers
    effort = settle(effort, seeds)
    for spec in cost_tables.of(target):
        _say(f"{spec.name} (costs): no trials; {len(spec.rows)} rows to count and to time, where that was not done before", console)
    for figure in figure_items.of(target):
        how = "a model is trained again for it, once" if figure.trains else "from records"
        _say(f"{figure.name} (figure): {figure.title}, of {figure.row} in {', '.join(figure.tables)}; {how}", console)
    if cost_tables.is_item(target) or figure_items.is_item(target):
        return
    tables = planned(target, data, effort, methods, console, workspace.root if tuned_too else None)
    everything = [trial for table in tables for trials in table.plan.values() for trial in trials]
    known = survey(everything, workspace.store, running.retry_failed, bool(running.diagnose))
    for table in tables:
        _say(f"\n{described(_title(table), table.plan, known, workers)}", console)
        cited = [row.name for row in table.spec.rows if row.name not in table.plan]
        if cited:
            _say(f"  cited only: {', '.join(cited)}", console)
    _say(f"\nIn all, trials that several items share counted once: {said(everything, known, workers)}", console)


def _title(table: Planned) -> str:
    schemes = "; ".join(scheme.described for scheme in table.spec.protocol)
    return f"{table.spec.name} {table.card.name} ({table.spec.kind}; {schemes})"


def _say(text: str, console: Console) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
