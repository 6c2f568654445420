"""The results folder: where records, checkpoints, tables and the tracking store lie, and who may write there."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TextIO

from harness.errors import HarnessError
from harness.experiments.interrupts import undisturbed
from harness.experiments.records import RecordStore
from harness.files import results_root

BALLAST_BYTES = 8 * 2**20  # room for the records of all running trials, kept free of charge until the disk is full


class DiskFull(HarnessError):
    """The disk filled up; what was finished has been written into the reserve."""


@dataclass(frozen=True)
class Workspace:
    """The results folder, ``$MER_RESULTS`` or ``./results``."""

    root: Path

    @classmethod
    def default(cls) -> Workspace:
        return cls(results_root())

    @cached_property
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
    def database(self) -> Path:
        """MLflow's own store, where nothing else is asked for."""
        return self.root / "mlflow.db"

    @property
    def tracking_uri(self) -> str:
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.database}"

    @property
    def name(self) -> str:
        """This folder on this machine, as 12 hexadecimal digits that give neither away."""
        return hashlib.sha256(f"{platform.node()} {self.root}".encode()).hexdigest()[:12]

    def checkpoint(self, key: str) -> Path:
        return self.root / "checkpoints" / f"{key}.pt"

    @contextmanager
    def writing(self) -> Iterator[Reserve]:
        """The right to write here: one process at a time. HarnessError where another one has it or nothing can be written."""
        with self._lock_file() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise HarnessError(
                    f"another harness process{_holder(lock)} is writing to {self.root}",
                    "Wait for it, or set MER_RESULTS to another folder.",
                ) from None
            _sign(lock)
            with Reserve(self.root / ".reserve") as reserve:
                yield reserve

    def _lock_file(self) -> TextIO:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            for folder in (self.store.root, self.tables, self.pending, self.root / "checkpoints"):
                if folder.exists() and not os.access(folder, os.W_OK | os.X_OK):
                    raise PermissionError(errno.EACCES, f"no permission to write in {folder.name}")
            return open(self.root / ".lock", "a+")
        except OSError as error:
            raise HarnessError(
                f"{self.root} cannot be written: {error.strerror}", "Free space or set MER_RESULTS to another folder."
            ) from None


def _sign(lock: TextIO) -> None:
    """Say who holds the lock, for the message that another process gets."""
    with suppress(OSError):  # a full disk: the lock is held all the same
        lock.truncate(0)
        lock.write(f"pid {os.getpid()} on {platform.node()} since {datetime.now(UTC).isoformat(timespec='seconds')}\n")
        lock.flush()


def _holder(lock: TextIO) -> str:
    lock.seek(0)
    holder = lock.read().strip()
    return f" ({holder})" if holder else ""


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
        """Call ``write``, whole even under Ctrl-C; on a full disk give the reserve back, write again, and raise DiskFull."""
        with undisturbed():
            self._protect(write, what)

    def _protect(self, write: Callable[[], None], what: str) -> None:
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
