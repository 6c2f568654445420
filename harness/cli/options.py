"""The options that several commands share, and how lists in them are written."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.errors import ConfigError

TARGETS = "A paper (iidaf): all its items; an item (iidaf/t3); or a data set (mosi): the tables there that compare models, no ablations."
Target = Annotated[str, typer.Argument(help=TARGETS)]
Budget = Annotated[str, typer.Option(help="Training effort: smoke, quick or paper.", rich_help_panel="Effort")]
Quick = Annotated[bool, typer.Option("--quick", help="Shows that all works: 2 seeds, budget smoke.", rich_help_panel="Effort")]
Seeds = Annotated[str, typer.Option(help="A number of seeds (5) or the seeds themselves (42,1,11; one: 42,).", rich_help_panel="Effort")]
Workers = Annotated[int, typer.Option(min=0, help="Worker processes of one thread each; 0: one per core.", rich_help_panel="Effort")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.", rich_help_panel="Effort")]
Timeout = Annotated[float, typer.Option(min=0, help="Seconds after which a trial counts as failed; 0: never.", rich_help_panel="Runs")]
Retry = Annotated[bool, typer.Option("--retry-failed", help="Run trials again that failed before.", rich_help_panel="Runs")]
EverySeconds = Annotated[float, typer.Option(min=0, help="Least time between two checkpoints of a trial.", rich_help_panel="Runs")]
Inline = Annotated[bool, typer.Option("--inline", help="Run in this process, for a debugger.", rich_help_panel="Runs")]
ExecutorName = Annotated[str, typer.Option("--executor", help="inline, processes or ray.", rich_help_panel="Runs")]
Address = Annotated[str, typer.Option(help="ray: auto (this machine's cluster), local, or an address.", rich_help_panel="Runs")]
GpuShare = Annotated[float, typer.Option(min=0, max=1, help="ray: part of a GPU for each trial, such as 0.25.", rich_help_panel="Runs")]
PLAN = "Say what would run, what exists, and how long it takes; runs nothing."
Plan = Annotated[bool, typer.Option("--plan", "--dry-run", help=PLAN)]
Dry = Annotated[bool, typer.Option("--dry-run", help=PLAN, rich_help_panel="Runs")]
Folds = Annotated[int, typer.Option(min=0, help="Cross-validation with this many folds; 0: the official split.", rich_help_panel="Split")]
ProtocolName = Annotated[
    str,
    typer.Option(
        help="official, grouped, stratified, stratified-grouped, holdout, consecutive, published; default: grouped with --folds, official.",
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


def names_in(text: str) -> tuple[str, ...]:
    """``"tfn, lmf"`` -> ``("tfn", "lmf")``."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def budget_of(budget: str, quick: bool) -> str:
    """The budget that is meant; ConfigError where ``--quick`` stands beside another one."""
    if quick and budget not in ("quick", "smoke"):
        raise ConfigError(f"--quick is --budget smoke, and --budget {budget} was asked for too", "Leave one of the two out.")
    return "smoke" if quick else budget


def executor_of(executor: str, inline: bool) -> str:
    """The executor that is meant; ConfigError where ``--inline`` stands beside another one."""
    if inline and executor not in ("processes", "inline"):
        raise ConfigError(f"--inline is --executor inline, and --executor {executor} was asked for too", "Leave one of the two out.")
    return "inline" if inline else executor
