"""LNLN, PS-Mixer, TMBL and FDMER: counts, settings, closed forms; and the layers that they share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import (
    CLOSE,
    DIMS,
    REGRESSION,
    build,
    check_training_fits,
    fitted,
    merged,
    nested,
    own_settings,
    predict,
    random_split,
    some_split,
    whole,
)
from pydantic import ValidationError
from torch import Tensor, nn

from baselines.fdmer import FDMER, dependence, similarity_distance
from baselines.lnln import LNLN, Placed, drop_frames, missing_rates, mix
from baselines.ps_mixer import EPSILON, PSMixer, polarity_loss, resized, strength_loss
from baselines.tmbl import following
from harness.data.batches import gather
from harness.nn.adversarial import Discriminator, reverse_gradient
from harness.nn.mixer import MixerBlock
from harness.nn.projected import ProjectedAttention, attend
from harness.nn.utterances import ClipVectors
from harness.training import Inputs, Method, methods

NAMES = ["lnln", "ps_mixer", "tmbl", "fdmer"]
EXACT = {"rtol": 0.0, "atol": 1e-12}  # double precision against double precision

MMSA = {"mosi": {"text": 768, "audio": 5, "vision": 20}, "mosei": {"text": 768, "audio": 74, "vision": 35}}
SDK = {"mosi": {"text": 768, "audio": 74, "vision": 47}, "ur_funny": {"text": 768, "audio": 81, "vision": 371}}
MISA = 1_134_445  # at mosi, see test_baselines.py


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


# Parameters, settings, training

COUNTS: list[tuple[str, str, Mapping[str, int], dict[str, Any], int]] = [
    ("lnln", "mosi", MMSA["mosi"], {}, 6_483_012),
    ("lnln", "mosei", MMSA["mosei"], {}, 7_102_404),
    ("ps_mixer", "mosi", SDK["mosi"], {}, 738_560 - 1_200),  # less a layer norm that nothing uses
    ("ps_mixer", "mosei", MMSA["mosei"], {}, 692_624 - 1_200),
    ("ps_mixer", "mosi", MMSA["mosi"], {}, 394_352),
    ("tmbl", "mosi", SDK["mosi"], {"as_published": True, "expansions": 2}, 210_113_077 - 118_688_464),  # less what no gradient reaches
    ("tmbl", "mosei", MMSA["mosei"], {"as_published": True, "expansions": 2}, 208_365_781 - 117_622_528),
    # less, too, the convolutions over the 32 clips of a batch: 45 layers, 32 * 32 weights and 32 biases each
    ("tmbl", "ur_funny", SDK["ur_funny"], {"as_published": True, "expansions": 2}, 260_866_725 - 148_043_012 - 45 * (32 * 32 + 32)),
    # cross-modal attention has values twice as wide as self-attention: 64 (d_q + d_k) more weights in each of 10 layers per modality;
    # a mark and 14 positions belong to a clip, not to each of 64 places of the batch
    ("tmbl", "mosi", SDK["mosi"], {"expansions": 2}, 210_113_077 - 118_688_464 + 10 * 64 * (768 + 4 * 74 + 4 * 47) - 63 * 15 * 256),
    ("tmbl", "mosi", MMSA["mosi"], {"expansions": 2}, 86_803_333),
    # one of two linear layers, 2 * 512 wide, in each of 5 layers of 9 streams
    ("tmbl", "mosi", MMSA["mosi"], {}, 86_803_333 - 45 * 1024 * 1025),
    # MISA without three reconstructions of 128 x 128, with a discriminator 128-64-3
    ("fdmer", "mosi", MMSA["mosi"], {}, MISA - 3 * 128 * 129 + 64 * 129 + 3 * 65),
]


@pytest.mark.parametrize(("name", "preset", "dims", "settings", "count"), COUNTS)
def test_parameter_counts(name: str, preset: str, dims: Mapping[str, int], settings: dict[str, Any], count: int) -> None:
    config = methods[name].Config.model_validate(methods[name].presets[preset] | settings)
    with torch.device("meta"):
        method = methods[name](Inputs(dims), REGRESSION, config)
    assert sum(p.numel() for p in method.parameters() if p.requires_grad) == count
    assert f"{count:,}" in (methods[name].__doc__ or "") or preset != "mosi"


@pytest.mark.parametrize(("name", "mosei", "ur_funny"), [("lnln", 64, None), ("ps_mixer", 64, None), ("tmbl", 48, 32), ("fdmer", 16, 32)])
def test_presets_hold_the_published_batch_sizes(name: str, mosei: int, ur_funny: int | None) -> None:
    sizes = {key: methods[name].Config.model_validate(preset).training.batch_size for key, preset in methods[name].presets.items()}
    assert sizes["mosei"] == mosei and sizes.get("ur_funny") == ur_funny
    assert "our reading" in FDMER.reference and "our reading" in (FDMER.__doc__ or "")


SMALL: dict[str, dict[str, Any]] = {
    "lnln": {"width": 16, "tokens": 4, "heads": 2, "head_width": 8, "inner": 16, "longest": {"text": 6, "audio": 6, "vision": 6}},
    "ps_mixer": {"hidden": 16, "mixer_hidden": 8},
    "tmbl": {"hidden": 16, "layers": 2, "heads": 2, "key_width": 8, "value_width": 16, "inner": 16},
    "fdmer": {"hidden": 16, "discriminator_hidden": 8},
}


@pytest.mark.parametrize("name", NAMES)
def test_training_fits_a_few_clips(name: str) -> None:
    """Corruption off too."""
    split = some_split()
    check_training_fits(build(name, split, **SMALL[name] | ({"complete_share": 1.0} if name == "lnln" else {})), whole(split))


CHOICES = {"dominant": "audio", "consistency": "cmd", "disparity": "orthogonality", "complete_share": 1.0}
CHANGES: dict[type, Callable[[Any], Any]] = {bool: lambda x: not x, int: lambda x: 2 * x, float: lambda x: x / 2 + 0.3}


@pytest.mark.parametrize(("name", "path", "value"), own_settings(SMALL))
def test_no_setting_is_without_effect(name: str, path: tuple[str, ...], value: Any) -> None:
    """Changing any one setting changes the prediction, a loss, a gradient or the parameters."""
    before = merged(methods[name].Config().model_dump(), SMALL[name])
    other = CHOICES.get(path[-1], CHANGES.get(type(value), lambda _: 5)(value))
    assert effect(name, before) != effect(name, merged(before, nested(path, other)))


def effect(name: str, config: dict[str, Any]) -> tuple[float, ...]:
    split = some_split()
    method = build(name, split, **config)
    torch.manual_seed(1)
    output = method(whole(split))
    (output.prediction.sum() + sum(output.losses.values())).backward()
    gradients = [p.grad.abs().sum().item() for p in method.parameters() if p.grad is not None]
    numbers = sum(p.numel() for p in method.parameters())
    return (output.prediction.sum().item(), *(loss.item() for loss in output.losses.values()), *gradients, numbers)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("lnln", {"heads": 7}, "heads = 7 does not divide width = 128"),
        ("tmbl", {"heads": 3}, "heads = 3 does not divide key_width = 32"),
        ("tmbl", {"hidden": 5}, "hidden = 5 is not even"),
    ],
)
def test_widths_that_do_not_fit_are_named(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        methods[name].Config(**settings)


# Layers


@pytest.mark.parametrize("scale", [0.0, 1.0, 0.3])
def test_gradient_reversal(scale: float) -> None:
    x = normal(3, 4).requires_grad_()
    y = reverse_gradient(x, scale)
    assert torch.equal(y, x)
    (gradient,) = torch.autograd.grad(y.square().sum(), x)
    assert torch.equal(gradient, 2 * x.detach() * -scale)


def test_discriminator_is_two_layers_with_a_leak() -> None:
    layer = Discriminator(3, 2, 2).double()
    with torch.no_grad():
        for linear, weight in ((layer.layers[0], [[1.0, 0, 0], [0, 1, 0]]), (layer.layers[2], [[1.0, 0], [0, 1]])):
            linear.weight.copy_(torch.tensor(weight))
            linear.bias.zero_()
    expected = torch.tensor([2.0, -0.3], dtype=torch.float64)
    torch.testing.assert_close(layer(torch.tensor([2.0, -3.0, 7.0], dtype=torch.float64)), expected, **EXACT)


def gelu(x: np.ndarray) -> np.ndarray:
    return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2


def test_mixer_block_with_identity_weights_adds_the_activation_twice() -> None:
    block = MixerBlock(3, 3, 3).double()
    for linear in block.modules():
        if isinstance(linear, nn.Linear):
            nn.init.eye_(linear.weight)
            nn.init.zeros_(linear.bias)
    x = normal(2, 3, 3)
    once = x.numpy() + gelu(x.numpy())
    np.testing.assert_allclose(block(x).detach().numpy(), once + gelu(once), rtol=0, atol=1e-12)


def test_mixer_block_mixes_tokens_then_channels() -> None:
    block, x = MixerBlock(2, 5, 7).double(), normal(3, 2, 5)
    first, _, _, second, _ = block.tokens
    w1, b1, w2, b2 = (p.detach().numpy() for p in (*first.parameters(), *second.parameters()))
    tokens = x.numpy() + np.einsum("nh,bhd->bnd", w2, gelu(np.einsum("hn,bnd->bhd", w1, x.numpy()) + b1[:, None])) + b2[:, None]
    first, _, _, second, _ = block.channels
    w1, b1, w2, b2 = (p.detach().numpy() for p in (*first.parameters(), *second.parameters()))
    expected = tokens + gelu(tokens @ w1.T + b1) @ w2.T + b2
    np.testing.assert_allclose(block(x).detach().numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [None, 0.2])
def test_projected_attention_is_the_sum_over_keys(scale: float | None) -> None:
    layer = ProjectedAttention(3, 4, 5, heads=2, inner=6, mixed=4, scale=scale).double()
    query, key, value = normal(2, 3, 3), normal(2, 4, 4, seed=1), normal(2, 4, 5, seed=2)
    hidden = torch.zeros(2, 1, 1, 4, dtype=torch.float64)
    hidden[1, ..., 3] = -math.inf
    q, k, v = (f(x).detach().numpy() for f, x in ((layer.query, query), (layer.key, key), (layer.value, value)))
    mixed = np.zeros((2, 3, 4))
    for clip, step, head in np.ndindex(2, 3, 2):
        seen = range(4 if clip == 0 else 3)
        columns = slice(3 * head, 3 * head + 3)
        scores = np.exp([(q[clip, step, columns] @ k[clip, j, columns]) * (scale or 3**-0.5) for j in seen])
        for weight, j in zip(scores / scores.sum(), seen, strict=True):
            mixed[clip, step, 2 * head : 2 * head + 2] += weight * v[clip, j, 2 * head : 2 * head + 2]
    expected = mixed @ layer.out.weight.detach().numpy().T + layer.out.bias.detach().numpy()
    np.testing.assert_allclose(layer(query, key, value, hidden).detach().numpy(), expected, rtol=0, atol=1e-12)


def test_attention_drops_weights_and_keeps_their_mean() -> None:
    """A lone key has weight 1, so each head's value comes through doubled or not at all."""
    torch.manual_seed(0)
    q, k, v = normal(1, 500, 8), normal(1, 1, 8), torch.ones(1, 1, 8, dtype=torch.float64)
    values = attend(q, k, v, heads=4, p=0.5)
    assert set(values.unique().tolist()) == {0.0, 2.0}
    assert abs(values.mean() - 1) < 4 * (500 * 4) ** -0.5  # four standard errors of 2000 draws of 0 or 2
    assert torch.equal(values.view(500, 4, 2)[..., 0], values.view(500, 4, 2)[..., 1])


