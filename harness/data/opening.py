"""From a data set's name to a stored Dataset: the imported one, or the simulated one where none was imported."""

from __future__ import annotations

from pathlib import Path

from harness.data import store
from harness.data.catalogue import facts
from harness.data.schema import Card, Dataset
from harness.data.simulate import simulate

SIMULATED = "simulated"


def base_name(name: str) -> str:
    """``mosi`` of ``mosi@minilm``."""
    return name.partition("@")[0]


def open_dataset(name: str, root: Path) -> Dataset:
    """The stored data set that ``name`` means under ``root``.

    Where nothing was imported under the data set's plain name, the simulated one of the same shape stands in; it is made once and
    stored as ``<name>@simulated``. Raises DataError where a named variant is not there, ConfigError where the data set is unknown.
    """
    known = facts(base_name(name))
    stored = store.resolve(name, root)
    if stored is None and name in (known.name, simulated_name(known.name)):
        stored = simulated_name(known.name)
        if stored not in store.names(root):
            store.save(simulate(known), root)
    return store.load(stored or name, root)


def open_card(name: str, root: Path) -> Card:
    """The card of what ``open_dataset`` opens."""
    return open_dataset(name, root).card


def simulated_name(dataset: str) -> str:
    return f"{dataset}@{SIMULATED}"
