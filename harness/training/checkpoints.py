"""Checkpoints: one file per unfinished trial, replaced whole, read without running code."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import torch

from harness.files import write_atomic


class Checkpoint:
    """The file that one trial may resume from. ``every`` is the least time in seconds between two writes."""

    def __init__(self, path: Path, every: float = 60.0) -> None:
        self.path = path
        self.every = every
        self._last = time.monotonic()

    def read(self) -> dict[str, Any] | None:
        """The stored state, or None where there is none or where it cannot be read: the trial then starts anew."""
        try:
            state: dict[str, Any] = torch.load(self.path, weights_only=True, map_location="cpu")
        except Exception:  # a damaged checkpoint must never stop a trial that can be trained from its start
            return None
        return state

    def due(self) -> bool:
        return time.monotonic() - self._last >= self.every

    def write(self, state: dict[str, Any]) -> None:
        """Replace the file. Raises OSError (a full disk): the caller decides that training goes on."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomic(self.path, buffer.getvalue())
        self._last = time.monotonic()

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
