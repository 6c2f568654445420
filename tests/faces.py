"""Talking faces: a small drawn face moved by facial action units, filmed with sound in the forms that RAVDESS and eNTERFACE'05 have."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile

UNITS = ("01", "02", "04", "05", "06", "07", "09", "10", "12", "14", "15", "17", "20", "23", "25", "26", "45")
EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
PROTOTYPES = {  # the units of each emotion's prototype (Ekman, Friesen 1978)
    "neutral": "", "calm": "12", "happy": "06 12 25", "sad": "01 04 15", "angry": "04 05 07 23", "fearful": "01 02 04 05 20 25",
    "disgust": "09 10 17", "surprised": "01 02 05 26",
}  # fmt: skip
RAVDESS_RATE, ENTERFACE_RATE = 30, 25  # frames a second
BACKGROUND = 235.0


@dataclass(frozen=True)
class Take:
    """What is filmed: action units (frames, 17) from 0 to 5 at ``rate`` frames a second, and one channel of sound in [-1, 1]."""

    units: np.ndarray
    rate: int
    sound: np.ndarray
    sampled: int  # Hz

    def at(self, rate: int) -> Take:
        """The same take filmed at another rate, between two frames a mixture of them."""
        frames = round(len(self.units) * rate / self.rate)
        times = np.arange(frames) * self.rate / rate
        units = np.stack([np.interp(times, np.arange(len(self.units)), column) for column in self.units.T], axis=1)
        return Take(units, rate, self.sound, self.sampled)


def real_take(folder: Path, clip: str) -> Take:
    """The RAVDESS clip ``01-01-...``: its action units frame by frame, and its sound."""
    with open(folder / "openface_frames" / f"{clip}.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    units = np.array([[float(row[f"AU{unit}_r"]) for unit in UNITS] for row in rows])
    sound, sampled = soundfile.read(folder / "audio" / f"03{clip[2:]}.flac", dtype="float64")
    return Take(units, RAVDESS_RATE, sound, sampled)


def made_take(emotion: str, seed: int, frames: int = 20, sampled: int = 16000) -> Take:
    """A made-up take: the emotion's prototype comes and goes, on a slowly wandering face; the sound is a tone."""
    rng = np.random.default_rng(seed)
    wander = np.abs(np.cumsum(rng.normal(0, 0.1, (frames, len(UNITS))), axis=0))
    prototype = np.array([4.0 * (unit in PROTOTYPES[emotion].split()) for unit in UNITS])
    bell = np.sin(np.pi * (np.arange(frames) + 0.5) / frames)
    seconds = np.arange(round(frames / RAVDESS_RATE * sampled)) / sampled
    tone = 0.3 * np.sin(2 * np.pi * (200 + 40 * EMOTIONS.index(emotion)) * seconds)
    return Take(np.clip(bell[:, None] * prototype + wander, 0, 5), RAVDESS_RATE, tone, sampled)


# ---- drawing


def face(units: Sequence[float], width: int, height: int, skin: int = 0) -> np.ndarray:
    """A face with these 17 intensities, (height, width, 3) bytes. ``skin`` chooses its colours: a person."""
    au = {unit: float(value) / 5 for unit, value in zip(UNITS, units, strict=True)}
    canvas = _Canvas(width, height)
    tone = np.array([225.0, 180.0, 150.0]) * (0.6 + 0.4 * ((skin * 7) % 11) / 10)
    canvas.ellipse(0, 0.03, 0.62, 0.84, tone)
    opening = max(0.02, 0.17 * (1 + 0.8 * au["05"] - 0.5 * au["07"] - 0.3 * au["06"]) * (1 - 0.9 * min(1, au["45"])))
    for side in (-1, 1):
        canvas.ellipse(side * 0.26, -0.15, 0.13, opening * 0.6, np.full(3, 250.0))
        canvas.ellipse(side * 0.26, -0.15, 0.05, min(0.05, opening * 0.6), np.array([40.0, 30, 20]))
        inner, outer = (-0.33 - 0.1 * au["01"] + 0.12 * au["04"], -0.33 - 0.12 * au["02"] + 0.04 * au["04"])
        canvas.stroke((side * (0.13 - 0.05 * au["04"]), inner), (side * 0.4, outer), 0.035, np.array([60.0, 40, 20]))
        canvas.stroke((side * 0.06, 0.05), (side * 0.1, 0.16 - 0.06 * au["09"]), 0.02 + 0.02 * au["09"], tone * 0.7)
    _mouth(canvas, au, tone)
    return canvas.bytes()


