"""DMD, DLF and Self-MM: sizes, settings, losses against closed forms, graph distillation, generated labels."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import CLOSE, DIMS, REGRESSION, build, merged, nested, own_settings, predict, random_split, some_split, whole, without_dropout
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from baselines.dmd import DMD
from baselines.self_mm import FUSED, SelfMM, UnimodalLabels, momentum, relative_distance, shifted
from harness.data.batches import Batch, gather
from harness.data.schema import MODALITIES
from harness.nn.decoupling import GraphDistillation, flatten, margin_loss, positive_cosine, squared_error
from harness.training import Inputs, Method, methods
from harness.training.loop import train

NAMES = ["dmd", "dlf", "self_mm"]
EXACT = {"rtol": 0.0, "atol": 1e-12}  # float64 sums in another order

MOSI, MOSEI = {"text": 768, "audio": 5, "vision": 20}, {"text": 768, "audio": 74, "vision": 35}


def distillation(width: int, hidden: int) -> int:
    """Parameters of a unit for intensities: the authors count theirs apart from the model, with a bias on the edge."""
    return (1 + 1) * hidden + (width + 1) * hidden + 4 * hidden


SIZES = {
    ("dmd", "mosi"): 4_743_658 - 345_150 + distillation(50, 64) + distillation(100, 32),  # less what gets no gradient there
    ("dmd", "mosei"): 1_792_778 - 129_690 + distillation(30, 64) + distillation(60, 32),
    ("dlf", "mosi"): 2_923_308 - 1_294_703,
    ("dlf", "mosei"): 2_917_208 - 1_340_303,
    ("self_mm", "mosi"): 159_332,
    ("self_mm", "mosei"): 165_668,
}
OFFICIAL: dict[int, tuple[dict[str, int], dict[str, Any]]] = {  # Self-MM as its authors' own repository sets it
    206_980: (MOSI, {"audio_recurrent": 32, "vision_recurrent": 64, "hidden": {"text": 64, "audio": 16, "vision": 32}}),
    172_532: (MOSEI, {"audio_recurrent": 32, "vision_recurrent": 32, "hidden": {"text": 32, "audio": 16, "vision": 16}}),
}


def size(name: str, dims: Mapping[str, int], config: Mapping[str, Any]) -> int:
    method = methods[name](Inputs(dims), REGRESSION, methods[name].Config.model_validate(config))
    return sum(p.numel() for p in method.parameters() if p.requires_grad)


@pytest.mark.parametrize(("name", "dataset"), SIZES)
def test_parameter_counts_are_the_peers(name: str, dataset: str) -> None:
    assert size(name, {"mosi": MOSI, "mosei": MOSEI}[dataset], methods[name].presets[dataset]) == SIZES[name, dataset]


@pytest.mark.parametrize("expected", OFFICIAL)
def test_self_mm_has_its_authors_sizes_at_their_settings(expected: int) -> None:
    assert size("self_mm", *OFFICIAL[expected]) == expected


# Training and settings

SHORT = {"text": 6, "audio": 6, "vision": 6}
SMALL: dict[str, dict[str, Any]] = {
    "dmd": {"width": 20, "layers": 1, "steps": SHORT},
    "dlf": {"width": 20, "layers": 1, "steps": SHORT},
    "self_mm": {},
}


@pytest.mark.parametrize("name", NAMES)
def test_training_fits_a_few_clips(name: str) -> None:
    """A quarter of the constant's error after 40 steps, dropout off: the pieces are wired so that gradients teach."""
    split = random_split({modality: [2, 4, 1, 3, 2, 3] for modality in MODALITIES}, DIMS, seed=3)
    method, batch = without_dropout(build(name, split, **SMALL[name])), whole(split)
    optimiser = torch.optim.Adam(method.parameters(), lr=3e-3)
    assert batch.labels is not None
    weights = methods[name].Config().weights.model_dump()
    for _ in range(40):
        optimiser.zero_grad()
        output = method(batch)
        loss = F.l1_loss(output.prediction, batch.labels) + sum(weights[key] * x for key, x in output.losses.items())
        loss.backward()
        optimiser.step()
    constant = F.l1_loss(batch.labels.median().expand(len(batch)), batch.labels)
    assert F.l1_loss(predict(method.eval(), batch), batch.labels) < constant / 4


