"""Bounds between two metrics of one row: the two halves of Acc-2, and a class's binary accuracy with its F1."""

from __future__ import annotations

from fractions import Fraction

from harness.analysis.audit.facts import facts
from harness.analysis.audit.published import Cell, Source, Table
from harness.analysis.audit.results import Collector, Result

Range = tuple[Fraction, Fraction]


def zeros_right(nonneg: Range, nonzero: Range, clips: int, zeros: int) -> Range:
    """Clips labelled exactly 0 that must have been predicted >= 0, least and greatest, mean over runs.

    ``nonneg`` and ``nonzero``: the two accuracies in per cent, least and greatest. A clip with another label is right in both
    halves or in neither (a prediction of exactly 0 for a positive clip counts in the first half only, which raises the number):
    clips * nonneg = (clips - zeros) * nonzero + zeros right. The result must meet [0, zeros].
    """
    others = clips - zeros
    return (clips * nonneg[0] - others * nonzero[1]) / 100, (clips * nonneg[1] - others * nonzero[0]) / 100


def least_accuracy(f1: Fraction, prevalence: Fraction) -> Fraction:
    """The least binary accuracy (a share) at which a class of that ``prevalence`` can have the F1 ``f1``.

    F1 = 2 TP / (2 TP + FP + FN), so errors = 2 TP (1 - F1) / F1, and TP is at most the number of clips of the class.
    """
    return 1 - 2 * prevalence * (1 - f1) / f1 if f1 else Fraction(0)


def check_halves(source: Source) -> Result:
    """Acc-2 (neg/non-neg) against Acc-2 (neg/pos) in every row that has both."""
    collector = Collector("two halves of Acc-2")
    for table in source.tables:
        known = facts(table.data)
        for name, *_ in table.rows:
            row = source.row(table, name)
            pair = row.get("acc2_nonneg"), row.get("acc2_nonzero")
            if pair[0] and pair[1] and known.test and known.zeros:
                collector.saw([pair[0], pair[1]])
                _halves(collector, table, pair[0], pair[1], known.test, known.zeros)
    if collector.cells:
        collector.power = "the first half must have 0 to as many right clips more as there are labels of exactly 0"
    return collector.result()


def _halves(collector: Collector, table: Table, nonneg: Cell, nonzero: Cell, clips: int, zeros: Range | tuple[int, int]) -> None:
    if _meets(nonneg, nonzero, clips, zeros):
        return
    low, high = zeros_right(nonneg.bounds, nonzero.bounds, clips, int(zeros[0]))
    text = (
        f"Acc-2 {nonneg.mean} (neg/non-neg) with {nonzero.mean} (neg/pos) is not attainable as stated: of the {zeros[0]} clips labelled 0, "
        f"between {float(low):.1f} and {float(high):.1f} would be predicted non-negative."
    )
    if _meets(nonzero, nonneg, clips, zeros):
        text += " The two values interchanged would be attainable."
    collector.find(f"{table.item}, {table.data}, {nonneg.row}", text)


def _meets(nonneg: Cell, nonzero: Cell, clips: int, zeros: Range | tuple[int, int]) -> bool:
    """Whether some number of zero labels in the known range allows the pair."""
    least = zeros_right(nonneg.bounds, nonzero.bounds, clips, int(zeros[0]))
    most = zeros_right(nonneg.bounds, nonzero.bounds, clips, int(zeros[1]))
    return min(least[0], most[0]) <= zeros[1] and max(least[1], most[1]) >= 0


def check_classes(source: Source) -> Result:
    """A class's binary accuracy against its F1, where both are printed as ``accuracy@class`` and ``f1@class``."""
    collector = Collector("binary accuracy with F1")
    for table in source.tables:
        known = facts(table.data)
        found = []
        for name, *_ in table.rows:
            row = source.row(table, name)
            for label, clips in known.classes.items():
                accuracy, f1 = row.get(f"accuracy@{label}"), row.get(f"f1@{label}")
                if accuracy and f1 and known.test:
                    collector.saw([accuracy, f1])
                    least = 100 * least_accuracy(f1.bounds[0] / 100, Fraction(clips, known.test))
                    if accuracy.bounds[1] < least:
                        found.append((accuracy, f1, least))
        if found:
            accuracy, f1, least = max(found, key=lambda each: each[2] - each[0].bounds[1])
            collector.find(
                f"{table.item}, {table.data}",
                f"{len(found)} of {len(collector.cells) // 2} pairs are not attainable as stated, if accuracy and F1 are those of a binary "
                f"decision, as the source defines them. The widest gap: {accuracy.label} at {accuracy.row} has {accuracy.mean} with F1 "
                f"{f1.mean}, which needs an accuracy of at least {float(least):.1f} ({known.classes[accuracy.label]} of {known.test} "
                f"clips are of that class).",
            )
    if collector.cells:
        collector.power = "F1 bounds the errors of a rare class"
    return collector.result()
