"""The raw-video path: films that are drawn here, decoded, cut, extracted; OpenFace's tables; from a folder of films to a trained method."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from kit import call, typed

from harness.data import store
from harness.data.features import Clip
from harness.data.features.openface import COLUMNS, INTENSITY, PRESENCE, OpenFace
from harness.data.features.sound import load_sound
from harness.data.features.video import Pixels, face_box, shrunk, spaced, within
from harness.data.schema import Dataset
from harness.errors import ConfigError, DataError

av = pytest.importorskip("av")
pytest.importorskip("soundfile")

import faces  # noqa: E402  (it needs both)

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, what standard-definition films are written with
WIDTH, HEIGHT = 96, 64


@pytest.fixture(scope="module")
def take() -> faces.Take:
    return faces.made_take("happy", seed=1)


@pytest.fixture(scope="module")
def films(take: faces.Take, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One take in both forms."""
    folder = tmp_path_factory.mktemp("films")
    pictures = faces.drawn(take, WIDTH, HEIGHT)
    return {form: faces.film(folder / f"take.{form}", pictures, 30, take) for form in ("mp4", "avi")}


def flat(levels: list[int], width: int = 32, height: int = 16) -> list[np.ndarray]:
    """Pictures of one grey each."""
    return [np.full((height, width, 3), level, np.uint8) for level in levels]


def seen(extractor: Pixels, path: Path) -> np.ndarray:
    """Frames as methods read them, in [0, 1]."""
    found = extractor.extract(path)
    assert found.dtype == np.uint8
    return found.astype(np.float32) / 255


FORMS = pytest.mark.parametrize("form", ["mp4", "avi"])


class TestRenderer:
    @FORMS
    def test_what_was_drawn_and_said_comes_back(self, films: dict[str, Path], take: faces.Take, form: str) -> None:
        pictures = np.array(faces.drawn(take, WIDTH, HEIGHT)).astype(float)
        with av.open(str(films[form])) as film:
            seen = np.array([frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]).astype(float)
        assert seen.shape == pictures.shape == (20, HEIGHT, WIDTH, 3)
        assert np.abs(seen - pictures).mean() < 2.5  # of 255: colours are stored at half the resolution, edges suffer
        assert np.abs(seen @ LUMA - pictures @ LUMA).max() < 30
        sound = load_sound(films[form], take.sampled)
        lost = 0 if form == "avi" else 2048  # AAC codes whole blocks of 1024 samples, and one before the first
        assert 0 <= len(sound) - len(take.sound) <= lost
        assert np.corrcoef(sound[2048 : len(take.sound)], take.sound[2048:])[0, 1] > 0.99 or form == "mp4"

    @pytest.mark.parametrize(
        ("unit", "rows"), [("01", (0.2, 0.45)), ("05", (0.3, 0.55)), ("12", (0.6, 0.9)), ("26", (0.6, 1.0)), ("45", (0.3, 0.55))]
    )
    def test_every_unit_moves_its_part_of_the_face_alone(self, unit: str, rows: tuple[float, float]) -> None:
        still = faces.face([0] * 17, 64, 64).astype(int)
        moved = faces.face([5.0 * (other == unit) for other in faces.UNITS], 64, 64).astype(int)
        changed = np.flatnonzero(np.abs(still - moved).sum(axis=(1, 2)))
        assert len(changed) and rows[0] * 64 <= changed.min() and changed.max() <= rows[1] * 64

    def test_another_rate_keeps_length_and_ends(self) -> None:
        take = faces.made_take("sad", 0, frames=31)
        other = take.at(25)
        assert len(other.units) == round(31 / 30 * 25) and np.array_equal(other.units[0], take.units[0])
        np.testing.assert_allclose(other.units[5], take.units[6])  # both at 0.2 s


