"""A tiny data set and trials on it, for tests of the engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from harness.cli import main
from harness.data import store
from harness.data.schema import Card, Dataset, ModalityCard, Ragged, Source, Task
from harness.data.splits import Fold
from harness.experiments.plugins import load_file
from harness.experiments.trials import Trial, make_trial, resolve_config
from harness.experiments.worker import Job
from harness.training.contract import methods
from harness.training.settings import BUDGETS

TOY = Path(__file__).with_name("toy_method.py")
SIZES = {"train": 60, "valid": 21, "test": 33}
DIMS = {"text": 6, "audio": 3}


def tiny_dataset(name: str = "mosi@tiny", seed: int = 0, classes: tuple[str, ...] = ()) -> Dataset:
    """Clips of 1 to 5 frames whose text carries the label; the features' means predict it in part."""
    rng = np.random.default_rng(seed)
    split = np.repeat(list(SIZES), list(SIZES.values()))
    count = len(split)
    label = rng.integers(0, len(classes), count).astype(float) if classes else np.round(np.clip(rng.normal(0, 1.5, count), -3, 3), 1)
    features = {}
    for modality, dim in DIMS.items():
        lengths = torch.from_numpy(rng.integers(1, 6, count))
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        values = rng.normal(0, 1, (int(offsets[-1]), dim)).astype(np.float32)
        values[:, 0] += np.repeat(label, lengths.numpy()) * (1.0 if modality == "text" else 0.2)
        features[modality] = Ragged(torch.from_numpy(values), offsets)
    clips = pd.DataFrame(
        {
            "id": [f"v{i // 4}_{i}" for i in range(count)],
            "group": [f"v{i // 4}" for i in range(count)],
            "split": split,
            "label": label,
            "text": [""] * count,
        }
    )
    task = Task(kind="classification", classes=classes) if classes else Task(kind="regression", low=-3, high=3)
    card = Card(
        name=name,
        dataset=name.partition("@")[0],
        title="Tiny",
        simulated=True,
        task=task,
        metrics=("accuracy", "uar") if classes else ("mae", "corr", "acc2_nonneg"),
        modalities={m: ModalityCard(dim=r.dim, frames=len(r.values), shortest=1, mean_length=3, longest=5) for m, r in features.items()},
        clips=SIZES,
        groups={part: int(clips[clips["split"] == part]["group"].nunique()) for part in SIZES},
        labels={part: {} for part in SIZES},
        source=Source(layout="made by a test"),
    )
    return Dataset(card, clips, features)


def stored(root: Path, **options: Any) -> Dataset:
    """A tiny data set stored under ``root``."""
    return store.save(tiny_dataset(**options), root)


def trial(dataset: Dataset, seed: int = 1, fold: Fold | None = None, **settings: Any) -> Trial:
    """A trial of the toy method; keyword settings have ``__`` for the dots of nested keys."""
    load_file(TOY)
    overrides: Mapping[str, Any] = {key.replace("__", "."): value for key, value in settings.items()}
    config = resolve_config(methods["toy"], "tiny", BUDGETS["paper"], "cpu", overrides)
    return make_trial("toy", dataset.card, config, seed=seed, fold=fold or Fold(), budget="paper")


def job(one: Trial, data_root: Path, folder: Path, checkpoint_seconds: float = 0.0) -> Job:
    """``one`` as a job whose checkpoint lies in ``folder``."""
    return Job(one, data_root, folder / f"{one.key}.pt", checkpoint_seconds, TOY)


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    code: Any = 0
    try:
        main(list(arguments))
    except SystemExit as ended:
        code = ended.code or 0
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return int(code), out, err


def typed(capsys: pytest.CaptureFixture[str], line: str) -> str:
    """What the command ``line`` prints; it has to end well."""
    code, out, err = call(capsys, *line.split())
    assert code == 0, f"{line}\n{out}{err}"
    return out
