"""Audio-visual baselines: published numbers of parameters, what each computes, and what a film must look like."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import SMALL, SUBSETS, TASKS, build, filmed, merged, nested, own_settings, predict, random_split, some_split, whole
from pydantic import ValidationError
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from baselines.av_transformer import Attention, AVTransformer, Block
from baselines.merc import PLACES, distances, triplet
from harness.data.schema import Picture, Split, Task, square
from harness.errors import ConfigError
from harness.nn.focal import DynamicFocal, WeightedFocal
from harness.training import Inputs, methods
from harness.training.objectives import training_objective

EXACT = {"rtol": 0.0, "atol": 1e-12}
EIGHT = Task(kind="classification", classes=tuple("abcdefgh"))
FACE = 3 * 224 * 224
ON_FILMS = ["resnext3d", "av_average", "av_concat", "mmtm", "msaf", "merc", "av_transformer", "convmixer_frames", "cnn_lstm"]
CLASSIFIERS = [*ON_FILMS, "conv1d_audio", "resnet34_mfcc"]
# Films of 16 x 16 colours for every method, sizes small.
TINY: dict[str, dict[str, Any]] = SMALL | {
    "av_transformer": {
        "stages": (1, 1, 1),
        "face_channels": (4, 32, 32, 32),
        "face_width": 16,
        "sound": (4, 6, 6, 8),
        "film": (4, 4, 8, 8),
    },
    "convmixer_frames": {"width": 8, "depth": 1, "grid": 4, "kernel": 3},
    "cnn_lstm": {"film": (4, 4, 4, 4), "sound": (4, 4), "hidden": 5},
}


def films(modalities: tuple[str, ...] = ("audio", "vision")) -> Split:
    lengths = {"text": [3, 6, 2, 8], "audio": [40, 70, 33, 12], "vision": [9, 3, 12, 5]}
    return filmed(random_split(lengths, {"text": 5, "audio": 6, "vision": 3 * 16 * 16}, seed=2, classes=3)).only(modalities)


def of(dims: dict[str, int], side: int = 0) -> Inputs:
    """Inputs of these widths; with ``side``, vision's are colours."""
    return Inputs(dims, {"vision": Picture(side=side, channels=3)} if side and "vision" in dims else {})


def weights(name: str, inputs: Inputs, trained: bool = False, **settings: Any) -> int:
    config = methods[name].Config(**settings)
    with torch.device("meta"):
        method = methods[name](inputs, EIGHT, config)
    return sum(p.numel() for p in method.parameters() if p.requires_grad or not trained)


# ---- published sizes

BOTH, HEADS = of({"audio": 13, "vision": FACE}, 224), of({"audio": 10, "vision": FACE}, 224)
SMALLER = 3 * 112**2
PUBLISHED: list[tuple[str, Inputs, dict[str, Any], int]] = [
    ("resnext3d", of({"vision": FACE}, 224), {}, 25_882_056),
    ("conv1d_audio", of({"audio": 13}), {}, 34_024),
    ("av_average", BOTH, {}, 25_882_056 + 34_024),
    ("av_concat", BOTH, {}, 26_868_664),
    ("mmtm", BOTH, {}, 31_496_512),
    ("msaf", BOTH, {}, 25_940_724),
    ("av_transformer", HEADS, {"fusion": "late"}, 2_045_550),
    ("av_transformer", HEADS, {"fusion": "intermediate"}, 1_938_414),
    ("av_transformer", HEADS, {"fusion": "attention"}, 1_854_766),
    ("resnet34_mfcc", of({"audio": 40}), {}, 21_278_400 + 513 * 8),
    ("convmixer_frames", of({"vision": SMALLER}, 112), {}, 391_688),
    ("cnn_lstm", of({"audio": 40, "vision": SMALLER}, 112), {}, 774_824),
    ("merc", of({"audio": 64, "vision": FACE}, 224), {}, 51_792_388),
]


@pytest.mark.parametrize(("name", "inputs", "settings", "expected"), PUBLISHED)
def test_number_of_parameters(name: str, inputs: Inputs, settings: dict[str, Any], expected: int) -> None:
    """At the preset for RAVDESS, eight classes; the docstring says the same."""
    preset = dict(methods[name].presets["ravdess"])
    assert weights(name, inputs, **preset | settings) == expected
    assert f"{expected:,}" in str(methods[name].__doc__)


