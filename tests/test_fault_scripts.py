"""The scripts of tests/faults in small: real commands are killed, started twice, and nothing is lost."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parent / "faults"))

import kills
import twice
from grid import Grid


@pytest.fixture
def grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Grid:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Grid(tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # MLflow's own imports warn
def test_six_kills_at_random_moments_lose_nothing(grid: Grid) -> None:
    counts = kills.attack(grid, 6, random.Random(1))
    killed = {name: count for name, count in counts.items() if name.startswith("killed")}
    assert sum(killed.values()) == 6
    assert not {name: count for name, count in counts.items() if count and name not in (*killed, "grids", "trials")}


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_one_folder_is_written_by_one_of_several_commands(grid: Grid) -> None:
    counts = twice.compete(grid, 2)
    assert counts["ran"] + counts["refused"] == 2 and counts["ran"]
    assert not {name: count for name, count in counts.items() if count and name not in ("ran", "refused")}


@pytest.mark.parametrize("seconds", [0.2, 1.5])
def test_ctrl_c_while_workers_start_ends_the_command_without_a_traceback(grid: Grid, seconds: float) -> None:
    """A terminal sends it to the server of workers as well, which is at its imports then."""
    process = grid.start(grid.results())
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not _has_a_server(process.pid):
        time.sleep(0.01)
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err and "stopped" in out + err


def _has_a_server(pid: int) -> bool:
    return any("forkserver" in part for child in psutil.Process(pid).children() for part in child.cmdline())
