"""The focal family: definitions in double precision, the paper's own numbers, and the loop that feeds them an epoch's mistakes."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any, get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import NAMES, REGRESSION, TASKS, build, some_split, whole
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import TOY, tiny_dataset
from pydantic import ValidationError
from torch import Tensor

from harness.data.schema import Task
from harness.data.splits import Fold, cut
from harness.errors import ConfigError
from harness.experiments.plugins import load_file
from harness.nn.focal import (
    DynamicFocal,
    EpochWeighted,
    WeightedFocal,
    calibrated_focal,
    class_weights,
    error_weights,
    focal,
)
from harness.training import Inputs, MethodConfig, Training, methods
from harness.training.loop import Run, predict, train
from harness.training.loop import build as build_seeded
from harness.training.objectives import task_objective, training_objective
from harness.training.settings import TaskLoss

load_file(TOY)
EXACT = {"rtol": 1e-12, "atol": 1e-12}
CLASSES = TASKS["classification"]
FOCAL = ("focal", "weighted_focal", "calibrated_focal", "fldw")
GAMMAS = (0.0, 0.5, 1.0, 2.0, 3.0)


def clips(seed: int, count: int = 7, classes: int = 4, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(0, scale, (count, classes))), torch.from_numpy(rng.integers(0, classes, count))


def softmax(logits: Tensor) -> np.ndarray:
    shifted = logits.numpy() - logits.numpy().max(1, keepdims=True)
    return np.exp(shifted) / np.exp(shifted).sum(1, keepdims=True)


def of_label(p: np.ndarray, label: Tensor) -> np.ndarray:
    return p[np.arange(len(p)), label.numpy()]


def confusion_of(label: Tensor, predicted: Tensor, classes: int) -> np.ndarray:
    table = np.zeros((classes, classes), dtype=int)
    for row, column in zip(label.tolist(), predicted.tolist(), strict=True):
        table[row, column] += 1
    return table


# ---- one batch


@pytest.mark.parametrize("gamma", GAMMAS)
@given(seed=st.integers(0, 10_000))
@settings(deadline=None, max_examples=20)
def test_focal_is_its_definition(gamma: float, seed: int) -> None:
    logits, label = clips(seed)
    p = of_label(softmax(logits), label)
    expected = torch.from_numpy(-((1 - p) ** gamma) * np.log(p))
    torch.testing.assert_close(focal(logits, label, gamma, "none"), expected, rtol=1e-9, atol=1e-12)  # 1 - p cancels in the reference
    torch.testing.assert_close(focal(logits, label, gamma, "sum"), expected.sum(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(focal(logits, label, gamma), expected.mean(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gamma_zero_is_cross_entropy_bit_by_bit(dtype: torch.dtype) -> None:
    logits, label = clips(0, count=50)
    logits = logits.to(dtype)
    assert torch.equal(focal(logits, label, 0.0, "none"), F.cross_entropy(logits, label, reduction="none"))
    torch.testing.assert_close(DynamicFocal(4, gamma=0.0, reduction="sum")(logits, label), F.cross_entropy(logits, label, reduction="sum"))


@pytest.mark.parametrize("gamma", GAMMAS)
def test_gradients_are_right_and_finite_for_sure_predictions(gamma: float) -> None:
    """Also where p is 1 in floating point, right or wrong: there (1 - p)^gamma has no derivative if gamma < 1."""
    logits, label = clips(3, classes=3, scale=1.0)
    logits.requires_grad_()
    for loss in (
        lambda x: focal(x, label, gamma),
        lambda x: calibrated_focal(x, label, gamma),
        lambda x: calibrated_focal(x, label, gamma, "margin"),
    ):
        assert torch.autograd.gradcheck(loss, (logits,))
    sure = torch.tensor([[200.0, 0.0, -3.0], [-200.0, 100.0, 0.0]], requires_grad=True)
    for value in (
        focal(sure, torch.tensor([0, 0]), gamma),
        calibrated_focal(sure, torch.tensor([0, 0]), gamma),
        calibrated_focal(sure, torch.tensor([0, 0]), gamma, "margin"),
    ):
        (gradient,) = torch.autograd.grad(value, sure)
        assert value.isfinite() and gradient.isfinite().all()
        assert gradient[1, 0] < -0.1, "a sure mistake still pulls"


@given(seed=st.integers(0, 10_000), weight=st.floats(0, 2))
@settings(deadline=None, max_examples=30)
def test_both_readings_of_the_calibrated_loss(seed: int, weight: float) -> None:
    logits, label = clips(seed)
    p = softmax(logits)
    right = of_label(p, label)
    plain = -((1 - right) ** 2) * np.log(right)
    entropy = torch.from_numpy(plain - weight * (p * np.log(p)).sum(1))
    torch.testing.assert_close(calibrated_focal(logits, label, 2.0, "entropy", weight, "none"), entropy, rtol=1e-9, atol=1e-12)
    others = p.copy()
    others[np.arange(len(p)), label.numpy()] = -1
    margin = torch.from_numpy(-((1 - right + others.max(1)) ** 2) * np.log(right))
    torch.testing.assert_close(calibrated_focal(logits, label, 2.0, "margin", weight, "none"), margin, rtol=1e-9, atol=1e-12)


# ---- weights from a confusion matrix


def test_weights_of_the_papers_example() -> None:
    """AMCM, section 3.3.2: of 100 clips of class 3, 87 are right, 8 taken for class 5, 5 for class 2: weights 1.62 and 1.38."""
    confusion = torch.diag(torch.full((6,), 90))
    confusion[2] = torch.tensor([0, 5, 87, 0, 8, 0])
    label, predicted = torch.tensor([2, 2, 2, 2]), torch.tensor([4, 1, 2, 0])
    weights = error_weights(confusion, label, predicted)
    assert [round(weight, 2) for weight in weights.tolist()] == [1.62, 1.38, 1.0, 1.0]
    torch.testing.assert_close(weights[:2].double(), torch.tensor([1 + 8 / 13, 1 + 5 / 13], dtype=torch.float64), rtol=0, atol=1e-6)


@given(seed=st.integers(0, 10_000), classes=st.integers(2, 6), most=st.sampled_from([1, 3, 50]))
@settings(deadline=None, max_examples=60)
def test_error_weights_are_equation_18(seed: int, classes: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    confusion = rng.integers(0, most, (classes, classes))
    label, predicted = (torch.from_numpy(rng.integers(0, classes, 20)) for _ in range(2))
    found = error_weights(torch.from_numpy(confusion), label, predicted).tolist()
    for weight, true, guess in zip(found, label.tolist(), predicted.tolist(), strict=True):
        errors = confusion[true].sum() - confusion[true, true]
        assert weight == pytest.approx(1.0 if true == guess or not errors else 1 + confusion[true, guess] / errors, rel=1e-6)
        assert 1 <= weight <= 2


def test_class_weights() -> None:
    confusion = torch.tensor([[3, 1, 0], [0, 4, 0], [2, 2, 0]])  # accuracies .75, 1, 0
    torch.testing.assert_close(class_weights(confusion), torch.tensor([1.25, 1.0, 2.0]))
    torch.testing.assert_close(class_weights(confusion, "share"), torch.tensor([0.6, 0.0, 2.4]))
    for nothing in (torch.zeros(3, 3, dtype=torch.int64), torch.eye(3, dtype=torch.int64)):
        for form in ("error", "share"):
            assert torch.equal(class_weights(nothing, form), torch.ones(3)), "nothing counted, or no error: weights of 1"


# ---- over epochs


def losses_of(kind: str) -> EpochWeighted:
    return DynamicFocal(4, reduction="none") if kind == "fldw" else WeightedFocal(4, reduction="none")


@pytest.mark.parametrize("kind", ["fldw", "weighted_focal"])
def test_an_epoch_is_weighed_by_the_one_before(kind: str) -> None:
    loss = losses_of(kind)
    epochs = [[clips(10 * epoch + batch, count=9) for batch in range(3)] for epoch in range(3)]
    before = np.zeros((4, 4), dtype=int)
    for epoch in epochs:
        counted = np.zeros((4, 4), dtype=int)
        for logits, label in epoch:
            predicted = logits.argmax(1)
            counted += confusion_of(label, predicted, 4)
            matrix = torch.from_numpy(before)
            weights = error_weights(matrix, label, predicted) if kind == "fldw" else class_weights(matrix)[label]
            torch.testing.assert_close(loss(logits, label), weights.double() * focal(logits, label, reduction="none"), **EXACT)
        loss.end_epoch()
        before = counted
        assert np.array_equal(loss.previous.numpy(), before) and not loss.counted.any()
    assert before.sum() == 27


@pytest.mark.parametrize("kind", ["fldw", "weighted_focal"])
def test_a_weight_is_a_constant_and_evaluation_has_none(kind: str) -> None:
    loss = losses_of(kind)
    loss.previous.copy_(torch.tensor([[3, 1, 2, 0], [1, 1, 1, 1], [0, 5, 2, 0], [4, 0, 0, 1]]))
    logits, label = clips(5, count=30)
    logits.requires_grad_()
    with torch.no_grad():
        weights = loss(logits, label) / focal(logits, label, reduction="none")
    assert weights.unique().numel() > 2
    found = torch.autograd.grad(loss(logits, label).sum(), logits)[0]
    plain = torch.autograd.grad(focal(logits, label, reduction="sum"), logits)[0]
    torch.testing.assert_close(found, weights[:, None] * plain, rtol=1e-6, atol=1e-12)  # weights are divided out in float32
    counted = loss.counted.clone()
    assert torch.equal(loss.eval()(logits, label), focal(logits, label, reduction="none"))
    assert torch.equal(loss.counted, counted)


# ---- as settings of any classifier


def config(**changed: Any) -> MethodConfig:
    return MethodConfig.model_validate(changed)


def test_names_give_the_losses() -> None:
    logits, label = clips(2, classes=3)
    expected = {
        "cross_entropy": F.cross_entropy(logits, label, reduction="sum"),
        "focal": focal(logits, label, 1.0, "sum"),
        "weighted_focal": focal(logits, label, 1.0, "sum"),
        "calibrated_focal": calibrated_focal(logits, label, 1.0, "entropy", 0.3, "sum"),
        "fldw": focal(logits, label, 1.0, "sum"),
    }
    assert {"l1", "mse", *expected} == set(get_args(TaskLoss))
    for name, value in expected.items():
        settings = config(task_loss=name, focal={"gamma": 1.0, "entropy_weight": 0.3})
        torch.testing.assert_close(task_objective(settings, CLASSES)(logits, label), value, **EXACT)
        torch.testing.assert_close(training_objective(settings, CLASSES)(logits, label), value, **EXACT)  # no epoch before it
    margin = task_objective(config(task_loss="calibrated_focal", focal={"calibration": "margin"}), CLASSES)
    torch.testing.assert_close(margin(logits, label), calibrated_focal(logits, label, 2.0, "margin", reduction="sum"), **EXACT)


def test_training_objectives_have_their_settings() -> None:
    dynamic = training_objective(config(task_loss="fldw", focal={"gamma": 0.5}), CLASSES)
    assert isinstance(dynamic, DynamicFocal) and (dynamic.gamma, len(dynamic.previous)) == (0.5, 3)
    weighted = training_objective(config(task_loss="weighted_focal", focal={"class_weight": "share"}), CLASSES)
    assert isinstance(weighted, WeightedFocal) and weighted.form == "share"
    for name in ("cross_entropy", "focal", "calibrated_focal", None):
        assert not isinstance(training_objective(config(task_loss=name), CLASSES), torch.nn.Module)


@pytest.mark.parametrize("name", FOCAL)
def test_intensities_have_no_focal_loss(name: str) -> None:
    for objective in (task_objective, training_objective):
        with pytest.raises(ConfigError, match=f"'{name}' does not fit a regression task"):
            objective(config(task_loss=name), REGRESSION)
    with pytest.raises(ValidationError, match="gamma"):
        config(focal={"gamma": -1.0})


@pytest.mark.parametrize("loss", FOCAL)
@pytest.mark.parametrize("name", NAMES)
def test_every_method_takes_every_loss(name: str, loss: str) -> None:
    """A loss that is not the default, on the method's own configuration class, which may override ``task_loss``."""
    settings = methods[name].Config(task_loss=loss)
    logits, label = clips(4, classes=3)
    found = task_objective(settings, CLASSES)(logits, label)
    torch.testing.assert_close(found, task_objective(config(task_loss=loss), CLASSES)(logits, label), **EXACT)