def test_convmixer_has_the_published_size() -> None:
    config = methods["convmixer_frames"].Config(grid=32, width=1536, depth=20, kernel=9)
    with torch.device("meta"):
        task = Task(kind="classification", classes=tuple(map(str, range(1000))))
        method = methods["convmixer_frames"](of({"vision": FACE}, 224), task, config)
    assert sum(p.numel() for p in method.parameters()) == 51_625_960


@pytest.mark.parametrize(
    ("fusion", "dead"), [("late", 2 * 129 * 8), ("attention", 2 * 129 * 8 + 64 * 128 + 128 * 129 + 128 * 64 + 64 * 65)]
)
def test_what_nothing_reads_is_frozen(fusion: str, dead: int) -> None:
    """Both modalities' classifiers; with attention alone value maps and projections too."""
    total, trained = (weights("av_transformer", HEADS, only, fusion=fusion) for only in (False, True))
    assert total - trained == dead


# ---- films and other inputs


@pytest.mark.parametrize("name", ON_FILMS)
def test_films_of_pixels_become_predictions(name: str) -> None:
    """Clips of other lengths than ``steps``; each depends on its own pixels, and a training batch not on padding."""
    split = films()
    method, batch = build(name, split, "classification", **TINY.get(name, {})), whole(split)
    for module in method.modules():
        if hasattr(module, "momentum"):
            module.momentum = 1.0  # batch statistics of one training batch, so that deep layers see values of size 1
    method(batch)
    found = predict(method.eval(), batch)
    assert found.shape == (4, 3) and found.isfinite().all()
    brighter = batch.features["vision"].clone()
    brighter[1] += 1
    other = predict(method, replace(batch, features=dict(batch.features) | {"vision": brighter}))
    torch.testing.assert_close(other[[0, 2, 3]], found[[0, 2, 3]], rtol=0, atol=1e-6)
    assert not torch.allclose(other[1], found[1], rtol=0, atol=1e-7)
    longer = replace(batch, features={key: F.pad(x, (0, 0, 0, 9)) for key, x in batch.features.items()})
    outputs = []
    for one in (batch, longer):
        torch.manual_seed(0)
        outputs.append(method.train()(one).prediction)
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ON_FILMS)
def test_the_data_say_what_a_frame_is(name: str) -> None:
    """At the same settings, the same bytes are a picture of 16 x 16 colours, and as numbers 768 features: other networks."""
    split = films()
    vision = split.features["vision"]
    features = replace(split, features={**split.features, "vision": replace(vision, values=vision.values.float() / 255)})
    sizes = []
    for one in (split, features):
        method = build(name, one, "classification", **TINY.get(name, {}))
        found = predict(method.eval(), whole(one))
        assert found.shape == (4, 3) and found.isfinite().all()
        sizes.append({key: tuple(x.shape) for key, x in method.state_dict().items()})
    assert sizes[0] != sizes[1]


@pytest.mark.parametrize("name", ON_FILMS)
def test_the_published_settings_serve_action_units(name: str) -> None:
    """What is published for faces runs as it is where vision is 35 features, one frame per clip or many."""
    for frames in ([1, 1], [40, 3]):
        split = random_split({"audio": [70, 40], "vision": frames}, {"audio": 13, "vision": 35}, seed=3, classes=2)
        small = {key: value for key, value in TINY.get(name, {}).items() if key != "grid"}
        config = merged(dict(methods[name].presets["ravdess"]), small)
        assert predict(build(name, split, "classification", **config).eval(), whole(split)).isfinite().all()


@pytest.mark.parametrize(
    ("dim", "expected"), [(1, (1, 1)), (3, (1, 3)), (4, (2, 1)), (35, None), (256, (16, 1)), (768, (16, 3)), (12, (2, 3)), (6, None)]
)
def test_squares_are_recognised(dim: int, expected: tuple[int, int] | None) -> None:
    found = square(dim)
    assert (None if found is None else (found.side, found.channels)) == expected


