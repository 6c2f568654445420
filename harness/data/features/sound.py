"""Sound as numbers: one channel, one sampling rate, from a sound file or from a film's sound track."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np

from harness.data.features.base import need
from harness.data.sources.media import media_kind
from harness.errors import DataError

NOT_SOUNDFILE = (".m4a", ".aac")  # sound files that libsndfile does not read
UNKNOWN_LENGTH = (0, 0xFFFFFFFF)  # what a RIFF header says that was written before the sound was


def load_sound(path: Path, rate: int) -> np.ndarray:
    """Samples of ``path`` in [-1, 1], (samples,) float64: the mean of its channels, resampled to ``rate`` Hz.

    DataError if it cannot be decoded, is cut short, has no sound, or samples that are not finite; ConfigError without the
    packages that decode.
    """
    film = media_kind(path) == "video" or path.suffix.lower() in NOT_SOUNDFILE
    channels, found = _from_film(path) if film else _from_file(path)
    if not len(channels):
        raise DataError(f"{path} holds no sound", "Replace the file, or take the clip out of the data set.")
    if not np.isfinite(channels).all():
        raise DataError(f"{path} has samples that are not finite", "Write it again as 16-bit PCM.")
    return resampled(channels.mean(axis=1), found, rate)


def resampled(signal: np.ndarray, found: int, rate: int) -> np.ndarray:
    """``signal`` (samples,) of ``found`` Hz at ``rate`` Hz by a polyphase filter: ceil(samples * rate / found) samples."""
    if found == rate:
        return signal
    from scipy.signal import resample_poly

    common = gcd(found, rate)
    result: np.ndarray = resample_poly(signal, rate // common, found // common)
    return result


def cropped(signal: np.ndarray, samples: int | None) -> np.ndarray:
    """``signal`` as long as ``samples``: the middle of a longer one, a shorter one with zeros at its end. None: as it is."""
    if samples is None:
        return signal
    start = max(0, (len(signal) - samples) // 2)
    part = signal[start : start + samples]
    return np.pad(part, (0, samples - len(part)))


def _from_file(path: Path) -> tuple[np.ndarray, int]:
    """Samples (samples, channels) and rate."""
    soundfile = need("soundfile", "audio")
    _check_whole(path)
    with decoding(path):
        samples, rate = soundfile.read(str(path), dtype="float64", always_2d=True)
    return samples, rate


def _check_whole(path: Path) -> None:
    """DataError for a WAV file that ends before its header says: libsndfile would read the rest of it without a word."""
    with decoding(path), open(path, "rb") as file:
        head = file.read(8)
        length = int.from_bytes(head[4:], "little")
    if head[:4] == b"RIFF" and length not in UNKNOWN_LENGTH and path.stat().st_size < length:
        raise DataError(f"{path} is cut short: {path.stat().st_size} of {length + 8} bytes", "Fetch or copy it again.")


def _from_film(path: Path) -> tuple[np.ndarray, int]:
    """Samples (samples, channels) and rate of the first sound track."""
    av = need("av", "video")
    with decoding(path), av.open(str(path)) as film:
        if not film.streams.audio:
            raise DataError(f"{path} has no sound track", "Give a sound file for the clip, or take the clip out.")
        rate = int(film.streams.audio[0].rate)
        planar = av.AudioResampler(format="fltp")
        parts = [part.to_ndarray() for frame in film.decode(audio=0) for part in planar.resample(frame)]
    return (np.concatenate(parts, axis=1).T.astype(np.float64) if parts else np.zeros((0, 1))), rate


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Turn what a decoder raises into a DataError that names the file."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # each library has exceptions of its own for a damaged file
        raise DataError(f"{path} cannot be decoded: {_reason(error)}", "Fetch or convert it again.") from error


def _reason(error: Any) -> str:
    return f"{type(error).__name__}: {error}"
