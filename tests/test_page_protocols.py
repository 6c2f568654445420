"""The page of tables with several protocols, and a report on all papers: scores and costs, once and again."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_cost_tables
from kit import call, stored
from test_page import Tree, page_of
from test_papers import write
from test_protocols import CLIPS, Case, a_case, mean_error

from harness.commands import gathering, rendering
from harness.commands.rendering import Renderer
from harness.experiments import table_files
from harness.experiments.schemes import Scheme
from harness.experiments.workspace import Workspace
from harness.reporting.figures import confusion, of_tables
from harness.reporting.page import document
from harness.reporting.page.document import TablePart
from harness.reporting.tables import tell
from harness.training.metrics import metrics
from harness.training.settings import BUDGETS


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    monkeypatch.setattr(rendering, "render", partial(rendering.render, resamples=100))
    return a_case(tmp_path)


def parts_of(case: Case, root: Path, formats: tuple[str, ...] = ()) -> tuple[TablePart, ...]:
    return Renderer(Workspace(root), formats).table(case.spec, case.card, BUDGETS["quick"], case.plan)


# ---- a part per protocol


def test_each_protocol_has_a_part_with_its_own_runs_numbers_and_tests(case: Case, tmp_path: Path) -> None:
    parts = parts_of(case, tmp_path)
    assert [(part.name, part.protocol, part.title) for part in parts] == [
        ("made_t1_mosi-tiny", "random", "Made up, random"),
        ("made_t1_mosi-tiny--2", "by video", "Made up, by video"),
    ]
    for part, (kind, of) in zip(parts, (("stratified", 4), ("grouped", 3)), strict=True):
        assert [row.name for row in part.rows] == ["Weak", "Strong", "ridge"]
        for row in part.rows:
            assert row.cells[0].measured and row.cells[0].measured.value == pytest.approx(mean_error(row.name, kind, of), rel=1e-9)
            assert [run.key for run in row.runs] == [trial.key for trial in case.plan[row.name] if trial.identity.fold.protocol == kind]
            assert (row.finished, row.expected) == (of, of)
        assert part.rows[0].cells[0].published and "against Strong" in part.rows[0].cells[0].test
        other = next(one.protocol for one in parts if one is not part)
        assert f"{other}:" not in part.caption and f"{other} ({4 if of == 3 else 3} " not in part.caption
    assert parts[0].console and parts[1].console == "", "the first one's text tells of both"


def test_the_page_has_both_under_names_of_their_own_and_counts_printed_numbers_once(case: Case, tmp_path: Path) -> None:
    parts = parts_of(case, tmp_path)
    text, tree = page_of(*parts)
    ids = [one["id"] for one in tree.elements if "id" in one]
    assert len(ids) == len(set(ids)) and {part.name for part in parts} <= set(ids)
    assert [one["data-table"] for one in tree.all("table", class_="numbers")] == [part.name for part in parts]
    card = tree.all("article")[0]["text"]
    printed = sum(len(row.published.get("mosi", {})) for row in case.spec.rows)
    counts = [int(one["text"].split()[1]) for one in tree.all("li") if "article" in one["inside"] and "t-" in (one.get("class") or "")]
    assert printed == sum(counts) == 2 and "None of the 2 printed numbers" in card
    contents = [one["text"] for one in tree.all("a") if "nav" in one["inside"]]
    assert "T1 · CMU-MOSI, random" in contents and "T1 · CMU-MOSI, by video" in contents


def test_parts_are_used_again_and_leave_with_their_protocol(case: Case, tmp_path: Path) -> None:
    first = parts_of(case, tmp_path)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "tables").iterdir()}
    assert parts_of(case, tmp_path) == first and files == {path: path.stat().st_mtime_ns for path in files}
    (document.folder(tmp_path) / "made_t1_mosi-tiny--2.json").unlink()
    assert parts_of(case, tmp_path) == first and len(document.read_all(tmp_path)) == 2
    case.spec = case.spec.model_copy(update={"protocol": (Scheme(kind="grouped", folds=3),)})
    case.plan = {row: [trial for trial in trials if trial.identity.fold.protocol == "grouped"] for row, trials in case.plan.items()}
    (alone,) = parts_of(case, tmp_path)
    assert (alone.protocol, alone.title) == ("", "Made up") and document.read_all(tmp_path) == [alone]


def test_figures_are_of_one_protocol_each(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Confusion matrices add up folds of different sizes to all clips."""
    pytest.importorskip("matplotlib")
    case.spec = case.spec.model_copy(update={"metrics": ("mae", "corr", "acc7"), "heads": {"acc7": "Seven"}})
    seen: list[dict[str, Any]] = []
    real = confusion.confusion
    monkeypatch.setattr(confusion, "confusion", lambda counts, *rest: seen.append(counts) or real(counts, *rest))
    parts = parts_of(case, tmp_path, ("svg",))
    stems = [{figure.stem for figure in part.figures} for part in parts]
    assert stems[0] and not stems[0] & stems[1] and all((tmp_path / f"{stem}.svg").exists() for stem in stems[0] | stems[1])
    assert len(seen) == 2 and all(int(np.sum(matrix)) == CLIPS for counts in seen for matrix in counts.values())
    assert parts[0].columns[2].label == "Seven" and parts[0].columns[2].header.startswith("Seven")
    told = tell(case.spec, case.card, BUDGETS["quick"], case.plan, case.store, resamples=100)
    assert len(told.blocks) == 2 and of_tables._label(told, metrics["acc7"]) == "Seven, %"