def test_projected_attention_rejects_heads_that_do_not_divide() -> None:
    with pytest.raises(ValueError, match="3 attention heads do not divide widths of 6 and 4"):
        ProjectedAttention(2, 2, 2, heads=3, inner=6, mixed=4)


def test_clip_vectors_are_means_of_text_and_states_of_the_rest() -> None:
    batch = whole(some_split())
    read = ClipVectors(DIMS, recurrent=5, orthogonal=True)
    vectors = read(batch.features, batch.lengths)
    torch.testing.assert_close(vectors["text"], batch.mean("text"), **CLOSE)
    assert {name: x.shape[1] for name, x in vectors.items()} == read.widths == {"text": 6, "audio": 20, "vision": 20}
    weight = read.recurrent["audio"].second.back.weight_hh_l0
    torch.testing.assert_close(weight.T @ weight, torch.eye(5), **CLOSE)
    assert ClipVectors(DIMS, text_recurrent=7).widths == {"text": 28, "audio": 12, "vision": 16}


# LNLN


def test_lnln_completeness_is_the_share_of_the_modality_itself() -> None:
    dominant, proxy = normal(2, 3, 4), normal(2, 3, 4, seed=1)
    assert torch.equal(mix(torch.ones(2), dominant, proxy), dominant)
    assert torch.equal(mix(torch.zeros(2), dominant, proxy), proxy)
    torch.testing.assert_close(mix(torch.tensor([0.25, 1.0]), dominant, proxy)[0], 0.25 * dominant[0] + 0.75 * proxy[0], **EXACT)


