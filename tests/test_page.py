"""The page: what it says of tables, that it needs nothing but itself, and what is made again when something changes."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from test_tables import SEEDS, Case, a_case, a_spec

from harness.commands.rendering import Renderer
from harness.experiments.workspace import Workspace
from harness.reporting import compare
from harness.reporting.describe import Places, describe, describe_audit
from harness.reporting.layout import build_lines
from harness.reporting.links import mlflow_pages
from harness.reporting.page import compose, document, freshness
from harness.reporting.page.document import CellPart, ColumnPart, RowPart, RunPart, Shown, TablePart
from harness.reporting.texts import Told
from harness.training.settings import BUDGETS

VOID = {"meta", "link", "input", "br", "img", "hr", "path", "use", "rect", "line", "circle", "ellipse", "polygon", "polyline"}


class Tree(HTMLParser):
    """Elements with their attributes and text; every element that is opened must be closed in its order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[dict] = []
        self.elements: list[dict] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs) -> None:
        element = {"tag": tag, "text": "", "inside": [one["tag"] for one in self.open], **dict(attrs)}
        assert len(attrs) == len(dict(attrs)), f"an attribute twice: {tag} {attrs}"
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs) -> None:
        self.elements.append({"tag": tag, "text": "", "inside": [one["tag"] for one in self.open], **dict(attrs)})

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID and (not self.open or self.open[-1]["tag"] != tag):
            return
        assert self.open and self.open[-1]["tag"] == tag, f"</{tag}> closes {self.open[-1]['tag'] if self.open else 'nothing'}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        for one in self.open:
            one["text"] += data

    def all(self, tag: str, **attributes: str) -> list[dict]:
        return [one for one in self.elements if one["tag"] == tag and all(one.get(key.rstrip("_")) == v for key, v in attributes.items())]


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return a_case(tmp_path)


def part_of(case: Case, pages: dict[str, str] | None = None) -> TablePart:
    measured = case.measured()
    family = compare.compare_rows(case.spec, measured, resamples=200, seed=0)
    told = Told(case.spec, case.card, BUDGETS["quick"], measured, family, 200)
    lines = build_lines(case.spec, "mosi", measured, family)
    return describe(told, lines, case.plan, Places(case.store, pages or {}), ("tables/x.md",))


def page_of(*parts: TablePart, root: Path = Path("nowhere")) -> tuple[str, Tree]:
    text = compose.compose(parts, root)
    return text, Tree(text)


def details_of(tree: Tree) -> dict:
    return json.loads(tree.all("script", id="details")[0]["text"])


def a_table(rows: int, *, columns: int = 7, runs: int = 5, name: str = "big") -> TablePart:
    """A table of made-up numbers, as large as one likes."""
    heads = tuple(ColumnPart(name=f"m{i}", label=f"Metric {i}", header=f"Metric {i} ↑", higher_is_better=True) for i in range(columns))
    made = []
    for row in range(rows):
        shown = [Shown(text=f"{row / 7 + i:.3f}", spread="0.012", value=row / 7 + i) for i in range(columns)]
        cells = tuple(
            CellPart(published=one, measured=one, difference="+0.0", gap=0.0, outcome="reproduced", reason="measured minus published +0.0")
            for one in shown
        )
        keys = [RunPart(key=f"{row * runs + i:020x}", unit=f"seed {i}", state="finished", values=("0.1",) * columns) for i in range(runs)]
        made.append(RowPart(name=f"Model {row}", finished=runs, expected=runs, cells=cells, runs=tuple(keys)))
    common = {"title": "Many", "caption": "", "legend": "", "citation": "", "data_title": "CMU-MOSI", "budget": "quick", "reference": ""}
    return TablePart(paper="made", item=name, dataset="mosi", data="mosi", simulated=False, columns=heads, rows=tuple(made), **common)


# ---- what is said of a table


