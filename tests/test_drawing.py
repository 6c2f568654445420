"""Figures as files: drawn where something changed, kept where nothing did, the same whoever draws them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from harness.errors import DataError
from harness.reporting.figures import confusion, drawing, features, runs
from harness.reporting.figures.drawing import Drawing, FigureFiles

pytest.importorskip("matplotlib")


def curves(best: int = 2) -> Drawing:
    return Drawing(runs.learning_curves, ({"A": [runs.Curve([2.0, 1.0], [2.1, 1.5], best)] * 3}, False))


def matrices(count: int = 3) -> Drawing:
    return Drawing(confusion.confusion, ({"A": np.array([[count, 1], [0, 2]])}, ("x", "y"), True))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stems that were really drawn, in this process."""
    found, real = [], drawing._draw
    monkeypatch.setattr(drawing, "_draw", lambda root, stem, *rest: found.append(stem) or real(root, stem, *rest))
    return found


def want(root: Path, *, formats: tuple[str, ...] = ("svg",), code: str = "code", **figures: Drawing) -> None:
    files = FigureFiles(root, formats, code)
    for stem, one in figures.items():
        files.want(f"figures/{stem}", one)
    files.finish()


def test_what_has_not_changed_is_not_drawn_again(tmp_path: Path, drawn: list[str]) -> None:
    want(tmp_path, a=curves(), b=matrices())
    before = (tmp_path / "figures" / "a.svg").stat().st_mtime_ns
    want(tmp_path, a=curves(), b=matrices())
    assert drawn == ["figures/a", "figures/b"] and (tmp_path / "figures" / "a.svg").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "again",
    [
        {"a": curves(best=1)},
        {"a": matrices()},
        {"a": curves(), "code": "other code"},
        {"a": curves(), "formats": ("svg", "pdf")},
    ],
)
def test_what_has_changed_is(tmp_path: Path, drawn: list[str], again: dict) -> None:
    want(tmp_path, a=curves())
    want(tmp_path, **again)
    assert drawn == ["figures/a"] * 2


@pytest.mark.parametrize("damage", ["figure", "known", "foreign", "gone"])
def test_what_somebody_changed_is_not_believed(tmp_path: Path, drawn: list[str], damage: str) -> None:
    want(tmp_path, a=curves(), b=matrices())
    figure, known = tmp_path / "figures" / "a.svg", tmp_path / "page" / "drawn" / "a.json"
    good = figure.read_bytes()
    if damage == "figure":
        figure.write_bytes(good.replace(b"epoch", b"Epoch"))
    elif damage == "known":
        known.write_bytes(known.read_bytes().replace(b'"svg"', b'"png"'))
    elif damage == "foreign":  # another figure with all that belongs to it, but the name
        figure.write_bytes((tmp_path / "figures" / "b.svg").read_bytes())
        known.write_bytes((tmp_path / "page" / "drawn" / "b.json").read_bytes())
    else:
        figure.unlink()
    want(tmp_path, a=curves())
    assert drawn[2:] == ["figures/a"] and figure.read_bytes() == good


def test_equal_numbers_are_equal_whatever_holds_them() -> None:
    def strips(*values: float) -> Drawing:
        return Drawing(runs.strips, ([runs.Strip("MAE", {"A": values}, {})], False))

    assert strips(0.5, float("nan")).content == strips(np.float64(0.5), np.nan).content != strips(0.5, 0.25).content
    assert matrices().content == matrices().content != matrices(4).content
    with pytest.raises(TypeError, match="cannot be drawn from PosixPath|WindowsPath"):
        _ = Drawing(runs.strips, (Path("a"),)).content


def test_other_processes_draw_the_same_bytes(tmp_path: Path) -> None:
    figures = {"a": curves(), "b": matrices(), "c": Drawing(features.gate_boxes, ({"MOSI": {"shared": [0.1, 0.2, 0.4]}},))}
    want(tmp_path / "here", formats=("svg", "png"), **figures)
    files = FigureFiles(tmp_path / "there", ("svg", "png"), "code", workers=2)
    for stem, one in figures.items():
        files.want(f"figures/{stem}", one)
    files.finish()
    for path in (tmp_path / "here").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "there" / path.relative_to(tmp_path / "here")).read_bytes()
    assert len(list((tmp_path / "there" / "figures").iterdir())) == 6


def test_a_fault_of_another_process_is_this_ones(tmp_path: Path) -> None:
    """And the old figure is gone rather than wrong."""
    want(tmp_path, a=curves())
    files = FigureFiles(tmp_path, ("svg",), "code", workers=1)
    files.want("figures/a", Drawing(features.feature_map, ({"shared": [[1.0, 2.0]]},)))
    with pytest.raises(DataError, match="at least 3 clips"):
        files.finish()
    assert not (tmp_path / "figures" / "a.svg").exists()


def test_figures_that_nobody_waits_for_are_not_begun(tmp_path: Path) -> None:
    files = FigureFiles(tmp_path, ("svg",), "code", workers=1)
    for number in range(30):
        files.want(f"figures/{number}", matrices(number))
    files.close()
    assert len(list(tmp_path.glob("figures/*.svg"))) < 30 and files._pool is None


def ended(group: int, until: float) -> bool:
    """Whether all processes of the group end in time."""
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


PROGRAM = """
import sys, time
from pathlib import Path
from test_drawing import matrices
from harness.reporting.figures.drawing import FigureFiles
from contextlib import closing
files = FigureFiles(Path(sys.argv[1]), ("svg", "png"), "code", workers=2)
with closing(files):
    for number in range(500):
        files.want(f"figures/{number}", matrices(number))
    print("begun", flush=True)
    files.finish()
"""


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs process groups")
def test_an_interrupt_ends_all_processes_and_leaves_whole_figures(tmp_path: Path) -> None:
    place = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], env=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as program:  # fmt: skip
        assert program.stdout and program.stdout.readline() == "begun\n"
        until = time.monotonic() + 60
        while not list(tmp_path.glob("page/drawn/*.json")) and time.monotonic() < until:
            time.sleep(0.05)
        os.killpg(program.pid, signal.SIGINT)
        _, said = program.communicate(timeout=60)
    assert said.count("KeyboardInterrupt") == 1 and said.count("Traceback") == 1, said
    assert ended(program.pid, until=time.monotonic() + 20)
    drawn = list(tmp_path.glob("page/drawn/*.json"))
    assert 0 < len(drawn) < 500 and json.loads(drawn[0].read_bytes().partition(b"\n")[2])["files"].keys() == {"svg", "png"}
    for path in tmp_path.glob("figures/*.svg"):
        assert path.read_text().rstrip().endswith("</svg>")


def test_drawing_does_not_import_pytorch() -> None:
    """It would take longer than most figures, in each of the processes; and a quarter of a gigabyte."""
    program = "import sys; from test_drawing import curves, matrices; curves().figure(); matrices().figure(); print('torch' in sys.modules)"
    place = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run([sys.executable, "-c", program], env=place, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
