"""The results folder: where records, checkpoints, tables and the tracking store lie, and who may write there."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError
from harness.experiments.records import RecordStore

BALLAST_BYTES = 8 * 2**20  # room for the records of all running trials, kept free of charge until the disk is full


class DiskFull(HarnessError):
    """The disk filled up; what was finished has been written into the reserve."""


@dataclass(frozen=True)
class Workspace:
    """The results folder, ``$MER_RESULTS`` or ``./results``."""

    root: Path

    @classmethod
    def default(cls) -> Workspace:
        return cls(Path(os.environ.get("MER_RESULTS", "results")).resolve())

    @property
    def store(self) -> RecordStore:
        return RecordStore(self.root / "records")

    @property
    def tables(self) -> Path:
        return self.root / "tables"

    @property
    def pending(self) -> Path:
        """Records that MLflow has not got yet."""
        return self.root / "pending"

    @property
    def tracking_uri(self) -> str:
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.root / 'mlflow.db'}"

    def checkpoint(self, key: str) -> Path:
        return self.root / "checkpoints" / f"{key}.pt"

    @contextmanager
    def writing(self) -> Iterator[Reserve]:
        """The right to write here: one process at a time. HarnessError where another one has it or nothing can be written."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = open(self.root / ".lock", "a+")  # noqa: SIM115  closed below, after the lock's whole life
        except OSError as error:
            raise HarnessError(
                f"{self.root} cannot be written: {error.strerror}", "Free space or set MER_RESULTS to another folder."
            ) from None
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise HarnessError(
                    f"another harness process is writing to {self.root}", "Wait for it, or set MER_RESULTS to another folder."
                ) from None
            with Reserve(self.root / ".reserve") as reserve:
                yield reserve


class Reserve:
    """Disk space set aside at the start, given back when the disk is full, so that finished trials can still be stored."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Reserve:
        try:
            with open(self.path, "wb") as file:
                file.write(b"\0" * BALLAST_BYTES)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            self.path.unlink(missing_ok=True)
            raise HarnessError(
                f"{self.path.parent} cannot take {BALLAST_BYTES // 2**20} MB: {error.strerror}",
                "Free space, or set MER_RESULTS to a folder on another disk. Nothing was started.",
            ) from None
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self.path.unlink(missing_ok=True)

    def protect(self, write: Callable[[], None], what: str) -> None:
        """Call ``write``; on a full disk give the reserve back, write again, and raise DiskFull to end the run."""
        try:
            write()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise HarnessError(
                    f"{what} could not be written to {error.filename}: {error.strerror}", "Check the folder's permissions."
                ) from None
            self.path.unlink(missing_ok=True)
            self._again(write, what)
            raise DiskFull(
                f"the disk of {self.path.parent} is full; {what} was still stored, no finished result is lost",
                "Free space and type the same command again: it continues where it stopped.",
            ) from None

    def _again(self, write: Callable[[], None], what: str) -> None:
        try:
            write()
        except OSError as error:
            raise DiskFull(
                f"the disk of {self.path.parent} is full and {what} could not be stored ({error.strerror})",
                "Free space and type the same command again: this trial continues from its last checkpoint.",
            ) from None
