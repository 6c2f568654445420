"""What a search for settings is: its fields, its space, its identity, and when a trial is given up early. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields as dataclass_fields
from dataclasses import is_dataclass
from statistics import fmean, median
from typing import Any

from pydantic import BaseModel, Field

from harness.data.schema import Frozen
from harness.data.splits import Fold
from harness.errors import ConfigError
from harness.experiments.events import InnerRun
from harness.experiments.trials import flatten
from harness.registry import suggest
from harness.training.by_modality import ByModality
from harness.training.contract import LossWeights, MethodConfig
from harness.training.ranges import NOTE, Range, read_note, weight_range

SEEDS = tuple(range(7001, 7101))  # inner seeds: never those of a table, which are to be fresh
START_UP = 5  # trials that must have finished before one is given up
WARM_UP = 3  # epochs of every run in which none is

Settings = dict[str, Any]


class Search(Frozen):
    """All that decides which settings a search finds; its hash is the name under which it resumes."""

    method: str
    code: dict[str, str]
    config: Settings = Field(description="the published configuration, with the budget's caps and the user's own settings")
    fixed: Settings = Field(description="the user's own settings, dotted keys")
    space: dict[str, Range] = Field(description="dotted keys, in the order of the configuration")
    dataset: str
    data: str = Field(description="fingerprint of the whole data set")
    modalities: tuple[str, ...]
    fold: Fold
    seeds: tuple[int, ...] = Field(min_length=1)
    inner_folds: int = Field(0, description="parts of the development clips that validate in turn; 0: the fold's own validation part")
    budget: str
    together: int = Field(ge=1, description="trials proposed at once, none knowing the others' results")
    version: int = 1

    @property
    def key(self) -> str:
        """12 hexadecimal digits; the data set's name is left out, since the fingerprint says what it holds."""
        content = self.model_dump(mode="json", exclude={"dataset"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def runs(self) -> int:
        """Trainings behind one trial."""
        return len(self.seeds) * max(1, self.inner_folds)

    @property
    def published(self) -> Settings:
        """The searched fields as published: the settings of trial 0."""
        leaves = dict(flatten(self.config))
        return {key: leaves[key] for key in self.space}


# ---- fields and space


def search_space(config: MethodConfig, modalities: Sequence[str], wanted: Sequence[str], fixed: Mapping[str, Any]) -> dict[str, Range]:
    """Dotted key -> range of what is to be searched: ``wanted`` fields (or groups of them), by default all that have a range.

    Ranges are widened to hold the published values; ``fixed`` ones are left out. Raises ConfigError for a field that is
    not there, has no range or is fixed, and where nothing is left.
    """
    ranges = dict(tunable_fields(config, modalities))
    for name in wanted:
        _check_field(name, config, ranges, fixed)
    chosen = {key: found for key, found in ranges.items() if not wanted or any(_within(key, name) for name in wanted)}
    free = {key: found for key, found in chosen.items() if not any(_within(key, name) for name in fixed)}
    if not free:
        raise ConfigError(
            "nothing is left to search: no loss weight and no setting with a range that --set leaves free",
            "Annotate a field of the method's Config with harness.training.ranges.tunable, or fix less.",
        )
    return free


def tunable_fields(config: MethodConfig, modalities: Sequence[str]) -> Iterator[tuple[str, Range]]:
    """Every setting that may be searched with its range around the configured value; a text encoder's only where one is set."""
    for key, found in _fields(config, "", modalities):
        if config.text_encoder.path is not None or not _within(key, "text_encoder"):
            yield key, found


def _fields(model: BaseModel, prefix: str, modalities: Sequence[str]) -> Iterator[tuple[str, Range]]:
    for name, info in type(model).model_fields.items():
        value, key = getattr(model, name), f"{prefix}{name}"
        extra = info.json_schema_extra
        if isinstance(extra, dict) and NOTE in extra:
            yield from _noted(value, key, extra[NOTE], modalities)
        elif isinstance(model, LossWeights):
            yield key, weight_range(value)
        elif isinstance(value, BaseModel):
            yield from _fields(value, f"{key}.", modalities)


def _noted(value: Any, key: str, note: Any, modalities: Sequence[str]) -> Iterator[tuple[str, Range]]:
    """The leaves of an annotated field; one value per modality counts where the data has the modality."""
    parts = _parts(value)
    if parts is None:
        found = read_note(note, key.rpartition(".")[2]) if note else None
        if found:
            yield key, found.around(value)
        return
    for name, inner in parts.items():
        if not isinstance(value, ByModality) or name in modalities:
            yield from _noted(inner, f"{key}.{name}", note, modalities)


def _parts(value: Any) -> dict[str, Any] | None:
    if isinstance(value, BaseModel):
        return {name: getattr(value, name) for name in type(value).model_fields}
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclass_fields(value)}
    return None


def _check_field(name: str, config: MethodConfig, ranges: Mapping[str, Range], fixed: Mapping[str, Any]) -> None:
    if any(_within(name, key) for key in fixed):
        raise ConfigError(f"--fields {name} is fixed by --set", "Leave one of the two out.")
    if any(_within(key, name) for key in ranges):
        return
    leaves = [key for key, _ in flatten(config.model_dump())]
    if name == "weights" or name.startswith("weights."):
        raise ConfigError(f"--fields {name}: the method has no such loss weight", _allowed(name, ranges))
    if any(_within(key, name) for key in leaves):
        raise ConfigError(f"--fields {name}: this setting has no range to be searched in", _allowed(name, ranges))
    raise ConfigError(f"--fields {name}: there is no such setting", _allowed(name, ranges))


def _allowed(name: str, ranges: Mapping[str, Range]) -> str:
    return suggest(name, ranges) + " A group of them may be named too, such as training."


def _within(key: str, name: str) -> bool:
    return key == name or key.startswith(f"{name}.")


# ---- curves and limits


def curve(runs: Sequence[InnerRun], epochs: int) -> dict[int, float]:
    """The objective as it came to be known: step (from 1) -> mean of the finished runs' lowest losses and this run's so far.

    Step k ``epochs`` + e is epoch e of run k; epochs that a run did without are no steps.
    """
    found: dict[int, float] = {}
    finished: list[float] = []
    for number, run in enumerate(runs):
        lowest = float("inf")
        for epoch in run.history:
            lowest = min(lowest, epoch.valid_loss)
            found[number * epochs + epoch.epoch] = fmean([*finished, lowest])
        finished.append(lowest)
    return found


def limits(curves: Sequence[Mapping[int, float]], epochs: int, runs: int) -> tuple[float | None, ...]:
    """The value at each step (from 1) above which a trial is given up: the median of the finished trials' curves.

    None where none is: in a run's first epochs, or while few trials have finished. A run that stopped early keeps its
    value in the steps that it did without.
    """
    if len(curves) < START_UP:
        return (None,) * (epochs * runs)
    held = [_held(known, epochs * runs) for known in curves]
    return tuple(median(values) if step % epochs >= WARM_UP else None for step, values in enumerate(zip(*held, strict=True)))


def _held(known: Mapping[int, float], steps: int) -> list[float]:
    values, last = [], float("inf")
    for step in range(1, steps + 1):
        last = known.get(step, last)
        values.append(last)
    return values


def objective(runs: Sequence[InnerRun]) -> float:
    """Mean over runs of the lowest validation loss."""
    return fmean(run.lowest for run in runs)
