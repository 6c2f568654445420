"""``data import``, ``data check``, ``data fetch``, ``data show`` and ``data list``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from harness.data import checks, store
from harness.data.catalogue import facts
from harness.data.importing import import_dataset
from harness.data.opening import open_dataset
from harness.data.schema import Dataset
from harness.errors import ConfigError
from harness.reporting.card_picture import write_picture
from harness.reporting.cards import card_text, histograms_text

STYLES = {"error": "red", "warning": "yellow", "notice": ""}


def import_(name: str, files: Sequence[Path], variant: str | None, text_encoder: str | None, features: Sequence[str]) -> None:
    """Import ``files`` as the data set ``name`` and print the card, with what was recognised and repaired."""
    root = store.data_root()
    dataset = import_dataset(
        name, list(files), variant=variant, root=root, text_encoder=text_encoder, features=dict(map(_feature, features))
    )
    console = Console()
    console.print(card_text(dataset.card), highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"Stored as {root / dataset.card.name}. {_next(dataset)}",
        highlight=False,
        soft_wrap=True,
    )


def _next(dataset: Dataset) -> str:
    """The command that comes next; tables there are of some data sets only."""
    if not dataset.features:
        return f"It has no features yet: harness data extract {dataset.card.name}"
    return f"Use it: harness run METHOD {dataset.card.name}"


def check(name: str, strict: bool) -> None:
    """Print what the checks find in a data set; exit code 1 where there is an error. With ``strict`` warnings are errors."""
    dataset, console = open_dataset(name, store.data_root()), Console()
    found = checks.examine(dataset, facts(dataset.card.dataset))
    if strict:
        found = tuple(one.model_copy(update={"severity": "error"}) if one.severity == "warning" else one for one in found)
    for finding in found:
        console.print(str(finding), style=STYLES[finding.severity], highlight=False, markup=False, soft_wrap=True)
    counts = Counter(finding.severity for finding in found)
    told = ", ".join(f"{counts[severity]} {severity}{'s' * (counts[severity] != 1)}" for severity in checks.SEVERITIES)
    console.print(f"{dataset.card.name}: {len(list(checks.checks))} checks, {told}", highlight=False, markup=False, soft_wrap=True)
    if counts["error"]:
        raise SystemExit(1)


def show(name: str, picture: Path | None = None) -> None:
    """Print the card of a stored data set, or of the simulated stand-in where none was imported; draw it to ``picture``."""
    dataset, console = open_dataset(name, store.data_root()), Console()
    for text in (card_text(dataset.card), histograms_text(dataset)):
        console.print(text, highlight=False, markup=False, soft_wrap=True, end="\n\n")
    if picture is not None:
        write_picture(dataset, picture)
        console.print(f"Drawn: {picture}", highlight=False, markup=False, soft_wrap=True)


def _feature(text: str) -> tuple[str, str]:
    modality, equals, place = text.partition("=")
    if not equals:
        raise ConfigError(f"--features {text} is not MODALITY=FILE", "Write, for instance, --features audio=features.npz:audio.")
    return modality.strip(), place.strip()
