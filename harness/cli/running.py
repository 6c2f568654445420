"""Commands that run trials, and those that render what was run."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli.options import (
    TARGETS,
    Address,
    Budget,
    Device,
    Diagnose,
    Dry,
    EverySeconds,
    ExecutorName,
    Figures,
    Folds,
    GpuShare,
    Groups,
    Inline,
    Methods,
    Modalities,
    Plan,
    ProtocolName,
    Quick,
    Repeats,
    Retry,
    Seeds,
    Target,
    Timeout,
    Tuned,
    TunedRows,
    Validation,
    Workers,
    budget_of,
    executor_of,
    names_in,
)

app = typer.Typer()


@app.command()
def reproduce(
    target: Target,
    data: Annotated[str, typer.Option(help="Stored data set to use, such as mosi@minilm; default: the imported one, else simulated.")] = "",
    plan: Plan = False,
    budget: Budget = "quick",
    quick: Quick = False,
    seeds: Seeds = "",
    methods: Methods = "",
    tuned: TunedRows = False,
    workers: Workers = 0,
    device: Device = "auto",
    timeout: Timeout = 0.0,
    retry_failed: Retry = False,
    checkpoint_seconds: EverySeconds = 60.0,
    inline: Inline = False,
    executor: ExecutorName = "processes",
    address: Address = "auto",
    gpu_share: GpuShare = 0.0,
    diagnose: Diagnose = "",
    figures: Figures = "svg",
) -> None:
    """Run what a paper's tables still lack, and render them and the page results/index.html."""
    from harness.commands import running as commands
    from harness.commands.executing import Running, Where
    from harness.experiments.plan import Effort

    effort = Effort(budget=budget_of(budget, quick), device=device)
    where = Where(executor_of(executor, inline), address, gpu_share)
    how = Running(workers, timeout or None, retry_failed, checkpoint_seconds, where, diagnose)
    if plan:
        from harness.commands import planning

        return planning.show_plan(target, data, effort, seeds or ("2" if quick else ""), methods, how, tuned)
    commands.reproduce(target, data, effort, seeds or ("2" if quick else ""), methods, how, tuned, figures)


@app.command()
def report(
    target: Annotated[str, typer.Argument(help=f"{TARGETS} Default: all papers.")] = "",
    data: Annotated[str, typer.Option(help="Stored data set, as for `reproduce`.")] = "",
    budget: Budget = "quick",
    seeds: Seeds = "",
    methods: Methods = "",
    tuned: TunedRows = False,
    device: Device = "auto",
    figures: Figures = "svg",
) -> None:
    """Render tables and the page results/index.html from the records that exist; runs nothing."""
    from harness.commands import reporting as commands

    commands.report(commands.Asked(target, data, budget, seeds, methods, tuned, device, figures))


@app.command()
def run(
    method: Annotated[str, typer.Argument(help="A name from `harness list methods`, or your own .py file.")],
    dataset: Annotated[str, typer.Argument(help="A data set, such as mosi or mosi@minilm.")],
    settings: Annotated[list[str] | None, typer.Option("--set", help="A setting, such as training.learning_rate=0.001.")] = None,
    tuned: Tuned = False,
    budget: Budget = "quick",
    quick: Quick = False,
    seeds: Seeds = "",
    protocol: ProtocolName = "",
    folds: Folds = 0,
    repeats: Repeats = 1,
    validation: Validation = None,
    groups: Groups = "",
    modalities: Modalities = "",
    workers: Workers = 0,
    device: Device = "auto",
    timeout: Timeout = 0.0,
    retry_failed: Retry = False,
    checkpoint_seconds: EverySeconds = 60.0,
    inline: Inline = False,
    executor: ExecutorName = "processes",
    address: Address = "auto",
    gpu_share: GpuShare = 0.0,
    diagnose: Diagnose = "",
    dry_run: Dry = False,
    explain: Annotated[bool, typer.Option("--explain", help="Say why trials would be run again; runs nothing.")] = False,
) -> None:
    """Run one method on one data set."""
    from harness.commands import running as commands
    from harness.commands.executing import Running, Where
    from harness.experiments.plan import Effort

    chosen = names_in(modalities) or None
    effort = Effort(
        budget=budget_of(budget, quick),
        device=device,
        protocol=protocol,
        folds=folds,
        repeats=repeats,
        validation=validation,
        groups=commands.parse_groups(groups),
        modalities=chosen,
    )
    where = Where(executor_of(executor, inline), address, gpu_share)
    how = Running(workers, timeout or None, retry_failed, checkpoint_seconds, where, diagnose, dry_run)
    commands.run(method, dataset, settings or [], effort, seeds or ("2" if quick else "1"), how, explain, tuned)


@app.command()
def tune(
    method: Annotated[str, typer.Argument(help="A name from `harness list methods`, or your own .py file.")],
    dataset: Annotated[str, typer.Argument(help="A data set, such as mosi or mosi@minilm.")],
    trials: Annotated[int, typer.Option(help="Trials in all; the first one is the published settings.")] = 30,
    fields: Annotated[str, typer.Option(help="What to search: weights,training,dropout.text; default: all that has a range.")] = "",
    settings: Annotated[list[str] | None, typer.Option("--set", help="A setting that stays as it is here, such as hidden=64.")] = None,
    seeds: Annotated[str, typer.Option(help="Inner seeds: how many (2), or which (7,8); by default none of a table's.")] = "2",
    inner_folds: Annotated[int, typer.Option(min=0, help="Cross-validate within what is not tested; 0: the split's own part.")] = 0,
    together: Annotated[int, typer.Option(help="Trials proposed at once; part of the result, unlike --workers.")] = 4,
    restart: Annotated[bool, typer.Option("--restart", help="Forget earlier trials of this very search.")] = False,
    confirm: Annotated[int, typer.Option(min=0, help="Compare what was found with the published settings on so many fresh seeds.")] = 5,
    budget: Budget = "quick",
    protocol: ProtocolName = "",
    folds: Folds = 0,
    repeats: Repeats = 1,
    validation: Validation = None,
    groups: Groups = "",
    modalities: Modalities = "",
    workers: Workers = 0,
    device: Device = "auto",
    timeout: Timeout = 0.0,
    checkpoint_seconds: EverySeconds = 60.0,
    inline: Inline = False,
    executor: ExecutorName = "processes",
    address: Address = "auto",
    gpu_share: GpuShare = 0.0,
) -> None:
    """Search a method's settings on validation; write them to a preset file that --tuned uses."""
    from harness.commands import tuning as commands
    from harness.commands.executing import Running, Where
    from harness.commands.running import parse_groups
    from harness.experiments.plan import Effort

    effort = Effort(
        budget=budget,
        device=device,
        protocol=protocol,
        folds=folds,
        repeats=repeats,
        validation=validation,
        groups=parse_groups(groups),
        modalities=names_in(modalities) or None,
    )
    asked = commands.Asked(trials, names_in(fields), settings or [], seeds, inner_folds, together, restart, confirm)
    where = Where(executor_of(executor, inline), address, gpu_share)
    commands.tune(method, dataset, asked, effort, Running(workers, timeout or None, False, checkpoint_seconds, where))


@app.command()
def track() -> None:
    """Publish records that MLflow could not take when they were made."""
    from harness.commands import running

    running.track()
