"""``tune``: settings are searched on development data; what is found becomes a preset file."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.analysis.inventory import describe
from harness.commands.executing import Running
from harness.commands.running import execute, open_checked, parse_seeds, parse_setting, settle
from harness.data.opening import base_name
from harness.data.schema import Card, Dataset
from harness.data.splits import Fold
from harness.errors import ConfigError, Stopped
from harness.experiments import study, tracking, tuned
from harness.experiments.candidates import Candidate
from harness.experiments.development import kept_apart
from harness.experiments.environment import environment
from harness.experiments.events import Advised, EpochDone, Evaluated, Event, Failed, Warned
from harness.experiments.plan import Effort, interleaved, method_trials
from harness.experiments.plugins import load_file
from harness.experiments.search import SEEDS, Search, objective, search_space
from harness.experiments.study import Proposal, TrialRecord
from harness.experiments.trials import budget_named, choose_modalities, make_trial, resolve_config
from harness.experiments.workspace import Reserve, Workspace
from harness.reporting import tuning as shown
from harness.reporting.confirmation import confirmation
from harness.training.contract import methods


@dataclass(frozen=True)
class Asked:
    """What the command line asks for, beside effort and execution."""

    trials: int
    fields: tuple[str, ...]
    settings: Sequence[str]
    seeds: str
    inner_folds: int
    together: int
    restart: bool
    confirm: int


def tune(method: str, dataset: str, asked: Asked, effort: Effort, running: Running) -> None:
    """Search settings of ``method`` on ``dataset``, for each fold that ``effort`` asks for, and write the preset file."""
    study.need_optuna()
    console, workspace = Console(), Workspace.default()
    plugin = Path(method).resolve() if method.endswith(".py") else None
    name = load_file(plugin) if plugin else method
    _check(asked, name)
    effort = settle(effort, "")
    opened, effort = open_checked(dataset, effort, console)
    searches = [_search(name, opened, fold, asked, effort) for fold in effort.cuts()]
    began = time.monotonic()
    with workspace.writing() as reserve:
        results = []
        for search in searches:
            conductor = _Conductor(search, opened, asked, workspace, running, plugin, reserve, console)
            results.append((search, conductor.conduct()))
            conductor.publish(results[-1][1])
        path = tuned.place(workspace.root, name, opened.card, searches[0].modalities)
        found = [_found(search, trials) for search, trials in results]
        preset = _preset(searches[0], found, asked)
        reserve.protect(lambda: tuned.write(preset, path), "the preset file")
        pictures = shown.write_figures(results, path) if shown.drawable(console) else []
    console.print(shown.summary(results, time.monotonic() - began), highlight=False, soft_wrap=True)
    shown.say_where(path, pictures, method, opened.card.name, console)
    if asked.confirm and len(searches) == 1:
        _confirm(preset, opened.card, effort, asked, running, plugin, console)


def _confirm(
    preset: tuned.Tuned, card: Card, effort: Effort, asked: Asked, running: Running, plugin: Path | None, console: Console
) -> None:
    """Published and found settings on a table's seeds, as ordinary trials: what ``run`` and ``reproduce`` use too."""
    fixed, seeds = dict(map(parse_setting, asked.settings)), parse_seeds(str(asked.confirm))
    plan = {
        "published": method_trials(preset.method, card, effort, fixed, seeds),
        "tuned": method_trials(preset.method, card, effort, {}, seeds, preset.settings),
    }
    workspace = Workspace.default()
    execute(interleaved(plan), f"tune {card.name}, confirmation", workspace, running, console, plugin)
    console.print(confirmation(card, plan, workspace.store), highlight=False, markup=False, soft_wrap=True)


