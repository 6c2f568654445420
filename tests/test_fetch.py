"""Downloads from a server on this machine that breaks, lies and refuses; archives that want out of their folder."""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import re
import shutil
import socket
import stat
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.cli import main
from harness.data import archives, catalogue
from harness.data import fetch as fetching
from harness.data.archives import Limits, extract
from harness.data.catalogue import Download
from harness.data.fetch import CHUNK, Retry, fetch
from harness.errors import DataError

SOON = Retry(attempts=3, pause=0.001)
CONTENT = np.random.default_rng(0).bytes(3_000_000)


@dataclass
class Server:
    """What the next requests meet, and what was asked for."""

    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)  # path, Range
    cuts: list[int] = field(default_factory=list)  # per request to come: break off after so many bytes
    statuses: list[int] = field(default_factory=list)  # per request to come: answer with this status alone
    reset: bool = False  # break off by a reset, which loses what is on its way, instead of a close
    ranges: bool = True
    etag: str | None = '"v1"'
    length: bool = True
    url: str = ""

    def download(self, name: str, **stated: Any) -> Download:
        return Download(url=f"{self.url}/{name}?download=1", **stated)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: ClassVar[Server]

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        server, name, span = self.state, self.path.strip("/").partition("?")[0], self.headers.get("Range")
        server.asked.append((name, span))
        if server.statuses or name not in server.files:
            self.answer(server.statuses.pop(0) if server.statuses else 404, b"")
            return
        whole = server.files[name]
        same = self.headers.get("If-Range") in (None, server.etag)
        start = int(re.fullmatch(r"bytes=(\d+)-", span)[1]) if span and server.ranges and same else None  # type: ignore[index]
        if start is not None and start >= len(whole):
            self.answer(416, b"", **{"Content-Range": f"bytes */{len(whole)}"})
        elif start is not None:
            self.answer(206, whole[start:], **{"Content-Range": f"bytes {start}-{len(whole) - 1}/{len(whole)}"})
        else:
            self.answer(200, whole)

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        server = self.state
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        if server.etag:
            self.send_header("ETag", server.etag)
        if server.length:
            self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        cut = server.cuts.pop(0) if server.cuts and status in (200, 206) else None
        self.wfile.write(body[:cut])
        self.close_connection = True
        if cut is not None and server.reset:
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