def test_ranks_are_drawn_per_protocol(case: Case, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    parts = parts_of(case, tmp_path)
    others = [part.model_copy(update={"dataset": "mosei", "data": "mosei@tiny"}) for part in parts]
    drawn = list(of_tables.of_paper([*parts, *others]))
    assert [one.kind for one in drawn] == ["t1_ranks", "t1--2_ranks"]
    assert "(random)" in drawn[0].text and "(by video)" in drawn[1].text


# ---- all papers

SCORES = """
title = "Scores"
datasets = ["mosi"]
metrics = ["mae"]
seeds = [1]
[[rows]]
name = "LMF"
method = "lmf"
published.mosi = { mae = 0.900 }
"""


@pytest.fixture
def place(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three papers: scores and costs on a data set that is there, scores on one that is not."""
    monkeypatch.setattr(table_files, "roots", lambda: [place / "reports"])
    stored(place / "data", name="mosi")
    write(place, SCORES, "one/t1")
    write(place, test_cost_tables.SPEC, "costly/t9")
    write(place, SCORES.replace("mosi", "iemocap4").replace('"mae"', '"accuracy"').replace("mae = 0.900", "accuracy = 70.0"), "two/t1")
    return place


def test_a_report_without_a_target_is_of_all_papers_and_repeats_itself(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, first, err = call(capsys, "report")
    assert code == 0, err
    assert "one_t1_mosi.md" in first and "costly_t9_mosi.md" in first and "two is left out" in first
    assert {path.name for path in (place / "results" / "tables").glob("*.md")} == {"one_t1_mosi.md", "costly_t9_mosi.md"}
    tree = Tree((place / "results" / "index.html").read_text())
    assert [one["data-table"] for one in tree.all("table", class_="numbers")] == ["costly_t9_mosi", "one_t1_mosi"]
    made, real = [], gathering.report
    monkeypatch.setattr(gathering, "report", lambda *a: made.append(1) or real(*a))
    code, again, err = call(capsys, "report")
    assert code == 0 and not made and "Nothing has changed" in again, err
    for line in (line for line in first.splitlines() if line.startswith(("LMF", "Written", "Cited", "Audio"))):
        assert line in again
    (place / "results" / "costs").mkdir()
    (place / "results" / "costs" / "costly_t9.json").write_text(json.dumps({}))
    assert call(capsys, "report")[0] == 0 and made == [1], "what was counted and timed since"
    (place / "results" / "tables" / "costly_t9_mosi.tex").unlink()
    assert call(capsys, "report")[0] == 0 and made == [1, 1] and (place / "results" / "tables" / "costly_t9_mosi.tex").exists()


def test_where_no_paper_can_be_rendered_the_first_ones_error_is_told(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, "report", "--methods", "lmff")
    assert code == 2 and "lmff" in err
    code, out, err = call(capsys, "report", "--data", "mosi@none")
    assert code == 2 and "mosi@none" in err
    code, _, err = call(capsys, "report", "two")
    assert code == 2 and "iemocap4" in err
