"""Pixels of a film: frames evenly spaced in time, cut to a square, averaged down to a small picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from harness.data.features.base import Extractor, Modality, Reads, extractors, need
from harness.data.features.sound import decoding
from harness.errors import DataError

WHOLE = 0.95  # of the frames that the file's header announces: headers err by a few, a file that was cut off lacks many

Box = tuple[int, int, int, int]  # top, bottom, left, right: rows top to bottom - 1, columns left to right - 1


@extractors.register("frames")
class Pixels(Extractor):
    """Pixels of ``count`` frames, evenly spaced in time: one row per frame, bytes, which methods read as values in [0, 1].

    A row lists the picture line by line, from left to right, and of each pixel red, green and blue, or its grey alone:
    ``row.reshape(size, size, channels)``. Frame k is what is seen at (k + 1/2) / count of the film's length, whether its frames
    are equally long or not. A film of fewer frames gives each of them once. With ``seconds`` these are parts of that time around the
    film's middle, the time that extractors of sound with the same setting describe, and there are always ``count`` rows. A mark that
    a player should turn the picture is ignored.
    """

    name: ClassVar[str] = "frames"
    modality: ClassVar[Modality] = "vision"
    reads: ClassVar[Reads] = "video"
    libraries: ClassVar[tuple[str, ...]] = ("av",)
    extra: ClassVar[str] = "video"
    version: ClassVar[int] = 2  # 1 gave float32
    nothing: ClassVar[str] = "no frame shows a face, or the film ends before the first that is wanted"

    count: int = Field(15, ge=1, description="frames per clip")
    size: int = Field(32, ge=1, le=1024, description="pixels per side")
    colour: bool = Field(False, description="red, green and blue instead of grey")
    crop: Literal["centre", "face", "none"] = Field(
        "centre", description="square that is kept: the largest in the middle, or one around the face; none: all, squeezed to a square"
    )
    seconds: float | None = Field(
        None, gt=0, description="of the film's middle; frames beyond the end of a shorter one are black; none: the whole film"
    )
    margin: float = Field(0.2, ge=0, le=2, description="crop=face: width added on each side, as a share of the face's")

    def versions(self) -> dict[str, str]:
        found = super().versions()
        return {**found, "dlib": str(need("dlib", "faces").__version__)} if self.crop == "face" else found

    def extract(self, source: Path | str) -> np.ndarray:
        """(count or fewer, size * size * channels) uint8; (0, ...) where ``crop`` is ``face`` and no frame shows one, or where the
        film is so short that all frames would be black.

        DataError if the file cannot be decoded, holds no film or is cut short.
        """
        path = Path(source)
        times = _times(path)
        wanted = spaced(times, self.count) if self.seconds is None else within(times, self.count, self.seconds)
        pictures = _pictures(path, wanted, "rgb24" if self.colour else "gray") if wanted else []
        box = self._box(pictures) if pictures else None
        if box is None:
            return np.zeros((0, self.size**2 * (3 if self.colour else 1)), dtype=np.uint8)
        rows = [shrunk(picture[box[0] : box[1], box[2] : box[3]], self.size).ravel() for picture in pictures]
        black = 0 if self.seconds is None else self.count - len(rows)
        return np.pad(np.rint(255 * np.array(rows)).astype(np.uint8), ((0, black), (0, 0)))

    def _box(self, pictures: Sequence[np.ndarray]) -> Box | None:
        """What is kept of every picture: one box for the clip, since a box per frame would shake."""
        height, width = pictures[0].shape[:2]
        if self.crop == "face":
            return face_box(pictures, self.margin)
        if self.crop == "none":
            return 0, height, 0, width
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        return top, top + side, left, left + side


def spaced(times: Sequence[float], count: int) -> list[int]:
    """Indices of ``count`` frames: those seen at the middles of ``count`` equal parts of a film.

    ``times``: when each frame begins, ascending, and at the end when the last one ends. Fewer frames than ``count``: all of them.
    """
    begins = np.asarray(times[:-1])
    if len(begins) <= count:
        return list(range(len(begins)))
    return _seen(begins, times[0] + (np.arange(count) + 0.5) / count * (times[-1] - times[0]))


def within(times: Sequence[float], count: int, seconds: float) -> list[int]:
    """Indices of the frames seen at the middles of ``count`` equal parts of ``seconds`` around a film's middle, ``times`` as in ``spaced``.

    A film that is shorter begins with the first part; parts whose middle lies beyond its end have no index: there are fewer.
    """
    start = times[0] + max(0.0, (times[-1] - times[0] - seconds) / 2)
    wanted = start + (np.arange(count) + 0.5) / count * seconds
    return _seen(np.asarray(times[:-1]), wanted[wanted + _rounding(times) < times[-1]])


def _seen(begins: np.ndarray, wanted: np.ndarray) -> list[int]:
    """Index of the frame that is seen at each of the times ``wanted``."""
    found = np.searchsorted(begins, wanted + _rounding(begins), side="right") - 1
    return [int(index) for index in found]


def _rounding(times: Sequence[float] | np.ndarray) -> float:
    """A time that is a frame's beginning, or the film's end, but for this much is taken to be that."""
    return 1e-9 * max(1.0, abs(float(times[-1])))


def shrunk(picture: np.ndarray, size: int) -> np.ndarray:
    """``picture`` (rows, columns) or (rows, columns, channels) of bytes as (size, size[, channels]) in [0, 1].

    Every new pixel is the mean over the area that it covers, in float64: no pixel is lost and none is invented.
    """
    rows, columns = (_overlaps(length, size) for length in picture.shape[:2])
    narrow = np.tensordot(columns, picture.astype(np.float64), axes=(1, 1))  # (size, rows[, channels])
    result: np.ndarray = np.tensordot(rows, narrow, axes=(1, 1)) / 255.0
    return result


def _overlaps(length: int, size: int) -> np.ndarray:
    """Share of each of ``length`` old pixels in each of ``size`` new ones, (size, length); rows sum to 1."""
    edges = np.arange(size + 1) * (length / size)
    old = np.arange(length)
    covered = np.minimum(edges[1:, None], old + 1) - np.maximum(edges[:-1, None], old)
    result: np.ndarray = covered.clip(min=0) / (length / size)
    return result


# ---- faces


def face_box(pictures: Sequence[np.ndarray], margin: float) -> Box | None:
    """A square around the face: its median place over the pictures in which one is found, None if there is none.

    The detector is dlib's for upright frontal faces of 80 pixels and more (HOG and a linear classifier: Dalal, Triggs 2005; King
    2009); it comes inside that library. Of several faces the surest counts. ``margin``: width added on each side, as a share of
    the face's. The square is never larger than the picture and never beyond its edge.
    """
    detector = need("dlib", "faces").get_frontal_face_detector()
    found = [box for picture in pictures if (box := _surest(detector, picture)) is not None]
    if not found:
        return None
    top, bottom, left, right = np.median(np.array(found), axis=0)
    height, width = pictures[0].shape[:2]
    side = min(round(max(bottom - top, right - left) * (1 + 2 * margin)), height, width)
    up = int(np.clip(round((top + bottom - side) / 2), 0, height - side))
    over = int(np.clip(round((left + right - side) / 2), 0, width - side))
    return up, up + side, over, over + side


def _surest(detector: Any, picture: np.ndarray) -> Box | None:
    faces, scores, _ = detector.run(np.ascontiguousarray(picture), 0, 0.0)
    if not len(faces):
        return None
    face = faces[int(np.argmax(scores))]
    return face.top(), face.bottom() + 1, face.left(), face.right() + 1  # dlib's rectangles include their last row and column


# ---- decoding


def _times(path: Path) -> list[float]:
    """When each frame begins, in seconds, and when the last one ends; by number where the file states no times."""
    with _film(path) as (film, stream):
        found = [(frame.time, float((frame.duration or 0) * frame.time_base)) for frame in film.decode(stream)]
        stated, rate = int(stream.frames), float(stream.average_rate or 25)
    if not found:
        raise DataError(f"{path} holds no frame", "Replace the file, or take the clip out of the data set.")
    if len(found) < WHOLE * stated:
        raise DataError(f"{path} is cut short: {len(found)} of {stated} frames", "Fetch or copy it again.")
    if any(time is None for time, _ in found):
        return [number / rate for number in range(len(found) + 1)]
    begins = list(accumulate((float(time) for time, _ in found), max))  # a broken file may step back in time
    return [*begins, begins[-1] + (found[-1][1] or 1 / rate)]


def _pictures(path: Path, wanted: Sequence[int], form: str) -> list[np.ndarray]:
    """The frames at the ascending indices ``wanted``, as (rows, columns) of grey or (rows, columns, 3)."""
    found: dict[int, np.ndarray] = {}
    with _film(path) as (film, stream):
        for number, frame in enumerate(film.decode(stream)):
            if number in wanted:
                found[number] = frame.to_ndarray(format=form)
            if number >= wanted[-1]:
                break
    return [found[number] for number in wanted]


@contextmanager
def _film(path: Path) -> Iterator[tuple[Any, Any]]:
    """The opened file and its first film; DataError if it has none, or cannot be decoded inside the block."""
    av = need("av", "video")
    with decoding(path), av.open(str(path)) as film:
        if not film.streams.video:
            raise DataError(f"{path} holds no film, only sound", "Give a file with pictures, or take the clip out of the data set.")
        stream = film.streams.video[0]
        stream.thread_count = 1  # workers are processes of one thread
        yield film, stream
