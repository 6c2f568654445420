"""From a stored data set and extractors to a new variant of it that has their features."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, overload

import numpy as np
import torch

from harness.data import store
from harness.data.assemble import Bytes, Frames, assemble
from harness.data.catalogue import facts
from harness.data.checks import examined
from harness.data.features import cache
from harness.data.features.base import Clip, Collective, Extractor, Gathered
from harness.data.features.pool import Result, Task, run
from harness.data.schema import Card, Dataset
from harness.errors import ConfigError, DataError, Stopped

Progress = Callable[[int, int, int], None]  # clips done, clips in all, of those done: found in the cache
BadClip = Literal["error", "skip", "zeros"]
NAMED = 20  # clips that were left out, by name on the card


def extract_features(
    dataset: Dataset,
    chosen: Sequence[Extractor],
    *,
    variant: str,
    root: Path,
    workers: int = 1,
    progress: Progress = lambda done, total, known: None,
    bad: BadClip = "error",
) -> Dataset:
    """Store ``dataset`` with the features of ``chosen`` as ``NAME@variant``, beside those that it has of other modalities.

    The clips are extracted in ``workers`` processes; what was extracted before, from the same content in the same way, is read from the
    cache. The card says extractor, settings and libraries. ``bad`` says what becomes of a clip whose file cannot be decoded or shows
    nothing (no face): "error": DataError naming every such clip, nothing is stored, and nothing that was finished is lost; "skip": it
    is left out, as is one without a file to read; "zeros": it is kept with one frame of zeros. The card counts and names them.
    ConfigError for extractors that cannot be used together or not at all.
    """
    name = _check(dataset, chosen, variant)
    clips = _clips(dataset)
    with cache.opened(root) as folder:
        single = [extractor for extractor in chosen if not isinstance(extractor, Collective)]
        taken = _each(single, clips, folder, workers, progress)
        kept = _kept(taken, chosen, clips, bad)
        notices = [*_said(taken, clips, kept, bad), *(note for one in chosen for note in _without_source(one, [clips[i] for i in kept]))]
        dataset, clips = _part(dataset, kept), [clips[i] for i in kept]
        features: dict[str, Frames] = {name: entries.at(kept) for name, entries in taken.features.items()}
        notes: dict[str, str] = {extractor.modality: extractor.described() for extractor in chosen}
        for extractor in chosen:
            if isinstance(extractor, Collective):
                gathered = _together(extractor, clips, root / ".cache" / extractor.modality)
                features[extractor.modality] = gathered.features
                notes |= gathered.notes
        whole = _with(dataset, name, features, notes, notices)
        return store.save(examined(whole, facts(dataset.card.dataset)), root)


def _check(dataset: Dataset, chosen: Sequence[Extractor], variant: str) -> str:
    """The new data set's name, if all can be extracted."""
    if dataset.card.simulated:
        raise DataError(
            f"{dataset.card.name} is simulated: it has no media and no transcripts",
            f"Import the real one first: harness data import {dataset.card.dataset} FILE.",
        )
    modalities = [extractor.modality for extractor in chosen]
    if not chosen or len(set(modalities)) < len(modalities):
        raise ConfigError(
            f"extractors given: {', '.join(f'{one.name} ({one.modality})' for one in chosen) or 'none'}",
            "Give one per modality, at least one.",
        )
    name = f"{dataset.card.dataset}@{variant}"
    if variant == "simulated" or not store.NAME.fullmatch(name):
        raise ConfigError(f"'{variant}' cannot be the name of a variant", "Use letters, digits and . _ + -; 'simulated' is taken.")
    for extractor in chosen:
        extractor.recipe()  # a library that is missing is said once, before any work
    return name


def _clips(dataset: Dataset) -> list[Clip]:
    columns = (dataset.clips["id"], dataset.clips["text"], dataset.media("audio"), dataset.media("video"))
    return [Clip(*row) for row in zip(*columns, strict=True)]