@pytest.mark.parametrize(("name", "path", "value"), own_settings(SMALL))
def test_no_setting_is_without_effect(name: str, path: tuple[str, ...], value: Any) -> None:
    """Changing any one setting changes what training sees: a prediction, a vector, a loss, the parameters or how they are updated."""
    before = merged(methods[name].Config().model_dump(), SMALL[name])
    words = {"text": "audio", "mean": "first"}
    other = words[value] if isinstance(value, str) else {bool: not value, int: value // 2}.get(type(value), value / 2 + 0.3)
    other = {("heads",): 5, ("layers",): 2}.get(path, other)
    assert effect(name, before) != effect(name, merged(before, nested(path, other)))


def effect(name: str, config: dict[str, Any]) -> tuple[float, ...]:
    split = some_split()
    method = build(name, split, **config)
    torch.manual_seed(1)
    output = method(whole(split))
    groups = method.parameter_groups(method.Config().training)
    updates = [group.get(key, 0.0) for group in groups for key in ("lr", "weight_decay")]
    parameters = sum(p.numel() for p in method.parameters())
    seen = [output.prediction, *output.losses.values(), *output.representations.values()]
    return (*(x.sum().item() for x in seen), *updates, parameters)


@pytest.mark.parametrize("name", ["dmd", "dlf"])
def test_heads_must_divide_the_width(name: str) -> None:
    with pytest.raises(ValidationError, match="heads = 7 does not divide width = 50"):
        methods[name].Config(heads=7)


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_reads_no_label(name: str) -> None:
    """Same bits with other labels, no losses, no state that changes."""
    method, batch = build(name, some_split(), **SMALL[name]).eval(), whole(some_split())
    before = copy.deepcopy(method.state_dict())
    assert batch.labels is not None
    plain, other, none = (method(replace(batch, labels=labels)) for labels in (batch.labels, -batch.labels, None))
    assert torch.equal(plain.prediction, other.prediction) and torch.equal(plain.prediction, none.prediction)
    assert not plain.losses and all(torch.equal(x, before[key]) for key, x in method.state_dict().items())


@pytest.mark.parametrize("name", ["dmd", "dlf"])
def test_losses_do_not_depend_on_padding(name: str) -> None:
    split = some_split()
    method, batch = without_dropout(build(name, split, **SMALL[name])), whole(split)
    longer = replace(batch, features={key: F.pad(x, (0, 0, 0, 9)) for key, x in batch.features.items()})
    plain, padded = method(batch).losses, method(longer).losses
    for key in plain:
        torch.testing.assert_close(padded[key], plain[key], rtol=1e-5, atol=1e-5)


# Decoupling losses


def real_steps(lengths: list[int], steps: int) -> torch.Tensor:
    return torch.arange(steps) < torch.tensor(lengths)[:, None]


def test_losses_over_steps_are_means_over_real_steps_then_clips() -> None:
    rng = np.random.default_rng(0)
    lengths = [3, 5, 1]
    x, y = rng.normal(size=(2, 3, 5, 4))
    errors, cosines = [], []
    for a, b, length in zip(x, y, lengths, strict=True):
        errors.append(((a - b)[:length] ** 2).mean())
        pairs = zip(a[:length], b[:length], strict=True)
        cosines.append(np.mean([max(0.0, u @ v / np.linalg.norm(u) / np.linalg.norm(v)) for u, v in pairs]))
    mask = real_steps(lengths, 5)
    assert squared_error(torch.from_numpy(x), torch.from_numpy(y), mask).item() == pytest.approx(np.mean(errors), rel=1e-12)
    assert positive_cosine(torch.from_numpy(x), torch.from_numpy(y), mask).item() == pytest.approx(np.mean(cosines), rel=1e-12)


@pytest.mark.parametrize("steps", [2, 4, 7])
def test_flat_layers_read_the_first_steps_and_zeros_behind_the_end(steps: int) -> None:
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 4, 3)))
    lengths = [3, 1]
    expected = np.zeros((2, steps, 3))
    for i, length in enumerate(lengths):
        kept = min(length, steps)
        expected[i, :kept] = x[i, :kept]
    assert torch.equal(flatten(x, real_steps(lengths, 4), steps), torch.from_numpy(expected).flatten(1))


