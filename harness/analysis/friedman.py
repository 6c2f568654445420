"""Several systems on several data sets: Friedman's test, Nemenyi or Wilcoxon-Holm after it, and a critical-difference diagram.

The unit is the data set: one score per system and data set (a mean over seeds or folds). Nothing is assumed of the
scores of different data sets but that a better one is better. Source: Demsar 2006 (JMLR 7:1-30).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb, factorial, inf, nan, prod, sqrt
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import chdtrc, fdtrc

from harness.analysis.classical import holm, tied, wilcoxon
from harness.analysis.effects import midranks
from harness.errors import DataError
from harness.training.metrics import Floats

PostHoc = Literal["Nemenyi", "Wilcoxon-Holm"]


@dataclass(frozen=True, eq=False)
class Scores:
    """One score per data set and system: ``values`` (N, k)."""

    values: ArrayLike
    systems: Sequence[str]
    datasets: Sequence[str]
    higher_is_better: bool = True

    def table(self) -> Floats:
        """(N, k), higher is better. Raises ``DataError`` for a shape or a hole that cannot be ranked, naming it."""
        x = np.asarray(self.values, dtype=np.float64)
        if x.shape != (len(self.datasets), len(self.systems)) or min(x.shape) < 2:
            raise DataError(
                f"scores of shape {x.shape} for {len(self.datasets)} data sets and {len(self.systems)} systems",
                "Give one score for each of at least two systems on each of at least two data sets.",
            )
        if not np.isfinite(x).all():
            row, column = np.argwhere(~np.isfinite(x))[0]
            raise DataError(
                f"{self.systems[column]} has no score on {self.datasets[row]}: systems are ranked on the same data sets",
                "Finish the missing runs, or leave out the system or the data set, and say so.",
            )
        return x if self.higher_is_better else -x

    def ranks(self) -> Floats:
        """(N, k): 1 is the best system of a data set; ties, also but for rounding, share the mean of their ranks."""
        table = self.table()
        return np.stack([midranks(-tied(row, float(np.abs(row).max()))) for row in table])


@dataclass(frozen=True)
class Friedman:
    """Friedman's chi-squared (corrected for ties) and Iman and Davenport's F of it, whose ``p`` is the one to use."""

    chi2: float
    chi2_p: float
    f: float
    df: tuple[int, int]
    p: float
    mean_ranks: tuple[float, ...]
    datasets: int
    note: str = ""


def friedman(scores: Scores) -> Friedman:
    """Do the systems differ on the population of data sets?

    chi2 = (k-1) sum_j (R_j - N(k+1)/2)^2 / (sum r^2 - N k (k+1)^2 / 4), R_j rank sums; F = (N-1) chi2 / (N(k-1) - chi2)
    with k-1 and (k-1)(N-1) degrees of freedom (Iman and Davenport 1980). Where all data sets agree F is infinite and p
    the chance of that, (k!)^(1-N) without ties; where all scores tie p is 1.
    """
    ranks = scores.ranks()
    n, k = ranks.shape
    means = tuple(map(float, ranks.mean(axis=0)))
    spread = float(np.square(ranks).sum()) - n * k * (k + 1) ** 2 / 4
    df = (k - 1, (k - 1) * (n - 1))
    if spread <= 0:
        return Friedman(0.0, 1.0, 0.0, df, 1.0, means, n, "all systems tie on all data sets")
    chi2 = (k - 1) * float(np.square(ranks.sum(axis=0) - n * (k + 1) / 2).sum()) / spread
    rest = n * (k - 1) - chi2
    if rest <= 1e-9 * chi2:
        note = "all data sets rank the systems alike"
        return Friedman(chi2, float(chdtrc(k - 1, chi2)), inf, df, _arrangements(ranks[0]) ** (1.0 - n), means, n, note)
    f = (n - 1) * chi2 / rest
    return Friedman(chi2, float(chdtrc(k - 1, chi2)), f, df, float(fdtrc(*df, f)), means, n)


def _arrangements(ranks: Floats) -> int:
    """In how many ways the systems could have had these ranks: k! where none tie."""
    return factorial(len(ranks)) // prod(factorial(count) for count in np.unique(ranks, return_counts=True)[1].tolist())


# ---- which pairs?


def critical_difference(systems: int, datasets: int, alpha: float = 0.05) -> float:
    """Mean ranks further apart than this differ: q / sqrt(2) * sqrt(k (k+1) / (6 N)), q the studentized range's quantile."""
    from scipy.stats import studentized_range  # takes a second to import

    return float(studentized_range.ppf(1 - alpha, systems, inf)) / sqrt(2) * _rank_error(systems, datasets)


def nemenyi(scores: Scores) -> Floats:
    """p of each pair of systems, (k, k), 1 on the diagonal; adjusted for all pairs by itself."""
    from scipy.stats import studentized_range

    means = scores.ranks().mean(axis=0)
    apart = np.abs(means[:, None] - means) / _rank_error(len(means), len(scores.datasets)) * sqrt(2)
    p: Floats = np.asarray(studentized_range.sf(apart, len(means), inf), dtype=np.float64).clip(0, 1)
    np.fill_diagonal(p, 1.0)
    return p


