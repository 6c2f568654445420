"""The papers' tables: a second transcription, cell by cell; every row's settings; what the tables hold.

The literals are the lines of the papers' texts, read anew; marks of typesetting are left out. ``-`` is a cell that the paper
leaves empty, and ``x/y`` are the two halves of an Acc-2 or F1 (neg/non-neg, neg/pos).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from test_tables import a_card, table_lines

from harness.analysis.audit import published
from harness.data.catalogue import facts
from harness.data.splits import Fold
from harness.experiments import papers
from harness.experiments.papers import Published, TableSpec
from harness.experiments.records import RecordStore
from harness.experiments.trials import resolve_config
from harness.reporting.markdown import escape
from harness.reporting.tables import render
from harness.training.contract import methods
from harness.training.settings import BUDGETS

REPORTS = Path(__file__).parents[1] / "reports"

# item -> columns ("acc2", "f1": both halves), then the rows: name as printed, cells
PRINTED = {
    "mikl/t4": (
        "mae acc7 acc2_nonzero f1_nonzero",
        """
标准 LSTM | 0.945 53.85 85.05 84.95
-互信息特征选择 | 0.836 53.53 85.39 85.47
-互信息自适应窗口 | 0.834 54.11 85.61 85.64
-跨模态一致性最大 | 0.733 53.4 84.94 84.95
MIKL | 0.700 46.65 86.06 85.98
""",
    ),
    "mikl/t5": (
        "mae acc7 acc2_nonzero f1_nonzero",
        """
0.0 1.0 | 0.820 50.5 83.0 82.5
0.2 0.8 | 0.780 52.5 84.5 84.0
0.4 0.6 | 0.750 53.5 85.2 84.8
0.5 0.5 | 0.730 54.0 85.5 85.0
0.6 0.4 | 0.770 52.8 84.8 84.3
0.8 0.2 | 0.800 51.5 83.8 83.2
1.0 0.0 | 0.840 49.8 82.5 82.0
""",
    ),
    "mikl/t6": (
        "recall_0 f1_0 recall_1 f1_1 recall_2 f1_2 recall_3 f1_3 recall_4 f1_4 recall_5 f1_5",
        """
0.0 1.0 | 30.56 35.63 56.73 62.90 57.55 53.00 59.41 59.24 52.84 58.85 65.88 59.41
0.2 0.8 | 25.00 30.38 55.92 62.41 52.86 52.39 61.76 59.83 55.52 60.25 71.13 60.69
0.4 0.6 | 22.22 29.91 58.78 64.57 62.76 57.38 64.71 63.04 58.86 63.42 67.19 60.81
0.5 0.5 | 25.69 33.18 75.10 78.80 58.59 59.21 64.75 65.28 80.27 71.86 61.15 58.91
0.6 0.4 | 28.56 36.99 55.15 63.91 59.71 51.27 61.15 60.36 53.47 60.46 67.11 61.21
0.8 0.2 | 23.34 31.45 56.77 64.14 53.76 53.04 62.96 61.47 56.48 61.88 72.81 62.61
1.0 0.0 | 23.03 30.47 59.25 65.25 64.47 59.12 63.02 62.87 59.85 65.12 68.57 59.06
""",
    ),
    "mkcc/t3": (
        "accuracy f1_weighted",
        """
3DRexNent50 | 62.99 63.02
1D CNN | 56.53 58.34
Averaging | 68.82 68.57
Concat + FC | 71.04 72.56
MMTM | 73.12 73.37
MSAF | 74.86 76.95
MERC | 75.57 76.89
MKCC | 75.62 77.23
""",
    ),
    "mkcc/t4": (
        "accuracy f1_weighted",
        """
CNN | 56.53 58.34
KAN -- | 72.21 74.24
KAN(单尺度)+Attention 3×3 | 72.35 74.40
KAN(单尺度)+Attention 5×5 | 72.40 74.50
KAN(单尺度)+Attention 7×7 | 72.45 74.60
KAN(双尺度)+Attention 3×3, 5×5 | 74.10 75.80
KAN(双尺度)+Attention 3×3, 7×7 | 74.20 75.90
KAN(双尺度)+Attention 5×5, 7×7 | 74.25 76.00
KAN(多尺度)+Attention 3×3, 5×5, 7×7 | 75.62 77.23
""",
    ),
    "mkcc/t5": (
        "accuracy f1_weighted",
        """