def _sources(extractor: Extractor, clips: Sequence[Clip]) -> list[Path | str | None]:
    """Each clip's source; DataError if no clip has one."""
    found = [extractor.source(clip) for clip in clips]
    if any(source is not None for source in found):
        return found
    lacking = extractor.wants or {"text": "transcript", "audio": "sound or film", "video": "film"}[extractor.reads]
    raise DataError(
        f"no clip has a {lacking}, which the extractor '{extractor.name}' reads",
        "Import the data set again from its folder of media, or from a manifest that names them.",
    )


def _without_source(extractor: Extractor, clips: Sequence[Clip]) -> Iterator[str]:
    count = sum(extractor.source(clip) is None for clip in clips)
    if count:
        yield f"{count} of {len(clips)} clips have no {extractor.wants or extractor.reads} for {extractor.name}"


def _together(extractor: Collective, clips: Sequence[Clip], folder: Path) -> Gathered:
    return extractor.gather([str(source or "") for source in _sources(extractor, clips)], folder)


@dataclass(frozen=True)
class _Taken:
    """What the extractors of single clips gave: features by modality, and by clip's number what is wrong with it.

    ``tasks``: how many files were asked for.
    """

    tasks: int
    features: dict[str, _Entries] = field(default_factory=dict)
    faults: dict[int, list[str]] = field(default_factory=dict)


def _each(chosen: Sequence[Extractor], clips: Sequence[Clip], folder: Path, workers: int, progress: Progress) -> _Taken:
    """Features of every extractor that takes one clip at a time, all from one pool of workers."""
    sources = {extractor: _sources(extractor, clips) for extractor in chosen}
    shelves = {extractor: cache.shelf(folder, extractor) for extractor in chosen}
    wanted = [(extractor, number, source) for extractor in chosen for number, source in enumerate(sources[extractor]) if source is not None]
    tasks = [Task(clips[number].id, extractor, source, shelves[extractor]) for extractor, number, source in wanted]
    places: dict[Extractor, list[Path | None]] = {extractor: [None] * len(clips) for extractor in chosen}
    taken = _Taken(len(tasks))
    for (extractor, number, source), result in zip(wanted, _results(tasks, workers, progress), strict=True):
        fault = result.fault or _emptiness(extractor, source, result)
        if fault:
            taken.faults.setdefault(number, []).append(f"{clips[number].id} ({extractor.name}): {fault}")
        places[extractor][number] = None if result.fault else result.entry
    for extractor in chosen:
        if any(places[extractor]):
            taken.features[extractor.modality] = _entries(places[extractor])
    return taken


def _emptiness(extractor: Extractor, source: Path | str, result: Result) -> str:
    """What a media file without any frame of features lacks; empty where all is well. A transcript may well hold no word."""
    assert result.entry is not None
    if extractor.reads == "text" or not cache.empty(result.entry):
        return ""
    return f"{source}: {extractor.nothing}"


def _results(tasks: Sequence[Task], workers: int, progress: Progress) -> list[Result]:
    """Results of all tasks."""
    seen: list[Result] = []

    def listen(result: Result) -> None:
        seen.append(result)
        progress(len(seen), len(tasks), sum(one.known for one in seen))

    try:
        return run(tasks, workers, listen)
    except KeyboardInterrupt:
        done = f"stopped; {len(seen)} of {len(tasks)} clips are kept"
        raise Stopped(done, "The same command continues where this one stopped.") from None


def _kept(taken: _Taken, chosen: Sequence[Extractor], clips: Sequence[Clip], bad: BadClip) -> list[int]:
    """Numbers of the clips that the new data set has; DataError where faults end the extraction."""
    faults = [f"  {fault}" for number in sorted(taken.faults) for fault in taken.faults[number]]
    alone = [extractor for extractor in chosen if not isinstance(extractor, Collective)]
    without = {number for extractor in alone for number, clip in enumerate(clips) if extractor.source(clip) is None}
    kept = [number for number in range(len(clips)) if bad != "skip" or not (number in taken.faults or number in without)]
    if (faults and bad == "error") or not kept or {extractor.modality for extractor in alone} - set(taken.features):
        left = taken.tasks - len(faults)
        raise DataError(
            f"{len(faults)} of {taken.tasks} clips cannot be extracted:\n" + "\n".join(faults),
            f"Replace these files, or leave the clips out with --on-bad-clip skip. The other {left} are kept.",
        )
    return kept


