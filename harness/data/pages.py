"""Arrays that are read from a mapped file, whose pages a process does not hold longer than it needs them."""

from __future__ import annotations

import json
import mmap
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

HELD = 1 << 24  # bytes that a process may have mapped before it lets go of them; they stay in the system's cache, ready to be mapped
AROUND = 1 << 19  # bytes that Linux may map for each place that is read, beside those that are


class Pages:
    """A file mapped into memory. Copies are the same object; in another process there is none.

    The mapping is private: a write into an array of it never reaches the file, and is lost with the next ``touched``.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self.memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        self.read = 0

    def touched(self, count: int, places: int) -> None:
        """Note that ``count`` bytes were copied out, from so many places; from time to time, let go of all pages.

        They would be counted to every worker that reads the data, and pressed out of memory last of all. To map them again takes
        microseconds while the system still has them.
        """
        self.read += count + AROUND * places
        if self.read > HELD:
            self.read = 0
            if hasattr(mmap, "MADV_DONTNEED"):
                self.memory.madvise(mmap.MADV_DONTNEED)

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return _nothing, ()

    def __deepcopy__(self, memo: object) -> Pages:
        return self


def _nothing() -> None: ...


def mapped(path: Path) -> tuple[dict[str, Tensor], Pages]:
    """The arrays of a safetensors file, and the pages that they lie in. Raises SafetensorError where the file is none, or damaged."""
    with safe_open(path, framework="pt") as file:  # checks header, sizes and dtypes
        names = list(file.keys())
        dtypes = {name: file.get_tensor(name).dtype for name in names}
    pages = Pages(path)
    begin = 8 + int.from_bytes(pages.memory[:8], "little")
    header = json.loads(pages.memory[8:begin])
    return {name: _array(pages, begin, header[name], dtypes[name]) for name in names}, pages


def _array(pages: Pages, begin: int, entry: dict[str, list[int]], dtype: torch.dtype) -> Tensor:
    first, end = entry["data_offsets"]
    count = (end - first) // dtype.itemsize
    if not count:
        return torch.empty(entry["shape"], dtype=dtype)
    return torch.frombuffer(pages.memory, dtype=dtype, count=count, offset=begin + first).view(entry["shape"])