class TestSampling:
    @given(st.integers(1, 40), st.integers(1, 60))
    def test_of_a_steady_film_the_middles_of_equal_parts(self, count: int, frames: int) -> None:
        found = spaced([number / 30 for number in range(frames + 1)], count)
        if frames <= count:
            assert found == list(range(frames))
        else:
            assert found == [(2 * k + 1) * frames // (2 * count) for k in range(count)]
            assert len(set(found)) == count

    @given(st.lists(st.integers(1, 50), min_size=2, max_size=20), st.integers(1, 15), st.integers(0, 1000))
    def test_of_any_film_what_is_seen_at_these_times(self, lasts: list[int], count: int, start: int) -> None:
        """Against a walk through the film; whole milliseconds, so that no rounding decides."""
        if len(lasts) <= count:
            return
        times = start + np.concatenate([[0], np.cumsum(lasts)])
        expected = []
        for k in range(count):
            moment = 2 * count * start + (2 * k + 1) * sum(lasts)  # in parts of 1 / (2 count) ms
            expected.append(max(n for n in range(len(lasts)) if 2 * count * int(times[n]) <= moment))
        assert spaced((times / 1000).tolist(), count) == expected


class TestWindow:
    """The same time around the middle of a film as of its sound."""

    @given(st.integers(1, 20), st.integers(1, 80), st.integers(1, 60))
    @example(15, 54, 60)  # the tenth part's middle is the film's end, which sums of floats miss by a bit
    def test_the_middle_of_a_long_film_the_whole_of_a_short_one(self, count: int, frames: int, tenths: int) -> None:
        """Against a walk through every part; 1/30 s per frame, times in 1 / (600 count) s so that no rounding decides."""
        found = within([number / 30 for number in range(frames + 1)], count, tenths / 10)
        unit = 600 * count
        length, window = frames * unit // 30, tenths * unit // 10
        start = max(0, length - window) // 2 if (length - window) % 2 == 0 or length <= window else (length - window) / 2
        moments = [start + (2 * k + 1) * window / (2 * count) for k in range(count)]
        assert found == [int(moment // (unit // 30)) for moment in moments if moment < length]

    def test_beyond_the_end_frames_are_black(self, tmp_path: Path) -> None:
        path = faces.film(tmp_path / "short.mp4", flat([200] * 30), 30, None)
        found = seen(Pixels(count=4, size=2, seconds=2.0), path)
        assert found.shape == (4, 4) and (found[:2] > 0.7).all() and not found[2:].any()
        assert Pixels(count=1, size=2, seconds=60.0).extract(path).shape == (0, 4)

    def test_of_a_longer_film_the_middle(self, tmp_path: Path) -> None:
        path = faces.film(tmp_path / "long.mp4", flat([20] * 30 + [120] * 30 + [220] * 30), 30, None)
        found = seen(Pixels(count=3, size=1, seconds=1.0), path)
        np.testing.assert_allclose(found, 120 / 255, atol=0.02)
        whole = seen(Pixels(count=3, size=1, seconds=3.0), path)
        np.testing.assert_allclose(whole[:, 0], np.array([20, 120, 220]) / 255, atol=0.02)


class TestShrinking:
    def test_a_whole_factor_gives_block_means(self) -> None:
        picture = np.random.default_rng(0).integers(0, 256, (12, 20, 3)).astype(np.uint8)
        expected = picture.reshape(4, 3, 4, 5, 3).mean(axis=(1, 3)) / 255
        np.testing.assert_allclose(shrunk(picture, 4), expected, rtol=1e-12)

    @given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 30))
    def test_the_mean_stays_and_nothing_leaves_the_unit_interval(self, height: int, width: int, size: int) -> None:
        picture = np.random.default_rng(height * 31 + width).integers(0, 256, (height, width)).astype(np.uint8)
        small = shrunk(picture, size)
        assert small.shape == (size, size) and small.min() >= 0 and small.max() <= 1 + 1e-12
        np.testing.assert_allclose(small.mean(), picture.mean() / 255, rtol=1e-9)

    def test_the_same_size_is_the_same_picture(self) -> None:
        picture = np.random.default_rng(0).integers(0, 256, (9, 9)).astype(np.uint8)
        np.testing.assert_allclose(shrunk(picture, 9), picture / 255, rtol=1e-12)


class TestFrames:
    @FORMS
    @pytest.mark.parametrize("colour", [False, True])
    def test_they_are_those_that_were_drawn(self, films: dict[str, Path], take: faces.Take, form: str, colour: bool) -> None:
        found = seen(Pixels(count=4, size=16, colour=colour), films[form])
        pictures = [faces.drawn(take, WIDTH, HEIGHT)[index][:, 16:80] for index in (2, 7, 12, 17)]
        expected = np.array([shrunk(picture, 16) for picture in pictures])
        expected = (expected if colour else expected @ LUMA).reshape(4, -1)
        assert found.dtype == np.float32 and found.shape == (4, 256 * (3 if colour else 1))
        assert np.abs(found - expected).mean() < 0.01 and found.min() >= 0 and found.max() <= 1

    def test_the_order_of_a_row(self, tmp_path: Path) -> None:
        """Red on the left above, green on the right above, blue below, all larger than the codec's blocks."""
        picture = np.zeros((64, 64, 3), np.uint8)
        picture[:32, :32, 0] = picture[:32, 32:, 1] = picture[32:, :, 2] = 255
        path = faces.film(tmp_path / "flag.mp4", [picture] * 3, 30, None)
        row = seen(Pixels(count=1, size=2, colour=True), path)[0].reshape(2, 2, 3)
        np.testing.assert_allclose(row, [[[1, 0, 0], [0, 1, 0]], [[0, 0, 1], [0, 0, 1]]], atol=0.1)
        np.testing.assert_allclose(seen(Pixels(count=1, size=2), path)[0], [LUMA[0], LUMA[1], LUMA[2], LUMA[2]], atol=0.1)

    def test_the_crop(self, tmp_path: Path) -> None:
        picture = np.zeros((32, 96, 3), np.uint8)
        picture[:, 32:64] = 255
        path = faces.film(tmp_path / "wide.mp4", [picture] * 2, 30, None)
        assert seen(Pixels(count=1, size=4), path).mean() > 0.98
        np.testing.assert_allclose(seen(Pixels(count=1, size=3, crop="none"), path).reshape(3, 3).mean(0), [0, 1, 0], atol=0.05)

    @FORMS
    def test_a_film_of_fewer_frames_gives_each_once(self, tmp_path: Path, form: str) -> None:
        found = seen(Pixels(count=15, size=2), faces.film(tmp_path / f"short.{form}", flat([10, 100, 200]), 30, None))
        np.testing.assert_allclose(found.mean(1) * 255, [10, 100, 200], atol=3)
        assert Pixels(count=15, size=2).extract(faces.film(tmp_path / f"one.{form}", flat([50]), 30, None)).shape == (1, 4)

    def test_frames_of_unequal_length(self, tmp_path: Path) -> None:
        """The second picture stands for eight tenths of the film, so it is what is seen at most of the times."""
        path = faces.film(tmp_path / "slow.mp4", flat([10, 100, 150, 200]), 30, None, times=[0, 3, 27, 30])
        found = seen(Pixels(count=3, size=1), path)
        np.testing.assert_allclose(found[:, 0] * 255, [100, 100, 100], atol=3)

    def test_twice_the_same_bits(self, films: dict[str, Path]) -> None:
        np.testing.assert_array_equal(Pixels().extract(films["mp4"]), Pixels().extract(films["mp4"]))

    @FORMS
    @pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.8])
    def test_a_file_that_was_cut_off(self, films: dict[str, Path], tmp_path: Path, form: str, share: float) -> None:
        whole = films[form].read_bytes()
        path = tmp_path / f"cut.{form}"
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(DataError, match=rf"cut\.{form} (cannot be decoded|is cut short|holds no)"):
            Pixels().extract(path)

    def test_a_file_that_was_cut_off_behind_its_table_of_contents(self, films: dict[str, Path], tmp_path: Path) -> None:
        """A film made for streaming opens although most of it is not there."""
        path = tmp_path / "stream.mp4"
        with av.open(str(films["mp4"])) as source, av.open(str(path), "w", options={"movflags": "faststart"}) as out:
            stream = out.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    out.mux(packet)
        assert Pixels(count=20, size=2).extract(path).shape == (20, 4)
        path.write_bytes(path.read_bytes()[: int(0.6 * path.stat().st_size)])
        with pytest.raises(DataError, match=r"stream\.mp4 (cannot be decoded|is cut short: \d+ of 20 frames)"):
            Pixels().extract(path)

    def test_files_that_are_no_films(self, take: faces.Take, tmp_path: Path) -> None:
        import soundfile

        soundfile.write(tmp_path / "sound.wav", take.sound, take.sampled)
        (tmp_path / "notes.mp4").write_text("no film at all")
        with pytest.raises(DataError, match=r"sound\.wav holds no film, only sound"):
            Pixels().extract(tmp_path / "sound.wav")
        with pytest.raises(DataError, match=r"notes\.mp4 cannot be decoded"):
            Pixels().extract(tmp_path / "notes.mp4")
        with pytest.raises(DataError, match=r"gone\.mp4 cannot be decoded: FileNotFoundError"):
            Pixels().extract(tmp_path / "gone.mp4")


