"""Pickles from strangers, read without running what they ask for.

A pickle names functions and calls them. Here every name is looked up in a short list of our own stand-ins for
NumPy arrays and plain containers; any other name ends the reading. NumPy's own restoring functions are not on the
list, because they trust the pickle too: a dtype whose state clears its object flag would turn bytes into pointers.
A file made for it can still exhaust the stack (tuples nested 100,000 deep) and end the process; it runs nothing.

Large arrays are not read at all: they are views of the file, mapped into memory, so that a file of 4 GB costs what is touched of
it. They are read-only, and the file must not change while they are used.
"""

from __future__ import annotations

import io
import math
import mmap
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from harness.data.opcodes import Scan, scan
from harness.errors import DataError

DTYPE = re.compile(r"[?bBiufcSUaO]\d*")  # numbers, booleans, strings, objects; no records, no dates
ORDERS = ("<", ">", "|", "=")


def unpickle(path: Path) -> Any:
    """The content of the pickle ``path``: containers, numbers, strings and NumPy arrays of these, large ones as views of the file.

    Raises DataError if the file cannot be read, is cut short or damaged, or asks for anything else by name.
    """
    try:
        with open(path, "rb") as file:
            return _load(file, path)
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", "Check the path and its permissions.") from error
    except Exception as error:  # a damaged pickle fails anywhere in the machine, in any way
        raise DataError(
            f"{path} is not a whole pickle: {type(error).__name__}: {error}",
            "The file is cut short, damaged, or no pickle. Compare its size and checksum with the source and fetch it again.",
        ) from error


def release(array: np.ndarray[Any, Any]) -> None:
    """Give back the memory of the pages read so far, if ``array`` is a view of a mapped file; they are read again if touched."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, memoryview) and isinstance(base.obj, mmap.mmap):
        base.obj.madvise(mmap.MADV_DONTNEED)


def _load(file: IO[bytes], path: Path) -> Any:
    data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    found = scan(data)
    if not found.blocks:
        data.close()
        return _Unpickler(file, path).load()
    return _MappingUnpickler(data, found, path).load()


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: IO[bytes], path: Path) -> None:
        super().__init__(file, encoding="latin1")  # arrays pickled by Python 2 keep their bytes in a str
        self._path = path
        self._allowed = ALLOWED

    def find_class(self, module: str, name: str) -> Any:
        stand_in = self._allowed.get((module.replace("numpy.core.", "numpy._core."), name))
        if stand_in is None:
            raise DataError(
                f"{self._path} would run or load '{module}.{name}': refused",
                "Only numbers, strings, containers and NumPy arrays are read from a pickle. A data file needs nothing else: "
                "do not open this one with pickle.load, and ask its source for plain arrays.",
            )
        return stand_in


class _MappingUnpickler(_Unpickler):
    """Reads the pickle without its large blocks, which come as views of the mapped file ``data``."""

    def __init__(self, data: mmap.mmap, found: Scan, path: Path) -> None:
        super().__init__(io.BytesIO(found.without_blocks(data)), path)
        self._allowed = ALLOWED | {("numpy._core.multiarray", "_reconstruct"): _StandIn(_hold)}
        view = memoryview(data)
        self._views = [view[block.start : block.stop] for block in found.blocks]
        self._text = {id(part) for part, block in zip(self._views, found.blocks, strict=True) if block.is_text}

    def persistent_load(self, number: Any) -> memoryview:
        view: memoryview = self._views[number]
        return view

    def load(self) -> Any:
        return self._settled(super().load(), set())

    def _settled(self, value: Any, seen: set[int]) -> Any:
        """``value`` with arrays in the place of their holders, and bytes in that of views outside arrays."""
        if isinstance(value, _Holder):
            return self._settled(value.array, seen)
        if isinstance(value, memoryview):
            return str(value, "latin1") if id(value) in self._text else bytes(value)
        if isinstance(value, tuple):
            parts = [self._settled(part, seen) for part in value]
            return tuple(parts) if any(part is not old for part, old in zip(parts, value, strict=True)) else value
        if isinstance(value, dict | list) and id(value) not in seen:
            seen.add(id(value))
            for key, old in list(value.items() if isinstance(value, dict) else enumerate(value)):
                value[key] = self._settled(old, seen)
        if isinstance(value, np.ndarray) and value.dtype.hasobject and id(value) not in seen:
            seen.add(id(value))
            for place in np.ndindex(value.shape):
                value[place] = self._settled(value[place], seen)
        return value


class _StandIn:
    """What a pickle gets for a name on the list: it can be called, and nothing of it can be set."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("the file tries to change the reader")