def test_cells_hold_both_numbers_their_difference_and_the_test(case: Case) -> None:
    part = part_of(case)
    weak = next(row for row in part.rows if row.name == "Weak_1")
    own = case.measured()["Weak_1"].mean("mae")
    cell = weak.cells[0]
    assert cell.published and cell.measured and (cell.published.text, cell.published.value) == ("0.900", 0.9)
    assert cell.measured.value == pytest.approx(own) and cell.gap == pytest.approx(own - 0.9)
    assert cell.difference == f"{own - 0.9:+.3f}"
    assert cell.outcome == "not comparable" and "other modalities" in cell.reason
    assert cell.test.startswith("worse against Strong: difference +")
    floor = next(row for row in part.rows if row.name == "ridge")
    assert floor.floor and floor.cells[0].published is None and floor.cells[0].outcome == ""
    only = next(row for row in part.rows if row.name == "Only | cited")
    assert (only.expected, only.runs, only.published) == (None, (), "cited") and only.cells[0].outcome == "open"


def test_runs_lead_to_their_records_and_to_mlflow(case: Case) -> None:
    case.fail("Weak_1", 2)
    case.lose("Weak_1", 3)
    key = case.plan["Weak_1"][0].key
    part = part_of(case, {key: "http://127.0.0.1:5000/#/experiments/1/runs/a"})
    weak = next(row for row in part.rows if row.name == "Weak_1")
    assert [run.state for run in weak.runs] == ["finished", "failed", "not run"]
    assert weak.runs[0].mlflow.endswith("/runs/a") and weak.runs[0].key == key
    assert (weak.finished, weak.expected) == (1, 3)
    tree = page_of(part)[1]
    table = details_of(tree)[part.name]
    place = [row["name"] for row in table["rows"]].index("Weak_1")
    assert table["rows"][place]["runs"][0][0] == key and table["rows"][place]["runs"][1][3] == "diverged: training loss is nan in epoch 3"
    (failure,) = [one for one in tree.all("a") if one["href"].endswith("failure.json")]
    assert failure["href"] == f"records/{case.plan['Weak_1'][1].key}/failure.json"
    assert (case.store.root.parent / failure["href"]).exists()


def test_the_page_agrees_with_its_parts(case: Case) -> None:
    part = part_of(case)
    tree = page_of(part)[1]
    (table,) = tree.all("table", **{"data-table": part.name})
    cells = [one for one in tree.all("td") if "c" in (one.get("class") or "").split()]
    assert len(cells) == len(part.rows) * len(part.columns)
    flat = [cell for row in part.rows for cell in row.cells]
    for shown, cell in zip(cells, flat, strict=True):
        for key, value in (
            ("data-p", cell.published and cell.published.value),
            ("data-m", cell.measured and cell.measured.value),
            ("data-d", cell.gap),
        ):
            assert shown[key] == ("" if value is None else f"{value:.6g}")
        assert shown["text"].endswith(f", {cell.outcome}") == (cell.outcome not in ("", "open"))
    heads = [one for one in tree.all("th") if one.get("aria-sort")]
    assert [one["text"] for one in heads] == ["Model", "Runs", *(column.header for column in part.columns)]


def test_simulated_data_is_marked_wherever_it_shows(tmp_path: Path) -> None:
    case = a_case(tmp_path, simulated=True)
    text, tree = page_of(part_of(case))
    assert "Simulated data:" in text and "SIMULATED DATA" in tree.all("h3", id="h-made_t1_mosi-tiny")[0]["text"]
    assert all("SIM" in one["text"] for one in tree.all("span", class_="m") + tree.all("span", class_="m best") if "n/a" not in one["text"])
    assert tree.all("section", id="made_t1_mosi-tiny")[0]["class"] == "table simulated"
    assert details_of(tree)["made_t1_mosi-tiny"]["simulated"] is True
    real = page_of(part_of(a_case(tmp_path / "real")))[0]
    assert "SIM<" not in real and "Simulated data:" not in real


def test_the_audit_is_the_audits(case: Case) -> None:
    found = describe_audit("iidaf")
    assert found and found.count == sum(len(items) for _, items in found.findings) > 5
    assert describe_audit("made") is None
    part = part_of(case).model_copy(update={"paper": "iidaf"})
    text = compose.compose([part], Path("nowhere"), {"iidaf": document.PaperPart(audit=found)})
    for _, items in found.findings:
        assert all(where in text for where, _ in items)


# ---- one file that stands alone


