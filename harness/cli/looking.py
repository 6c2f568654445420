"""Commands that look at methods, tables and records; none of them changes a record."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import Budget, Device, Figures, Folds, Groups, Modalities, ProtocolName, Repeats, Validation, names_in

app = typer.Typer()


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="methods, datasets or tables.")],
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show settings and facts.")] = False,
) -> None:
    """List methods, data sets or tables."""
    from harness.commands import listing

    listing.list_things(what, verbose)


@app.command("new-table")
def new_table(
    name: Annotated[str, typer.Argument(metavar="PAPER/ITEM", help="Where it goes: mine/t1 is reports/mine/t1.toml.")],
) -> None:
    """Write a table file to fill in: every key with a comment, valid as it stands."""
    from harness.commands import tablefiles

    tablefiles.new_table(name)


@app.command()
def profile(
    methods: Annotated[str, typer.Argument(help="Names from `harness list methods` (tfn,lmf), or your own .py file.")],
    dataset: Annotated[str, typer.Argument(help="A data set, such as mosi or mosi@minilm.")],
    lengths: Annotated[str, typer.Option(help="Frames per clip, text=50,audio=375,vision=500; default: the longest clip's.")] = "",
    settings: Annotated[list[str] | None, typer.Option("--set", help="A setting, such as hidden=64, of every method.")] = None,
    modalities: Modalities = "",
    device: Device = "auto",
    threads: Annotated[int, typer.Option(min=1, help="Threads while timing.")] = 1,
    latency: Annotated[bool, typer.Option("--latency/--no-latency", help="Time evaluations too.")] = True,
    json: Annotated[Path | None, typer.Option(help="Write all figures to this file.")] = None,
) -> None:
    """Parameters, FLOPs, latency and memory of methods, side by side."""
    from harness.commands import profile as commands

    chosen = names_in(modalities) or None
    commands.profile(methods, dataset, commands.Asked(lengths, settings or [], chosen, device, threads, latency), json)


@app.command()
def bench(
    methods: Annotated[str, typer.Argument(help="Names from `harness list methods` (tfn,lmf), or your own .py file.")],
    datasets: Annotated[str, typer.Argument(help="Data sets, such as mosi or mosi@minilm,mosei.")],
    settings: Annotated[list[str] | None, typer.Option("--set", help="A setting, such as training.batch_size=32, of every method.")] = None,
    modalities: Modalities = "",
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of each training; their median counts.")] = 3,
    workers: Annotated[int, typer.Option(min=0, help="Worker processes of one thread each; 0: one per core.")] = 0,
    clips: Annotated[int, typer.Option(min=0, help="Train on so many of the clips and scale the times; 0: all.")] = 0,
    growth: Annotated[bool, typer.Option("--growth", help="Time 1,000 to 16,000 clips and 50 to 500 frames too, and draw it.")] = False,
    figures: Figures = "svg,pdf,png",
    json: Annotated[Path | None, typer.Option(help="Write all figures to this file.")] = None,
) -> None:
    """Seconds per training epoch, beside what this machine's processor and memory can do; writes no record."""
    from harness.commands import bench as commands

    asked = commands.Asked(settings or [], names_in(modalities) or None, epochs, workers, clips, figures if growth else "")
    commands.bench(methods, names_in(datasets), asked, json)


@app.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A method, or your own .py file.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one, or the same with --set-b.")],
    dataset: Annotated[str, typer.Argument(help="A data set, such as mosi or mosi@minilm.")],
    settings_a: Annotated[list[str] | None, typer.Option("--set-a", help="A setting of A, such as hidden=64.")] = None,
    settings_b: Annotated[list[str] | None, typer.Option("--set-b", help="A setting of B, such as iamd=false.")] = None,
    names: Annotated[str, typer.Option("--metrics", help="Some metrics only: mae,acc7.")] = "",
    alpha: Annotated[float, typer.Option(min=0.001, max=0.5, help="Level of the verdicts.")] = 0.05,
    resamples: Annotated[int, typer.Option(min=100, help="Resamples of bootstraps and swaps.")] = 10_000,
    budget: Budget = "quick",
    seeds: Annotated[str, typer.Option(help="As for `run`; default: all that are recorded.", rich_help_panel="Effort")] = "",
    protocol: ProtocolName = "",
    folds: Folds = 0,
    repeats: Repeats = 1,
    validation: Validation = None,
    groups: Groups = "",
    modalities: Modalities = "",
    device: Device = "auto",
) -> None:
    """Print every statistic of A against B on one data set, from records; runs nothing."""
    from harness.commands import comparing as commands
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
    systems = commands.System(a, tuple(settings_a or ())), commands.System(b, tuple(settings_b or ()))
    commands.compare(*systems, dataset, effort, seeds, commands.Asked(names_in(names), alpha, resamples))


@app.command()
def rank(
    methods: Annotated[str, typer.Argument(help="At least two methods: tfn,lmf,mult.")],
    datasets: Annotated[str, typer.Argument(help="At least two data sets: mosi,mosei,ur_funny.")],
    metric: Annotated[str, typer.Option(help="What ranks them, such as acc2_nonneg.")],
    alpha: Annotated[float, typer.Option(min=0.001, max=0.5, help="Level of the tests.")] = 0.05,
    budget: Budget = "quick",
    seeds: Annotated[str, typer.Option(help="As for `run`; default: all that are recorded.", rich_help_panel="Effort")] = "",
    device: Device = "auto",
) -> None:
    """Rank methods over several data sets, from records: Friedman's test, mean ranks, pairs that differ."""
    from harness.commands import comparing as commands
    from harness.experiments.plan import Effort

    commands.rank(names_in(methods), names_in(datasets), metric, Effort(budget=budget, device=device), seeds, alpha)


@app.command()
def audit(
    papers: Annotated[list[str] | None, typer.Argument(help="Papers, such as iidaf mkcc; default: all, and MMSA's result page.")] = None,
) -> None:
    """Check published numbers by arithmetic; prints Markdown."""
    from harness.commands import audit as commands

    commands.audit(papers or [])


@app.command()
def figure(
    method: Annotated[str, typer.Argument(help="A name from `harness list methods` that shows something inside, such as iidaf.")],
    dataset: Annotated[str, typer.Argument(help="A data set, such as mosi or mosi@minilm.")],
    settings: Annotated[list[str] | None, typer.Option("--set", help="A setting, such as training.learning_rate=0.001.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The seed of the trial.")] = 42,
    budget: Budget = "quick",
    modalities: Modalities = "",
    device: Device = "auto",
    figures: Figures = "svg,pdf,png",
) -> None:
    """Train one trial again and draw its model: shared and specific features, gates, adjacency maps, splines."""
    from harness.commands import inside as commands
    from harness.experiments.plan import Effort

    effort = Effort(budget=budget, device=device, modalities=names_in(modalities) or None)
    commands.figure(method, dataset, settings or [], effort, seed, figures)
