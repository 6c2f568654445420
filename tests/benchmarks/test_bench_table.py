"""The statistics of a whole table: 14 rows x 7 metrics x 5 seeds x 4,659 clips, 10,000 resamples."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

CORES = 2


def test_a_tables_statistics_take_seconds_and_little_memory() -> None:
    """Under 10 s and under 1 GB in all, the imports included.

    Asserted is the processor's time, of both cores together, which a busy machine stretches less than the clock's.
    """
    program = Path(__file__).with_name("table_statistics.py")
    variables = {**os.environ, "OMP_NUM_THREADS": str(CORES), "OPENBLAS_NUM_THREADS": str(CORES)}
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=True, env=variables)
    found = json.loads(done.stdout)
    print(f"\n{found['wall']:.1f} s on the clock, {found['cpu']:.1f} s of the processor, {found['peak_mb']:.0f} MB")
    assert (found["tests"], found["sources"]) == (13 * 7, 13)
    assert found["cpu"] < 10
    assert found["peak_mb"] < 1024
