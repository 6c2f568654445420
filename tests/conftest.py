"""Fixtures that several test modules share."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).parents[1]

# No example has a time limit of its own: on a busy machine the first one, which imports and allocates, would break it.
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--overwrite-golden", action="store_true", help="write what was rendered to tests/golden instead of comparing with it")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a text with the file of that name in ``tests/golden``."""

    def check(name: str, text: str) -> None:
        path = ROOT / "tests" / "golden" / name
        if request.config.getoption("--overwrite-golden"):
            path.write_text(text, encoding="utf-8")
        assert text == path.read_text(encoding="utf-8"), f"{name} changed; if that is right: pytest --overwrite-golden, and read the diff"

    return check


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder whose ``data/`` holds real data sets: MER_SHARED, else ``../shared`` beside the project."""
    folder = Path(os.environ.get("MER_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"real data not found: no folder {folder}/data (set MER_SHARED to the folder that holds data/)")
    return folder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder where commands are typed: stored data in ``data``, results in ``results``, no tracking server, wide lines."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MER_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MER_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder in which nobody can write, root included."""
    folder = tmp_path / "read_only"
    folder.mkdir()
    if os.geteuid():
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)
        return
    if (
        shutil.which("mount") is None
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", str(folder)], check=False).returncode
    ):
        pytest.skip("for root, a folder that cannot be written has to be mounted")
    yield folder
    subprocess.run(["umount", str(folder)], check=False)


@pytest.fixture(autouse=True)
def heeds_ctrl_c() -> Iterator[None]:
    """Also where the tests were started in the background, which starts them, and what they start, deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
