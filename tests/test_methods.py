"""Properties that every registered method has, whatever it computes."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers import (
    CLASSIFIERS,
    CLOSE,
    DIMS,
    KINDS,
    NAMES,
    SUBSETS,
    TASKS,
    build,
    build_or_refusal,
    fitted,
    merged,
    predict,
    random_split,
    some_split,
    usual,
    whole,
    without_dropout,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from harness.data.batches import Batch, gather
from harness.data.schema import MODALITIES
from harness.nn import dropout
from harness.training import Method, Output, methods
from harness.training.dead import GradientWatch
from harness.training.objectives import task_objective

# Parameters that no gradient moves within two steps, by method: regular expression -> why that is right.
UNMOVED: dict[str, dict[str, str]] = {
    "self_mm": {
        r"branches\.(text|audio|vision)\..*": "in its first two epochs a clip's unimodal labels are its own, and their losses weigh nothing"
    },
    "msaf": {r"attention\.\d\.squeeze\.bias": "a bias before batch norm, as published"},
    "merc": {
        r"(pool\.(text|audio)\.score\..*|meet\.\w+_(text|audio)\.inward\.bias)": "32 frames of sound are one step, the only one to look at"
    },
}


def longer(batch: Batch, frames: int = 7) -> Batch:
    return replace(batch, features={name: F.pad(x, (0, 0, 0, frames)) for name, x in batch.features.items()})


def moved(batch: Batch, **where: Any) -> Batch:
    """``batch`` in another dtype, or lengths too on another device."""
    lengths = {name: x.to(where["device"]) if "device" in where else x for name, x in batch.lengths.items()}
    return replace(batch, features={name: x.to(**where) for name, x in batch.features.items()}, lengths=lengths)


def total_loss(output: Output, batch: Batch, method: Method, kind: str) -> Tensor:
    assert batch.labels is not None
    task = task_objective(method.Config(), TASKS[kind])(output.prediction, batch.labels)
    return task + sum(output.losses.values(), torch.zeros(()))


@pytest.mark.parametrize("name", NAMES)
@given(lengths=st.lists(st.tuples(*[st.integers(1, 20)] * 3), min_size=2, max_size=5), data=st.data())
@settings(deadline=None, max_examples=12)
def test_prediction_depends_on_its_clip_alone(name: str, lengths: list[tuple[int, int, int]], data: st.DataObject) -> None:
    """Not on padding, on the other clips of the batch, on their number or on their order."""
    split = random_split(dict(zip(MODALITIES, map(list, zip(*lengths, strict=True)), strict=True)), DIMS, seed=2)
    method, batch = fitted(name), whole(split)
    together = predict(method, batch)
    torch.testing.assert_close(predict(method, longer(batch)), together, **CLOSE)
    order = torch.tensor(data.draw(st.permutations(range(len(split)))))
    torch.testing.assert_close(predict(method, gather(split, order)), together[order], **CLOSE)
    alone = [predict(method, gather(split, torch.tensor([i]))) for i in range(len(split))]
    torch.testing.assert_close(torch.cat(alone), together, **CLOSE)


@pytest.mark.parametrize("name", [name for name in NAMES if methods[name].separable])
def test_the_gradient_of_a_separable_method_is_the_sum_over_its_clips(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In training mode, where batch statistics would show, with nothing dropped."""
    monkeypatch.setattr(dropout, "draw", lambda like, p: (torch.zeros_like(like, dtype=torch.int8), 1, 1.0))
    split = some_split()
    method = without_dropout(build(name, split)).train()
    clips = [torch.tensor([i]) for i in range(len(split))]

    def gradient(parts: list[Tensor]) -> list[Tensor]:
        loss = torch.zeros(())
        for batch in (gather(split, part) for part in parts):
            output = method(batch)
            auxiliary = sum(output.losses.values(), torch.zeros(()))  # means over the batch; the task's loss is a sum
            loss = loss + total_loss(output, batch, method, "regression") + (len(batch) - 1) * auxiliary
        return list(torch.autograd.grad(loss, list(method.parameters()), allow_unused=True, materialize_grads=True))

    for together, apart in zip(gradient([torch.cat(clips)]), gradient(clips), strict=True):
        torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("modalities", SUBSETS, ids="+".join)