@pytest.mark.parametrize("name", ["self_mm", "dmd", "dlf"])
def test_further_heads_have_the_same_loss(name: str) -> None:
    """Methods that put the task's loss on branches of their own: the losses move with the setting."""
    split = some_split("classification")
    found = {}
    for loss in ("cross_entropy", "focal"):
        torch.manual_seed(1)
        found[loss] = sum(build(name, split, "classification", task_loss=loss)(whole(split)).losses.values())
    assert not torch.allclose(*found.values())


# ---- in the loop


@cache
def parts() -> Any:
    return cut(tiny_dataset(classes=("a", "b", "c")), Fold())


TASK = Task(kind="classification", classes=("a", "b", "c"))


def fit(loss: str, epochs: int = 4, resume: Any = None, after: Any = lambda run: None, **changed: Any) -> Run:
    settings = methods["toy"].Config(
        task_loss=loss, training=Training(batch_size=16, max_epochs=epochs, patience=epochs, learning_rate=0.02), **changed
    )
    method = build_seeded(methods["toy"], Inputs({"text": 6, "audio": 3}), TASK, settings, 1)
    return train(method, parts()["train"], parts()["valid"], TASK, settings, 1, resume=resume, after_epoch=after)


@pytest.mark.parametrize("loss", ["weighted_focal", "fldw"])
def test_the_first_epoch_is_the_focal_loss_and_the_second_is_not(loss: str) -> None:
    plain, weighted = fit("focal").history, fit(loss).history
    assert plain[0] == weighted[0]
    assert plain[1].train_loss < weighted[1].train_loss, "weights are at least 1"


