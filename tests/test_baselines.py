"""What is particular to each baseline: parameter counts, settings, fusion, losses, closed forms."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from helpers import (
    CLOSE,
    DIMS,
    KINDS,
    REGRESSION,
    SUBSETS,
    TASKS,
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
from sklearn.linear_model import RidgeClassifierCV, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from baselines.lmf import LMF
from baselines.majority import Majority
from baselines.misa import MISA
from baselines.mult import MulT
from baselines.ridge import Ridge
from baselines.tfn import TFN
from harness.data.schema import MODALITIES, Split, Task
from harness.training import Inputs, Method, methods
from harness.training.objectives import task_objective

NEURAL = ["tfn", "lmf", "mult", "misa"]

COUNTS = {
    ("tfn", "mosi"): 9_497_043,
    ("tfn", "mosei"): 5_042_539,
    ("lmf", "mosi"): 505_071,
    ("lmf", "mosei"): 508_475,
    ("mult", "mosi"): 2_571_551,
    ("mult", "mosei"): 982_951,
    ("misa", "mosi"): 1_138_033 - 3_588,  # less what nothing uses: a layer norm for text and a discriminator
    ("misa", "mosei"): 1_435_105 - 3_588,
}


@pytest.mark.parametrize(("name", "dataset"), COUNTS)
def test_parameter_counts_are_the_peers(name: str, dataset: str) -> None:
    dims = {"mosi": {"text": 768, "audio": 5, "vision": 20}, "mosei": {"text": 768, "audio": 74, "vision": 35}}[dataset]
    method = methods[name](Inputs(dims), REGRESSION, methods[name].Config.model_validate(methods[name].presets[dataset]))
    assert sum(p.numel() for p in method.parameters() if p.requires_grad) == COUNTS[name, dataset]


SMALL: dict[str, dict[str, Any]] = {
    "tfn": {"hidden": {"text": 8, "audio": 8, "vision": 8}, "text_out": 8},
    "lmf": {},
    "mult": {"width": 20, "layers": 2},
    "misa": {},
}


@pytest.mark.parametrize("name", NEURAL)
def test_training_fits_a_few_clips(name: str) -> None:
    split = some_split()
    check_training_fits(build(name, split, **SMALL[name]), whole(split))


@pytest.mark.parametrize(("name", "path", "value"), own_settings(SMALL))
def test_no_setting_is_without_effect(name: str, path: tuple[str, ...], value: Any) -> None:
    """Changing any one setting changes what training sees: the prediction, a loss, the parameters or a learning rate."""
    before = merged(methods[name].Config().model_dump(), SMALL[name])
    other = {bool: not value, int: (value or 0) // 2, float: (value or 0) / 2 + 0.3}.get(type(value), 5)
    assert effect(name, before) != effect(name, merged(before, nested(path, other)))


def effect(name: str, config: dict[str, Any]) -> tuple[float, ...]:
    split = some_split()
    method = build(name, split, **config)
    torch.manual_seed(1)
    output = method(whole(split))
    rates = [group.get("lr", 0.0) for group in method.parameter_groups(method.Config().training)]
    parameters = sum(p.numel() for p in method.parameters())
    return (output.prediction.sum().item(), *(loss.item() for loss in output.losses.values()), *rates, parameters)


# TFN


def test_tfn_stays_in_the_range_of_the_labels() -> None:
    split = some_split()
    dims = {name: ragged.dim for name, ragged in split.features.items()}
    method = TFN(Inputs(dims), Task(kind="regression", low=-1, high=4), TFN.Config()).eval()
    with torch.no_grad():
        for bias, end in ((-1e3, -1.0), (1e3, 4.0), (0.0, 1.5)):
            method.out.weight.zero_()
            method.out.bias.fill_(bias)
            assert torch.equal(predict(method, whole(split)), torch.full((len(split),), end))


# LMF


@pytest.mark.parametrize("modalities", SUBSETS, ids="+".join)
def test_low_rank_product_is_the_full_tensor_product(modalities: tuple[str, ...]) -> None:
    task = TASKS["classification"]
    method = LMF(
        Inputs({name: DIMS[name] for name in modalities}), task, LMF.Config(hidden={"text": 4, "audio": 3, "vision": 2}, text_out=2)
    )
    method = method.double()
    torch.nn.init.normal_(method.bias)
    rng = np.random.default_rng(0)
    vectors = {name: rng.normal(size=(3, width)) for name, width in method.encode.widths.items()}
    letters = "abc"[: len(modalities)]
    factors = [method.factors[name].detach().numpy() for name in modalities]
    weight = np.einsum(f"r,{','.join(f'r{x}o' for x in letters)}->{letters}o", method.rank_weights[0].detach().numpy(), *factors)
    extended = [np.hstack([np.ones((3, 1)), z]) for z in vectors.values()]
    expected = np.einsum(f"{letters}o,{','.join(f'n{x}' for x in letters)}->no", weight, *extended) + method.bias.detach().numpy()
    result = method.fuse({name: torch.from_numpy(z) for name, z in vectors.items()})
    np.testing.assert_allclose(result.detach().numpy(), expected, rtol=0, atol=1e-12)


def test_lmf_trains_every_parameter_once_and_factors_at_their_own_rate() -> None:
    method = build("lmf", some_split(), factor_learning_rate=0.5)
    factors, others = method.parameter_groups(LMF.Config().training)
    assert factors["lr"] == 0.5 and len(factors["params"]) == 3 and "lr" not in others
    grouped = [id(parameter) for group in (factors, others) for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in method.parameters())
    assert {id(method.rank_weights), id(method.bias)} <= {id(parameter) for parameter in others["params"]}


# MulT


def test_mult_rejects_heads_that_do_not_divide_the_width() -> None:
    with pytest.raises(ValidationError, match="heads = 7 does not divide width = 50"):
        MulT.Config(heads=7)


def test_mult_reads_the_order_of_steps_through_positions_only() -> None:
    """Without positions, convolution and causal mask, the last step sees a set: the order of the others is lost."""
    lengths = {"text": [6], "audio": [5]}
    split = random_split(lengths, {"text": 4, "audio": 3}, seed=4)
    shuffled = {
        name: replace(ragged, values=ragged.values[[2, 0, 1, *range(3, len(ragged.values))]]) for name, ragged in split.features.items()
    }
    other = replace(split, features=shuffled)
    plain = {"kernel": {"text": 1, "audio": 1, "vision": 1}, "causal": False}
    for positions in (False, True):
        method = build("mult", split, positions=positions, **plain).eval()
        distance = (predict(method, whole(split)) - predict(method, whole(other))).abs().item()
        assert (distance > 1e-4) == positions


def test_mult_takes_attention_dropout_from_the_source() -> None:
    method = build("mult", some_split(), attention_dropout={"text": 0.1, "audio": 0.2, "vision": 0.3}, memory_dropout=0.4)
    rates = {key: encoder.layers[0].attention.dropout for key, encoder in method.cross.items()}
    assert rates == {f"{a}_from_{b}": {"text": 0.1, "audio": 0.2, "vision": 0.3}[b] for a in MODALITIES for b in MODALITIES if a != b}
    assert {encoder.layers[0].attention.dropout for encoder in method.memory.values()} == {0.4}


def test_mult_memories_have_at_least_three_layers() -> None:
    method = build("mult", some_split(), layers=1)
    assert {len(encoder.layers) for encoder in method.cross.values()} == {1}
    assert {len(encoder.layers) for encoder in method.memory.values()} == {3}


# MISA


def test_misa_losses_are_their_definitions() -> None:
    method = fitted("misa")
    batch = whole(some_split())
    with torch.inference_mode():
        output = method(batch)
    private = {name: output.representations[f"private_{name}"].double().numpy() for name in MODALITIES}
    shared = {name: output.representations[f"shared_{name}"].double().numpy() for name in MODALITIES}
    discrepancy = np.mean([discrepancy_of(x, y) for x, y in combinations(shared.values(), 2)])
    assert output.losses["similarity"].item() == pytest.approx(discrepancy, rel=1e-4)
    pairs = [(private[name], shared[name]) for name in MODALITIES] + list(combinations(private.values(), 2))
    assert output.losses["difference"].item() == pytest.approx(sum(overlap(x, y) for x, y in pairs), rel=1e-4)
    with torch.inference_mode():
        whole_vectors = {name: project(method._utterance(batch, name)).double().numpy() for name, project in method.project.items()}
        rebuilt = {name: method.reconstruct[name](torch.from_numpy(private[name] + shared[name]).float()).numpy() for name in MODALITIES}
    errors = [((rebuilt[name] - whole_vectors[name]) ** 2).mean() for name in MODALITIES]
    assert output.losses["reconstruction"].item() == pytest.approx(np.mean(errors), rel=1e-4)


def discrepancy_of(x: np.ndarray, y: np.ndarray) -> float:
    moments = [np.stack([a.mean(0), *(((a - a.mean(0)) ** k).mean(0) for k in range(2, 6))]) for a in (x, y)]
    return float(np.linalg.norm(moments[0] - moments[1], axis=1).sum())


def overlap(x: np.ndarray, y: np.ndarray) -> float:
    unit = [(a - a.mean(0)) / np.linalg.norm(a - a.mean(0), axis=1, keepdims=True) for a in (x, y)]
    return float(((unit[0].T @ unit[1]) ** 2).mean())


def test_misa_options() -> None:
    method = build("misa", some_split(), recurrent=5, orthogonal_init=True)
    weight = method.recurrent["audio"].second.back.weight_hh_l0
    assert weight.shape == (20, 5)
    torch.testing.assert_close(weight.T @ weight, torch.eye(5), **CLOSE)
    assert build("misa", some_split(), text_recurrent=7).project["text"][0].in_features == 4 * 7
    assert build("misa", some_split(modalities=("text",)))(whole(some_split(modalities=("text",)))).losses["similarity"] == 0


def test_misa_trains_on_squared_errors_by_default() -> None:
    config = MISA.Config()
    assert config.task_loss == "mse"
    assert task_objective(config, TASKS["classification"]) is task_objective(LMF.Config(), TASKS["classification"])


# The floors


def test_majority_is_the_best_constant() -> None:
    split = some_split()
    assert split.labels is not None
    constant = predict(build("majority", split), whole(split))
    assert constant.unique().numel() == 1
    errors = [(split.labels - candidate).abs().mean() for candidate in torch.linspace(-3, 3, 601)]
    assert (split.labels - constant).abs().mean() <= min(errors) + 1e-6


def test_majority_ranks_classes_by_frequency() -> None:
    split = replace(some_split("classification"), labels=torch.tensor([2, 1, 1, 1, 2, 1]))
    logits = predict(build("majority", split, "classification"), whole(split))
    torch.testing.assert_close(logits.softmax(1), torch.tensor([1, 5, 3]).div(9).expand(6, 3), **CLOSE)


@pytest.fixture(scope="module")
def many() -> dict[str, Split]:
    rng = np.random.default_rng(5)
    lengths = {name: rng.integers(1, 9, 90).tolist() for name in MODALITIES}
    return {kind: random_split(lengths, DIMS, seed=6, classes=3 if kind == "classification" else None) for kind in KINDS}


def averages(split: Split) -> np.ndarray:
    rows = [np.hstack([ragged.clip(int(row)).double().mean(0).numpy() for ragged in split.features.values()]) for row in split.rows]
    return np.vstack(rows)


def test_ridge_is_the_pipeline_it_names(many: dict[str, Split]) -> None:
    split = many["regression"]
    assert split.labels is not None
    model = make_pipeline(StandardScaler(), RidgeCV(alphas=Ridge.Config().penalties))
    model.fit(averages(split), split.labels.double().numpy())
    prediction = predict(build("ridge", split), whole(split))
    np.testing.assert_allclose(prediction.numpy(), model.predict(averages(split)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("classes", [2, 3])
def test_ridge_classifies_as_the_pipeline_it_names(many: dict[str, Split], classes: int) -> None:
    split = many["classification"]
    split = replace(split, labels=split.labels % classes)  # type: ignore[operator]
    method = Ridge(Inputs(DIMS), Task(kind="classification", classes=("a", "b", "c")[:classes]), Ridge.Config())
    method.fit(split)
    assert split.labels is not None
    model = make_pipeline(StandardScaler(), RidgeClassifierCV(alphas=Ridge.Config().penalties)).fit(averages(split), split.labels.numpy())
    scores = model.decision_function(averages(split))
    expected = np.stack([-scores, scores], 1) if classes == 2 else scores
    np.testing.assert_allclose(predict(method, whole(split)).numpy(), expected, rtol=0, atol=1e-5)


def test_ridge_never_predicts_a_class_that_training_lacks(many: dict[str, Split]) -> None:
    split = many["classification"]
    split = replace(split, labels=split.labels.clamp(max=1))  # type: ignore[union-attr]
    logits = predict(build("ridge", split, "classification"), whole(split))
    torch.testing.assert_close(logits[:, 2], -torch.ones(len(split)), **CLOSE)
    assert (logits.argmax(1) < 2).all()


def test_ridge_ignores_a_feature_that_training_holds_constant(many: dict[str, Split]) -> None:
    still, other = (with_first_audio_feature(many["regression"], value) for value in (0.1, 9.0))
    method = build("ridge", still)
    assert torch.equal(predict(method, whole(still)), predict(method, whole(other)))


def with_first_audio_feature(split: Split, value: float) -> Split:
    audio = split.features["audio"].values.clone()
    audio[:, 0] = value
    return replace(split, features={**split.features, "audio": replace(split.features["audio"], values=audio)})


@pytest.mark.parametrize("method", [Majority, Ridge])
def test_floors_train_nothing(method: type[Method]) -> None:
    assert not list(method(Inputs(DIMS), REGRESSION, method.Config()).parameters())
