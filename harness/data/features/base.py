"""What an extractor is: one named way from a clip's sound, film or transcript to frames of features.

To add one, write a module in this package (or one that an installed distribution names under the entry point
``harness.extractors``) with a class::

    @extractors.register("loudness")
    class Loudness(Extractor):
        '''Root mean square of every frame.'''

        name, modality, reads = "loudness", "audio", "audio"
        frame: int = Field(400, ge=1, description="samples")

        def extract(self, source: Path | str) -> np.ndarray: ...

Its fields are its settings. Import what is heavy inside ``extract``, through ``need``. Raise ``version`` when the numbers change.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Literal

import numpy as np

from harness.data.schema import Frozen, Ragged
from harness.errors import ConfigError
from harness.registry import Registry

Modality = Literal["text", "audio", "vision"]
Reads = Literal["text", "audio", "video"]


@dataclass(frozen=True)
class Clip:
    """What an extractor may know of a clip. Nothing of its label, group or split: features must not depend on them."""

    id: str
    text: str = ""
    audio: Path | None = None
    video: Path | None = None


class Extractor(Frozen, ABC):
    """Base of all extractors; an instance is its settings, immutable and cheap to send to another process."""

    name: ClassVar[str]
    modality: ClassVar[Modality]
    reads: ClassVar[Reads]
    version: ClassVar[int] = 1
    libraries: ClassVar[tuple[str, ...]] = ()  # distributions that compute the numbers: their versions enter the cache key
    extra: ClassVar[str] = ""  # of this project: what to install where one of ``libraries`` is missing
    wants: ClassVar[str] = ""  # what ``source`` looks for, in messages, where ``reads`` does not say it
    nothing: ClassVar[str] = "nothing to describe"  # what a file without any frame of features lacks, in messages

    @abstractmethod
    def extract(self, source: Path | str) -> np.ndarray:
        """Frames of one clip, (frames, dim) float32, from a media file's path, or from a transcript; pixels as uint8, which are stored as
        they are and read as 255ths.

        Depends on the source's content and the settings alone, on nothing random and on no other clip. ``dim`` is the same for
        every source; a source without anything to describe gives (0, dim). Raises DataError where the file cannot be decoded.
        """

    def source(self, clip: Clip) -> Path | str | None:
        """What to extract this clip's features from, or None if it has no such thing. Sound is taken from a film where there is
        no sound file."""
        if self.reads == "text":
            return clip.text or None
        return clip.video if self.reads == "video" else clip.audio or clip.video

    def recipe(self) -> dict[str, Any]:
        """All that decides the numbers besides the source, as JSON: name, version, settings, versions of the libraries.

        Override where a setting is a place and not a number: leave the place out, put in the SHA-256 of what lies there.
        ConfigError if a library is not installed.
        """
        settings = self.model_dump(mode="json")
        return {"extractor": self.name, "version": self.version, "settings": settings, "libraries": self.versions()}

    def versions(self) -> dict[str, str]:
        """Distribution -> version of ``libraries``; ConfigError if one is not installed."""
        return {library: _version(library, self) for library in self.libraries}

    def shown(self) -> dict[str, Any]:
        """The settings as a data card shows them, which names no one's folders: of a path its last part only."""
        return {key: value.name if isinstance(value, Path) else value for key, value in self}

    def described(self) -> str:
        """One line for a data card: name, version, settings and libraries."""
        settings = ", ".join(f"{key}={value}" for key, value in self.shown().items())
        made_by = ", ".join(f"{library} {found}" for library, found in self.versions().items())
        return f"{self.name} {self.version} ({settings})" + (f"; {made_by}" if made_by else "")


@dataclass(frozen=True)
class Gathered:
    """Features of all clips at once, with what a reader of the card should know of them (title -> text)."""

    features: Ragged | Sequence[np.ndarray]
    notes: dict[str, str] = field(default_factory=dict)


class Collective(Extractor):
    """An extractor that does all clips together in one process: it loads a large table once, or computes in batches."""

    @abstractmethod
    def gather(self, sources: Sequence[str], cache: Path) -> Gathered:
        """Features of every source, in order. ``cache`` is a folder for results that are worth keeping, named by content."""

    def extract(self, source: Path | str) -> np.ndarray:
        with TemporaryDirectory() as cache:
            features = self.gather([str(source)], Path(cache)).features
        return features.clip(0).numpy() if isinstance(features, Ragged) else features[0]


extractors: Registry[type[Extractor]] = Registry("extractor", "harness.extractors")


def need(module: str, extra: str) -> Any:
    """The imported ``module``; ConfigError naming this project's ``extra`` if it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(f"the package '{module}' is not installed", install(extra)) from error


def install(extra: str) -> str:
    """How to install an extra, for an error message."""
    return f'Install it with: pip install "mer-harness[{extra}]"'


def _version(library: str, extractor: Extractor) -> str:
    try:
        return version(library)
    except PackageNotFoundError as error:
        raise ConfigError(
            f"the extractor '{extractor.name}' needs the package '{library}', which is not installed", install(extractor.extra)
        ) from error
