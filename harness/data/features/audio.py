"""Extractors of sound: mel cepstra, log-mel spectra, openSMILE's eGeMAPS."""

from __future__ import annotations

import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from harness.data.features import spectral
from harness.data.features.base import Extractor, Modality, Reads, extractors, need
from harness.data.features.sound import cropped, load_sound


class Sound(Extractor):
    """What extractors of sound share: the sampling rate and the part of the clip."""

    modality: ClassVar[Modality] = "audio"
    reads: ClassVar[Reads] = "audio"
    libraries: ClassVar[tuple[str, ...]] = ("soundfile", "numpy", "scipy")
    extra: ClassVar[str] = "audio"

    sample_rate: int = Field(16000, ge=1000, description="Hz; sound of another rate is resampled")
    seconds: float | None = Field(None, gt=0, description="cut out the middle, or pad with silence at the end; none: the whole clip")

    def signal(self, source: Path | str) -> np.ndarray:
        """The samples to describe, (samples,) float64."""
        samples = None if self.seconds is None else max(1, round(self.seconds * self.sample_rate))
        return cropped(load_sound(Path(source), self.sample_rate), samples)


class Spectral(Sound):
    """Settings of mel spectra. The last samples of a clip that do not fill a frame are left out."""

    pre_emphasis: float = Field(0.0, ge=0, lt=1, description="weight of the sample before, subtracted")
    frame: int = Field(400, ge=2, description="samples")
    hop: int = Field(160, ge=1, description="samples from frame to frame")
    window: spectral.Window = Field("hann", description="hamming or hann, symmetric")
    fft: int | None = Field(None, description="points of the transform; none: the least power of two that holds a frame")
    mels: int = Field(64, ge=1, description="triangular filters, equally spaced on the HTK mel scale")
    low: float = Field(0.0, ge=0, description="Hz, lower edge of the filters")
    high: float | None = Field(None, description="Hz, upper edge of the filters; none: half the sampling rate")

    @model_validator(mode="after")
    def _check(self) -> Spectral:
        if self.points < self.frame:
            raise ValueError(f"fft = {self.fft} is shorter than frame = {self.frame}")
        if not self.low < self.top <= self.sample_rate / 2:
            raise ValueError(f"filters from low = {self.low:g} to high = {self.top:g} Hz do not fit 0 to {self.sample_rate / 2:g} Hz")
        return self

    @property
    def points(self) -> int:
        """Points of the transform."""
        return self.fft or 1 << (self.frame - 1).bit_length()

    @property
    def top(self) -> float:
        """Upper edge of the filters in Hz."""
        return self.sample_rate / 2 if self.high is None else self.high

    def energies(self, source: Path | str) -> np.ndarray:
        """Log-mel energies, (frames, mels) float64."""
        filters = spectral.mel_filters(self.sample_rate, self.points, self.mels, self.low, self.top)
        frames = spectral.framed(spectral.emphasised(self.signal(source), self.pre_emphasis), self.frame, self.hop)
        return spectral.log_energies(spectral.power(frames, self.window, self.points), filters)


@extractors.register("logmel")
class LogMel(Spectral):
    """Natural logarithm of mel energies: 64 filters, frames of 25 ms every 10 ms."""

    name: ClassVar[str] = "logmel"

    def extract(self, source: Path | str) -> np.ndarray:
        return self.energies(source).astype(np.float32)


@extractors.register("mfcc")
class Mfcc(Spectral):
    """Mel cepstra as MKCC's text has them: pre-emphasis 0.95, frames of 256 samples every 128, Hamming window, HTK mel scale (eq. 1),
    10 coefficients.

    The text leaves open: the sampling rate (here 16 kHz: frames of 16 ms; the paper's set-up follows Chumachenko et al. 2022, who use
    22050 Hz), the number of filters (here 26, HTK's usual one), which coefficients (here the first ten with the zeroth, natural
    logarithm, orthonormal DCT-II, no liftering). It crops or pads clips to 3.6 s: ``seconds=3.6``; by default the clip stays whole.
    """

    name: ClassVar[str] = "mfcc"

    pre_emphasis: float = Field(0.95, ge=0, lt=1, description="weight of the sample before, subtracted")
    frame: int = Field(256, ge=2, description="samples")
    hop: int = Field(128, ge=1, description="samples from frame to frame")
    window: spectral.Window = Field("hamming", description="hamming or hann, symmetric")
    mels: int = Field(26, ge=1, description="triangular filters, equally spaced on the HTK mel scale")
    coefficients: int = Field(10, ge=1, description="the first so many, the zeroth included")

    @model_validator(mode="after")
    def _check_coefficients(self) -> Mfcc:
        if self.coefficients > self.mels:
            raise ValueError(f"coefficients = {self.coefficients} is more than mels = {self.mels}")
        return self

    def extract(self, source: Path | str) -> np.ndarray:
        return self.cepstra(source).astype(np.float32)

    def cepstra(self, source: Path | str) -> np.ndarray:
        """(frames, coefficients) float64."""
        return spectral.cepstra(self.energies(source), self.coefficients)


@extractors.register("mfcc_delta")
class MfccDelta(Mfcc):
    """Mel cepstra, their deltas and delta-deltas side by side, (frames, 3 coefficients): the three channels of AMCM's MFCC picture.

    AMCM states none of the settings; here 40 coefficients of frames of 25 ms every 10 ms. As a picture:
    ``frames.reshape(len(frames), 3, coefficients)``.
    """

    name: ClassVar[str] = "mfcc_delta"

    pre_emphasis: float = Field(0.97, ge=0, lt=1, description="weight of the sample before, subtracted")
    frame: int = Field(400, ge=2, description="samples")
    hop: int = Field(160, ge=1, description="samples from frame to frame")
    mels: int = Field(64, ge=1, description="triangular filters, equally spaced on the HTK mel scale")
    coefficients: int = Field(40, ge=1, description="the first so many, the zeroth included")
    reach: int = Field(2, ge=1, description="frames on either side that a delta is fitted through")

    def extract(self, source: Path | str) -> np.ndarray:
        static = self.cepstra(source)
        first = spectral.deltas(static, self.reach)
        return np.concatenate([static, first, spectral.deltas(first, self.reach)], axis=1).astype(np.float32)


@extractors.register("egemaps")
class EGeMAPS(Sound):
    """openSMILE's extended Geneva minimalistic set (eGeMAPSv02): 88 functionals of a clip, or 25 descriptors every 10 ms.

    openSMILE is free for research and private use only: an extra of its own. A descriptor that is not defined is 0.
    """

    name: ClassVar[str] = "egemaps"
    libraries: ClassVar[tuple[str, ...]] = ("opensmile", "soundfile", "scipy")
    extra: ClassVar[str] = "egemaps"

    level: Literal["functionals", "lld"] = Field("functionals", description="functionals: one frame; lld: low-level descriptors")

    def extract(self, source: Path | str) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Segment too short")  # it fills with NaN, which assembling counts and sets to 0
            table = _smile(self.level).process_signal(self.signal(source), self.sample_rate)
        return table.to_numpy(dtype=np.float32)  # type: ignore[no-any-return]


@lru_cache(maxsize=2)
def _smile(level: str) -> Any:
    opensmile = need("opensmile", EGeMAPS.extra)
    levels = opensmile.FeatureLevel
    chosen = levels.Functionals if level == "functionals" else levels.LowLevelDescriptors
    return opensmile.Smile(feature_set=opensmile.FeatureSet.eGeMAPSv02, feature_level=chosen)