def test_settings_are_checked() -> None:
    wrong: list[tuple[str, dict[str, Any], str]] = [
        ("av_transformer", {"sequence_steps": {"text": 50, "audio": 12, "vision": 50}}, "at least 13"),
        ("convmixer_frames", {"kernel": 4}, "kernel = 4 is even"),
        ("msaf", {"sequence_steps": {"text": 50, "audio": 11, "vision": 50}}, "greater than or equal to 12"),
    ]
    for name, settings, words in wrong:
        with pytest.raises(ValidationError, match=words):
            methods[name].Config(**settings)
    for name, side, words in [("av_transformer", 100, "no multiple of 16"), ("convmixer_frames", 100, "grid = 16 does not divide vision")]:
        with pytest.raises(ConfigError, match=words):
            methods[name](of({"vision": 3 * side**2}, side), EIGHT, methods[name].Config())
    with pytest.raises(ConfigError, match="audio has 40 features.*picture_channels = 3"):
        methods["resnet34_mfcc"](Inputs({"audio": 40}), EIGHT, methods["resnet34_mfcc"].Config(picture_channels=3))


@pytest.mark.parametrize(("name", "path", "value"), own_settings({name: TINY.get(name, {}) for name in ON_FILMS}))
def test_no_setting_is_without_effect(name: str, path: tuple[str, ...], value: Any) -> None:
    key = path[0]
    if key in ("heads", "groups") or path[-1] in ("text", "vision") or (key, path[-1]) == ("networks", "audio"):
        pytest.skip("told apart by weights alone, or of a modality that reads otherwise here")
    base = merged(methods[name].Config().model_dump(), TINY.get(name, {}))
    words = {"middle": "mean", "mean": "middle", "none": "imagenet", "late": "attention", "attention": "late"} | {"probabilities": "logits"}
    special: dict[str, Any] = {"grid": 2, "kernel": 5, "picture_channels": 2, "block_channels": (3, 8)}
    if key in special:
        other: Any = special[key]
    elif isinstance(value, str):
        other = words[value]
    elif isinstance(value, (tuple, list)):
        other = (*value[:-1], 2 * value[-1])
    else:
        other = 0.9 - value if isinstance(value, float) and value < 0.9 else value * 2
    assert not torch.equal(effect(name, base), effect(name, merged(base, nested(path, other))))


def effect(name: str, config: dict[str, Any]) -> Tensor:
    """Prediction and losses in training, with the number of parameters."""
    split = films()
    method = build(name, split, "classification", **config)
    torch.manual_seed(0)
    output = method(whole(split))
    size = float(sum(p.numel() for p in method.parameters()))
    return torch.cat([output.prediction.flatten(), torch.tensor([size, *(float(x.detach()) for x in output.losses.values())])])


# ---- losses


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_classifier_trains_with_every_loss(name: str) -> None:
    """What trains is the loss that ``task_loss`` names, and its gradient on this method's own prediction differs from cross-entropy's."""
    split = films()
    batch, found = whole(split), {}
    for loss in ("cross_entropy", "focal", "weighted_focal", "calibrated_focal", "fldw"):
        settings = TINY.get(name, {})
        method = build(name, split, "classification", **settings | {"task_loss": loss})
        config = methods[name].Config(**settings | {"task_loss": loss})
        objective = training_objective(config, TASKS["classification"])
        kind = {"weighted_focal": WeightedFocal, "fldw": DynamicFocal}.get(loss)
        assert kind is None or isinstance(objective, kind)
        torch.manual_seed(0)
        output = method(batch)
        total = objective(output.prediction, batch.labels) / 4 + sum(output.losses.values())
        total.backward()
        gradients = [p.grad.flatten() for p in method.parameters() if p.grad is not None]
        found[loss] = torch.cat(gradients)
    assert torch.equal(found["focal"], found["fldw"]), "in the first epoch all weights are 1"
    for loss in ("focal", "calibrated_focal"):
        assert not torch.allclose(found[loss], found["cross_entropy"])
    assert not torch.allclose(found["focal"], found["calibrated_focal"])


# ---- each method


def test_average_is_that_of_probabilities_and_teaches_nothing() -> None:
    split = films()
    method, batch = build("av_average", split, "classification", **TINY["av_average"]), whole(split)
    method.eval()
    logits = method.streams.heads(method.streams(batch.features, batch.lengths))
    expected = torch.stack([y.softmax(1) for y in logits.values()]).mean(0)
    output = method(batch)
    torch.testing.assert_close(output.prediction.softmax(1), expected)
    torch.testing.assert_close(output.prediction.exp(), expected)
    assert not output.prediction.requires_grad
    output.losses["unimodal"].backward()
    together = {key: p.grad.clone() for key, p in method.named_parameters()}
    for name, net in method.streams.each.items():
        method.zero_grad()
        y, _ = net(batch.features[name], batch.lengths[name])
        F.cross_entropy(y, batch.labels).backward()
        alone = {key: p.grad for key, p in method.named_parameters() if p.grad is not None}
        assert alone and all(torch.allclose(together[key], grad, atol=1e-6) for key, grad in alone.items())
    logit = build("av_average", split, "classification", **TINY["av_average"] | {"scores": "logits"}).eval()
    raw = logit.streams.heads(logit.streams(batch.features, batch.lengths))
    torch.testing.assert_close(logit(batch).prediction, torch.stack(list(raw.values())).mean(0))


