"""Pixels are stored as bytes and read as values in [0, 1], whatever is done to them on the way."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_store import FACTS, clips, features

from harness.data import store
from harness.data.assemble import Bytes, assemble
from harness.data.checks.survey import survey
from harness.data.schema import Dataset, Picture, Ragged, Source
from harness.data.transforms import standardise
from harness.reporting.cards import card_text
from harness.training import Inputs

LENGTHS = (1, 2, 3, 1, 0, 4)


class Listed(Bytes):
    """Bytes in memory."""

    def __init__(self, parts: list[np.ndarray]) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return self.parts[index]


def pictures(seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (length, 12)).astype(np.uint8) for length in LENGTHS]


def made(parts: list[np.ndarray] | None = None) -> Dataset:
    whole = {"audio": features(), "vision": Listed(parts or pictures())}
    return assemble(name="toy", facts=FACTS, clips=clips(), features=whole, source=Source(layout="test"))


def test_bytes_are_kept_and_a_clip_without_frames_gets_a_black_one(tmp_path: Path) -> None:
    data = store.save(made(), tmp_path)
    found = data.features["vision"]
    assert found.values.dtype == torch.uint8 and data.card.modalities["vision"].empty_clips == 1
    assert found.lengths.tolist() == [1, 2, 3, 1, 1, 4] and not found.clip(4).any()
    for row, part in enumerate(pictures()):
        if len(part):
            assert found.clip(row).dtype == torch.float32
            np.testing.assert_array_equal(found.clip(row), part.astype(np.float32) / 255)
    size = (tmp_path / "toy" / "features.safetensors").stat().st_size
    assert size < 12 * 12 + 12 * 2 * 4 + 1000, "a byte each"


def test_other_whole_numbers_are_numbers() -> None:
    """A list of arrays of bytes, as a user's file may hold, is no picture."""
    data = assemble(name="toy", facts=FACTS, clips=clips(), features={"vision": pictures()}, source=Source(layout="test"))
    assert data.features["vision"].values.dtype == torch.float32
    np.testing.assert_array_equal(data.features["vision"].clip(1), pictures()[1].astype(np.float32))


def test_padding_scaling_and_gains_are_those_of_the_values_that_are_read() -> None:
    bytes_, floats = made().features["vision"], as_floats(made().features["vision"])
    rows = torch.tensor([3, 5, 1])
    for one, other in ((bytes_, floats), (bytes_.weighted(0.5), floats.weighted(0.5))):
        for a, b in zip(one.padded(rows), other.padded(rows), strict=True):
            assert torch.equal(a, b)
        assert all(torch.equal(a, b) for a, b in zip(one.joined(rows), other.joined(rows), strict=True))


def test_pixels_are_told_from_features_by_how_they_are_stored() -> None:
    """The same numbers: as bytes a picture, which standardising leaves in [0, 1]; as floats features, which it scales."""
    data = made()
    split = data.rows([0, 1, 2, 5])
    floats = replace(split, features={**split.features, "vision": as_floats(split.features["vision"])})
    assert Inputs.of(split).pictures == {"vision": Picture(side=2, channels=3)} and Inputs.of(floats).pictures == {}
    assert Inputs.of(split).dims == Inputs.of(floats).dims == {"audio": 2, "vision": 12}
    assert data.card.modalities["vision"].picture == Picture(side=2, channels=3) and data.card.modalities["audio"].picture is None
    both = ("audio", "vision")
    pixels, features = (standardise(part, [part], both) for part in (split, floats))
    for part in pixels:
        assert torch.equal(part.frames("vision"), split.frames("vision"))
        assert abs(float(part.frames("audio").mean())) < 1e-5
    assert all(abs(float(part.frames("vision").mean())) < 1e-5 for part in features)


def test_bytes_that_are_no_square_are_features() -> None:
    wide = [np.zeros((length, 10), dtype=np.uint8) for length in LENGTHS]
    data = made(wide)
    assert data.features["vision"].picture is None and data.card.modalities["vision"].picture is None


def test_the_card_says_what_pictures_it_has() -> None:
    text = card_text(made().card)
    assert "12 (2 x 2 colour pictures)" in text and re.search(r"\| audio +\| 2 +\|", text)


def as_floats(ragged: Ragged) -> Ragged:
    return replace(ragged, values=ragged.values.float() / 255)


def test_some_clips_alone_stay_as_they_are_stored() -> None:
    whole = made().features["vision"]
    part = whole.weighted(2.0).only(torch.tensor([5, 2]))
    assert part.values.dtype == torch.uint8 and part.lengths.tolist() == [4, 3]
    assert torch.equal(part.clip(0), whole.clip(5) * 2) and torch.equal(part.clip(1), whole.clip(2) * 2)


def test_the_fingerprint_sees_one_byte_and_the_form(tmp_path: Path) -> None:
    data = made()
    other = pictures()
    other[2][1, 3] ^= 1
    assert store.fingerprint(made(other)) != store.fingerprint(data)
    floats = replace(
        data, features={**data.features, "vision": replace(data.features["vision"], values=data.features["vision"].values.float())}
    )
    assert store.fingerprint(floats) != store.fingerprint(data), "the same numbers that mean something else"
    saved = store.save(data, tmp_path)
    assert store.load("toy", tmp_path, verify=True).card.fingerprint == saved.card.fingerprint == store.fingerprint(data)


def test_a_data_set_that_is_assembled_anew_keeps_its_bytes() -> None:
    data = made()
    again = assemble(name="toy", facts=FACTS, clips=data.clips, features=dict(data.features), source=Source(layout="test"))
    assert torch.equal(again.features["vision"].values, data.features["vision"].values)
    assert again.features["vision"].values.dtype == torch.uint8


def test_checks_see_the_values_that_are_read() -> None:
    found, floats = (survey(ragged) for ragged in (made().features["vision"], as_floats(made().features["vision"])))
    np.testing.assert_allclose(found.means, floats.means, atol=1e-7)
    np.testing.assert_array_equal(found.high, floats.high)
    np.testing.assert_array_equal(found.zero, floats.zero)
    assert found.high.max() <= 1 and found.zero.tolist() == [False, False, False, False, True, False]


def test_other_types_are_damage(tmp_path: Path) -> None:
    from harness.errors import DataError

    data = store.save(made(), tmp_path)
    wrong = replace(data.features["vision"], values=data.features["vision"].values.to(torch.int16))
    with pytest.raises(DataError, match="do not fit"):
        store.save(replace(data, features={**data.features, "vision": wrong}), tmp_path)
