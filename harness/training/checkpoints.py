"""Checkpoints: one file per unfinished trial, replaced whole, read without running code."""

from __future__ import annotations

import hashlib
import io
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from harness.files import write_atomic

DIGEST = hashlib.sha256().digest_size


class Checkpoint:
    """The file that one trial may resume from: a SHA-256, then what ``torch.save`` writes.

    ``every`` is the least time in seconds between two writes. ``fault`` says what ``read`` found wrong, or is empty.
    """

    def __init__(self, path: Path, every: float = 60.0) -> None:
        self.path = path
        self.every = every
        self.fault = ""
        self._last = time.monotonic()

    def read(self) -> dict[str, Any] | None:
        """The stored state, or None where there is none or where it is damaged: it is set aside, and the trial starts anew."""
        try:
            raw = memoryview(self.path.read_bytes())
            if hashlib.sha256(raw[DIGEST:]).digest() != raw[:DIGEST]:  # torch.load does not notice a changed number
                raise ValueError("the content does not match its checksum")
            state: dict[str, Any] = torch.load(io.BytesIO(raw[DIGEST:]), weights_only=True, map_location="cpu")
        except FileNotFoundError:
            return None
        except Exception as error:  # a damaged checkpoint must never stop a trial that can be trained from its start
            self._set_aside(str(error).partition("\n")[0])
            return None
        return state

    def _set_aside(self, why: str) -> None:
        place = self.path.with_name(f"{self.path.name}.damaged")
        with suppress(OSError):
            os.replace(self.path, place)
        self.fault = f"its checkpoint is damaged ({why}) and was set aside as {place}; the trial starts anew"

    def due(self) -> bool:
        return time.monotonic() - self._last >= self.every

    def write(self, state: dict[str, Any]) -> None:
        """Replace the file. Raises OSError (a full disk): the caller decides that training goes on."""
        buffer = io.BytesIO()
        buffer.write(bytes(DIGEST))
        torch.save(state, buffer)
        raw = buffer.getbuffer()  # no copy: a state may be what a worker holds most of
        raw[:DIGEST] = hashlib.sha256(raw[DIGEST:]).digest()
        write_atomic(self.path, raw)
        self._last = time.monotonic()

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