class TestRealFace:
    """With dlib itself, on the portrait that comes with matplotlib (Grace Hopper, US Navy, public domain)."""

    @pytest.fixture
    def portrait(self) -> np.ndarray:
        pytest.importorskip("dlib", reason="extra 'faces' is not installed")
        pytest.importorskip("matplotlib", reason="extra 'figures' is not installed")
        from matplotlib import cbook, image

        return np.asarray(image.imread(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)))

    def test_it_is_found_where_it_is_and_nowhere_else(self, portrait: np.ndarray) -> None:
        top, bottom, left, right = face_box([portrait], 0.2) or (0, 0, 0, 0)
        assert 60 < top < 170 and 320 < bottom < 430 and 90 < left < 180 and 340 < right < 450  # from above the brows to the chin
        assert bottom - top == right - left
        assert face_box([portrait[350:]], 0.2) is None  # collar and coat

    def test_a_mirrored_face_is_found_mirrored(self, portrait: np.ndarray) -> None:
        _, _, left, right = face_box([portrait], 0.0) or (0, 0, 0, 0)
        _, _, mirrored_left, mirrored_right = face_box([portrait[:, ::-1]], 0.0) or (0, 0, 0, 0)
        near = pytest.approx(portrait.shape[1], abs=2 * 16)  # the detector's windows move in steps of 8 pixels and grow by sixths
        assert left + mirrored_right == near and right + mirrored_left == near

    def test_films_are_cropped_to_it(self, portrait: np.ndarray, tmp_path: Path) -> None:
        path = faces.film(tmp_path / "clip.mp4", [portrait] * 4, 30, None)
        top, bottom, left, right = face_box([portrait], 0.2) or (0, 0, 0, 0)
        cropped = seen(Pixels(count=2, size=32, crop="face", margin=0.2, colour=True), path)
        expected = portrait[top:bottom, left:right].mean((0, 1)) / 255
        assert cropped.shape == (2, 32 * 32 * 3)
        np.testing.assert_allclose(cropped.reshape(-1, 3).mean(0), expected, atol=0.05)  # lossy film, box from decoded frames


