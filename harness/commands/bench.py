"""``bench``: how fast methods train here, beside what the machine can do; and how that grows with the data."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.analysis import roofline
from harness.commands.running import parse_setting
from harness.data import store
from harness.data.catalogue import Facts, facts
from harness.data.opening import base_name, need_features, open_dataset
from harness.data.schema import Card
from harness.data.simulate import simulate
from harness.data.store import data_root
from harness.errors import ConfigError, HarnessError
from harness.experiments import benching
from harness.experiments.environment import environment
from harness.experiments.plan import Effort, method_trials
from harness.experiments.plugins import load_file
from harness.experiments.trials import Trial
from harness.experiments.workspace import Workspace
from harness.files import write_atomic
from harness.registry import suggest
from harness.reporting.benches import Bench, Place, Point, bench_document, bench_text, growth_text
from harness.reporting.figures.growth import growth as growth_figure
from harness.reporting.figures.style import parse_formats, save
from harness.training.contract import methods

CLIPS = (1_000, 4_000, 16_000)  # of a growth, at the simulated data's own lengths
FRAMES = (50, 200, 500)  # of every clip of a growth, in every modality
LONG_CLIPS = 256  # clips that those of ``FRAMES`` are timed on; their epoch is stated for ``CLIPS[0]``


@dataclass(frozen=True)
class Asked:
    """What the command line asks for. ``clips``: how many clips train, 0: all; ``growth``: formats of its figure, empty for none."""

    settings: Sequence[str] = ()
    modalities: tuple[str, ...] | None = None
    epochs: int = 3
    workers: int = 0
    clips: int = 0
    growth: str = ""


@dataclass(frozen=True)
class _Timer:
    """Times methods as ``asked``; ``plugin`` is the user's own file where the method is defined there."""

    asked: Asked
    plugin: Path | None

    def trials(self, name: str, card: Card, seeds: Sequence[int]) -> list[Trial]:
        epochs = {"training.max_epochs": self.asked.epochs, "training.patience": self.asked.epochs}
        settings = dict(map(parse_setting, self.asked.settings)) | epochs
        return method_trials(name, card, Effort(budget="paper", modalities=self.asked.modalities), settings, seeds)

    def alone(self, name: str, card: Card, root: Path, look: bool) -> benching.Figures:
        return benching.run(benching.timings(self.trials(name, card, [1]), root, self.asked.clips, look, self.plugin), 1)[0]

    def bench(self, name: str, card: Card, root: Path) -> Bench:
        count = self.asked.workers or os.cpu_count() or 1
        trials = self.trials(name, card, range(1, count + 1))
        training = trials[0].identity.config["training"]
        alone = self.alone(name, card, root, look=True)
        jobs = benching.timings(trials, root, self.asked.clips, plugin=self.plugin)
        together = benching.run(jobs, count) if count > 1 else [alone]
        return Bench(name, card.name, card.simulated, training["batch_size"], training["accumulate"], alone, tuple(together))


def bench(names: str, datasets: Sequence[str], asked: Asked, target: Path | None) -> None:
    """Time the methods ``names`` on ``datasets`` and print the table; with ``target`` write all figures as JSON too. Writes no record."""
    console, root = Console(), data_root().resolve()
    chosen, timer = _methods(names), _Timer(asked, Path(names).resolve() if names.endswith(".py") else None)
    endings = parse_formats(asked.growth) if asked.growth else ()
    if not datasets:
        raise ConfigError("no data set is named", "Write, for instance, harness bench tfn mosi.")
    cards = [need_features(open_dataset(name, root)).card for name in datasets]
    for card in cards:
        for name in chosen:  # a setting that does not fit is told before anything is timed
            timer.trials(name, card, [1])
    sources = [_simulated(card) for card in cards] if asked.growth else []
    place = Place(environment("cpu"), roofline.measure(), os.getloadavg()[0])
    benches = [timer.bench(name, card, root) for card in cards for name in _said(chosen, card.name, console)]
    _say(console, bench_text(benches, place))
    points: list[Point] = []
    for card, source in zip(cards, sources, strict=False):
        found = [point for name in _said(chosen, f"growth on {card.name}", console) for point in _grown(timer, name, source)]
        _say(console, growth_text(found))
        _draw(console, card.name, found, endings)
        points += found
    if target:
        _write(target, bench_document(benches, points, place))
        _say(console, f"Written: {target}")


def _methods(text: str) -> list[str]:
    if text.endswith(".py"):
        return [load_file(Path(text).resolve())]
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise ConfigError("no method is named", suggest(text, methods))
    for name in names:
        methods[name]
    return names


def _said(names: Sequence[str], where: str, console: Console) -> Iterator[str]:
    for name in names:
        _say(console, f"timing {name}, {where}")
        yield name


# ---- growth


def _simulated(card: Card) -> Facts:
    known = facts(base_name(card.name))
    if not known.simulated:
        raise ConfigError(f"--growth: {known.title} has no simulated form whose size could grow", "Use mosi or mosei.")
    return known


def _grown(timer: _Timer, name: str, known: Facts) -> Iterator[Point]:
    """Times of one worker on simulated data of growing size, made in a folder of its own and thrown away."""
    for clips in CLIPS:
        yield _point(timer, name, known, clips, None)
    for frames in FRAMES:
        yield _point(timer, name, _of_length(known, frames), LONG_CLIPS, frames)


def _point(timer: _Timer, name: str, known: Facts, clips: int, frames: int | None) -> Point:
    with tempfile.TemporaryDirectory() as folder:
        sizes = {"train": clips, "valid": 32, "test": 32}
        card = store.save(simulate(known, sizes=sizes), Path(folder)).card
        found = timer.alone(name, card, Path(folder), look=False)
    stated = clips if frames is None else CLIPS[0]
    return Point(name, stated, frames, found.seconds * stated / found.of, found.peak_mb)


def _of_length(known: Facts, frames: int) -> Facts:
    """The same data set with ``frames`` frames in every clip."""
    length = {"log_mean": math.log(frames), "log_std": 0.0, "longest": frames}
    return known.model_copy(update={"simulated": {**known.simulated, "length": length}})


def _draw(console: Console, dataset: str, points: Sequence[Point], endings: Sequence[str]) -> None:
    if not endings:
        return
    parts: dict[str, dict[str, list[tuple[float, float]]]] = {"clips": {}, f"frames per clip, {CLIPS[0]:,} clips": {}}
    for point in points:
        by_clips = point.frames is None
        panel = parts[list(parts)[0 if by_clips else 1]]
        panel.setdefault(point.method, []).append((point.clips if point.frames is None else point.frames, point.seconds))
    stem = Workspace.default().root / "figures" / f"growth_{dataset}".replace("@", "-")
    save(growth_figure(parts, simulated=True), stem, endings)
    _say(console, f"Drawn: {', '.join(f'{stem}.{ending}' for ending in endings)}")


# ---- output


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _write(target: Path, document: Mapping[str, Any]) -> None:
    try:
        write_atomic(target, (json.dumps(document, indent=1) + "\n").encode())
    except OSError as error:
        raise HarnessError(f"{target} cannot be written: {error.strerror}", "Name another file with --json.") from None
