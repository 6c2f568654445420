"""What a search shows: a line per trial, a summary, and three pictures: history, slices, importance."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from harness.experiments.search import Search
from harness.experiments.study import TrialRecord, best, frozen_study
from harness.reporting.layout import ABSENT
from harness.training.ranges import Range

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OUTCOMES = {"finished": ("finished",), "pruned": ("pruned",), "failed": ("diverged", "failed")}
PANELS, WIDTH, HEIGHT = 4, 3.2, 2.6  # slices in a row; inches of a panel
BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#999999"  # told apart by the colour-blind (Okabe, Ito 2008)
LEAST = 8  # finished trials before importance means anything

Results = Sequence[tuple[Search, Sequence[TrialRecord]]]


# ---- words


def say_search(search: Search, trials: int, folder: Path, console: Console) -> None:
    """What is searched, and on what."""
    inner = f", {search.inner_folds} inner folds" if search.inner_folds else ""
    lines = [
        f"tune {search.method} {search.dataset} ({search.fold}): {trials} trials of {search.runs} runs each, "
        f"inner seeds {', '.join(map(str, search.seeds))}{inner}, budget {search.budget}; test clips are not read",
        *(f"  {key}: {range_}, published {search.published[key]}" for key, range_ in search.space.items()),
        f"  kept in {folder}; trials there: {len(list(folder.glob('trials/*.json')))}",
    ]
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def say_trial(trial: TrialRecord, trials: int, console: Console) -> None:
    """One line on a trial that ended."""
    epochs = sum(len(run.history) for run in trial.runs)
    how = {
        "finished": f"{trial.objective or 0:.4f}",
        "pruned": f"given up after {epochs} epochs",
        "diverged": "diverged",
        "failed": trial.message.partition("\n")[0],
    }[trial.outcome]
    name = "published settings" if trial.number == 0 else f"trial {trial.number}"
    console.print(f"  {name} of {trials}: {how} in {trial.seconds:.1f} s", highlight=False, markup=False, soft_wrap=True)


def summary(results: Results, seconds: float) -> Table:
    """Best, published and difference of every search, with how its trials ended; a column each."""
    table = Table("validation loss, mean over inner runs", show_edge=False)
    for search, _ in results:
        table.add_column(str(search.fold), justify="right")
    columns = [_column(trials) for _, trials in results]
    for head in columns[0]:
        table.add_row(head, *(column[head] for column in columns))
    table.add_row("wall time", _minutes(seconds))
    return table


def _column(trials: Sequence[TrialRecord]) -> dict[str, str]:
    found, published = best(trials), trials[0].objective
    lowest = found.objective if found else None
    counts = {how: str(sum(trial.outcome in names for trial in trials)) for how, names in OUTCOMES.items()}
    return {
        "published settings": _number(published),
        f"best of {len(trials)} trials": _number(lowest),
        "difference": _number(None if lowest is None or published is None else lowest - published, sign="+"),
        "found by trial": str(found.number) if found else ABSENT,
        "trials finished": counts["finished"],
        "pruned (given up early)": counts["pruned"],
        "failed": counts["failed"],
        "time of all trials": _minutes(sum(trial.seconds for trial in trials)),
    }


def _number(value: float | None, sign: str = "") -> str:
    return ABSENT if value is None else format(value, f"{sign}.4f")


def say_where(path: Path, pictures: Sequence[Path], method: str, dataset: str, console: Console) -> None:
    """Where all lies, and what to type next."""
    lines = [
        "Written: " + ", ".join(map(str, (path, *pictures))),
        f"Used by: harness run {method} {dataset} --tuned --seeds 5; harness reproduce iidaf/t3 --data {dataset} --tuned",
    ]
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


# ---- pictures


def drawable(console: Console) -> bool:
    """Whether matplotlib is there; says so where it is not."""
    if find_spec("matplotlib") is None:
        console.print("No pictures: matplotlib is not installed (pip install 'mer-harness[figures]').", highlight=False, markup=False)
        return False
    return True


def write_figures(results: Results, preset: Path) -> list[Path]:
    """Draw every search beside the preset file: ``<name>[.foldN].history.png``, ``.slice.png``, ``.importance.png``.

    Importance needs some finished trials, and settings that differ; without them there is no such picture.
    """
    written = []
    for number, (search, trials) in enumerate(results, 1):
        stem = f"{preset.stem}.fold{number}" if len(results) > 1 else preset.stem
        figures = {"history": draw_history(trials), "slice": draw_slices(search, trials), "importance": draw_importance(search, trials)}
        for name, figure in figures.items():
            if figure is not None:
                written.append(preset.with_name(f"{stem}.{name}.png"))
                figure.savefig(written[-1], dpi=120, metadata={"Software": None})
    return written


def draw_history(trials: Sequence[TrialRecord]) -> Figure:
    """Objectives by trial, the best so far as a line, the published settings as a level."""
    figure, axes = _figure(1, 1, 6.4, 3.6)
    ax = axes[0]
    finished = [(trial.number, trial.objective) for trial in trials if trial.objective is not None]
    lowest = [min(value for _, value in finished[: i + 1]) for i in range(len(finished))]
    ax.plot([n for n, _ in finished], [value for _, value in finished], "o", color=BLUE, label="trial")
    ax.step([n for n, _ in finished], lowest, where="post", color=BLUE, label="best so far")
    if trials[0].objective is not None:
        ax.axhline(trials[0].objective, color=ORANGE, linestyle="--", label="published settings")
    for place, number in enumerate([trial.number for trial in trials if trial.objective is None]):
        ax.axvline(number, color=GREY, linewidth=0.5, label=None if place else "given up or failed")
    ax.set(xlabel="trial", ylabel="validation loss")
    ax.legend(fontsize="small")
    return figure


def draw_slices(search: Search, trials: Sequence[TrialRecord]) -> Figure:
    """Objectives by each setting; the published value is marked."""
    finished = [trial for trial in trials if trial.objective is not None]
    columns = min(PANELS, len(search.space))
    rows = -(-len(search.space) // columns)
    figure, axes = _figure(rows, columns, columns * WIDTH, rows * HEIGHT)
    for ax, (key, range_) in zip(axes, search.space.items(), strict=False):
        places = [_place(trial.settings[key], range_.choices) for trial in finished]
        colours = [BLUE if trial.number else ORANGE for trial in finished]
        ax.scatter(places, [trial.objective or 0.0 for trial in finished], s=14, color=colours)
        _scale(ax, range_, search.published[key])
        ax.set_title(key, fontsize="small")
    for ax in axes[len(search.space) :]:
        ax.set_visible(False)
    figure.supylabel("validation loss (orange: published settings)", fontsize="small")
    return figure


def _scale(ax: Axes, range_: Range, published: Any) -> None:
    """The whole range as axis; on a logarithmic one a published 0 has its place left of the low end."""
    if range_.choices:
        ax.set_xticks(range(len(range_.choices)), [str(choice) for choice in range_.choices], fontsize="small")
    elif range_.log:
        ends = [range_.low, (range_.low * range_.high) ** 0.5, range_.high]
        ax.set_xscale("log") if published else ax.set_xscale("symlog", linthresh=range_.low)
        ticks = ends if published else [0, *ends]
        ax.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks], fontsize="small")
        ax.set_xticks([], minor=True)


def draw_importance(search: Search, trials: Sequence[TrialRecord]) -> Figure | None:
    """How much each setting matters for being among the best quarter of the finished trials (PED-ANOVA)."""
    shares = importance(search, trials)
    if not shares:
        return None
    figure, axes = _figure(1, 1, 6.4, 0.9 + 0.3 * len(shares))
    names = sorted(shares, key=lambda key: shares[key])
    axes[0].barh(names, [shares[name] for name in names], color=BLUE)
    axes[0].set(xlabel="importance for the best quarter of the finished trials (PED-ANOVA)")
    return figure


def importance(search: Search, trials: Sequence[TrialRecord]) -> dict[str, float]:
    """Importance by setting, largest first, sum 1; empty where too few trials finished or none differ.

    Watanabe, Bansal, Hutter 2023, PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary Subspaces, IJCAI.
    """
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    values = {trial.objective for trial in trials if trial.objective is not None}
    if sum(trial.objective is not None for trial in trials) < LEAST or len(values) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = get_param_importances(frozen_study(search, trials), evaluator=PedAnovaImportanceEvaluator(target_quantile=0.25))
    return {key: float(value) for key, value in found.items() if isfinite(value)}


def _place(value: Any, choices: Sequence[Any]) -> Any:
    return list(choices).index(value) if choices else value


def _figure(rows: int, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).ravel())
