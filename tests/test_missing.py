"""Missing frames and weighted modalities: masks that depend on nothing but seed, clip, modality and rate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import DIMS, random_split
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import job, stored, tiny_dataset, trial

from harness.data.schema import MODALITIES, Split
from harness.data.splits import Fold, cut
from harness.data.text import Tokens
from harness.data.transforms import standardise
from harness.errors import ConfigError
from harness.experiments.worker import run_trial
from harness.training import missing
from harness.training.settings import InputWeights, Missing

CLIPS, FRAMES = 80, 50
SPLIT = random_split({modality: [FRAMES] * CLIPS for modality in MODALITIES}, DIMS, seed=1)


def lost(split: Split, modality: str) -> torch.Tensor:
    """True at the frames that are all zero, clip after clip, (frames,)."""
    return ~split.frames(modality).any(1)


def test_at_rate_zero_nothing_is_touched() -> None:
    assert missing.at_rate(SPLIT, 0.0, 1) is SPLIT
    assert missing.for_training(SPLIT, Missing(), 1, 3) is SPLIT
    untouched = missing.weighted(SPLIT, InputWeights())
    assert all(untouched.features[name] is SPLIT.features[name] for name in MODALITIES)


@settings(max_examples=20, deadline=None)
@given(rate=st.floats(0.01, 0.99), seed=st.integers(0, 10**6))
def test_the_share_of_lost_frames_is_the_rate(rate: float, seed: int) -> None:
    masked = missing.at_rate(SPLIT, rate, seed)
    bound = 6 * (rate * (1 - rate) / (CLIPS * FRAMES)) ** 0.5  # six standard deviations of a binomial share
    for name in MODALITIES:
        assert abs(float(lost(masked, name).float().mean()) - rate) <= bound
        assert torch.equal(masked.lengths(name), SPLIT.lengths(name))


@settings(max_examples=20, deadline=None)
@given(rates=st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)), seed=st.integers(0, 10**6))
def test_masks_of_a_lower_rate_lie_within_those_of_a_higher_one(rates: tuple[float, float], seed: int) -> None:
    low, high = (missing.at_rate(SPLIT, rate, seed) for rate in sorted(rates))
    for name in MODALITIES:
        assert not (lost(low, name) & ~lost(high, name)).any()
        kept = ~lost(high, name)
        assert torch.equal(high.frames(name)[kept], SPLIT.frames(name)[kept])


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(CLIPS)), count=st.integers(1, CLIPS), names=st.permutations(MODALITIES))
def test_a_clips_mask_depends_on_no_other_clip_or_modality(order: list[int], count: int, names: list[str]) -> None:
    rows = torch.tensor(order[:count])
    ids = tuple(SPLIT.ids[i] for i in rows)
    part = replace(SPLIT, rows=SPLIT.rows[rows], ids=ids, features={name: SPLIT.features[name] for name in names[:2]})
    whole, alone = missing.at_rate(SPLIT, 0.4, 7), missing.at_rate(part, 0.4, 7)
    for name in names[:2]:
        for position, i in enumerate(rows.tolist()):
            assert torch.equal(alone.features[name].clip(int(alone.rows[position])), whole.features[name].clip(int(whole.rows[i])))


def test_seeds_and_modalities_have_masks_of_their_own() -> None:
    first, second = (missing.at_rate(SPLIT, 0.5, seed) for seed in (1, 2))
    masks = [lost(first, "text"), lost(first, "audio"), lost(second, "text")]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert abs(float((masks[one] == masks[other]).float().mean()) - 0.5) < 0.05  # 6 deviations of 4000 fair coins


def test_training_masks_leave_half_of_the_clips_complete_and_change_with_the_epoch() -> None:
    split = random_split({"text": [400] * 1000}, {"text": 2}, seed=2)
    settings = Missing(training="uniform")
    shares = []
    for epoch in (1, 2):
        share = lost(missing.for_training(split, settings, 5, epoch), "text").view(1000, 400).float().mean(1)
        assert abs(float((share == 0).float().mean()) - 0.5) < 0.1  # 6 deviations of 1000 fair coins
        assert abs(float(share[share > 0].mean()) - 0.5) < 0.08  # 6 deviations of the mean of 500 uniform rates
        shares.append(share)
    assert not torch.equal(*shares)
    assert missing.for_training(split, settings, 5, 1).frames("text").equal(missing.for_training(split, settings, 5, 1).frames("text"))


def test_frames_are_lost_after_standardisation() -> None:
    """Zero is then a feature's mean: no information, instead of a value that training never saw."""
    parts = cut(tiny_dataset(), Fold())
    train, test = standardise(parts["train"], [parts["test"]], ("text",))
    masked = missing.at_rate(test, 0.6, 3)
    rows = ~masked.frames("text").any(1)
    assert rows.any() and torch.equal(masked.frames("text")[~rows], test.frames("text")[~rows])


