"""LaTeX: how numbers align and are marked; and that a real TeX sets every table, where one is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from test_tables import a_case

from harness.reporting import siunitx
from harness.reporting.layout import Cell
from harness.reporting.tables import RenderedTable

DOCUMENT = r"""
\documentclass{article}
\usepackage{booktabs,longtable,siunitx,graphicx}
\begin{document}
%s
\end{document}
"""
NEEDED = ("article.cls", "booktabs.sty", "longtable.sty", "siunitx.sty", "graphicx.sty")


def typeset(folder: Path, *sources: Path) -> str:
    """What pdfTeX says of a document with these tables; skips the test where TeX or a package is missing."""
    if not shutil.which("pdflatex"):
        pytest.skip("pdflatex is not installed (Debian: texlive-latex-recommended and texlive-science)")
    found = subprocess.run(["kpsewhich", *NEEDED], capture_output=True, text=True).stdout.split()
    if len(found) < len(NEEDED):
        pytest.skip(f"LaTeX packages are missing, there are only {found} (Debian: texlive-latex-recommended and texlive-science)")
    (folder / "all.tex").write_text(DOCUMENT % "\n".join(rf"\input{{{source}}}" for source in sources))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "all.tex"]
    for _ in range(2):  # longtable settles the widths of its columns in the second run
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=120)
    log = (folder / "all.log").read_text(errors="replace")
    assert done.returncode == 0 and (folder / "all.pdf").exists(), log[-3000:]
    return log


def tables(folder: Path) -> list[RenderedTable]:
    """One of real and one of simulated data, with a failed run and lost ones."""
    cases = [a_case(folder / "real"), a_case(folder / "simulated", simulated=True)]
    cases[1].fail("Weak_1", 2)
    cases[1].lose("ridge", 3)
    return [case.render(folder / f"out{number}") for number, case in enumerate(cases)]


def test_a_real_tex_sets_tables_without_a_complaint(tmp_path: Path) -> None:
    log = typeset(tmp_path, *(table.latex for table in tables(tmp_path)))
    assert not re.search(r"^(?:! |Overfull \\hbox|LaTeX Warning: (?!.*multiply.defined))", log, re.MULTILINE), log[-3000:]
    assert not re.search(r"Missing character", log)


def test_a_wide_table_is_shrunk_to_the_line(tmp_path: Path) -> None:
    """Seven metrics with deviations do not fit a column of text as they are."""
    case = a_case(tmp_path)
    names = ("mae", "corr", "acc2_nonneg", "acc2_nonzero", "f1_nonneg", "f1_nonzero", "acc7")
    rows = tuple(row.model_copy(update={"published": {}}) for row in case.spec.rows)
    case.spec = case.spec.model_copy(update={"metrics": names, "rows": rows, "holes": ()})
    assert r"Overfull \hbox" not in typeset(tmp_path, case.render(tmp_path / "out").latex)


@pytest.mark.parametrize(
    ("numbers", "behind", "column"),
    [
        (["0.900", "1.0", "–"], [], "S[table-format=1.3]"),
        (["80.8", "100", "?"], [], "S[table-format=3.1]"),
        (["+0.1", "12.25"], [], "S[table-format=+2.2]"),
        (["12"], [], "S[table-format=2.0]"),
        (["–", "n/a"], [], "r"),
        (["0.9"], ["", r"\,x", "y"], r"S[table-format=1.1, table-space-text-post={\,x}]"),
    ],
)
def test_columns_have_room_for_their_longest_number(numbers: list[str], behind: list[str], column: str) -> None:
    assert siunitx.column(numbers, behind) == column


def test_numbers_keep_their_printed_digits_and_the_line_reaches_the_number() -> None:
    """A deviation has digits of its own; the line goes back over the decimals that the number lacks."""
    assert siunitx.cell("81.4", 2, "0.31") == r"81.4 {\,\ensuremath{\pm}\,0.31}"
    assert siunitx.cell("81.4", 2, "0.31", "best", True) == r"\bfseries 81.4 {\mdseries\,\ensuremath{\pm}\,0.31\ensuremath{^{\dagger}}}"
    assert siunitx.cell("70.0", 2, mark="second") == r"70.0 {\llap{\underline{\phantom{70.0}}\phantom{0}}}"
    assert siunitx.cell("70", 2, mark="second") == r"70 {\llap{\underline{\phantom{70}}\phantom{.00}}}"
    assert siunitx.cell("70.00", 2, mark="second") == r"70.00 {\llap{\underline{\phantom{70.00}}}}"
    assert siunitx.cell("70", 0) == "70" == Cell("70").text