class _Dtype:
    """A dtype under restoration: its code, then by ``__setstate__`` its byte order."""

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or not DTYPE.fullmatch(code):
            raise ValueError(f"dtype {code!r}: only numbers, strings and objects are read")
        self.code, self.order = code, "="

    def __setstate__(self, state: Any) -> None:
        _, order, *parts = state
        if order not in ORDERS or any(part is not None for part in parts[:3]):
            raise ValueError(f"dtype {self.code}: state {state!r} is not that of a plain dtype")
        self.order = order

    def numpy(self) -> np.dtype[Any]:
        return np.dtype(self.code if self.code.startswith("O") else self.order + self.code)


class _Array(np.ndarray[Any, Any]):
    """An array that checks the state it is restored from before NumPy sees it."""

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        plain, size = dtype.numpy(), _size(shape)
        data = data.encode("latin1") if isinstance(data, str) else data
        if not isinstance(data, list if plain.hasobject else bytes) or len(data) != size * (1 if plain.hasobject else plain.itemsize):
            raise ValueError(f"array of shape {shape}, dtype {plain}: its data do not fill it")
        checked: Any = (1, shape, plain, bool(fortran), data)
        super().__setstate__(checked)


class _Holder:
    """An array under restoration whose memory is set once, to a part of the mapped file or to memory of its own."""

    array: np.ndarray[Any, Any]

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        if isinstance(data, memoryview):
            array = _from_buffer(data, dtype, shape, "F" if fortran else "C")
            self.array = array.astype(array.dtype.newbyteorder("="), copy=False)  # NumPy too restores to the machine's byte order
        else:
            self.array = _Array((0,), np.uint8)
            self.array.__setstate__(state)


def _size(shape: Any) -> int:
    if not isinstance(shape, tuple) or not all(type(length) is int and length >= 0 for length in shape):
        raise ValueError(f"array shape {shape!r}")
    return math.prod(shape)


def _reconstruct(kind: Any, *_: Any) -> _Array:
    if kind is not NDARRAY:
        raise ValueError("only plain arrays are restored, no subclass")
    return _Array((0,), np.uint8)


def _hold(kind: Any, *_: Any) -> _Holder:
    if kind is not NDARRAY:
        raise ValueError("only plain arrays are restored, no subclass")
    return _Holder()


def _plain(dtype: Any) -> np.dtype[Any]:
    plain: np.dtype[Any] = dtype.numpy()
    if plain.hasobject:
        raise ValueError("objects cannot be restored from bytes")
    return plain


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any = "C") -> np.ndarray[Any, Any]:
    plain, size = _plain(dtype), _size(shape)
    if len(data) != size * plain.itemsize:
        raise ValueError(f"array of shape {shape}, dtype {plain}: its data do not fill it")
    return (np.frombuffer(data, plain) if size else np.empty(0, plain)).reshape(shape, order=order)


def _scalar(dtype: Any, data: Any = b"") -> Any:
    plain = _plain(dtype)
    return np.frombuffer(data.encode("latin1") if isinstance(data, str) else data, plain)[0] if plain.itemsize else plain.type()


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """How protocols 0 to 2 spell bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"bytes encoded as {encoding!r}")
    return text.encode("latin1")


def _empty_bytes() -> bytes:
    return b""


def _refuse(*_: Any) -> None:
    raise ValueError("an array is not restored this way")


NDARRAY = _StandIn(_refuse)
CONTAINERS: dict[str, Callable[..., Any]] = {
    "list": list, "dict": dict, "tuple": tuple, "set": set, "frozenset": frozenset, "complex": complex, "bytes": _empty_bytes
}  # fmt: skip
ALLOWED: dict[tuple[str, str], _StandIn] = {
    ("numpy", "ndarray"): NDARRAY,
    ("numpy", "dtype"): _StandIn(_Dtype),
    ("numpy._core.multiarray", "_reconstruct"): _StandIn(_reconstruct),
    ("numpy._core.multiarray", "scalar"): _StandIn(_scalar),
    ("numpy._core.numeric", "_frombuffer"): _StandIn(_from_buffer),
    ("collections", "OrderedDict"): _StandIn(dict),
    ("_codecs", "encode"): _StandIn(_encode),
} | {(module, name): _StandIn(kind) for name, kind in CONTAINERS.items() for module in ("builtins", "__builtin__")}
