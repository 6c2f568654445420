"""Was a published number reproduced? One outcome per cell, with its reason; and a paper's outcomes counted.

The rule: a measured mean within the published one ± the larger of the two 95 % intervals is reproduced; outside it is better or
worse, in the metric's own direction. Runs on other inputs than published ones, on other modalities or on simulated data say
nothing about it. Intervals are over seeds, for these test clips: both means are of the same clips.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan, sqrt
from typing import Literal

from harness.analysis.effects import t_interval, t_margin
from harness.data.catalogue import facts
from harness.data.schema import Card
from harness.experiments.papers import Published, Row, TableSpec
from harness.reporting.collect import Measured
from harness.reporting.layout import number
from harness.training.metrics import Metric, metrics

Outcome = Literal["reproduced", "better", "worse", "not comparable", "open"]
OUTCOMES: tuple[Outcome, ...] = ("reproduced", "better", "worse", "not comparable", "open")
ROUNDING = 1e-9  # share of a margin by which floating point may miss its edge


@dataclass(frozen=True)
class Judged:
    """One cell: ``difference`` is measured minus published, ``margin`` what it may be, both in the metric's unit; NaN: none."""

    outcome: Outcome
    reason: str
    difference: float = nan
    margin: float = nan


@dataclass(frozen=True)
class Summary:
    """A paper's, table's or data set's cells by outcome, and how many cells each reason leaves without a verdict."""

    counts: Mapping[Outcome, int]
    reasons: tuple[tuple[str, int], ...]

    @property
    def judged(self) -> int:
        return sum(self.counts[outcome] for outcome in ("reproduced", "better", "worse"))


def judge_table(spec: TableSpec, card: Card, measured: Mapping[str, Measured]) -> dict[tuple[str, str], Judged]:
    """(row, metric) -> outcome, for every number that the table prints for the data set of ``card``."""
    found = {}
    for row in (row for row in spec.rows if not row.trials):
        own = measured.get(row.name)
        apart = not_comparable(row, card, own)
        for name, cell in row.published.get(card.dataset, {}).items():
            found[row.name, name] = judge(cell, own, metrics[name], len(spec.seeds) if row.rerun else 1, apart)
    return found


def judge(published: Published, measured: Measured | None, metric: Metric, seeds: int, apart: str = "") -> Judged:
    """The outcome of one cell. ``seeds``: runs behind the published mean; ``apart``: why it cannot be compared, if so."""
    waiting = _open(measured, metric)
    if measured is None or waiting:
        return Judged("open", waiting)
    values = list(measured.values[metric.name].values())
    difference = sum(values) / len(values) - published.value
    if apart:
        return Judged("not comparable", apart, difference)
    margin, source = _margin(published, values, metric, seeds)
    if isnan(margin):
        return Judged("open", "one run, and no published deviation: there is no interval to judge it by", difference)
    said = f"{_said(difference, metric)}, allowed ±{number(margin, metric)} ({source})"
    if abs(difference) <= margin * (1 + ROUNDING):
        return Judged("reproduced", said, difference, margin)
    return Judged("better" if (difference > 0) == metric.higher_is_better else "worse", said, difference, margin)


def published_margin(published: Published, seeds: int) -> float:
    """Half the 95 % interval of a printed mean over ``seeds`` runs, by Student's t, and no less than half its last digit.

    Without a printed deviation, or for one run, the last digit is all that is known.
    """
    step = float(published.mean.as_tuple().exponent)
    digit = 0.5 * 10**step * (0.01 if published.percent else 1)
    if published.deviation is None or seeds < 2:
        return digit
    return max(digit, t_margin(published.deviation / sqrt(seeds), seeds - 1))


def not_comparable(row: Row, card: Card, measured: Measured | None) -> str:
    """Why runs of ``row`` on the data of ``card`` cannot be held against published numbers; empty where they can."""
    if card.simulated:
        return "simulated data"
    records = list(measured.records.values()) if measured else []
    used = records[0].identity.modalities if records else tuple(card.modalities)
    own_text = bool(records) and records[0].identity.config.get("text_encoder", {}).get("path") is not None
    return _other_modalities(row, card, used) or _other_inputs(card, used, own_text)


def summarise(judged: Iterable[Judged]) -> Summary:
    """Outcomes counted; reasons of cells without a verdict, the most frequent first."""
    cells = list(judged)
    counts = Counter(cell.outcome for cell in cells)
    reasons = Counter(cell.reason for cell in cells if cell.outcome in ("not comparable", "open"))
    return Summary({outcome: counts[outcome] for outcome in OUTCOMES}, tuple(reasons.most_common()))


def sentences(summary: Summary) -> Iterator[str]:
    """A summary in words: what was judged and how it came out, then why the rest was not."""
    counts, total = summary.counts, sum(summary.counts.values())
    if not total:
        yield "No published number stands here."
        return
    if summary.judged:
        yield (
            f"{counts['reproduced']} of {summary.judged} comparable numbers were reproduced; "
            f"{counts['better']} came out better, {counts['worse']} worse."
        )
    else:
        yield f"None of the {total} printed numbers can be compared yet."
    yield from (f"{count} of {total} without a verdict: {reason}." for reason, count in summary.reasons)


def _open(measured: Measured | None, metric: Metric) -> str:
    if measured is None:
        return "not measured"
    if not measured.complete:
        return f"{measured.finished} of {len(measured.expected)} runs finished"
    return "undefined for a run" if measured.undefined(metric.name) else ""


def _margin(published: Published, values: Sequence[float], metric: Metric, seeds: int) -> tuple[float, str]:
    """The larger of both intervals' halves, and which it is; NaN where a single run meets a single run."""
    printed = published_margin(published, seeds)
    if len(values) < 2:
        known = published.deviation is not None and seeds > 1
        return (printed, f"published interval, {seeds} seeds") if known else (nan, "")
    low, high = t_interval(values)
    own = (high - low) / 2
    if own >= printed:
        return own, f"measured interval, {len(values)} runs"
    return printed, f"published interval, {seeds} seeds" if published.deviation is not None else "the last printed digit"


def _said(difference: float, metric: Metric) -> str:
    unit = " points" if metric.percent else ""
    return f"measured minus published {number(difference, metric, sign=True)}{unit}"


def _other_modalities(row: Row, card: Card, used: Sequence[str]) -> str:
    known = {name for widths in facts(card.dataset).dims.values() for name in widths}
    wanted = set(row.modalities or known or used)
    missing, more = sorted(wanted - set(used)), sorted(set(used) - wanted)
    parts = [f"without {' and '.join(missing)}" if missing else "", f"with {' and '.join(more)} besides" if more else ""]
    said = ", ".join(part for part in parts if part)
    return f"other modalities: {said}" if said else ""


def _other_inputs(card: Card, used: Sequence[str], own_text: bool) -> str:
    """Inputs are those of a published feature set where every modality has its width; ``own_text``: a trained encoder reads it."""
    widths = {name: card.modalities[name].dim for name in used if name in card.modalities and not (own_text and name == "text")}
    known = facts(card.dataset).dims
    if not known or any(all(published.get(name) == dim for name, dim in widths.items()) for published in known.values()):
        return ""
    return f"other inputs: {', '.join(f'{name} {dim}-d' for name, dim in widths.items())} is no published feature set"