def test_lnln_loses_frames_at_the_rate_of_their_clip() -> None:
    torch.manual_seed(0)
    x = normal(3, 4000, 2)
    kept = drop_frames(x, torch.tensor([0.0, 1.0, 0.3]))
    assert torch.equal(kept[0], x[0]) and not kept[1].any()
    lost = (kept[2] == 0).all(1)
    assert torch.equal(kept[2][~lost], x[2][~lost])
    assert abs(lost.double().mean() - 0.3) < 4 * (0.3 * 0.7 / 4000) ** 0.5  # four standard errors


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_lnln_rates_are_zero_for_a_share_and_uniform_for_the_rest(share: float) -> None:
    torch.manual_seed(0)
    rates = missing_rates(torch.empty(4000), share)
    whole_clips = (rates == 0).double().mean()
    assert abs(whole_clips - share) <= 4 * (share * (1 - share) / 4000) ** 0.5  # four standard errors; none at 0 and 1
    if share < 1:
        damaged = np.sort(rates[rates > 0].numpy())
        distance = np.abs(damaged - (np.arange(len(damaged)) + 0.5) / len(damaged)).max()
        assert distance < 1.95 / len(damaged) ** 0.5  # Kolmogorov-Smirnov at 0.1 %


def test_lnln_is_complete_and_without_losses_in_evaluation() -> None:
    method, batch = fitted("lnln"), whole(some_split())
    output = method(batch)
    assert not output.losses
    assert torch.equal(output.prediction, method(batch).prediction)
    assert set(output.representations) == {*DIMS, "corrected", "fused"}


