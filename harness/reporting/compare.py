"""Every measured row against the reference row, in every metric: one declared family, adjusted together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan, nan
from typing import Literal

import numpy as np

from harness.analysis.statistics import Comparison, Pair, compare, compare_seeds_only, holm
from harness.experiments.papers import TableSpec
from harness.experiments.records import Record, RecordError
from harness.reporting.collect import Measured, Unit
from harness.training.metrics import Metric, metrics

Verdict = Literal["better", "worse", "inconclusive", "not tested"]


@dataclass(frozen=True)
class Tested:
    """One row against the reference in one metric.

    ``main`` is the test that the design calls for, ``conditional`` the t-test over seeds that papers report, which
    holds for this test set only; both None where the rows share no finished run. ``adjusted``: Holm's p of ``main``.
    """

    row: str
    metric: str
    pairs: int
    expected: int
    main: Comparison | None
    conditional: Comparison | None
    adjusted: float = nan

    def verdict(self, alpha: float) -> Verdict:
        """What the adjusted p says; ``better`` and ``worse`` in the metric's own direction."""
        if self.main is None or isnan(self.adjusted):
            return "not tested"
        if self.adjusted >= alpha or self.main.difference == 0:
            return "inconclusive"
        return "better" if (self.main.difference > 0) == metrics[self.metric].higher_is_better else "worse"


@dataclass(frozen=True)
class Family:
    """All tests of one data set's table. Its size is declared: compared rows times metrics, whether or not a test could be made."""

    reference: str | None
    why: str
    tests: tuple[Tested, ...]

    def find(self, row: str, metric: str) -> Tested | None:
        return next((test for test in self.tests if (test.row, test.metric) == (row, metric)), None)

    @property
    def rows(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(test.row for test in self.tests))


def compare_rows(spec: TableSpec, measured: Mapping[str, Measured], *, resamples: int, seed: int) -> Family:
    """Tests of every measured row against the reference row; ``seed`` is the base seed of the resamples."""
    reference, why = choose_reference(spec, measured)
    if reference is None:
        return Family(None, why, ())
    others = [row for row in measured.values() if row.name != reference]
    tests = [test for row in others for test in _against(row, measured[reference], spec.metrics, resamples, seed)]
    return Family(reference, why, tuple(_adjusted(tests)))


def choose_reference(spec: TableSpec, measured: Mapping[str, Measured]) -> tuple[str | None, str]:
    """The row that others are tested against, and why it is another one than the table's file names, if so.

    That is the best measured row by the first metric, floors left out; complete rows go before incomplete ones.
    """
    wanted = measured.get(spec.reference) if spec.reference else None
    if wanted is not None and wanted.finished:
        return wanted.name, ""
    first = metrics[spec.metrics[0]]
    rows = [row for row in measured.values() if row.name not in spec.floors and not isnan(row.mean(first.name))]
    rows = [row for row in rows if row.complete] or rows
    missing = f"the table's reference row {spec.reference} has no finished run" if spec.reference else "the table names no reference row"
    if not rows:
        return None, f"{missing}, and there is no other row to take its place"
    best = (max if first.higher_is_better else min)(rows, key=lambda row: row.mean(first.name))
    return best.name, (
        f"{missing}: {best.name} stands in for it, the best measured row by {first.label}. "
        "It was chosen by its score on the test split, which flatters it in these comparisons"
    )


def _against(row: Measured, reference: Measured, names: Sequence[str], resamples: int, seed: int) -> list[Tested]:
    shared = [unit for unit in row.records if unit in reference.records]
    expected = len({*row.expected, *reference.expected})
    if not shared:
        return [Tested(row.name, name, 0, expected, None, None) for name in names]
    pair = _pair(row, reference, shared)
    chosen: list[Metric] = [metrics[name] for name in names]
    found = zip(names, compare(chosen, pair, resamples=resamples, seed=seed), compare_seeds_only(chosen, pair), strict=True)
    return [Tested(row.name, name, len(shared), expected, main, conditional) for name, main, conditional in found]


def _pair(row: Measured, reference: Measured, shared: Sequence[Unit]) -> Pair:
    """Both rows' predictions on the shared units, (S, N) or (S, N, C), clip by clip."""
    records = [[side.records[unit] for unit in shared] for side in (row, reference)]
    first = records[0][0].predictions
    for record in (record for side in records for record in side):
        _same_clips(record, records[0][0])
    a, b = (np.stack([record.predictions.arrays()[0] for record in side]) for side in records)
    independent = len(set(first.groups)) == len(first.groups)
    return Pair(a, b, first.arrays()[1], None if independent else np.asarray(first.groups))


def _same_clips(record: Record, other: Record) -> None:
    mine, theirs = record.predictions, other.predictions
    if (mine.ids, mine.truth) != (theirs.ids, theirs.truth):
        raise RecordError(
            f"the records {record.key} and {other.key} do not hold the same test clips and labels",
            "They cannot be compared. Delete their folders and run again.",
        )


def _adjusted(tests: Sequence[Tested]) -> list[Tested]:
    """Holm over the declared family: a test that could not be made gets no adjusted p, but counts."""
    adjusted = holm([test.main.p if test.main else nan for test in tests])
    return [replace(test, adjusted=value) for test, value in zip(tests, adjusted, strict=True)]
