"""What would be run, and about how long it takes, as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from harness.experiments.estimates import Forecast, Known, forecast
from harness.experiments.trials import Trial
from harness.reporting.progress import duration


def described(title: str, rows: Mapping[str, Sequence[Trial]], known: Known, workers: int) -> str:
    """``title``, what is known of all trials, and of which rows any are to run."""
    lines = [title, f"  {said([trial for trials in rows.values() for trial in trials], known, workers)}"]
    found = {row: forecast(trials, known) for row, trials in rows.items()}
    waiting = [f"{row} {one.to_run}{_each(one)}" for row, one in found.items() if one.to_run]
    return "\n".join([*lines, f"  to run, by row: {', '.join(waiting)}"] if waiting else lines)


def said(trials: Sequence[Trial], known: Known, workers: int) -> str:
    """How many there are, each counted once, how many are to run, and how long so many ``workers`` take."""
    found = forecast(trials, known)
    failed = f", {found.failed} failed before (--retry-failed runs them again)" if found.failed else ""
    again = f" ({found.again} of them again: the record is damaged, or lacks its diagnosis)" if found.again else ""
    counts = f"{found.trials} trials: {found.recorded} recorded{failed}, {found.to_run} to run{again}"
    return "; ".join([counts, *_times(found, workers)])


def _times(found: Forecast, workers: int) -> Iterator[str]:
    if found.timed:
        some = f" for {found.timed} of them" if found.unknown else ""
        several = f" workers ({duration(found.seconds)} of work)" if workers > 1 else " worker"
        yield f"about {duration(found.wall(workers))}{some} with {workers}{several}"
    if found.unknown:
        names = sorted({trial.identity.method for trial in found.unknown})
        yield f"time unknown for {len(found.unknown)} ({', '.join(names)}: no recorded trial on this data with this budget)"


def _each(found: Forecast) -> str:
    return f" ({duration(found.seconds / found.timed)} each)" if found.timed else ""