@given(
    labels=st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0]), min_size=1, max_size=5),
    modalities=st.integers(1, 3),
    whole_numbers=st.booleans(),
)
@settings(deadline=None, max_examples=40)
def test_margin_loss_is_the_mean_over_all_triples(labels: list[float], modalities: int, whole_numbers: bool) -> None:
    """Classes are 1 apart, whatever their numbers."""
    vectors = np.random.default_rng(len(labels)).normal(size=(modalities, len(labels), 4))
    y = torch.tensor(labels, dtype=torch.float64)
    y = (2 * y).long() if whole_numbers else y
    unit = vectors / np.linalg.norm(vectors, axis=2, keepdims=True)
    places = list(product(range(modalities), range(len(labels))))
    terms = []
    for i, j, k in product(places, repeat=3):
        alike, unlike = y[i[1]] == y[j[1]] and i[0] != j[0], y[i[1]] != y[k[1]] and i[0] == k[0]
        if alike and unlike:
            gap = 1.0 if whole_numbers else abs(labels[i[1]] - labels[k[1]])
            terms.append(max(0.0, 0.15 * gap - unit[i] @ unit[j] + unit[i] @ unit[k]))
    expected = np.mean(terms) if terms else 0.0
    assert margin_loss(torch.from_numpy(vectors), y, 0.15).item() == pytest.approx(expected, abs=1e-12)


# Graph distillation


def unit(modalities: tuple[str, ...] = ("text", "audio"), pull: float = 0.0, away: float = 0.0) -> GraphDistillation:
    """One hidden cell, so that z is (prediction, vector) and the edge of a pair a sum of four terms."""
    graph = GraphDistillation(modalities, 1, 1, 1, {("audio", "text")}, pull, away).double()
    with torch.no_grad():
        for layer in (graph.read_prediction, graph.read_vector):
            layer.weight.fill_(1.0)
            layer.bias.zero_()
        graph.edge.weight.copy_(torch.tensor([[8.0, 0.0, 0.0, 0.0]]))
    return graph


def test_distillation_with_edges_by_hand() -> None:
    """Edges are a softmax over the students' predictions 1 and 3; the prior one over 0 and 1 / .25."""
    predictions = torch.tensor([[[1.0]], [[3.0]]], dtype=torch.float64)
    vectors = torch.tensor([[[0.5]], [[2.0]]], dtype=torch.float64)
    edge, prior = np.exp(2) / (1 + np.exp(2)), np.exp(4) / (1 + np.exp(4))
    torch.testing.assert_close(unit().edges(predictions, vectors).flatten(), torch.tensor([1 - edge, edge], dtype=torch.float64), **EXACT)
    imitation = 2.0 * ((1 - edge) + (1 - prior) + edge + prior)  # both students are 2 away from their teachers
    pull, away = 2 * (edge - prior) ** 2, 2.0  # the vectors' cosine is 1 and the weights sum to 2
    tolerance = {"rel": 1e-6}  # the prior is a float32 buffer
    assert unit()(predictions, vectors).item() == pytest.approx(imitation, **tolerance)
    assert unit(pull=10.0)(predictions, vectors).item() == pytest.approx(imitation + 10 * pull, **tolerance)
    assert unit(away=3.0)(predictions, vectors).item() == pytest.approx(imitation + 3 * away, **tolerance)
    assert unit(away=3.0)(predictions, -vectors * predictions.sign()).item() == pytest.approx(imitation + 3 * away, **tolerance)
    assert unit(away=3.0)(predictions, vectors * torch.tensor([[[1.0]], [[-1.0]]])).item() == pytest.approx(imitation, **tolerance)


def test_distillation_is_its_definition_for_three_modalities() -> None:
    torch.manual_seed(0)
    favoured = {("audio", "text"), ("vision", "text"), ("audio", "vision")}
    graph = GraphDistillation(MODALITIES, 2, 5, 4, favoured, towards_prior=7.0, away=3.0).double()
    rng = np.random.default_rng(1)
    y, x = rng.normal(size=(3, 6, 2)), rng.normal(size=(3, 6, 5))
    pairs = list(permutations(range(3), 2))
    layers = {name: [p.detach().numpy() for p in getattr(graph, name).parameters()] for name in ("read_prediction", "read_vector", "edge")}
    z = np.concatenate([v @ layers[name][0].T + layers[name][1] for name, v in (("read_prediction", y), ("read_vector", x))], axis=2)
    scores = np.stack([np.concatenate([z[i], z[j]], axis=1) @ layers["edge"][0][0] / 8 for i, j in pairs])
    edges = np.exp(scores) / np.exp(scores).sum(0)
    liked = np.exp([4.0 * ((MODALITIES[i], MODALITIES[j]) in favoured) for i, j in pairs])
    prior = liked / liked.sum()
    loss = 7 * ((edges.mean(1) - prior) ** 2).sum()
    for e, p, (i, j) in zip(edges, prior, pairs, strict=True):
        for n in range(6):
            cosine = x[i, n] @ x[j, n] / np.linalg.norm(x[i, n]) / np.linalg.norm(x[j, n])
            loss += (e[n] + p) * (np.abs(y[i, n] - y[j, n]).mean() + 3 * max(0.0, cosine)) / 6
    assert graph(torch.from_numpy(y), torch.from_numpy(x)).item() == pytest.approx(loss, rel=1e-6)


