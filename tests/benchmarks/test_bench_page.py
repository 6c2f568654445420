"""All tables and the page of the four papers from 10,000 records."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow  # minutes: `pytest tests/benchmarks -m slow`
def test_all_papers_are_rendered_in_a_minute_and_again_in_seconds() -> None:
    """Under 60 s without caches, 10 s with the statistics cached; the page under 5 MB. Asserted is the processor's time."""
    program = Path(__file__).with_name("papers_page.py")
    done = subprocess.run(
        [sys.executable, str(program), "10000"], capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    found = json.loads(done.stdout)
    print(f"\n{done.stdout}")
    assert found["records"] >= 10_000
    assert found["without caches, s of the processor"] < 60
    assert found["statistics cached, s of the processor"] < 10
    assert found["nothing changed, s of the processor"] < 10
    assert found["page, MB"] < 5