def _said(taken: _Taken, clips: Sequence[Clip], kept: Sequence[int], bad: BadClip) -> Iterator[str]:
    """What the card says of bad clips; of a file its name only."""
    left = sorted(set(range(len(clips))) - set(kept)) if bad == "skip" else sorted(taken.faults)
    if not left:
        return
    folders = {str(path.parent) + os.sep for number in left for path in (clips[number].audio, clips[number].video) if path is not None}
    words = [fault for number in left for fault in taken.faults.get(number, [f"{clips[number].id}: no file to read"])]
    for folder in sorted(folders, key=len, reverse=True):
        words = [word.replace(folder, "") for word in words]
    more = f"; and {len(words) - NAMED} more" if len(words) > NAMED else ""
    what = "were left out" if bad == "skip" else "have a frame of zeros instead of what could not be extracted"
    yield f"{len(left)} of {len(clips)} clips {what} (--on-bad-clip {bad}): {'; '.join(words[:NAMED])}{more}"


def _part(dataset: Dataset, rows: Sequence[int]) -> Dataset:
    """The clips at ``rows`` alone, in this order."""
    if len(rows) == len(dataset):
        return dataset
    index = torch.tensor(rows)
    features = {name: ragged.only(index) for name, ragged in dataset.features.items()}
    return replace(dataset, clips=dataset.clips.iloc[list(rows)].reset_index(drop=True), features=features)


def _entries(places: Sequence[Path | None]) -> _Entries:
    first = cache.fetch(next(place for place in places if place is not None))
    return (_ByteEntries if first.dtype == np.uint8 else _Entries)(places, int(first.shape[1]))


@dataclass(frozen=True)
class _Entries(Sequence[np.ndarray]):
    """Clips' features that are read from the cache when looked at, so that only the assembled array takes memory."""

    places: Sequence[Path | None]
    width: int

    def __len__(self) -> int:
        return len(self.places)

    def at(self, rows: Sequence[int]) -> _Entries:
        """Those of the clips at ``rows``."""
        return replace(self, places=[self.places[row] for row in rows])

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[np.ndarray]: ...
    def __getitem__(self, index: int | slice) -> np.ndarray | Sequence[np.ndarray]:
        if isinstance(index, slice):
            return [self._read(place) for place in self.places[index]]
        return self._read(self.places[index])

    def _read(self, place: Path | None) -> np.ndarray:
        return np.zeros((0, self.width), dtype=np.float32) if place is None else cache.fetch(place)


class _ByteEntries(_Entries, Bytes):
    """The same, of bytes."""


def _with(dataset: Dataset, name: str, new: Mapping[str, Frames], notes: Mapping[str, str], notices: Sequence[str]) -> Dataset:
    """``dataset`` under another name with features added or replaced; what its card says of the others stays."""
    old = dataset.card
    source = old.source.model_copy(update={"notes": {**old.source.notes, **notes}})
    whole = assemble(
        name=name,
        facts=facts(old.dataset),
        clips=dataset.clips,
        features={**dataset.features, **new},
        source=source,
        media_root=dataset.media_root,
        notices=[*old.warnings, *notices],
    )
    return replace(whole, card=_keeping(whole.card, old, new))


def _keeping(card: Card, old: Card, new: Mapping[str, Frames]) -> Card:
    """``card`` with what was counted when the untouched modalities were imported."""
    counts = ("nonfinite_replaced", "empty_clips")
    untouched = {
        modality: card.modalities[modality].model_copy(update={key: getattr(facts, key) for key in counts})
        for modality, facts in old.modalities.items()
        if modality not in new
    }
    return card.model_copy(update={"modalities": {**card.modalities, **untouched}})
