"""Where MLflow shows a trial's run: read from its database, so that no server has to be there."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

LOCAL = "http://127.0.0.1:5000"  # where `mlflow ui` serves, if not told otherwise
QUERY = """SELECT tags.value, runs.experiment_id, runs.run_uuid FROM tags JOIN runs ON tags.run_uuid = runs.run_uuid
WHERE tags.key = 'trial_key' AND runs.lifecycle_stage = 'active' ORDER BY runs.start_time"""


def mlflow_pages(tracking_uri: str) -> dict[str, str]:
    """Trial key -> address of its (last) run's page. Empty for a server's database, and for a file that is none of MLflow's."""
    path = Path(tracking_uri.removeprefix("sqlite:///"))
    if not tracking_uri.startswith("sqlite:///") or not path.is_file():
        return {}
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=2)) as database:
            return {key: f"{LOCAL}/#/experiments/{experiment}/runs/{run}" for key, experiment, run in database.execute(QUERY)}
    except sqlite3.Error:
        return {}