def _mouth(canvas: _Canvas, au: dict[str, float], tone: np.ndarray) -> None:
    half = 0.2 + 0.07 * au["12"] + 0.07 * au["20"] - 0.06 * au["23"]
    middle = 0.48 - 0.06 * au["10"] - 0.04 * au["17"]
    corner = middle - 0.14 * au["12"] + 0.12 * au["15"] - 0.02 * au["14"]
    gap = 0.02 + 0.12 * au["25"] + 0.2 * au["26"]
    lips = np.array([170.0, 60, 70])
    canvas.ellipse(0, middle + gap / 2, half * 0.7, gap / 2 + 0.03, np.array([70.0, 15, 20]))
    for side in (-1, 1):
        canvas.stroke((0, middle - 0.01), (side * half, corner), 0.03, lips)
        canvas.stroke((0, middle + gap + 0.02), (side * half, corner), 0.03, lips)
    canvas.stroke((-0.08, 0.76 - 0.06 * au["17"]), (0.08, 0.76 - 0.06 * au["17"]), 0.015, tone * 0.75)


class _Canvas:
    """A picture; x and y run from -1 to 1 over its shorter side, y downwards. Edges are soft over one pixel."""

    def __init__(self, width: int, height: int) -> None:
        self.unit = 2.0 / min(width, height)
        self.x = (np.arange(width) + 0.5 - width / 2)[None, :] * self.unit
        self.y = (np.arange(height) + 0.5 - height / 2)[:, None] * self.unit
        self.pixels = np.full((height, width, 3), BACKGROUND)

    def ellipse(self, x: float, y: float, a: float, b: float, colour: np.ndarray) -> None:
        rows, columns = self._window(x - a, x + a, y - b, y + b)
        radius = np.sqrt(((self.x[:, columns] - x) / a) ** 2 + ((self.y[rows] - y) / b) ** 2)
        self._blend(rows, columns, (radius - 1) * min(a, b), colour)

    def stroke(self, start: tuple[float, float], end: tuple[float, float], thickness: float, colour: np.ndarray) -> None:
        (left, right), (top, bottom) = sorted((start[0], end[0])), sorted((start[1], end[1]))
        rows, columns = self._window(left - thickness, right + thickness, top - thickness, bottom + thickness)
        x, y = self.x[:, columns] - start[0], self.y[rows] - start[1]
        dx, dy = end[0] - start[0], end[1] - start[1]
        along = np.clip((x * dx + y * dy) / (dx * dx + dy * dy), 0, 1)
        self._blend(rows, columns, np.hypot(x - along * dx, y - along * dy) - thickness, colour)

    def _window(self, left: float, right: float, top: float, bottom: float) -> tuple[slice, slice]:
        """Rows and columns of a shape and one pixel around it."""
        rows = np.searchsorted(self.y[:, 0], [top - self.unit, bottom + self.unit])
        columns = np.searchsorted(self.x[0], [left - self.unit, right + self.unit])
        return slice(*rows), slice(*columns)

    def _blend(self, rows: slice, columns: slice, distance: np.ndarray, colour: np.ndarray) -> None:
        cover = np.clip(0.5 - distance / self.unit, 0, 1)[..., None]
        part = self.pixels[rows, columns]
        part += cover * (colour - part)

    def bytes(self) -> np.ndarray:
        return np.clip(np.round(self.pixels), 0, 255).astype(np.uint8)


