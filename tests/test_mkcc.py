"""MKCC and its masked layers: definitions, and that each ablation changes the computation it names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from helpers import TASKS, build, predict, random_split, some_split, whole
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn

from harness.data.schema import Task
from harness.nn.kan import KANConv1d
from harness.nn.masked import MaskedBatchNorm, max_pool, time_mean
from harness.training import Inputs, methods
from harness.training.by_modality import ByModality
from methods.mkcc import MKCC, CrossAttention, Stage

EXACT = {"rtol": 0.0, "atol": 1e-12}
SMALL: dict[str, Any] = {"channels": (4, 5)}
RAVDESS = Task(kind="classification", classes=tuple("abcdefgh"))


def padded(lengths: Sequence[int], channels: int = 3, extra: int = 0) -> tuple[Tensor, Tensor]:
    """Random clips (B, C, T) in double precision, zero after each one's end."""
    rng = np.random.default_rng(0)
    x = torch.zeros(len(lengths), channels, max(lengths) + extra, dtype=torch.float64)
    for row, length in enumerate(lengths):
        x[row, :, :length] = torch.from_numpy(rng.normal(2, 3, size=(channels, length)))
    return x, torch.tensor(lengths)


def frames(x: Tensor, lengths: Tensor) -> Tensor:
    """All real frames, (frames, C)."""
    return torch.cat([clip[:, :length].T for clip, length in zip(x, lengths.tolist(), strict=True)])


# ---- masked layers


@pytest.mark.parametrize("lengths", [[5, 5, 5], [2, 9, 4], [1, 6]])
def test_batch_norm_is_that_of_the_real_frames_alone(lengths: list[int]) -> None:
    """Values, gradients and running statistics of ``nn.BatchNorm1d`` on the frames laid end to end."""
    ours, theirs = MaskedBatchNorm(3).double(), nn.BatchNorm1d(3).double()
    x, counts = padded(lengths, extra=3)
    x.requires_grad_()
    for norm in (ours, theirs):
        nn.init.constant_(norm.weight, 0.7)
        nn.init.constant_(norm.bias, 0.2)
    mine, other = ours(x, counts), theirs(frames(x, counts))
    torch.testing.assert_close(frames(mine, counts), other, **EXACT)
    gradients = [torch.autograd.grad(y.pow(3).sum(), x)[0] for y in (frames(mine, counts), other)]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=1e-10)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean, **EXACT)
    torch.testing.assert_close(ours.running_var, theirs.running_var, **EXACT)
    assert mine.detach().abs().sum() == pytest.approx(frames(mine, counts).detach().abs().sum()), "padding is zero"
    torch.testing.assert_close(frames(ours.eval()(x, counts), counts), theirs.eval()(frames(x, counts)), **EXACT)


def test_batch_norm_of_a_single_frame_is_its_bias() -> None:
    norm = MaskedBatchNorm(2)
    nn.init.constant_(norm.bias, 0.3)
    x = torch.randn(1, 2, 1)
    torch.testing.assert_close(norm(x, torch.tensor([1])), torch.full((1, 2, 1), 0.3))
    assert torch.equal(norm.running_var, torch.ones(2))


@given(st.lists(st.integers(1, 12), min_size=1, max_size=4), st.integers(1, 4), st.integers(0, 3))
@settings(deadline=None, max_examples=50)
def test_max_pool_and_mean_see_real_frames_alone(lengths: list[int], size: int, extra: int) -> None:
    x, counts = padded(lengths, extra=extra)
    x = x - 10  # every real value below the padding's zero
    x[torch.arange(x.shape[2])[None, None].expand_as(x) >= counts[:, None, None]] = 0
    pooled, shorter = max_pool(x, counts, size)
    for row, length in enumerate(lengths):
        expected = [x[row, :, i : min(i + size, length)].amax(1) for i in range(0, length, size)]
        assert int(shorter[row]) == len(expected)
        assert torch.equal(pooled[row, :, : len(expected)], torch.stack(expected, dim=1))
        assert not pooled[row, :, len(expected) :].any()
        torch.testing.assert_close(time_mean(x, counts)[row], x[row, :, :length].mean(1), **EXACT)


# ---- the model


def test_stage_puts_kernels_side_by_side_or_in_a_row() -> None:
    """Eq. 10: channels of every kernel of the same input; tables 1 and 2: each reads the one before it."""
    torch.manual_seed(0)
    x, lengths = padded([7, 4])
    for wiring in ("parallel", "sequential"):
        stage = Stage(3, 4, MKCC.Config(wiring=wiring), (3, 5)).double().eval()
        first, second = stage.convolutions
        norm, other = stage.norms
        one = norm(first(x), lengths)
        expected = torch.cat([one, other(second(x), lengths)], dim=1) if wiring == "parallel" else other(second(one), lengths)
        torch.testing.assert_close(stage(x, lengths), expected, **EXACT)


def test_attention_follows_equation_11() -> None:
    torch.manual_seed(0)
    layer = CrossAttention(3).double()
    target, many = padded([4, 2], extra=1)
    source, few = padded([3, 6])
    found = layer(target, source, many, few)
    for row, (queries, keys) in enumerate(zip(many.tolist(), few.tolist(), strict=True)):
        q, k = target[row, :, :queries].T, source[row, :, :keys].T
        scores = q @ layer.query.weight.T @ (k @ layer.key.weight.T).T / 3**0.5
        torch.testing.assert_close(found[row, :, :queries].T, scores.softmax(1) @ k @ layer.value.weight.T, **EXACT)


