"""A small grid of trials, run by the real command, and what must be true of its results folder however it came about."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))  # as pytest does, for the scripts that are run alone

from kit import TOY, stored  # noqa: E402

from harness.experiments.tracking import Tracker, _client  # noqa: E402
from harness.experiments.workspace import Workspace  # noqa: E402


@dataclass
class Grid:
    """``trials`` seeds of a small method; folders are made below ``root``."""

    root: Path
    trials: int = 8
    pause: float = 0.02  # seconds in each of a trial's 24 batches
    _made: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        stored(self.root / "data")
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        empty = Workspace(self.root / "empty")
        empty.root.mkdir()
        Tracker(empty, "none").lacking(["none"])  # makes the database, which takes seconds: each results folder gets a copy

    def results(self) -> Path:
        """A new results folder with an empty database of MLflow's."""
        self._made += 1
        folder = self.root / f"results{self._made}"
        folder.mkdir()
        shutil.copy(self.root / "empty" / "mlflow.db", folder / "mlflow.db")
        return folder

    def start(self, results: Path, *more: str) -> subprocess.Popen[str]:
        """The command, in a process group of its own, as a terminal would start it."""
        variables = {**os.environ, "MER_RESULTS": str(results), "MER_DATA": str(self.root / "data"), "PYTHONUNBUFFERED": "1"}
        settings = ["--set", f"pause={self.pause}", "--seeds", str(self.trials), "--workers", "2", "--checkpoint-seconds", "0"]
        line = [sys.executable, "-m", "harness.cli", "run", str(TOY), "mosi@tiny", "--retry-failed", *settings, *more]
        return subprocess.Popen(
            line, env=variables, cwd=self.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
        )

    def finish(self, results: Path) -> None:
        """Run what is still missing, undisturbed. RuntimeError where the command fails."""
        process = self.start(results)
        out, err = process.communicate()
        if process.returncode:
            raise RuntimeError(f"exit code {process.returncode}: {out}{err}")


def records(results: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in (results / "records").glob("*/record.json")}


def stamps(results: Path) -> dict[str, int]:
    """When each record was written: one that is written twice has another time."""
    return {path.parent.name: path.stat().st_mtime_ns for path in (results / "records").glob("*/record.json")}


def faults(results: Path, reference: dict[str, bytes]) -> Counter[str]:
    """What a finished grid's folder lacks or has too much, by kind; all zero where nothing went wrong."""
    found = records(results)
    published = mlflow_runs(Workspace(results))
    keys = [key for key, status in published if status == "FINISHED"]
    return Counter(
        {
            "lost": len(reference.keys() - found.keys()),
            "unknown": len(found.keys() - reference.keys()),
            "different": sum(found[key] != content for key, content in reference.items() if key in found),
            "lost in MLflow": len(reference.keys() - set(keys)),
            "doubled in MLflow": len(keys) - len(set(keys)),
            "cut off in MLflow": len(published) - len(keys),
            "pending": len(list(results.glob("pending/*"))),
            "failures": len(list(results.glob("records/*/failure.json"))),
            "left over": len([*results.glob("checkpoints/*"), *results.glob("records/*/.*.tmp"), *results.glob("records/*/*.damaged*")]),
        }
    )


def mlflow_runs(workspace: Workspace) -> list[tuple[str, str]]:
    """Trial key and status of every run that was not deleted."""
    client = _client(workspace.tracking_uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return [
        (run.data.tags.get("trial_key", ""), run.info.status) for run in client.search_runs(experiments) if run.data.tags.get("trial_key")
    ]
