"""Downloading what is public: resumed where it broke off, verified, and in place only when whole.

Built on requests. pooch, the usual choice for data files, downloads to a temporary file that it deletes when the connection
breaks (RAVDESS: 0.5 GB a file, 13 GB in all), so it cannot resume; the rest of what it does is little.
"""

from __future__ import annotations

import fcntl
import hashlib
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.data.archives import archive_stem, extract
from harness.data.catalogue import Download
from harness.errors import DataError
from harness.files import sync_folder, write_atomic

CHUNK = 2**16
CONNECT, READ = 10.0, 60.0  # seconds without an answer
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})

Listener = Callable[[int, int | None], None]  # bytes so far, bytes in all if known


@dataclass(frozen=True)
class Retry:
    """How often a broken download is taken up again without getting further, and the first pause; later ones double."""

    attempts: int = 5
    pause: float = 1.0


@dataclass(frozen=True)
class Fetched:
    """A file that was fetched: where it or, of an archive, its content lies; ``verified`` by md5, sha256, or size alone."""

    path: Path
    sha256: str
    verified: str


def fetch(download: Download, folder: Path, listen: Listener = lambda done, total: None, retry: Retry | None = None) -> Fetched:
    """Have ``download`` in ``folder``, archives unpacked to a folder of their name; what is there already is not fetched again.

    The file's SHA-256 is kept as ``FILE.sha256``. A broken download stays as ``FILE.part`` and is continued. An archive is
    removed once it is unpacked. DataError if the server refuses, the connection stays broken, the disk is full, or the
    content is not what the catalogue says.
    """
    place, note, stem = folder / download.file, folder / f"{download.file}.sha256", archive_stem(download.file)
    unpacked = folder / (stem or download.file)
    with _alone(folder):
        if unpacked.exists() and note.exists():
            return Fetched(unpacked, note.read_text().split()[0], "an earlier download")
        digest, how = _verify(download, place) if place.exists() else _download(download, place, listen, retry or Retry())
        write_atomic(note, f"{digest}  {download.file}\n".encode())
        if stem is None:
            return Fetched(place, digest, how)
        extract(place, unpacked)
        place.unlink()
        return Fetched(unpacked, digest, how)


def _download(download: Download, place: Path, listen: Listener, retry: Retry) -> tuple[str, str]:
    part = place.with_name(f"{place.name}.part")
    _receive_all(download, part, listen, retry)
    _validator(part).unlink(missing_ok=True)
    try:
        found = _verify(download, part)
    except DataError as error:
        part.unlink()  # nothing of it can be continued
        raise DataError(
            error.problem, "It was removed: the same command fetches it anew. If that fails too, the file has changed."
        ) from None
    part.replace(place)
    sync_folder(place.parent)
    return found


class _Broken(Exception):
    """The connection broke or the server is busy: worth another try."""


def _receive_all(download: Download, part: Path, listen: Listener, retry: Retry) -> None:
    """Fill ``part``, taking up broken connections; a try that got further than all before does not count as failed."""
    failures, furthest = 0, _size(part)
    while download.size is None or _size(part) != download.size:
        try:
            _receive(download, part, listen)
            return
        except _Broken as error:
            failures = 0 if _size(part) > furthest else failures + 1
            furthest = max(furthest, _size(part))
            if failures >= retry.attempts:
                raise DataError(
                    f"{download.url} could not be fetched: {error}",
                    f"{_size(part)} bytes are kept in {part.name}: the same command continues from there.",
                ) from error
            time.sleep(retry.pause * 2 ** max(failures - 1, 0))


def _receive(download: Download, part: Path, listen: Listener) -> None:
    """One request, for what ``part`` lacks; the answer is appended to it, or replaces it where the server starts over."""
    import requests  # takes a while to import

    try:
        with requests.get(download.url, headers=_headers(part), stream=True, timeout=(CONNECT, READ)) as answer:
            start, total = _interpret(download, part, answer.status_code, answer.reason, answer.headers)
            if start == total:
                return
            _room(part, total, start)
            write_atomic(_validator(part), _strong(answer.headers).encode())
            _append(part, start, answer.iter_content(CHUNK), lambda done: listen(done, total))
    except requests.RequestException as error:
        raise _Broken(f"{type(error).__name__}: {_root(error)}") from error
    except OSError as error:
        raise DataError(f"{part} cannot be written: {error}", "Free some space: the same command continues.") from error
    if total is not None and _size(part) != total:
        raise _Broken(f"{_size(part)} of {total} bytes came")