class TestFaceCrop:
    """With a stand-in for dlib that answers from a list: its weights are not everywhere."""

    class Box:
        def __init__(self, top: int, bottom: int, left: int, right: int) -> None:
            self.edges = top, bottom, left, right

        def __getattr__(self, side: str) -> Any:
            place = ("top", "bottom", "left", "right").index(side)
            return lambda: self.edges[place]

    def detector(self, monkeypatch: pytest.MonkeyPatch, answers: list[list[tuple[tuple[int, int, int, int], float]]]) -> None:
        left = iter(answers)

        def run(picture: np.ndarray, upsample: int, threshold: float) -> Any:
            found = next(left)
            return [self.Box(*box) for box, _ in found], [score for _, score in found], [0] * len(found)

        fake = SimpleNamespace(get_frontal_face_detector=lambda: SimpleNamespace(run=run), __version__="20.0")
        monkeypatch.setitem(sys.modules, "dlib", fake)

    def test_the_median_of_the_surest_faces_made_square(self, monkeypatch: pytest.MonkeyPatch) -> None:
        sure, wrong = ((20, 39, 40, 59), 1.0), ((0, 9, 0, 9), 0.2)
        self.detector(monkeypatch, [[wrong, sure], [], [((22, 41, 42, 61), 0.7)], [((18, 37, 38, 57), 0.7)]])
        pictures = [np.zeros((80, 120), np.uint8)] * 4
        assert face_box(pictures, 0.0) == (20, 40, 40, 60)

    @pytest.mark.parametrize(
        ("face", "margin", "box"),
        [
            ((20, 39, 40, 59), 0.5, (10, 50, 30, 70)),
            ((0, 19, 100, 119), 0.5, (0, 40, 80, 120)),  # at the edge: moved in
            ((10, 69, 20, 79), 1.0, (0, 80, 10, 90)),  # larger than the picture: as large as it
            ((-8, 31, 0, 39), 0.0, (0, 40, 0, 40)),  # dlib's boxes may begin outside
        ],
    )
    def test_margin_and_edges(
        self, monkeypatch: pytest.MonkeyPatch, face: tuple[int, int, int, int], margin: float, box: tuple[int, int, int, int]
    ) -> None:
        self.detector(monkeypatch, [[(face, 1.0)]])
        assert face_box([np.zeros((80, 120, 3), np.uint8)], margin) == box

    def test_the_face_is_what_is_extracted(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        picture = np.zeros((64, 96, 3), np.uint8)
        picture[16:32, 64:80] = 255
        path = faces.film(tmp_path / "clip.mp4", [picture] * 4, 30, None)
        self.detector(monkeypatch, [[((16, 31, 64, 79), 1.0)], []])
        assert seen(Pixels(count=2, size=4, crop="face", margin=0), path).mean() > 0.95
        self.detector(monkeypatch, [[], []])
        assert Pixels(count=2, size=4, crop="face").extract(path).shape == (0, 16)

    def test_without_dlib_the_extra_is_named(self, monkeypatch: pytest.MonkeyPatch, films: dict[str, Path]) -> None:
        monkeypatch.setitem(sys.modules, "dlib", None)
        with pytest.raises(ConfigError, match=r"'dlib' is not installed(?s:.)*mer-harness\[faces\]"):
            Pixels(crop="face").recipe()
        assert "dlib" not in Pixels().recipe()["libraries"]


UNITS = np.round(np.random.default_rng(3).uniform(0, 5, (6, 17)), 2)


def presence(units: np.ndarray) -> np.ndarray:
    return np.column_stack([units[:, :-1] >= 1, np.zeros(len(units)), units[:, -1:] >= 1])


class TestOpenFace:
    def test_the_columns(self) -> None:
        assert (
            len(INTENSITY) == 17 and len(PRESENCE) == 18 and set(PRESENCE) - {name.replace("_r", "_c") for name in INTENSITY} == {"AU28_c"}
        )

    @pytest.mark.parametrize("blanks", ["", " "])
    @pytest.mark.parametrize("units", ["both", "intensity", "presence"])
    def test_units_by_name_with_or_without_blanks(self, tmp_path: Path, blanks: str, units: Any) -> None:
        path = faces.openface_table(tmp_path / "clip.csv", UNITS, blanks=blanks)
        expected = {"both": np.hstack([UNITS, presence(UNITS)]), "intensity": UNITS, "presence": presence(UNITS)}[units]
        found = OpenFace(units=units).extract(path)
        np.testing.assert_array_equal(found, expected.astype(np.float32))
        assert found.shape[1] == len(COLUMNS[units]) and found.dtype == np.float32

    @pytest.mark.parametrize(
        ("failed", "kept"), [("zero", [None, 1, None, 3, 4, None]), ("previous", [1, 1, 1, 3, 4, 4]), ("drop", [1, 3, 4])]
    )
    def test_frames_without_a_face(self, tmp_path: Path, failed: Any, kept: list[int | None]) -> None:
        path = faces.openface_table(tmp_path / "clip.csv", UNITS, success=[0, 1, 0, 1, 1, 0])
        expected = [np.full(17, np.nan) if row is None else UNITS[row] for row in kept]
        np.testing.assert_array_equal(OpenFace(failed=failed, units="intensity").extract(path), np.float32(expected))

    @pytest.mark.parametrize("failed", ["zero", "previous", "drop"])
    def test_a_film_without_any_face(self, tmp_path: Path, failed: Any) -> None:
        path = faces.openface_table(tmp_path / "clip.csv", UNITS, success=[0] * 6)
        found = OpenFace(failed=failed).extract(path)
        assert found.shape == (6 if failed == "zero" else 0, 35) and np.isnan(found).all()

    def test_of_several_faces_the_surest(self, tmp_path: Path) -> None:
        path = faces.openface_table(tmp_path / "clip.csv", UNITS, faces=2)
        np.testing.assert_array_equal(OpenFace(units="intensity").extract(path), UNITS.astype(np.float32))

    def test_a_window_around_the_middle(self, tmp_path: Path) -> None:
        """Six frames at 30 per second: a tenth of a second is three of them, a third of a second four more than there are."""
        path = faces.openface_table(tmp_path / "clip.csv", UNITS)
        units = np.float32(UNITS)
        np.testing.assert_array_equal(OpenFace(units="intensity", seconds=0.1).extract(path), units[1:4])
        long = OpenFace(units="intensity", seconds=1 / 3).extract(path)
        assert len(long) == 10 and np.array_equal(long[:6], units) and not long[6:].any()
        np.testing.assert_array_equal(OpenFace(units="intensity", seconds=0.1, rate=20.0).extract(path), units[2:4])
        path.write_text(path.read_text().replace("timestamp", "time"))
        with pytest.raises(DataError, match=r"clip\.csv has no timestamps"):
            OpenFace(seconds=0.1).extract(path)
        assert len(OpenFace(seconds=0.1, rate=30.0).extract(path)) == 3

    def test_tables_that_are_none(self, tmp_path: Path) -> None:
        (tmp_path / "three.csv").write_text("frame, success, AU1, AU2\n1, 1, 0.1, 0.2\n")
        with pytest.raises(DataError, match=r"three\.csv has no column AU01_r, AU02_r, AU04_r and 32 more(?s:.)*OpenFace 2"):
            OpenFace().extract(tmp_path / "three.csv")
        path = faces.openface_table(tmp_path / "text.csv", UNITS)
        path.write_text(path.read_text().replace(f"{UNITS[2, 3]:.2f}", "high", 1))
        with pytest.raises(DataError, match=r"text\.csv: row 3, column 'AU05_r' holds"):
            OpenFace().extract(path)

    def test_where_the_table_is_found(self, tmp_path: Path) -> None:
        beside = faces.openface_table(tmp_path / "media" / "film_1.csv", UNITS)
        film, sound = beside.with_suffix(".mp4"), tmp_path / "media" / "03-x.wav"
        assert OpenFace().source(Clip("a", video=film)) == beside
        assert OpenFace().source(Clip("film_1", audio=sound)) == beside  # by the clip's id, as RAVDESS names tracks and sound
        assert OpenFace().source(Clip("a", audio=sound)) is None and OpenFace().source(Clip("film_1")) is None
        deep = faces.openface_table(tmp_path / "tracks" / "Actor_01" / "film_1.csv", UNITS)
        inside = OpenFace(folder=tmp_path / "tracks")
        assert inside.source(Clip("film_1", audio=sound)) == deep and inside.source(Clip("a", video=film)) == deep
        assert inside.source(Clip("other")) is None
        with pytest.raises(ConfigError, match=r"nothing_here holds no \.csv"):
            OpenFace(folder=tmp_path / "nothing_here").source(Clip("a"))

    def test_the_folder_does_not_enter_the_cache_key(self, tmp_path: Path) -> None:
        assert OpenFace(folder=tmp_path).recipe() == OpenFace().recipe() != OpenFace(failed="drop").recipe()


def records(place: Path) -> list[dict[str, Any]]:
    """What every trial left that was run."""
    return [json.loads(path.read_text()) for path in (place / "results" / "records").glob("*/record.json")]


def ravdess_name(emotion: str, statement: int, actor: int, intensity: int = 1) -> str:
    return f"01-01-{faces.EMOTIONS.index(emotion) + 1:02d}-{intensity:02d}-{statement:02d}-01-{actor:02d}"


class TestFromFilmsToATrainedMethod:
    """Through the command line alone, as a user would."""

    def test_ravdess(self, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
        names = [
            ravdess_name(emotion, statement, actor) for emotion in ("happy", "surprised") for statement in (1, 2) for actor in (1, 2, 3, 4)
        ]
        for seed, name in enumerate(names):
            emotion = faces.EMOTIONS[int(name[6:8]) - 1]
            faces.ravdess_film(place / "films", name, faces.made_take(emotion, seed, frames=10), 64, 36)
        typed(capsys, "data import ravdess films")
        out = typed(
            capsys, "data extract ravdess --vision frames --set frames.count=4 --set frames.size=12 --audio mfcc --as films --workers 1"
        )
        assert "frames 2 (count=4, size=12, colour=False, crop=centre" in out
        data = store.load("ravdess@films", place / "data")
        assert data.clips["id"].tolist() == sorted(names) and data.features["vision"].values.shape == (4 * 16, 144)
        first = Pixels(count=4, size=12).extract(place / "films" / "Actor_01" / f"{sorted(names)[0]}.mp4")
        assert data.features["vision"].values.dtype == torch.uint8
        np.testing.assert_array_equal(data.features["vision"].clip(0), torch.from_numpy(first).float() / 255)
        typed(capsys, "data extract ravdess@films --audio logmel --as both --workers 1")
        both = store.load("ravdess@both", place / "data", verify=True)
        assert torch.equal(both.features["vision"].values, data.features["vision"].values), "pixels stay bytes"
        typed(capsys, "run tfn ravdess@films --folds 4 --budget smoke --inline")
        assert len(records(place)) == 4 and all(len(record["predictions"]["ids"]) == 4 for record in records(place))

    def test_enterface(self, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Films alone: the sound is taken from them, and speaker and emotion from the folders."""
        emotions = {"anger": "angry", "happiness": "happy"}
        for subject in (1, 2, 3):
            for emotion, prototype in emotions.items():
                for sentence in (1, 2):
                    take = faces.made_take(prototype, 10 * subject + sentence, frames=12)
                    faces.enterface_film(place / "films", subject, emotion, sentence, take, 60, 48)
        typed(capsys, "data import enterface05 films")
        typed(capsys, "data extract enterface05 --vision frames --set frames.count=3 --set frames.size=12 --audio mfcc --as av --workers 1")
        data = store.load("enterface05@av", place / "data")
        assert sorted(set(data.clips["group"])) == ["s1", "s2", "s3"] and data.features["vision"].lengths.tolist() == [3] * 12
        assert {data.card.task.classes[label] for label in data.clips["label"]} == set(emotions)
        typed(capsys, "run tfn enterface05@av --folds 3 --budget smoke --inline")

    def test_sound_and_openface_tables_without_films(self, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """What is public of RAVDESS and small: sound files, and OpenFace's tables under the names of the films."""
        import soundfile

        names = [ravdess_name(emotion, 1, actor) for emotion in ("happy", "sad") for actor in (1, 2, 3)]
        for seed, name in enumerate(names):
            take = faces.made_take(faces.EMOTIONS[int(name[6:8]) - 1], seed, frames=12)
            sound = place / "all" / f"Actor_{name[-2:]}" / f"03{name[2:]}.wav"
            sound.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(sound, take.sound, take.sampled)
            faces.openface_table(
                place / "all" / "FacialTracking_Actors_01-24" / f"{name}.csv", take.units, [int(n != 3) for n in range(12)]
            )
        typed(capsys, "data import ravdess all")
        out = typed(
            capsys,
            "data extract ravdess --vision openface --set openface.folder=all/FacialTracking_Actors_01-24 --audio mfcc --as au --workers 1",
        )
        data = store.load("ravdess@au", place / "data")
        assert data.card.modalities["vision"].nonfinite_replaced == 6 * 35 and "folder=FacialTracking_Actors_01-24" in out
        assert not data.features["vision"].clip(0)[3].any() and data.features["vision"].clip(0)[2].any()

    def test_a_manifest_whose_films_have_tables_beside_them(self, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
        take = faces.made_take("happy", 0, frames=5)
        lines = ["id,group,label,video"]
        for number in range(3):
            faces.film(place / "own" / f"clip{number}.avi", flat([50] * 5), 30, take)
            faces.openface_table(place / "own" / f"clip{number}.csv", take.units)
            lines.append(f"c{number},s{number},happy,clip{number}.avi")
        (place / "own" / "manifest.csv").write_text("\n".join(lines))
        typed(capsys, "data import ravdess own/manifest.csv --as own")
        typed(capsys, "data extract ravdess@own --vision openface --set openface.units=intensity --as units --workers 1")
        found = store.load("ravdess@units", place / "data").features["vision"]
        np.testing.assert_array_equal(found.clip(2), np.round(take.units, 2).astype(np.float32))

    def test_a_broken_film_is_named(self, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for actor in (1, 2):
            faces.ravdess_film(place / "films", ravdess_name("happy", 1, actor), faces.made_take("happy", actor, frames=6), 64, 36)
        path = place / "films" / "Actor_02" / f"{ravdess_name('happy', 1, 2)}.mp4"
        path.write_bytes(path.read_bytes()[:500])
        typed(capsys, "data import ravdess films")
        code, _, err = call(capsys, "data", "extract", "ravdess", "--vision", "frames", "--workers", "1")
        assert code == 2 and "1 of 2 clips cannot be extracted" in err and path.name in err
        assert store.names(place / "data") == ("ravdess",)
        code, _, err = call(capsys, "data", "extract", "ravdess", "--vision", "openface", "--workers", "1")
        assert code == 2 and "no clip has a table of OpenFace" in err


@pytest.mark.slow
def test_films_of_real_faces_train_a_method(shared: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Films drawn from the real movements of RAVDESS' actors 1-5, with the real sound: the pixels must tell of the movements."""
    folder = shared / "data" / "ravdess"
    with open(folder / "clips.csv", newline="") as file:
        clips = [
            row["clip"] for row in csv.DictReader(file) if int(row["actor"]) <= 5 and (row["statement"], row["repetition"]) == ("1", "1")
        ]
    chosen = [clip for clip in clips if clip[9:11] == "02" or clip[6:8] == "01"]  # strong, and neutral: 8 clips an actor
    takes = {clip: faces.real_take(folder, clip) for clip in chosen}
    for clip, take in takes.items():
        faces.ravdess_film(place / "films", clip, take, 64, 36)
    typed(capsys, "data import ravdess films")
    typed(capsys, "data extract ravdess --vision frames --set frames.count=10 --set frames.size=24 --audio mfcc --as films --workers 2")
    data = store.load("ravdess@films", place / "data")
    assert len(data) == len(chosen) == 40 and data.features["vision"].lengths.tolist() == [10] * 40
    check_pixels_tell_of_movements(data, [takes[clip] for clip in data.clips["id"]])
    # after 16 epochs mere rounding of the pixels moves a fold's loss between .79 and .92 of the first one
    effort = "--budget paper --set training.batch_size=4 --set training.max_epochs=32 --set training.patience=32"
    typed(capsys, f"run tfn ravdess@films --folds 5 {effort} --inline")
    histories = [record["history"] for record in records(place)]
    assert len(histories) == 5 and all(history[-1]["train_loss"] < 0.9 * history[0]["train_loss"] for history in histories)
    typed(capsys, "run ridge ravdess@films --folds 5 --inline")
    ridge = [record["test"]["accuracy"] for record in records(place) if record["identity"]["method"] == "ridge"]
    assert len(ridge) == 5 and np.mean(ridge) > 0.25  # by chance .125, with a standard deviation of .052 over the 40 clips


def check_pixels_tell_of_movements(data: Dataset, takes: list[faces.Take]) -> None:
    """A ridge from pixels to the smile (AU12) and the open mouth (AU25), fitted to four actors, must hold for the fifth.

    By chance the correlation over the fifth's 80 frames has a standard deviation of 0.11.
    """
    from sklearn.linear_model import Ridge

    pixels = data.features["vision"].take(torch.arange(len(data.features["vision"].values))).numpy()
    units = np.array([take.units[(2 * k + 1) * len(take.units) // 20] for take in takes for k in range(10)])
    fifth = np.repeat(data.clips["group"].to_numpy() == "05", 10)
    for unit in ("12", "25"):
        wanted = units[:, faces.UNITS.index(unit)]
        guess = Ridge(1.0).fit(pixels[~fifth], wanted[~fifth]).predict(pixels[fifth])
        assert np.corrcoef(guess, wanted[fifth])[0, 1] > 0.5
