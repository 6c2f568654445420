"""The command line: parses, calls, prints. Everything heavy is imported inside the command that needs it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.errors import HarnessError

app = typer.Typer(
    help="Benchmark and reproducibility harness for multimodal emotion recognition.", no_args_is_help=True, add_completion=False
)
data = typer.Typer(help="Fetch, import, check, list and show data sets.", no_args_is_help=True)
app.add_typer(data, name="data")
records = typer.Typer(help="Unite the records of several machines; check them.", no_args_is_help=True)
app.add_typer(records, name="records")

TARGETS = "A paper (iidaf): all its items; an item (iidaf/t3); or a data set (mosi): the tables there that compare models, no ablations."
Target = Annotated[str, typer.Argument(help=TARGETS)]
Budget = Annotated[str, typer.Option(help="Training effort: smoke, quick or paper.", rich_help_panel="Effort")]
Quick = Annotated[bool, typer.Option("--quick", help="Shows that all works: 2 seeds, budget smoke.", rich_help_panel="Effort")]
Seeds = Annotated[str, typer.Option(help="A number of seeds (5) or the seeds themselves (42,1,11).", rich_help_panel="Effort")]
Workers = Annotated[int, typer.Option(min=0, help="Worker processes of one thread each; 0: one per core.", rich_help_panel="Effort")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.", rich_help_panel="Effort")]
Timeout = Annotated[float, typer.Option(min=0, help="Seconds after which a trial counts as failed; 0: never.", rich_help_panel="Runs")]
Retry = Annotated[bool, typer.Option("--retry-failed", help="Run trials again that failed before.", rich_help_panel="Runs")]
EverySeconds = Annotated[float, typer.Option(min=0, help="Least time between two checkpoints of a trial.", rich_help_panel="Runs")]
Inline = Annotated[bool, typer.Option("--inline", help="Run in this process, for a debugger.", rich_help_panel="Runs")]
PLAN = "Say what would run, what exists, and how long it takes; runs nothing."
Plan = Annotated[bool, typer.Option("--plan", "--dry-run", help=PLAN)]
Dry = Annotated[bool, typer.Option("--dry-run", help=PLAN, rich_help_panel="Runs")]
Folds = Annotated[int, typer.Option(min=0, help="Cross-validation with this many folds; 0: the official split.", rich_help_panel="Split")]
ProtocolName = Annotated[
    str,
    typer.Option(
        help="official, grouped, stratified, stratified-grouped, holdout or published; default: grouped with --folds, else official.",
        rich_help_panel="Split",
    ),
]
Repeats = Annotated[int, typer.Option(min=1, help="New random deals of the folds, or draws of a hold-out.", rich_help_panel="Split")]
Validation = Annotated[
    float | None, typer.Option(help="Share of the training clips that validates, in whole groups: 0.15.", rich_help_panel="Split")
]
Groups = Annotated[str, typer.Option(help="holdout: groups that train, validate and test, such as 16/4/4.", rich_help_panel="Split")]
Methods = Annotated[str, typer.Option(help="Run the rows of these methods only (tfn,lmf); default: all that exist. Floors always run.")]
Tuned = Annotated[bool, typer.Option("--tuned", help="Use the settings that `harness tune` found.")]
TunedRows = Annotated[bool, typer.Option("--tuned", help="Add a row with the settings that `harness tune` found to every tuned one.")]
Diagnose = Annotated[
    str, typer.Option(help="best-on-test: say apart from all tables how choosing the epoch on test would flatter.", rich_help_panel="Runs")
]
Figures = Annotated[str, typer.Option(help="Formats of figures: svg,pdf,png; or none. The page needs svg.")]
Modalities = Annotated[str, typer.Option(help="A subset, such as text,audio; default: all the data has.")]


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
    diagnose: Diagnose = "",
    figures: Figures = "svg",
) -> None:
    """Run what a paper's tables still lack, and render them and the page results/index.html."""
    from harness.commands import running as commands
    from harness.experiments.plan import Effort

    effort = Effort(budget="smoke" if quick else budget, device=device)
    how = commands.Running(workers, timeout or None, retry_failed, checkpoint_seconds, inline, diagnose)
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
    diagnose: Diagnose = "",
    dry_run: Dry = False,
    explain: Annotated[bool, typer.Option("--explain", help="Say why trials would be run again; runs nothing.")] = False,
) -> None:
    """Run one method on one data set."""
    from harness.commands import running as commands
    from harness.experiments.plan import Effort

    chosen = _names(modalities) or None
    effort = Effort(
        budget="smoke" if quick else budget,
        device=device,
        protocol=protocol,
        folds=folds,
        repeats=repeats,
        validation=validation,
        groups=commands.parse_groups(groups),
        modalities=chosen,
    )
    how = commands.Running(workers, timeout or None, retry_failed, checkpoint_seconds, inline, diagnose, dry_run)
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
) -> None:
    """Search a method's settings on validation; write them to a preset file that --tuned uses."""
    from harness.commands import tuning as commands
    from harness.commands.running import Running, parse_groups
    from harness.experiments.plan import Effort

    effort = Effort(
        budget=budget,
        device=device,
        protocol=protocol,
        folds=folds,
        repeats=repeats,
        validation=validation,
        groups=parse_groups(groups),
        modalities=_names(modalities) or None,
    )
    asked = commands.Asked(trials, _names(fields), settings or [], seeds, inner_folds, together, restart, confirm)
    commands.tune(method, dataset, asked, effort, Running(workers, timeout or None, False, checkpoint_seconds, inline))


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


