"""``compare``: two systems on one data set. ``rank``: several systems on several data sets. Both from records alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from harness.analysis.statistics import Scores, diagram
from harness.commands.running import open_checked, parse_setting, settle
from harness.data.schema import Card
from harness.errors import ConfigError
from harness.experiments.plan import Effort, method_trials
from harness.experiments.plugins import load_file
from harness.experiments.records import RecordStore
from harness.experiments.trials import Trial
from harness.experiments.workspace import Workspace
from harness.registry import suggest
from harness.reporting.collect import Measured, collect
from harness.reporting.ranking import ranking_text
from harness.reporting.versus import text, versus
from harness.training.metrics import metrics


@dataclass(frozen=True)
class System:
    """A method, or a file that defines one, with settings that differ from the published ones."""

    method: str
    settings: Sequence[str] = field(default_factory=tuple)

    @property
    def name(self) -> str:
        """As printed: the method and its settings."""
        return " ".join((Path(self.method).stem if self.method.endswith(".py") else self.method, *self.settings))

    def trials(self, card: Card, effort: Effort, seeds: Sequence[int]) -> list[Trial]:
        method = load_file(Path(self.method).resolve()) if self.method.endswith(".py") else self.method
        return method_trials(method, card, effort, dict(map(parse_setting, self.settings)), seeds)


@dataclass(frozen=True)
class Asked:
    """``names``: metrics, empty for all of the data set."""

    names: tuple[str, ...] = ()
    alpha: float = 0.05
    resamples: int = 10_000


def compare(a: System, b: System, dataset: str, effort: Effort, seeds: str, asked: Asked) -> None:
    """Print every statistic of A against B; without ``seeds``, over all that either has a record of."""
    console, store = Console(), Workspace.default().store
    effort = settle(effort, seeds)
    opened, effort = open_checked(dataset, effort, console)
    card = opened.card
    names = _metrics(asked.names, card)
    chosen = effort.seeds or _recorded_seeds([a, b], card, effort, store)
    rows = [_measured(system, name, names, card, effort, chosen, store) for system, name in zip((a, b), _names(a, b), strict=True)]
    found = versus(rows[0], rows[1], card, names, alpha=asked.alpha, resamples=asked.resamples)
    console.print(text(found), highlight=False, markup=False, soft_wrap=True)


def rank(systems: Sequence[str], datasets: Sequence[str], metric: str, effort: Effort, seeds: str, alpha: float) -> None:
    """Print Friedman's test of ``systems`` over ``datasets``, mean ranks, and which pairs differ."""
    console, store = Console(), Workspace.default().store
    effort = settle(effort, seeds)
    values, notes = [], []
    for dataset in datasets:
        opened, cut_up = open_checked(dataset, effort, console)
        (name,) = _metrics((metric,), opened.card)
        all_systems = [System(system) for system in systems]
        chosen = cut_up.seeds or _recorded_seeds(all_systems, opened.card, cut_up, store)
        rows = [_measured(system, system.name, [name], opened.card, cut_up, chosen, store) for system in all_systems]
        values.append([row.mean(name) for row in rows])
        notes += [f"{row.name} on {opened.card.name}: {row.finished} of {len(row.expected)} runs" for row in rows if not row.complete]
        notes += [f"{opened.card.name} is SIMULATED data"] if opened.card.simulated else []
    scores = Scores(values, list(systems), list(datasets), metrics[metric].higher_is_better)
    console.print(ranking_text(diagram(scores, alpha=alpha), scores, metrics[metric], notes), highlight=False, markup=False, soft_wrap=True)


def _names(a: System, b: System) -> tuple[str, str]:
    if a == b:
        raise ConfigError(f"{a.name} would be compared with itself", "Name another method, or another setting with --set-a or --set-b.")
    return a.name, b.name


def _metrics(names: Sequence[str], card: Card) -> list[str]:
    for name in names:
        if name not in card.metrics:
            raise ConfigError(f"{card.name} has no metric '{name}'", suggest(name, card.metrics))
    return list(names or card.metrics)


def _measured(
    system: System, name: str, names: Sequence[str], card: Card, effort: Effort, seeds: Sequence[int], store: RecordStore
) -> Measured:
    return collect(names, card, {name: system.trials(card, effort, seeds)}, store)[name]


def _recorded_seeds(systems: Sequence[System], card: Card, effort: Effort, store: RecordStore) -> list[int]:
    """The seeds of which any of ``systems`` has a record; ConfigError where none has."""
    candidates = sorted({record.identity.seed for record in store.records() if record.identity.data == card.fingerprint})
    trials = [trial for system in systems for trial in system.trials(card, effort, candidates)]
    found = sorted({trial.identity.seed for trial in trials if trial.key in store})
    if not found:
        names = " or ".join(system.name for system in systems)
        raise ConfigError(f"no record of {names} on {card.name} with this budget and split in {store.root}", "Make some: harness run.")
    return found
