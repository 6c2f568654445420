"""What is said at the end of a run: what became of the trials, where everything lies, which command opens it."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate

from harness.experiments.records import Further, RecordStore
from harness.experiments.runner import Outcome
from harness.experiments.trials import Trial
from harness.experiments.workspace import Workspace


def closing(outcome: Outcome, workspace: Workspace) -> str:
    """The closing summary."""
    pending = len(list(workspace.pending.glob("*.json")))
    lines = [
        f"{len(outcome.finished)} trials run, {len(outcome.reused)} reused, {len(outcome.failed)} failed.",
        f"  records   {workspace.store.root}",
        *([f"  tables    {workspace.tables}"] if workspace.tables.exists() else []),
        f"  MLflow    {_mlflow(workspace.tracking_uri)}",
    ]
    if outcome.failed:
        lines += [f"  failed    {workspace.store.folder(key)}/failure.json" for key in outcome.failed]
        lines.append("  The same command with --retry-failed runs them again.")
    if outcome.undiagnosed:
        lines.append(f"  {len(outcome.undiagnosed)} trials could not be diagnosed: {', '.join(outcome.undiagnosed)}")
    if pending:
        lines.append(f"  {pending} runs are not in MLflow yet: harness track")
    return "\n".join(lines)


def _mlflow(uri: str) -> str:
    """A server's pages are where it is; a database needs one to be started."""
    return uri if uri.startswith("http") else f"mlflow ui --backend-store-uri {uri}   (or: nox -s ui)"


def scores(trials: Sequence[Trial], store: RecordStore) -> str:
    """Test scores by trial, for one method's runs."""
    rows = []
    for trial in trials:
        if trial.key in store:
            record = store.get(trial.key)
            rows.append({"trial": trial.label, **record.test, "best epoch": record.best_epoch, "key": trial.key})
            rows += [{"trial": f"{trial.label}, {_changes(further)}", **further.test, "key": trial.key} for further in record.further]
        else:
            failure = store.failure(trial.key)
            rows.append({"trial": trial.label, "key": f"{trial.key} {failure.reason if failure else 'not run'}"})
    return tabulate(rows, headers="keys", tablefmt="github", floatfmt=".3f")


def _changes(further: Further) -> str:
    return " ".join(f"{name} {value:g}" for name, value in further.changes.items())
