"""All tables and the page of all papers from made-up records, timed."""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from harness import files
from harness.commands.rendering import Renderer, spare_cores
from harness.data.catalogue import facts
from harness.data.schema import Card, ModalityCard, Source
from harness.experiments import papers
from harness.experiments.environment import Environment
from harness.experiments.papers import TableSpec
from harness.experiments.plan import Effort, plan_table
from harness.experiments.records import Predictions, Record, RecordStore, Runtime
from harness.experiments.trials import Trial
from harness.experiments.workspace import Workspace
from harness.reporting.page import document
from harness.training.loop import Epoch
from harness.training.settings import BUDGETS

CLIPS = {"mosi": 686, "mosei": 4659, "ur_funny": 992, "iemocap6": 1500, "ravdess": 1440, "ravdess_song": 2452, "enterface05": 1287}
GROUPS = 24
EPOCHS = 16
DIMS = {"text": 768, "audio": 74, "vision": 35}
NOWHERE = Environment(
    python="", packages={}, machine="", processor="", instructions="", cores=2, threads=2, device="cpu", commit="", dirty=False
)
Tables = list[tuple[TableSpec, Card, Mapping[str, Sequence[Trial]]]]


def card_of(name: str) -> Card:
    known = facts(name)
    return Card(
        name=name, dataset=name, title=known.title, simulated=True, task=known.task, metrics=known.metrics,
        modalities={kind: ModalityCard(dim=dim, frames=100, shortest=1, mean_length=9, longest=50) for kind, dim in DIMS.items()},
        clips={"train": CLIPS[name], "valid": 0, "test": CLIPS[name]}, groups={}, labels={}, source=Source(layout="made by a benchmark"),
        best_possible={}, fingerprint=(name * 64)[:64],
    )  # fmt: skip


def planned(seeds: int, only: str = "") -> Tables:
    """Every table on each of its data sets, or on the data set ``only``, with so many seeds."""
    effort = Effort(budget="paper", seeds=tuple(range(seeds)))
    specs = [papers.load(*place) for place in papers.items()]
    found = [(spec, card_of(dataset)) for spec in specs for dataset in spec.datasets if only in ("", dataset)]
    return [(spec, card, plan_table(spec, card, effort)) for spec, card in found]


def with_records(count: int, only: str = "") -> Tables:
    """Tables whose trials, each counted once, are at least ``count``."""
    one = len({trial.key for *_, plan in planned(1, only) for trials in plan.values() for trial in trials})
    return planned(-(-count // one), only)


def predictions(card: Card, trial: Trial, rng: np.random.Generator) -> Predictions:
    """Of the clips that the trial's fold tests: those of some of the groups."""
    clips = np.arange(CLIPS[card.dataset])
    fold, group = trial.identity.fold, clips % GROUPS
    if fold.protocol == "holdout":
        clips = clips[(group + fold.repeat) % 6 == 0]
    elif fold.protocol != "official":
        clips = clips[group % fold.of == fold.index]
    truth = np.random.default_rng(0).normal(0, 1.3, CLIPS[card.dataset]).clip(-3, 3).round(1)[clips]
    values = (0.6 * truth + rng.normal(0, 0.8, len(clips))).round(4)
    if card.task.classes:
        truth = (clips % len(card.task.classes)).astype(float)
        scores = rng.normal(0, 1, (len(clips), len(card.task.classes))).round(3)
        scores[np.arange(len(clips)), truth.astype(int)] += 0.8
        shown = tuple(map(tuple, scores.round(3).tolist()))
    else:
        shown = tuple(values.tolist())
    ids, groups = (tuple(f"{kind}{number}" for number in numbers) for kind, numbers in (("c", clips), ("g", clips % GROUPS)))
    return Predictions(ids=ids, groups=groups, truth=tuple(truth.tolist()), values=shown)


def fill(store: RecordStore, tables: Tables) -> int:
    """A record for every trial; their number."""
    rng = np.random.default_rng(1)
    history = tuple(
        Epoch(epoch=i + 1, train_loss=2 / (i + 1), losses={}, valid_loss=1 + 1 / (i + 1), learning_rate=0.001) for i in range(EPOCHS)
    )
    runtime = Runtime(finished="2026-01-01T00:01:00+00:00", seconds=60.0, epoch_seconds=(3.0,) * EPOCHS, peak_memory_mb=1.0)
    trials = {trial.key: (card, trial) for _, card, plan in tables for row in plan.values() for trial in row}
    for card, trial in trials.values():
        store.put(
            Record(
                identity=trial.identity, budget="paper", simulated=True, environment=NOWHERE, parameters=1000, split_hash="", best_epoch=9,
                history=history, valid={}, test={}, predictions=predictions(card, trial, rng),
            ),
            runtime,
        )  # fmt: skip
    return len(trials)


def rendered(root: Path, tables: Tables) -> Path:
    renderer = Renderer(Workspace(root), ("svg",), spare_cores())
    for spec, card, plan in tables:
        renderer.table(spec, card, BUDGETS["paper"], plan)
    return renderer.page()


def processor() -> float:
    """Seconds of the processor of this program and of those that it started and that have ended."""
    used = [resource.getrusage(which) for which in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def timed(name: str, call: Callable[[], object]) -> Iterator[tuple[str, float]]:
    wall, cpu = time.monotonic(), processor()
    call()
    yield f"{name}, s", round(time.monotonic() - wall, 2)
    yield f"{name}, s of the processor", round(processor() - cpu, 2)


def measure(count: int, only: str = "") -> dict[str, float]:
    files.os.fsync = lambda descriptor: None  # type: ignore[assignment]  # what is written here need not survive a crash
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        tables = with_records(count, only)
        found: dict[str, float] = {"tables": len(tables), "records": fill(Workspace(root).store, tables)}
        found |= dict(timed("without caches", lambda: rendered(root, tables)))
        found |= dict(timed("nothing changed", lambda: rendered(root, tables)))
        for path in document.folder(root).glob("*.json"):
            path.unlink()  # the tables; scores, outcomes of tests and figures stay
        found |= dict(timed("statistics cached", lambda: rendered(root, tables)))
        found["page, MB"] = round((root / "index.html").stat().st_size / 1e6, 2)
    return {**found, "peak memory, MB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)}
