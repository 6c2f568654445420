"""AMCM, its film network and ResNet: each equation by hand, sizes, and that each ablation changes the computation it names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import TASKS, build, filmed, merged, nested, own_settings, predict, random_split, whole
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn

from harness.data.batches import Batch
from harness.data.schema import Picture as Pixels
from harness.data.schema import Split, Task
from harness.errors import ConfigError
from harness.nn.adjacency import AdjacencyLayer, ChannelNorm, ConvMixerLayer, Patches, codes, resampled
from harness.nn.focal import DynamicFocal
from harness.nn.resnet import ResNet
from harness.training import Inputs, methods
from harness.training.objectives import training_objective
from methods.amcm import AMCM, CMTAM, Film, Picture

EXACT = {"rtol": 0.0, "atol": 1e-12}
EIGHT = Task(kind="classification", classes=tuple("abcdefgh"))
SMALL: dict[str, Any] = {
    "grid": 2,
    "steps": 4,
    "width": 6,
    "depth": 2,
    "blocks": (1, 1, 1, 1),
    "trunk": (4, 4, 6, 6),
    "query": 5,
    "key": 4,
}
AUDIO = [70, 40, 65, 33]  # more than 32 frames: several steps are left to attend to


def films(modalities: tuple[str, ...] = ("audio", "vision")) -> Split:
    """Clips with frames of 4 x 4 grey pixels, of fewer and of more frames than a film has steps."""
    lengths = {"text": [3, 1, 2, 6], "audio": AUDIO, "vision": [4, 2, 9, 5]}
    return filmed(random_split(lengths, {"text": 5, "audio": 6, "vision": 16}, seed=2, classes=3)).only(modalities)


def some_amcm(split: Split | None = None, **changed: Any) -> tuple[Any, Batch]:
    """A small method in evaluation mode, its batch statistics those of one training batch."""
    split = split or films()
    method = build("amcm", split, "classification", **(SMALL | changed))
    batch = whole(split)
    for module in method.modules():
        if hasattr(module, "momentum"):
            module.momentum = 1.0
    method(batch)
    return method.eval(), batch


def randomised(module: nn.Module, seed: int = 0) -> Any:
    """``module`` in double precision with random parameters and statistics, so that none is at a value that hides it."""
    torch.manual_seed(seed)
    for parameter in module.double().parameters():
        nn.init.normal_(parameter, 0.3, 0.5)
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            nn.init.normal_(buffer)
        if name.endswith("running_var"):
            nn.init.uniform_(buffer, 0.5, 2.0)
    return module


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def norm_of(x: Tensor, norm: Any) -> Tensor:
    """Evaluation-mode batch norm of the last axis."""
    return (x - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias


# ---- films


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4), steps=st.integers(1, 20), extra=st.integers(0, 5))
@settings(deadline=None, max_examples=60)
def test_films_are_cut_into_equal_parts(lengths: list[int], steps: int, extra: int) -> None:
    x = torch.zeros(len(lengths), max(lengths) + extra, 2, dtype=torch.float64)
    for row, length in enumerate(lengths):
        x[row, :length] = normal(length, 2, seed=row)
    counts = torch.tensor(lengths)
    mean, middle = resampled(x, counts, steps), resampled(x, counts, steps, "middle")
    for row, length in enumerate(lengths):
        for k in range(steps):
            begin, end = k * length / steps, (k + 1) * length / steps
            touched = [frame for frame in range(length) if frame + 1 > begin + 1e-9 and frame < end - 1e-9]
            torch.testing.assert_close(mean[row, k], x[row, touched].mean(0), **EXACT)
            assert torch.equal(middle[row, k], x[row, (2 * k + 1) * length // (2 * steps)])
        if length == steps:
            torch.testing.assert_close(mean[row], x[row, :length], **EXACT)
            assert torch.equal(middle[row], x[row, :length])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("tubelet", [1, 2])
def test_patches_are_a_convolution_whose_stride_is_its_kernel(channels: int, tubelet: int) -> None:
    layer = randomised(Patches(6, channels, 3, 5, tubelet)).eval()
    x = normal(2, 4, 6 * 6 * channels)
    kernel = layer.linear.weight.view(5, tubelet, 2, 2, channels).permute(0, 4, 1, 2, 3)
    picture = x.view(2, 4, 6, 6, channels).permute(0, 4, 1, 2, 3)  # (B, channels, T, rows, columns)
    found = F.conv3d(picture, kernel, layer.linear.bias, stride=(tubelet, 2, 2)).permute(0, 2, 3, 4, 1).flatten(2, 3)
    torch.testing.assert_close(layer(x), norm_of(F.gelu(found), layer.norm), **EXACT)


def test_channel_norm_is_batch_norm_of_all_nodes() -> None:
    ours, theirs = ChannelNorm(3).double(), nn.BatchNorm3d(3).double()
    x = normal(2, 4, 9, 3)
    expected = theirs(x.permute(0, 3, 1, 2)[..., None])[..., 0].permute(0, 2, 3, 1)
    torch.testing.assert_close(ours(x), expected, **EXACT)
    torch.testing.assert_close(ours.running_var, theirs.running_var, **EXACT)


def test_position_codes() -> None:
    place, time = codes(2, 3)
    assert place.tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]] and time.flatten().tolist() == [0, 1, 2]
    place, time = codes(2, 4, "unit")
    assert place.tolist() == [[0.5, 0.5], [0.5, 1], [1, 0.5], [1, 1]] and time.flatten().tolist() == [0, 0.25, 0.5, 0.75]


def test_adjacency_layer_is_equations_5_to_9() -> None:
    """Node by node: concatenation with the codes, sums over all nodes, over all steps, then channels."""
    n, t, c = 2, 3, 4
    layer = randomised(AdjacencyLayer(n, t, c)).eval()
    x = normal(2, t, n * n, c)
    spatial, temporal, points = layer.norms
    f = torch.empty_like(x)
    for j in range(n * n):
        code = torch.tensor([j // n + 1.0, j % n + 1.0], dtype=torch.float64).expand(2, t, 2)
        f[:, :, j] = layer.place.linear(torch.cat([x[:, :, j], code], dim=2))
    aggregated = torch.stack([sum(f[:, :, i] * layer.spatial[i, j] for i in range(n * n)) for j in range(n * n)], dim=2)
    f = norm_of(F.gelu(aggregated), spatial) + f
    g = torch.empty_like(f)
    for s in range(t):
        g[:, s] = layer.time.linear(torch.cat([f[:, s], torch.full((2, n * n, 1), float(s), dtype=torch.float64)], dim=2))
    aggregated = torch.stack([sum(g[:, r] * layer.temporal[r, s] for r in range(t)) for s in range(t)], dim=1)
    g = norm_of(F.gelu(aggregated), temporal) + g
    torch.testing.assert_close(layer(x), norm_of(F.gelu(layer.point(g)), points), **EXACT)


def test_every_pair_of_nodes_has_a_weight_of_its_own_and_all_start_alike() -> None:
    layer = AdjacencyLayer(3, 5, 4)
    assert layer.spatial.shape == (9, 9) and layer.temporal.shape == (5, 5)
    assert layer.spatial.eq(1).all() and layer.temporal.eq(1).all()
    assert AdjacencyLayer(3, 5, 4, start=0.25).temporal.eq(0.25).all()


def test_convmixer_layer_is_equations_1_and_2() -> None:
    layer = randomised(ConvMixerLayer(3, 4, 5)).eval()
    x = normal(2, 3, 9, 4)
    over_space, over_channels = layer.norms
    picture = x.view(6, 3, 3, 4).permute(0, 3, 1, 2)
    weight, bias = layer.depthwise.weight, layer.depthwise.bias
    each = [F.conv2d(picture[:, h : h + 1], weight[h : h + 1], bias[h : h + 1], padding=2) for h in range(4)]
    mixed = torch.cat(each, dim=1).permute(0, 2, 3, 1).reshape(x.shape)
    f = norm_of(F.gelu(mixed), over_space) + x
    torch.testing.assert_close(layer(x), norm_of(F.gelu(f @ layer.point.weight.T + layer.point.bias), over_channels), **EXACT)


# ---- pictures


def test_size_of_resnet_34() -> None:
    assert sum(p.numel() for p in ResNet().parameters()) == 21_278_400
    assert sum(p.numel() for p in ResNet(3).parameters()) == 21_284_672
    keys = set(ResNet().state_dict())
    assert {"conv1.weight", "bn1.running_var", "layer2.0.downsample.0.weight", "layer3.5.conv2.weight", "layer4.2.bn2.bias"} <= keys
    assert not any(key.startswith("layer1.0.downsample") for key in keys)


def plain_resnet(state: Mapping[str, Tensor], x: Tensor, blocks: tuple[int, ...], training: bool) -> Tensor:
    """A residual network from its published description, on a whole picture."""

    def norm(x: Tensor, name: str) -> Tensor:
        mean, variance = state[f"{name}.running_mean"].clone(), state[f"{name}.running_var"].clone()
        return F.batch_norm(x, mean, variance, state[f"{name}.weight"], state[f"{name}.bias"], training)

    x = F.relu(norm(F.conv2d(x, state["conv1.weight"], stride=2, padding=3), "bn1"))
    x = F.max_pool2d(x, 3, 2, 1)
    for stage, count in enumerate(blocks, start=1):
        for block in range(count):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = F.relu(norm(F.conv2d(x, state[f"{name}.conv1.weight"], stride=stride, padding=1), f"{name}.bn1"))
            y = norm(F.conv2d(y, state[f"{name}.conv2.weight"], padding=1), f"{name}.bn2")
            if f"{name}.downsample.0.weight" in state:
                x = norm(F.conv2d(x, state[f"{name}.downsample.0.weight"], stride=stride), f"{name}.downsample.1")
            x = F.relu(x + y)
    return x


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("rows", [1, 37, 64])
def test_resnet_is_the_published_one(rows: int, training: bool) -> None:
    net = randomised(ResNet(2, (2, 1, 1, 2), (4, 4, 6, 8))).train(training)
    x = normal(3, 2, rows, 11)
    expected = plain_resnet(net.state_dict(), x, (2, 1, 1, 2), training)
    found, lengths = net(x, torch.full((3,), rows))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert found.shape == (3, 8, -(-rows // 32), 1) and lengths.tolist() == [-(-rows // 32)] * 3


@given(lengths=st.lists(st.integers(1, 80), min_size=2, max_size=4), extra=st.integers(0, 40))
@settings(deadline=None, max_examples=15)
def test_resnet_does_not_see_padding(lengths: list[int], extra: int) -> None:
    """Evaluated, a clip gets what it gets alone; in training, more padding changes nothing."""
    net = randomised(ResNet(1, (1, 1, 1, 1), (3, 3, 4, 4)))
    x = torch.zeros(len(lengths), 1, max(lengths), 5, dtype=torch.float64)
    for row, length in enumerate(lengths):
        x[row, 0, :length] = normal(length, 5, seed=row)
    counts, longer = torch.tensor(lengths), F.pad(x, (0, 0, 0, extra))
    trained, steps = net.train()(x, counts)
    torch.testing.assert_close(net(longer, counts)[0][:, :, : trained.shape[2]], trained, rtol=1e-9, atol=1e-9)
    found = net.eval()(longer, counts)[0]
    for row, length in enumerate(lengths):
        alone = net(x[row : row + 1, :, :length], counts[row : row + 1])[0][0]
        torch.testing.assert_close(found[row, :, : steps[row]], alone, rtol=1e-9, atol=1e-9)
        assert not found[row, :, steps[row] :].any()


def test_a_picture_has_a_frames_channels_one_after_the_other() -> None:
    """As the feature set ``mfcc_delta`` lays them out: ``frames.reshape(len(frames), 3, coefficients)``."""
    config = AMCM.Config(**(SMALL | {"picture_channels": 3}))
    picture = Picture(config).eval()
    x, lengths = torch.randn(2, 40, 6), torch.tensor([40, 33])
    x[1, 33:] = 0
    channels = torch.stack([x[..., 0:2], x[..., 2:4], x[..., 4:6]], dim=1)
    expected = picture.trunk(channels, lengths)[0].mean(3).transpose(1, 2)
    found, steps = picture(x, lengths)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert found.shape == (2, 2, 6) and steps.tolist() == [2, 2]


# ---- fusion


def test_cmtam_is_equations_11_to_15() -> None:
    layer = randomised(CMTAM(3, 4, 5, 6)).eval()
    target, source = normal(2, 7, 3, seed=1), normal(2, 5, 4, seed=2)
    lengths, others = torch.tensor([7, 3]), torch.tensor([2, 5])
    target[1, 3:], source[0, 2:] = 9.0, -9.0  # whatever stands at padding
    found = layer(target, source, lengths, others)
    for row, (steps, keys) in enumerate(zip(lengths.tolist(), others.tolist(), strict=True)):
        x, y = target[row, :steps], source[row, :keys]
        q, k, v = (norm_of(z @ layer.linears[name].weight.T, layer.norms[name]) for name, z in {"query": x, "key": y, "value": y}.items())
        attention = (q @ layer.lim @ k.T / 6**0.5).softmax(1) @ v
        expected = (attention + q) @ layer.point.weight.T + layer.point.bias
        torch.testing.assert_close(found[row, :steps], expected, **EXACT)


def test_classified_are_the_means_of_both_attentions() -> None:
    method, batch = some_amcm()
    vision = method.streams["vision"](batch.features["vision"], batch.lengths["vision"])
    audio = method.streams["audio"](batch.features["audio"], batch.lengths["audio"])
    output, fused = method(batch), []
    for name, (x, m), (y, n) in (("audio_vision", audio, vision), ("vision_audio", vision, audio)):
        found = method.attentions[name](x, y, m, n)
        fused.append(torch.stack([clip[:length].mean(0) for clip, length in zip(found, m.tolist(), strict=True)]))
    torch.testing.assert_close(output.representations["fused"], torch.cat(fused, dim=1), rtol=0, atol=1e-5)
    torch.testing.assert_close(output.prediction, method.out(torch.cat(fused, dim=1)), rtol=0, atol=1e-5)
    assert audio[1].tolist() == [-(-int(length) // 32) for length in batch.lengths["audio"]] and vision[1].tolist() == [4] * 4
    torch.testing.assert_close(output.representations["vision"], vision[0].mean(1), rtol=0, atol=1e-6)


# ---- the method


def test_presets_are_those_of_the_text() -> None:
    for name in ("enterface05", "ravdess"):
        config = AMCM.Config.model_validate(AMCM.presets[name])
        training = config.training
        assert (training.optimiser, training.batch_size, training.learning_rate) == ("adam", 8, 1e-4)
        assert (training.schedule, training.milestones, training.milestone_factor) == ("milestones", (30, 60, 90), 0.1)
        assert training.max_epochs == training.patience == 120
        assert (config.grid, config.steps, config.depth) == (16, 16, 4)
        assert (config.task_loss, config.focal.gamma, config.start) == ("fldw", 2.0, 1.0)


def test_number_of_parameters() -> None:
    """Patches, four layers (two linear layers with codes, two matrices, channels, three norms), ResNet-34, two CMTAM, the classifier."""
    inputs = Inputs({"audio": 40, "vision": 3 * 112**2}, {"vision": Pixels(side=112, channels=3)})
    method = AMCM(inputs, EIGHT, AMCM.Config.model_validate(AMCM.presets["ravdess"]))
    h = 256
    patches = (3 * 7**2 + 1) * h + 2 * h
    layer = (h + 2 + 1) * h + 256**2 + (h + 1 + 1) * h + 16**2 + (h + 1) * h + 3 * 2 * h
    attentions = 2 * (256**2 + 3 * 2 * 256 + 257 * 256) + 3 * 256 * (h + 512)
    expected = patches + 4 * layer + 21_278_400 + attentions + (2 * 256 + 1) * 8
    assert sum(p.numel() for p in method.parameters()) == expected and f"{expected:,}" in str(AMCM.__doc__)


@pytest.mark.parametrize(("grid", "steps"), [(28, 8), (16, 8), (14, 8), (8, 8), (16, 16)])
def test_adjacency_sizes_of_table_1(grid: int, steps: int) -> None:
    config = AMCM.Config(width=4, depth=3, grid=grid, steps=steps, fusion="concatenation")
    method = AMCM(Inputs({"vision": 112**2}, {"vision": Pixels(side=112, channels=1)}), EIGHT, config)
    maps = method.adjacency()
    assert maps["spatial"].shape == (3, grid, grid, grid, grid) and maps["temporal"].shape == (3, steps, steps)
    film = method.streams["vision"]
    assert isinstance(film, Film) and film.patches.patch == 112 // grid
    assert film.layers[0].spatial.shape == (grid**2, grid**2)


def test_maps_say_from_where_to_where() -> None:
    """In evaluation mode, one weight of the last layer touches one node, or one step, of what the film network gives."""
    method, batch = some_amcm()
    x = resampled(batch.features["vision"], batch.lengths["vision"], 4)
    film = method.streams["vision"]

    def nodes() -> Tensor:
        found = film.patches(x)
        for layer in film.layers:
            found = layer(found)
        return found.detach()

    before, last = nodes(), film.layers[-1]
    with torch.no_grad():
        last.spatial[1, 2] += 1.0  # from row 0, column 1 to row 1, column 0
    touched = (nodes() - before).abs().amax((0, 1, 3)) > 1e-6
    assert touched.tolist() == [False, False, True, False]
    assert method.adjacency()["spatial"][-1, 0, 1, 1, 0] == 2.0 and method.adjacency()["spatial"].sum() == 2 * 16 + 1
    with torch.no_grad():
        last.spatial[1, 2] -= 1.0
        last.temporal[3, 1] += 1.0
    touched = (nodes() - before).abs().amax((0, 2, 3)) > 1e-6
    assert touched.tolist() == [False, True, False, False]
    assert method.adjacency()["temporal"][-1, 3, 1] == 2.0


def test_convmixer_has_no_adjacency() -> None:
    method, _ = some_amcm(mixer="convmixer", kernel=3)
    assert not any(isinstance(module, AdjacencyLayer) for module in method.modules())
    layers = [module for module in method.modules() if isinstance(module, ConvMixerLayer)]
    assert len(layers) == 2 and layers[0].depthwise.kernel_size == (3, 3) and layers[0].depthwise.groups == 6
    for modality in ("vision", "audio"):
        with pytest.raises(KeyError, match="no adjacency"):
            method.adjacency(modality)


def test_a_convmixer_keeps_frames_apart_and_adjacency_does_not() -> None:
    for mixer, apart in (("convmixer", True), ("adjacency", False)):
        method, batch = some_amcm(mixer=mixer)
        x, lengths = batch.features["vision"][:1, :4], torch.tensor([4])
        other = x.clone()
        other[:, 2] += 1.0
        one, two = (method.streams["vision"](film, lengths)[0][0] for film in (x, other))
        same = [torch.equal(a, b) for a, b in zip(one, two, strict=True)]
        assert same == ([True, True, False, True] if apart else [False] * 4)


def test_concatenation_does_not_let_modalities_meet() -> None:
    for fusion, meet in (("concatenation", False), ("cmtam", True)):
        method, batch = some_amcm(fusion=fusion)
        louder = replace(batch, features=dict(batch.features) | {"audio": batch.features["audio"] * 3})
        one, two = (method(b).representations["fused"] for b in (batch, louder))
        seen_by_vision = slice(5, 10) if meet else slice(6, 12)  # audio comes first
        assert torch.equal(one[:, seen_by_vision], two[:, seen_by_vision]) is not meet
        assert (len(method.attentions) == 2) is meet and method.out.in_features == (10 if meet else 12)


def test_losses_of_table_2() -> None:
    """The default is FLDW with gamma 2; every other loss of the table is a setting, gamma too."""
    default = training_objective(AMCM.Config(), TASKS["classification"])
    assert isinstance(default, DynamicFocal) and default.gamma == 2
    logits, label = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([0])
    losses = ["cross_entropy", "focal", "calibrated_focal"]
    values = {name: float(training_objective(AMCM.Config(task_loss=name), EIGHT)(logits, label)) for name in losses}
    assert len(set(values.values())) == 3
    half = AMCM.Config(focal={"gamma": 0.5})
    assert training_objective(half, EIGHT)(torch.zeros(1, 8), label) != training_objective(AMCM.Config(), EIGHT)(torch.zeros(1, 8), label)
    assert training_objective(AMCM.Config(), TASKS["regression"])(torch.tensor([1.0]), torch.tensor([3.0])) == 2


@pytest.mark.parametrize(("name", "path", "value"), own_settings({"amcm": SMALL}))
def test_no_setting_is_without_effect(name: str, path: tuple[str, ...], value: Any) -> None:
    base = methods[name].Config().model_dump() | SMALL | ({"mixer": "convmixer"} if path == ("kernel",) else {})
    special: dict[tuple[str, ...], Any] = {("kernel",): 3, ("grid",): 4, ("picture_channels",): 3, ("tubelet",): 2}
    special |= {("blocks",): (2, 1, 1, 1), ("trunk",): (4, 4, 6, 8)}
    pairs = [("film", "picture"), ("mean", "middle"), ("adjacency", "convmixer"), ("index", "unit"), ("cmtam", "concatenation")]
    words = dict(pairs) | {second: first for first, second in pairs}
    if path in special:
        other = special[path]
    elif isinstance(value, str):
        other = words[value]
    else:
        other = value // 2 if isinstance(value, int) else value / 2
    assert not torch.equal(effect(base), effect(merged(base, nested(path, other))))


def effect(config: dict[str, Any]) -> Tensor:
    split = films(("text", "audio", "vision"))
    method = build("amcm", split, "classification", **config)
    output = method(whole(split))
    return torch.cat([output.prediction.flatten(), torch.tensor([float(sum(p.numel() for p in method.parameters()))])])


@pytest.mark.parametrize("changed", [{}, {"mixer": "convmixer"}, {"fusion": "concatenation"}, {"sampling": "middle"}])
def test_a_training_batch_does_not_depend_on_padding(changed: dict[str, Any]) -> None:
    split = films()
    method, batch = build("amcm", split, "classification", **(SMALL | changed)), whole(split)
    longer = replace(batch, features={name: F.pad(x, (0, 0, 0, 35)) for name, x in batch.features.items()})
    torch.testing.assert_close(method(batch).prediction, method(longer).prediction, rtol=0, atol=1e-5)


def test_one_and_three_modalities() -> None:
    alone, batch = some_amcm(films(("vision",)))
    assert not alone.attentions and torch.equal(alone(batch).representations["fused"], alone(batch).representations["vision"])
    three, batch = some_amcm(films(("text", "audio", "vision")))
    assert len(three.attentions) == 6 and predict(three, batch).shape == (4, 3)
    assert three.adjacency("text")["spatial"].shape == (2, 1, 1, 1, 1)


@pytest.mark.parametrize(("pictures", "grid", "read"), [({}, 1, 48), ({"vision": Pixels(side=4, channels=3)}, 2, 12)])
def test_the_data_say_what_a_frame_is(pictures: dict[str, Pixels], grid: int, read: int) -> None:
    """48 features are one node, or four patches of 2 x 2 pixels in three colours."""
    film = AMCM(Inputs({"audio": 6, "vision": 48}, pictures), EIGHT, AMCM.Config(**SMALL)).streams["vision"]
    assert isinstance(film, Film) and (film.patches.grid, film.patches.linear.in_features) == (grid, read)


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="grid = 5 does not divide vision's frames of 112 x 112") as caught:
        AMCM(Inputs({"vision": 112**2}, {"vision": Pixels(side=112, channels=1)}), EIGHT, AMCM.Config(grid=5))
    assert "1, 2, 4, 7, 8, 14, 16, 28, 56, 112," in caught.value.fix and "frames.size=115" in caught.value.fix
    with pytest.raises(ValidationError, match="kernel = 4 is even"):
        AMCM.Config(kernel=4)
    with pytest.raises(ConfigError, match="audio has 40 features.*picture_channels = 3"):
        AMCM(Inputs({"audio": 40}), EIGHT, AMCM.Config(picture_channels=3))
