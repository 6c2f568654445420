"""``reproduce --plan``: what would run, what exists, how long it takes; nothing is run."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console

from harness.commands.running import Planned, Running, planned, settle
from harness.experiments import cost_tables
from harness.experiments.estimates import Forecast, Kind, forecast, kinds_to_run, recorded_seconds
from harness.experiments.plan import Effort
from harness.experiments.records import RecordStore
from harness.experiments.workspace import Workspace
from harness.reporting.progress import duration


def show_plan(target: str, data: str, effort: Effort, seeds: str, methods: str, running: Running, tuned_too: bool = False) -> None:
    """Print, item by item and in all, the trials that ``reproduce`` with the same options would need."""
    console, workspace = Console(), Workspace.default()
    effort = settle(effort, seeds)
    for spec in cost_tables.of(target):
        said = f"{spec.name} (costs): no trials; {len(spec.rows)} rows to count and to time, where that was not done before"
        console.print(said, highlight=False, markup=False, soft_wrap=True)
    if cost_tables.is_item(target):
        return
    tables = planned(target, data, effort, methods, console, workspace.root if tuned_too else None)
    everything = [trial for table in tables for trials in table.plan.values() for trial in trials]
    seconds = recorded_seconds(workspace.store, kinds_to_run(everything, workspace.store))
    for table in tables:
        lines = _item(table, workspace.store, seconds, running)
        console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)
    whole = forecast(everything, workspace.store, seconds, running.retry_failed)
    said = f"In all, trials that several items share counted once: {_said(whole, running)}"
    console.print(f"\n{said}", highlight=False, markup=False, soft_wrap=True)


def _item(table: Planned, store: RecordStore, seconds: dict[Kind, float], running: Running) -> Iterator[str]:
    """What it is, its trials, and of which rows any are still to run."""
    schemes = "; ".join(scheme.described for scheme in table.spec.protocol)
    trials = [trial for row in table.plan.values() for trial in row]
    yield f"\n{table.spec.name} {table.card.name} ({table.spec.kind}; {schemes})"
    yield f"  {_said(forecast(trials, store, seconds, running.retry_failed), running)}"
    rows = {row: forecast(trials, store, seconds, running.retry_failed) for row, trials in table.plan.items()}
    waiting = [f"{row} {found.to_run}" for row, found in rows.items() if found.to_run]
    if waiting:
        yield f"  to run, by row: {', '.join(waiting)}"
    cited = [row.name for row in table.spec.rows if row.name not in table.plan]
    if cited:
        yield f"  cited only: {', '.join(cited)}"


def _said(found: Forecast, running: Running) -> str:
    failed = f", {found.failed} failed before (--retry-failed runs them again)" if found.failed else ""
    counts = f"{found.trials} trials: {found.recorded} recorded{failed}, {found.to_run} to run"
    return "; ".join([counts, *_times(found, running.count())])


def _times(found: Forecast, workers: int) -> Iterator[str]:
    known = found.to_run - len(found.unknown)
    if known:
        all_of_them = "" if not found.unknown else f" for {known} of them"
        yield f"about {duration(found.wall(workers))}{all_of_them} with {workers} worker{'s' if workers > 1 else ''}"
    if found.unknown:
        names = sorted({trial.identity.method for trial in found.unknown})
        yield f"time unknown for {len(found.unknown)} ({', '.join(names)}: no recorded trial on this data with this budget)"
