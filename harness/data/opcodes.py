"""Walking the opcodes of a pickle without obeying them.

Finds a file cut short, memo numbers made up to fill the memory, and the large blocks of bytes that hold the arrays.
"""

from __future__ import annotations

import mmap
import pickletools
import struct
from dataclasses import dataclass

LARGE = 2**20  # bytes from which a block is left in the file
LENGTHS = {
    pickletools.TAKEN_FROM_ARGUMENT1: struct.Struct("<B"),
    pickletools.TAKEN_FROM_ARGUMENT4: struct.Struct("<i"),
    pickletools.TAKEN_FROM_ARGUMENT4U: struct.Struct("<I"),
    pickletools.TAKEN_FROM_ARGUMENT8U: struct.Struct("<Q"),
}
BLOCKS = {"BINBYTES": False, "BINBYTES8": False, "BYTEARRAY8": False, "BINSTRING": True}  # opcode -> whether it is a str
PUTS = {"BINPUT": struct.Struct("<B"), "LONG_BINPUT": struct.Struct("<I")}
PAIRS = ("GLOBAL", "INST")  # two lines, not one
PERSISTENT = ("PERSID", "BINPERSID")


@dataclass(frozen=True)
class Block:
    """A large run of bytes: its opcode begins at ``opcode``, its content lies in [start, stop)."""

    opcode: int
    start: int
    stop: int
    is_text: bool


@dataclass(frozen=True)
class Scan:
    """What a pickle holds: large blocks, frame headers, and where it ends."""

    blocks: list[Block]
    frames: list[int]
    end: int

    def without_blocks(self, data: mmap.mmap) -> bytes:
        """The pickle with the persistent id n in the place of block n, and without frames, whose lengths no longer hold."""
        cuts = [(block.opcode, block.stop, struct.pack("<ci", b"J", n) + b"Q") for n, block in enumerate(self.blocks)]
        cuts += [(frame, frame + 9, b"") for frame in self.frames]
        pieces, place = [], 0
        for start, stop, instead in sorted(cuts):
            pieces += [data[place:start], instead]
            place = stop
        return b"".join([*pieces, data[place : self.end]])


def scan(data: mmap.mmap) -> Scan:
    """Walk the pickle in ``data`` to its STOP; ValueError if there is none, an opcode is unknown, or a memo number is made up."""
    size, place = len(data), 0
    blocks: list[Block] = []
    frames: list[int] = []
    while place < size:
        code = data[place]
        width = FIXED[code]
        if width is None:
            place = _odd(data, place, size, blocks, frames)
            continue
        if code == STOP:
            return Scan(blocks, frames, place + 1)
        place += width
    raise ValueError("it ends before its last opcode")


def _odd(data: mmap.mmap, place: int, size: int, blocks: list[Block], frames: list[int]) -> int:
    """The place behind an opcode that is not just of fixed width."""
    opcode = OPCODES.get(data[place])
    if opcode is None:
        raise ValueError(f"no opcode at byte {place}")
    if opcode.name in PERSISTENT:
        raise ValueError("it asks for persistent objects")
    if opcode.name == "FRAME":
        frames.append(place)
        return place + 9
    if opcode.name in PUTS:
        number = PUTS[opcode.name]
        _check_memo(number.unpack_from(data, place + 1)[0], size)
        return place + 1 + int(number.size)
    assert opcode.arg is not None
    return (
        _behind_lines(data, place, opcode, size)
        if opcode.arg.n == pickletools.UP_TO_NEWLINE
        else _behind(data, place, opcode, size, blocks)
    )


def _behind_lines(data: mmap.mmap, place: int, opcode: pickletools.OpcodeInfo, size: int) -> int:
    end = place
    for _ in range(2 if opcode.name in PAIRS else 1):
        end = data.find(b"\n", end + 1)
        if end < 0:
            raise ValueError(f"the line at byte {place} does not end")
    if opcode.name == "PUT":
        _check_memo(int(data[place + 1 : end]), size)
    return end + 1


def _behind(data: mmap.mmap, place: int, opcode: pickletools.OpcodeInfo, size: int, blocks: list[Block]) -> int:
    """The place behind an opcode that states its length."""
    assert opcode.arg is not None
    length = LENGTHS[opcode.arg.n]
    start = place + 1 + length.size
    stop = start + int(length.unpack_from(data, place + 1)[0])
    if not start <= stop <= size:
        raise ValueError(f"the {opcode.name} at byte {place} claims {stop - start} bytes, the file has {max(size - start, 0)} more")
    if stop - start >= LARGE and opcode.name in BLOCKS:
        blocks.append(Block(place, start, stop, BLOCKS[opcode.name]))
    return stop


def _check_memo(number: int, size: int) -> None:
    if not 0 <= number <= size:
        raise ValueError(f"memo number {number} in a file of {size} bytes")


OPCODES = {ord(opcode.code): opcode for opcode in pickletools.opcodes}
STOP = ord(".")
FIXED: list[int | None] = [
    (1 if opcode.arg is None else 1 + opcode.arg.n)
    if (opcode := OPCODES.get(code)) is not None
    and (opcode.arg is None or opcode.arg.n >= 0)
    and opcode.name not in (*PERSISTENT, *PUTS, "FRAME")
    else None
    for code in range(256)
]  # bytes of an opcode with its argument, None where there is more to look at