def test_a_teacher_does_not_learn_from_its_student() -> None:
    """With constant edges, text's gradient is that of its own imitation of audio alone: -(edge + prior)."""
    graph = unit()
    torch.nn.init.zeros_(graph.edge.weight)
    predictions = torch.tensor([[[1.0]], [[3.0]]], dtype=torch.float64, requires_grad=True)
    graph(predictions, torch.ones(2, 1, 1, dtype=torch.float64)).backward()
    assert predictions.grad is not None
    expected = torch.stack([-(0.5 + graph.prior[0]), 0.5 + graph.prior[1]])
    torch.testing.assert_close(predictions.grad.flatten(), expected, **EXACT)


def test_dmd_favours_the_pairs_of_its_figure_within_any_subset() -> None:
    def liked(graph: GraphDistillation, names: tuple[str, ...]) -> set[str]:
        top = graph.prior == graph.prior.max()
        return {f"{names[i]}<{names[j]}" for (i, j), yes in zip(graph.pairs, top, strict=True) if yes}

    method = DMD(Inputs(DIMS), REGRESSION, DMD.Config())
    assert liked(method.homogeneous, MODALITIES) == {"audio<text", "vision<text"}
    assert liked(method.heterogeneous, MODALITIES) == {"audio<text", "vision<text", "audio<vision"}
    two = DMD(Inputs({name: DIMS[name] for name in ("audio", "vision")}), REGRESSION, DMD.Config())
    assert liked(two.heterogeneous, ("audio", "vision")) == {"audio<vision"}
    assert two.homogeneous.prior.tolist() == [0.5, 0.5]


def test_one_modality_distils_and_aligns_nothing() -> None:
    method, batch = build("dmd", some_split(modalities=("text",)), **SMALL["dmd"]), whole(some_split(modalities=("text",)))
    losses = method(batch).losses
    assert {key for key, x in losses.items() if x == 0} == {"homogeneous", "heterogeneous", "margin"}


def test_dlf_turns_to_another_modality_where_text_is_missing() -> None:
    def focus(modalities: tuple[str, ...], **config: str) -> tuple[str, set[str]]:
        method: Any = build("dlf", some_split(modalities=modalities), **SMALL["dlf"], **config)
        return method.focus, set(method.attract)

    assert focus(MODALITIES) == ("text", {"audio", "vision"})
    assert focus(("audio", "vision")) == ("audio", {"vision"})
    assert focus(("audio", "vision"), focus="vision") == ("vision", {"audio"})
    assert focus(("vision",)) == ("vision", set())


# Self-MM's labels


