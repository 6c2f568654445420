"""A data card as text."""

from __future__ import annotations

from tabulate import tabulate

from harness.data.schema import Card, Dataset, ModalityCard
from harness.reporting.card_counts import Bars, lengths, missing


def card_text(card: Card) -> str:
    """The card as a person reads it: what it is, its features, its splits, what was noticed."""
    kind = "SIMULATED data, no real clip" if card.simulated else f"real data, read as {card.source.layout}"
    return "\n\n".join(
        part for part in (f"{card.title} ({card.name}): {kind}", _facts(card), _features(card), _splits(card), _notices(card)) if part
    )


def histograms_text(dataset: Dataset) -> str:
    """Clips per range of lengths, by modality and split, and what is missing: what the card alone does not hold."""
    return "\n\n".join(_bars(bars) for bars in [*lengths(dataset), missing(dataset)] if bars.names)


def _bars(bars: Bars) -> str:
    rows = [(name, *counts) for name, counts in bars.counts.items()]
    return tabulate(rows, (bars.title, *bars.names), tablefmt="github")


def _facts(card: Card) -> str:
    task = card.task
    goal = f"regression in [{task.low:g}, {task.high:g}]" if task.kind == "regression" else f"classes: {', '.join(task.classes)}"
    best = ", ".join(f"{name} {value:.3f}" for name, value in card.best_possible.items())
    rows = [
        ("task", goal),
        ("metrics", ", ".join(card.metrics)),
        ("source", ", ".join(f"{name} (sha256 {digest[:8]})" for name, digest in card.source.files.items())),
        *card.source.notes.items(),
        ("best possible test score", best),
        ("licence", card.licence),
        ("cite", card.citation),
        ("fingerprint", card.fingerprint[:16]),
    ]
    return tabulate([row for row in rows if row[1]], tablefmt="plain", maxcolwidths=[None, 100])


def _features(card: Card) -> str:
    rows = [
        (name, _width(m), m.frames, f"{m.shortest} / {m.mean_length:.1f} / {m.longest}", m.nonfinite_replaced, m.empty_clips)
        for name, m in card.modalities.items()
    ]
    headers = ("modality", "width", "frames", "frames per clip (min / mean / max)", "NaN or inf set to 0", "clips without frames")
    return tabulate(rows, headers, tablefmt="github")


def _width(modality: ModalityCard) -> str | int:
    return f"{modality.dim} ({modality.picture} pictures)" if modality.picture else modality.dim


def _splits(card: Card) -> str:
    bins = list(dict.fromkeys(label for counts in card.labels.values() for label in counts))
    rows = [
        (name, count, card.groups.get(name, ""), *(card.labels[name].get(label, 0) for label in bins)) for name, count in card.clips.items()
    ]
    return tabulate(rows, ("split", "clips", "groups", *(f"label {label}" for label in bins)), tablefmt="github")


def _notices(card: Card) -> str:
    return "\n".join([*(f"notice: {warning}" for warning in card.warnings), *map(str, card.findings)])
