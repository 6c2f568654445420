"""Records: what a finished trial leaves behind, immutable, complete, and checked when read.

``<root>/<key>/record.json`` holds everything that reruns reproduce bit by bit; ``runtime.json`` beside it holds times
and memory; ``failure.json`` says why a trial has no record. ``diagnosis.json`` is there where one was asked for: it is no
part of the record, and no table reads it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
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
    reason: Literal["diverged", "error", "died", "timeout"]
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

    def folder(self, key: str) -> Path:
        return self.root / key

    def __contains__(self, key: str) -> bool:
        return (self.folder(key) / "record.json").exists()

    def get(self, key: str) -> Record:
        """The record of ``key``; RecordError where it is damaged or its content does not match its checksum."""
        path = self.folder(key) / "record.json"
        try:
            content = json.loads(path.read_bytes())
            stated = content.pop("checksum")
            if stated != _checksum(content):
                raise RecordError(f"{path}: the content does not match its checksum", f"Delete {path.parent} to run this trial again.")
            return Record.model_validate(content)
        except (ValueError, KeyError, AttributeError) as error:
            raise RecordError(f"{path} is damaged: {error}", f"Delete {path.parent} to run this trial again.") from None

    def runtime(self, key: str) -> Runtime | None:
        """Times and memory of ``key``, or None where they were lost: no number depends on them."""
        return _read(self.folder(key) / "runtime.json", Runtime)

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
        write_atomic(folder / "record.json", _encode({**content, "checksum": _checksum(content)}))
        (folder / "failure.json").unlink(missing_ok=True)

    def put_failure(self, failure: Failure) -> None:
        write_atomic(self.folder(failure.identity.key) / "failure.json", _encode(failure.model_dump(mode="json")))

    def keys(self) -> list[str]:
        """Keys of all finished trials, sorted."""
        return sorted(path.parent.name for path in self.root.glob("*/record.json"))

    def records(self) -> Iterator[Record]:
        return map(self.get, self.keys())


def _read(path: Path, kind: type[Stored]) -> Stored | None:
    try:
        return kind.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _encode(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(_encode(content)).hexdigest()