0 0 1.00 | 73.50 75.52
0.25 0.25 0.75 | 74.10 76.01
0.50 0.50 0.50 | 75.62 77.23
0.75 0.75 0.25 | 74.80 76.80
1.00 1.00 0 | 72.80 74.85
""",
    ),
    "iidaf/t4": (
        "accuracy f1_weighted",
        """
TFN-BERT | 68.57 -
TFN | 64.71 -
MISA | 70.61 -
FDMER | 71.87 -
FRDIN | 71.82 -
MISA• | 67.80±0.20 67.91±0.18
本模型 | 71.91±0.16† 71.71±0.13†
""",
    ),
    "iidaf/t5": (
        "mae corr acc2 f1 acc7",
        """
v | 1.411 0.133 55.7/58.1 39.8/42.7 16.1
t | 0.726 0.786 80.6/82.7 80.5/82.5 44.7
a | 1.450 0.041 41.9/44.3 24.8/27.2 15.2
a+v | 0.720 0.124 55.7/58.2 39.7/42.6 16.0
t+v | 0.724 0.797 83.3/85.5 82.1/84.0 45.6
a+t | 0.723 0.797 81.3/83.1 81.2/83.1 44.9
a+t+v | 0.722 0.798 83.2/85.3 83.1/85.3 45.8
""",
    ),
    "iidaf/t6": (
        "mae corr acc2 f1 acc7",
        """
w/o IAM D | 0.755 0.767 81.5/83.5 81.4/83.5 45.4
w/o MIC | 0.759 0.762 81.3/83.7 81.1/83.1 44.5
w/o SGAFF | 0.756 0.762 81.3/83.5 81.1/83.5 44.5
本模型 | 0.722 0.798 83.2/85.3 83.1/85.3 45.8
""",
    ),
    "iidaf/t7": (
        "mae corr acc2 f1 acc7",
        """
w/o L_S | 0.745 0.786 83.3/83.9 83.2/84.3 43.2
w/o L_H | 0.737 0.784 82.1/83.1 83.9/84.3 44.1
w/o L_RE | 0.738 0.796 83.6/84.8 83.7/84.2 44.9
w/o L_IN | 0.741 0.792 83.4/84.1 82.2/82.5 46.3
w/o L_MI | 0.746 0.785 82.5/83.2 83.5/83.6 43.5
本模型 | 0.722 0.798 83.2/85.3 83.1/85.3 45.8
""",
    ),
    "iidaf/t8": (
        "mae corr acc2_nonzero f1_nonzero acc7",
        """
MFSA(w/o 共享) | 0.871 0.712 81.8 82.4 39.2
MFSA(w/o 特有) | 0.898 0.708 81.2 81.5 38.6
MFSA | 0.856 0.722 83.3 83.7 41.4
MISA(w/o 共享) | 0.858 0.716 - - -
MISA(w/o 特有) | 0.850 0.735 - - -
MISA | 0.783 0.761 83.4 83.6 42.3
本模型(w/o 共享) | 0.788 0.746 81.2 81.1 42.1
本模型(w/o 特有) | 0.779 0.761 82.2 82.4 43.1
本模型 | 0.722 0.798 85.3 85.3 45.8
""",
    ),
    "amcm/t1": (
        "accuracy",
        """
空间邻接矩阵 784×784 | 92.98
空间邻接矩阵 256×256 | 93.26
空间邻接矩阵 196×196 | 93.04
空间邻接矩阵 64×64 | 90.51
时间邻接矩阵 16×16 | 94.86
时间邻接矩阵 8×8 | 93.26
""",
    ),
    "amcm/t2": (
        "accuracy",
        """
① FLDW 0.5 | 94.72
② FLDW 1 | 95.13
③ FLDW 2 | 96.22
④ FLDW 3 | 94.46
⑤ CEL — | 94.86
⑥ FL 2 | 95.32
⑦ WFL 2 | 95.89
⑧ CFL 2 | 95.44
""",
    ),
    "amcm/t3": (
        "accuracy",
        """
① × × × | 91.68
② √ × × | 94.86
③ √ √ × | 95.07
④ √ √ √ | 96.22
""",
    ),
    "amcm/t4": (
        "accuracy",
        """
文献[7] | 98.73
文献[27] | 86.89
文献[8] | 90.82
文献[31] | 80.23
文献[30] | 81.70
文献[32] | 97.07
文献[9] | 87.20
本文方法 | 96.22
""",
    ),
    "amcm/t5": (
        "accuracy",
        """