class Quiet(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """Clients of these tests hang up; that is not worth a traceback."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    state = Server(files={"data.bin": CONTENT})
    handler = type("Bound", (Handler,), {"state": state})
    with Quiet(("127.0.0.1", 0), handler) as http:
        state.url = f"http://127.0.0.1:{http.server_address[1]}/files"
        state.files = {f"files/{name}": content for name, content in state.files.items()}
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        http.shutdown()
        thread.join()


def md5(content: bytes = CONTENT) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def sha256(content: bytes = CONTENT) -> str:
    return hashlib.sha256(content).hexdigest()


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {".lock"}


# ---- downloads


@pytest.mark.parametrize(
    ("stated", "verified"),
    [
        ({"size": len(CONTENT), "md5": md5()}, "md5"),
        ({"sha256": sha256(), "md5": md5()}, "sha256"),
        ({"size": len(CONTENT)}, "size"),
        ({}, "nothing: no size or checksum is published"),
    ],
)
def test_a_file_comes_whole_verified_and_with_its_checksum(server: Server, tmp_path: Path, stated: dict[str, Any], verified: str) -> None:
    seen: list[tuple[int, int | None]] = []
    got = fetch(server.download("data.bin", **stated), tmp_path, lambda *progress: seen.append(progress), SOON)
    assert got.path.read_bytes() == CONTENT and (got.sha256, got.verified) == (sha256(), verified)
    assert (tmp_path / "data.bin.sha256").read_text() == f"{sha256()}  data.bin\n"  # as sha256sum -c reads it
    assert seen[0] == (0, len(CONTENT)) and seen[-1] == (len(CONTENT), len(CONTENT)) and seen == sorted(seen)
    assert files(tmp_path) == {"data.bin", "data.bin.sha256"} and len(server.asked) == 1


def test_what_is_there_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    first = fetch(server.download("data.bin"), tmp_path, retry=SOON)
    again = fetch(server.download("data.bin"), tmp_path, retry=SOON)
    assert len(server.asked) == 1 and (again.path, again.sha256) == (first.path, first.sha256)


def test_a_file_fetched_by_hand_is_verified_and_never_removed(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(CONTENT)
    assert fetch(server.download("data.bin", md5=md5()), tmp_path).verified == "md5" and not server.asked
    (tmp_path / "data.bin").write_bytes(CONTENT[:-1])
    (tmp_path / "data.bin.sha256").unlink()
    with pytest.raises(DataError, match=r"has the md5 .*\nRemove .*data.bin"):
        fetch(server.download("data.bin", md5=md5()), tmp_path)
    assert (tmp_path / "data.bin").exists()


def test_a_broken_connection_is_taken_up_where_it_broke(server: Server, tmp_path: Path) -> None:
    server.cuts = [1_000_000, 700_000]
    got = fetch(server.download("data.bin", md5=md5()), tmp_path, retry=SOON)
    assert got.path.read_bytes() == CONTENT and len(server.asked) == 3
    starts = [int(span.removeprefix("bytes=").removesuffix("-")) for _, span in server.asked[1:] if span]
    assert server.asked[0][1] is None
    first, second = starts
    assert 1_000_000 - CHUNK <= first <= 1_000_000 and first < second <= first + 700_000  # a piece that did not fill may be lost


def test_a_connection_that_is_reset_is_taken_up_too(server: Server, tmp_path: Path) -> None:
    server.reset, server.cuts = True, [2_900_000]
    assert fetch(server.download("data.bin", md5=md5()), tmp_path, retry=SOON).path.read_bytes() == CONTENT
    assert len(server.asked) == 2


def test_an_answer_that_ends_early_without_an_error_is_not_taken_for_the_whole(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So do HTTP libraries that do not compare with the stated length."""
    real = fetching._append
    monkeypatch.setattr(fetching, "_append", lambda part, start, pieces, listen: real(part, start, itertools.islice(pieces, 20), listen))
    assert fetch(server.download("data.bin"), tmp_path, retry=SOON).path.read_bytes() == CONTENT
    assert [span for _, span in server.asked] == [None, f"bytes={20 * CHUNK}-", f"bytes={40 * CHUNK}-"]


def test_a_command_that_was_stopped_is_continued_by_the_next(server: Server, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(done: int, total: int | None) -> None:
        if done > 1_000_000:
            raise Stop

    with pytest.raises(Stop):
        fetch(server.download("data.bin", md5=md5()), tmp_path, stop, SOON)
    kept = (tmp_path / "data.bin.part").stat().st_size
    assert kept > 1_000_000 and not (tmp_path / "data.bin").exists()
    fetch(server.download("data.bin", md5=md5()), tmp_path, retry=SOON)
    assert server.asked[1][1] == f"bytes={kept}-" and files(tmp_path) == {"data.bin", "data.bin.sha256"}


def test_a_connection_that_stays_broken_ends_in_one_error_and_keeps_what_came(server: Server, tmp_path: Path) -> None:
    server.cuts = [500_000, 0, 0, 0, 0]
    with pytest.raises(DataError, match=r"could not be fetched(?s:.)*\d+ bytes are kept in data.bin.part: the same command continues"):
        fetch(server.download("data.bin"), tmp_path, retry=SOON)
    assert len(server.asked) == 4  # one that got on, three that did not
    assert 0 < (tmp_path / "data.bin.part").stat().st_size <= 500_000


def test_a_server_without_ranges_starts_over_and_ends_the_same(server: Server, tmp_path: Path) -> None:
    server.ranges, server.cuts = False, [1_000_000]
    got = fetch(server.download("data.bin", md5=md5()), tmp_path, retry=SOON)
    assert got.path.read_bytes() == CONTENT and server.asked[1][1] is not None and len(server.asked) == 2


def test_a_server_without_ranges_that_breaks_at_random_is_given_up(server: Server, tmp_path: Path) -> None:
    server.ranges, server.cuts = False, [900_000, 100_000] * 10
    with pytest.raises(DataError, match="could not be fetched"):
        fetch(server.download("data.bin"), tmp_path, retry=SOON)
    assert len(server.asked) <= 5


def test_a_file_that_changed_on_the_server_is_not_glued_to_the_old_one(server: Server, tmp_path: Path) -> None:
    server.cuts = [1_000_000, 0, 0, 0]
    with pytest.raises(DataError):
        fetch(server.download("data.bin"), tmp_path, retry=SOON)
    newer = np.random.default_rng(1).bytes(2_500_000)
    server.files["files/data.bin"], server.etag, server.cuts = newer, '"v2"', []
    assert fetch(server.download("data.bin"), tmp_path, retry=SOON).path.read_bytes() == newer


@pytest.mark.parametrize("newer", [CONTENT[:400_000], CONTENT[:500_000]])
def test_a_part_that_is_longer_than_the_file_or_complete(server: Server, tmp_path: Path, newer: bytes) -> None:
    """Asked for what lies beyond the end, a server says 416: the part is the file, or it is none of it."""
    (tmp_path / "data.bin.part").write_bytes(CONTENT[:500_000])
    server.files["files/data.bin"], server.etag = newer, None
    assert fetch(server.download("data.bin"), tmp_path, retry=SOON).path.read_bytes() == newer


def test_a_server_that_states_no_length_is_believed_at_its_end(server: Server, tmp_path: Path) -> None:
    server.length = False
    assert fetch(server.download("data.bin", md5=md5()), tmp_path, retry=SOON).path.read_bytes() == CONTENT


@pytest.mark.parametrize(("stated", "name"), [({"md5": "0" * 32}, "md5"), ({"sha256": "0" * 64}, "sha256")])
def test_a_wrong_checksum_leaves_nothing_that_could_be_used(server: Server, tmp_path: Path, stated: dict[str, str], name: str) -> None:
    with pytest.raises(DataError, match=rf"data.bin from http://127.*has the {name} .*, published is 000.*\n.*fetches it anew"):
        fetch(server.download("data.bin", **stated), tmp_path, retry=SOON)
    assert files(tmp_path) == set() and len(server.asked) == 1


def test_another_size_than_the_published_one_is_refused_before_it_is_fetched(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has 3000000 bytes, 17 were published"):
        fetch(server.download("data.bin", size=17), tmp_path, retry=SOON)
    assert files(tmp_path) == set()


def test_a_missing_file_is_one_clear_error(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent.bin.*the server says 404 Not Found\nIt may have moved"):
        fetch(server.download("absent.bin"), tmp_path, retry=SOON)
    assert len(server.asked) == 1 and files(tmp_path) == set()


def test_a_busy_server_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.statuses = [503, 429]
    assert fetch(server.download("data.bin"), tmp_path, retry=SOON).path.read_bytes() == CONTENT
    server.statuses = [503] * 3
    with pytest.raises(DataError, match="the server says 503"):
        fetch(server.download("data.bin"), tmp_path / "other", retry=SOON)


def test_nobody_there_is_one_clear_error(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/data.bin"
    with pytest.raises(DataError, match="could not be fetched: ConnectionError: .*refused"):
        fetch(Download(url=url), tmp_path, retry=SOON)


def test_a_full_disk_is_said_before_the_download(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="has 1 bytes free, 3000000 are needed"):
        fetch(server.download("data.bin"), tmp_path, retry=SOON)


def test_two_processes_cannot_fetch_to_one_folder(server: Server, tmp_path: Path) -> None:
    def second(done: int, total: int | None) -> None:
        with pytest.raises(DataError, match="another process is fetching"):
            fetch(server.download("data.bin"), tmp_path, retry=SOON)

    fetch(server.download("data.bin"), tmp_path, second, SOON)


@pytest.mark.parametrize("url", ["ftp://host/file.zip", "http://host/", "http://host/..", "http://host/.hidden", "file:///etc/passwd"])
def test_an_address_without_a_plain_file_name_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        Download(url=url)


def test_an_archive_is_unpacked_and_removed(server: Server, tmp_path: Path) -> None:
    packed = zipped({"Actor_01/a.wav": b"sound", "Actor_02/b.wav": b"more"})
    server.files["files/Audio_01-24.zip"] = packed
    got = fetch(server.download("Audio_01-24.zip", md5=md5(packed)), tmp_path, retry=SOON)
    assert got.path == tmp_path / "Audio_01-24" and got.sha256 == sha256(packed)
    assert files(tmp_path) == {"Audio_01-24/Actor_01/a.wav", "Audio_01-24/Actor_02/b.wav", "Audio_01-24.zip.sha256"}
    fetch(server.download("Audio_01-24.zip", md5=md5(packed)), tmp_path, retry=SOON)
    assert len(server.asked) == 1


def test_an_npz_file_stays_what_it_is(server: Server, tmp_path: Path) -> None:
    server.files["files/features.npz"] = zipped({"audio.npy": b"x"})
    assert fetch(server.download("features.npz"), tmp_path, retry=SOON).path.is_file()


# ---- the command


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MER_DATA", str(tmp_path))
    (tmp_path / "datasets").mkdir()
    return tmp_path


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code: Any = 0
    try:
        main(list(arguments))
    except SystemExit as ended:
        code = ended.code or 0
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return int(code), out + err


def test_the_command_fetches_a_part_and_says_what_to_do_next(server: Server, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.files["files/video.zip"] = zipped({"a.mp4": b"film"})
    (place / "datasets" / "mine.toml").write_text(
        'title = "Mine"\nmetrics = ["uar"]\nobtain = "Ask me."\nlicence = "CC0"\ndownloads = [\n'
        f'  {{ part = "audio", url = "{server.url}/data.bin", size = {len(CONTENT)}, md5 = "{md5()}" }},\n'
        f'  {{ part = "video", url = "{server.url}/video.zip" }},\n]\n[task]\nkind = "classification"\nclasses = ["a", "b"]\n'
    )
    code, out = call(capsys, "data", "fetch", "mine", "--only", "vidio")
    assert code == 2 and "no part 'vidio'" in out and "Did you mean 'video'" in out and not server.asked
    code, out = call(capsys, "data", "fetch", "mine", "--only", "video")
    assert code == 0 and [name for name, _ in server.asked] == ["files/video.zip"]
    assert sha256(server.files["files/video.zip"]) in out and "verified by nothing" in out
    code, out = call(capsys, "data", "fetch", "mine")
    folder = place / "downloads" / "mine"
    assert code == 0 and "2 files, more than 0.0 GB" in out and "CC0" in out and "--only PART" in out
    assert f"harness data import mine {folder}" in out and "Ask me." in out and "verified by md5" in out
    assert files(folder) == {"data.bin", "data.bin.sha256", "video/a.mp4", "video.zip.sha256"}


def test_for_what_is_not_public_the_command_says_where_to_ask(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = call(capsys, "data", "fetch", "mosi")
    assert code == 0 and "https://github.com/thuiar/MMSA" in out and "harness data import mosi FILE" in out
    assert not (place / "downloads").exists()


def test_ravdess_is_listed_with_all_its_actors() -> None:
    downloads = catalogue.facts("ravdess").downloads
    assert {one.part for one in downloads} == {"audio", "tracks", "video"} and sum(one.part == "video" for one in downloads) == 24
    assert all(one.url.startswith(("https://zenodo.org/records/1188976/", "https://zenodo.org/records/3255102/")) for one in downloads)
    assert all(one.md5 for one in downloads if one.part != "video") and all(one.size for one in downloads)


# ---- archives


def zipped(members: dict[str, bytes], change: Callable[[zipfile.ZipInfo], None] = lambda info: None) -> bytes:
    """A zip file of these members; ``change`` may forge their headers."""
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            change(info)
            archive.writestr(info, content)
    return memory.getvalue()


def tarred(members: dict[str, bytes | bytes], mode: str = "w:gz", **forged: Any) -> bytes:
    """A tar file of these members; ``forged`` are attributes of all their headers."""
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in forged.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))
    return memory.getvalue()


def of_kind(kind: int) -> Callable[[zipfile.ZipInfo], None]:
    def change(info: zipfile.ZipInfo) -> None:
        info.external_attr = (kind | 0o777) << 16

    return change


def unpack(folder: Path, content: bytes, limits: Limits | None = None) -> Path:
    (folder / "in.archive").write_bytes(content)
    return extract(folder / "in.archive", folder / "out", limits)


MEMBERS = {"a.txt": b"alpha", "deep/er/b.txt": b"beta" * 1000, "./c.txt": b"", "ünï.txt": b"u"}


@pytest.mark.parametrize("pack", [zipped, lambda m: tarred(m, "w"), tarred, lambda m: tarred(m, "w:xz"), lambda m: tarred(m, "w:bz2")])
def test_what_was_packed_is_unpacked(tmp_path: Path, pack: Callable[[dict[str, bytes]], bytes]) -> None:
    out = unpack(tmp_path, pack(MEMBERS))
    assert {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()} == {
        name.removeprefix("./"): content for name, content in MEMBERS.items()
    }
    assert all(not stat.S_IMODE(path.stat().st_mode) & 0o111 for path in out.rglob("*") if path.is_file())
    assert {path.name for path in tmp_path.iterdir()} == {"in.archive", "out"}


ESCAPES = ["../evil", "a/../../evil", "/tmp/evil", "C:/evil", "..\\evil", "a/..", "//host/evil"]
REFUSED = [
    *((zipped({name: b"x"}), "outside its folder") for name in ESCAPES),
    *((tarred({name: b"x"}), "outside its folder") for name in ESCAPES),
    (zipped({"link": b"/etc/passwd"}, of_kind(stat.S_IFLNK)), "a symbolic link: 'link'"),
    (zipped({"node": b""}, of_kind(stat.S_IFCHR)), "a device"),
    (zipped({"node": b""}, of_kind(stat.S_IFIFO)), "a pipe"),
    (tarred({"link": b""}, type=tarfile.SYMTYPE, linkname="/etc/passwd"), "a link: 'link'"),
    (tarred({"link": b""}, type=tarfile.LNKTYPE, linkname="../../secret"), "a link"),
    (tarred({"node": b""}, type=tarfile.CHRTYPE), "a device"),
    (tarred({"node": b""}, type=tarfile.FIFOTYPE), "a device"),
    (b"no archive at all", "neither a zip nor a tar"),
    (b"", "neither a zip nor a tar"),
]


@pytest.mark.parametrize(("content", "words"), REFUSED, ids=[f"{i} {words}" for i, (_, words) in enumerate(REFUSED)])
def test_what_does_not_belong_into_a_data_archive_is_refused_and_nothing_is_left(tmp_path: Path, content: bytes, words: str) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    with pytest.raises(DataError, match=re.escape(words)):
        unpack(inner, content)
    assert files(tmp_path) == {"inner/in.archive"} and not Path("/tmp/evil").exists()


def test_a_link_cannot_be_a_step_for_a_later_member(tmp_path: Path) -> None:
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w") as archive:
        link = tarfile.TarInfo("step")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        archive.addfile(link)
        info = tarfile.TarInfo("step/evil")
        info.size = 1
        archive.addfile(info, io.BytesIO(b"x"))
    with pytest.raises(DataError, match="a link"):
        unpack(tmp_path, memory.getvalue())
    assert files(tmp_path) == {"in.archive"}


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_a_bomb_is_refused_by_its_ratio_its_size_and_its_members(tmp_path: Path, pack: Callable[[dict[str, bytes]], bytes]) -> None:
    bomb = pack({"zeros": bytes(2_000_000)})
    for limits in (Limits(small=1000), Limits(total=1_999_999)):
        with pytest.raises(DataError, match="It looks like a bomb"):
            unpack(tmp_path, bomb, limits)
    with pytest.raises(DataError, match="members: refused"):
        unpack(tmp_path, pack({f"f{i}": b"" for i in range(11)}), Limits(members=10))
    assert files(tmp_path) == {"in.archive"}
    assert len((unpack(tmp_path, bomb) / "zeros").read_bytes()) == 2_000_000  # small enough to do no harm


def test_many_members_add_up_to_a_bomb(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="bomb"):
        unpack(tmp_path, zipped({f"zeros{i}": bytes(400) for i in range(10)}), Limits(total=3_900))


def test_a_size_that_a_header_makes_smaller_than_it_is_does_not_get_past_the_limit(tmp_path: Path) -> None:
    packed = bytearray(zipped({"zeros": bytes(2_000_000)}))
    for place in [found.start() for found in re.finditer(re.escape((2_000_000).to_bytes(4, "little")), bytes(packed))]:
        packed[place : place + 4] = (10).to_bytes(4, "little")
    with pytest.raises(DataError):
        unpack(tmp_path, bytes(packed), Limits(total=1000))
    assert files(tmp_path) == {"in.archive"}


def test_a_member_that_gives_more_than_its_header_says_is_cut_off(tmp_path: Path) -> None:
    endless = archives._Member("a", "file", 1, lambda: io.BytesIO(bytes(10_000)))
    with pytest.raises(DataError, match="more than it may: 'a'"):
        archives._write(tmp_path / "in.zip", endless, tmp_path / "a", 9_999)
    assert archives._write(tmp_path / "in.zip", endless, tmp_path / "b", 10_000) == 10_000


def test_a_name_that_comes_twice_is_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        memory = io.BytesIO()
        with zipfile.ZipFile(memory, "w") as archive:
            archive.writestr("a", b"first")
            archive.writestr("a", b"second")
    with pytest.raises(DataError, match="'a' twice"):
        unpack(tmp_path, memory.getvalue())


def test_a_password_is_not_asked_for(tmp_path: Path) -> None:
    packed = bytearray(zipped({"a": b"x"}))
    packed[6] |= 1  # the local header's flag, and the central directory's
    packed[packed.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(DataError, match="encrypted"):
        unpack(tmp_path, bytes(packed))


@pytest.mark.parametrize("pack", [zipped, tarred])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_damaged_archive_is_one_error_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, pack: Callable[[dict[str, bytes]], bytes], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    whole = bytearray(pack({"a/b.txt": b"content " * 50, "c.txt": b"more"}))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(whole[: data.draw(st.integers(1, len(whole)))])
    try:
        unpack(folder, damaged, Limits(total=10_000))
    except DataError:
        assert {path.name for path in folder.iterdir()} == {"in.archive"}
    else:
        assert {path.name for path in folder.iterdir()} == {"in.archive", "out"}


def test_an_unpacking_that_is_stopped_leaves_nothing_that_looks_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = archives._write, [0]

    def stopped(*arguments: Any) -> int:
        calls[0] += 1
        if calls[0] == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(archives, "_write", stopped)
    with pytest.raises(KeyboardInterrupt):
        unpack(tmp_path, zipped(MEMBERS))
    assert files(tmp_path) == {"in.archive"}
    monkeypatch.setattr(archives, "_write", real)
    (tmp_path / ".out.partial").mkdir()  # what a process leaves that was killed outright
    (tmp_path / ".out.partial" / "a.txt").write_text("half")
    assert (unpack(tmp_path, zipped(MEMBERS)) / "a.txt").read_bytes() == b"alpha"
    with pytest.raises(DataError, match="already there"):
        unpack(tmp_path, zipped(MEMBERS))


def test_a_full_disk_while_unpacking_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(archives, "_write", full)
    with pytest.raises(DataError, match=r"No space left on device(?s:.)*Free some space"):
        unpack(tmp_path, zipped(MEMBERS))
    assert files(tmp_path) == {"in.archive"}
