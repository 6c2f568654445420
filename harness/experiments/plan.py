"""From a table file to the trials it needs, and from a command's options to their configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from harness.data.opening import base_name
from harness.data.schema import Card, Frozen
from harness.data.splits import Fold, folds
from harness.errors import ConfigError
from harness.experiments import code, toml_lines
from harness.experiments.cost_tables import CostRow
from harness.experiments.papers import Row, TableSpec
from harness.experiments.schemes import Scheme
from harness.experiments.trials import Trial, budget_named, make_trial, resolve_config
from harness.registry import suggest
from harness.training.contract import methods


class Effort(Frozen):
    """How much to run: the options that the user's command sets."""

    budget: str = "quick"
    device: str = "cpu"
    seeds: tuple[int, ...] = ()
    protocol: str = Field("", description="a name of harness.data.splits; empty: grouped where folds are asked for, else official")
    folds: int = Field(0, description="number of folds; 0: the protocol has none")
    repeats: int = 1
    validation: float | None = Field(None, description="share of the training clips that validates")
    groups: tuple[int, int, int] | None = Field(None, description="holdout: groups that train, validate and test")
    modalities: tuple[str, ...] | None = None

    def cuts(self) -> list[Fold]:
        """Every fold that is asked for; ConfigError where the options do not fit together."""
        return folds(self.folds, self.repeats, self.protocol, validation=self.validation, groups=self.groups)

    def under(self, scheme: Scheme) -> Effort:
        """The same effort on the cuts of ``scheme``."""
        stated = {"protocol": scheme.kind, **scheme.model_dump(include={"folds", "repeats", "validation", "groups"})}
        return self.model_copy(update=stated)


def method_trials(
    name: str,
    card: Card,
    effort: Effort,
    overrides: Mapping[str, Any],
    seeds: Sequence[int],
    by_fold: Callable[[Fold], Mapping[str, Any]] = lambda fold: {},
) -> list[Trial]:
    """The trials of one method on one stored data set: every seed in every fold. ``by_fold``: settings that ``overrides`` override."""
    budget, base = budget_named(effort.budget), base_name(card.name)
    cuts = effort.cuts()
    configs = [resolve_config(methods[name], base, budget, effort.device, {**by_fold(fold), **overrides}) for fold in cuts]
    codes = code.fingerprints(methods[name].__module__)
    return [
        make_trial(name, card, config, seed=seed, fold=fold, budget=effort.budget, modalities=effort.modalities, codes=codes)
        for seed in seeds
        for fold, config in zip(cuts, configs, strict=True)
    ]


def plan_table(spec: TableSpec, card: Card, effort: Effort) -> dict[str, list[Trial]]:
    """Row name -> trials, for every row whose method is registered, and for the floors that stand in every table.

    A row has the trials of all protocols of the table, one protocol after the other; those of ``effort`` are not read.
    """
    seeds = effort.seeds or spec.seeds
    efforts = [effort.under(scheme) for scheme in spec.protocol]
    rows = [row for row in spec.rows if row.method and row.method in methods]
    plan = {
        row.name: [trial for one in efforts for trial in method_trials(row.method, card, _for_row(one, row), row.config, seeds)]
        for row in rows
        if row.method
    }
    return plan | {floor: [trial for one in efforts for trial in method_trials(floor, card, one, {}, seeds)] for floor in spec.floors}


def refuse_unknown_methods(path: Path, rows: Sequence[Row | CostRow]) -> None:
    """ConfigError naming file and line for the first of the table's ``rows`` whose method is not registered."""
    for number, row in enumerate(rows):
        if row.method and row.method not in methods:
            where = toml_lines.at(path, path.read_text(encoding="utf-8"), ("rows", number, "method"), row.method)
            broken = "".join(f" {module} could not be imported: {why}." for module, why in methods.broken.items())
            raise ConfigError(f"{where}: method = '{row.method}': there is no such method", suggest(row.method, methods) + broken)


def interleaved(plan: Mapping[str, Sequence[Trial]]) -> list[Trial]:
    """All trials, first seed of every row first: an early look at the table shows every row."""
    longest = max(map(len, plan.values()), default=0)
    return [trials[i] for i in range(longest) for trials in plan.values() if i < len(trials)]


def choose_device(wanted: str) -> str:
    """``cpu`` or ``cuda`` for ``auto``, ``cpu`` or ``cuda``; ConfigError where it is not there."""
    import torch

    if wanted not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"--device {wanted} is not known", "Allowed: auto, cpu, cuda.")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: PyTorch finds no GPU", "Use --device cpu, or install a CUDA build of torch.")
    return ("cuda" if torch.cuda.is_available() else "cpu") if wanted == "auto" else wanted


def _for_row(effort: Effort, row: Row) -> Effort:
    return effort.model_copy(update={"modalities": row.modalities}) if row.modalities else effort
