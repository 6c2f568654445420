"""Table files: the transcription of the paper, what is refused, what a target selects."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from harness.errors import ConfigError
from harness.experiments import papers, toml_lines
from harness.training.metrics import metrics

CHECKOUT = Path(__file__).parents[1]

MINIMAL = """
title = "A table"
datasets = ["mosi"]
metrics = ["mae", "acc2_nonzero"]
seeds = [1, 2]

[[rows]]
name = "A"
method = "tfn"
published.mosi = { mae = 0.900, acc2_nonzero = { mean = 80.8, std = 0.10, dagger = true } }

[[rows]]
name = "B"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, text: str = MINIMAL, place: str = "mine/t1") -> Path:
    path = folder / "reports" / f"{place}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


# ---- the transcription of IIDAF's Table 3, a second time, in the paper's own layout

COLUMNS = ("mae", "corr", "acc2", "f1", "acc7")
PRINTED = """
TFN-BERT | 0.901 | 0.698 | -/80.8 | -/80.7 | 34.9 | 0.593 | 0.700 | -/82.5 | -/82.1 | 50.2
LMF | 0.912 | 0.668 | 76.4/- | 75.7/- | 32.8 | 0.623 | 0.677 | -/82.5 | -/82.1 | 48.0
MulT | 0.871 | 0.698 | -/83.0 | -/82.8 | 40.0 | 0.580 | 0.703 | -/82.5 | -/82.3 | 51.8
Liu et al. | 0.769 | 0.783 | -/83.7 | -/84.2 | - | 0.573 | 0.741 | -/85.0 | -/85.0 | -
MFSA | 0.856 | 0.722 | -/83.3 | -/83.7 | 41.4 | 0.574 | 0.734 | -/83.8 | -/83.6 | 53.2
DMD | - | - | -/83.5 | -/83.5 | 41.9 | - | - | -/84.8 | -/84.7 | 54.6
PS-Mixer | 0.794 | 0.748 | 80.3/82.1 | 80.3/82.1 | 44.3 | 0.537 | 0.765 | 83.1/86.1 | 83.1/86.1 | 53.0
TMBL | 0.867 | 0.762 | 81.7/83.8 | 82.4/84.2 | 36.3 | 0.545 | 0.766 | 84.2/85.8 | 84.8/85.9 | 52.4
MER-CLIP | - | - | -/84.0 | -/84.0 | - | - | - | -/85.3 | -/85.1 | -
MISA | 0.828±0.004 | 0.728±0.011 | 79.9±0.33/- | 79.9±0.18/- | 40.8±0.25 | 0.555±0.004 | 0.750±0.004 | 84.0±0.16/- | 83.8±0.13/- | 50.5±0.36
DLF | 0.740±0.012 | 0.785±0.010 | 81.4±0.31/- | 81.4±0.20/- | 44.5±0.21 | 0.540±0.006 | 0.764±0.003 | 83.6±0.25/- | 84.2±0.15/- | 52.3±0.34
IIDAF | 0.722±0.004† | 0.798±0.003† | 83.8±0.34/85.3±0.26† | 83.7±0.22/85.3±0.21† | 45.8±0.14† \
| 0.531±0.003 | 0.779±0.002† | 83.8±0.16†/85.2±0.13† | 84.2±0.17/85.2±0.10† | 53.2±0.28†
"""


