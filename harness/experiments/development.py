"""The data that a search may see: a data set without the clips that test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from harness.data import splits, store
from harness.data.schema import CLIP_COLUMNS, Card, Dataset, ModalityCard, Ragged, Split
from harness.data.splits import Fold
from harness.errors import DataError


def without_test(dataset: Dataset, fold: Fold) -> Dataset:
    """A copy of ``dataset`` that holds the clips that train and validate in ``fold``, and nothing of the others.

    Their roles stand in the column ``split``. DataError where the fold cannot be cut.
    """
    parts = splits.cut(dataset, fold)
    roles = np.full(len(dataset), "", dtype=object)
    for role in ("train", "valid"):
        roles[parts[role].rows.numpy()] = role
    rows = np.flatnonzero(roles != "")
    clips = dataset.clips.loc[rows, list(CLIP_COLUMNS)].assign(split=roles[rows]).reset_index(drop=True)
    features = {name: ragged.only(torch.from_numpy(rows)) for name, ragged in dataset.features.items()}
    counts = {role: int((clips["split"] == role).sum()) for role in ("train", "valid")}
    groups = {role: int(clips[clips["split"] == role]["group"].nunique()) for role in counts}
    return Dataset(_card(dataset.card, features, counts, groups), clips, features)


def kept_apart(dataset: Dataset, fold: Fold, root: Path) -> Dataset:
    """``without_test``, stored below ``root`` under the data set's name: there is nothing else for a trial to open."""
    return store.save(without_test(dataset, fold), root)


def inner_parts(dataset: Dataset, number: int, of: int) -> tuple[Split, Split]:
    """What trains and what validates in inner fold ``number``; without inner folds (``of`` 0), as the column ``split`` says.

    DataError where ``dataset`` holds clips that test, and where there are fewer groups than inner folds.
    """
    column = dataset.clips["split"]
    if (column == "test").any():
        raise DataError(f"{dataset.card.name} holds clips that test: no search may read it", "Take them out first.")
    if not of:
        train, valid = (dataset.rows(np.flatnonzero(column == role).tolist()) for role in ("train", "valid"))
        return train, valid
    parts = splits.cut(dataset, Fold(protocol="grouped", index=number, of=of))
    return dataset.rows(torch.cat([parts["train"].rows, parts["valid"].rows]).sort().values), parts["test"]


def _card(card: Card, features: dict[str, Ragged], clips: dict[str, int], groups: dict[str, int]) -> Card:
    modalities = {name: _modality(card.modalities[name], ragged) for name, ragged in features.items()}
    changed = {"modalities": modalities, "clips": clips, "groups": groups, "labels": {}, "best_possible": {}, "fingerprint": ""}
    return card.model_copy(update=changed)


def _modality(card: ModalityCard, ragged: Ragged) -> ModalityCard:
    lengths = ragged.lengths
    measured = {
        "frames": len(ragged.values),
        "shortest": int(lengths.min()),
        "mean_length": float(lengths.double().mean()),
        "longest": int(lengths.max()),
    }
    return card.model_copy(update=measured)
