"""Mapped arrays: equal to what was stored, and let go of while they are read."""

from __future__ import annotations

import copy
import pickle
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from harness.data import pages
from harness.data.pages import mapped
from harness.data.schema import Ragged

STATUS = Path("/proc/self/status")


@settings(deadline=None)
@given(
    st.dictionaries(
        st.text("abc.", min_size=1), st.tuples(st.lists(st.integers(0, 4), max_size=3), st.sampled_from(["f4", "u1", "i8"])), min_size=1
    )
)
def test_arrays_are_those_that_safetensors_reads(
    tmp_path_factory: pytest.TempPathFactory, shapes: dict[str, tuple[list[int], str]]
) -> None:
    path = tmp_path_factory.mktemp("pages") / "x.safetensors"
    dtypes = {"f4": torch.float32, "u1": torch.uint8, "i8": torch.int64}
    torch.manual_seed(0)
    save_file({name: (torch.rand(shape) * 200).to(dtypes[kind]) for name, (shape, kind) in shapes.items()}, path)
    found, _ = mapped(path)
    expected = load_file(path)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].dtype == values.dtype and torch.equal(found[name], values)


def ragged(path: Path, frames: int = 6, dim: int = 2) -> Ragged:
    """``frames`` clips of one frame each."""
    torch.manual_seed(0)
    save_file({"values": torch.rand(frames, dim), "offsets": torch.arange(frames + 1)}, path)
    arrays, there = mapped(path)
    return Ragged(arrays["values"], arrays["offsets"], pages=there)


def resident() -> int:
    """Bytes of mapped files that this process holds."""
    found = re.search(r"RssFile:\s+(\d+) kB", STATUS.read_text())
    assert found
    return int(found[1]) * 1024


@pytest.mark.skipif(not STATUS.exists(), reason="needs /proc to see which pages a process holds")
@pytest.mark.parametrize("shifted", [False, True])
def test_a_pass_over_the_data_holds_no_more_than_a_part_of_it(tmp_path: Path, shifted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    size, dim = 1 << 26, 1 << 12
    monkeypatch.setattr(pages, "HELD", size // 8)
    data = ragged(tmp_path / "x.safetensors", size // dim // 4, dim)
    read = replace(data, shift=torch.zeros(dim), scale=torch.ones(dim)) if shifted else data
    before, most = resident(), 0
    for rows in torch.arange(len(data.lengths)).split(64):
        read.padded(rows)
        most = max(most, resident() - before)
    assert most < size // 2
    kept = replace(data, pages=None)
    for rows in torch.arange(len(data.lengths)).split(64):
        kept.padded(rows)
    assert resident() - before > size // 2  # without letting go, all of it is held


def test_values_are_the_same_after_pages_were_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "HELD", 1)
    data = ragged(tmp_path / "x.safetensors")
    expected = data.values.clone()
    for _ in range(3):
        values, lengths = data.padded(torch.arange(6))
        assert torch.equal(values[:, 0], expected) and lengths.tolist() == [1] * 6


def test_a_write_does_not_reach_the_file(tmp_path: Path) -> None:
    data = ragged(tmp_path / "x.safetensors")
    stored = (tmp_path / "x.safetensors").read_bytes()
    data.values.zero_()
    assert (tmp_path / "x.safetensors").read_bytes() == stored


def test_copies_share_the_mapping_and_other_processes_get_the_values_alone(tmp_path: Path) -> None:
    data = ragged(tmp_path / "x.safetensors")
    assert copy.deepcopy(data).pages is data.pages
    sent = pickle.loads(pickle.dumps(data))
    assert sent.pages is None and torch.equal(sent.values, data.values)
    assert data.only(torch.tensor([1, 2])).pages is None  # a copy of some clips lies in no file


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[:-5], lambda raw: b"", lambda raw: b"\xff" * 8 + raw[8:], lambda raw: raw[:8] + b"{" + raw[9:-1]]
)
def test_a_damaged_file_is_refused(tmp_path: Path, damage: object) -> None:
    path = tmp_path / "x.safetensors"
    ragged(path)
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(SafetensorError):
        mapped(path)