def test_nothing_is_loaded_from_anywhere(case: Case) -> None:
    text, tree = page_of(part_of(case))
    assert "default-src 'none'" in text
    for one in tree.elements:
        assert one["tag"] not in ("iframe", "object", "embed", "img"), one
        assert "src" not in one and not (one["tag"] == "link" and one["href"] != "data:,")
    for one in tree.all("a"):
        target = one["href"]
        assert target.startswith(("#", "records/", "figures/", "tables/")), target
        assert not target.startswith("#") or tree.all("section", id=target[1:]) or tree.all("main", id=target[1:]), target


def test_names_are_once_and_headings_step_by_one(case: Case) -> None:
    tree = page_of(part_of(case), a_table(3))[1]
    ids = [one["id"] for one in tree.elements if "id" in one]
    assert len(ids) == len(set(ids))
    levels = [int(one["tag"][1]) for one in tree.elements if re.fullmatch("h[1-6]", one["tag"]) and "dialog" not in one["inside"]]
    assert levels[0] == 1 and levels.count(1) == 1 and all(b - a <= 1 for a, b in zip(levels, levels[1:], strict=False))
    for one in tree.all("section"):
        assert one["aria-labelledby"] in ids


def test_text_of_any_kind_stays_text(tmp_path: Path) -> None:
    text = '</script><img src=x onerror=alert(1)> & "q" \u2028'
    case = a_case(tmp_path)
    rows = tuple(row.model_copy(update={"notes": text, "citation": text}) for row in case.spec.rows)
    case.spec = case.spec.model_copy(update={"title": text, "rows": rows, "citation": text})
    page, tree = page_of(part_of(case))
    assert "<img" not in page and text in details_of(tree)["made_t1_mosi-tiny"]["rows"][0]["about"]
    assert text in tree.all("h3", id="h-made_t1_mosi-tiny")[0]["text"]
    assert len(tree.all("script")) == 2


def test_five_hundred_rows_fit(tmp_path: Path) -> None:
    text, tree = page_of(a_table(500))
    assert len(text.encode()) < 5_000_000 / 2
    assert len(tree.all("tr")) > 500


def test_figures_stand_inside_until_the_page_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    svg = (
        '<?xml version="1.0"?>\n<!DOCTYPE svg>\n<svg xmlns="http://www.w3.org/2000/svg" width="9"><metadata>2020</metadata>\n'
        '<defs><clipPath id="p"/></defs>\n<path clip-path="url(#p)" d="M 1.23456 2.5"/><use href="#p"/></svg>'
    )
    for name in ("a", "b"):
        (tmp_path / "figures").mkdir(exist_ok=True)
        (tmp_path / "figures" / f"{name}.svg").write_text(svg)
    figures = tuple(document.FigurePart(stem=f"figures/{name}", title=name, text="", formats=("svg", "pdf")) for name in "ab")
    part = a_table(1).model_copy(update={"figures": figures})
    text, tree = page_of(part, root=tmp_path)
    assert [one["id"] for one in tree.all("clippath")] == ["figures-a-p", "figures-b-p"]
    assert "url(#figures-a-p)" in text and 'href="#figures-b-p"' in text and "M 1.23 2.5" in text and "2020" not in text
    assert all(one["aria-hidden"] == "true" for one in tree.all("svg"))
    assert [one["href"] for one in tree.all("a") if one["text"] == "PDF"] == ["figures/a.pdf", "figures/b.pdf"]
    room = 7 * compose.CELL_BYTES + len(tree.all("script", id="details")[0]["text"])
    monkeypatch.setattr(compose, "PAGE_BYTES", room + len(compose.inline_svg(svg, "figures/a")))
    tree = page_of(part, root=tmp_path)[1]
    assert len(tree.all("svg")) == 1 and [one["href"] for one in tree.all("a") if one["text"] == "Open the figure"] == ["figures/b.svg"]


def test_an_empty_results_folder_has_a_page_that_says_what_to_type() -> None:
    assert "harness reproduce" in page_of()[0]


# ---- the summary


def test_a_papers_numbers_are_counted_and_the_worst_named(case: Case) -> None:
    part = a_table(2)
    cells = [[("worse", "a"), ("reproduced", "b")], [("open", "not measured"), ("not comparable", "simulated data")]]
    rows = tuple(
        row.model_copy(update={"cells": tuple(row.cells[i].model_copy(update={"outcome": o, "reason": r}) for i, (o, r) in enumerate(own))})
        for row, own in zip(part.rows, cells, strict=True)
    )
    part = part.model_copy(update={"rows": rows, "columns": part.columns[:2]})
    text, tree = page_of(part)
    card = tree.all("article")[0]["text"]
    assert "Of 2 printed numbers that can be compared, 1 was reproduced" in card
    assert "Model 0 (BIG, mosi): Metric 0" in card
    assert "1 without a verdict: not measured" in card and "1 without a verdict: simulated data" in card


