"""The scripts of tests/faults in small: real commands are killed, started twice, and nothing is lost."""

from __future__ import annotations

import random
import sys
from pathlib import Path

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
