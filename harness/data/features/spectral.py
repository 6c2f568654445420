"""Short-time spectra in float64: framing, mel filters, cepstra, deltas. Plain numpy, so that nothing slow is imported.

librosa computes the same filters and cepstra, but its first call takes 9 to 25 s in every process (it compiles).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np

from harness.errors import ConfigError

FLOOR = 1e-10  # of the energy before its logarithm: digital silence is -23.03, not minus infinity

Window = Literal["hamming", "hann"]


def emphasised(signal: np.ndarray, weight: float) -> np.ndarray:
    """Pre-emphasis y[t] = x[t] - weight x[t - 1], y[0] = x[0]; (samples,)."""
    result = signal.astype(np.float64)
    result[1:] -= weight * signal[:-1]
    return result


def framed(signal: np.ndarray, frame: int, hop: int) -> np.ndarray:
    """Frames that lie wholly within ``signal``, (1 + (samples - frame) // hop, frame); a shorter signal is one, padded with zeros."""
    whole = np.pad(signal, (0, max(0, frame - len(signal))))
    return np.lib.stride_tricks.sliding_window_view(whole, frame)[::hop]


def power(frames: np.ndarray, window: Window, fft: int) -> np.ndarray:
    """Power |DFT|^2 / frame of windowed frames (frames, frame), zeros up to ``fft``: (frames, fft // 2 + 1)."""
    length = frames.shape[1]
    spectrum = np.fft.rfft(frames * (np.hamming(length) if window == "hamming" else np.hanning(length)), n=fft)
    result: np.ndarray = (spectrum.real**2 + spectrum.imag**2) / length
    return result


def to_mel(hertz: np.ndarray | float) -> np.ndarray:
    """Mel of a frequency in Hz, 2595 log10(1 + f / 700) (HTK's scale; MKCC, eq. 1)."""
    mel: np.ndarray = 2595.0 * np.log10(1.0 + np.asarray(hertz, dtype=np.float64) / 700.0)
    return mel


def from_mel(mel: np.ndarray | float) -> np.ndarray:
    """Frequency in Hz of a mel, the inverse of ``to_mel``."""
    hertz: np.ndarray = 700.0 * (10.0 ** (np.asarray(mel, dtype=np.float64) / 2595.0) - 1.0)
    return hertz


@lru_cache(maxsize=16)
def mel_filters(rate: int, fft: int, mels: int, low: float, high: float) -> np.ndarray:
    """Triangular filters of height 1 with corners equally spaced in mel from ``low`` to ``high`` Hz, (fft // 2 + 1, mels).

    ConfigError if one falls between two bins of the spectrum and would always be silent.
    """
    corners = from_mel(np.linspace(to_mel(low), to_mel(high), mels + 2))
    bins = np.arange(fft // 2 + 1)[:, None] * (rate / fft)
    rising = (bins - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - bins) / (corners[2:] - corners[1:-1])
    filters: np.ndarray = np.maximum(0.0, np.minimum(rising, falling))
    silent = int((filters.max(axis=0) == 0).sum())
    if silent:
        raise ConfigError(
            f"{silent} of {mels} mel filters from {low:g} to {high:g} Hz hold no bin of a spectrum of {fft} points at {rate} Hz",
            "Ask for fewer filters (mels), or for a longer transform (fft).",
        )
    filters.setflags(write=False)
    return filters


def log_energies(spectra: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """Natural logarithm of each filter's energy, (frames, mels)."""
    energies: np.ndarray = np.log(np.maximum(spectra @ filters, FLOOR))
    return energies


@lru_cache(maxsize=16)
def _cosines(mels: int, coefficients: int) -> np.ndarray:
    """Orthonormal DCT-II, (mels, coefficients)."""
    angle = np.pi / mels * (np.arange(mels)[:, None] + 0.5) * np.arange(coefficients)
    basis: np.ndarray = np.sqrt(2.0 / mels) * np.cos(angle)
    basis[:, 0] /= np.sqrt(2.0)
    return basis


def cepstra(energies: np.ndarray, coefficients: int) -> np.ndarray:
    """The first coefficients of the orthonormal DCT-II over the filters, the zeroth included: (frames, coefficients)."""
    result: np.ndarray = energies @ _cosines(energies.shape[1], coefficients)
    return result


def deltas(frames: np.ndarray, reach: int) -> np.ndarray:
    """Slope of the line fitted through each frame and ``reach`` neighbours on either side, per frame; edges are repeated.

    d[t] = sum_n n (c[t + n] - c[t - n]) / (2 sum_n n^2), n = 1..reach; (frames, dim).
    """
    padded = np.pad(frames, ((reach, reach), (0, 0)), mode="edge")
    middle, weights = np.arange(reach, reach + len(frames)), range(1, reach + 1)
    total = np.zeros(frames.shape)
    for n in weights:
        total += n * (padded[middle + n] - padded[middle - n])
    return total / (2 * sum(n * n for n in weights))