def test_a_generated_label_by_hand() -> None:
    """Distances 3 and 6 give 1 for the fusion, 2 and 3 give 1/2 for text: label 2 becomes .5 * 1 + .5 * 1.5 = 1.25."""
    memory = UnimodalLabels({"text": 2, FUSED: 2}, -3, 3)
    memory.start(torch.tensor([2.0, -1.0, 1.0, 0.0], dtype=torch.float64))
    far = [50.0, 50.0]  # a neutral clip counts for no centre
    seen = {"text": [[0, 1], [3, 0], [0, 3], far], FUSED: [[1, 2], [1, -6], [1, 4], far]}
    memory.update(torch.arange(4), {name: torch.tensor(x, dtype=torch.float64) for name, x in seen.items()})
    assert memory.target("text").tolist() == [2.0, -1.0, 1.0, 0.0]  # the first epoch fills the memory
    now = {"text": torch.tensor([[0.0, 0.0]], dtype=torch.float64), FUSED: torch.tensor([[1.0, 0.0]], dtype=torch.float64)}
    memory.update(torch.tensor([0]), now)
    expected = torch.tensor([2 / 3 + 1.25 * 2 / 3, -1.0, 1.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(memory.target("text"), expected, rtol=0, atol=1e-7)  # the published rule adds 1e-8 to divisors
    assert memory.epochs.tolist() == [2, 1, 1, 1]
    assert memory.get_buffer("vector_text")[0].tolist() == [0.0, 0.0]


def published_labels(labels: np.ndarray, vectors: np.ndarray, fused: np.ndarray, batches: list[np.ndarray]) -> np.ndarray:
    """The published rule, clip by clip: vectors and fused are (epochs, N, D), batches the positions of each epoch's batches."""
    target, memory, memory_fused = labels.copy(), np.zeros_like(vectors[0]), np.zeros_like(fused[0])

    def delta(x: np.ndarray, stored: np.ndarray, sign: np.ndarray) -> float:
        up, down = (np.linalg.norm(x - stored[chosen].mean(0)) for chosen in (sign > 0, sign < 0))
        return (down - up) / (up + 1e-8)

    for n, (now, now_fused) in enumerate(zip(vectors, fused, strict=True), start=1):
        for batch in batches:
            old, old_memory, old_fused = target.copy(), memory.copy(), memory_fused.copy()
            for i in batch if n > 1 else []:
                own, whole_clip = delta(now[i], old_memory, old), delta(now_fused[i], old_fused, labels)
                new = 0.5 * own / (whole_clip + 1e-8) * labels[i] + 0.5 * (labels[i] + own - whole_clip)
                target[i] = (n - 1) / (n + 1) * old[i] + 2 / (n + 1) * np.clip(new, -3, 3)
            memory[batch], memory_fused[batch] = now[batch], now_fused[batch]
    return target


@pytest.mark.parametrize("seed", range(3))
def test_labels_follow_the_published_rule_over_epochs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    clips, epochs = 12, 5
    labels = np.round(rng.uniform(-3, 3, clips), 1)
    labels[:3] = [0.0, 1.2, -0.8]
    vectors, fused = np.abs(rng.normal(size=(epochs, clips, 3))), np.abs(rng.normal(size=(epochs, clips, 5)))
    batches = np.array_split(rng.permutation(clips), 3)
    memory = UnimodalLabels({"audio": 3, FUSED: 5}, -3, 3)
    memory.start(torch.from_numpy(labels))
    for now, now_fused in zip(vectors, fused, strict=True):
        for batch in batches:
            memory.update(torch.from_numpy(batch), {"audio": torch.from_numpy(now[batch]), FUSED: torch.from_numpy(now_fused[batch])})
    expected = published_labels(labels, vectors, fused, batches)
    np.testing.assert_allclose(memory.target("audio").numpy(), expected, rtol=0, atol=1e-12)
    assert np.abs(expected - labels).max() > 0.1


def test_momentum_is_the_mean_of_all_labels_weighted_by_their_epochs() -> None:
    labels = np.random.default_rng(0).normal(size=9)
    label = torch.tensor(labels[0])
    for epoch, new in enumerate(labels[1:], start=2):
        label = momentum(label, torch.tensor(new), torch.tensor(epoch))
        assert label.item() == pytest.approx(np.average(labels[:epoch], weights=range(1, epoch + 1)), rel=1e-12)


@given(label=st.floats(-3, 3), apart=st.floats(-1, 100), fused=st.floats(-1, 100))
def test_generated_labels_stay_in_the_range_of_the_task(label: float, apart: float, fused: float) -> None:
    new = shifted(*(torch.tensor([x], dtype=torch.float64) for x in (label, apart, fused)), low=-3, high=3)
    assert -3 <= new.item() <= 3
    same = shifted(*(torch.tensor([x], dtype=torch.float64) for x in (label, fused, fused)), low=-3, high=3)
    if abs(fused) > 1e-3:  # below, the constant in the divisor shows
        assert same.item() == pytest.approx(label, abs=1e-4)


def test_relative_distance_tells_the_nearer_centre() -> None:
    positive, negative = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 0.0])
    points = torch.tensor([[0.5, 0.0], [0.0, 2.0], [-0.5, 0.0]])
    torch.testing.assert_close(relative_distance(points, positive, negative), torch.tensor([2.0, 0.0, -2 / 3]), **CLOSE)


def test_labels_stay_where_no_clip_has_the_other_sign() -> None:
    memory = UnimodalLabels({"text": 2, FUSED: 2}, -3, 3)
    memory.start(torch.tensor([2.0, 1.0, 0.0]))
    for _ in range(3):
        memory.update(torch.arange(3), {"text": torch.randn(3, 2), FUSED: torch.randn(3, 2)})
    assert memory.target("text").tolist() == [2.0, 1.0, 0.0]


