"""From a stored data set and extractors to a new variant of it that has their features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

import numpy as np

from harness.data import store
from harness.data.assemble import Frames, assemble
from harness.data.catalogue import facts
from harness.data.checks import examined
from harness.data.features import cache
from harness.data.features.base import Clip, Collective, Extractor, Gathered
from harness.data.features.pool import Result, Task, run
from harness.data.schema import Card, Dataset
from harness.errors import ConfigError, DataError, Stopped

Progress = Callable[[int, int, int], None]  # clips done, clips in all, of those done: found in the cache


def extract_features(
    dataset: Dataset,
    chosen: Sequence[Extractor],
    *,
    variant: str,
    root: Path,
    workers: int = 1,
    progress: Progress = lambda done, total, known: None,
) -> Dataset:
    """Store ``dataset`` with the features of ``chosen`` as ``NAME@variant``, beside those that it has of other modalities.

    The clips are extracted in ``workers`` processes; what was extracted before, from the same content in the same way, is read from the
    cache. The card says extractor, settings and libraries. DataError naming every clip whose file cannot be used: nothing is stored
    then, and nothing that was finished is lost. ConfigError for extractors that cannot be used together or not at all.
    """
    name = _check(dataset, chosen, variant)
    clips = _clips(dataset)
    with cache.opened(root) as folder:
        single = [extractor for extractor in chosen if not isinstance(extractor, Collective)]
        features: dict[str, Frames] = dict(_each(single, clips, folder, workers, progress))
        notes: dict[str, str] = {extractor.modality: extractor.described() for extractor in chosen}
        for extractor in chosen:
            if isinstance(extractor, Collective):
                gathered = _together(extractor, clips, root / ".cache" / extractor.modality)
                features[extractor.modality] = gathered.features
                notes |= gathered.notes
        whole = _with(dataset, name, features, notes, [note for one in chosen for note in _without_source(one, clips)])
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


def _each(
    chosen: Sequence[Extractor], clips: Sequence[Clip], folder: Path, workers: int, progress: Progress
) -> Iterator[tuple[str, Sequence[np.ndarray]]]:
    """Modality and features of every extractor that takes one clip at a time, all from one pool of workers."""
    sources = {extractor: _sources(extractor, clips) for extractor in chosen}
    shelves = {extractor: cache.shelf(folder, extractor) for extractor in chosen}
    tasks = [
        Task(clip.id, extractor, source, shelves[extractor])
        for extractor in chosen
        for clip, source in zip(clips, sources[extractor], strict=True)
        if source is not None
    ]
    results = _results(tasks, workers, progress)
    places = iter(result.entry for result in results)
    for extractor in chosen:
        entries = [None if source is None else next(places) for source in sources[extractor]]
        yield extractor.modality, _Entries(entries, _width(entries))


def _results(tasks: Sequence[Task], workers: int, progress: Progress) -> list[Result]:
    """Results of all tasks; DataError with all that failed."""
    seen: list[Result] = []

    def listen(result: Result) -> None:
        seen.append(result)
        progress(len(seen), len(tasks), sum(one.known for one in seen))

    try:
        results = run(tasks, workers, listen)
    except KeyboardInterrupt:
        done = f"stopped; {len(seen)} of {len(tasks)} clips are kept"
        raise Stopped(done, "The same command continues where this one stopped.") from None
    faults = [f"  {task.clip} ({task.extractor.name}): {result.fault}" for task, result in zip(tasks, results, strict=True) if result.fault]
    if faults:
        raise DataError(
            f"{len(faults)} of {len(tasks)} clips cannot be extracted:\n" + "\n".join(faults),
            f"Replace these files, or take the clips out of the data set. The other {len(tasks) - len(faults)} are kept.",
        )
    return results


def _width(entries: Sequence[Path | None]) -> int:
    first = next(entry for entry in entries if entry is not None)
    return int(cache.fetch(first).shape[1])


@dataclass(frozen=True)
class _Entries(Sequence[np.ndarray]):
    """Clips' features that are read from the cache when looked at, so that only the assembled array takes memory."""

    places: Sequence[Path | None]
    width: int

    def __len__(self) -> int:
        return len(self.places)

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
    untouched = {modality: facts for modality, facts in old.modalities.items() if modality not in new}
    return card.model_copy(update={"modalities": {**card.modalities, **untouched}})
