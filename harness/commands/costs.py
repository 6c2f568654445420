"""Tables of costs: counted here, timed here, and completed from records."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from pydantic import ValidationError
from rich.console import Console

from harness.analysis import complexity, latency, rounds
from harness.analysis.latency import Latency
from harness.commands.rendering import Renderer
from harness.commands.reporting import say_table
from harness.data.batches import Batch
from harness.data.opening import base_name, need_features, open_dataset
from harness.data.schema import Card, Frozen, Ragged, Split, Task
from harness.data.store import data_root
from harness.errors import ConfigError
from harness.experiments import code
from harness.experiments.cost_tables import CostRow, CostSpec
from harness.experiments.environment import Environment, environment
from harness.experiments.plan import Effort, method_trials, refuse_unknown_methods
from harness.experiments.records import RecordStore
from harness.experiments.table_files import files
from harness.experiments.trials import Trial, budget_named, resolve_config
from harness.files import write_atomic
from harness.reporting.collect import Measured, collect
from harness.reporting.cost_tables import COUNTED, RECORDED, TIMED, Costs, CostTable, Figure
from harness.reporting.page.document import TablePart
from harness.training import loop
from harness.training.contract import Inputs, Method, MethodConfig, methods

TASK = Task(kind="regression", low=-3, high=3)
THREADS = 1
CLIPS_TO_FIT = 32  # synthetic clips for methods that look at training data before they train; only shapes matter here


class Time(Frozen):
    """Median and interquartile range in seconds; the share of the time in which the process had a processor."""

    median: float
    iqr: float
    share: float

    @property
    def refusal(self) -> str:
        return latency.refusal(self.median, self.iqr, self.share)


class Known(Frozen):
    """What was found out about one row. ``state``: hash of its code, settings, inputs and machine; ``counted_on``: meta or cpu."""

    state: str
    parameters: int | None = None
    flops: int | None = None
    counted_on: str = ""
    latency: Time | None = None
    step: Time | None = None


class Kept(Frozen):
    """The file ``costs/<paper>_<item>.json``: rows by name, kept from one command to the next."""

    rows: dict[str, Known]
    environment: Environment


@dataclass(frozen=True)
class _Row:
    spec: CostSpec
    row: CostRow
    method: str
    config: MethodConfig

    @property
    def dims(self) -> dict[str, int]:
        return {name: size.dim for name, size in self.spec.inputs_of(self.row).items()}

    @property
    def lengths(self) -> dict[str, int]:
        return {name: size.frames for name, size in self.spec.inputs_of(self.row).items()}

    def batch(self, clips: int) -> Batch:
        return complexity.synthetic_batch(self.dims, self.lengths, clips, TASK)

    def build(self) -> Method:
        method = loop.build(methods[self.method], Inputs(self.dims), TASK, self.config, seed=0)
        method.fit(_as_split(self.batch(CLIPS_TO_FIT)))
        return method

    def state(self, here: Environment) -> str:
        place = here.model_dump(mode="json", exclude={"commit", "dirty", "threads"})
        said = (code.fingerprints(methods[self.method].__module__), self.config.model_dump(mode="json"), self.dims, self.lengths, place)
        return hashlib.sha256(repr(said).encode()).hexdigest()


def table(spec: CostSpec, data: str, effort: Effort, renderer: Renderer, console: Console, *, measure: bool) -> TablePart:
    """Render ``spec``. With ``measure``, what is not known yet is counted and timed; what was refused is timed again."""
    here, workspace = environment(effort.device), renderer.workspace
    refuse_unknown_methods(files("cost")[spec.paper, spec.item], spec.rows)
    card = need_features(open_dataset(data or spec.dataset, data_root())).card
    rows = {row.name: _Row(spec, row, row.method, _config(spec, row, effort)) for row in spec.rows if row.method}
    path = workspace.root / "costs" / f"{spec.paper}_{spec.item}.json"
    known = _known(path, rows, here)
    for name in rows if measure else ():
        console.print(f"{spec.name}: {name}", highlight=False, markup=False)
        known[name] = _completed(rows[name], known[name])
        write_atomic(path, Kept(rows=known, environment=here).model_dump_json(indent=1).encode())
    plan = _plan(spec, rows, card, effort)
    measured = collect(spec.scores, card, plan, workspace.store)
    costs = {name: _costs(rows[name], known[name], measured.get(name), card, workspace.store) for name in rows}
    part = renderer.costs(CostTable(spec, card, costs, here, THREADS, measured), plan)
    say_table(part, workspace.root, console)
    return part


def _config(spec: CostSpec, row: CostRow, effort: Effort) -> MethodConfig:
    assert row.method
    return resolve_config(methods[row.method], spec.dataset, budget_named("paper"), effort.device, row.config)


def refuse_other_data(specs: Sequence[CostSpec], data: str) -> None:
    """ConfigError where the data set that the user names is not a table's."""
    for spec in specs:
        if data and base_name(data) != spec.dataset:
            fix = f"It has {spec.dataset}, and variants such as {spec.dataset}@NAME."
            raise ConfigError(f"--data {data}: {spec.name} has no such data set", fix)