def test_parts_are_sorted_as_a_reader_counts(tmp_path: Path) -> None:
    for name in ("t10", "t9", "f2"):
        part = a_table(1, name=name)
        document.write(document.folder(tmp_path) / f"{part.name}.json", part)
    (document.folder(tmp_path) / "old.json").write_text('{"format": 0}')
    assert [part.item for part in document.read_all(tmp_path)] == ["f2", "t9", "t10"]
    assert document.read_all(tmp_path)[0] == a_table(1, name="f2")


# ---- what is made again


@pytest.fixture
def renderer(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Renderer:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Renderer(Workspace(tmp_path), ())


def rendered(renderer: Renderer, case: Case, monkeypatch: pytest.MonkeyPatch) -> tuple[TablePart, int]:
    """The part, and how often the table was really made."""
    from harness.commands import rendering

    made, real = [], rendering.render
    monkeypatch.setattr(rendering, "render", lambda *a, **k: made.append(1) or real(*a, **k, resamples=200))
    (part,) = renderer.table(case.spec, case.card, BUDGETS["quick"], case.plan)
    monkeypatch.setattr(rendering, "render", real)
    return part, len(made)


def test_a_table_is_made_again_when_what_it_is_made_from_changes(renderer: Renderer, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    first, made = rendered(renderer, case, monkeypatch)
    assert made == 1 and rendered(renderer, case, monkeypatch) == (first, 0)
    case.put("Weak_1", 1, [0.1] * 60)
    second, made = rendered(renderer, case, monkeypatch)
    assert made == 1 and second.rows != first.rows
    case.fail("Weak_1", 1)
    assert rendered(renderer, case, monkeypatch)[1] == 1
    Path(renderer.workspace.root / first.files[0]).unlink()
    assert rendered(renderer, case, monkeypatch)[1] == 1
    case.spec = case.spec.model_copy(update={"alpha": 0.01})
    assert rendered(renderer, case, monkeypatch)[1] == 1
    monkeypatch.setattr(freshness, "code", lambda: "other code")
    assert rendered(renderer, case, monkeypatch)[1] == 1 and rendered(renderer, case, monkeypatch)[1] == 0


def test_what_was_reused_is_what_would_be_made(renderer: Renderer, case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rendered(renderer, case, monkeypatch)
    page = renderer.page().read_bytes()
    assert renderer.page().read_bytes() == page
    (document.folder(tmp_path) / "made_t1_mosi-tiny.json").unlink()
    rendered(renderer, case, monkeypatch)
    assert renderer.page().read_bytes() == page


def test_figures_are_drawn_in_the_formats_asked_for(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    part, _ = rendered(Renderer(Workspace(tmp_path), ("svg", "png")), case, monkeypatch)
    assert {figure.stem.rpartition("_")[2] for figure in part.figures} == {"runs", "cost"}
    for figure in part.figures:
        assert (tmp_path / f"{figure.stem}.svg").exists() and (tmp_path / f"{figure.stem}.png").exists()
        assert not (tmp_path / f"{figure.stem}.pdf").exists()
    assert rendered(Renderer(Workspace(tmp_path), ("svg", "png")), case, monkeypatch)[1] == 0
    assert rendered(Renderer(Workspace(tmp_path), ("svg",)), case, monkeypatch)[1] == 1
    tree = Tree((Renderer(Workspace(tmp_path), ("svg",)).page()).read_text())
    assert len(tree.all("svg")) == 2
    for one in tree.all("a"):
        assert one["href"].startswith("#") or (tmp_path / one["href"]).exists(), one["href"]


def test_two_data_sets_make_a_diagram_of_ranks(case: Case) -> None:
    pytest.importorskip("matplotlib")
    from harness.reporting.figures import of_tables

    part = part_of(case)
    other = part.model_copy(update={"dataset": "mosei", "data": "mosei@tiny"})
    assert list(of_tables.of_paper([part])) == []
    (drawn,) = of_tables.of_paper([part, other])
    labels = [one.get_label() for one in drawn.drawing.figure().axes[0].lines]
    means = {row.name: row.cells[0].measured.value for row in part.rows if row.expected}
    order = sorted(means, key=means.__getitem__)
    ranks = {label: one.get_xdata()[0] for label, one in zip(labels, drawn.drawing.figure().axes[0].lines, strict=True) if label in means}
    assert [ranks[name] for name in order] == [1, 2, 3, 4] and drawn.kind == "t1_ranks"


def test_rows_of_different_weights_make_a_curve_beside_the_printed_one(case: Case) -> None:
    pytest.importorskip("matplotlib")
    from harness.reporting.figures import of_tables

    weights = {"Weak_1": 0.25, "Strong": 0.75}
    rows = [
        row.model_copy(update={"config": {"input_weights.audio": weights[row.name]}} if row.name in weights else {})
        for row in case.spec.rows
    ]
    case.spec = case.spec.model_copy(update={"rows": tuple(rows)})
    measured = case.measured()
    told = Told(case.spec, case.card, BUDGETS["quick"], measured, compare.compare_rows(case.spec, measured, resamples=200, seed=0), 200)
    (drawn,) = [one for one in of_tables.of_table(told) if one.kind == "weights"]
    own, printed = drawn.drawing.figure().axes[0].lines
    assert own.get_xdata().tolist() == [0.25, 0.75] and printed.get_ydata().tolist() == [0.9, 0.8]
    assert own.get_ydata() == pytest.approx([measured[name].mean("mae") for name in weights])
    case.lose("Strong", 3)
    told = Told(case.spec, case.card, BUDGETS["quick"], case.measured(), told.family, 200)
    assert not [one for one in of_tables.of_table(told) if one.kind == "weights"], "a row with missing runs is no point"


# ---- without PyTorch


def test_a_report_that_repeats_imports_neither_torch_nor_numpy(tmp_path: Path) -> None:
    document.write(document.folder(tmp_path) / "made_big_mosi.json", a_table(2))
    program = (
        "import sys; from pathlib import Path; import harness.cli, harness.commands.reporting\n"
        "from harness.reporting.page import compose, document\n"
        f"root = Path({str(tmp_path)!r}); print(compose.write(root, document.read_all(root), document.read_papers(root)))\n"
        "assert not {'torch', 'numpy', 'pandas', 'matplotlib', 'mlflow'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Model 1" in (tmp_path / "index.html").read_text()


# ---- MLflow


def test_runs_are_found_in_mlflows_database(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE tags (key, value, run_uuid)")
        database.execute("CREATE TABLE runs (run_uuid, experiment_id, lifecycle_stage, start_time)")
        database.executemany(
            "INSERT INTO tags VALUES (?, ?, ?)", [("trial_key", "k", "new"), ("trial_key", "k", "old"), ("x", "k2", "new")]
        )
        database.executemany("INSERT INTO runs VALUES (?, ?, ?, ?)", [("new", 3, "active", 2), ("old", 2, "active", 1)])
        database.execute("INSERT INTO tags VALUES ('trial_key', 'gone', 'dead')")
        database.execute("INSERT INTO runs VALUES ('dead', 1, 'deleted', 1)")
    database.close()
    assert mlflow_pages(f"sqlite:///{path}") == {"k": "http://127.0.0.1:5000/#/experiments/3/runs/new"}
    assert mlflow_pages("http://127.0.0.1:5000") == {} == mlflow_pages(f"sqlite:///{tmp_path / 'none.db'}")
    (tmp_path / "other.db").write_text("no database at all, but a longer text than a header")
    assert mlflow_pages(f"sqlite:///{tmp_path / 'other.db'}") == {}


def test_a_table_file_that_changes_changes_the_page(
    case: Case, renderer: Renderer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered(renderer, case, monkeypatch)
    case.spec = a_spec(
        tmp_path, "title = 'Another name'\n" + Path(tmp_path / "reports/made/t1.toml").read_text().replace('title = "Made up"', "")
    )
    assert rendered(renderer, case, monkeypatch)[1] == 1
    assert "Another name" in renderer.page().read_text() and len(SEEDS) == 3
