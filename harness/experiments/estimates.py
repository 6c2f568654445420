"""How long trials will take, from the times of those that were recorded."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from harness.experiments.records import RecordStore
from harness.experiments.trials import Trial

Kind = tuple[str, str, str]  # method, stored data set, budget: what trials share whose times are alike


def kind(trial: Trial) -> Kind:
    return trial.identity.method, trial.identity.dataset, trial.budget


def recorded_seconds(store: RecordStore, kinds: Collection[Kind]) -> dict[Kind, float]:
    """Mean seconds of the recorded trials of each of ``kinds``, whatever their settings and their code; kinds without any are left out."""
    times: dict[Kind, list[float]] = {}
    for key in store.keys() if kinds else ():
        found = _kind_of(store, key)
        if found is not None and found in kinds and (runtime := store.runtime(key)) is not None:
            times.setdefault(found, []).append(runtime.seconds)
    return {one: fmean(seconds) for one, seconds in times.items()}


def _kind_of(store: RecordStore, key: str) -> Kind | None:
    """Read from the record's text without the predictions, which are nearly all of it; None where it is damaged."""
    try:
        text = (store.folder(key) / "record.json").read_text(encoding="utf-8")
        identity, budget = _value(text, "identity"), _value(text, "budget")
        return identity["method"], identity["dataset"], budget
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _value(text: str, name: str) -> Any:
    return json.JSONDecoder().raw_decode(text, text.index(f'"{name}":') + len(name) + 3)[0]


@dataclass(frozen=True)
class Forecast:
    """What of a list of trials exists, what failed, what is to be run, and for how long.

    ``seconds``: of the trials to be run whose kind has recorded times, one after the other; ``unknown``: trials of other kinds.
    """

    trials: int
    recorded: int
    failed: int
    seconds: float
    longest: float
    unknown: tuple[Trial, ...]

    @property
    def to_run(self) -> int:
        return self.trials - self.recorded - self.failed

    def wall(self, workers: int) -> float:
        """Seconds with so many trials at a time."""
        return max(self.seconds / workers, self.longest)


def forecast(trials: Iterable[Trial], store: RecordStore, seconds: dict[Kind, float], retry_failed: bool = False) -> Forecast:
    """The forecast of ``trials``, each counted once; failed ones are run again only with ``retry_failed``."""
    by_key = {trial.key: trial for trial in trials}
    waiting = [trial for trial in by_key.values() if trial.key not in store]
    failed = [] if retry_failed else [trial for trial in waiting if store.failure(trial.key) is not None]
    to_run = [trial for trial in waiting if trial not in failed]
    known = [seconds[kind(trial)] for trial in to_run if kind(trial) in seconds]
    unknown = tuple(trial for trial in to_run if kind(trial) not in seconds)
    return Forecast(len(by_key), len(by_key) - len(waiting), len(failed), sum(known), max(known, default=0.0), unknown)


def kinds_to_run(trials: Iterable[Trial], store: RecordStore) -> set[Kind]:
    """The kinds of those trials that have no record."""
    return {kind(trial) for trial in trials if trial.key not in store}
