"""``profile``: what methods cost on one data set, side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console

from harness import seeds
from harness.analysis import complexity, latency
from harness.analysis.latency import Latency
from harness.commands.running import parse_setting
from harness.data.opening import base_name, open_dataset
from harness.data.schema import Dataset
from harness.data.store import data_root
from harness.errors import ConfigError, DataError, HarnessError
from harness.experiments.environment import environment
from harness.experiments.plan import choose_device
from harness.experiments.plugins import load_file
from harness.experiments.records import RecordStore
from harness.experiments.trials import budget_named, choose_modalities, resolve_config
from harness.experiments.workspace import Workspace
from harness.files import write_atomic
from harness.registry import suggest
from harness.reporting.costs import Conditions, Profile, Trained, costs_document, costs_text
from harness.training import loop, text_encoder
from harness.training.contract import Inputs, Method, MethodConfig, methods

BATCHES = (1, 32)


@dataclass(frozen=True)
class Asked:
    """What the command line asks for. ``lengths``: ``text=50,audio=375``; modalities left out have the longest clip's."""

    lengths: str
    settings: Sequence[str]
    modalities: tuple[str, ...] | None
    device: str
    threads: int
    time: bool


@dataclass(frozen=True)
class _Built:
    name: str
    method: Method
    config: MethodConfig
    dims: Mapping[str, int]


def profile(names: str, dataset: str, asked: Asked, target: Path | None) -> None:
    """Print what the methods ``names`` (comma-separated) cost on ``dataset``; with ``target`` write it as JSON too."""
    data = open_dataset(dataset, data_root())
    if not data.features:
        raise DataError(f"{data.card.name} has no features to profile a method on", "Extract some, or import it with --features.")
    device = choose_device(asked.device)
    modalities = choose_modalities(data.card, asked.modalities)
    lengths = _lengths(data, modalities, parse_lengths(asked.lengths))
    settings = dict(map(parse_setting, asked.settings))
    built = [_build(name, data, modalities, settings, device) for name in _names(names)]
    costs = [complexity.measure(one.method, data.card.task, one.config, one.dims, lengths) for one in built]
    times = _times(built, data, lengths, asked.threads, device) if asked.time else {}
    store = Workspace.default().store
    profiles = [
        Profile(one.name, cost, times.get(one.name, ()), _trained(store, one, data, modalities))
        for one, cost in zip(built, costs, strict=True)
    ]
    conditions = Conditions(environment(device), asked.threads if asked.time else None)
    console = Console()
    console.print(costs_text(profiles, data.card, conditions), highlight=False, markup=False, soft_wrap=True)
    if target:
        _write(target, costs_document(profiles, data.card, conditions))
        console.print(f"Written: {target}", highlight=False, markup=False, soft_wrap=True)


def _write(target: Path, document: Mapping[str, Any]) -> None:
    try:
        write_atomic(target, (json.dumps(document, indent=1) + "\n").encode())
    except OSError as error:
        raise HarnessError(f"{target} cannot be written: {error.strerror}", "Name another file with --json.") from None


def parse_lengths(text: str) -> dict[str, int]:
    """``text=50,audio=375`` -> numbers of frames; ConfigError where it is neither."""
    lengths = {}
    for part in (part.strip() for part in text.split(",") if part.strip()):
        name, _, number = part.partition("=")
        if not number.strip().isdigit() or int(number) < 1:
            raise ConfigError(f"--lengths {part} is not MODALITY=FRAMES", "Write, for instance, --lengths text=50,audio=375,vision=500.")
        lengths[name.strip()] = int(number)
    return lengths


def _names(text: str) -> list[str]:
    if text.endswith(".py"):
        return [load_file(Path(text).resolve())]
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise ConfigError("no method is named", suggest(text, methods))
    return names


def _lengths(data: Dataset, modalities: Sequence[str], asked: Mapping[str, int]) -> dict[str, int]:
    for name in asked:
        if name not in modalities:
            raise ConfigError(f"--lengths names '{name}', which is not profiled", suggest(name, modalities))
    return {name: asked.get(name, data.card.modalities[name].longest) for name in modalities}


def _build(name: str, data: Dataset, modalities: tuple[str, ...], settings: Mapping[str, Any], device: str) -> _Built:
    """The method as a trial would build it, with its published configuration, fitted on what trains."""
    kind = methods[name]
    config = resolve_config(kind, base_name(data.card.name), budget_named("paper"), device, settings)
    train = data.clips.index[data.clips["split"] == "train"]
    data = text_encoder.tokenised(data, config.text_encoder)
    split = data.rows((train if len(train) else data.clips.index).tolist()).only(modalities)
    dims = {modality: split.features[modality].dim for modality in modalities}
    method = loop.build(kind, Inputs.of(split), data.card.task, config, seed=0)
    method.fit(split)
    return _Built(name, method, config, dims)


def _times(built: Sequence[_Built], data: Dataset, lengths: Mapping[str, int], threads: int, device: str) -> dict[str, tuple[Latency, ...]]:
    """Latencies by method, in random order: a machine that slows down must not always hit the same one."""
    found: dict[str, list[Latency]] = {one.name: [] for one in built}
    for size in BATCHES:
        for place in seeds.generator(0, "order of timing", size).permutation(len(built)):
            one = built[place]
            batch = complexity.synthetic_batch(one.dims, lengths, size, data.card.task).to(torch.device(device))
            found[one.name].append(latency.measure(one.method, batch, threads))
    return {name: tuple(times) for name, times in found.items()}


def _trained(store: RecordStore, one: _Built, data: Dataset, modalities: tuple[str, ...]) -> Trained | None:
    """Times of records of this method, data and configuration, whatever their budget."""
    longest = max((data.card.modalities[name].longest for name in modalities), default=0)
    wanted = (one.name, data.card.fingerprint, modalities, _comparable(one.config.model_dump(mode="json"), longest))
    identities = [record.identity for record in store.records() if record.identity.method == one.name]
    alike = [each for each in identities if (each.method, each.data, each.modalities, _comparable(each.config, longest)) == wanted]
    runtimes = [runtime for each in alike if (runtime := store.runtime(each.key)) and runtime.epoch_seconds]
    if not runtimes:
        return None
    seconds = [second for runtime in runtimes for second in runtime.epoch_seconds]
    return Trained(len(runtimes), median(seconds), max(runtime.peak_memory_mb for runtime in runtimes))


def _comparable(config: Mapping[str, Any], frames: int) -> dict[str, Any]:
    """A configuration without what only says how long training lasts, on clips of at most ``frames`` frames."""
    training = {key: value for key, value in config["training"].items() if key not in ("max_epochs", "patience")}
    if (training.get("longest") or frames) >= frames:
        training.pop("longest", None)  # shortens no clip
    return {**config, "training": training}