def test_lnln_losses_are_what_they_say() -> None:
    """Nothing is lost: the completeness should be 1, tokens are compared with those of the same clip."""
    split = some_split()
    method, batch = build("lnln", split, **SMALL["lnln"], complete_share=1.0), whole(split)
    tokens = method._tokens(batch, batch.features)
    weight = method.completeness(method.check(tokens["text"], keep=1))
    corrected = mix(weight, tokens["text"], method._proxy(tokens))
    logits = method.discriminator(torch.stack([corrected, tokens["text"]])).log_softmax(-1)
    errors = [(rebuild(tokens[name], keep=4) - tokens[name]).square().mean() for name, rebuild in method.reconstruct.items()]
    expected = {
        "completeness": (weight - 1).square().mean(),
        "adversarial": -(logits[0, ..., 1].mean() + logits[1, ..., 0].mean()) / 2,
        "reconstruction": sum(errors) / 3,
    }
    losses = method(batch).losses
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, **CLOSE)


def test_lnln_knows_how_much_it_took_away() -> None:
    method, batch = build("lnln", some_split(), **SMALL["lnln"], complete_share=0.0), whole(some_split())
    with torch.no_grad():
        method.completeness[2].weight.zero_()
        method.completeness[2].bias.fill_(100.0)
    torch.manual_seed(3)
    rate = missing_rates(batch.features["text"][:, 0, 0], 0.0)
    torch.manual_seed(3)
    torch.testing.assert_close(method(batch).losses["completeness"], rate.square().mean(), **CLOSE)


def gradient_at_proxy(loss: str | None, **settings: Any) -> Tensor:
    """The gradient that ``loss``, or the prediction, sends to the tokens that a proxy starts from."""
    method, batch = build("lnln", some_split(), **SMALL["lnln"] | settings), whole(some_split())
    torch.manual_seed(2)
    output = method(batch)
    (output.prediction.sum() if loss is None else output.losses[loss]).backward()
    assert method.proxy_tokens.grad is not None
    return method.proxy_tokens.grad


