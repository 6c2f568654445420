"""The catalogue: what is known of each data set by name, one TOML file each.

Those of the harness lie in ``harness/data/datasets``; a user adds more as ``$MER_DATA/datasets/NAME.toml``.
"""

from __future__ import annotations

import tomllib
from functools import lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, ValidationError

from harness.data.schema import Frozen, Task
from harness.data.store import data_root
from harness.errors import ConfigError
from harness.registry import suggest


class Download(Frozen):
    """A file that anyone may fetch. Checksums are those that its publisher states; what is not stated is left out."""

    url: str = Field(pattern=r"^https?://[^?#]*/\w[\w.+-]*([?#].*)?$", description="its path ends in the file's name")
    part: str = Field("", description="what it belongs to, such as audio: users may fetch one part alone")
    size: int | None = Field(None, ge=0, description="bytes")
    md5: str | None = Field(None, pattern=r"^[0-9a-f]{32}$")
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")

    @property
    def file(self) -> str:
        """The file's name."""
        return PurePosixPath(urlsplit(self.url).path).name


class Facts(Frozen):
    """What holds for a data set whatever features were extracted from it."""

    name: str
    title: str
    task: Task
    metrics: tuple[str, ...] = Field(description="in the order of the tables' columns")
    splits: dict[str, int] = Field(default_factory=dict, description="clips of each official split; empty if there is none")
    other_splits: dict[str, dict[str, int]] = Field(default_factory=dict, description="other sizes in circulation: who has them -> splits")
    clips: int = Field(0, ge=0, description="clips in all, for a data set without an official split; 0 if not known")
    folds: tuple[tuple[str, ...], ...] = Field((), description="groups of each published fold")
    parts: tuple[str, ...] = Field((), description="which parts of its files belong to it, where a layout has several")
    groups_are: str = Field("video", description="what a group is: clips of one group never lie on two sides of a fold")
    dims: dict[str, dict[str, int]] = Field(default_factory=dict, description="published feature sets: name -> modality -> width")
    licence: str = ""
    citation: str = ""
    obtain: str = Field("", description="where a user gets the files")
    downloads: tuple[Download, ...] = Field((), description="what is public and direct")
    labels: dict[str, dict[str, int]] = Field(default_factory=dict, description="published histogram: split -> label bin -> clips")
    best_published: dict[str, float] = Field(default_factory=dict, description="metric -> best published score, as a fraction")
    best_published_source: str = Field("", description="who reported the best published scores, under which protocol")
    checksums: dict[str, str] = Field(default_factory=dict, description="published file -> beginning of its SHA-256, 8 digits or more")
    text_max_tokens: int = Field(50, ge=1, description="tokens per clip that a text encoder keeps")
    simulated: dict[str, Any] = Field(default_factory=dict, description="settings of the simulated stand-in, checked by the simulator")


def known() -> tuple[str, ...]:
    """Names of all data sets in the catalogue, sorted."""
    return tuple(sorted(_entries()))


def facts(name: str) -> Facts:
    """The catalogue's entry ``name``; ConfigError if there is none, two, or a faulty one."""
    entries = _entries()
    if name not in entries:
        raise ConfigError(
            f"there is no data set called '{name}'", f"{suggest(name, entries)} Describe one of your own in {data_root() / 'datasets'}."
        )
    if len(entries[name]) > 1:
        raise ConfigError(f"two files describe the data set '{name}': {' and '.join(map(str, entries[name]))}", "Rename yours.")
    return _read(name, entries[name][0])


def _entries() -> dict[str, list[Traversable]]:
    found: dict[str, list[Traversable]] = {}
    own: Traversable = data_root() / "datasets"
    for folder in (files("harness.data") / "datasets", own):
        for entry in folder.iterdir() if folder.is_dir() else ():
            if entry.name.endswith(".toml"):
                found.setdefault(entry.name.removesuffix(".toml"), []).append(entry)
    return found


def _read(name: str, file: Traversable) -> Facts:
    return _parsed(name, str(file), file.read_bytes())


@lru_cache(maxsize=64)  # a large table asks for the same one hundreds of times
def _parsed(name: str, file: str, content: bytes) -> Facts:
    try:
        return Facts.model_validate({"name": name, **tomllib.loads(content.decode())})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not a TOML file: {error}", "Mend it, or remove it.") from error
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc']))} = {fault['input']!r}: {fault['msg']}" for fault in error.errors()]
        raise ConfigError(f"{file}: " + "; ".join(faults), f"Keys: {', '.join(Facts.model_fields)}.") from error
