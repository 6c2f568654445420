"""Records: what a finished trial leaves behind, immutable, complete, and checked when read.

``<root>/<key>/record.json`` holds everything that reruns reproduce bit by bit; ``runtime.json`` beside it holds times
and memory; ``failure.json`` says why a trial has no record; ``record.json.damaged`` is what a faulty disk left of one.
``diagnosis.json`` is there where one was asked for: it is no part of the record, and no table reads it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from pydantic import Field, ValidationError

from harness.data.schema import Frozen
from harness.errors import HarnessError
from harness.experiments.environment import Environment
from harness.experiments.trials import Identity
from harness.files import write_atomic
from harness.training.loop import Epoch

Scores = dict[str, float | None]
DIAGNOSIS = "DIAGNOSIS, NOT A RESULT: scores of epochs that were not chosen by validation"
CHECKSUM = re.compile(rb'"checksum":"([0-9a-f]{64})",')  # as ``put`` writes it: keys are sorted, before it stands no text of a user's
AGAIN = "`harness run` and `harness reproduce` set it aside and run its trial again."


class RecordError(HarnessError):
    """A record that was changed, damaged, or cannot be written."""


class Predictions(Frozen):
    """Test predictions by clip: ``values`` are intensities, or one score per class."""

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    truth: tuple[float, ...]
    values: tuple[float, ...] | tuple[tuple[float, ...], ...]

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Predictions (N,) or (N, classes) and truth (N,), float64."""
        return np.asarray(self.values, dtype=np.float64), np.asarray(self.truth, dtype=np.float64)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all of it."""
        return _checksum(self.model_dump(mode="json"))


class Further(Frozen):
    """The trained model on the test split in another form: the settings that differ, and predictions in the order of the record's."""

    changes: dict[str, float]
    test: Scores
    values: tuple[float, ...] | tuple[tuple[float, ...], ...]


class Record(Frozen):
    """A finished trial."""

    format: Literal[1] = 1
    identity: Identity
    budget: str
    simulated: bool
    environment: Environment
    parameters: int = Field(description="trainable parameters")
    split_hash: str = Field(description="SHA-256 over which clip trained, validated and tested")
    best_epoch: int
    history: tuple[Epoch, ...]
    valid: Scores
    test: Scores
    predictions: Predictions
    further: tuple[Further, ...] = Field((), description="tests of the same trained model with frames missing or modalities weighted")

    @property
    def key(self) -> str:
        return self.identity.key

    @property
    def checksum(self) -> str:
        """SHA-256 of all of it, which its file states."""
        return _checksum(self.model_dump(mode="json"))

    @property
    def result(self) -> str:
        """SHA-256 of what the trial gave: everything but its key, the machine, and the label under which it was run."""
        return _checksum(self.model_dump(mode="json", exclude={"identity", "environment", "budget"}))


class Runtime(Frozen):
    """Times in seconds and memory in MB of the process(es) that made a record; outside its checksum."""

    seconds: float
    epoch_seconds: tuple[float, ...]
    peak_memory_mb: float
    resumed_at: int = 0
    finished: str


class Failure(Frozen):
    """Why a trial has no record."""

    identity: Identity
    budget: str
    reason: Literal["diverged", "error", "memory", "died", "timeout"]
    message: str
    traceback: str = ""


class Diagnosis(Frozen):
    """Test scores after every epoch of a finished trial: ``epochs[e - 1]`` after epoch e, None where a metric is undefined.

    ``predictions``: fingerprint of the record's; ``chosen``: the epoch that validation chose, 0 where nothing was trained.
    """

    format: Literal[1] = 1
    label: str = DIAGNOSIS
    key: str
    predictions: str
    chosen: int
    epochs: tuple[Scores, ...]


Stored = TypeVar("Stored", Record, Failure, Runtime, Diagnosis)


