"""Layers of the audio-visual baselines, against definitions written by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from harness.nn.efficientface import EfficientFace, Modulator, Quadrants, Shuffled
from harness.nn.films import IMAGENET, Pictures, fixed
from harness.nn.gating import MMTM, SplitAttention
from harness.nn.resnext3d import Bottleneck, FilmNorm, ResNeXt3D
from harness.nn.streams import SequenceNorm, SequenceStream

EXACT = {"rtol": 0.0, "atol": 1e-12}


def randomised(module: nn.Module, seed: int = 0) -> Any:
    """``module`` in double precision and evaluation mode, all its parameters and statistics random."""
    generator = torch.Generator().manual_seed(seed)
    for name, x in module.double().state_dict().items():
        if x.is_floating_point():
            x.copy_(
                torch.rand(x.shape, generator=generator, dtype=x.dtype) + 0.1
                if "var" in name
                else 0.5 * torch.randn(x.shape, generator=generator, dtype=x.dtype)
            )
    return module.eval()


def normed(x: Tensor, norm: Any) -> Tensor:
    """Batch norm in evaluation, over axis 1."""
    shape = (-1, *[1] * (x.ndim - 2))
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return (x - norm.running_mean.view(shape)) * scale.view(shape) + norm.bias.view(shape)


# ---- fixed length


@given(st.lists(st.integers(1, 14), min_size=1, max_size=4), st.integers(1, 12), st.integers(0, 3))
@settings(deadline=None, max_examples=60)
def test_a_clip_is_cut_around_its_middle_or_filled_up(lengths: list[int], steps: int, extra: int) -> None:
    rng = np.random.default_rng(0)
    x = torch.zeros(len(lengths), max(lengths) + extra, 2, dtype=torch.float64)
    for row, length in enumerate(lengths):
        x[row, :length] = torch.from_numpy(rng.normal(size=(length, 2)))
    found = fixed(x, torch.tensor(lengths), steps)
    for row, length in enumerate(lengths):
        start = max(0, length - steps) // 2
        part = x[row, :length][start : start + steps]
        assert torch.equal(found[row], F.pad(part, (0, 0, 0, steps - len(part))))


def test_pictures_keep_pixels_where_they_are_and_take_colours_off() -> None:
    frames = torch.rand(2, 3, 2, 2, 3, dtype=torch.float64)  # clips, frames, lines, columns, colours
    flat, lengths = frames.flatten(2), torch.tensor([3, 3])
    assert torch.equal(Pictures(2, 3, 3)(flat, lengths), frames.permute(0, 4, 1, 2, 3))
    mean, deviation = (torch.tensor(values, dtype=torch.float64) for values in IMAGENET)
    found = Pictures(2, 3, 3, colours="imagenet").double()(flat, lengths)
    torch.testing.assert_close(found.permute(0, 2, 3, 4, 1), (frames - mean) / deviation, rtol=0, atol=1e-6)
    grey = Pictures(2, 1, 3, colours="imagenet").double()(frames[..., 0].flatten(2), lengths)
    torch.testing.assert_close(grey[:, 0], (frames[..., 0] - mean.mean()) / deviation.mean(), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="1 or 3 colours"):
        Pictures(1, 35, 3, colours="imagenet")


# ---- 3-D ResNeXt


def test_sizes_after_every_stage_are_the_published_ones() -> None:
    """30 frames of 224 pixels: the table of Hara et al., which the authors of MSAF use."""
    with torch.device("meta"):
        trunk = ResNeXt3D()
        x = trunk.stem(torch.empty(1, 3, 30, 224, 224))
        shapes = [tuple(x.shape[1:])]
        for stage in trunk.stages:
            x = stage(x)
            shapes.append(tuple(x.shape[1:]))
        short = trunk(torch.empty(1, 3, 15, 112, 112))
    assert shapes == [(64, 15, 56, 56), (256, 15, 56, 56), (512, 8, 28, 28), (1024, 4, 14, 14), (2048, 2, 7, 7)]
    assert short.shape == (1, 2048, 1, 4, 4)


@pytest.mark.parametrize(("inputs", "stride"), [(8, 1), (4, 1), (8, 2)])
def test_bottleneck_by_hand(inputs: int, stride: int) -> None:
    block = randomised(Bottleneck(inputs, 8, stride, groups=2, flat=False))
    x = torch.randn(2, inputs, 5, 4, 3, dtype=torch.float64)
    y = F.relu(normed(F.conv3d(x, block.conv1.weight), block.bn1))
    halves = [F.conv3d(y[:, i : i + 2], block.conv2.weight[i : i + 2], stride=stride, padding=1) for i in (0, 2)]  # two groups
    y = F.relu(normed(torch.cat(halves, dim=1), block.bn2))
    y = normed(F.conv3d(y, block.conv3.weight), block.bn3)
    shortcut = x
    if stride > 1 or inputs != 8:
        convolution, norm = block.downsample
        shortcut = normed(F.conv3d(x[:, :, ::stride, ::stride, ::stride], convolution.weight), norm)
    torch.testing.assert_close(block(x), F.relu(y + shortcut), **EXACT)


def test_flat_kernels_are_the_middles_of_whole_ones() -> None:
    """On films of one pixel all else of a kernel meets zeros."""
    whole = randomised(ResNeXt3D(5, (1, 2, 1, 1), (8, 8, 16, 16), stem=4, groups=2))
    flat = ResNeXt3D(5, (1, 2, 1, 1), (8, 8, 16, 16), stem=4, groups=2, flat=True).double().eval()
    state = {
        name: x[..., x.shape[3] // 2, x.shape[4] // 2][..., None, None] if x.ndim == 5 else x for name, x in whole.state_dict().items()
    }
    flat.load_state_dict(state)
    x = torch.randn(2, 5, 21, 1, 1, dtype=torch.float64)
    torch.testing.assert_close(flat(x), whole(x), **EXACT)
    assert flat(x).shape == (2, 16, 2, 1, 1)


def test_groups_must_divide() -> None:
    with pytest.raises(ValueError, match="groups = 32 does not divide half of a stage's 32 channels"):
        ResNeXt3D(widths=(32, 64, 64, 64))


@pytest.mark.parametrize(("norm", "shape"), [(FilmNorm(3), (1, 3, 1, 1, 1)), (SequenceNorm(3), (1, 3, 1))])
def test_a_single_value_is_normalised_by_running_statistics(norm: Any, shape: tuple[int, ...]) -> None:
    norm.running_mean.fill_(2.0)
    norm.running_var.fill_(4.0)
    assert norm.training
    torch.testing.assert_close(norm(torch.full(shape, 6.0)), torch.full(shape, 2.0))
    assert torch.equal(norm.running_mean, torch.full((3,), 2.0))
    norm(torch.randn(2, *shape[1:]))
    assert not torch.equal(norm.running_mean, torch.full((3,), 2.0)), "two values have a variance"


# ---- the sequence network


def test_sequence_network_by_hand() -> None:
    net = randomised(SequenceStream(5, 30, 4, (6, 7, 8), dropout=0.2, head_dropout=0.4))
    x = torch.randn(3, 30, 5, dtype=torch.float64)
    lengths = torch.full((3,), 30)
    y = normed(F.relu(F.conv1d(x.transpose(1, 2), net.conv1.weight, net.conv1.bias, padding=2)), net.bn1)
    first = F.relu(F.conv1d(y, net.conv2.weight, net.conv2.bias, padding=2))
    pooled = torch.stack([first[:, :, i : i + 8].amax(2) for i in range(0, 24, 8)], dim=2)
    second = normed(F.relu(F.conv1d(normed(pooled, net.bn2), net.conv3.weight, net.conv3.bias, padding=2)), net.bn3)
    torch.testing.assert_close(net.early(x, lengths), first, **EXACT)
    torch.testing.assert_close(net.late(first), second, **EXACT)
    outputs, vector = net(x, lengths)
    torch.testing.assert_close(vector, second.reshape(3, -1), **EXACT)
    torch.testing.assert_close(outputs, F.linear(vector, net.head[1].weight, net.head[1].bias), **EXACT)
    assert net.width == 24 and net.sites == (7, 8)
    with pytest.raises(ValueError, match="at least 12"):
        SequenceStream(5, 11, 4, (6, 7, 8), 0.0, 0.0)


def test_sites_of_the_published_sequence_network() -> None:
    with torch.device("meta"):
        net = SequenceStream(13, 212, 8, (32, 32, 64), 0.2, 0.4)
        first = net.early(torch.empty(2, 212, 13), torch.full((2,), 212))
    assert first.shape == (2, 32, 208) and net.late(first).shape == (2, 64, 26) and net.width == 1664


# ---- gating


def streams(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"audio": (3, 5, 7), "vision": (3, 8, 2, 3, 3)}
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


@pytest.mark.parametrize(("ratio", "scale", "width"), [(4, 1.0, 6), (8, 2.0, 3)])
def test_mmtm_by_hand(ratio: int, scale: float, width: int) -> None:
    module, x = randomised(MMTM({"audio": 5, "vision": 8}, ratio, scale)), streams()
    found = module(x)
    assert module.squeeze.out_features == width
    for clip in range(3):
        means = torch.cat([x["audio"][clip].mean(1), x["vision"][clip].mean((1, 2, 3))])
        joint = (module.squeeze.weight @ means + module.squeeze.bias).clamp_min(0)
        for name in x:
            gate = scale / (1 + (-(module.excite[name].weight @ joint + module.excite[name].bias)).exp())
            for channel, factor in enumerate(gate):
                torch.testing.assert_close(found[name][clip, channel], x[name][clip, channel] * factor, **EXACT)


def test_gates_of_two_sigmoid_are_neutral_at_zero() -> None:
    module, x = MMTM({"audio": 5, "vision": 8}, scale=2.0).double(), streams()
    for layer in module.excite.values():
        nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    assert all(torch.equal(module(x)[name], x[name]) for name in x)


@pytest.mark.parametrize("least", [0.0, 0.3])
@pytest.mark.parametrize("block", [4, 3])
def test_split_attention_by_hand(block: int, least: float) -> None:
    """5 and 8 channels: blocks of 4 and of 3 leave rests, which are filled up."""
    module, x = randomised(SplitAttention({"audio": 5, "vision": 8}, block, reduction=2, least=least)), streams()
    found, counts = module(x), {"audio": -(-5 // block), "vision": -(-8 // block)}
    for clip in range(3):
        whole = torch.zeros(block, dtype=torch.float64)
        for y in x.values():
            for channel, mean in enumerate(y[clip].flatten(1).mean(1)):
                whole[channel % block] += mean
        joint = normed((module.squeeze.weight @ whole + module.squeeze.bias)[None], module.norm)[0].clamp_min(0)
        scores = (module.excite.weight @ joint + module.excite.bias).view(sum(counts.values()), block)
        alpha = scores.exp() / scores.exp().sum(0)
        first = 0
        for name, count in counts.items():
            gates = (least + (1 - least) * alpha[first : first + count]).flatten()
            first += count
            for channel in range(x[name].shape[1]):
                torch.testing.assert_close(found[name][clip, channel], x[name][clip, channel] * gates[channel], **EXACT)


def test_block_dropout_acts_once_on_whole_blocks() -> None:
    """With equal gates a kept block comes out times 1 / (blocks (1 - p)), a lost one as zeros; the mean over clips stays."""
    clips, p = 4000, 0.2
    module = SplitAttention({"audio": 4, "vision": 4}, 2, drop=p).double()
    nn.init.zeros_(module.excite.weight)
    nn.init.zeros_(module.excite.bias)
    x = {name: torch.ones(clips, 4, 3, dtype=torch.float64) for name in ("audio", "vision")}
    torch.manual_seed(0)
    found = torch.cat(list(module(x).values()), dim=1)
    blocks = found.view(clips, 4, 6)
    assert torch.equal(blocks.amin(2), blocks.amax(2)), "whole blocks"
    torch.testing.assert_close(blocks.unique(), torch.tensor([0.0, 1 / (4 * (1 - p))], dtype=torch.float64))
    assert float((blocks[..., 0] == 0).double().mean()) == pytest.approx(p, abs=4 * (p * (1 - p) / (4 * clips)) ** 0.5)
    assert torch.equal(torch.cat(list(module.eval()(x).values()), dim=1).unique(), torch.tensor([0.25], dtype=torch.float64))


# ---- EfficientFace


def test_quadrants_do_not_see_each_other() -> None:
    layer = randomised(Quadrants(3, 6))
    x = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    for row in range(2):
        for column in range(2):
            other = x.clone()
            other[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 1
            changed = (layer(other) != layer(x)).any(1)[0]
            expected = torch.zeros(4, 4, dtype=torch.bool)
            expected[2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = True
            assert changed.any() and not (changed & ~expected).any()


def test_shuffled_residual_passes_one_half_between_the_other() -> None:
    layer = randomised(Shuffled(6, 6, 1))
    x = torch.randn(2, 6, 4, 4, dtype=torch.float64)
    y = layer(x)
    assert torch.equal(y[:, ::2], x[:, :3]) and torch.equal(y[:, 1::2], layer.far(x[:, 3:]))
    halving = randomised(Shuffled(4, 6, 2))
    z = torch.randn(2, 4, 6, 6, dtype=torch.float64)
    assert torch.equal(halving(z)[:, ::2], halving.near(z)) and halving(z).shape == (2, 6, 3, 3)


def test_modulator_multiplies_gates_before_the_sigmoid() -> None:
    layer = randomised(Modulator(32))
    x = torch.randn(2, 32, 3, 3, dtype=torch.float64)
    gate = layer.channel(x.mean((2, 3)))[:, :, None, None] * layer.place(x)
    torch.testing.assert_close(layer(x), x / (1 + (-gate).exp()), **EXACT)


def test_a_face_becomes_a_vector() -> None:
    net = EfficientFace(1, (1, 1, 1), (4, 32, 32, 32), width=9).eval()
    assert net(torch.rand(2, 1, 32, 32)).shape == (2, 9)