@pytest.mark.parametrize("loss", ["weighted_focal", "fldw"])
def test_the_loop_counts_every_training_clip_once_an_epoch(loss: str) -> None:
    counts: list[Tensor] = []
    fit(loss, after=lambda run: counts.append(run.objective.previous.clone()))
    labels = parts()["train"].labels
    for table in counts:
        assert torch.equal(table.sum(1), torch.bincount(labels, minlength=3))
    assert any(not torch.equal(first, later) for first, later in zip(counts, counts[1:], strict=False))


def test_epochs_are_selected_by_a_loss_without_weights() -> None:
    run = fit("fldw")
    valid = parts()["valid"]
    best = focal(predict(run.method, valid, run.settings), valid.labels)
    assert min(epoch.valid_loss for epoch in run.history) == pytest.approx(float(best), rel=1e-6)


@pytest.mark.parametrize("stop", [1, 2, 3])
@pytest.mark.parametrize("loss", ["weighted_focal", "fldw"])
def test_a_run_resumed_after_any_epoch_ends_with_the_same_bits(loss: str, stop: int) -> None:
    states: list[Any] = []

    def keep(run: Run) -> None:
        if len(run.history) == stop:
            states.append(copy.deepcopy(run.state()))

    whole_run, resumed = fit(loss, after=keep), fit(loss, resume=states[0])
    assert whole_run.history == resumed.history
    assert all(torch.equal(a, b) for a, b in zip(whole_run.method.parameters(), resumed.method.parameters(), strict=True))
    states[0]["objective"]["previous"].zero_()
    assert fit(loss, resume=states[0]).history != whole_run.history, "the weights are part of the state"


def test_a_checkpoint_with_weights_loads_without_running_code(tmp_path: Any) -> None:
    run = fit("fldw", epochs=1)
    torch.save(run.state(), tmp_path / "state.pt")
    stored = torch.load(tmp_path / "state.pt", weights_only=True)
    assert torch.equal(stored["objective"]["previous"], run.objective.previous)  # type: ignore[union-attr]
