"""Records as tables read them: everything but the predictions at once, the predictions when somebody asks for them.

Nine tenths of a record are predictions, and a table whose scores and tests are known needs none of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from pydantic_core import from_json

from harness.experiments.environment import Environment
from harness.experiments.records import AGAIN, CHECKSUM, Further, Predictions, Record, RecordError, RecordStore, bare
from harness.experiments.trials import Identity
from harness.training.loop import Epoch

Parsed = TypeVar("Parsed")

NO_PREDICTIONS = b'"predictions":{"groups":[],"ids":[],"truth":[],"values":[]}'


@dataclass(frozen=True, eq=False)
class Predicted:
    """What ``Predictions`` holds, with ``values`` (N,) or (N, classes) as an array; runs on the same clips share the rest.

    ``labels`` (N,): ``truth`` as an array.
    """

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    truth: tuple[float, ...]
    labels: NDArray[np.float64]
    values: NDArray[np.float64]

    def arrays(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Predictions (N,) or (N, classes) and truth (N,), float64."""
        return self.values, self.labels


@dataclass(frozen=True, eq=False)
class Run:
    """A finished trial that is stored under ``key``. ``head``: its record, without predictions where ``raw`` has them;
    ``checksum``: the record's.

    ``raw``: JSON of the predictions and of the further tests, as it was hashed.
    """

    key: str
    head: Record
    checksum: str
    raw: tuple[bytes, bytes] | None = None

    @property
    def identity(self) -> Identity:
        return self.head.identity

    @property
    def environment(self) -> Environment:
        return self.head.environment

    @property
    def simulated(self) -> bool:
        return self.head.simulated

    @property
    def parameters(self) -> int:
        return self.head.parameters

    @property
    def best_epoch(self) -> int:
        return self.head.best_epoch

    @property
    def history(self) -> tuple[Epoch, ...]:
        return self.head.history

    @cached_property
    def predictions(self) -> Predicted | Predictions:
        """RecordError where their bytes, though sound, are no predictions."""
        return self.head.predictions if self.raw is None else self._parsed(_predicted, self.raw[0])

    @cached_property
    def further(self) -> tuple[Further, ...]:
        """RecordError as ``predictions``."""
        return self.head.further if self.raw is None else self._parsed(_further, self.raw[1])

    def _parsed(self, parse: Callable[[bytes], Parsed], raw: bytes) -> Parsed:
        try:
            return parse(raw)
        except (ValueError, TypeError) as error:
            raise RecordError(f"the record {self.key} is damaged: {error}", AGAIN) from None


Finished = Run | Record


def _further(raw: bytes) -> tuple[Further, ...]:
    return tuple(map(Further.model_validate, json.loads(b"[%b]" % raw)))


def _predicted(raw: bytes) -> Predicted:
    """From JSON as it stands between the braces: groups, ids, truth, values."""
    groups, rest = raw.split(b'],"ids":[', 1)
    ids, rest = rest.split(b'],"truth":[', 1)
    truth, values = rest.split(b'],"values":', 1)
    shown = np.asarray(from_json(values), dtype=np.float64)
    return Predicted(_texts(ids), _texts(groups.removeprefix(b'"groups":[')), *_numbers(truth), shown)


@lru_cache(maxsize=256)  # a table's runs test the same clips, fold by fold
def _texts(raw: bytes) -> tuple[str, ...]:
    return tuple(json.loads(b"[%b]" % raw))


@lru_cache(maxsize=256)
def _numbers(raw: bytes) -> tuple[tuple[float, ...], NDArray[np.float64]]:
    labels = np.asarray(json.loads(b"[%b]" % raw), dtype=np.float64)
    labels.flags.writeable = False
    return tuple(labels.tolist()), labels


def read(store: RecordStore, key: str) -> Run:
    """The finished trial ``key``; RecordError as ``RecordStore.get``, whichever part of the record is asked for."""
    found = _cut(key, store.raw(key))
    if found is not None:
        return found
    record = store.get(key)
    return Run(key, record, record.checksum)


def _cut(key: str, raw: bytes) -> Run | None:
    """A record as ``RecordStore.put`` writes it, if its bytes match its checksum; None for any other."""
    sound = bare(raw)
    if sound is None:
        return None
    further = _between(sound, sound.find(b'"further":['), b'"further":[', b'],"history":')
    predictions = _between(sound, sound.rfind(b'"predictions":{'), b'"predictions":{', b'},"simulated":')
    if further is None or predictions is None or predictions[0] < further[1]:
        return None
    (a, b), (c, d) = further, predictions
    head = sound[:a] + sound[b:c].removesuffix(b'"predictions":{') + NO_PREDICTIONS + sound[d + 1 :]
    try:
        return Run(key, Record.model_validate_json(head), _stated(raw), (sound[c:d], sound[a:b]))
    except ValidationError:
        return None


def _between(text: bytes, start: int, opening: bytes, closing: bytes) -> tuple[int, int] | None:
    """Where the text after ``opening``, which stands at ``start``, begins and ends."""
    end = text.find(closing, start + len(opening))
    return None if start < 0 or end < 0 else (start + len(opening), end)


def _stated(raw: bytes) -> str:
    found: Any = CHECKSUM.search(raw)
    return str(found.group(1).decode())
