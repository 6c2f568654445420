"""``run``, ``reproduce``, ``track``: trials are planned, run, stored, rendered."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.commands import costs
from harness.commands.executing import Running
from harness.commands.rendering import Renderer, spare_cores
from harness.commands.reporting import say_page, say_table
from harness.data.catalogue import facts
from harness.data.checks import examine_folds
from harness.data.opening import base_name, is_there, need_features, open_dataset
from harness.data.schema import Card, Dataset
from harness.data.splits import Fold, published_folds
from harness.data.store import data_root
from harness.errors import ConfigError, DataError, HarnessError
from harness.experiments import cost_tables, figure_items, papers, runner, tracking, tuned
from harness.experiments.estimates import survey
from harness.experiments.papers import TableSpec
from harness.experiments.plan import Effort, choose_device, interleaved, method_trials, plan_table, refuse_unknown_methods
from harness.experiments.plugins import load_file
from harness.experiments.records import RecordStore
from harness.experiments.runner import Outcome
from harness.experiments.schemes import Scheme
from harness.experiments.table_files import files
from harness.experiments.trials import Trial, budget_named, choose_modalities, explain
from harness.experiments.workspace import Workspace
from harness.reporting import diagnoses, summary
from harness.reporting.figures.style import parse_formats
from harness.reporting.forecast import described
from harness.reporting.page.document import TablePart
from harness.reporting.progress import Progress
from harness.training.contract import methods as registered


@dataclass(frozen=True)
class Planned:
    """A table of the target on one stored data set, and the trials that it needs."""

    spec: TableSpec
    card: Card
    plan: Mapping[str, Sequence[Trial]]


def reproduce(
    target: str, data: str, effort: Effort, seeds: str, methods: str, running: Running, tuned_too: bool = False, figures: str = "svg"
) -> None:
    """Run what the tables of ``target`` lack, then render them and the page. Exit code 1 where a trial failed."""
    workspace = Workspace.default()
    renderer = Renderer(workspace, parse_formats(figures), spare_cores())
    with closing(renderer.figures):
        failed = _reproduce(target, data, settle(effort, seeds), methods, running, tuned_too, renderer)
    if failed:
        raise SystemExit(1)


def _reproduce(target: str, data: str, effort: Effort, methods: str, running: Running, tuned_too: bool, renderer: Renderer) -> bool:
    """Whether a trial failed."""
    console, workspace = Console(), renderer.workspace
    cost_specs = cost_tables.of(target)
    costs.refuse_other_data(cost_specs, data)
    figure_specs = figure_items.of(target)
    no_scores = cost_tables.is_item(target) or figure_items.is_item(target)
    tables = [] if no_scores else planned(target, data, effort, methods, console, workspace.root if tuned_too else None)
    failed = False
    for table in tables:
        if any(runner.outstanding(trials, workspace.store, running.retry_failed) for trials in table.plan.values()):
            renderer.figures.finish()  # trials have the cores to themselves
        outcome = execute(interleaved(table.plan), f"{table.spec.name} {table.card.name}", workspace, running, console)
        failed |= bool(outcome.failed or outcome.undiagnosed)
        show(table, effort, renderer, console)
        if running.diagnose:
            _diagnose(table.spec.name, table.card, table.spec.metrics, table.plan, workspace, console)
        console.print(summary.closing(outcome, workspace), highlight=False, soft_wrap=True)
    renderer.figures.finish()  # as do timings
    for spec in cost_specs:
        costs.table(spec, data, effort, renderer, console, measure=True)
    if renderer.formats:
        from harness.commands import drawing

        for figure in figure_specs:
            list(drawing.item(figure, data, effort, renderer, console, running))
    say_page(renderer.page(), console)
    return failed


def run(
    method: str, dataset: str, settings: Sequence[str], effort: Effort, seeds: str, running: Running, why: bool, use_tuned: bool = False
) -> None:
    """Run one method on one data set, or with ``why`` say what would be run and for which reason."""
    console, workspace = Console(), Workspace.default()
    plugin = Path(method).resolve() if method.endswith(".py") else None
    name = load_file(plugin) if plugin else method
    effort = settle(effort, seeds)
    opened, effort = open_checked(dataset, effort, console)
    card = opened.card
    by_fold = _tuned_settings(name, card, effort, workspace, console) if use_tuned else lambda fold: {}
    trials = method_trials(name, card, effort, dict(map(parse_setting, settings)), effort.seeds, by_fold)
    if why:
        for trial in trials:
            console.print(f"{trial.label} [{trial.key}]: {_why(trial, workspace.store)}", highlight=False, markup=False, soft_wrap=True)
        return
    if running.dry:
        return _say_plan(f"run {card.name}", {name: trials}, workspace, running, console)
    outcome = execute(trials, f"run {card.name}", workspace, running, console, plugin)
    console.print(summary.scores(trials, workspace.store), highlight=False, markup=False, soft_wrap=True)
    if running.diagnose:
        _diagnose(f"run {name}", card, card.metrics, {name: trials}, workspace, console)
    console.print(summary.closing(outcome, workspace), highlight=False, soft_wrap=True)
    if outcome.failed or outcome.undiagnosed:
        raise SystemExit(1)


def track() -> None:
    """Publish pending records; HarnessError where MLflow still refuses."""
    workspace = Workspace.default()
    with workspace.writing():
        done, problems = tracking.publish_pending(workspace)
    Console().print(f"{done} records published to {workspace.tracking_uri}", highlight=False, soft_wrap=True)
    if problems:
        raise HarnessError(
            f"MLflow at {workspace.tracking_uri} refused: {'; '.join(problems)}", "Start the server and type `harness track` again."
        )


def planned(target: str, data: str, effort: Effort, methods: str, console: Console, tuned_root: Path | None) -> list[Planned]:
    """The tables of ``target``; the option ``--data`` replaces the data set whose variant it is and leaves the others out.

    Of several tables, those whose data set is not there are left out, and that is said. With ``tuned_root``, the results
    folder, rows that were tuned have a second one with the settings that were found.
    """
    chosen = [name.strip() for name in methods.split(",") if name.strip()]
    specs, all_datasets = zip(*papers.select(target), strict=True)
    for spec in specs:
        refuse_unknown_methods(files()[spec.paper, spec.item], spec.rows)
    specs = tuple(papers.only(specs, chosen)) if chosen else specs
    wanted = [(spec, dataset) for spec, datasets in zip(specs, all_datasets, strict=True) for dataset in _chosen(datasets, data)]
    if not wanted:
        known = sorted({name for datasets in all_datasets for name in datasets})
        raise ConfigError(
            f"--data {data}: {target} has no such data set", f"It has {', '.join(known)}, and variants such as {known[0]}@NAME."
        )
    there = [(spec, dataset) for spec, dataset in wanted if len(wanted) == 1 or _is_there(spec, dataset, console)]
    cards: dict[tuple[str, tuple[Scheme, ...]], Card] = {}
    found = []
    for spec, dataset in there or wanted[:1]:  # where none is there, the first one's error says what to do
        place = (dataset, spec.protocol)
        if place not in cards:
            cards[place] = _checked_card(dataset, spec, effort, console)
        found.append(_planned(spec, cards[place], effort, console, tuned_root))
    return found


def _chosen(datasets: Sequence[str], data: str) -> Sequence[str]:
    return datasets if not data else [data] if base_name(data) in datasets else []


def _is_there(spec: TableSpec, dataset: str, console: Console) -> bool:
    there = is_there(dataset, data_root())
    if not there:
        text = f"{spec.name} is left out: {facts(base_name(dataset)).title} ({dataset}) was not imported"
        console.print(text, style="yellow", highlight=False, markup=False, soft_wrap=True)
    return there


def _checked_card(dataset: str, spec: TableSpec, effort: Effort, console: Console) -> Card:
    """The card of a stored data set that can be cut by every protocol of the table."""
    opened, _ = open_checked(dataset, effort, console, [fold for scheme in spec.protocol for fold in scheme.cuts()])
    if opened.card.simulated:
        console.print(
            f"The inputs are [bold]SIMULATED[/bold] ({opened.card.name}): no number below says anything about real clips.",
            highlight=False,
            soft_wrap=True,
        )
    return opened.card


def _planned(spec: TableSpec, card: Card, effort: Effort, console: Console, tuned_root: Path | None) -> Planned:
    measured = papers.present(spec, list(card.modalities), card.name)
    if tuned_root is not None:
        measured = _with_tuned_rows(measured, card, effort, tuned_root, console)
    return Planned(measured, card, plan_table(measured, card, effort))


def open_checked(name: str, effort: Effort, console: Console, cuts: Sequence[Fold] | None = None) -> tuple[Dataset, Effort]:
    """A stored data set, and ``effort`` with the folds that it ships, where those are asked for. ``cuts`` replace those of ``effort``.

    Says what the checks find. DataError, before anything is run, where the data cannot be cut so or must not be trained on.
    """
    dataset = need_features(open_dataset(name, data_root()))
    if effort.protocol == "published" and not effort.folds:
        effort = effort.model_copy(update={"folds": published_folds(dataset)})
    found = examine_folds(dataset, facts(dataset.card.dataset), effort.cuts() if cuts is None else cuts)
    for finding in found:
        if finding.severity != "notice":
            console.print(str(finding), style="yellow", highlight=False, markup=False, soft_wrap=True)
    errors = [finding for finding in found if finding.severity == "error"]
    if errors:
        raise DataError(f"{dataset.card.name} cannot be trained on: {errors[0].message}", errors[0].remedy)
    return dataset, effort


def _tuned_settings(name: str, card: Card, effort: Effort, workspace: Workspace, console: Console) -> Callable[[Fold], Mapping[str, Any]]:
    found, remark = tuned.find(workspace.root, name, card, choose_modalities(card, effort.modalities))
    if found is None:
        raise ConfigError(f"--tuned: {remark}", "Or leave --tuned out for the published settings.")
    _say_preset(found, remark, console)
    return found.settings


def _with_tuned_rows(spec: TableSpec, card: Card, effort: Effort, root: Path, console: Console) -> TableSpec:
    """``spec`` with a tuned row below each one that was tuned as it stands; rows of ablations have settings of their own."""
    presets = {}
    fold, *others = [fold for scheme in spec.protocol for fold in scheme.cuts()]
    if others:
        text = f"{spec.name}: no tuned rows, since a preset is of one cut of the data and this table has {1 + len(others)}."
        console.print(text, highlight=False, markup=False, soft_wrap=True)
        return spec
    for row in spec.rows:
        if row.method and row.method in registered and not row.config:
            found, remark = tuned.find(root, row.method, card, choose_modalities(card, row.modalities or effort.modalities))
            if found is None:
                console.print(f"{row.name}: {remark}.", highlight=False, markup=False, soft_wrap=True)
            else:
                _say_preset(found, remark, console)
                presets[row.name] = found
    return tuned.with_tuned_rows(spec, presets, fold)


def _say_preset(found: tuned.Tuned, remark: str, console: Console) -> None:
    text = f"{found.method}, tuned: {found.said()}" + (f"; {remark}" if remark else "")
    console.print(text, style="yellow" if remark else None, highlight=False, markup=False, soft_wrap=True)


def execute(
    trials: Sequence[Trial], experiment: str, workspace: Workspace, running: Running, console: Console, plugin: Path | None = None
) -> Outcome:
    options = runner.Options(data_root().resolve(), running.checkpoint_seconds, running.retry_failed, plugin, bool(running.diagnose))
    waiting = runner.outstanding(trials, workspace.store, running.retry_failed, options.diagnose)
    total = len({trial.key for trial in trials})
    console.print(f"{experiment}: {total} trials, {total - len(waiting)} of them done before", highlight=False, soft_wrap=True)
    executor = running.executor()
    with Progress(waiting, total, executor.workers, console) as progress:
        return runner.run(trials, workspace, executor, tracking.Tracker(workspace, experiment), options, progress)


def _say_plan(title: str, rows: Mapping[str, Sequence[Trial]], workspace: Workspace, running: Running, console: Console) -> None:
    trials = [trial for row in rows.values() for trial in row]
    known = survey(trials, workspace.store, running.retry_failed, bool(running.diagnose))
    console.print(described(title, rows, known, running.executor().workers), highlight=False, markup=False, soft_wrap=True)


def show(table: Planned, effort: Effort, renderer: Renderer, console: Console) -> tuple[TablePart, ...]:
    """Render a table and print it; its parts."""
    parts = renderer.table(table.spec, table.card, budget_named(effort.budget), table.plan)
    for part in parts:
        say_table(part, renderer.workspace.root, console)
    return parts


def _diagnose(
    title: str, card: Card, names: Sequence[str], plan: Mapping[str, Sequence[Trial]], workspace: Workspace, console: Console
) -> None:
    found = diagnoses.gather(title, card, names, plan, workspace.store)
    stem = f"{title}_{card.name}".replace("/", "_").replace("@", "-").replace(" ", "_")
    paths = diagnoses.write(found, workspace.root / "diagnoses", stem)
    text = f"\n{diagnoses.console(found)}\n\n{diagnoses.LABEL}, written: {', '.join(map(str, paths))}\n"
    console.print(text, style="yellow", highlight=False, markup=False, soft_wrap=True)


def settle(effort: Effort, seeds: str) -> Effort:
    """``effort`` with its device found out and its seeds read."""
    return effort.model_copy(update={"device": choose_device(effort.device), "seeds": parse_seeds(seeds)})


def parse_seeds(text: str) -> tuple[int, ...]:
    """The papers' five seeds for ``5``, the first three of them for ``3``, for more than five also 2, 3, 4, ...; ``42,7`` -> these.

    ``42,`` is the one seed 42; empty: none stated. ConfigError for anything else.
    """
    if not text:
        return ()
    try:
        numbers = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 0 or len(set(numbers)) < len(numbers):
        raise ConfigError(f"--seeds {text} is neither a number of seeds nor a list of seeds", "Write --seeds 5 or --seeds 42,1,11.")
    return numbers if "," in text else _first_seeds(numbers[0])


def _first_seeds(count: int) -> tuple[int, ...]:
    if not count:
        raise ConfigError("--seeds 0 asks for no run", "Write --seeds 5 or --seeds 42,1,11.")
    usual = (42, 1, 11, 111, 1111)
    others = (seed for seed in itertools.count(2) if seed not in usual)
    return tuple(itertools.islice(itertools.chain(usual, others), count))


def parse_groups(text: str) -> tuple[int, int, int] | None:
    """``16/4/4`` as numbers of groups that train, validate and test; empty: none. ConfigError otherwise."""
    numbers = text.split("/") if text else []
    if not numbers:
        return None
    if len(numbers) != 3 or not all(number.strip().isdigit() for number in numbers):
        raise ConfigError(f"--groups {text} is not three numbers", "Write how many groups train, validate and test: --groups 16/4/4.")
    train, valid, test = map(int, numbers)
    return train, valid, test


def parse_setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--set {text} is not KEY=VALUE", "Write, for instance, --set training.learning_rate=0.001.")
    try:
        return key.strip(), json.loads(value)
    except json.JSONDecodeError:
        return key.strip(), value


def _why(trial: Trial, store: RecordStore) -> str:
    """Why a trial would be run, or that it would not."""
    if store.sound(trial.key):
        return "recorded, would be reused"
    if trial.key in store:
        return "would be run: its record is damaged"
    failure = store.failure(trial.key)
    if failure:
        return f"failed before ({failure.reason}: {failure.message}); --retry-failed runs it again"
    wanted = trial.identity
    akin = [record.identity for record in store.records() if record.identity.method == wanted.method]
    if not akin:
        return f"would be run: no record of {wanted.method} exists"
    nearest = min((explain(wanted, identity) for identity in akin), key=len)
    return "would be run: " + "; ".join(nearest)
