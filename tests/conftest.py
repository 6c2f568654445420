"""Fixtures that several test modules share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder whose ``data/`` holds real data sets: MER_SHARED, else ``../shared`` beside the project."""
    folder = Path(os.environ.get("MER_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"real data not found: no folder {folder}/data (set MER_SHARED to the folder that holds data/)")
    return folder