def _rank_error(systems: int, datasets: int) -> float:
    """Standard error of the difference of two mean ranks."""
    return sqrt(systems * (systems + 1) / (6 * datasets))


def wilcoxon_holm(scores: Scores) -> Floats:
    """Holm's adjusted p of each pair's exact Wilcoxon test over data sets, (k, k), 1 on the diagonal.

    Unlike Nemenyi's, the verdict on a pair does not depend on who else is in the table, but for the size of the family
    (Benavoli, Corani and Mangili 2016).
    """
    table = scores.table()
    pairs = list(combinations(range(table.shape[1]), 2))
    adjusted = holm([wilcoxon(table[:, i], table[:, j]).p for i, j in pairs])
    p = np.ones((table.shape[1], table.shape[1]))
    for (i, j), value in zip(pairs, adjusted, strict=True):
        p[i, j] = p[j, i] = value
    return p


def default_post_hoc(systems: int, datasets: int, alpha: float = 0.05) -> PostHoc:
    """Wilcoxon-Holm where its smallest p, 2^(1-N) times the number of pairs, can reach ``alpha``; Nemenyi otherwise."""
    return "Wilcoxon-Holm" if comb(systems, 2) * 0.5 ** (datasets - 1) < alpha else "Nemenyi"


# ---- the diagram


@dataclass(frozen=True)
class Diagram:
    """What a critical-difference diagram draws. ``systems`` and ``mean_ranks`` from the best to the worst.

    ``cliques``: the largest sets of at least two systems of which no two differ, in rank order; a bar each. ``p``: of
    each pair, in the order of ``systems``, adjusted. ``critical_difference``: Nemenyi only, else NaN.
    """

    systems: tuple[str, ...]
    mean_ranks: tuple[float, ...]
    cliques: tuple[tuple[str, ...], ...]
    p: tuple[tuple[float, ...], ...]
    post_hoc: PostHoc
    critical_difference: float
    alpha: float
    friedman: Friedman
    note: str = ""


def diagram(scores: Scores, *, alpha: float = 0.05, post_hoc: PostHoc | None = None) -> Diagram:
    """Friedman's test and, if it rejects, the pairs that differ; if it does not, all systems form one clique.

    ``post_hoc``: ``default_post_hoc`` of the table's size if not stated. Raises ``DataError`` as ``Scores.table`` does.
    """
    overall = friedman(scores)
    n, k = overall.datasets, len(scores.systems)
    chosen = post_hoc or default_post_hoc(k, n, alpha)
    order = np.argsort(overall.mean_ranks, kind="stable")
    p = (nemenyi(scores) if chosen == "Nemenyi" else wilcoxon_holm(scores))[np.ix_(order, order)]
    differ = (p < alpha) & (overall.p < alpha)
    names = tuple(scores.systems[i] for i in order)
    return Diagram(
        systems=names,
        mean_ranks=tuple(overall.mean_ranks[i] for i in order),
        cliques=tuple(tuple(names[i] for i in clique) for clique in _cliques(differ)),
        p=tuple(tuple(map(float, row)) for row in p),
        post_hoc=chosen,
        critical_difference=critical_difference(k, n, alpha) if chosen == "Nemenyi" else nan,
        alpha=alpha,
        friedman=overall,
        note=_caution(n, k, alpha, chosen, overall),
    )


def _cliques(differ: NDArray[np.bool_]) -> list[list[int]]:
    """Maximal sets of at least two systems without a differing pair, by their first members (Bron and Kerbosch 1973)."""
    alike = [set(np.flatnonzero(~row).tolist()) - {i} for i, row in enumerate(differ)]
    found: list[list[int]] = []

    def grow(chosen: list[int], candidates: set[int], seen: set[int]) -> None:
        if not candidates and not seen and len(chosen) > 1:
            found.append(sorted(chosen))
        pivot = max(candidates | seen, key=lambda one: len(alike[one] & candidates), default=0)
        for one in sorted(candidates - alike[pivot]):
            grow([*chosen, one], candidates & alike[one], seen & alike[one])
            candidates, seen = candidates - {one}, seen | {one}

    grow([], set(range(len(alike))), set())
    return sorted(found)


def _caution(n: int, k: int, alpha: float, chosen: PostHoc, overall: Friedman) -> str:
    said = [overall.note] if overall.note else []
    if overall.p >= alpha:
        said.append("Friedman's test finds no difference: no pair is looked at")
    if chosen == "Wilcoxon-Holm" and default_post_hoc(k, n, alpha) != chosen:
        said.append(f"with {n} data sets no adjusted Wilcoxon p can fall below {min(1.0, comb(k, 2) * 0.5 ** (n - 1)):g}")
    return "; ".join(said)