def _check(asked: Asked, name: str) -> None:
    if describe(name, methods[name]).parameters == 0:
        raise ConfigError(f"{name} is not trained by gradient steps: there is no validation loss to search by", "Tune a method that is.")
    for option, value in {"--trials": asked.trials, "--together": asked.together}.items():
        if value < 1:
            raise ConfigError(f"{option} {value} asks for nothing", f"Write, for instance, {option} 30.")
    if asked.inner_folds and asked.inner_folds < 3:
        raise ConfigError(f"--inner-folds {asked.inner_folds} is too few", "Ask for at least 3, or for none.")


def _search(name: str, dataset: Dataset, fold: Fold, asked: Asked, effort: Effort) -> Search:
    card = dataset.card
    fixed = dict(map(parse_setting, asked.settings))
    config = resolve_config(methods[name], base_name(card.name), budget_named(effort.budget), effort.device, fixed)
    modalities = choose_modalities(card, effort.modalities) if config.text_encoder.path is None else effort.modalities
    trial = make_trial(name, card, config, seed=0, fold=fold, budget=effort.budget, modalities=modalities)
    return Search(
        method=name,
        code=trial.identity.code,
        config=trial.identity.config,
        fixed=fixed,
        space=search_space(config, trial.identity.modalities, asked.fields, fixed),
        dataset=card.name,
        data=card.fingerprint,
        modalities=trial.identity.modalities,
        fold=fold,
        seeds=inner_seeds(asked.seeds),
        inner_folds=asked.inner_folds,
        budget=effort.budget,
        together=asked.together,
    )


def inner_seeds(text: str) -> tuple[int, ...]:
    """``2`` -> so many seeds that no table uses; ``7,8`` -> these."""
    if text.isdigit() and 0 < int(text) <= len(SEEDS):
        return SEEDS[: int(text)]
    return parse_seeds(text)


@dataclass
class _Conductor:
    """One search: its folder, its development data, its executor."""

    search: Search
    dataset: Dataset
    asked: Asked
    workspace: Workspace
    running: Running
    plugin: Path | None
    reserve: Reserve
    console: Console
    told: set[str] = field(default_factory=set)

    @property
    def folder(self) -> Path:
        return self.workspace.root / "tuned" / "searches" / f"{self.search.method}-{self.search.dataset}-{self.search.key}"

    @property
    def data(self) -> Path:
        """Where the development data lie while trials run."""
        return (self.folder / "data").resolve()

    @cached_property
    def development(self) -> Card:
        """The development data's card; they are written when the first trial needs them."""
        return kept_apart(self.dataset, self.search.fold, self.data).card

    def conduct(self) -> list[TrialRecord]:
        if self.asked.restart:
            shutil.rmtree(self.folder, ignore_errors=True)
        shown.say_search(self.search, self.asked.trials, self.folder, self.console)
        try:
            return study.conduct(self.search, self.asked.trials, self.folder, self._evaluate, self.reserve.protect)
        except KeyboardInterrupt:
            raise Stopped("stopped; finished trials are kept", "The same command continues where this one stopped.") from None
        finally:
            shutil.rmtree(self.data, ignore_errors=True)

    def publish(self, trials: Sequence[TrialRecord]) -> None:
        problem = tracking.publish_search(self.workspace, self.search, trials)
        if problem:
            text = f"! MLflow does not answer ({problem}); the same command publishes the trials later"
            self.console.print(text, style="yellow", highlight=False, markup=False, soft_wrap=True)

    def _evaluate(self, proposals: Sequence[Proposal], keep: Callable[[TrialRecord], None]) -> None:
        jobs: dict[str, tuple[Proposal, Candidate]] = {}
        for proposal in proposals:
            job = self._job(proposal)
            if isinstance(job, TrialRecord):
                self._end(job, keep)
            else:
                jobs[job.trial.key] = (proposal, job)
        listener = _Listener({key: proposal for key, (proposal, _) in jobs.items()}, self, keep)
        with listener.status:
            self.running.executor().run([job for _, job in jobs.values()], listener)

    def _job(self, proposal: Proposal) -> Candidate | TrialRecord:
        """The work of one trial, or its record where the settings do not fit together."""
        search = self.search
        kind = methods[search.method]
        try:
            base = budget_named(search.budget)
            changes = {**search.fixed, **proposal.settings}
            config = resolve_config(kind, base_name(search.dataset), base, search.config["training"]["device"], changes)
            trial = make_trial(
                search.method,
                self.development,
                config,
                seed=proposal.number,
                fold=search.fold,
                budget=search.budget,
                modalities=search.modalities,
            )
        except ConfigError as error:
            return self._record(proposal, outcome="failed", message=error.problem)
        return Candidate(
            trial,
            self.data,
            self.workspace.checkpoint(trial.key),
            self.running.checkpoint_seconds,
            self.plugin,
            seeds=search.seeds,
            inner_folds=search.inner_folds,
            limits=proposal.limits,
        )

    def _record(self, proposal: Proposal, **outcome: Any) -> TrialRecord:
        return TrialRecord(search=self.search.key, number=proposal.number, settings=proposal.settings, **outcome)

    def _end(self, trial: TrialRecord, keep: Callable[[TrialRecord], None]) -> None:
        keep(trial)
        shown.say_trial(trial, self.asked.trials, self.console)


