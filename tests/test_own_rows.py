"""Rows without published numbers: they have the line that was measured and no empty one beside it, in every form."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from test_page import part_of
from test_tables import SPEC_TEXT, Case, a_case, a_spec

from harness.reporting.page import compose

OWN = """
title = "Mine"
datasets = ["mosi"]
metrics = ["mae", "corr"]
seeds = [1, 2, 3]
reference = "Strong"

[[rows]]
name = "Weak_1"
method = "weak"

[[rows]]
name = "Strong"
method = "strong"
"""


@pytest.fixture(params=[False, True], ids=["real", "simulated"])
def own(tmp_path: Path, request: pytest.FixtureRequest) -> Case:
    """A table in which nothing is published."""
    case = a_case(tmp_path, simulated=request.param)
    case.spec = a_spec(tmp_path, OWN)
    return case


@pytest.fixture
def mixed(tmp_path: Path) -> Case:
    """One row of three has no published number on this data set."""
    case = a_case(tmp_path)
    text = SPEC_TEXT.replace("published.mosi = { mae = 0.900, corr = 0.5, acc2_nonneg = 80.0 }\n", "")
    case.spec = a_spec(tmp_path, text)
    return case


def lines_of(case: Case, out: Path) -> list[tuple[str, str]]:
    """(row, kind) of all lines, which every form has."""
    rendered = case.render(out)
    told = json.loads(rendered.json.read_text(encoding="utf-8"))["lines"]
    rows = csv.DictReader(io.StringIO(rendered.csv.read_text(encoding="utf-8")))
    found = [(line["row"], line["kind"]) for line in told]
    assert list(dict.fromkeys((row["row"], row["kind"]) for row in rows)) == found
    for text in (rendered.markdown.read_text(encoding="utf-8"), rendered.latex.read_text(encoding="utf-8"), rendered.console):
        assert text.count("measured (n =") + text.count("measured, ") >= len(found) - 3
    return found


def test_a_row_without_published_numbers_has_one_line(mixed: Case, tmp_path: Path) -> None:
    found = lines_of(mixed, tmp_path / "out")
    assert found[:4] == [("Weak_1", "measured"), ("Strong", "published"), ("Strong", "measured"), ("Only | cited", "published")]
    markdown = (tmp_path / "out" / "made_t1_mosi-tiny.md").read_text(encoding="utf-8")
    (line,) = [line for line in markdown.splitlines() if line.startswith("| Weak\\_1 ") and "measured (n" in line]
    assert "–" not in line


def test_a_table_without_published_numbers_does_not_speak_of_them(own: Case, tmp_path: Path) -> None:
    found = lines_of(own, tmp_path / "out")
    assert {kind for _, kind in found} == {"measured"} and len(found) == 4
    rendered = own.render(tmp_path / "out")
    for path in (rendered.markdown, rendered.latex):
        assert "ublished" not in path.read_text(encoding="utf-8"), path
    assert "ublished" not in rendered.console and "as published" not in rendered.csv.read_text(encoding="utf-8")


def test_a_row_that_was_neither_printed_nor_run_stays(own: Case, tmp_path: Path) -> None:
    del own.plan["Weak_1"]
    assert ("Weak_1", "published") in lines_of(own, tmp_path / "out")
    assert "not printed, not run" in own.render(tmp_path / "out").console


def test_a_lost_number_is_a_published_one(mixed: Case, tmp_path: Path) -> None:
    text = SPEC_TEXT.replace("published.mosi = { mae = 0.900, corr = 0.5, acc2_nonneg = 80.0 }\n", "")
    mixed.spec = a_spec(tmp_path, text.replace('rows = ["Strong"]', 'rows = ["Strong", "Weak_1"]'))
    assert lines_of(mixed, tmp_path / "out")[:2] == [("Weak_1", "published"), ("Weak_1", "measured")]


def test_the_page_shows_what_was_measured_in_every_view(own: Case, tmp_path: Path) -> None:
    """No row is hidden where only published numbers, or differences from them, are asked for."""
    part = part_of(own)
    assert all(cell.published is None for row in part.rows for cell in row.cells) and not any(row.published for row in part.rows)
    page = compose.compose([part], tmp_path)
    assert '<table class="numbers"' in page and "data-printed>" not in page and "small: published" not in page


def test_the_page_hides_rows_of_ones_own_beside_printed_ones(mixed: Case, tmp_path: Path) -> None:
    part = part_of(mixed)
    assert [row.published for row in part.rows] == ["", "re-run", "cited", "", ""]
    page = compose.compose([part], tmp_path)
    assert "data-printed>" in page and page.count(" own") >= 3