def test_lnln_reverses_the_discriminators_gradient_and_published_all() -> None:
    task, published = gradient_at_proxy(None), gradient_at_proxy(None, as_published=True)
    assert task.abs().max() > 0
    torch.testing.assert_close(published, -task, **CLOSE)
    adversarial = gradient_at_proxy("adversarial")
    assert adversarial.abs().max() > 0
    torch.testing.assert_close(gradient_at_proxy("adversarial", as_published=True), adversarial, **CLOSE)
    torch.testing.assert_close(gradient_at_proxy("adversarial", reversal=3.0), 3 * adversarial, **CLOSE)


def test_lnln_reads_clips_longer_than_its_positions() -> None:
    placed = Placed(4, steps=3, extra=2).double()
    x = normal(2, 5, 4)
    y = placed(x)
    assert y.shape == (2, 7, 4)
    torch.testing.assert_close(y[:, 2:] - x, placed.positions[[2, 3, 4, 4, 4]].expand(2, -1, -1), **EXACT)
    torch.testing.assert_close(y[:, :2], (placed.extra + placed.positions[:2]).expand(2, -1, -1), **EXACT)


def test_lnln_only_the_position_before_the_target_is_idle() -> None:
    method, batch = build("lnln", some_split(), **SMALL["lnln"]), whole(some_split())
    method(batch).prediction.sum().backward()
    rows = method.fusion.target.positions.grad.abs().sum(1)
    assert rows[0] == 0 and (rows[1:] > 0).all()


def test_lnln_leads_by_the_first_modality_where_the_dominant_one_is_absent() -> None:
    split = some_split(modalities=("audio", "vision"))
    assert build("lnln", split, **SMALL["lnln"]).dominant == "audio"
    method = build("lnln", split, **SMALL["lnln"], dominant="vision")
    assert (method.dominant, method.others) == ("vision", ("audio",))
    assert LNLN.Config().dominant == "text"


# PS-Mixer


def test_ps_mixer_prediction_is_sign_by_polarity_and_size_by_strength() -> None:
    """The head has no biases and a positively homogeneous activation: y(c s) = c y(s), and y does not see |p|."""
    method = build("ps_mixer", some_split()).double().eval()
    p, s = normal(5, 256), normal(5, 256, seed=1)
    y = method.out(resized(p, s))
    torch.testing.assert_close(resized(p, s).abs().sum(1), s.abs().sum(1), **EXACT)
    torch.testing.assert_close(method.out(resized(p, 3 * s)), 3 * y, **EXACT)
    torch.testing.assert_close(method.out(resized(7 * p, s)), y, **EXACT)
    torch.testing.assert_close(method.out(resized(p, -s)), y, **EXACT)
    assert not method.out(resized(p, 0 * s)).any()
    assert resized(0 * p, s).isfinite().all()


def test_ps_mixer_polarity_loss() -> None:
    p, y, guess = normal(6, 4), np.array([1, -1, 2, 0, -2, -0.5]), np.array([1, 1, 2, -1, -2, 0.5])
    signs = [torch.tensor(np.stack([x >= 0, x < 0], 1), dtype=torch.float64) for x in (y, guess)]

    def term(sign: Callable[[np.ndarray], np.ndarray]) -> float:
        a, b = (p.numpy()[sign(x)].mean(0) for x in (y, guess))
        return float(sign(y).mean() * (1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b)))

    expected = term(lambda x: x >= 0) + term(lambda x: x < 0)
    np.testing.assert_allclose(polarity_loss(p, *signs), expected, rtol=0, atol=1e-12)
    assert abs(polarity_loss(p, signs[0], signs[0])) < 1e-12
    none = torch.zeros(6, 2, dtype=torch.float64)
    none[:, 0] = 1
    positive = polarity_loss(p, signs[0], none)  # the negative group is empty among predictions: only the other counts
    a, b = p[signs[0][:, 0] == 1].mean(0), p.mean(0)
    torch.testing.assert_close(positive, 0.5 * (1 - F.cosine_similarity(a, b, dim=0)), **EXACT)


