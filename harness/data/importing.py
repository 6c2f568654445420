"""Importing: files that users have -> a checked data set in the store."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pandas as pd

from harness.data import catalogue, store, text
from harness.data.assemble import assemble
from harness.data.catalogue import Facts
from harness.data.checks import examined
from harness.data.schema import MODALITIES, Dataset, Source
from harness.data.sources import arrays
from harness.data.sources.layout import Opened, Raw, open_files, read, recognise
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
    ``FILE.npz:KEY``, ``TABLE.csv`` or a folder of one file per clip. Either takes the place of what ``files`` hold for that
    modality. The card's ``source`` says which layout was recognised. Media files alone make a data set without features.
    Raises DataError or ConfigError for anything that cannot be used; then nothing is stored.
    """
    facts = catalogue.facts(name)
    stored = _stored_name(name, variant)
    wanted = _array_files(features or {})
    if text_encoder and "text" in wanted:
        raise ConfigError("text features are given twice: by an encoder and by arrays", "Give one of them.")
    encoder = text.find(text_encoder) if text_encoder else None
    opened = open_files(files)
    layout, raw = _read(opened, facts)
    where = [file.path for file in opened]
    del opened
    with ThreadPoolExecutor(1) as aside:  # hashing large files leaves the interpreter to the others
        sums = aside.submit(_sums, [*where, *(place.path for place in wanted.values())])
        raw = _with_arrays(raw, wanted)
        if encoder:
            raw = _encoded(raw, encoder, root / ".cache" / "text", facts.text_max_tokens)
        _check_something_to_learn_from(raw, where)
        source = Source(layout=layout, files={path.name: "" for path in where}, notes=raw.notes)
        dataset = assemble(
            name=stored,
            facts=facts,
            clips=_with_folds(raw.clips, facts),
            features=raw.features,
            source=source,
            media_root=raw.media_root,
            notices=raw.notices,
        )
        source = source.model_copy(update={"files": sums.result(), "notes": {**raw.notes, **_published(sums.result(), facts)}})
    del raw
    dataset = replace(dataset, card=dataset.card.model_copy(update={"source": source}))
    return store.save(examined(dataset, facts), root)


def _read(opened: Sequence[Opened], facts: Facts) -> tuple[str, Raw]:
    """Name of the layout of the files, and what it reads."""
    name, layout = recognise(opened)
    return name, read(name, layout, opened, facts)


def _check_something_to_learn_from(raw: Raw, where: Sequence[Path]) -> None:
    if not raw.features and raw.media_root is None:
        raise DataError(
            f"{', '.join(path.name for path in where)} holds no features",
            "Give a text encoder (--text-encoder minilm), feature arrays (--features audio=FILE.npz:KEY), or both.",
        )


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


def _with_arrays(raw: Raw, wanted: Mapping[str, arrays.ArrayFile]) -> Raw:
    """``raw`` with the features that lie in files of their own."""
    ids = raw.clips["id"].tolist()
    found = {modality: arrays.read(place, ids) for modality, place in wanted.items()}
    notes = {modality: str(place) for modality, place in wanted.items()}
    return replace(raw, features={**raw.features, **found}, notes={**raw.notes, **notes})


def _encoded(raw: Raw, encoder: text.Encoder, cache: Path, max_tokens: int) -> Raw:
    """``raw`` with its transcripts encoded."""
    texts = raw.clips["text"].fillna("").astype(str).tolist() if "text" in raw.clips else []
    if not any(texts):
        raise DataError("there are no transcripts to encode", "Leave out the text encoder, or add the texts.")
    states = text.encode(texts, encoder, cache, max_tokens=max_tokens)
    note = f"last hidden states of {encoder.name}, frozen, lower-cased, at most {max_tokens} tokens"
    return replace(raw, features={**raw.features, "text": states}, notes={**raw.notes, "text": note})


def _with_folds(clips: pd.DataFrame, facts: Facts) -> pd.DataFrame:
    """The clips with the catalogue's published folds, where they are dealt by group and the files name none."""
    place = {group: str(number) for number, groups in enumerate(facts.folds) for group in groups}
    if "fold" in clips or not place or not set(clips["group"]) <= set(place):
        return clips
    return clips.assign(fold=clips["group"].map(place))


def _published(sums: Mapping[str, str], facts: Facts) -> dict[str, str]:
    """Which of the files are published ones, by the beginning of their SHA-256."""
    known = {file: known for file, digest in sums.items() for known, start in facts.checksums.items() if digest.startswith(start)}
    if known:
        return {f"{file} is": f"the published {published}, by its SHA-256" for file, published in known.items()}
    return {"published files": f"none of {', '.join(facts.checksums)} has this SHA-256"} if facts.checksums else {}


def _sums(paths: Sequence[Path]) -> dict[str, str]:
    """File name -> SHA-256; of a folder over the names and sizes of the files below it."""
    return {path.name: _listing(path) if path.is_dir() else _sha256(path) for path in dict.fromkeys(paths)}


def _listing(folder: Path) -> str:
    files = sorted((str(path.relative_to(folder)), path.stat().st_size) for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256("\n".join(f"{name}\t{size}" for name, size in files).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
