"""What an import costs: a large pickle of MMSA's form, without any padding, the worst case for memory."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

CLIPS = {"train": 2448, "valid": 280, "test": 698}  # 0.15 of CMU-MOSEI
SCRIPT = """
import json, sys, time
from pathlib import Path
import harness.data.checks.probe, harness.data.importing, pandas, sklearn.linear_model, torch

def peak():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))

before, start = peak(), time.process_time()
data = harness.data.importing.import_dataset("mosei", [Path(sys.argv[1])], root=Path(sys.argv[2]))
print(json.dumps({"peak": peak() - before, "seconds": time.process_time() - start, "clips": data.card.clips}))
"""


def write_mmsa(path: Path) -> None:
    rng = np.random.default_rng(0)
    content = {}
    for split, count in CLIPS.items():
        frames = rng.standard_normal((count, 50, 877), dtype=np.float32)
        content[split] = {
            "id": [f"{split}{row // 7}$_${row}" for row in range(count)],
            "regression_labels": rng.uniform(-3, 3, count),
            "text": np.ascontiguousarray(frames[..., :768]),
            "audio": np.ascontiguousarray(frames[..., 768:842]),
            "vision": np.ascontiguousarray(frames[..., 842:]),
        }
    with open(path, "wb") as file:
        pickle.dump(content, file, protocol=4)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_an_import_needs_at_most_1_3_times_the_size_of_the_file(tmp_path: Path) -> None:
    """Peak memory above that of the imported modules; processor time of all threads, so that a busy machine does not count."""
    write_mmsa(tmp_path / "large.pkl")
    size = (tmp_path / "large.pkl").stat().st_size
    arguments = [sys.executable, "-c", SCRIPT, str(tmp_path / "large.pkl"), str(tmp_path / "store")]
    run = subprocess.run(arguments, capture_output=True, text=True, env={"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"})
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found["clips"] == CLIPS and size > 5e8
    assert found["peak"] <= 1.3 * size, f"peak {found['peak'] / size:.2f} times the file's size"
    assert size / found["seconds"] >= 100e6, f"{size / found['seconds'] / 1e6:.0f} MB per second of processor time"