def test_ps_mixer_strength_loss() -> None:
    size, label = normal(9).abs(), normal(9, seed=1).abs()
    x, y = ((v - v.min()) / (v.max() - v.min()) for v in (size.numpy(), label.numpy()))
    norms = np.linalg.norm(x - x.mean()) * np.linalg.norm(y - y.mean())
    expected = 1 - np.corrcoef(x, y)[0, 1] * norms / (norms + EPSILON)
    np.testing.assert_allclose(strength_loss(size, label), expected, rtol=0, atol=1e-12)
    for sizes, labels in ((size[:1], label[:1]), (size, torch.full_like(label, 1.5)), (torch.ones_like(size), label)):
        sizes = sizes.clone().requires_grad_()
        loss = strength_loss(sizes, labels)
        loss.backward()
        assert loss == 0 and sizes.grad is not None and not sizes.grad.any()


def test_ps_mixer_losses_teach_the_vectors_not_the_head() -> None:
    method, batch = build("ps_mixer", some_split()), whole(some_split())
    losses = method(batch).losses
    (losses["polarity"] + losses["strength"]).backward()
    assert all(parameter.grad is None for parameter in method.out.parameters())
    assert all(parameter.grad.any() for parameter in method.mixed.parameters() if parameter.grad is not None)


def test_ps_mixer_pairs() -> None:
    pairs = {
        modalities: build("ps_mixer", some_split(modalities=modalities)).pairs
        for modalities in (("text", "audio", "vision"), ("audio", "vision"), ("text",), ("audio",))
    }
    assert pairs["text", "audio", "vision"] == {"polarity": ("vision", "text"), "strength": ("audio", "text")}
    assert pairs["audio", "vision"] == {"polarity": ("vision",), "strength": ("audio",)}
    assert pairs["text",] == {"polarity": ("text",), "strength": ("text",)}
    assert pairs["audio",] == {"polarity": ("audio",), "strength": ("audio",)}


def test_ps_mixer_needs_labels_for_its_losses_only() -> None:
    batch = replace(whole(some_split()), labels=None)
    output = fitted("ps_mixer")(batch)
    assert not output.losses and output.prediction.shape == (6,)
    assert build("ps_mixer", some_split("classification"), "classification")(whole(some_split("classification"))).losses["strength"] == 0
    assert PSMixer.Config().weights.model_dump() == {"polarity": 0.1, "strength": 0.1}


# TMBL


def tmbl(as_published: bool, batch_size: int = 6) -> Method:
    training = {"batch_size": batch_size}
    return build("tmbl", some_split(), **SMALL["tmbl"], as_published=as_published, training=training).eval()


@pytest.mark.parametrize("as_published", [False, True])
def test_tmbl_sees_other_clips_only_as_published(as_published: bool) -> None:
    """Another clip's frames change a prediction exactly where attention runs over the batch."""
    method, batch = tmbl(as_published), whole(some_split())
    other = batch.features["vision"].clone()
    other[1:] = other[1:].flip(2)
    before, after = predict(method, batch), predict(method, replace(batch, features={**batch.features, "vision": other}))
    assert (before[0] - after[0]).abs() > 1e-4 if as_published else before[0] == after[0]
    assert (before[1:] - after[1:]).abs().min() > 1e-6


def test_tmbl_as_published_changes_with_the_number_of_clips() -> None:
    """A batch that is not full has no marks and no positions: they get no gradient."""
    method, split = tmbl(True), some_split()
    gradients = []
    for clips in (6, 4):
        method.zero_grad()
        method(gather(split, torch.arange(clips))).prediction.sum().backward()
        gradients.append(method.positions.grad is not None)
    assert gradients == [True, False]


def test_tmbl_binding() -> None:
    one, other = normal(4, 3), normal(4, 3, seed=1)
    assert torch.equal(tmbl(False)._bind(one, other), one + other)
    assert torch.equal(tmbl(False)._bind(one, one), one)
    assert torch.equal(tmbl(True)._bind(one, other), torch.cat([one[:2], other[:2]]))
    assert torch.equal(tmbl(True)._bind(one[:3], other[:3]), one[:3] + other[:3])
    assert following(["a", "b", "c"]) == {"a": "b", "b": "c", "c": "a"}


