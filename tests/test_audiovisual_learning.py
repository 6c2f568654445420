"""The audio-visual baselines find patterns in films and sound that no mean over frames tells of."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import build, filmed, predict, whole
from test_audiovisual_baselines import CLASSIFIERS, TINY

from harness.data.schema import Ragged, Split
from harness.training import methods

CLIPS, FRAMES, SIDE, SOUND = 48, 5, 16, 48
STEPS, RATE, ENOUGH = 100, 5e-3, 0.75  # chance is a third


def patterns(seed: int) -> Split:
    """Films of stripes, lying, standing or aslant, at random places; sound of one of three pitches in random phase. Labels in turn."""
    rng = np.random.default_rng(seed)
    labels = np.arange(CLIPS) % 3
    line, column = np.meshgrid(np.arange(SIDE), np.arange(SIDE), indexing="ij")
    slopes = np.stack([line, column, line + column])[labels][:, None]
    films = np.sin(np.pi / 2 * (slopes + rng.integers(0, 4, (CLIPS, FRAMES, 1, 1))))
    pitch = np.array([1.0, 4.0, 11.0])[labels][:, None]
    wave = np.sin(2 * np.pi * (pitch * np.arange(SOUND) / SOUND + rng.random((CLIPS, 1))))
    sound = wave[..., None] * np.array([1.0, -1.0, 0.5, 1.0])
    features = {name: ragged(x + 0.3 * rng.normal(size=x.shape)) for name, x in {"audio": sound, "vision": films}.items()}
    names = tuple(f"clip{i}" for i in range(CLIPS))
    return filmed(Split(features, torch.arange(CLIPS), names, names, torch.from_numpy(labels)))


def ragged(x: np.ndarray) -> Ragged:
    """x (clips, frames, ...) with a frame's values in one row."""
    values = torch.from_numpy(x.reshape(len(x) * x.shape[1], -1).astype(np.float32))
    return Ragged(values, torch.arange(len(x) + 1) * x.shape[1])


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_patterns_are_found_in_clips_that_were_not_trained_on(name: str) -> None:
    train, test = patterns(0), patterns(1)
    settings = TINY.get(name, {})
    if "sequence_steps" in methods[name].Config.model_fields:
        settings = settings | {"sequence_steps": {"text": SOUND, "audio": SOUND, "vision": SOUND}}
    method = build(name, train, "classification", **settings)
    batch = whole(train)
    optimiser = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], lr=RATE)
    for _ in range(STEPS):
        optimiser.zero_grad()
        output = method(batch)
        (F.cross_entropy(output.prediction, batch.labels) + sum(output.losses.values())).backward()
        optimiser.step()
    found = predict(method.eval(), whole(test)).argmax(1)
    accuracy = float((found == test.labels).float().mean())
    assert accuracy >= ENOUGH, f"accuracy {accuracy:.2f}"