class RecordStore:
    """The folder of records. Only one process writes; files appear whole."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._sound: dict[str, tuple[int, int, int]] = {}  # what was found sound, and the file's state at that time

    def folder(self, key: str) -> Path:
        return self.root / key

    def path(self, key: str) -> Path:
        return self.folder(key) / "record.json"

    def _file(self, key: str, name: str) -> str:
        return os.path.join(self.root, key, name)  # as text: for ten thousand records, paths as objects take a second

    def __contains__(self, key: str) -> bool:
        return os.path.exists(self._file(key, "record.json"))

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def raw(self, key: str) -> bytes:
        """The file of the record of ``key``, unchecked; RecordError where it cannot be read."""
        try:
            with open(self._file(key, "record.json"), "rb") as file:
                return file.read()
        except OSError as error:
            raise RecordError(f"{self.path(key)} is damaged: {error}", AGAIN) from None

    def get(self, key: str) -> Record:
        """The record of ``key``; RecordError where it is damaged or its content does not match its checksum."""
        path, raw = self.path(key), self.raw(key)
        try:
            sound = bare(raw)
            if sound is not None:
                return Record.model_validate_json(sound)
            content = json.loads(raw)
            stated = content.pop("checksum")
            if stated != _checksum(content):
                raise RecordError(f"{path} is damaged: the content does not match its checksum", AGAIN)
            return Record.model_validate(content)
        except ValidationError as error:
            places = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()[:3])
            raise RecordError(f"{path} is of another version of the harness, or no record: {places}", AGAIN) from None
        except (ValueError, KeyError, AttributeError) as error:
            raise RecordError(f"{path} is damaged: {error}", AGAIN) from None

    def sound(self, key: str) -> bool:
        """Whether there is a record of ``key`` whose bytes match its checksum: ten thousand of them in about a second."""
        path = self.path(key)
        try:
            status = path.stat()
            state = (status.st_ino, status.st_size, status.st_mtime_ns)
            if self._sound.get(key) != state:
                if not _matches(path.read_bytes()):
                    self.get(key)  # a record that was laid out anew says the same
                self._sound[key] = state
        except (OSError, RecordError):
            return False
        return True

    def set_aside(self, key: str) -> Path:
        """Rename the record of ``key``, so that its trial counts as not run; where it lies now. Raises OSError."""
        path = self.path(key)
        free = (path.with_name(f"{path.name}.damaged{number or ''}") for number in itertools.count())
        place = next(candidate for candidate in free if not candidate.exists())
        os.replace(path, place)
        return place

    def adopt(self, key: str, other: RecordStore) -> None:
        """Take the record of ``key``, byte by byte, and its times from another store. Raises OSError."""
        runtime = other.folder(key) / "runtime.json"
        if runtime.exists():
            write_atomic(self.folder(key) / "runtime.json", runtime.read_bytes())
        write_atomic(self.path(key), other.path(key).read_bytes())
        (self.folder(key) / "failure.json").unlink(missing_ok=True)

    def runtime(self, key: str) -> Runtime | None:
        """Times and memory of ``key``, or None where they were lost: no number depends on them."""
        return _read(self._file(key, "runtime.json"), Runtime)

    def failure(self, key: str) -> Failure | None:
        return _read(self.folder(key) / "failure.json", Failure)

    def diagnosis(self, key: str) -> Diagnosis | None:
        """The diagnosis of the record of ``key``; None where there is none or where it is one of other predictions."""
        found = _read(self.folder(key) / "diagnosis.json", Diagnosis)
        return found if found and found.key == key and found.predictions == self.get(key).predictions.fingerprint else None

    def put_diagnosis(self, diagnosis: Diagnosis) -> None:
        write_atomic(self.folder(diagnosis.key) / "diagnosis.json", _encode(diagnosis.model_dump(mode="json")))

    def put(self, record: Record, runtime: Runtime) -> None:
        """Store a finished trial; an earlier failure of it is removed. Raises OSError where the disk is full."""
        folder = self.folder(record.key)
        content = record.model_dump(mode="json")
        write_atomic(folder / "runtime.json", _encode(runtime.model_dump(mode="json")))
        write_atomic(self.path(record.key), _encode({**content, "checksum": _checksum(content)}))
        (folder / "failure.json").unlink(missing_ok=True)

    def put_failure(self, failure: Failure) -> None:
        write_atomic(self.folder(failure.identity.key) / "failure.json", _encode(failure.model_dump(mode="json")))

    def keys(self) -> list[str]:
        """Keys of all finished trials, sorted."""
        return sorted(path.parent.name for path in self.root.glob("*/record.json"))

    def failed(self) -> list[str]:
        """Keys of all trials that ended without a record, sorted."""
        return sorted(path.parent.name for path in self.root.glob("*/failure.json"))

    def records(self) -> Iterator[Record]:
        """All records that can be read."""
        for key in self:
            with suppress(RecordError):
                yield self.get(key)


def _read(path: Path | str, kind: type[Stored]) -> Stored | None:
    try:
        with open(path, "rb") as file:
            return kind.model_validate_json(file.read())
    except (OSError, ValidationError):
        return None


def _encode(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(_encode(content)).hexdigest()


def _matches(raw: bytes) -> bool:
    """Whether the file of a record, as ``put`` writes it, has the checksum that it states: no parsing, one pass of SHA-256."""
    return bare(raw) is not None


def bare(raw: bytes) -> bytes | None:
    """A record as it was encoded, without its checksum, if that fits; None where it does not, or is not where ``put`` writes it.

    What is hashed are the bytes themselves: to parse and to encode them again takes most of the time of a large report.
    """
    stated = CHECKSUM.search(raw)
    if stated is None:
        return None
    bare = raw[: stated.start()] + raw[stated.end() :]
    return bare if hashlib.sha256(bare).hexdigest() == stated.group(1).decode() else None
