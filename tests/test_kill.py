"""A run that is killed and started again leaves the records of one that was never interrupted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from kit import stored

HERE = Path(__file__).parent
ARGUMENTS = [
    "reproduce",
    "iidaf/t3",
    "--data",
    "mosi@tiny",
    "--budget",
    "smoke",
    "--seeds",
    "1",
    "--workers",
    "2",
    "--checkpoint-seconds",
    "0",
]


def command(results: Path, data: Path, *start: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "MER_RESULTS": str(results), "MER_DATA": str(data), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, *start, *ARGUMENTS]
    return subprocess.run(line, cwd=HERE.parent, env=variables, capture_output=True, text=True, timeout=240, check=False)


def records(results: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in (results / "records").glob("*/record.json")}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    stored(root)
    return root


@pytest.fixture(scope="module")
def uninterrupted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    results = tmp_path_factory.mktemp("whole")
    done = command(results, data, "-m", "harness.cli")
    assert done.returncode == 0, done.stdout + done.stderr
    return records(results)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["trial", "between", "writing"])
def test_a_killed_run_continues_and_ends_with_the_same_bytes(
    moment: str, data: Path, uninterrupted: dict[str, bytes], tmp_path: Path
) -> None:
    killed = command(tmp_path, data, str(HERE / "kill_driver.py"), moment)
    assert killed.returncode == -9, killed.stdout + killed.stderr
    before = records(tmp_path)
    stamps = {key: (tmp_path / "records" / key / "record.json").stat().st_mtime_ns for key in before}
    assert len(before) < len(uninterrupted) and all(uninterrupted[key] == content for key, content in before.items())
    checkpoints = {path.stem for path in (tmp_path / "checkpoints").glob("*.pt")}

    again = command(tmp_path, data, "-m", "harness.cli")
    assert again.returncode == 0, again.stdout + again.stderr
    assert records(tmp_path) == uninterrupted
    assert all((tmp_path / "records" / key / "record.json").stat().st_mtime_ns == stamp for key, stamp in stamps.items())
    if moment == "trial":
        resumed = [key for key in checkpoints if '"resumed_at":0' not in (tmp_path / "records" / key / "runtime.json").read_text()]
        assert resumed, "no trial continued from its checkpoint"
    assert not list((tmp_path / "checkpoints").glob("*"))
    assert not list((tmp_path / "records").glob("*/.*.tmp")), "a temporary file was left behind"
