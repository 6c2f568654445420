"""Archives from strangers, unpacked whole or not at all, and never outside their folder.

Members are read one by one and written as plain new files; nothing that an archive says about owners, permissions or links
is obeyed. What does not belong into a data archive (links, devices, ``..``, absolute names, bombs) ends the unpacking.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, NoReturn

from harness.errors import DataError
from harness.files import sync_folder

CHUNK = 2**20
KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
BY_HAND = "If you trust it, unpack it by hand and look at what it holds."


@dataclass(frozen=True)
class Limits:
    """How much an archive may hold: bytes in all, bytes per byte of the archive (above ``small`` bytes), members."""

    total: int = 2**40
    ratio: float = 100.0
    small: int = 2**26
    members: int = 10**6

    def allowed(self, packed: int) -> int:
        """Bytes that an archive of ``packed`` bytes may unpack to."""
        return min(self.total, max(self.small, int(self.ratio * packed)))


@dataclass(frozen=True)
class _Member:
    """One entry: ``kind`` is "file", "folder", or what else it is. ``open`` gives a file's content."""

    name: str
    kind: str
    size: int
    open: Callable[[], IO[bytes] | None]


def archive_stem(name: str) -> str | None:
    """``name`` without the ending of an archive, None if it has none. By name, since .npz files, too, are zip files inside."""
    match = re.fullmatch(r"(.+?)\.(zip|tar|tgz|tar\.(gz|bz2|xz))", name, re.IGNORECASE)
    return match[1] if match else None


def extract(archive: Path, target: Path, limits: Limits | None = None) -> Path:
    """Unpack the zip or tar file ``archive`` (compressed or not) as the new folder ``target``; that folder.

    ``target`` appears only when everything is in it. DataError for a damaged archive, a full disk, an existing target, and
    for whatever a data archive should not hold; then nothing is left behind.
    """
    if target.exists():
        raise DataError(f"{target} is already there", "Remove it to unpack again.")
    fresh = target.with_name(f".{target.name}.partial")
    shutil.rmtree(fresh, ignore_errors=True)  # what a killed process left
    try:
        fresh.mkdir(parents=True)
        _fill(archive, fresh, limits or Limits())
        os.sync()  # contents before the name: after a power cut, too, the folder is whole or absent
        fresh.rename(target)
        sync_folder(target.parent)
    except BaseException as error:
        shutil.rmtree(fresh, ignore_errors=True)
        if isinstance(error, DataError) or not isinstance(error, Exception):
            raise
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(f"{archive} cannot be unpacked to {target}: {error}", "Free some space or mend the permissions.") from error
        raise DataError(f"{archive} is damaged: {type(error).__name__}: {error}", "Remove it and fetch it again.") from error
    return target


def _fill(archive: Path, folder: Path, limits: Limits) -> None:
    budget = limits.allowed(archive.stat().st_size)
    written = 0
    for count, member in enumerate(_members(archive), 1):
        if count > limits.members or written + member.size > budget:
            _refuse(archive, f"unpacks to more than {budget} bytes or {limits.members} members", "It looks like a bomb.")
        if member.kind not in ("file", "folder"):
            _refuse(archive, f"holds {member.kind}: '{member.name}'", BY_HAND)
        place = folder / _inside(archive, member.name)
        if member.kind == "folder":
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            written += _write(archive, member, place, budget - written)


def _write(archive: Path, member: _Member, place: Path, budget: int) -> int:
    """Write one file of at most ``budget`` bytes; its size. What a header says of the size is not believed."""
    if place.exists():
        _refuse(archive, f"holds '{member.name}' twice", BY_HAND)
    written = 0
    content = member.open()
    if content is None:
        _refuse(archive, f"holds '{member.name}' without content", BY_HAND)
    with content, open(place, "xb") as file:
        while piece := content.read(CHUNK):
            written += len(piece)
            if written > budget:
                _refuse(archive, f"unpacks to more than it may: '{member.name}'", "It looks like a bomb.")
            file.write(piece)
    return written


def _inside(archive: Path, name: str) -> PurePosixPath:
    """``name`` as a path below the target."""
    place = PurePosixPath(name)
    if place.is_absolute() or ".." in place.parts or "\\" in name or "\0" in name or re.match(r"[A-Za-z]:", name):
        _refuse(archive, f"holds a file outside its folder: '{name}'", BY_HAND)
    return place


def _members(archive: Path) -> Iterator[_Member]:
    if zipfile.is_zipfile(archive):
        yield from _zip_members(archive)
    elif tarfile.is_tarfile(archive):
        yield from _tar_members(archive)
    else:
        raise DataError(f"{archive} is neither a zip nor a tar file", "Remove it and fetch it again; what came may be a web page.")


def _zip_members(archive: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            if info.flag_bits & 1:
                _refuse(archive, f"is encrypted: '{info.filename}'", "Unpack it by hand with its password.")
            kind = KINDS.get(stat.S_IFMT(info.external_attr >> 16), "folder" if info.is_dir() else "file")
            yield _Member(info.filename, kind, info.file_size, lambda info=info: file.open(info))  # type: ignore[misc]


def _tar_members(archive: Path) -> Iterator[_Member]:
    with tarfile.open(archive) as file:
        for info in file:
            kind = "folder" if info.isdir() else "file" if info.isreg() else "a link" if info.issym() or info.islnk() else "a device"
            yield _Member(info.name, kind, info.size, lambda info=info: file.extractfile(info))  # type: ignore[misc]


def _refuse(archive: Path, why: str, fix: str) -> NoReturn:
    raise DataError(f"{archive} {why}: refused", fix)
