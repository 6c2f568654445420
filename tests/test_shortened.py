"""Long clips averaged down to a number of frames: the cap on sequence length that a budget has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import filmed, random_split
from hypothesis import given
from hypothesis import strategies as st
from kit import TOY, job, stored, trial

from harness.data.schema import CHUNK
from harness.data.transforms import shortened
from harness.experiments.plugins import load_file
from harness.experiments.trials import resolve_config
from harness.experiments.worker import prepared, run_trial
from harness.training import MethodConfig, Training, methods
from harness.training.settings import BUDGETS


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=6), longest=st.integers(1, 30))
def test_against_a_walk_through_every_clip(lengths: list[int], longest: int) -> None:
    split = random_split({"audio": lengths}, {"audio": 3}, seed=len(lengths))
    (short,) = shortened([split], longest, ("audio", "vision"))
    for row in split.rows.tolist():
        clip, length = split.features["audio"].clip(row).double().numpy(), lengths[row]
        count = min(length, longest)
        parts = [[frame for frame in range(length) if frame * count // length == part] for part in range(count)]
        assert sum(parts, []) == list(range(length)) and max(map(len, parts)) - min(map(len, parts)) <= 1
        expected = np.stack([clip[part].mean(0) for part in parts])
        np.testing.assert_allclose(short.features["audio"].clip(row).numpy(), expected, rtol=0, atol=1e-6)


def test_more_clips_than_are_averaged_at_a_time() -> None:
    lengths = [1 + i % 7 for i in range(CHUNK + 5)]
    split = random_split({"audio": lengths}, {"audio": 2}, seed=1)
    (short,) = shortened([split], 3, ("audio",))
    assert short.features["audio"].lengths.tolist() == [min(length, 3) for length in lengths]
    for row in (0, CHUNK - 1, CHUNK, CHUNK + 4):
        whole, part = (one.features["audio"].clip(row) for one in (split, short))
        bounds = [frame * len(part) // len(whole) for frame in range(len(whole))]
        for step in range(len(part)):
            torch.testing.assert_close(part[step], whole[[bound == step for bound in bounds]].mean(0), rtol=0, atol=1e-6)


def test_text_pixels_and_short_clips_stay_as_they_are() -> None:
    split = random_split({"text": [9, 8], "audio": [9, 2], "vision": [9, 8]}, {"text": 4, "audio": 3, "vision": 12}, seed=1)
    short, again = shortened([split, replace(split, rows=split.rows[:1])], 5, ("audio", "vision"))
    assert short.features["text"] is split.features["text"] and short.features["vision"].lengths.tolist() == [5, 5]
    assert short.features["audio"].lengths.tolist() == [5, 2] and again.features["audio"] is short.features["audio"]
    assert torch.equal(short.features["audio"].clip(1), split.features["audio"].clip(1))
    (film,) = shortened([filmed(split)], 5, ("audio", "vision"))
    assert film.features["vision"].lengths.tolist() == [9, 8] and film.features["vision"].picture is not None
    (same,) = shortened([split], 9, ("audio", "vision"))
    assert same.features["audio"] is split.features["audio"]


def test_a_setting_and_a_budget_shorten_what_is_read() -> None:
    split = random_split({"text": [9, 8], "audio": [90, 20]}, {"text": 4, "audio": 3}, seed=1)
    for longest in (None, 50):
        config = MethodConfig(training=Training(longest=longest, standardise=("audio",)))
        train, valid, test = prepared(split, split, [split], config, 1)
        for part in (train, valid, test):
            assert part.features["audio"].lengths.tolist() == [longest or 90, 20]
        assert abs(float(train.frames("audio").mean())) < 1e-6, "what is averaged is standardised"


@pytest.mark.parametrize(("own", "cap", "expected"), [(None, 64, 64), (32, 64, 32), (100, 64, 64), (None, None, None), (100, None, 100)])
def test_a_budget_caps_what_a_method_states(own: int | None, cap: int | None, expected: int | None) -> None:
    budget = BUDGETS["paper"].model_copy(update={"longest": cap})
    assert budget.apply(Training(longest=own)).longest == expected


def test_what_is_not_trained_reads_all() -> None:
    """The floors cost nothing; a quick table must not lower them."""
    load_file(TOY)
    for name, expected in {"majority": None, "ridge": None, "logistic": None, "toy": BUDGETS["quick"].longest}.items():
        assert resolve_config(methods[name], "ravdess", BUDGETS["quick"], "cpu", {}).training.longest == expected
    assert BUDGETS["quick"].longest and BUDGETS["paper"].longest is None
    closed = {name for name in methods if methods[name].closed_form}
    assert closed == {"majority", "ridge", "logistic"}


def test_a_trial_reads_shortened_clips(tmp_path: Path) -> None:
    """Five frames at most: with a cap of one, every clip is its mean, and the numbers are others."""
    data = stored(tmp_path / "data")
    found = [run_trial(job(trial(data, training__longest=cap), tmp_path / "data", tmp_path), lambda event: None) for cap in (None, 5, 1)]
    losses = [one.record.history[-1].valid_loss for one in found]
    assert losses[0] == losses[1] != losses[2]
