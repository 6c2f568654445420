"""All tables and the page of the four papers from 10,000 records."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CORES = 2  # of the machine for which the minute is meant


def measured(*arguments: str) -> dict[str, float]:
    pytest.importorskip("matplotlib")
    command = [sys.executable, str(Path(__file__).with_name("papers_page.py")), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    print(f"\n{done.stdout}")
    return dict(json.loads(done.stdout))


def test_what_is_known_is_rendered_in_a_part_of_the_time() -> None:
    """MOSI's tables, ratios of the processor's time, so that a busy machine does not matter: measured were 24 and 67 times less."""
    found = measured("1", "mosi")
    first = found["without caches, s of the processor"]
    assert found["statistics cached, s of the processor"] < first / 2.5
    assert found["nothing changed, s of the processor"] < first / 5


@pytest.fixture(scope="module")
def all_papers() -> dict[str, float]:
    return measured("10000")


@pytest.mark.slow  # minutes: `pytest tests/benchmarks -m slow`
@pytest.mark.xfail(reason="the aim, a minute on two cores, was not reached when last measured: docs/page.md", strict=False)
def test_all_papers_are_rendered_in_a_minute(all_papers: dict[str, float]) -> None:
    """Nothing kept; two cores have 120 s of the processor in a minute."""
    assert all_papers["without caches, s of the processor"] < 60 * CORES


@pytest.mark.slow
@pytest.mark.xfail(reason="the aim, ten seconds, was not reached when last measured: docs/page.md", strict=False)
def test_all_papers_are_rendered_again_in_seconds(all_papers: dict[str, float]) -> None:
    """With scores, tests and figures kept by content, every table written anew."""
    assert all_papers["statistics cached, s of the processor"] < 10


@pytest.mark.slow
def test_what_has_not_changed_is_there_at_once(all_papers: dict[str, float]) -> None:
    assert all_papers["records"] >= 10_000
    assert all_papers["nothing changed, s of the processor"] < 10
    assert all_papers["page, MB"] < 5