def printed_cells() -> Iterator[tuple[tuple[str, str, str], str]]:
    """(row, data set, metric) -> what the paper prints."""
    for line in PRINTED.strip().splitlines():
        name, *cells = (cell.strip() for cell in line.split("|"))
        for place, text in enumerate(cells):
            dataset, column = ("mosi", "mosei")[place // 5], COLUMNS[place % 5]
            halves = zip((f"{column}_nonneg", f"{column}_nonzero"), text.split("/"), strict=True) if "/" in text else [(column, text)]
            yield from (((name, dataset, metric), half) for metric, half in halves if half != "-")


def as_printed(cell: papers.Published) -> str:
    return f"{cell.mean}" + (f"±{cell.std}" if cell.std is not None else "") + ("†" if cell.dagger else "")


def test_the_file_of_iidaf_t3_says_what_the_paper_prints() -> None:
    spec = papers.read(CHECKOUT / "reports" / "iidaf" / "t3.toml")
    stored = {
        (row.name, dataset, metric): as_printed(cell)
        for row in spec.rows
        for dataset, cells in row.published.items()
        for metric, cell in cells.items()
    }
    assert stored == dict(printed_cells())
    assert [row.name for row in spec.rows] == list(dict.fromkeys(key[0] for key, _ in printed_cells()))


def test_iidaf_t3_states_its_protocol_and_its_holes() -> None:
    spec = papers.read(CHECKOUT / "reports" / "iidaf" / "t3.toml")
    assert (spec.seeds, spec.reference, spec.floors) == ((42, 1, 11, 111, 1111), "DLF", ("majority", "ridge"))
    assert [row.name for row in spec.rows if row.rerun] == ["MISA", "DLF", "IIDAF"]
    assert all((cell.std is not None) == row.rerun for row in spec.rows for cells in row.published.values() for cell in cells.values())
    lost = {(row, metric) for hole in spec.holes for row in hole.rows for metric in hole.metrics}
    assert lost == {(row, metric) for row in ("MISA", "DLF") for metric in ("acc2_nonzero", "f1_nonzero")}
    assert len(spec.findings_on("mosi")) > len(spec.findings_on("mosei")) > 0


# ---- reading


def test_numbers_keep_their_digits_and_percentages_become_fractions(folder: Path) -> None:
    cells = papers.read(write(folder)).rows[0].published["mosi"]
    assert str(cells["mae"].mean) == "0.900" and cells["mae"].value == 0.9 and cells["mae"].deviation is None
    percent = cells["acc2_nonzero"]
    assert (percent.value, percent.deviation, percent.dagger) == (0.808, 0.001, True)
    assert percent.mean == Decimal("80.8")


def test_the_settings_of_a_row_are_floats(folder: Path) -> None:
    text = MINIMAL + 'method = "lmf"\nmodalities = ["text"]\n[rows.config]\n"training.learning_rate" = 0.5\nlayers = [1, 0.25]\n'
    row = papers.read(write(folder, text)).rows[1]
    assert row.config == {"training.learning_rate": 0.5, "layers": [1, 0.25]}
    assert isinstance(row.config["training.learning_rate"], float) and row.modalities == ("text",)


FAULTS = {
    "unknown key": ('title = "A table"', 'title = "A table"\ntitel = "A table"', ("titel", "Did you mean 'title'")),
    "unknown key of a row": ('name = "B"', 'name = "B"\nmethode = "tfn"', ("rows.1.methode", "Did you mean 'method'")),
    "place is no key": ('title = "A table"', 'title = "A table"\npaper = "mine"', ("paper", "mine")),
    "unknown metric": (
        '"mae", "acc2_nonzero"]',
        '"mae", "acc2_nonzero", "acc2_nonzer"]',
        ("metrics", "acc2_nonzer", "Did you mean 'acc2_nonzero'"),
    ),
    "metric without column": ("mae = 0.900", "mae = 0.9, corr = 0.1", ("corr", "metric of this table")),
    "unknown data set": ('["mosi"]', '["mosy"]', ("datasets", "mosy", "Did you mean 'mosi'")),
    "published for another data set": ("published.mosi", "published.mosei", ("mosei", "data set of this table")),
    "accuracy over 100": ("mean = 80.8", "mean = 808", ("rows 'A'.published.mosi.acc2_nonzero", "808", "0 to 100")),
    "accuracy as a fraction": ("mean = 80.8", "mean = 0.808", ("acc2_nonzero", "0.808", "as printed: 80.8")),
    "negative error": ("mae = 0.900", "mae = -0.9", ("mae", "-0.9", "out of range")),
    "not a number": ("mae = 0.900", "mae = nan", ("mae", "NaN")),
    "negative deviation": ("std = 0.10", "std = -0.1", ("std", "-0.1")),
    "text for a number": ("mae = 0.900", 'mae = "low"', ("mae", "low")),
    "truth for a number": ("mae = 0.900", "mae = true", ("mae", "True")),
    "twice the same row": ('name = "B"', 'name = "A"', ("rows.name", "'A'", "twice")),
    "a row named as a floor": ('name = "B"', 'name = "ridge"', ("rows.name", "'ridge'", "twice")),
    "twice the same seed": ("[1, 2]", "[1, 1]", ("seeds", "1", "twice")),
    "no seed": ("[1, 2]", "[]", ("seeds",)),
    "unknown reference": ("seeds =", 'reference = "C"\nseeds =', ("reference", "'C'", "Known: A, B")),
    "alpha": ("seeds =", "alpha = 5\nseeds =", ("alpha", "5")),
    "unknown modality": ('name = "B"', 'name = "B"\nmodalities = ["video"]', ("modalities", "video")),
    "hole where a number stands": (
        "[[rows]]",
        '[[holes]]\nrows = ["A"]\nmetrics = ["mae"]\nreason = "x"\n\n[[rows]]',
        ("holes", "A, mosi, mae"),
    ),
    "hole in no row": ("[[rows]]", '[[holes]]\nrows = ["Z"]\nmetrics = ["mae"]\nreason = "x"\n\n[[rows]]', ("holes.rows", "'Z'")),
    "unknown kind": ("seeds =", 'kind = "ablations"\nseeds =', ("kind", "ablations", "robustness")),
    "head of no column": ("seeds =", 'heads = { corr = "r" }\nseeds =', ("heads", "corr", "metric of this table")),
    "two heads alike": ("seeds =", 'heads = { mae = "E", acc2_nonzero = "E" }\nseeds =', ("heads", "'E'", "twice")),
    "no TOML": ("[[rows]]", "[[rows]", ("cannot be read",)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_file_is_refused_naming_file_key_and_value(folder: Path, fault: str) -> None:
    old, new, wanted = FAULTS[fault]
    assert old in MINIMAL
    path = write(folder, MINIMAL.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        papers.read(path)
    for part in (str(path), *wanted):
        assert part in str(caught.value)
    lines = path.read_text(encoding="utf-8").splitlines()
    named = re.search(r"t1\.toml, line (\d+): |at line (\d+)", str(caught.value))
    assert named
    assert set(lines[int(named[1] or named[2]) - 1].split("\n")) & changed_lines(new, lines)


def changed_lines(new: str, lines: list[str]) -> set[str]:
    """The lines of the file that hold the changed text, and the header of the row that holds it."""
    text = "\n".join(lines)
    start = text.index(new)
    first, last = text[:start].count("\n"), text[: start + len(new)].count("\n")
    return {*lines[first : last + 1], *(["[[rows]]"] if "[[rows" in new else [])}


@pytest.mark.parametrize("name", [name for name in metrics if name != "mae"])
def test_no_metric_but_an_error_exceeds_its_largest_value(folder: Path, name: str) -> None:
    over = "100.1" if metrics[name].percent else "1.001"
    text = (
        MINIMAL.replace('["mae", "acc2_nonzero"]', f'["{name}"]')
        .replace("{ mae = 0.900, acc2_nonzero =", f"{{ {name} =")
        .replace("80.8", over)
    )
    with pytest.raises(ConfigError, match="out of range"):
        papers.read(write(folder, text))


LONG = """title = "x"
notes = \'\'\'
mae = 3
[[rows]]
\'\'\'
metrics = [
  "mae", # one
  "corr",
]

[[rows]]
name = "A"
[rows.config]
"a.b" = 1
[[rows]]
name = "B"
published.mosi = { mae = 1, corr = 2 }
"""


@pytest.mark.parametrize(
    ("place", "value", "line"),
    [
        (("title",), "x", 1),
        (("metrics",), "corr", 8),
        (("metrics", 0), "mae", 7),
        (("rows", 0), None, 11),
        (("rows", 0, "method"), None, 11),
        (("rows", 0, "config", "a", "b"), 1, 13),
        (("rows", 1, "name"), "B", 16),
        (("rows", 1, "published", "mosi", "corr", "mean"), "2", 17),
        (("rows", 1, "published", "mosi", "mae"), "1", 17),
        (("rows", 2), None, None),
        (("nothing",), None, None),
        (("mae",), 3, None),
    ],
)
def test_lines_are_found_in_any_layout(place: tuple[str | int, ...], value: object, line: int | None) -> None:
    """Multi-line strings hold no keys; lists and inline tables are searched inside."""
    assert toml_lines.line_of(LONG, place, value) == line


# ---- where files are, and what a target selects


def test_tables_of_the_working_folder_stand_beside_the_papers_and_before_them(folder: Path) -> None:
    write(folder)
    write(folder, place="iidaf/t3")
    assert {("mine", "t1"), ("iidaf", "t3"), ("mikl", "t1")} < set(papers.items()) and papers.items() == sorted(papers.items())
    assert papers.load("iidaf", "t3").title == "A table"  # the working folder's, not the paper's
    assert papers.load("mikl", "t1").title != "A table"


def test_without_reports_in_the_working_folder_those_of_the_project_are_found(folder: Path) -> None:
    (folder / "reports").mkdir()
    assert ("iidaf", "t3") in papers.items()
    assert papers.load("iidaf", "t3").name == "iidaf/t3"


def test_a_target_is_a_paper_an_item_or_a_data_set(folder: Path) -> None:
    write(folder)
    write(folder, MINIMAL.replace('["mosi"]', '["mosei", "mosi"]'), "mine/t2")
    write(folder, MINIMAL.replace('"mosi"', '"mosei"').replace("published.mosi", "published.mosei"), "other/t1")

    def names(target: str) -> list[tuple[str, tuple[str, ...]]]:
        found = [(spec, datasets) for spec, datasets in papers.select(target) if spec.paper in ("mine", "other")]
        return [(spec.name, datasets) for spec, datasets in found]

    assert names("mine") == [("mine/t1", ("mosi",)), ("mine/t2", ("mosei", "mosi"))]
    assert names("mine/t2") == [("mine/t2", ("mosei", "mosi"))]
    assert names("mosei") == [("mine/t2", ("mosei",)), ("other/t1", ("mosei",))]


@pytest.mark.parametrize(
    ("target", "hint"),
    [("mosy", "'mosi'"), ("min", "'mine'"), ("mine/t2", "'mine/t1'"), ("mine/", "mine/t1"), ("", "mosi"), ("../mine/t1", "mine/t1")],
)
def test_an_unknown_target_is_answered_with_the_nearest_and_all_names(folder: Path, target: str, hint: str) -> None:
    write(folder)
    with pytest.raises(ConfigError) as caught:
        papers.select(target)
    assert f"'{target}'" in caught.value.problem and hint in caught.value.fix


# ---- some rows only


def test_rows_left_out_are_cited_and_named(folder: Path) -> None:
    spec = papers.read(write(folder, MINIMAL + 'method = "lmf"\n'))
    (part,) = papers.only([spec], ["lmf"])
    assert [row.method for row in part.rows] == [None, "lmf"]
    assert [row.published for row in part.rows] == [row.published for row in spec.rows]
    assert [finding.text for finding in part.findings_on("mosi")] == ["Left out of this run by --methods: A."]
    assert papers.only([spec], ["tfn", "lmf"]) == [spec]
    assert papers.only([spec], ["ridge"])[0].floors == spec.floors
    with pytest.raises(ConfigError, match="--methods lfm: no row of mine/t1") as error:
        papers.only([spec], ["lfm"])
    assert "Did you mean 'lmf'" in str(error.value)


def test_rows_that_lack_a_modality_are_cited_and_named(folder: Path) -> None:
    spec = papers.read(write(folder, MINIMAL + 'method = "lmf"\nmodalities = ["audio", "vision"]\n'))
    part = papers.present(spec, ["text", "audio"], "mosi@minilm")
    assert [row.method for row in part.rows] == ["tfn", None]
    assert [finding.text for finding in part.findings_on("mosi")] == ["Not run, since mosi@minilm has text, audio only: B."]
    assert papers.present(spec, ["text", "audio", "vision"], "mosi") == spec


# ---- the transcription of MIKL's Tables 1 and 2, a second time

MIKL = {
    "t1": """
TFN 0.901 34.9 80.8 80.7
LMF 0.917 33.2 82.5 82.4
MFM 0.877 39.0 83.0 83.0
MuT 0.861 42.63 84.1 83.9
MISA 0.804 43.26 82.10 82.03
LNLN 0.713 45.79 85.98 85.95
MIKL 0.700 46.65 86.06 85.98
""",
    "t2": """
TFN 0.593 50.2 82.5 82.1
LMF 0.623 48.0 82.0 82.1
MFM 0.568 51.3 84.4 84.3
MuT 0.580 51.5 82.5 82.3
MISA 0.568 52.67 85.2 85.1
LNLN 0.530 53.46 85.17 85.30
MIKL 0.526 54.24 85.97 85.94
""",
}


@pytest.mark.parametrize("item", MIKL)
def test_mikl_tables_hold_what_is_printed(item: str) -> None:
    spec = papers.read(CHECKOUT / "reports" / "mikl" / f"{item}.toml")
    (dataset,) = spec.datasets
    rows = [
        " ".join([row.printed or row.name, *(as_printed(row.published[dataset][metric]) for metric in spec.metrics)])
        for row in spec.rows
        if row.published
    ]
    assert rows == MIKL[item].strip().splitlines()
    assert spec.metrics == ("mae", "acc7", "acc2_nonzero", "f1_nonzero")