def _as_split(batch: Batch) -> Split:
    """The clips of ``batch``, all of one length, as a split; every two share a group."""
    clips = len(batch)
    features = {name: Ragged(frames.flatten(0, 1), torch.arange(clips + 1) * frames.shape[1]) for name, frames in batch.features.items()}
    labels = torch.linspace(TASK.low, TASK.high, clips)
    return Split(features, torch.arange(clips), tuple(f"c{i}" for i in range(clips)), tuple(f"v{i // 2}" for i in range(clips)), labels)


# ---- counting and timing


def _known(path: Path, rows: Mapping[str, _Row], here: Environment) -> dict[str, Known]:
    """What is kept of each row as it stands now; nothing where its code, settings or machine are others."""
    try:
        kept = Kept.model_validate_json(path.read_bytes()).rows
    except (OSError, ValidationError):
        kept = {}
    states = {name: row.state(here) for name, row in rows.items()}
    return {name: kept[name] if name in kept and kept[name].state == state else Known(state=state) for name, state in states.items()}


def _completed(row: _Row, known: Known) -> Known:
    columns, method, found = row.spec.columns, row.build(), dict[str, object]()
    if known.parameters is None:
        found["parameters"] = sum(parameter.numel() for parameter in method.parameters())
    if "flops" in columns and known.flops is None:
        count = complexity.forward(method, row.batch(1))
        found |= {"flops": count.flops, "counted_on": count.device}
    device = torch.device(row.config.training.device)
    if "latency" in columns and (known.latency is None or known.latency.refusal):
        found["latency"] = _time(latency.measure(method, row.batch(1).to(device), THREADS))
    if "round" in columns and (known.step is None or known.step.refusal):
        batch = row.batch(row.config.training.batch_size).to(device)
        found["step"] = _time(rounds.measure(method, TASK, row.config, batch, row.spec.clips, THREADS).step)
    return known.model_copy(update=found)


def _time(found: Latency) -> Time:
    return Time(median=found.median, iqr=found.iqr, share=found.share)


# ---- records


def _plan(spec: CostSpec, rows: Mapping[str, _Row], card: Card, effort: Effort) -> dict[str, list[Trial]]:
    """The trials of every row whose modalities ``card`` has, as tables of scores plan them."""
    there = {name: row for name, row in rows.items() if set(row.row.modalities or ()) <= set(card.modalities)}
    return {
        name: method_trials(
            row.method, card, effort.model_copy(update={"modalities": row.row.modalities}), row.row.config, effort.seeds or spec.seeds
        )
        for name, row in there.items()
    }


def _costs(row: _Row, known: Known, measured: Measured | None, card: Card, store: RecordStore) -> Costs:
    found: dict[str, Figure] = {}
    if known.parameters is not None:
        found["parameters"] = Figure(known.parameters, COUNTED)
    if known.flops is not None:
        found["flops"] = Figure(known.flops, COUNTED)
    if known.latency is not None:
        found["latency"] = _timed(known.latency)
    if "round" in row.spec.columns and (epoch := _epoch(row, known, measured, store)):
        found["round"] = epoch
    if measured is not None and measured.finished:
        found |= {name: _score(measured, name) for name in row.spec.scores}
    return Costs(found, tuple(_notes(known, measured, card, row)))


def _timed(time: Time, times: int = 1) -> Figure:
    return Figure(times * time.median, TIMED, times * time.iqr, refused=time.refusal)


def _score(measured: Measured, name: str) -> Figure:
    std = measured.std(name)
    return Figure(measured.mean(name), RECORDED, None if std != std else std, n=measured.finished, expected=len(measured.expected))


def _epoch(row: _Row, known: Known, measured: Measured | None, store: RecordStore) -> Figure | None:
    """An epoch's time from records, where there are any; else from the time of a step."""
    runtimes = [store.runtime(record.key) for record in measured.records.values()] if measured else []
    seconds = [second for runtime in runtimes if runtime for second in runtime.epoch_seconds]
    if seconds:
        return Figure(median(seconds), RECORDED, n=len(runtimes))
    if known.step is None:
        return None
    return _timed(known.step, -(-row.spec.clips // row.config.training.batch_size))


def _notes(known: Known, measured: Measured | None, card: Card, row: _Row) -> list[str]:
    notes = ["FLOPs counted on the CPU"] if known.counted_on == "cpu" else []
    if measured is None:
        notes.append(f"no runs, {card.name} has {', '.join(card.modalities)} only")
    elif measured.faults and row.spec.scores:
        notes.append(f"{measured.finished} of {len(measured.expected)} runs finished")
    return notes
