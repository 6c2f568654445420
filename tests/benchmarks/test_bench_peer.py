"""The comparison with MMSA: what it demands, the data it writes, and a whole run against a stand-in that prints figures."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import against_mmsa
import numpy as np
import pytest
from against_mmsa import ROWS, Compared, Files, Side

PEER = Side((10.0, 12.0, 11.0), 1, 4000.0, 1000, (16, 8))
OURS = Side((4.0, 8.0, 5.0, 7.0, 6.0, 6.0), 2, 1000.0, 1000, (16, 8))


def test_ratios_are_of_whole_machines() -> None:
    """11 s one at a time against 6 s two at a time."""
    row = replace(ROWS[0], faster=3.6, memory=0.25)
    one = Compared(row, PEER, OURS)
    assert one.faster == pytest.approx(2 * 11 / 6) and one.memory == 0.25
    assert one.faults() == []
    assert "3.7 are required" in Compared(replace(row, faster=3.7), PEER, OURS).faults()[0]
    assert "0.24 are allowed" in Compared(replace(row, memory=0.24), PEER, OURS).faults()[0]
    assert Compared(replace(row, faster=None), PEER, OURS).faults() == []
    assert "batches differ" in Compared(row, PEER, replace(OURS, batch=(32, 8))).faults()[0]


def test_the_demands_are_those_that_were_set() -> None:
    set_ = {row.work: (row.faster, round(1 / row.memory)) for row in ROWS}
    assert set_ == {
        "LMF unaligned": (2.5, 2),
        "TFN unaligned": (3, 2),
        "MFM aligned": (3, 2),
        "MulT aligned": (3, 6),
        "MulT 50/375/500": (2.5, 2),
        "MISA": (None, 4),
    }


@pytest.mark.parametrize("kind", ["aligned", "unaligned"])
def test_the_importer_reads_back_what_was_drawn(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(against_mmsa, "SIZES", {"train": 12, "valid": 5, "test": 6})
    files = Files(tmp_path, 0)
    card = files.card(kind)
    with open(files.pickle(kind, 12), "rb") as file:
        train = pickle.load(file)["train"]
    assert card.clips == {"train": 12, "valid": 5, "test": 6}
    assert {name: facts.dim for name, facts in card.modalities.items()} == against_mmsa.WIDTHS
    for name, most in against_mmsa.STEPS[kind].items():
        assert train[name].shape == (12, most, against_mmsa.WIDTHS[name]) and card.modalities[name].longest <= most
    real = (np.abs(train["text"]).sum(2) > 0).sum(1)
    assert (train["text_bert"][:, 1].sum(1) == real).all() and real.min() >= 5
    if kind == "aligned":
        assert ((np.abs(train["vision"]).sum(2) > 0).sum(1) == real).all()
    else:
        assert ((np.abs(train["vision"]).sum(2) > 0).sum(1) == train["vision_lengths"]).all()


@pytest.mark.parametrize(("seconds", "code"), [(1e6, 0), (1e-6, 1)])
def test_a_whole_run_says_whether_all_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, code: int) -> None:
    """Against a peer that only prints: a slow and large one, and one that no program can match."""
    printed = {"seconds": [seconds] * 2, "parameters": 505071, "batch": 64, "accumulate": 1, "peak_mb": 1e6 * seconds}
    peer = tmp_path / "python"
    peer.write_text(f"#!/bin/sh\necho noise\necho '{json.dumps(printed)}'\n")
    peer.chmod(0o755)
    monkeypatch.setattr(against_mmsa, "SIZES", {"train": 64, "valid": 16, "test": 16})
    monkeypatch.setattr(sys, "argv", ["against_mmsa.py", "--peer", str(peer), "--rows", "lmf", "--epochs", "2"])
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert against_mmsa.main() == code


def test_a_peer_without_the_package_is_named(tmp_path: Path) -> None:
    script = Path(against_mmsa.__file__)
    command = [sys.executable, str(script), "--peer", sys.executable, "--rows", "lmf", "--clips", "32"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode not in (0, 2) and "No module named 'MMSA'" in done.stderr
