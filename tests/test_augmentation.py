"""Random changes of films in training: what they do to pictures, and on what they depend."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import filmed, random_split, whole
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from harness.data.batches import Batch, gather
from harness.data.schema import Split
from harness.training import Inputs, Method, MethodConfig, Output, Task, Training
from harness.training.augmentation import augmented
from harness.training.loop import Run, build, predict, train
from harness.training.settings import Augmentation

SIDE, COLOURS, FRAMES = 8, 3, 4
TASK = Task(kind="classification", classes=("a", "b", "c"))


def films(clips: int = 6, dim: int = SIDE * SIDE * COLOURS, seed: int = 0) -> Split:
    lengths = {"audio": [3] * clips, "vision": [FRAMES] * clips}
    return filmed(random_split(lengths, {"audio": 2, "vision": dim}, seed, classes=3))


def pictures(batch: Batch) -> Tensor:
    """(B, T, SIDE, SIDE, COLOURS)."""
    return batch.features["vision"].view(len(batch), FRAMES, SIDE, SIDE, COLOURS)


def changed(split: Split, seed: int = 1, epoch: int = 1, rows: Tensor | None = None, **how: Any) -> Tensor:
    batch = whole(split) if rows is None else gather(split, rows)
    return pictures(augmented(batch, split, MethodConfig(augmentation=Augmentation(**how)), seed, epoch))


# ---- what is done to a picture


def test_nothing_is_the_same_batch() -> None:
    split = films()
    batch = whole(split)
    assert augmented(batch, split, MethodConfig(), 1, 1) is batch


def test_a_sure_flip_mirrors_every_frame_to_the_bit() -> None:
    split = films()
    assert torch.equal(changed(split, flip=1.0), pictures(whole(split)).flip(3))


def test_a_quarter_turn_moves_pixels_to_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest angle drawn is 90 degrees: rows become columns; exact but for rounding in the places."""
    from harness import seeds

    class Draws:
        def random(self, count: int) -> np.ndarray:
            return np.array([0.5, 1.0, 0.5, 0.5, 0.5])[:count]

    monkeypatch.setattr(seeds, "generator", lambda *_: Draws())
    split = films()
    before = pictures(whole(split))
    turned = [before.rot90(k, dims=(2, 3)) for k in (1, 3)]
    found = changed(split, rotation=90.0)
    errors = [float((found - one).abs().max()) for one in turned]
    assert min(errors) < 1e-4 < max(errors)


def test_a_crop_enlarges_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a picture that is linear in its column, a crop of half a side is linear with half the slope, from where the part begins."""
    from harness import seeds

    for place, first in ((0.0, 0.0), (1.0, SIDE / 2), (0.5, SIDE / 4)):

        class Draws:
            def random(self, count: int, place: float = place) -> np.ndarray:
                return np.array([0.9, 0.5, 1.0, place, 0.0])[:count]

        monkeypatch.setattr(seeds, "generator", lambda *_, draws=Draws: draws())
        split = films(2)
        ramp = torch.arange(SIDE, dtype=torch.uint8).view(1, 1, SIDE, 1).expand(len(split) * FRAMES, SIDE, SIDE, COLOURS).flatten(1)
        split = replace(split, features={**split.features, "vision": replace(split.features["vision"], values=ramp.contiguous())})
        found = changed(split, crop=0.5)[:, :, 1:-1, 1:-1]  # without the rim, which blends with what lies beyond
        expected = first - 0.5 + 0.5 * (torch.arange(SIDE) + 0.5)
        inner = expected[1:-1].clamp(0, SIDE - 1)
        torch.testing.assert_close(255 * found, inner.view(1, 1, 1, -1, 1).expand_as(found), rtol=0, atol=1e-4)


def test_frames_and_colours_of_a_clip_move_alike() -> None:
    split = films()
    one = pictures(whole(split))[:, :1, :, :, :1].expand(-1, FRAMES, -1, -1, COLOURS)
    batch = replace(whole(split), features={**whole(split).features, "vision": one.reshape(len(split), FRAMES, -1)})
    how = Augmentation(flip=0.5, rotation=30.0, crop=0.3)
    found = pictures(augmented(batch, split, MethodConfig(augmentation=how), 3, 1))
    assert torch.equal(found, found[:, :1, :, :, :1].expand_as(found)) and not torch.equal(found, one)


def test_nothing_but_the_pictures_changes_and_padding_stays_zero() -> None:
    split = filmed(random_split({"audio": [3, 2], "vision": [4, 1]}, {"audio": 2, "vision": 48}, 0, classes=3))
    batch = whole(split)
    found = augmented(batch, split, MethodConfig(augmentation=Augmentation(flip=0.5, rotation=40.0, crop=0.2)), 1, 1)
    assert found.features["audio"] is batch.features["audio"] and found.lengths is batch.lengths and found.labels is batch.labels
    short = int(batch.lengths["vision"].argmin())
    assert not found.features["vision"][short, 1:].any() and found.features["vision"].shape == batch.features["vision"].shape


@given(st.floats(0, 180), st.floats(0, 0.9), st.integers(0, 100))
@settings(deadline=None, max_examples=40)
def test_values_stay_within_what_was_there_and_zero(rotation: float, crop: float, seed: int) -> None:
    split = films(2)
    before = pictures(whole(split))
    found = changed(split, seed=seed, rotation=rotation, crop=crop, flip=0.5)
    assert float(found.max()) <= max(0.0, float(before.max())) + 1e-5 and float(found.min()) >= min(0.0, float(before.min())) - 1e-5


# ---- on what it depends

HOW: dict[str, Any] = {"flip": 0.5, "rotation": 20.0, "crop": 0.2}


def test_a_clip_is_changed_alike_in_whatever_batch_it_is() -> None:
    split = films()
    together = changed(split, **HOW)
    order = torch.tensor([3, 0, 5])
    torch.testing.assert_close(changed(split, rows=order, **HOW), together[order], rtol=0, atol=0)


def test_seed_epoch_and_clip_decide() -> None:
    split = films()
    first = changed(split, **HOW)
    assert torch.equal(first, changed(split, **HOW))
    assert not torch.equal(first, changed(split, epoch=2, **HOW)) and not torch.equal(first, changed(split, seed=2, **HOW))
    renamed = replace(split, ids=tuple(f"other{i}" for i in range(len(split))))
    assert not torch.equal(first, changed(renamed, **HOW))


def test_flips_come_as_often_as_asked_for() -> None:
    split = films(2)
    before = pictures(whole(split))
    turned = sum(bool((changed(split, epoch=epoch, flip=0.3)[i] != before[i]).any()) for epoch in range(200) for i in range(2))
    assert abs(turned / 400 - 0.3) < 4 * (0.3 * 0.7 / 400) ** 0.5


def test_features_are_no_pictures() -> None:
    """Whatever their number is: it is bytes that are pixels, as a film's frames are stored."""
    config = MethodConfig(augmentation=Augmentation(flip=1.0))
    lengths = {"audio": [3, 2], "vision": [4, 1]}
    for dim in (35, 48):
        split = random_split(lengths, {"audio": 2, "vision": dim}, 0, classes=3)
        batch = whole(split)
        assert augmented(batch, split, config, 1, 1) is batch
    film = filmed(split)
    assert augmented(whole(film), film, config, 1, 1).features["vision"].ne(whole(film).features["vision"]).any()
    sound = film.only(("audio",))
    batch = whole(sound)
    assert augmented(batch, sound, config, 1, 1) is batch