@pytest.mark.parametrize(("name", "summed"), [("mmtm", False), ("msaf", True)])
def test_heads_are_averaged_or_summed_after_both_sites(name: str, summed: bool) -> None:
    split = films()
    method, batch = build(name, split, "classification", **TINY[name]).eval(), whole(split)
    first, second = method.transfer if name == "mmtm" else method.attention
    nets = method.streams
    x = first({key: net.early(batch.features[key], batch.lengths[key]) for key, net in nets.each.items()})
    x = second({key: net.late(x[key]) for key, net in nets.each.items()})
    heads = [net.head(net.vector(x[key])) for key, net in nets.each.items()]
    torch.testing.assert_close(method(batch).prediction, heads[0] + heads[1] if summed else (heads[0] + heads[1]) / 2)


def test_transformer_attention_by_hand() -> None:
    torch.manual_seed(0)
    layer = Attention(6, 4, heads=2).double()
    target, source = torch.randn(2, 3, 6, dtype=torch.float64), torch.randn(2, 5, 4, dtype=torch.float64)
    found, scores = layer(target, source), layer.scores(target, source)
    for clip in range(2):
        parts = []
        for head in range(2):
            part = slice(3 * head, 3 * head + 3)
            q, k, v = target[clip] @ layer.query.weight.T, source[clip] @ layer.key.weight.T, source[clip] @ layer.value.weight.T
            alpha = (q[:, part] @ k[:, part].T / 3**0.5).softmax(1)
            torch.testing.assert_close(scores[clip, head], alpha, **EXACT)
            parts.append(alpha @ v[:, part])
        torch.testing.assert_close(found[clip], layer.out(torch.cat(parts, dim=1)), **EXACT)
    block = Block(6, 4, 2).double()
    asks, answers, inner = block.norms
    x = block.attention(asks(target), answers(source))
    torch.testing.assert_close(block(target.transpose(1, 2), source.transpose(1, 2)), (x + block.feed(inner(x))).transpose(1, 2), **EXACT)


@pytest.mark.parametrize("fusion", ["late", "intermediate", "attention"])
def test_where_streams_meet(fusion: str) -> None:
    """By hand from the method's own parts."""
    split = films()
    method = build("av_transformer", split, "classification", **TINY["av_transformer"] | {"fusion": fusion}).eval()
    batch = whole(split)
    assert isinstance(method, AVTransformer)
    sound = method.early["audio"](method._read(batch, "audio"))
    faces = method.early["vision"](method._read(batch, "vision"))
    assert sound.shape[2] == 150 and faces.shape[2] == 15
    if fusion == "intermediate":
        sound, faces = sound + method.meet["audio_vision"](sound, faces), faces + method.meet["vision_audio"](faces, sound)
    if fusion == "attention":
        looked_at = method.meet["vision_audio"].scores(faces.transpose(1, 2), sound.transpose(1, 2))[:, 0].sum(1)
        seen = method.meet["audio_vision"].scores(sound.transpose(1, 2), faces.transpose(1, 2))[:, 0].sum(1)
        torch.testing.assert_close(looked_at.sum(1), torch.full((4,), 15.0))
        sound, faces = sound * looked_at[:, None], faces * seen[:, None]
    sound, faces = method.late["audio"](sound), method.late["vision"](faces)
    assert sound.shape[2] == 144
    if fusion == "late":
        sound, faces = method.meet["audio_vision"](sound, faces), method.meet["vision_audio"](faces, sound)
    torch.testing.assert_close(method(batch).prediction, method.out(torch.cat([sound.mean(2), faces.mean(2)], dim=1)))


