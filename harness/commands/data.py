"""``data import``, ``data show`` and ``data list``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from harness.data import store
from harness.data.catalogue import facts, known
from harness.data.importing import import_dataset
from harness.data.opening import open_dataset
from harness.errors import ConfigError
from harness.reporting.cards import card_text


def import_(name: str, files: Sequence[Path], variant: str | None, text_encoder: str | None, features: Sequence[str]) -> None:
    """Import ``files`` as the data set ``name`` and print the card, with what was recognised and repaired."""
    root = store.data_root()
    dataset = import_dataset(
        name, list(files), variant=variant, root=root, text_encoder=text_encoder, features=dict(map(_feature, features))
    )
    console = Console()
    console.print(card_text(dataset.card), highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"Stored as {root / dataset.card.name}. Use it: harness reproduce {dataset.card.dataset} --data {dataset.card.name}",
        highlight=False,
        soft_wrap=True,
    )


def show(name: str) -> None:
    """Print the card of a stored data set, or of the simulated stand-in where none was imported."""
    Console().print(card_text(open_dataset(name, store.data_root()).card), highlight=False, markup=False, soft_wrap=True)


def listing() -> None:
    """Print the catalogue with what is stored of each data set."""
    console, stored = Console(), store.names(store.data_root())
    for name in known():
        mine = [entry for entry in stored if entry.partition("@")[0] == name]
        console.print(
            f"{name:12} {facts(name).title:12} stored: {', '.join(mine) or 'nothing; a simulated one stands in'}",
            highlight=False,
            soft_wrap=True,
        )


def _feature(text: str) -> tuple[str, str]:
    modality, equals, place = text.partition("=")
    if not equals:
        raise ConfigError(f"--features {text} is not MODALITY=FILE", "Write, for instance, --features audio=features.npz:audio.")
    return modality.strip(), place.strip()
