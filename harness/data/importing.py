"""Importing: files that users have -> a checked data set in the store."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from harness.data import catalogue, store, text
from harness.data.assemble import assemble
from harness.data.schema import MODALITIES, Dataset, Ragged, Source
from harness.data.sources import arrays
from harness.data.sources.layout import Raw, open_file, recognise
from harness.errors import ConfigError, DataError
from harness.registry import suggest

SIMULATED = "simulated"


def import_dataset(
    name: str,
    files: list[Path],
    *,
    variant: str | None = None,
    root: Path,
    text_encoder: str | None = None,
    features: dict[str, str] | None = None,
) -> Dataset:
    """Read ``files`` in whatever known layout they have, check them, store them as ``name`` or ``name@variant``.

    ``text_encoder`` (``minilm`` or a model's folder) encodes the transcripts; ``features`` maps a modality to
    ``FILE.npz:KEY``. Either takes the place of what ``files`` hold for that modality. The card's ``source`` says which
    layout was recognised. Raises DataError or ConfigError for anything that cannot be used; then nothing is stored.
    """
    facts = catalogue.facts(name)
    stored = _stored_name(name, variant)
    wanted = _array_files(features or {})
    if text_encoder and "text" in wanted:
        raise ConfigError("text features are given twice: by an encoder and by arrays", "Give one of them.")
    encoder = text.find(text_encoder) if text_encoder else None
    opened = [open_file(path) for path in files]
    layout_name, layout = recognise(opened)
    raw = layout.read(opened, facts)
    del opened
    parts: dict[str, Sequence[np.ndarray] | Ragged] = {**raw.features}
    notes = dict(raw.notes)
    ids = raw.clips["id"].tolist()
    for modality, where in wanted.items():
        parts[modality] = arrays.read(where, ids)
        notes[modality] = f"{where.path.name}:{where.key}"
    if encoder:
        parts["text"] = text.encode(_texts(raw, files), encoder, root / ".cache" / "text", max_tokens=facts.text_max_tokens)
        notes["text"] = f"last hidden states of {encoder.name}, frozen, lower-cased, at most {facts.text_max_tokens} tokens"
    if not parts:
        raise DataError(
            f"{', '.join(path.name for path in files)} ({layout.title}) holds no features",
            "Give a text encoder (--text-encoder minilm), feature arrays (--features audio=FILE.npz:KEY), or both.",
        )
    sums = {path.name: _sha256(path) for path in [*files, *dict.fromkeys(where.path for where in wanted.values())]}
    source = Source(layout=layout_name, files=sums, notes=notes)
    return store.save(assemble(name=stored, facts=facts, clips=raw.clips, features=parts, source=source), root)


def _stored_name(name: str, variant: str | None) -> str:
    if variant == SIMULATED:
        raise ConfigError(f"the variant '{SIMULATED}' is kept for simulated data", "Choose another name for this import.")
    if variant is not None and not store.NAME.fullmatch(f"{name}@{variant}"):
        raise ConfigError(f"'{variant}' cannot be the name of a variant", "Use letters, digits and . _ + -.")
    return f"{name}@{variant}" if variant else name


def _array_files(features: Mapping[str, str]) -> dict[str, arrays.ArrayFile]:
    for modality in features:
        if modality not in MODALITIES:
            raise ConfigError(f"there is no modality '{modality}'", suggest(modality, MODALITIES))
    return {modality: arrays.parse(modality, where) for modality, where in features.items()}


def _texts(raw: Raw, files: Sequence[Path]) -> list[str]:
    texts = raw.clips["text"].fillna("").astype(str).tolist()
    if not any(texts):
        raise DataError(
            f"{', '.join(path.name for path in files)}: there are no transcripts to encode", "Leave out the text encoder, or add the texts."
        )
    return texts


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