# ---- in the loop


class Pixel(Method):
    """A linear layer on the clip's mean frame; notes what it was given."""

    def __init__(self, inputs: Inputs, task: Task, config: MethodConfig) -> None:
        super().__init__(inputs, task, config)
        self.linear = nn.Linear(inputs.dims["vision"], task.outputs)
        self.seen: dict[str, list[Tensor]] = {"train": [], "eval": []}

    def forward(self, batch: Batch) -> Output:
        self.seen["train" if self.training else "eval"].append(batch.features["vision"].clone())
        return Output(self.linear(batch.mean("vision")))


def fit(epochs: int = 4, resume: Any = None, after: Any = lambda run: None, **how: Any) -> Run:
    config = MethodConfig(augmentation=Augmentation(**how), training=Training(batch_size=4, max_epochs=epochs, patience=epochs))
    split, valid = films(9), films(5, seed=1)
    method = build(Pixel, Inputs({"audio": 2, "vision": SIDE * SIDE * COLOURS}), TASK, config, 1)
    return train(method, split, valid, TASK, config, 1, resume=resume, after_epoch=after)


def test_training_sees_changed_films_and_nothing_else_does() -> None:
    run = fit(**HOW)
    rows = {tuple(clip.flatten().tolist()) for clip in pictures(whole(films(9)))}
    valid = {tuple(clip.flatten().tolist()) for clip in pictures(whole(films(5, seed=1)))}
    method = run.method
    assert isinstance(method, Pixel)
    assert not any(tuple(clip.flatten().tolist()) in rows for batch in method.seen["train"] for clip in batch)
    assert all(tuple(clip.flatten().tolist()) in valid for batch in method.seen["eval"] for clip in batch)
    method.seen["eval"].clear()
    predict(method, films(9), run.settings)
    assert all(tuple(clip.flatten().tolist()) in rows for batch in method.seen["eval"] for clip in batch)


@pytest.mark.parametrize("stop", [1, 3])
def test_a_run_resumed_after_an_epoch_ends_with_the_same_bits(stop: int) -> None:
    states: list[Any] = []

    def keep(run: Run) -> None:
        if len(run.history) == stop:
            states.append(copy.deepcopy(run.state()))

    through, resumed = fit(after=keep, **HOW), fit(resume=states[0], **HOW)
    assert through.history == resumed.history != fit().history
    assert all(torch.equal(a, b) for a, b in zip(through.method.parameters(), resumed.method.parameters(), strict=True))
