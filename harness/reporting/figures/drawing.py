"""A figure that is still to be drawn, and the figures of a results folder as files: what has not changed is not drawn again."""

from __future__ import annotations

import gc
import hashlib
import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field, fields, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.experiments.interrupts import unheard
from harness.files import read_sealed, write_atomic, write_sealed
from harness.reporting.figures import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


YIELDING = 5  # niceness: figures take what computing leaves of the cores, which they wait for


@dataclass(frozen=True)
class Drawing:
    """A function of this package and its arguments: numbers, texts, arrays, dataclasses, and lists and mappings of them."""

    function: Callable[..., Figure]
    arguments: tuple[Any, ...]

    def figure(self) -> Figure:
        return self.function(*self.arguments)

    @property
    def content(self) -> str:
        """A hash of all that the figure is drawn from; equal numbers give equal hashes, whatever objects hold them."""
        named = [self.function.__module__, self.function.__qualname__]
        return hashlib.sha256(json.dumps([*named, self.arguments], default=_plain).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """What JSON does not know; TypeError for anything that is no argument of a figure."""
    if isinstance(value, np.ndarray | np.generic):
        return [str(value.dtype), value.tolist()]
    if is_dataclass(value) and not isinstance(value, type):
        return [type(value).__qualname__, {one.name: getattr(value, one.name) for one in fields(value)}]
    raise TypeError(f"a figure cannot be drawn from {type(value).__qualname__}")


@dataclass
class FigureFiles:
    """Figures below the results folder ``root`` in ``formats``, drawn by ``workers`` other processes, or at once where there are none.

    Beside them, in ``root/page/drawn``, stands what each was drawn from and the hashes of its files: one that was drawn from the
    same content by the same code is kept, if its files are what they were. ``code``: the state of the code.
    """

    root: Path
    formats: Sequence[str]
    code: str
    workers: int = 0
    _waiting: list[Future[None]] = field(default_factory=list, init=False)
    _pool: ProcessPoolExecutor | None = field(default=None, init=False)

    def want(self, stem: str, drawing: Drawing) -> None:
        """See to it that the files of ``stem`` show ``drawing``, at the latest when ``finish`` returns; until then they are not there.

        ConfigError where matplotlib is not installed.
        """
        style.require()
        content = f"{drawing.content} {self.code} {version('matplotlib')}"
        if _kept(self.root, stem, self.formats, content):
            return
        for path in _paths(self.root, stem, self.formats):
            path.unlink(missing_ok=True)  # whatever happens from here on, no old figure stands for the new one
        if self.workers:
            with unheard():
                self._waiting.append(self._started().submit(_draw_and_clear, self.root, stem, self.formats, drawing, content))
        else:
            _draw(self.root, stem, self.formats, drawing, content)

    def finish(self) -> None:
        """Wait until all figures are drawn, and end the processes. Raises what the first one that failed raised: OSError on a full disk."""
        try:
            for future in self._waiting:
                future.result()
        finally:
            self.close()

    def close(self) -> None:
        """End the processes after the figures they have in hand; the others stay undrawn."""
        self._waiting.clear()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            spawn = multiprocessing.get_context("spawn")  # this process has threads, of which a forked one would know nothing
            self._pool = ProcessPoolExecutor(self.workers, mp_context=spawn, initializer=_prepare)
        return self._pool


def _prepare() -> None:
    """Of a process that draws. Ctrl-C reaches every process of a terminal; the parent ends the others.

    A figure is tens of thousands of objects that refer to each other: to look for garbage while one is made takes a
    quarter of the time and finds none.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "nice"):
        os.nice(YIELDING)
    import matplotlib.figure  # noqa: F401

    gc.freeze()
    gc.disable()


def _draw_and_clear(root: Path, stem: str, formats: Sequence[str], drawing: Drawing, content: str) -> None:
    _draw(root, stem, formats, drawing, content)
    gc.collect()


def _draw(root: Path, stem: str, formats: Sequence[str], drawing: Drawing, content: str) -> None:
    figure = drawing.figure()
    encoded = {kind: style.encoded(figure, kind) for kind in formats}
    for path, written in zip(_paths(root, stem, formats), encoded.values(), strict=True):
        write_atomic(path, written)
    hashes = {kind: hashlib.sha256(written).hexdigest() for kind, written in encoded.items()}
    write_sealed(_place(root, stem), json.dumps({"content": content, "files": hashes}).encode())


def _kept(root: Path, stem: str, formats: Sequence[str], content: str) -> bool:
    """Whether the files of ``stem`` are those that were drawn from ``content``."""
    try:
        known = json.loads(read_sealed(_place(root, stem)))
        files = zip(formats, _paths(root, stem, formats), strict=True)
        return bool(known["content"] == content) and all(
            known["files"][kind] == hashlib.sha256(path.read_bytes()).hexdigest() for kind, path in files
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _place(root: Path, stem: str) -> Path:
    return root / "page" / "drawn" / f"{Path(stem).name}.json"


def _paths(root: Path, stem: str, formats: Sequence[str]) -> Iterator[Path]:
    yield from (root / f"{stem}.{kind}" for kind in formats)
