"""A real MLflow server with a database behind it and artifacts by proxy, killed in the middle of a run and started again."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from kit import TOY, stored, trial

from harness.experiments import runner, tracking
from harness.experiments.events import Event, Warned
from harness.experiments.executors import Inline
from harness.experiments.runner import Options
from harness.experiments.tracking import Tracker, publish_pending
from harness.experiments.workspace import Workspace
from harness.reporting.summary import closing

START_SECONDS = 400  # a busy machine takes its time


class Server:
    """``mlflow server`` on the loopback interface, over files below ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        line = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        stores = [
            "--backend-store-uri",
            f"sqlite:///{self.folder / 'server.db'}",
            "--artifacts-destination",
            str(self.folder / "artifacts"),
        ]
        variables = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        variables.pop("MLFLOW_TRACKING_URI", None)
        with open(self.folder / "server.log", "ab") as log:
            self.process = subprocess.Popen([*line, *stores], env=variables, cwd=self.folder, stdout=log, stderr=log, process_group=0)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            with suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                if answer.status == 200:
                    return
            time.sleep(0.2)
        raise AssertionError(f"the server did not start: {(self.folder / 'server.log').read_text()[-2000:]}")

    def kill(self) -> None:
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    pytest.importorskip("mlflow.server", reason="the server is in mlflow, not in mlflow-skinny")
    server = Server(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    server.start()
    yield server
    server.kill()


def killing(server: Server, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kill the server when record ``number`` has a run with parameters and metrics, and no predictions yet."""
    real, calls = tracking._log, [0]

    def log(client: Any, *arguments: Any) -> None:
        calls[0] += 1
        if calls[0] == number:
            monkeypatch.setattr(client, "log_artifact", lambda *ignored: (server.kill(), client.log_metric(arguments[0], "x", 1.0)))
        real(client, *arguments)

    monkeypatch.setattr(tracking, "_log", log)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # MLflow's own imports warn
def test_a_server_that_is_killed_in_the_middle_gets_every_record_once(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = stored(tmp_path / "data")
    trials = [trial(dataset, seed=seed) for seed in range(5)]
    workspace, events = Workspace(tmp_path / "results"), list[Event]()
    with monkeypatch.context() as trap:
        killing(server, 3, trap)
        options = Options(tmp_path / "data", plugin=TOY)
        outcome = runner.run(trials, workspace, Inline(), Tracker(workspace, "grid"), options, events.append)
    assert outcome.finished == keys(trials) and workspace.store.keys() == sorted(outcome.finished)
    assert sum(isinstance(event, Warned) and "harness track" in event.text for event in events) == 1
    assert {path.name.partition(".")[0] for path in workspace.pending.glob("*.json")} == set(keys(trials)[2:])
    assert f"MLflow    {server.uri}" in closing(outcome, workspace) and "3 runs are not in MLflow yet" in closing(outcome, workspace)

    assert publish_pending(workspace)[0] == 0
    server.start()
    assert publish_pending(workspace) == (3, []) and publish_pending(workspace) == (0, [])
    assert not list(workspace.pending.glob("*.json"))

    client = tracking._client(server.uri)
    runs = client.search_runs([client.get_experiment_by_name("grid").experiment_id])
    assert sorted(run.data.tags["trial_key"] for run in runs) == workspace.store.keys()
    for run in runs:
        record = workspace.store.get(run.data.tags["trial_key"])
        assert run.info.status == "FINISHED" and run.info.artifact_uri.startswith("mlflow-artifacts:")
        assert run.data.metrics["test/mae"] == pytest.approx(record.test["mae"])
        assert len(client.get_metric_history(run.info.run_id, "valid_loss")) == len(record.history)
        fetched = Path(client.download_artifacts(run.info.run_id, "predictions.json", str(tmp_path)))
        assert json.loads(fetched.read_text())["values"] == list(record.predictions.values)


def keys(trials: list[Any]) -> list[str]:
    return [one.key for one in trials]