def _headers(part: Path) -> dict[str, str]:
    """Ask for the rest of ``part``, on condition that the file on the server is still the same."""
    headers, have = {"Accept-Encoding": "identity", "User-Agent": "mer-harness"}, _size(part)
    validator = _validator(part).read_text() if _validator(part).exists() else ""
    return headers | ({"Range": f"bytes={have}-"} if have else {}) | ({"If-Range": validator} if have and validator else {})


def _interpret(download: Download, part: Path, status: int, reason: str, headers: Any) -> tuple[int, int | None]:
    """Where the answer's bytes belong, and how many bytes the whole file has."""
    have, span = _size(part), re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+)", headers.get("Content-Range", ""))
    if status in TRANSIENT:
        raise _Broken(f"the server says {status} {reason}")
    if status == 416 and have:
        if span and int(span[2]) == have:
            return have, have
        part.unlink()
        raise _Broken("the file on the server is another than the one begun; beginning anew")
    if status == 206 and have:
        if not span or int(span[1] or -1) != have:
            part.unlink()
            raise _Broken("the server sent another part than the one asked for; beginning anew")
        return _known(download, have, int(span[2]))
    if status != 200:
        raise DataError(
            f"{download.url}: the server says {status} {reason}",
            "It may have moved: see where to obtain the data set, or fetch it by hand.",
        )
    length = headers.get("Content-Length", "") if headers.get("Content-Encoding", "identity") == "identity" else ""
    return _known(download, 0, int(length) if length.isdigit() else None)


def _known(download: Download, start: int, total: int | None) -> tuple[int, int | None]:
    if None not in (download.size, total) and download.size != total:
        raise DataError(
            f"{download.url} has {total} bytes, {download.size} were published",
            "It is another file, or a newer version: fetch it by hand, look at it, and import it from there.",
        )
    return start, total


def _append(part: Path, start: int, pieces: Iterator[bytes], listen: Callable[[int], None]) -> None:
    with open(part, "r+b" if start else "wb") as file:
        file.seek(start)
        listen(start)
        for piece in pieces:
            file.write(piece)
            listen(file.tell())


def _verify(download: Download, path: Path) -> tuple[str, str]:
    """SHA-256 of ``path``, and by what it was verified. DataError if it is not the published file."""
    found = {"size": _size(path), **_digests(path)}
    for name in ("size", "md5", "sha256"):
        wanted = getattr(download, name)
        if wanted is not None and found[name] != wanted:
            problem = f"{download.file} from {download.url} has the {name} {found[name]}, published is {wanted}"
            raise DataError(problem, f"Remove {path} to fetch it again.")
    how = [name for name in ("sha256", "md5", "size") if getattr(download, name) is not None]
    return str(found["sha256"]), how[0] if how else "nothing: no size or checksum is published"


def _digests(path: Path) -> dict[str, str]:
    sums = {"md5": hashlib.md5(usedforsecurity=False), "sha256": hashlib.sha256()}
    with open(path, "rb") as file:
        while piece := file.read(2**20):
            for digest in sums.values():
                digest.update(piece)
    return {name: digest.hexdigest() for name, digest in sums.items()}


def _room(part: Path, total: int | None, start: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if total is not None and total - start > free:
        raise DataError(
            f"{part.parent} has {free} bytes free, {total - start} are needed", "Free some space or set MER_DATA to another folder."
        )


def _strong(headers: Any) -> str:
    """What identifies this very version of the file for ``If-Range``; weak tags do not."""
    tag = str(headers.get("ETag", ""))
    return tag if tag and not tag.startswith("W/") else str(headers.get("Last-Modified", ""))


def _validator(part: Path) -> Path:
    return part.with_name(f"{part.name}.etag")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _root(error: BaseException) -> str:
    """The innermost reason: requests wraps urllib3, which wraps the system's error."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return str(error) or type(error).__name__


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / ".lock", "w")  # noqa: SIM115  closed below
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {error}", "Set MER_DATA to another folder.") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DataError(f"another process is fetching to {folder}", "Wait for it, or stop it.") from None
        yield
