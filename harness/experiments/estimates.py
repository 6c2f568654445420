"""What of a list of trials is to be run, and for how long, by the times that recorded trials took."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from harness.experiments.records import RecordStore
from harness.experiments.runner import outstanding
from harness.experiments.trials import Trial

Kind = tuple[str, str, str]  # method, fingerprint of the data, budget: what trials share whose times are alike


def kind(trial: Trial) -> Kind:
    return trial.identity.method, trial.identity.data, trial.budget


@dataclass(frozen=True)
class Known:
    """What a results folder says of trials: keys to be run, keys with a record, sound or not, and usual seconds by kind."""

    to_run: frozenset[str]
    recorded: frozenset[str]
    seconds: Mapping[Kind, float]


def survey(trials: Sequence[Trial], store: RecordStore, retry_failed: bool = False, diagnose: bool = False) -> Known:
    """What ``store`` knows of ``trials``; those are to be run that ``harness.experiments.runner`` would run with these options."""
    waiting = outstanding(trials, store, retry_failed, diagnose)
    recorded = frozenset(trial.key for trial in trials if trial.key in store)
    seconds = recorded_seconds(store, {kind(trial) for trial in waiting}, trials)
    return Known(frozenset(trial.key for trial in waiting), recorded, seconds)


def recorded_seconds(store: RecordStore, kinds: Collection[Kind], trials: Iterable[Trial] = ()) -> dict[Kind, float]:
    """Mean seconds of those of ``trials`` that are recorded, by kind.

    Of a kind without any, it is the mean of all its records, whatever their settings and their code; kinds without records are left out.
    """
    own = {trial.key: kind(trial) for trial in trials}
    times = _times(store, ((key, one) for key, one in own.items() if store.sound(key)), kinds)
    lacking = set(kinds) - times.keys()
    times |= _times(store, ((key, _kind_of(store, key)) for key in (store.keys() if lacking else ())), lacking)
    return {one: fmean(seconds) for one, seconds in times.items()}


def _times(store: RecordStore, found: Iterable[tuple[str, Kind | None]], kinds: Collection[Kind]) -> dict[Kind, list[float]]:
    times: dict[Kind, list[float]] = {}
    for key, one in found:
        if one is not None and one in kinds and (runtime := store.runtime(key)) is not None:
            times.setdefault(one, []).append(runtime.seconds)
    return times


def _kind_of(store: RecordStore, key: str) -> Kind | None:
    """Read from the record's text without the predictions, which are nearly all of it; None where it is damaged."""
    try:
        text = store.path(key).read_text(encoding="utf-8")
        identity, budget = _value(text, "identity"), _value(text, "budget")
        return identity["method"], identity["data"], budget
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _value(text: str, name: str) -> Any:
    return json.JSONDecoder().raw_decode(text, text.index(f'"{name}":') + len(name) + 3)[0]


@dataclass(frozen=True)
class Forecast:
    """What of a list of trials is recorded, what failed, what is to be run (``again``: of those, with a record), and for how long.

    ``seconds``: of the trials to be run whose kind has recorded times, one after the other; ``unknown``: trials of other kinds.
    """

    trials: int
    to_run: int
    again: int
    failed: int
    seconds: float
    longest: float
    unknown: tuple[Trial, ...]

    @property
    def recorded(self) -> int:
        return self.trials - self.to_run - self.failed

    @property
    def timed(self) -> int:
        """How many of the trials to be run ``seconds`` stands for."""
        return self.to_run - len(self.unknown)

    def wall(self, workers: int) -> float:
        """Seconds with so many trials at a time."""
        return max(self.seconds / workers, self.longest)


def forecast(trials: Iterable[Trial], known: Known) -> Forecast:
    """The forecast of ``trials``, all of which were surveyed, each counted once."""
    by_key = {trial.key: trial for trial in trials}
    to_run = [trial for key, trial in by_key.items() if key in known.to_run]
    again = sum(trial.key in known.recorded for trial in to_run)
    failed = len(by_key.keys() - known.to_run - known.recorded)
    times = [known.seconds[kind(trial)] for trial in to_run if kind(trial) in known.seconds]
    unknown = tuple(trial for trial in to_run if kind(trial) not in known.seconds)
    return Forecast(len(by_key), len(to_run), again, failed, sum(times), max(times, default=0.0), unknown)