def drawn(take: Take, width: int, height: int, skin: int = 0) -> list[np.ndarray]:
    """Every frame of a take as a picture."""
    return [face(units, width, height, skin) for units in take.units]


# ---- filming


def film(path: Path, pictures: Sequence[np.ndarray], rate: int, take: Take | None, times: Sequence[int] | None = None) -> Path:
    """Write pictures (rows, columns, 3), both sizes even, at ``rate`` a second, with the sound of ``take`` if there is one.

    .mp4: H.264 and AAC; .avi: MPEG-4 and 16-bit PCM. ``times``: when each picture begins, in ticks of 1/``rate`` s.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"crf": "10", "preset": "veryfast"} if path.suffix == ".mp4" else {"qscale": "2"}
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("libx264" if path.suffix == ".mp4" else "mpeg4", rate=rate, options=options)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.bit_rate, stream.thread_count = "yuv420p", 4_000_000, 1
        voice: Any = out.add_stream("aac" if path.suffix == ".mp4" else "pcm_s16le", rate=take.sampled) if take else None
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = (times[number] if times else number), Fraction(1, rate)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
        if take:
            _sound(out, voice, take)
    return path


def _sound(out: Any, voice: Any, take: Take) -> None:
    planar = voice.codec_context.name == "aac"
    samples = take.sound.astype(np.float32) if planar else np.round(take.sound * 32767).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(samples[None, :], format="fltp" if planar else "s16", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = take.sampled, 0, Fraction(1, take.sampled)
    out.mux(voice.encode(frame))
    out.mux(voice.encode())


def ravdess_film(root: Path, clip: str, take: Take, width: int = 128, height: int = 72) -> Path:
    """The clip ``01-01-...`` as RAVDESS has it: ``Actor_NN/01-01-....mp4``, 30 frames a second."""
    actor = clip[-2:]
    pictures = drawn(take.at(RAVDESS_RATE), width, height, int(actor))
    return film(root / f"Actor_{actor}" / f"{clip}.mp4", pictures, RAVDESS_RATE, take)


def enterface_film(root: Path, subject: int, emotion: str, sentence: int, take: Take, width: int = 90, height: int = 72) -> Path:
    """A clip as eNTERFACE'05 has it: ``subject N/emotion/sentence K/sN_xx_K.avi``, 25 frames a second."""
    place = root / f"subject {subject}" / emotion / f"sentence {sentence}" / f"s{subject}_{emotion[:2]}_{sentence}.avi"
    return film(place, drawn(take.at(ENTERFACE_RATE), width, height, subject), ENTERFACE_RATE, take)


def openface_table(path: Path, units: np.ndarray, success: Sequence[int] | None = None, blanks: str = " ", faces: int = 1) -> Path:
    """OpenFace's table of the units (frames, 17), with its other columns in part; presence is an intensity of 1 or more."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = ["frame", *("face_id", "timestamp", "confidence", "success", "gaze_0_x", "pose_Tx")]
    columns = [*(f"AU{unit}_r" for unit in UNITS), *(f"AU{unit}_c" for unit in (*UNITS[:-1], "28", "45"))]
    lines = [f",{blanks}".join([*head, *columns])]
    for number, row in enumerate(units):
        for one in range(faces):
            good = 1 if success is None else success[number]
            lead = [number + 1, one, f"{number / 30:.3f}", f"{0.98 - 0.1 * one:.2f}", good, 0.1, 5.5]
            here = row if one == 0 else 5 - row
            presence = [*(here[:-1] >= 1), False, here[-1] >= 1]
            lines.append(f",{blanks}".join(map(str, [*lead, *(f"{value:.2f}" for value in here), *(f"{int(p)}.00" for p in presence)])))
    path.write_text("\n".join(lines) + "\n")
    return path
