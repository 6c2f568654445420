"""Several systems on several data sets, in words and tables: what a critical-difference diagram draws."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan

import numpy as np
from tabulate import tabulate

from harness.analysis.statistics import Diagram, Scores
from harness.reporting.layout import number, p_value
from harness.training.metrics import Metric


def ranking_text(found: Diagram, scores: Scores, metric: Metric, notes: Sequence[str]) -> str:
    """Scores, mean ranks from the best to the worst, Friedman's test, groups that do not differ, p of each pair."""
    values = np.asarray(scores.values, dtype=np.float64)
    table = [[data, *(number(float(value), metric) for value in row)] for data, row in zip(scores.datasets, values, strict=True)]
    ranks = [[name, f"{rank:.2f}"] for name, rank in zip(found.systems, found.mean_ranks, strict=True)]
    pairs = [[name, *map(p_value, row)] for name, row in zip(found.systems, found.p, strict=True)]
    parts = [
        f"# {metric.label} over {len(scores.datasets)} data sets",
        _grid(table, ["data set", *scores.systems]),
        _overall(found),
        _grid(ranks, ["system", "mean rank"]),
        "\n".join(f"- Not told apart: {', '.join(clique)}." for clique in found.cliques),
        f"p of each pair, {found.post_hoc}, adjusted for all pairs:",
        _grid(pairs, ["", *found.systems]),
        "\n".join(f"- {note}." for note in [found.note, *notes] if note),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _overall(found: Diagram) -> str:
    test, distance = found.friedman, found.critical_difference
    said = f"Friedman: F({test.df[0]}, {test.df[1]}) = {test.f:.2f} (Iman and Davenport), p {p_value(test.p)}; chi-squared {test.chi2:.2f}"
    return f"{said}." if isnan(distance) else f"{said}. Critical difference of mean ranks at {found.alpha:g}: {distance:.2f} (Nemenyi)."


def _grid(rows: Sequence[Sequence[str]], heads: Sequence[str]) -> str:
    return tabulate(rows, heads, tablefmt="github", disable_numparse=True, colalign=("left", *["right"] * (len(heads) - 1)))
