"""Folders of media files: what counts as sound or film, and the clips that were found in one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, Literal

import pandas as pd

from harness.data.sources.layout import Opened, Raw
from harness.errors import DataError

AUDIO = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".aac")
VIDEO = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".flv", ".mpg", ".mpeg")

Kind = Literal["audio", "video"]


def media_kind(path: PurePath) -> Kind | None:
    """Sound, film or neither, by the ending."""
    suffix = path.suffix.lower()
    return "audio" if suffix in AUDIO else "video" if suffix in VIDEO else None


@dataclass
class Found:
    """The clips of a folder: what is known of each, and its files below the folder."""

    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    doubled: int = 0

    def add(self, clip: str, kind: Kind, path: str, **facts: Any) -> None:
        """Note the file of a clip; of several files of one kind the first one counts."""
        row = self.rows.setdefault(clip, {"id": clip, **facts, "audio": "", "video": ""})
        self.doubled += bool(row[kind])
        row[kind] = row[kind] or path

    def raw(self, folder: Path, notes: Mapping[str, str], notices: Sequence[str]) -> Raw:
        """The clips in the order of their ids, without features."""
        clips = pd.DataFrame([self.rows[clip] for clip in sorted(self.rows)])
        counts = {kind: int((clips[kind] != "").sum()) for kind in ("audio", "video")}
        files = {"files": f"{counts['audio']} of sound, {counts['video']} of film"}
        doubled = {"copies": f"{self.doubled} files passed over: another of the same clip came first"} if self.doubled else {}
        return Raw(clips, {}, {**files, **doubled, **notes}, notices, folder.resolve())


def only_folder(files: Sequence[Opened]) -> Sequence[str]:
    """The sorted paths inside, if ``files`` is one folder; nothing otherwise."""
    return files[0].content if len(files) == 1 and files[0].kind == "folder" else ()


def must_hold(rows: Iterable[Any], folder: Path, what: str) -> None:
    """DataError if a folder held none of what was asked for."""
    if not any(True for _ in rows):
        raise DataError(f"{folder} holds no {what}", "Name the folder that holds all of the data set's files, unpacked.")