@pytest.mark.parametrize("modalities", SUBSETS, ids="+".join)
@pytest.mark.parametrize("fusion", ["late", "intermediate", "attention"])
def test_every_fusion_serves_every_subset(fusion: str, modalities: tuple[str, ...]) -> None:
    """Every trained parameter gets a gradient, and with several modalities each stream's prediction hears of all."""
    split = films(modalities)
    method = build("av_transformer", split, "classification", **TINY["av_transformer"] | {"fusion": fusion})
    batch = whole(split)
    F.cross_entropy(method(batch).prediction, batch.labels).backward()
    assert not [name for name, p in method.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]


def test_metric_constraint_by_hand() -> None:
    rng = np.random.default_rng(1)
    x = F.normalize(torch.from_numpy(rng.normal(size=(7, 3))), dim=1)
    label = torch.tensor([0, 1, 0, 2, 1, 0, 3])
    apart = distances(("neutral", "happy", "sad", "angry")).double()
    margin = 0.2 + 0.2 * apart
    terms = []
    for a in range(7):
        positive = [float((x[a] - x[p]).norm()) for p in range(7) if p != a and label[p] == label[a]]
        negative = [float(margin[label[a], label[n]]) - float((x[a] - x[n]).norm()) for n in range(7) if label[n] != label[a]]
        terms.append(max(0.0, max(positive) + max(negative)) if positive else 0.0)
    assert float(triplet(x, label, margin)) == pytest.approx(sum(terms) / 7, abs=1e-9)
    assert float(triplet(x[:2], torch.tensor([0, 0]), margin)) == float(triplet(x[:1], torch.tensor([0]), margin)) == 0
    assert float(apart[1, 2]) == pytest.approx(float(np.hypot(0.9 + 0.9, 0.4 + 0.4))) and torch.equal(apart, apart.T)
    assert set(distances(("what", "happy")).flatten().tolist()) == {0.0, 1.0}
    assert all(np.hypot(*place) <= 1.05 for place in PLACES.values())


# ---- the floor


@pytest.mark.parametrize("classes", [3, 2])
def test_logistic_is_scikit_learns_on_clip_statistics(classes: int) -> None:
    split = random_split({"audio": [5, 1, 7, 4, 6, 3, 9, 2], "vision": [2, 6, 3, 1, 4, 5, 8, 7]}, {"audio": 3, "vision": 2}, 4, classes)
    method = build("logistic", split, "classification", strength=0.3)
    statistics = []
    for row in split.rows.tolist():
        clips = [split.features[name].clip(row).double().numpy() for name in ("audio", "vision")]
        statistics.append(np.concatenate([part for clip in clips for part in (clip.mean(0), clip.std(0))]))
    x = StandardScaler().fit_transform(np.stack(statistics))
    model = LogisticRegression(C=0.3, max_iter=1000).fit(x, split.labels.numpy())
    found = predict(method, whole(split)).softmax(1).numpy()
    np.testing.assert_allclose(found[:, :classes], model.predict_proba(x), atol=1e-5)
    assert not found[:, classes:].any(), "a class that was not trained on"


def test_logistic_reads_pictures_by_areas() -> None:
    """Frames of 16 x 16 colours by the means of 4 x 4 areas are frames of 4 x 4 colours; small ones are read as they are."""
    split = films(("vision",))
    vision = split.features["vision"]
    blocks = vision.values.view(-1, 4, 4, 4, 4, 3).float().mean((2, 4)).reshape(-1, 4 * 4 * 3) / 255
    small = replace(split, features={"vision": replace(vision, values=blocks)})
    one, other = (build("logistic", part, "classification", side=4) for part in (split, small))
    torch.testing.assert_close(predict(one, whole(split)), predict(other, whole(small)), rtol=0, atol=1e-4)
    whole_pictures = build("logistic", split, "classification", side=16)
    assert whole_pictures.weight.shape == (3, 2 * 768) and one.weight.shape == (3, 2 * 48)


def test_logistic_knows_classes_only_and_needs_no_more_than_one() -> None:
    with pytest.raises(ConfigError, match="predicts classes") as caught:
        build("logistic", some_split())
    assert "ridge" in caught.value.fix
    split = some_split("classification")
    one = build("logistic", replace(split, labels=torch.ones(6, dtype=torch.int64)), "classification")
    assert predict(one, whole(split)).argmax(1).tolist() == [1] * 6


def test_no_name_is_left_out() -> None:
    """Every method here has presets for the three audio-visual sets and a reference."""
    for name in CLASSIFIERS:
        assert set(methods[name].presets) == {"ravdess", "ravdess_song", "enterface05"} and methods[name].reference
