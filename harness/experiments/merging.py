"""Records of several results folders in one. Equal keys must have equal results; where they have not, nothing is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from harness.errors import DataError
from harness.experiments.records import Record, RecordError, RecordStore
from harness.experiments.trials import flatten

Protect = Callable[[Callable[[], None], str], None]
Found = dict[str, dict[str, list[RecordStore]]]  # key -> result -> where it lies, in the order of the stores


@dataclass(frozen=True)
class Conflict:
    """One key, two results or more: the records that disagree, and how the first two differ."""

    key: str
    places: tuple[Path, ...]
    differences: tuple[str, ...]


@dataclass
class Merged:
    """Keys by what became of them; ``damaged`` says of each unreadable record where it lies and what is wrong."""

    added: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        return not (self.conflicts or self.damaged)


def store_of(folder: Path) -> RecordStore:
    """The records in a results folder, or in a folder of records itself; DataError where there are none."""
    for root in (folder / "records", folder):
        store = RecordStore(root)
        if store.keys() or store.failed():
            return store
    raise DataError(f"{folder} holds no records", "Name a results folder: one with records/KEY/record.json.")


def merge(sources: Sequence[RecordStore], target: RecordStore, protect: Protect) -> Merged:
    """Put into ``target`` what it lacks of ``sources``; a result that is in dispute, between any two of them, is not taken.

    What was merged before an interruption is known the next time. ``protect`` wraps what is written.
    """
    merged = Merged()
    found = _survey([target, *sources], merged)
    for key, results in sorted(found.items()):
        stores = [store for places in results.values() for store in places]
        if len(results) > 1:
            merged.conflicts.append(_conflict(key, results))
        elif target not in stores:
            protect(partial(_take, key, stores[0], target, merged), f"the record of trial {key}")
        elif len(stores) > 1:
            merged.known.append(key)
    for key, store in _failures(sources, target):
        protect(partial(_take_failure, key, store, target), "a failure report")
        merged.failures.append(key)
    return merged


def read(store: RecordStore, key: str) -> Record:
    """The record in the folder ``key``; RecordError where it is damaged or another trial's."""
    record = store.get(key)
    if record.key != key:
        raise RecordError(f"{store.path(key)} is the record of another trial, {record.key}", f"Move it to {store.folder(record.key)}.")
    return record


def _survey(stores: Sequence[RecordStore], merged: Merged) -> Found:
    found: Found = {}
    for store in stores:
        for key in store:
            try:
                result = read(store, key).result
            except RecordError as error:
                merged.damaged.append(error.problem)
            else:
                found.setdefault(key, {}).setdefault(result, []).append(store)
    return found


def _conflict(key: str, results: dict[str, list[RecordStore]]) -> Conflict:
    places = tuple(store.path(key) for stores in results.values() for store in stores)
    first, second = (stores[0].get(key) for stores in list(results.values())[:2])
    return Conflict(key, places, tuple(_differences(first, second)))


def _differences(first: Record, second: Record) -> Iterator[str]:
    """Scores that differ, then what differs between the machines: the usual reason."""
    parts = {"test": lambda record: record.test, "valid": lambda record: record.valid, "environment": _environment}
    for part, read_part in parts.items():
        one, other = (dict(flatten(read_part(record))) for record in (first, second))
        for name in sorted(one.keys() | other.keys()):
            if one.get(name) != other.get(name):
                yield f"{part} {name}: {one.get(name)} and {other.get(name)}"


def _environment(record: Record) -> dict[str, object]:
    return record.environment.model_dump(mode="json")


def _take(key: str, source: RecordStore, target: RecordStore, merged: Merged) -> None:
    if key in target:  # damaged there, else it would be known
        target.set_aside(key)
        merged.replaced.append(key)
    target.adopt(key, source)
    merged.added.append(key)


def _failures(sources: Sequence[RecordStore], target: RecordStore) -> Iterator[tuple[str, RecordStore]]:
    """Failures of trials that have neither a record nor a failure in ``target``, the first of each."""
    seen: set[str] = set()
    for store in sources:
        for key in store.failed():
            if key not in seen and key not in target and target.failure(key) is None and store.failure(key):
                seen.add(key)
                yield key, store


def _take_failure(key: str, source: RecordStore, target: RecordStore) -> None:
    failure = source.failure(key)
    if failure:
        target.put_failure(failure)