文献[33] | 79.00
文献[34] | 97.57
文献[16] | 80.08
文献[17] | 86.70
文献[22] | 90.00
文献[10] | 86.00
文献[5] | 87.89
Ours | 97.55
""",
    ),
}
ELSEWHERE = {"iidaf/t3", "mikl/t1", "mikl/t2"}  # transcribed in test_papers.py
OURS = sorted("/".join(place) for place in papers.items())


def spec_of(name: str) -> TableSpec:
    return papers.read(REPORTS / f"{name}.toml")


def shown(cell: Published | None) -> str:
    if cell is None:
        return "-"
    return f"{cell.mean}" + (f"±{cell.std}" if cell.std is not None else "") + ("†" if cell.dagger else "")


def printed(name: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Rows in the paper's order: name as printed, metric -> cell."""
    columns, text = PRINTED[name]
    for line in text.strip().splitlines():
        row, cells = line.split(" | ")
        found: dict[str, str] = {}
        for column, cell in zip(columns.split(), cells.split(), strict=True):
            halves = cell.split("/")
            found |= {column: cell} if len(halves) == 1 else dict(zip((f"{column}_nonneg", f"{column}_nonzero"), halves, strict=True))
        yield row, found


@pytest.mark.parametrize("name", PRINTED)
def test_a_file_says_what_the_paper_prints(name: str) -> None:
    spec = spec_of(name)
    (dataset,) = spec.datasets
    stored = [
        (row.printed or row.name, {metric: shown(row.published[dataset].get(metric)) for metric in spec.metrics})
        for row in spec.rows
        if row.published
    ]
    assert stored == list(printed(name))
    assert spec.kind == ("comparison" if name in ("mkcc/t3", "iidaf/t4", "amcm/t4", "amcm/t5") else spec.kind)


def test_every_table_of_the_papers_is_transcribed_twice() -> None:
    assert {*PRINTED, *ELSEWHERE} == {*OURS}


@pytest.mark.parametrize("name", [*PRINTED, *sorted(ELSEWHERE)])
def test_the_audit_reads_the_same_numbers(name: str) -> None:
    """The audit's own transcription, row by row: a slip would have to be made three times."""
    spec, (paper, item) = spec_of(name), name.split("/")
    mine = [
        [shown(row.published[dataset].get(metric)) for metric in spec.metrics]
        for dataset in spec.datasets
        for row in spec.rows
        if row.published
    ]
    theirs = [list(row[1:]) for table in published.load(paper).tables if table.item.lower() == item for row in table.rows]
    assert mine == theirs


# ---- settings


@pytest.mark.parametrize("name", OURS)
def test_the_settings_of_every_row_are_settings_of_its_method(name: str) -> None:
    spec = spec_of(name)
    for row in spec.rows:
        assert row.method is None or row.method in methods, f"{row.name}: no method '{row.method}'"
        assert row.method or not row.config, f"{row.name} has settings and no method"
        for dataset in spec.datasets if row.method else ():
            for budget in BUDGETS.values():
                resolve_config(methods[row.method], dataset, budget, "cpu", row.config)


@pytest.mark.parametrize("name", [name for name in PRINTED if spec_of(name).kind != "comparison"])
def test_rows_of_an_ablation_differ_in_what_is_run(name: str) -> None:
    """Two rows of the same runs would be told apart by nothing; AMCM's Table 1 has one size in both halves."""
    spec = spec_of(name)
    runs = [(row.method, row.modalities, resolved(spec, row.method, row.config)) for row in spec.rows if row.method]
    twins = {"amcm/t1": 1}.get(name, 0)
    assert len({repr(run) for run in runs}) == len(runs) - twins


def resolved(spec: TableSpec, method: str, config: dict[str, object]) -> object:
    return resolve_config(methods[method], spec.datasets[0], BUDGETS["paper"], "cpu", config)


@pytest.mark.parametrize("name", [name for name in PRINTED if spec_of(name).kind == "robustness"])
def test_weights_of_a_row_are_those_of_its_name_and_add_up_to_one(name: str) -> None:
    for row in spec_of(name).rows:
        audio, vision = (Decimal(str(row.config[f"input_weights.{modality}"])) for modality in ("audio", "vision"))
        assert audio + vision == 1 and audio == Decimal(re.findall(r"\d\.?\d*", row.name)[0])