@app.command("new-table")
def new_table(
    name: Annotated[str, typer.Argument(metavar="PAPER/ITEM", help="Where it goes: mine/t1 is reports/mine/t1.toml.")],
) -> None:
    """Write a table file to fill in: every key with a comment, valid as it stands."""
    from harness.commands import tablefiles

    tablefiles.new_table(name)


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="methods, datasets or tables.")],
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show settings and facts.")] = False,
) -> None:
    """List methods, data sets or tables."""
    from harness.commands import listing

    listing.list_things(what, verbose)


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

    chosen = _names(modalities) or None
    commands.profile(methods, dataset, commands.Asked(lengths, settings or [], chosen, device, threads, latency), json)


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
        modalities=_names(modalities) or None,
    )
    systems = commands.System(a, tuple(settings_a or ())), commands.System(b, tuple(settings_b or ()))
    commands.compare(*systems, dataset, effort, seeds, commands.Asked(_names(names), alpha, resamples))


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

    commands.rank(_names(methods), _names(datasets), metric, Effort(budget=budget, device=device), seeds, alpha)


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

    effort = Effort(budget=budget, device=device, modalities=_names(modalities) or None)
    commands.figure(method, dataset, settings or [], effort, seed, figures)


@app.command()
def track() -> None:
    """Publish records that MLflow could not take when they were made."""
    from harness.commands import running

    running.track()


@data.command("import")
def data_import(
    name: Annotated[str, typer.Argument(help="The data set, such as mosi.")],
    files: Annotated[list[Path], typer.Argument(help="Its file or files; the layout is recognised by content.")],
    variant: Annotated[str, typer.Option("--as", help="Keep it as NAME@VARIANT beside other imports.")] = "",
    text_encoder: Annotated[str, typer.Option(help="Encoder for transcripts: minilm, or a Hugging Face folder.")] = "",
    features: Annotated[list[str] | None, typer.Option(help="MODALITY=FILE.npz:ARRAY, features beside a label table.")] = None,
) -> None:
    """Check a data set's files and store them in the harness's own form."""
    from harness.commands import data as commands

    commands.import_(name, files, variant or None, text_encoder or None, features or [])


@data.command("fetch")
def data_fetch(
    name: Annotated[str, typer.Argument(help="The data set, such as ravdess.")],
    only: Annotated[str, typer.Option(help="One part of it alone, such as audio.")] = "",
) -> None:
    """Download what is public of a data set, and say where the rest is to be had."""
    from harness.commands import fetching

    fetching.fetch(name, only)


@data.command("extract")
def data_extract(
    name: Annotated[str, typer.Argument(help="A data set with media files or transcripts, such as ravdess.")] = "",
    text: Annotated[str, typer.Option(help="Extractor of text features, such as glove.")] = "",
    audio: Annotated[str, typer.Option(help="Extractor of sound, such as mfcc.")] = "",
    vision: Annotated[str, typer.Option(help="Extractor of film.")] = "",
    variant: Annotated[str, typer.Option("--as", help="Keep the result as NAME@VARIANT; default: the extractors' names.")] = "",
    settings: Annotated[list[str] | None, typer.Option("--set", help="A setting, such as mfcc.coefficients=13.")] = None,
    workers: Workers = 0,
    on_bad_clip: Annotated[
        str, typer.Option(help="A clip that cannot be decoded or shows no face: error, skip (leave it out) or zeros (keep it).")
    ] = "error",
    list_: Annotated[bool, typer.Option("--list", help="List the extractors with their settings.")] = False,
) -> None:
    """Compute features from media and transcripts; keep them as a new variant beside the data set."""
    from harness.commands import extracting as commands

    if list_ or not name:
        return commands.listing()
    commands.extract(name, {"text": text, "audio": audio, "vision": vision}, variant, settings or [], workers, on_bad_clip)


@data.command("check")
def data_check(
    name: Annotated[str, typer.Argument(help="A data set, such as mosi or mosi@minilm.")],
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 for warnings too, not only for errors.")] = False,
) -> None:
    """Look for what makes scores wrong: leaks, copies, labels out of range, values that are not there."""
    from harness.commands import data as commands

    commands.check(name, strict)


@data.command("show")
def data_show(
    name: Annotated[str, typer.Argument(help="A data set, such as mosi or mosi@minilm.")],
    picture: Annotated[Path | None, typer.Option(help="Draw it too, to this .png, .svg or .pdf file.")] = None,
) -> None:
    """Print a data set's card, with histograms of labels and lengths."""
    from harness.commands import data as commands

    commands.show(name, picture)


@data.command("list")
def data_list() -> None:
    """List data sets and what is stored of them."""
    from harness.commands import listing

    listing.list_things("datasets", False)


@records.command("merge")
def records_merge(
    folders: Annotated[list[Path], typer.Argument(help="Results folders of other machines.")],
    into: Annotated[Path | None, typer.Option(help="Results folder that takes them; default: $MER_RESULTS or ./results.")] = None,
) -> None:
    """Copy records that a results folder lacks; equal keys must have equal results, nothing is overwritten."""
    from harness.commands import records as commands

    commands.merge_records(folders, into)


@records.command("verify")
def records_verify(
    folder: Annotated[Path | None, typer.Argument(help="A results folder; default: $MER_RESULTS or ./results.")] = None,
) -> None:
    """Compute every checksum, key and test score anew; exit code 1 where a record is not what it says."""
    from harness.commands import records as commands

    commands.verify_records(folder)


def main(arguments: list[str] | None = None) -> Any:
    """Entry point: a user's mistake ends in a message and exit code 2, never in a traceback."""
    try:
        return app(arguments, standalone_mode=True)
    except HarnessError as error:
        typer.secho(f"error: {error.problem}", fg="red", err=True)
        if error.fix:
            typer.echo(error.fix, err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