def steps(method: Method, batch: Batch, count: int) -> list[dict[str, bool]]:
    """For each training pass without an update: which parameters got a gradient."""
    reached = []
    for _ in range(count):
        method.zero_grad()
        output = method(batch)
        (output.prediction.sum() + output.losses["unimodal"]).backward()
        reached.append({key: bool(p.grad is not None and p.grad.any()) for key, p in method.named_parameters()})
    return reached


def test_unimodal_heads_learn_from_the_third_epoch_on() -> None:
    first, second, third = steps(build("self_mm", some_split()), whole(some_split()), 3)
    for reached in (first, second):
        assert {key for key, yes in reached.items() if not yes} == {key for key in reached if key.startswith("branches.")}
    assert all(third.values())


def test_unimodal_loss_is_weighted_by_the_distance_of_labels() -> None:
    split = some_split()
    method: Any = without_dropout(build("self_mm", split))
    batch = gather(split, torch.tensor([4, 1, 3]))
    for _ in range(2):
        method(whole(split))
    targets = {name: method.generated.target(name)[batch.position].double().numpy().copy() for name in MODALITIES}
    assert batch.labels is not None
    labels = batch.labels.double().numpy()
    output = method(batch)
    expected = 0.0
    for name, head in method.branches.items():
        prediction = head.out(output.representations[name]).squeeze(1).detach().double().numpy()
        expected += (np.tanh(np.abs(targets[name] - labels)) * np.abs(prediction - targets[name])).mean()
    assert expected > 0.01
    assert output.losses["unimodal"].item() == pytest.approx(expected, rel=1e-5)


def test_with_classes_every_head_learns_the_class() -> None:
    split = some_split("classification")
    method: Any = without_dropout(build("self_mm", split, "classification"))
    batch = whole(split)
    output = method(batch)
    heads = [head.out(output.representations[name]) for name, head in method.branches.items()]
    expected = sum(F.cross_entropy(head, batch.labels) for head in heads)  # type: ignore[arg-type]
    torch.testing.assert_close(output.losses["unimodal"], expected, **CLOSE)
    assert method.generated is None and not list(method.buffers())


def test_self_mm_groups_every_parameter_once() -> None:
    config = {"audio_learning_rate": 0.1, "vision_learning_rate": 0.2, "audio_weight_decay": 0.3, "vision_weight_decay": 0.4}
    method = build("self_mm", some_split(), **config)
    others, audio, vision = method.parameter_groups(SelfMM.Config().training)
    assert "lr" not in others
    assert (audio["lr"], audio["weight_decay"], vision["lr"], vision["weight_decay"]) == (0.1, 0.3, 0.2, 0.4)
    grouped = [id(p) for group in (others, audio, vision) for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in method.parameters())
    assert {id(p) for p in audio["params"]} == {id(p) for p in method.recurrent["audio"].parameters()}  # type: ignore[union-attr, index]


@pytest.mark.parametrize("stop", [1, 3])
def test_a_resumed_self_mm_ends_with_the_same_bits(stop: int) -> None:
    """Weights, generated labels and stored vectors."""
    rng = np.random.default_rng(0)
    lengths = {name: rng.integers(1, 6, 40).tolist() for name in MODALITIES}
    parts = [random_split(lengths, DIMS, seed=seed) for seed in (1, 2)]
    config = SelfMM.Config(training={"batch_size": 8, "accumulate": 2, "max_epochs": 5, "patience": 5})
    states: list[dict[str, Any]] = []
    ends = []
    for resume in (False, True):
        method = SelfMM(Inputs(DIMS), REGRESSION, config)
        if not resume:
            torch.nn.init.normal_(method.fuse.out[2].weight)  # other weights than the resumed run starts from
        run = train(
            method,
            *parts,
            REGRESSION,
            config,
            seed=3,
            resume=states[stop - 1] if resume else None,
            after_epoch=lambda run: states.append(copy.deepcopy(run.state())),
        )
        ends.append((run.history, states[-1]["method"], method.state_dict()))
    (history, last, best), (history_resumed, last_resumed, best_resumed) = ends
    assert history == history_resumed and len(history) == 5
    for one, other in ((last, last_resumed), (best, best_resumed)):
        assert one.keys() == other.keys() and all(torch.equal(x, other[key]) for key, x in one.items())
    assert last["generated.epochs"].unique().tolist() == [5]
    assert not torch.equal(last["generated.target_text"], last["generated.label"])