@dataclass
class _Listener:
    """Turns what workers report into trial files and lines on the console."""

    proposals: Mapping[str, Proposal]
    conductor: _Conductor
    keep: Callable[[TrialRecord], None]
    under_way: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.status = self.conductor.console.status("")  # shown on a terminal alone

    def __call__(self, event: Event) -> None:
        match event:
            case EpochDone(key, step, steps, value, _):
                self.under_way[key] = f"trial {self.proposals[key].number}: epoch {step} of at most {steps}, {value:.4f}"
                self.status.update("   ".join(self.under_way.values()))
            case Evaluated(key, runs, pruned, seconds):
                outcome = {"outcome": "pruned"} if pruned else {"outcome": "finished", "objective": objective(runs)}
                self._end(key, runs=runs, seconds=seconds, **outcome)
            case Failed(failure):
                how = "diverged" if failure.reason == "diverged" else "failed"
                self._end(event.key, outcome=how, message=f"{failure.reason}: {failure.message}")
            case Warned(_, text) | Advised(_, text) if text not in self.conductor.told:
                self.conductor.told.add(text)  # every trial of a method makes the same remarks on it
                self.conductor.console.print(f"! {text}", style="yellow", highlight=False, markup=False, soft_wrap=True)

    def _end(self, key: str, **outcome: Any) -> None:
        conductor = self.conductor
        self.under_way.pop(key, None)
        conductor._end(conductor._record(self.proposals[key], **outcome), self.keep)
        conductor.workspace.checkpoint(key).unlink(missing_ok=True)


def _found(search: Search, trials: Sequence[TrialRecord]) -> tuned.Found:
    best = study.best(trials)
    if best is None or best.objective is None:
        raise ConfigError(
            f"none of {len(trials)} trials of {search.method} finished: {trials[0].message}",
            "Raise --trials or the budget, or narrow --fields.",
        )
    counts = {how: sum(trial.outcome in names for trial in trials) for how, names in shown.OUTCOMES.items()}
    return tuned.Found(
        fold=search.fold,
        search=search.key,
        trial=best.number,
        objective=best.objective,
        published=trials[0].objective,
        settings=best.settings,
        **counts,
    )


def _preset(search: Search, found: Sequence[tuned.Found], asked: Asked) -> tuned.Tuned:
    here = environment("cpu")
    return tuned.Tuned(
        method=search.method,
        dataset=search.dataset,
        data=search.data,
        modalities=search.modalities,
        budget=search.budget,
        trials=asked.trials,
        seeds=search.seeds,
        inner_folds=search.inner_folds,
        commit=here.commit,
        dirty=here.dirty,
        code=search.code,
        fixed=tuple(f"{key}={json.dumps(value)}" for key, value in search.fixed.items()),
        found=tuple(found),
    )
