"""``figure``: figures of what a trained model holds inside."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from harness.commands.running import open_checked, parse_setting, settle
from harness.data.schema import Card
from harness.data.store import data_root
from harness.errors import ConfigError, HarnessError
from harness.experiments.inside import Inside, Look
from harness.experiments.plan import Effort, method_trials
from harness.experiments.records import Record, RecordStore
from harness.experiments.worker import run_trial
from harness.experiments.workspace import Workspace
from harness.reporting.figures import features
from harness.reporting.figures.drawing import Drawing
from harness.reporting.figures.of_tables import Drawn
from harness.reporting.figures.style import parse_formats, save


def figure(method: str, dataset: str, settings: Sequence[str], effort: Effort, seed: int, formats: str) -> None:
    """Train one trial again and draw what its model shows; HarnessError where it shows nothing."""
    console, workspace = Console(), Workspace.default()
    endings = parse_formats(formats)
    opened, effort = open_checked(dataset, settle(effort, str(seed) + ","), console)
    (trial, *_) = method_trials(method, opened.card, effort, dict(map(parse_setting, settings)), effort.seeds)
    with tempfile.TemporaryDirectory() as folder:
        look = Look(trial, data_root().resolve(), Path(folder) / "checkpoint.pt")
        finished = run_trial(look, lambda event: None)
    console.print(compared(finished.record, workspace.store), highlight=False, soft_wrap=True)  # type: ignore[union-attr]
    drawn = list(figures(look.found[0], opened.card))
    if not drawn:
        raise HarnessError(
            f"{method} shows nothing inside: no representations, adjacency maps or splines", "Allowed: iidaf, amcm, mkcc, mikl."
        )
    for one in drawn:
        place = workspace.root / "figures" / f"inside_{method}_{opened.card.name}_seed{seed}_{one.kind}".replace("@", "-")
        save(one.drawing.figure(), place, endings)
        console.print(f"{one.title}: {', '.join(f'{place}.{ending}' for ending in endings)}", highlight=False, markup=False, soft_wrap=True)


def figures(inside: Inside, card: Card) -> Iterator[Drawn]:
    """t-SNE and PCA of shared and specific features, gate weights, adjacency maps, learned functions: what there is of them."""
    parts = {name.replace("_", " "): x for name, x in inside.representations.items() if name.startswith(("shared_", "specific_"))}
    if parts:
        yield Drawn("tsne", "t-SNE of shared and specific features", "", Drawing(features.feature_map, (parts, "t-SNE", 0, card.simulated)))
        yield Drawn("pca", "PCA of shared and specific features", "", Drawing(features.feature_map, (parts, "PCA", 0, card.simulated)))
    if "gate" in inside.representations:
        gate = np.atleast_2d(inside.representations["gate"])
        names = ("shared, g(s)", "specific, g(p)")
        gates = {name: gate[:, i] for i, name in zip(range(gate.shape[1]), names, strict=False)}
        yield Drawn("gates", "Gate weights", "", Drawing(features.gate_boxes, ({card.title: gates}, card.simulated)))
    for kind in ("spatial", "temporal"):
        found = {name: matrix for name, matrix in inside.maps.items() if name.startswith(kind)}
        if found:
            yield Drawn(f"{kind}-maps", f"{kind.capitalize()} adjacency", "", Drawing(features.adjacency_maps, (found, card.simulated)))
    for number, (layer, (x, curves)) in enumerate(inside.splines.items()):
        yield Drawn(f"splines-{number}", f"Learned functions of {layer}", "", Drawing(features.spline_curves, (x, curves, card.simulated)))


def compared(record: Record, store: RecordStore) -> str:
    """Whether this very trial was recorded, and to the same predictions."""
    if record.key not in store:
        return f"Trained {record.key}, which is not recorded."
    if store.get(record.key).predictions != record.predictions:
        raise ConfigError(
            f"the trial {record.key} was recorded with other predictions than it has now", "Draw on the machine that made the record."
        )
    return f"Trained {record.key} again: the same predictions as its record."
