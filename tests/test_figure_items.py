"""Figures as items of a paper: their files, what draws them, what the page shows where nothing was drawn."""

from __future__ import annotations

from pathlib import Path

import pytest
from kit import call, stored
from test_inside import Showing
from test_papers import write

from harness.errors import ConfigError
from harness.experiments import figure_items, papers, table_files
from harness.reporting.page import document

CHECKOUT = Path(__file__).parents[1]
PRINTED = {"mikl/f3", "iidaf/f4", "iidaf/f5", "amcm/f9", "amcm/f10", "amcm/f11", "amcm/f12"}
TABLE = """
title = "Scores"
datasets = ["mosi"]
metrics = ["mae", "acc7"]
seeds = [1]
floors = []
[[rows]]
name = "Mine"
method = "showing"
"""
FIGURE = """
kind = "figure"
title = "Counts & classes"
shows = "confusion"
tables = ["t1"]
row = "Mine"
"""


@pytest.fixture
def place(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A paper with one table and two figures, and the tiny data set."""
    monkeypatch.setattr(table_files, "roots", lambda: [place / "reports"])
    assert Showing.__name__ == "Showing"  # it registers the method of the table
    stored(place / "data", name="mosi")
    write(place, TABLE, "one/t1")
    write(place, FIGURE, "one/f1")
    write(place, FIGURE.replace("confusion", "gates"), "one/f2")
    return place


def test_every_figure_of_the_papers_has_a_file_and_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CHECKOUT)
    specs = [spec for place in figure_items.items() for spec in figure_items.of("/".join(place))]
    assert {spec.name for spec in specs} == PRINTED
    assert all(figure_items.tables_of(spec) for spec in specs)
    assert not PRINTED & set(map("/".join, papers.items())) and figure_items.is_item("iidaf/f4") and not figure_items.is_item("iidaf/t3")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"confusion"', '"confusions"', ["line 4", "shows", "confusion", "gates"]),
        ('row = "Mine"', 'rows = "Mine"', ["line 6", "rows", "Did you mean 'row'"]),
        ("kind", "kind = [\nkind", ["cannot be read"]),
    ],
)
def test_a_fault_names_file_line_and_what_is_allowed(place: Path, old: str, new: str, words: list[str]) -> None:
    path = write(place, FIGURE.replace(old, new, 1), "one/f1")
    with pytest.raises(ConfigError) as raised:
        figure_items.read(path)
    assert all(word in str(raised.value) for word in [str(path), *words]), str(raised.value)


@pytest.mark.parametrize(("old", "new", "word"), [('"Mine"', '"Yours"', "Yours"), ("row =", 'datasets = ["mosei"]\nrow =', "mosei")])
def test_a_row_or_data_set_that_its_tables_lack_is_refused(place: Path, old: str, new: str, word: str) -> None:
    spec = figure_items.read(write(place, FIGURE.replace(old, new), "one/f1"))
    with pytest.raises(ConfigError, match=word):
        figure_items.tables_of(spec)


def test_figures_are_drawn_told_and_drawn_once(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    options = ("--budget", "smoke", "--figures", "svg")
    code, out, err = call(capsys, "report", "one", *options)
    assert code == 0, err
    page = (place / "results" / "index.html").read_text(encoding="utf-8")
    assert "0 of 1 runs finished; `harness reproduce one/f1`" in page and "not drawn yet: `harness reproduce one/f2`" in page
    code, out, err = call(capsys, "reproduce", "one/f1", *options, "--inline")
    assert code == 0 and "1 trials" in out, err
    code, out, err = call(capsys, "reproduce", "one/f2", *options, "--inline")
    assert code == 0, err
    parts = document.read_figures(place / "results")
    assert [part.item for part in parts] == ["f1", "f2"] and not any(part.missing for part in parts)
    assert [[figure.stem for figure in part.figures] for part in parts] == [
        ["figures/one_f1_mosi_confusion"],
        ["figures/one_f2_mosi_gates"],
    ]
    assert "the same predictions as its record" in parts[1].drawn_from
    page = (place / "results" / "index.html").read_text(encoding="utf-8")
    assert "Counts &amp; classes" in page and 'id="one_f2_mosi"' in page and page.count("<svg") >= 2

    from harness.commands import drawing

    monkeypatch.setattr(drawing, "run_trial", lambda *_: pytest.fail("trained again"))
    assert call(capsys, "reproduce", "one/f2", *options, "--inline")[0] == 0
    assert call(capsys, "report", "one", *options)[0] == 0 and document.read_figures(place / "results")[1].figures
    code, out, _ = call(capsys, "reproduce", "one", "--plan", *options)
    assert code == 0 and "one/f2 (figure)" in out and "trained again" in out
    assert "one/f1" in call(capsys, "list", "tables")[1]


def test_a_method_that_is_not_there_is_named_with_its_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(place, TABLE.replace('"showing"', '"showin"'), "one/t1")
    code, _, err = call(capsys, "report", "one/t1")
    assert code == 2 and f"{path.name}, line 9: method = 'showin'" in err and "Did you mean 'showing'" in err