def test_what_the_ablations_take_away() -> None:
    """Each row changes what its name says, and nothing else."""
    expected = {
        "mikl/t4": [{"recurrent": "lstm"}, {"selection": []}, {"window": []}, {"consistency": False}, {}],
        "iidaf/t6": [{"iamd": False}, {"mic": False}, {"sgaff": False}, {}],
        "iidaf/t7": [
            {"weights.similarity": 0.0},
            {"weights.independence": 0.0},
            {"weights.reconstruction": 0.0},
            {"weights.inversion": 0.0},
            {"weights.relevance": 0.0, "weights.redundancy": 0.0},
            {},
        ],
        "iidaf/t8": [*[{}] * 6, {"uses": "specific"}, {"uses": "shared"}, {}],
    }
    for name, configs in expected.items():
        assert [row.config for row in spec_of(name).rows] == configs
    sizes = [(row.config["grid"] ** 2, row.config["steps"]) for row in spec_of("amcm/t1").rows]
    assert sizes == [(784, 8), (256, 8), (196, 8), (64, 8), (256, 16), (256, 8)]
    kernels = [sorted(row.config.get("kernels.vision", ())) for row in spec_of("mkcc/t4").rows[3:]]
    assert kernels == [[3], [5], [7], [3, 5], [3, 7], [5, 7], []]
    subsets = [set(row.modalities or ()) for row in spec_of("iidaf/t5").rows]
    letters = {"t": "text", "a": "audio", "v": "vision"}
    assert subsets == [{letters[letter] for letter in row.name.split("+")} for row in spec_of("iidaf/t5").rows]


# ---- protocols


def test_protocols_side_by_side() -> None:
    for item in ("t1", "t2", "t3", "t4", "t5"):
        schemes = spec_of(f"amcm/{item}").protocol
        assert [(scheme.kind, len(scheme.cuts())) for scheme in schemes] == [("stratified", 5), ("grouped", 5)]
    for item in ("t3", "t4", "t5"):
        draws, six, shipped = spec_of(f"mkcc/{item}").protocol
        assert draws.cuts() == [Fold(protocol="holdout", groups=(16, 4, 4), repeat=number) for number in range(5)]
        assert [(fold.protocol, fold.of) for fold in six.cuts()] == [("consecutive", 6)] * 6
        assert len(shipped.cuts()) == len(facts("ravdess").folds) == 5 and shipped.kind == "published"
    (sessions,) = spec_of("mikl/t6").protocol
    assert len(sessions.cuts()) == 5 and facts("iemocap6").groups_are == "session"


def test_emotions_are_in_the_order_of_the_classes() -> None:
    heads = spec_of("mikl/t6").heads
    for number, emotion in enumerate(facts("iemocap6").task.classes):
        assert heads[f"recall_{number}"] == f"{emotion}, Acc-2" and heads[f"f1_{number}"] == f"{emotion}, F1"


@pytest.mark.parametrize("name", OURS)
def test_every_table_has_a_reference_that_is_measured_a_source_and_a_citation(name: str) -> None:
    spec = spec_of(name)
    reference = spec.row(spec.reference or "")
    assert reference is not None and reference.method
    assert spec.citation and spec.source.startswith("Table " + spec.item[1:])


@pytest.mark.parametrize("name", OURS)
def test_every_table_renders_before_anything_was_run(name: str, tmp_path: Path) -> None:
    spec = spec_of(name)
    for dataset in spec.datasets:
        known = facts(dataset)
        card = a_card().model_copy(update={"name": f"{dataset}@tiny", "dataset": dataset, "title": known.title, "task": known.task})
        found = render(spec, card, BUDGETS["paper"], {}, RecordStore(tmp_path / "records"), tmp_path)
        text = found.markdown.read_text(encoding="utf-8")
        lines = table_lines(text)
        assert [line[0] for line in lines] == [escape(row.name) for row in spec.rows] and {len(line) for line in lines} == {
            2 + len(spec.metrics)
        }
        numbers = sum(len(row.published.get(dataset, {})) for row in spec.rows)
        assert sum(cell not in ("–", "?") for line in lines for cell in line[2:]) == numbers
        assert all(escape(scheme.described) in text for scheme in spec.protocol)
        assert all(escape(finding.text) in text for finding in spec.findings_on(dataset))