def test_weights_scale_the_features_that_a_method_reads() -> None:
    train, _ = standardise(SPLIT, [SPLIT], ("audio",))
    changed = missing.weighted(train, InputWeights(audio=0.3, vision=0.0))
    torch.testing.assert_close(changed.frames("audio"), train.frames("audio") * 0.3)
    assert not changed.frames("vision").any() and changed.features["text"] is train.features["text"]
    twice = missing.at_rate(changed, 0.5, 1)
    kept = twice.frames("audio").any(1)
    assert torch.equal(twice.frames("audio")[kept], changed.frames("audio")[kept])


def test_lost_tokens_become_unknown_and_special_ones_stay() -> None:
    special = torch.tensor([True, False, False, True])
    tokens = Tokens(torch.tensor([[2], [7], [8], [3]]), torch.tensor([0, 4]), unknown=1, special=special)
    assert tokens.without(torch.ones(4, dtype=torch.bool)).values[:, 0].tolist() == [2, 1, 1, 3]
    assert tokens.without(torch.tensor([False, True, False, False])).values[:, 0].tolist() == [2, 1, 8, 3]
    with pytest.raises(ConfigError, match="input_weights.text"):
        tokens.weighted(0.5)


def finish(tmp_path: Path, **settings: Any) -> Any:
    dataset = stored(tmp_path / "data")
    one = trial(dataset, training__max_epochs=2, **settings)
    return run_trial(job(one, tmp_path / "data", tmp_path), lambda event: None).record


def test_a_trained_model_is_tested_at_further_rates(tmp_path: Path) -> None:
    """One training serves all rates, and each gives what a trial at that rate alone gives, bit for bit."""
    plain = finish(tmp_path)
    swept = finish(tmp_path, missing__rates=[0.0, 0.5])
    alone = finish(tmp_path, missing__rate=0.5)
    assert plain.history == swept.history == alone.history and plain.key not in (swept.key, alone.key)
    assert [further.changes for further in swept.further] == [{"missing.rate": 0.0}, {"missing.rate": 0.5}]
    assert swept.further[0].values == plain.predictions.values == swept.predictions.values and swept.further[0].test == plain.test
    assert swept.further[1].values == alone.predictions.values and swept.further[1].test == alone.test
    assert alone.predictions.values != plain.predictions.values and not plain.further


def test_weights_are_swept_on_the_test_clips_or_trained_with(tmp_path: Path) -> None:
    plain = finish(tmp_path)
    swept = finish(tmp_path, input_weights__sweep=[0.25, 1.0])
    trained = finish(tmp_path, input_weights__audio=0.25)
    tested = finish(tmp_path, input_weights__audio=0.25, input_weights__where="test")
    assert swept.history == plain.history == tested.history != trained.history
    assert [further.changes["input_weights.vision"] for further in swept.further] == [0.75, 0.0]
    assert swept.further[0].values == tested.predictions.values  # the tiny set has no vision
    assert swept.further[1].values == plain.predictions.values


def test_training_on_masked_clips_is_another_run_that_repeats(tmp_path: Path) -> None:
    plain, first, again = finish(tmp_path), *(finish(tmp_path, missing__training="uniform") for _ in range(2))
    assert first == again and first.history != plain.history
