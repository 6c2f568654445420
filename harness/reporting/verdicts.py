"""What verdicts claim, and where the variance behind them comes from, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import ceil, isinf, isnan

from harness.analysis.statistics import Decomposition, Plan, default_rope
from harness.reporting.layout import number
from harness.training.metrics import Metric, metrics


def verdict_rule(names: Sequence[str], alpha: float, span: float) -> str:
    """How verdicts on these metrics are reached; ``span`` is the width of the label scale."""
    ropes = ", ".join(f"{metrics[name].label} ±{_rope(metrics[name], span)}" for name in names)
    return (
        f"The verdict follows Holm p at {alpha:g}; equivalent: no difference found, "
        f"and with 95 % probability (flat prior, unadjusted) none larger than {ropes}."
    )


def _rope(metric: Metric, span: float) -> str:
    rope = default_rope(metric, span)
    return f"{100 * rope:g} points" if metric.percent else f"{rope:.3g}"


def source_lines(sources: Mapping[str, Decomposition], groups_are: str, runs_are: str = "seed") -> Iterator[str]:
    """One line per compared row: shares of the variance, then what it would take to find a difference of this size.

    ``runs_are``: what another run would be, a seed on a fixed split, a repeat of all folds, a draw of a hold-out.
    """
    for row, found in sources.items():
        yield f"{row}: {found.note or _shares(found, groups_are, runs_are)}."


def _shares(found: Decomposition, groups_are: str, runs_are: str) -> str:
    names = {"cluster": groups_are, "seed": runs_are, "seed x clip": f"{runs_are} × clip"}
    shares = ", ".join(f"{names.get(part.name, part.name)} {100 * part.share:.0f} %" for part in found.parts)
    if found.plan is None:
        return f"{shares}; one run each: the {runs_are}s' part is not known"
    return f"{shares}; {_needed(found.plan, runs_are)}; these runs have it for {number(found.plan.detectable, metrics[found.metric])}"


def _times(clips: float) -> str:
    """Rounded up, so that more than 1 never reads as 1.0."""
    return "over a million" if isinf(clips) else f"{ceil(10 * clips) / 10:.1f}"


def _needed(plan: Plan, runs_are: str) -> str:
    """Runs and clips like these, without adjustment for other tests."""
    if isnan(plan.clips):
        return "no difference was observed"
    here = f"{plan.seeds_here or 'over 1000'} {runs_are}s for these very clips"
    more = f"more clips than these, {_times(plan.clips)} times as many, whatever the {runs_are}s ({here})"
    needed = f"{plan.seeds} {runs_are}s" if plan.seeds else more
    return f"{100 * plan.power:.0f} % power for a difference of this size takes {needed}"