def some_mkcc(**changed: Any) -> tuple[Any, Tensor]:
    split = some_split("classification")
    method = build("mkcc", split, "classification", **(SMALL | changed)).eval()
    return method, predict(method, whole(split))


def test_presets_are_those_of_the_text() -> None:
    config = MKCC.Config.model_validate(MKCC.presets["ravdess"])
    assert (config.order, config.grid, config.channels) == (3, 5, (64, 128))
    assert (config.kernels["vision"], config.kernels["audio"]) == ((3, 5, 7), (5, 3, 7))
    training = config.training
    assert (training.optimiser, training.learning_rate, training.momentum, training.weight_decay) == ("sgd", 0.04, 0.9, 1e-3)
    assert training.max_epochs == training.patience == 100


def test_number_of_parameters() -> None:
    """Convolutions 10 per edge, norms 2 per channel, attention 3 W each way, the classifier."""
    method = MKCC(Inputs({"audio": 10, "vision": 18}), RAVDESS, MKCC.Config())
    stages = 10 * 15 * 64 * (10 + 18) + 2 * 10 * 15 * 192 * 128 + 2 * 2 * (192 + 384)
    expected = stages + 2 * 3 * 192**2 + (2 * 384 + 1) * 8
    assert sum(p.numel() for p in method.parameters()) == expected and f"{expected:,}" in str(MKCC.__doc__)


def test_cnn_has_no_splines() -> None:
    kan, cnn = some_mkcc()[0], some_mkcc(convolution="cnn")[0]
    assert any(isinstance(module, KANConv1d) for module in kan.modules())
    assert not any(isinstance(module, KANConv1d) for module in cnn.modules())
    assert sum(isinstance(module, nn.Conv1d) for module in cnn.modules()) == 3 * 2 * 3


@pytest.mark.parametrize("kernels", [(3,), (7,), (3, 7), (3, 5, 7, 9)])
def test_kernel_sets(kernels: tuple[int, ...]) -> None:
    same = ByModality(text=kernels, audio=kernels, vision=kernels).model_dump()
    method, _ = some_mkcc(kernels=same)
    sizes = [module.kernel for module in method.get_submodule("first.audio").modules() if isinstance(module, KANConv1d)]
    assert sizes == [(kernel,) for kernel in kernels]
    assert method.out.in_features == 3 * 5 * len(kernels)


def test_without_attention_a_modality_does_not_see_the_others() -> None:
    """The audio vector changes with the vision input only where audio attends to it."""
    split = some_split("classification")
    batch = whole(split)
    other = whole(split)
    other.features["vision"].mul_(3)  # type: ignore[attr-defined]
    for attention, sees in (((1,), True), ((2,), True), ((1, 2), True), ((), False)):
        method = build("mkcc", split, "classification", **SMALL, attention=attention).eval()
        one, two = (method(b).representations["audio"] for b in (batch, other))
        assert torch.equal(one, two) is not sees


@pytest.mark.parametrize(
    "changed", [{"wiring": "sequential"}, {"join": "replace"}, {"pool": 1}, {"span": (-3.0, 3.0)}, {"order": 2}, {"grid": 8}]
)
def test_other_readings_change_the_result(changed: dict[str, Any]) -> None:
    (_, default), (_, found) = some_mkcc(), some_mkcc(**changed)
    assert found.isfinite().all() and not torch.allclose(found, default)


@pytest.mark.parametrize("wiring", ["parallel", "sequential"])
@pytest.mark.parametrize("convolution", ["kan", "cnn"])
def test_a_training_batch_does_not_depend_on_padding(wiring: str, convolution: str) -> None:
    """In training mode too: batch statistics ignore padded frames."""
    split = random_split({"audio": [5, 9, 3], "vision": [4, 4, 8]}, {"audio": 3, "vision": 4}, seed=0, classes=3)
    method = build("mkcc", split, "classification", **SMALL, wiring=wiring, convolution=convolution).train()
    batch = whole(split)
    longer = whole(split)
    for name, x in batch.features.items():
        longer.features[name] = nn.functional.pad(x, (0, 0, 0, 6))  # type: ignore[index]
    torch.testing.assert_close(method(batch).prediction, method(longer).prediction, rtol=0, atol=1e-5)


def test_settings_are_checked() -> None:
    config = methods["mkcc"].Config
    even = ByModality(text=(3,), audio=(4,), vision=(3,)).model_dump()
    with pytest.raises(ValidationError, match="kernel 4 is not odd"):
        config(kernels=even)
    unequal = ByModality(text=(3,), audio=(3, 5), vision=(3,)).model_dump()
    with pytest.raises(ValidationError, match="unequal width"):
        config(kernels=unequal)
    method = methods["mkcc"](Inputs({"audio": 3, "vision": 4}), TASKS["regression"], config(kernels=unequal, wiring="sequential"))
    assert method is not None
    with pytest.raises(ValidationError, match="span"):
        config(span=(2.0, 1.0))
