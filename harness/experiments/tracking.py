"""The MLflow mirror. Records are the truth; what MLflow could not take is kept as pending and published later."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from harness.data.schema import Frozen
from harness.experiments.records import Record, RecordError, RecordStore, Runtime
from harness.experiments.search import Search
from harness.experiments.search import curve as search_curve
from harness.experiments.study import TrialRecord
from harness.experiments.trials import flatten
from harness.experiments.workspace import Workspace
from harness.files import write_atomic

if TYPE_CHECKING:
    from mlflow import MlflowClient

BATCH = 900  # MLflow takes at most 1000 metrics in one request
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


class Pending(Frozen):
    """A record that still has to reach an MLflow experiment."""

    key: str
    experiment: str


class Tracker:
    """Publishes records as runs, one per trial and experiment; the first failure puts off all that follows.

    ``problem`` says why MLflow was given up, or is empty.
    """

    def __init__(self, workspace: Workspace, experiment: str) -> None:
        self.workspace = workspace
        self.experiment = experiment
        self.problem = ""
        self._client: MlflowClient | None = None
        self._experiment_id = ""
        self._known: set[str] = set()

    def publish(self, record: Record, runtime: Runtime | None) -> None:
        """Make sure that the experiment has a run for ``record``; keep it as pending where MLflow fails."""
        path = self._pending_path(record.key)
        if not self.problem:
            try:
                self._publish(record, runtime)
                path.unlink(missing_ok=True)
                return
            except Exception as error:  # whatever MLflow or its server does, the record is safe and the run goes on
                self.problem = _reason(error)
        write_atomic(path, Pending(key=record.key, experiment=self.experiment).model_dump_json().encode())

    def lacking(self, keys: Sequence[str]) -> list[str]:
        """Those of ``keys`` that the experiment has no run for; where MLflow fails, those that are not noted as pending."""
        if keys and not self.problem:
            try:
                self._known.update(_published(self._connect(), self._experiment_id, self.workspace))
            except Exception as error:
                self.problem = _reason(error)
        return [key for key in keys if key not in self._known and not (self.problem and self._pending_path(key).exists())]

    def _pending_path(self, key: str) -> Path:
        name = self.experiment.replace("/", "_").replace(" ", "_")
        return self.workspace.pending / f"{key}.{name}.json"

    def _publish(self, record: Record, runtime: Runtime | None) -> None:
        client = self._connect()
        if record.key in self._known or record.key in set(_published(client, self._experiment_id, self.workspace, record.key)):
            return
        run_id = client.create_run(
            self._experiment_id, run_name=_run_name(record), tags={**_tags(record), "results": self.workspace.name}
        ).info.run_id
        _log(client, run_id, record, runtime)
        client.set_terminated(run_id)
        self._known.add(record.key)

    def _connect(self) -> MlflowClient:
        if self._client is None:
            _make_database(self.workspace)
            client = _client(self.workspace.tracking_uri)
            self._experiment_id = _experiment(client, self.experiment, self.workspace)
            self._client = client
        return self._client


def publish_pending(workspace: Workspace) -> tuple[int, list[str]]:
    """Publish what is pending; returns how many records MLflow took, and one line per experiment it refused."""
    trackers: dict[str, Tracker] = {}
    done, unread = 0, []
    for path in sorted(workspace.pending.glob("*.json")):
        try:
            entry = Pending.model_validate_json(path.read_bytes())
            tracker = trackers.setdefault(entry.experiment, Tracker(workspace, entry.experiment))
            _publish_one(tracker, workspace.store, entry, path)
        except (ValidationError, RecordError) as error:
            unread.append(f"{path}: {_reason(error)}")
        done += not path.exists()
    return done, [f"{name}: {tracker.problem}" for name, tracker in trackers.items() if tracker.problem] + unread


def _publish_one(tracker: Tracker, store: RecordStore, entry: Pending, path: Path) -> None:
    """``path`` is gone afterwards where MLflow has the record, or nobody has it."""
    if entry.key not in store:
        path.unlink()
    elif not tracker.problem:
        tracker.publish(store.get(entry.key), store.runtime(entry.key))


def _client(uri: str) -> MlflowClient:
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    for name in ("alembic", "mlflow", "mlflow.store.db.utils", "urllib3.connectionpool"):  # after the import, which sets levels of its own
        logging.getLogger(name).setLevel(logging.ERROR)
    return MlflowClient(tracking_uri=uri)


def _make_database(workspace: Workspace) -> None:
    """MLflow's SQLite file, made under another name first: one that is cut off half-made could never be opened again."""
    path = workspace.database
    if path.exists() or workspace.tracking_uri != f"sqlite:///{path}":
        return
    fresh = path.with_name(f".{path.name}.new")
    for left in path.parent.glob(f"{fresh.name}*"):  # by a killed process, with its journal
        left.unlink()
    _client(f"sqlite:///{fresh}").search_experiments(max_results=1)
    os.replace(fresh, path)


def _reason(error: Exception) -> str:
    """An error on one line."""
    name, first = type(error).__name__, str(error).strip().partition("\n")[0][:200]
    return f"{name}: {first}" if first else name


def _experiment(client: MlflowClient, name: str, workspace: Workspace) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    local = workspace.tracking_uri.startswith("sqlite:")
    artifacts = (workspace.root / "mlartifacts").as_uri() if local else None  # a server chooses its own place
    return str(client.create_experiment(name, artifact_location=artifacts))