@pytest.mark.parametrize("name", NAMES)
def test_every_subset_of_modalities_and_every_task(name: str, modalities: tuple[str, ...], kind: str) -> None:
    """Shapes, names of losses and representations."""
    split = some_split(kind, modalities)
    method, batch = build_or_refusal(name, split, kind), whole(split)
    if method is None:
        assert len(modalities) < len(MODALITIES) or name in CLASSIFIERS
        return
    output = method(batch)
    assert output.prediction.shape == ((len(split),) if kind == "regression" else (len(split), 3))
    assert set(output.losses) == set(type(method.Config().weights).model_fields)
    assert all(loss.shape == () and loss.isfinite() for loss in output.losses.values())
    assert all(x.ndim == 2 and len(x) == len(split) for x in output.representations.values())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("modalities", SUBSETS, ids="+".join)
@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_reaches_every_parameter_within_two_steps(name: str, modalities: tuple[str, ...], kind: str) -> None:
    split = some_split(kind, modalities)
    # An odd number of clips: the signs of absolute errors of an even one can cancel, and no gradient is left.
    method, batch = build_or_refusal(name, split, kind), gather(split, torch.arange(len(split) - 1))
    trained = [] if method is None else [parameter for parameter in method.parameters() if parameter.requires_grad]
    if method is None or not trained:
        return
    watch, optimiser = GradientWatch(method), torch.optim.SGD(trained, lr=1e-2)
    for _ in range(2):
        optimiser.zero_grad()
        total_loss(method(batch), batch, method, kind).backward()
        watch.look()
        optimiser.step()
    assert not [key for key in watch.unmoved if not any(re.fullmatch(pattern, key) for pattern in UNMOVED.get(name, {}))]


@pytest.mark.parametrize("clips", [1, 2])
@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_smallest_training_batches_are_finite(name: str, clips: int, frames: int) -> None:
    kind = usual(name)
    split = random_split({modality: [frames] * clips for modality in MODALITIES}, DIMS, seed=3, classes=3 if name in CLASSIFIERS else None)
    method, batch = build(name, some_split(kind), kind), whole(split)
    output = method(batch)
    assert output.prediction.shape == ((clips,) if kind == "regression" else (clips, 3))
    loss = total_loss(output, batch, method, kind)
    if loss.requires_grad:
        loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_method(name: str) -> None:
    split = some_split(usual(name))
    first, second, other = (build(name, split, usual(name), seed=seed) for seed in (5, 5, 6))
    states = [method.state_dict() for method in (first, second, other)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    batch, outputs = whole(split), []
    for method in (first, second):
        torch.manual_seed(9)
        outputs.append(method.train()(batch).prediction)
    assert torch.equal(*outputs)
    if any(True for _ in first.parameters()):
        assert any(not torch.equal(states[0][key], states[2][key]) for key in states[0])


@pytest.mark.parametrize("name", NAMES)
def test_state_can_be_stored_and_loaded(name: str) -> None:
    split = some_split(usual(name))
    source, target = fitted(name), build(name, replace(split, labels=split.labels.flip(0)), usual(name), seed=7)  # type: ignore[union-attr]
    target.load_state_dict(source.state_dict())
    assert torch.equal(predict(target.eval(), whole(split)), predict(source, whole(split)))


@pytest.mark.parametrize("name", NAMES)
def test_dtype_and_device_of_the_input_rule(name: str) -> None:
    """No tensor is made in a dtype or on a device of its own: double and ``meta`` would not mix with the default."""
    split = some_split(usual(name))
    batch = whole(split)
    method = build(name, split, usual(name)).double()
    assert predict(method.eval(), moved(batch, dtype=torch.float64)).dtype == torch.float64
    abroad = build(name, split, usual(name)).to("meta")
    for mode in (abroad.eval(), abroad.train()):
        assert mode(moved(batch, device="meta")).prediction.device.type == "meta"


@pytest.mark.parametrize("name", NAMES)
def test_configuration_is_checked(name: str) -> None:
    config = methods[name].Config
    with pytest.raises(ValidationError, match="no_such_setting"):
        config.model_validate({"no_such_setting": 1})
    assert config.model_validate(config().model_dump()) == config()
    assert methods[name].reference


@pytest.mark.parametrize("name", NAMES)
def test_presets_are_valid_and_complete(name: str) -> None:
    """Read alone or laid over the defaults, a preset means the same: no nested setting falls to another class's default."""
    config = methods[name].Config
    for preset in methods[name].presets.values():
        assert config.model_validate(merged(config().model_dump(), preset)) == config.model_validate(preset)
