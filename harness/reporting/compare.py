"""Every measured row against the reference row, in every metric: one declared family, adjusted together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from math import isnan, nan
from typing import Literal

from harness.analysis.statistics import (
    PROBABLE,
    Comparison,
    Decomposition,
    Pair,
    compare,
    compare_seeds_only,
    decompose,
    default_rope,
    holm,
    posterior_of,
)
from harness.errors import DataError
from harness.experiments.papers import TableSpec
from harness.reporting.collect import Measured, Unit
from harness.reporting.pairing import paired
from harness.training.metrics import Metric, metrics

Verdict = Literal["better", "worse", "equivalent", "inconclusive", "not tested"]


@dataclass(frozen=True)
class Tested:
    """One row against the reference in one metric.

    ``main`` is the test that the design calls for, ``conditional`` the t-test over seeds that papers report, which
    holds for this test set only; both None where the rows share no finished run. ``adjusted``: Holm's p of ``main``.
    ``rope``: half the width of the region in which a difference is none to speak of.
    """

    row: str
    metric: str
    pairs: int
    expected: int
    main: Comparison | None
    conditional: Comparison | None
    adjusted: float = nan
    rope: float = 0.0

    def verdict(self, alpha: float) -> Verdict:
        """What the adjusted p says; ``better`` and ``worse`` in the metric's own direction.

        Where it finds no difference: ``equivalent`` if the posterior behind the test lies to 95 % within the region,
        else ``inconclusive``.
        """
        if self.main is None or isnan(self.adjusted):
            return "not tested"
        if self.adjusted < alpha and self.main.difference != 0:
            return "better" if (self.main.difference > 0) == metrics[self.metric].higher_is_better else "worse"
        known = posterior_of(self.main, self.rope)
        return "equivalent" if known is not None and known.within >= PROBABLE else "inconclusive"


@dataclass(frozen=True)
class Family:
    """All tests of one data set's table. Its size is declared: compared rows times metrics, whether or not a test could be made.

    ``sources``: by row, where the variance of its difference in the first metric comes from.
    """

    reference: str | None
    why: str
    tests: tuple[Tested, ...]
    sources: Mapping[str, Decomposition] = field(default_factory=dict)

    def find(self, row: str, metric: str) -> Tested | None:
        return next((test for test in self.tests if (test.row, test.metric) == (row, metric)), None)

    @property
    def rows(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(test.row for test in self.tests))


@dataclass(frozen=True)
class Outcome:
    """What the tests of one pair of rows found: a comparison per metric, by the design's test and by the seeds-only one.

    ``source``: where the variance of the difference in the first metric comes from.
    """

    main: tuple[Comparison, ...]
    conditional: tuple[Comparison, ...]
    source: Decomposition


Memory = MutableMapping[str, Outcome]  # by what they were computed from


def compare_rows(
    spec: TableSpec, measured: Mapping[str, Measured], *, resamples: int, seed: int, span: float = 6.0, memory: Memory | None = None
) -> Family:
    """Tests of every measured row against the reference row; ``seed`` is the base seed of the resamples.

    ``span``: width of the label scale, of which the region of equivalent MAEs is a share. ``memory``: outcomes of earlier
    calls by this very code, which are used where they fit; new ones are added.
    """
    reference, why = choose_reference(spec, measured)
    if reference is None:
        return Family(None, why, ())
    pairs = {row.name: _Paired(row, measured[reference]) for row in measured.values() if row.name != reference}
    outcomes = {row: _remembered(found, spec.metrics, resamples, seed, memory) for row, found in pairs.items() if found.shared}
    tests = [test for row, found in pairs.items() for test in _against(row, found, spec.metrics, outcomes.get(row))]
    ropes = {name: default_rope(metrics[name], span) for name in spec.metrics}
    sources = {row: outcome.source for row, outcome in outcomes.items()}
    return Family(reference, why, tuple(replace(test, rope=ropes[test.metric]) for test in _adjusted(tests)), sources)


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


@dataclass(frozen=True)
class _Paired:
    """A row and the reference, and the units whose runs both have."""

    row: Measured
    reference: Measured

    @property
    def shared(self) -> list[Unit]:
        return [unit for unit in self.row.records if unit in self.reference.records]

    @property
    def expected(self) -> int:
        return len({*self.row.expected, *self.reference.expected})

    @property
    def content(self) -> list[list[str]]:
        """The shared units and what stands in both sides' records: all that a test is computed from."""
        sides = self.row.records, self.reference.records
        return [[str(unit), *(side[unit].checksum for side in sides)] for unit in self.shared]

    def pair(self) -> Pair:
        return paired(self.row, self.reference, self.shared)


def _against(row: str, runs: _Paired, names: Sequence[str], outcome: Outcome | None) -> list[Tested]:
    if outcome is None:
        return [Tested(row, name, 0, runs.expected, None, None) for name in names]
    found, shared = zip(names, outcome.main, outcome.conditional, strict=True), len(runs.shared)
    return [Tested(row, name, shared, runs.expected, main, conditional) for name, main, conditional in found]


def _remembered(found: _Paired, names: Sequence[str], resamples: int, seed: int, memory: Memory | None) -> Outcome:
    chosen = [metrics[name] for name in names]
    if memory is None:
        return _outcome(found.pair(), chosen, resamples, seed)
    key = hashlib.sha256(json.dumps([list(names), resamples, seed, found.content]).encode()).hexdigest()[:32]
    if key not in memory:
        memory[key] = _outcome(found.pair(), chosen, resamples, seed)
    return memory[key]


def _outcome(pair: Pair, chosen: Sequence[Metric], resamples: int, seed: int) -> Outcome:
    main = compare(chosen, pair, resamples=resamples, seed=seed)
    return Outcome(tuple(main), tuple(compare_seeds_only(chosen, pair)), _source(chosen[0], pair))


def _source(metric: Metric, pair: Pair) -> Decomposition:
    """Where the variance comes from; a note where one group per fold, say, leaves sources that cannot be told apart."""
    try:
        return decompose(metric, pair)
    except DataError as error:
        return Decomposition(metric.name, nan, 0, pair.clips, note=error.problem)


def _adjusted(tests: Sequence[Tested]) -> list[Tested]:
    """Holm over the declared family: a test that could not be made gets no adjusted p, but counts."""
    adjusted = holm([test.main.p if test.main else nan for test in tests])
    return [replace(test, adjusted=value) for test, value in zip(tests, adjusted, strict=True)]