def _published(client: MlflowClient, experiment_id: str, workspace: Workspace, key: str = "") -> Iterator[str]:
    """Keys of the trials, or of ``key`` alone, whose run is complete.

    A run of this results folder that was cut off is deleted, so that it is published again whole; another folder's may be under way.
    """
    token, which = None, f"tags.trial_key = '{key}'" if key else ""
    while True:
        page = client.search_runs([experiment_id], which, max_results=1000, page_token=token)
        for run in page:
            if run.info.status == "FINISHED":
                yield run.data.tags.get("trial_key", "")
            elif run.data.tags.get("results", workspace.name) == workspace.name:
                client.delete_run(run.info.run_id)
        token = page.token
        if not token:
            return


def _run_name(record: Record) -> str:
    return f"{record.identity.method}-seed{record.identity.seed}-{record.identity.fold.index}"


def _tags(record: Record) -> dict[str, str]:
    identity, environment = record.identity, record.environment
    return {
        "trial_key": record.key,
        "method": identity.method,
        "dataset": identity.dataset,
        "data_fingerprint": identity.data,
        "data": "simulated" if record.simulated else "real",
        "budget": record.budget,
        "fold": str(identity.fold),
        "split_hash": record.split_hash,
        "commit": environment.commit,
        "dirty": str(environment.dirty).lower(),
    }


def _log(client: MlflowClient, run_id: str, record: Record, runtime: Runtime | None) -> None:
    from mlflow.entities import Metric, Param

    identity = record.identity
    flat = {"method": identity.method, "seed": identity.seed, "modalities": "+".join(identity.modalities), "parameters": record.parameters}
    params = [Param(name, str(value)[:500]) for name, value in {**flat, **_flat_config(identity.config)}.items()]
    metrics = [Metric(name, value, 0, step) for name, value, step in _metrics(record, runtime)]
    client.log_batch(run_id, params=params[:100])
    for start in range(0, len(metrics), BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + BATCH])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "predictions.json"
        path.write_text(json.dumps(record.predictions.model_dump(mode="json")))
        client.log_artifact(run_id, str(path))


def _metrics(record: Record, runtime: Runtime | None) -> Iterator[tuple[str, float, int]]:
    """Name, value and step; undefined values are left out, since MLflow would store them as something else."""
    for epoch in record.history:
        values = {"train_loss": epoch.train_loss, "valid_loss": epoch.valid_loss, "learning_rate": epoch.learning_rate}
        for name, value in {**values, **{f"loss/{term}": v for term, v in epoch.losses.items()}}.items():
            yield name, value, epoch.epoch
    for split, scores in {"valid": record.valid, "test": record.test}.items():
        yield from ((f"{split}/{name}", value, 0) for name, value in scores.items() if value is not None)
    if runtime is not None:
        yield "seconds", runtime.seconds, 0
        yield "peak_memory_mb", runtime.peak_memory_mb, 0


def _flat_config(config: dict[str, Any]) -> dict[str, Any]:
    return {f"config.{name}": value for name, value in flatten(config)}


def publish_search(workspace: Workspace, search: Search, trials: Sequence[TrialRecord]) -> str:
    """Make sure that MLflow has a run for ``search`` with a nested one for each trial; why it refuses, or an empty string.

    The experiment is ``tune <data set>``. What is there already stays.
    """
    try:
        _make_database(workspace)
        client = _client(workspace.tracking_uri)
        experiment = _experiment(client, f"tune {search.dataset}", workspace)
        known = {run.data.tags.get("trial_key", ""): run.info.run_id for run in client.search_runs([experiment], max_results=10_000)}
        parent = known.get(search.key) or _publish_search(client, experiment, search)
        for trial in trials:
            if f"{search.key}-{trial.number}" not in known:
                _publish_trial(client, experiment, parent, search, trial)
        return ""
    except Exception as error:  # as in Tracker: the trials have files of their own
        return _reason(error)


def _publish_search(client: MlflowClient, experiment: str, search: Search) -> str:
    tags = {"trial_key": search.key, "method": search.method, "dataset": search.dataset, "data_fingerprint": search.data}
    tags |= {"budget": search.budget, "fold": str(search.fold), "seeds": ",".join(map(str, search.seeds))}
    run_id = str(client.create_run(experiment, run_name=f"{search.method}-{search.key}", tags=tags).info.run_id)
    for key, range_ in list(search.space.items())[:100]:
        client.log_param(run_id, key, str(range_))
    client.set_terminated(run_id)
    return run_id


def _publish_trial(client: MlflowClient, experiment: str, parent: str, search: Search, trial: TrialRecord) -> None:
    from mlflow.entities import Metric, Param

    tags = {"mlflow.parentRunId": parent, "trial_key": f"{search.key}-{trial.number}", "outcome": trial.outcome}
    run_id = client.create_run(experiment, run_name=f"{search.method}-{trial.number:04d}", tags=tags).info.run_id
    steps = search_curve(trial.runs, int(search.config["training"]["max_epochs"]))
    metrics = [Metric("valid_loss", value, 0, step) for step, value in steps.items()]
    if trial.objective is not None:
        metrics.append(Metric("objective", trial.objective, 0, 0))
    client.log_batch(run_id, params=[Param(key, str(value)[:500]) for key, value in trial.settings.items()][:100])
    for start in range(0, len(metrics), BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + BATCH])
    client.set_terminated(run_id)
