"""Files that are whole or absent: written beside their place, synced, renamed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def results_root() -> Path:
    """The results folder: ``$MER_RESULTS`` or ``./results``."""
    return Path(os.environ.get("MER_RESULTS", "results")).resolve()


def write_atomic(path: Path, content: bytes | memoryview) -> None:
    """Write ``content`` to ``path`` so that a crash leaves the old file or the new one, never a part.

    Raises OSError (a full disk, say); the temporary file is then removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")  # one name: what a killed process left is replaced, not kept
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_sealed(path: Path, content: bytes, code: str = "") -> None:
    """``write_atomic`` below a line that vouches for ``content``, and for the state ``code`` of what made it."""
    write_atomic(path, _seal(content, code) + b"\n" + content)


def read_sealed(path: Path, code: str = "") -> bytes:
    """What ``write_sealed`` wrote with this ``code``; ValueError where another one did or it was changed since, OSError for no file."""
    head, _, content = path.read_bytes().partition(b"\n")
    if head != _seal(content, code):
        raise ValueError(f"{path} is damaged, or of another state of the code")
    return content


def _seal(content: bytes, code: str) -> bytes:
    return hashlib.sha256(code.encode() + b"\n" + content).hexdigest().encode()


def sync_folder(folder: Path) -> None:
    """Make renames inside ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
