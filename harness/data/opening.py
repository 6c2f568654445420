"""From a data set's name to a stored Dataset: the imported one, or the simulated one where none was imported."""

from __future__ import annotations

from pathlib import Path

from harness.data import store
from harness.data.catalogue import Facts, facts
from harness.data.schema import Card, Dataset
from harness.data.simulate import simulate
from harness.errors import DataError

SIMULATED = "simulated"


def base_name(name: str) -> str:
    """``mosi`` of ``mosi@minilm``."""
    return name.partition("@")[0]


def open_dataset(name: str, root: Path) -> Dataset:
    """The stored data set that ``name`` means under ``root``.

    Where nothing was imported under the data set's plain name, the simulated one of the same shape stands in; it is made once and
    stored as ``<name>@simulated``. Raises DataError where a named variant is not there, or nothing is and the data set has no
    simulated form; ConfigError where the data set is unknown.
    """
    known = facts(base_name(name))
    stored = store.resolve(name, root)
    if stored is None and name in (known.name, simulated_name(known.name)):
        stored = simulated_name(known.name)
        if stored not in store.names(root):
            store.save(simulate(_with_simulated_form(known, root)), root)
    return store.load(stored or name, root)


def is_there(name: str, root: Path) -> bool:
    """Whether ``open_dataset`` would find something under ``root``; ConfigError where the data set is unknown."""
    known = facts(base_name(name))
    return store.resolve(name, root) is not None or (bool(known.simulated) and name in (known.name, simulated_name(known.name)))


def _with_simulated_form(known: Facts, root: Path) -> Facts:
    if known.simulated:
        return known
    raise DataError(
        f"{known.title} ({known.name}) was not imported into {root}, and it has no simulated form",
        f"Import it: harness data import {known.name} FILE." + (f" Where to get it: {known.obtain}" if known.obtain else ""),
    )


def need_features(dataset: Dataset) -> Dataset:
    """``dataset``, if it has features; DataError where only media files were imported."""
    if dataset.features:
        return dataset
    raise DataError(
        f"{dataset.card.name} has no features: only media files and transcripts were imported",
        "Extract some, or import it again with --features or --text-encoder.",
    )


def open_card(name: str, root: Path) -> Card:
    """The card of what ``open_dataset`` opens."""
    return open_dataset(name, root).card


def simulated_name(dataset: str) -> str:
    return f"{dataset}@{SIMULATED}"
