"""Two systems on one data set: every statistic that their runs allow, each with what it holds for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import isfinite, isnan

import numpy as np
from tabulate import tabulate

from harness.analysis.statistics import (
    FEW_CLUSTERS,
    Comparison,
    Decomposition,
    Design,
    Interval,
    Pair,
    a12,
    bca_difference,
    bca_interval,
    compare,
    corrected_t,
    correlated_bayes,
    decompose,
    default_rope,
    dz,
    fold_differences,
    holm,
    iqm,
    mcnemar,
    paired_t,
    posterior_of,
    rank_biserial,
    run_values,
    sign_flip,
    t_interval,
    wilcoxon,
)
from harness.data.catalogue import facts
from harness.data.schema import Card
from harness.errors import ConfigError, DataError
from harness.reporting.collect import Measured, Unit
from harness.reporting.compare import Tested
from harness.reporting.environments import differences
from harness.reporting.layout import ABSENT, UNDEFINED, number, p_value
from harness.reporting.pairing import paired
from harness.reporting.texts import data_name
from harness.reporting.verdicts import source_lines, verdict_rule
from harness.training.metrics import Floats, Metric, metrics


@dataclass(frozen=True)
class Section:
    """A heading, a sentence on what the numbers claim, and a table; ``left``: its columns of words. ``notes`` stand below."""

    title: str
    said: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: int = 1
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Versus:
    """``shared``: the runs that both finished, of ``expected``; ``pair`` holds their predictions, A first."""

    a: Measured
    b: Measured
    card: Card
    names: tuple[str, ...]
    shared: tuple[Unit, ...]
    expected: int
    pair: Pair
    alpha: float
    resamples: int
    seed: int = 0

    @property
    def chosen(self) -> list[Metric]:
        return [metrics[name] for name in self.names]

    @property
    def design(self) -> Design:
        return self.pair.design(self.chosen[0])

    @property
    def span(self) -> float:
        return self.card.task.high - self.card.task.low

    @property
    def runs(self) -> int:
        return len(run_values(self.chosen[0], self.pair)[0])


def versus(a: Measured, b: Measured, card: Card, names: Sequence[str], *, alpha: float, resamples: int) -> Versus:
    """The runs of two rows put side by side; ConfigError where they share none, RecordError where their records do not fit."""
    shared = tuple(unit for unit in a.expected if unit in a.records and unit in b.records)
    if not shared:
        found = "; ".join(f"{row.name}: {row.finished} of {len(row.expected)} runs finished" for row in (a, b))
        raise ConfigError(f"{a.name} and {b.name} share no finished run on {card.name} ({found})", "Run both with the same seeds.")
    expected = len({*a.expected, *b.expected})
    return Versus(a, b, card, tuple(names), shared, expected, paired(a, b, shared), alpha, resamples)


def text(found: Versus) -> str:
    """All sections as Markdown, which a console shows as well."""
    parts = [f"# A: {found.a.name}, B: {found.b.name}, on {data_name(found.card)}", "\n".join(_head(found))]
    for section in sections(found):
        parts += [f"## {section.title}", section.said, _table(section), "\n".join(f"- {note}" for note in section.notes)]
    return "\n\n".join(part for part in parts if part) + "\n"


def sections(found: Versus) -> list[Section]:
    """What the design of the runs allows."""
    main = compare(found.chosen, found.pair, resamples=found.resamples, seed=found.seed)
    fixed = found.design in (Design.SEEDS, Design.RUN)
    made = [_tests(found, main), _probable(found, main), _over_runs(found), _effects(found)]
    made += [_intervals(found)] if found.design is not Design.DRAWS else []
    made += [_swaps(found), *_hits(found)] if fixed else [_over_folds(found)]
    return [*made, _sources(found)]


def _table(section: Section) -> str:
    align = ("left",) * section.left + ("right",) * (len(section.heads) - section.left)
    return tabulate(section.rows, section.heads, tablefmt="github", disable_numparse=True, colalign=align) if section.rows else ""


# ---- what is compared


def _head(found: Versus) -> Iterator[str]:
    groups = facts(found.card.dataset).groups_are
    clusters = found.pair.groups()[1]
    clustered = f" of {clusters} {groups}s" if found.pair.clusters is not None else ", each its own cluster"
    yield f"- Design: {found.design}; {found.runs} run{'' if found.runs == 1 else 's'} of each, {found.pair.clips} clips{clustered}."
    if found.card.simulated:
        yield "- SIMULATED data: nothing below says anything about real clips."
    if len(found.shared) < found.expected:
        yield f"- INCOMPLETE: {len(found.shared)} of {found.expected} pairs of runs; only these are compared."
    for row in (found.a, found.b):
        yield from (f"- {row.name}: no record of {unit}: {why}." for unit, why in row.faults.items())
    yield from (f"- Environments: {line}." for line in differences([found.a, found.b]))


# ---- sections


def _tests(found: Versus, main: Sequence[Comparison]) -> Section:
    adjusted = holm([one.p for one in main])
    rows = []
    for metric, one, p in zip(found.chosen, main, adjusted, strict=True):
        a, b = run_values(metric, found.pair)
        tested = Tested("A", metric.name, len(found.shared), found.expected, one, None, p, default_rope(metric, found.span))
        interval = _between(one.low, one.high, metric)
        cells = (_mean(a, metric), _mean(b, metric), _shown(one.difference, metric, sign=True), interval, p_value(one.p), p_value(p))
        rows.append((metric.label, *cells, tested.verdict(found.alpha), one.test))
    claims = {f"conditional on {one.conditional_on}" if one.conditional_on else "for new clips and new training runs" for one in main}
    said = (
        f"The test that the design calls for; the claim is {' or '.join(sorted(claims))}. Holm over these {len(rows)} metrics. "
        f"{verdict_rule(found.names, found.alpha, found.span)}"
    )
    notes = _grouped(found, ((metric, one.note) for metric, one in zip(found.chosen, main, strict=True)))
    heads = ("Metric", "A", "B", "A − B", "95 % interval", "p", "Holm p", "Verdict", "Test")
    return Section("Test by design", said, heads, tuple(rows), notes=notes)


def _probable(found: Versus, main: Sequence[Comparison]) -> Section:
    rows = []
    for metric, one in zip(found.chosen, main, strict=True):
        rope = default_rope(metric, found.span)
        known = posterior_of(one, rope)
        shares = (known.below, known.within, known.above) if known else None
        cells = tuple(f"{share:.3f}" for share in shares) if shares else (ABSENT,) * 3
        verdict = known.verdict(metric.higher_is_better) if known else "no posterior"
        rows.append((metric.label, f"±{number(rope, metric)}", *cells, verdict))
    said = "Posterior of A − B under a flat prior, cut at the region of practical equivalence (ROPE); the verdict needs 95 % of it."
    return Section(
        "Bayesian, with a region of practical equivalence", said, ("Metric", "ROPE", "below", "within", "above", "Verdict"), tuple(rows)
    )


def _over_runs(found: Versus) -> Section:
    rows, notes = [], list[tuple[Metric, str]]()
    for metric in found.chosen:
        a, b = run_values(metric, found.pair)
        t, ranks = paired_t(a, b, metric=metric.name), wilcoxon(a, b, metric=metric.name)
        statistic = ABSENT if t.statistic is None else f"{t.statistic:.2f} ({t.df:g})"
        rows.append((metric.label, _interval_of(a - b, metric), statistic, p_value(t.p), p_value(ranks.p)))
        notes += [(metric, f"{one.test}: {one.note}") for one in (t, ranks) if one.note]
    said = (
        "As papers report them: they hold for this very test set, and call equal systems different in 20 to 70 % of cases where a claim "
        "about new clips is meant."
    )
    heads = ("Metric", "95 % t interval of A − B", "t (df)", "paired t-test p", "Wilcoxon p")
    return Section("Over runs only, conditional on this test set", said, heads, tuple(rows), notes=_grouped(found, notes))


def _effects(found: Versus) -> Section:
    rows = []
    for metric in found.chosen:
        a, b = run_values(metric, found.pair)
        if np.isnan([*a, *b]).any():
            rows.append((metric.label, *[UNDEFINED] * 5))
            continue
        sizes = (dz(a - b), a12(a, b), rank_biserial(a - b))
        rows.append(
            (metric.label, number(iqm(a), metric), number(iqm(b), metric), *(f"{x:.2f}" if isfinite(x) else UNDEFINED for x in sizes))
        )
    said = (
        "Over runs. IQM: interquartile mean. d_z: mean over standard deviation of the differences. A12: how often a run of A has the "
        "higher number. r: matched-pairs rank-biserial correlation. Signs follow A − B, whichever way the metric points."
    )
    return Section("Robust means and effect sizes", said, ("Metric", "IQM A", "IQM B", "d_z", "A12", "r"), tuple(rows))


def _intervals(found: Versus) -> Section:
    pair, rows, notes = replace(found.pair, folds=None), [], list[tuple[Metric, str]]()
    settings = {"resamples": found.resamples, "seed": found.seed}
    for metric in found.chosen:
        sides = [bca_interval(metric, side, pair.truth, pair.clusters, **settings) for side in (pair.a, pair.b)]
        of_all = [*sides, bca_difference(metric, pair, **settings)]
        rows.append((metric.label, *(_bca(one, metric, sign=place == 2) for place, one in enumerate(of_all))))
        notes += [(metric, note) for note in dict.fromkeys(one.note for one in of_all)]
    drawn = "clusters" if pair.clusters is not None else "clips"
    said = f"BCa, {found.resamples} resamples of {drawn}, mean over runs: for these training runs, whatever the seeds."
    return Section("Intervals over clips, 95 %", said, ("Metric", "A", "B", "A − B"), tuple(rows), notes=_grouped(found, notes))


def _swaps(found: Versus) -> Section:
    rows, notes = [], list[tuple[Metric, str]]()
    for metric in found.chosen:
        one = sign_flip(metric, found.pair, resamples=found.resamples, seed=found.seed)
        rows.append(
            (metric.label, _shown(one.difference, metric, sign=True), p_value(one.p), one.test, f"conditional on {one.conditional_on}")
        )
        notes.append((metric, one.note))
    units = "clusters" if found.pair.clusters is not None else "clips"
    said = f"Sign-flip: were A and B alike, the predictions of whole {units} could be swapped. Serves under {FEW_CLUSTERS} of them too."
    return Section("Swaps", said, ("Metric", "A − B", "p", "Test", "Holds for"), tuple(rows), notes=_grouped(found, notes))


def _hits(found: Versus) -> Iterator[Section]:
    hits = [metric for metric in found.chosen if metric.counts_hits]
    a, b = (np.asarray(side) for side in (found.pair.a, found.pair.b))
    rows = []
    for metric in hits:
        for place, unit in enumerate(found.shared):
            one = mcnemar(metric, a[place], b[place], found.pair.truth)
            rows.append((metric.label, str(unit), _shown(one.difference, metric, sign=True), p_value(one.p), one.note))
    if rows:
        caution = "; clips of one cluster are not, so these p are too small" if found.pair.clusters is not None else ""
        said = f"McNemar's exact test of one run of each, for these two models; takes clips as independent{caution}. Not adjusted."
        yield Section("Run by run: hits and misses", said, ("Metric", "Run", "A − B", "p", "Clips"), tuple(rows), left=2)


def _over_folds(found: Versus) -> Section:
    rows, notes = [], list[tuple[Metric, str]]()
    for metric in found.chosen:
        differences, _, n_test = fold_differences(metric, found.pair)
        n_train = found.pair.train_clips or found.pair.clips - n_test
        corrected = corrected_t(differences, n_test, n_train, metric=metric.name)
        plain = paired_t(differences, np.zeros_like(differences))
        head = (metric.label, str(len(differences)), _shown(corrected.difference, metric, sign=True))
        rows.append(
            (*head, p_value(corrected.p), *_bayes(differences, n_test, n_train, default_rope(metric, found.span)), p_value(plain.p))
        )
        notes.append((metric, corrected.note))
    said = (
        "Corrected resampled t-test (Nadeau and Bengio) and Bayesian correlated t-test of the differences in each fold; beside them the "
        "plain paired t-test over folds, which calls equal systems different in 40 to 55 % of repeated cross-validations."
    )
    heads = ("Metric", "folds", "A − B", "corrected p", "below ROPE", "within", "above", "plain t p")
    return Section("Over folds", said, heads, tuple(rows), notes=_grouped(found, notes))


def _bayes(differences: Floats, n_test: float, n_train: float, rope: float) -> tuple[str, str, str]:
    try:
        known = correlated_bayes(differences, n_test, n_train, rope)
    except DataError:  # undefined, or without spread: the corrected test's note says so
        return (ABSENT,) * 3
    return f"{known.below:.3f}", f"{known.within:.3f}", f"{known.above:.3f}"


def _sources(found: Versus) -> Section:
    sources = {metric.label: _source(metric, found.pair) for metric in found.chosen}
    runs = {Design.FOLDS: "repeat", Design.DRAWS: "draw"}.get(found.design, "seed")
    lines = tuple(source_lines(sources, facts(found.card.dataset).groups_are, runs))
    said = "Shares of the squared standard error of A − B by source, and what it would take to find a difference of this size at .05."
    return Section("Variance by source, and power", said, (), (), notes=lines)


def _source(metric: Metric, pair: Pair) -> Decomposition:
    try:
        return decompose(metric, pair)
    except DataError as error:
        return Decomposition(metric.name, float("nan"), 0, pair.clips, note=error.problem)


def _grouped(found: Versus, notes: Iterable[tuple[Metric, str]]) -> tuple[str, ...]:
    """Each note once, after the metrics of which it is true."""
    metrics_of: dict[str, list[str]] = {}
    for metric, note in notes:
        metrics_of.setdefault(note, []).append(metric.label)
    everywhere = len(found.names)
    return tuple(f"{'All' if len(names) == everywhere else ', '.join(names)}: {note}." for note, names in metrics_of.items() if note)


# ---- cells


def _shown(value: float, metric: Metric, sign: bool = False) -> str:
    return UNDEFINED if isnan(value) else number(value, metric, sign)


def _mean(values: Floats, metric: Metric) -> str:
    """Mean ± sample standard deviation over runs."""
    if np.isnan(values).any():
        return UNDEFINED
    return number(float(values.mean()), metric) + (f" ± {number(float(values.std(ddof=1)), metric)}" if len(values) > 1 else "")


def _between(low: float, high: float, metric: Metric, sign: bool = True) -> str:
    return ABSENT if isnan(low) else f"[{number(low, metric, sign)}, {number(high, metric, sign)}]"


def _interval_of(differences: Floats, metric: Metric) -> str:
    return ABSENT if np.isnan(differences).any() else _between(*t_interval(differences), metric)


def _bca(one: Interval, metric: Metric, sign: bool) -> str:
    return UNDEFINED if isnan(one.estimate) else f"{number(one.estimate, metric, sign)} {_between(one.low, one.high, metric, sign)}"