def test_tmbl_pairs_and_bindings_are_rings() -> None:
    method = tmbl(False)
    assert following(method.order) == {"audio": "vision", "vision": "text", "text": "audio"}
    assert following(method.ring) == {"text": "vision", "vision": "audio", "audio": "text"}
    assert {name: pair.starts[0].norm.normalized_shape for name, pair in method.private.items()} == {
        "audio": (4 * DIMS["audio"],),
        "vision": (4 * DIMS["vision"],),
        "text": (DIMS["text"],),
    }


def test_tmbl_similarity_is_one_minus_the_mean_cosine() -> None:
    tokens = {name: normal(3, 2, 5, seed=seed) for seed, name in enumerate(DIMS)}
    losses = tmbl(False)._losses(tokens, tokens)
    cosines = [
        x[clip, token] @ y[clip, token] / x[clip, token].norm() / y[clip, token].norm()
        for x, y in combinations(tokens.values(), 2)
        for clip, token in np.ndindex(3, 2)
    ]
    torch.testing.assert_close(losses["similarity"], 1 - torch.stack(cosines).mean(), **EXACT)


def test_tmbl_gate_widens_as_often_as_asked() -> None:
    once, twice = (build("tmbl", some_split(), **SMALL["tmbl"], expansions=count) for count in (1, 2))
    lost = sum(p.numel() for p in twice.parameters()) - sum(p.numel() for p in once.parameters())
    assert lost == 2 * (6 + 3) * (32 * 33)  # layers * streams of both parts * a square linear layer of the gate's width


# FDMER


def centred(x: np.ndarray) -> np.ndarray:
    projector = np.eye(len(x)) - 1 / len(x)
    return projector @ x @ projector


def test_fdmer_losses_are_what_they_say() -> None:
    method = FDMER(Inputs(DIMS), REGRESSION, FDMER.Config(**SMALL["fdmer"])).double()
    private, common = ([normal(5, 16, seed=seed) for seed in seeds] for seeds in ((0, 1, 2), (3, 4, 5)))
    losses = method._losses(private, common)
    alike = {id(x): (u := x.numpy() / np.linalg.norm(x.numpy(), axis=1, keepdims=True)) @ u.T for x in private + common}
    consistency = np.mean([((alike[id(x)] - alike[id(y)]) ** 2).mean() for x, y in combinations(common, 2)])
    pairs = [*zip(private, common, strict=True), *combinations(private, 2)]
    disparity = sum(np.trace(centred(alike[id(x)]) @ centred(alike[id(y)])) / 16 for x, y in pairs)
    logits = [method.discriminator(torch.stack(vectors)).log_softmax(-1) for vectors in (private, common)]
    discrimination, confusion = (-torch.stack([x[m, :, m] for m in range(3)]).mean() for x in logits)
    expected = [consistency, disparity, discrimination.item(), confusion.item()]
    np.testing.assert_allclose([loss.item() for loss in losses.values()], expected, rtol=0, atol=1e-12)


def test_fdmer_distances_vanish_where_they_should() -> None:
    x = normal(6, 4)
    assert similarity_distance(x, 3 * x) < 1e-24  # squared rounding errors
    assert dependence(x, torch.ones(6, 4, dtype=torch.float64)).abs() < 1e-12
    assert dependence(x, x) > 1e-3
    assert dependence(x[:1], x[:1]) == 0


def test_fdmer_common_encoder_confuses_and_discriminator_tells() -> None:
    """Both gradients of the confusion loss with a factor of 3: the common encoder's turned and tripled, the discriminator's not."""

    def gradients(reversal: float) -> tuple[Tensor, Tensor]:
        method = build("fdmer", some_split(), **SMALL["fdmer"], reversal=reversal)
        method(whole(some_split())).losses["confusion"].backward()
        return method.common[0].weight.grad, method.discriminator.layers[0].weight.grad

    once, thrice, never = gradients(1.0), gradients(3.0), gradients(0.0)
    torch.testing.assert_close(thrice[0], 3 * once[0], **CLOSE)
    torch.testing.assert_close(thrice[1], once[1], **CLOSE)
    assert once[0].any() and not never[0].any()


def test_fdmer_of_one_modality_has_no_discriminator() -> None:
    split = random_split({"audio": [3, 2, 4]}, {"audio": 3}, seed=0)
    method = build("fdmer", split)
    losses = method(whole(split)).losses
    assert method.discriminator is None
    assert [name for name, loss in losses.items() if loss != 0] == ["disparity"]
