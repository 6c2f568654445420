"""The training loop: what it selects, that it uses every clip, that it repeats and resumes bit by bit."""

from __future__ import annotations

import copy
import math
import shutil
from dataclasses import replace
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kit import TOY, tiny_dataset
from torch import nn

from harness import seeds
from harness.data import batches as batches_module
from harness.data.batches import by_length, gather, in_order, shuffled
from harness.data.schema import Dataset, Split, Task
from harness.data.splits import Fold, cut
from harness.errors import ConfigError
from harness.experiments.plugins import load_file
from harness.training import Batch, Inputs, Method, MethodConfig, Output, Training
from harness.training import loop as loop_module
from harness.training.contract import methods
from harness.training.loop import Diverged, Run, build, predict, train
from harness.training.schedules import cosine

load_file(TOY)
TASK = Task(kind="regression", low=-3, high=3)
INPUTS = Inputs({"text": 6, "audio": 3})


@pytest.fixture(scope="module")
def parts() -> Any:
    return cut(tiny_dataset(), Fold())


def fit(parts: Any, seed: int = 1, resume: Any = None, after: Any = lambda run: None, **settings: Any) -> Run:
    config = methods["toy"].Config(training=Training(**{"batch_size": 16, "max_epochs": 6, "patience": 6, **settings}))
    method = build(methods["toy"], INPUTS, TASK, config, seed)
    return train(method, parts["train"], parts["valid"], TASK, config, seed, resume=resume, after_epoch=after)


def test_a_run_repeats_bit_by_bit_and_depends_on_its_seed(parts: Any) -> None:
    first, again, other = fit(parts), fit(parts), fit(parts, seed=2)
    assert first.history == again.history
    assert all(torch.equal(a, b) for a, b in zip(first.method.parameters(), again.method.parameters(), strict=True))
    assert first.history != other.history


def test_other_random_draws_in_between_shift_no_stream(parts: Any) -> None:
    plain = fit(parts)
    noisy = fit(parts, after=lambda run: (torch.rand(17), np.random.default_rng().random(3)))
    assert plain.history == noisy.history


@pytest.mark.parametrize("schedule", ["constant", "plateau", "cosine", "milestones"])
@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_run_resumed_after_any_epoch_ends_with_the_same_bits(parts: Any, schedule: str, stop: int) -> None:
    options: dict[str, Any] = {
        "schedule": schedule,
        "plateau_patience": 0,
        "warmup": 0.2,
        "milestones": (2, 4),
        "accumulate": 2,
        "optimiser": "adamw",
        "weight_decay": 0.01,
    }
    states: list[Any] = []

    def keep(run: Run) -> None:
        if len(run.history) == stop:
            states.append(copy.deepcopy(run.state()))

    whole = fit(parts, after=keep, **options)
    resumed = fit(parts, resume=states[0], **options)
    assert whole.history == resumed.history
    assert whole.best_epoch == resumed.best_epoch
    assert all(torch.equal(a, b) for a, b in zip(whole.method.parameters(), resumed.method.parameters(), strict=True))


def test_the_weights_kept_are_those_of_the_lowest_validation_loss(parts: Any) -> None:
    run = fit(parts, max_epochs=12, learning_rate=0.05)
    losses = [epoch.valid_loss for epoch in run.history]
    assert run.best_epoch == int(np.argmin(losses)) + 1
    predictions = predict(run.method, parts["valid"], run.settings)
    assert float((predictions - parts["valid"].labels).abs().mean()) == pytest.approx(min(losses), abs=1e-6)


def test_training_stops_when_patience_runs_out(parts: Any) -> None:
    run = fit(parts, max_epochs=200, patience=3, learning_rate=0.1)
    assert len(run.history) == min(200, run.best_epoch + 3)


@pytest.mark.parametrize("size", [7, 16, 100])
def test_validation_loss_does_not_depend_on_the_batch_size(parts: Any, size: int) -> None:
    method = build(methods["toy"], INPUTS, TASK, methods["toy"].Config(), 3)
    predictions = predict(method, parts["valid"], Training(batch_size=size))
    reference = predict(method, parts["valid"], Training(batch_size=1))
    torch.testing.assert_close(predictions, reference, rtol=0, atol=1e-6)


class Probe(Method):
    """A linear model without randomness that notes every clip it was trained on."""

    separable = True

    def __init__(self, inputs: Inputs, task: Task, config: MethodConfig) -> None:
        super().__init__(inputs, task, config)
        self.linear = nn.Linear(inputs.dims["text"], 1)
        nn.init.zeros_(self.linear.weight)
        self.seen: list[int] = []

    def forward(self, batch: Batch) -> Output:
        if self.training:
            self.seen += batch.position.tolist()
        return Output(self.linear(batch.mean("text")).squeeze(1))


def one_epoch(parts: Any, **settings: Any) -> Probe:
    config = MethodConfig(task_loss="mse", training=Training(optimiser="sgd", max_epochs=1, learning_rate=0.1, **settings))
    method = build(Probe, INPUTS, TASK, config, 5)
    train(method, parts["train"], parts["valid"], TASK, config, 5)
    assert isinstance(method, Probe)
    return method


@pytest.mark.parametrize("accumulate", [1, 2, 3, 50])
def test_gradient_accumulation_loses_no_clip(parts: Any, accumulate: int) -> None:
    method = one_epoch(parts, batch_size=8, accumulate=accumulate)
    assert sorted(method.seen) == list(range(len(parts["train"])))


class Drawing(Probe):
    """Notes a number drawn in every training batch."""

    def __init__(self, inputs: Inputs, task: Task, config: MethodConfig) -> None:
        super().__init__(inputs, task, config)
        self.draws: list[float] = []

    def forward(self, batch: Batch) -> Output:
        if self.training:
            self.draws.append(float(torch.rand(())))
        return super().forward(batch)


def several_epochs(kind: type[Method], parts: Any, **settings: Any) -> Run:
    config = MethodConfig(task_loss="mse", training=Training(optimiser="sgd", **settings))
    return train(build(kind, INPUTS, TASK, config, 5), parts["train"], parts["valid"], TASK, config, 5)


def test_every_epoch_trains_on_all_clips_in_an_order_and_with_draws_of_its_own(parts: Any) -> None:
    method = several_epochs(Drawing, parts, batch_size=1000, max_epochs=3).method
    assert isinstance(method, Drawing)
    clips = len(parts["train"])
    orders = [method.seen[start : start + clips] for start in range(0, len(method.seen), clips)]
    assert [sorted(order) for order in orders] == [list(range(clips))] * 3
    assert all(a != b for a, b in combinations(orders, 2))
    streams = [torch.Generator().manual_seed(seeds.derive(5, "dropout", epoch)) for epoch in (1, 2, 3)]
    assert method.draws == [float(torch.rand((), generator=stream)) for stream in streams]


def test_of_epochs_with_equal_validation_loss_the_first_is_kept(parts: Any) -> None:
    run = several_epochs(Probe, parts, learning_rate=1e-30, max_epochs=50, patience=3)  # too small a rate to move a prediction
    assert len({epoch.valid_loss for epoch in run.history}) == 1
    assert run.best_epoch == 1 and len(run.history) == 4


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_cosine_falls_to_zero_with_the_last_step(parts: Any, accumulate: int) -> None:
    run = several_epochs(Probe, parts, batch_size=7, accumulate=accumulate, max_epochs=4, learning_rate=0.01, schedule="cosine", warmup=0.1)
    steps = math.ceil(len(shuffled(parts["train"], 7, 5, 0)) / accumulate)
    expected = [0.01 * cosine(epoch * steps, total=4 * steps, warmup=0.1) for epoch in range(5)]
    rates = [*(epoch.learning_rate for epoch in run.history), run.optimiser.param_groups[0]["lr"]]
    assert rates == pytest.approx(expected, abs=1e-12) and rates[-1] == pytest.approx(0, abs=1e-12)


def test_accumulating_all_batches_is_one_step_on_the_whole_split(parts: Any) -> None:
    accumulated = one_epoch(parts, batch_size=7, accumulate=100)
    whole = one_epoch(parts, batch_size=1000)
    torch.testing.assert_close(accumulated.linear.weight, whole.linear.weight, rtol=1e-5, atol=1e-6)


def test_one_step_equals_the_gradient_by_hand(parts: Any) -> None:
    method = one_epoch(parts, batch_size=1000)
    split = parts["train"]
    x, y = split.means("text").double().numpy(), split.labels.double().numpy()
    fresh = build(Probe, INPUTS, TASK, MethodConfig(), 5)
    assert isinstance(fresh, Probe)
    residual = fresh.linear.bias.item() - y  # the weights start at zero
    expected = -0.1 * 2 * (x * residual[:, None]).mean(0)
    np.testing.assert_allclose(method.linear.weight.detach().numpy()[0], expected, rtol=1e-4, atol=1e-6)


def test_the_logged_training_loss_weighs_clips_not_batches(parts: Any) -> None:
    config = MethodConfig(task_loss="mse", training=Training(optimiser="sgd", max_epochs=1, learning_rate=1e-12, batch_size=16))
    method = build(Probe, INPUTS, TASK, config, 5)
    run = train(method, parts["train"], parts["valid"], TASK, config, 5)
    loss = (predict(method, parts["train"], config.training) - parts["train"].labels).square().mean()
    assert run.history[0].losses["task"] == pytest.approx(float(loss), rel=1e-5)
    assert run.history[0].train_loss == pytest.approx(float(loss), rel=1e-5)


def test_auxiliary_losses_enter_with_their_weight(parts: Any) -> None:
    run = fit(parts, max_epochs=1)
    epoch = run.history[0]
    assert epoch.train_loss == pytest.approx(epoch.losses["task"] + 0.01 * epoch.losses["size"], rel=1e-5)


def test_a_loss_without_a_weight_is_an_error(parts: Any) -> None:
    class Unweighted(Probe):
        def forward(self, batch: Batch) -> Output:
            output = super().forward(batch)
            return Output(output.prediction, losses={"extra": output.prediction.mean()})

    method = build(Unweighted, INPUTS, TASK, MethodConfig(), 1)
    with pytest.raises(ConfigError, match="extra"):
        train(method, parts["train"], parts["valid"], TASK, MethodConfig(), 1)


def test_a_loss_that_is_not_finite_ends_the_trial_as_diverged(parts: Any) -> None:
    config = methods["toy"].Config(trouble="nan")
    method = build(methods["toy"], INPUTS, TASK, config, 1)
    with pytest.raises(Diverged, match="epoch 1"):
        train(method, parts["train"], parts["valid"], TASK, config, 1)


def test_training_code_sees_the_test_split_without_labels(parts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Split] = []
    original = loop_module.in_order

    def spy(split: Split, size: int) -> Any:
        seen.append(split)
        return original(split, size)

    monkeypatch.setattr(loop_module, "in_order", spy)
    predict(build(methods["toy"], INPUTS, TASK, methods["toy"].Config(), 1), parts["test"], Training())
    assert [split.labels for split in seen] == [None]


@pytest.mark.parametrize("clip", [{"clip_norm": 0.01}, {"clip_value": 0.001}])
def test_clipping_bounds_the_step(parts: Any, clip: dict[str, float]) -> None:
    method = one_epoch(parts, batch_size=1000, **clip)
    step = method.linear.weight.detach().abs() / 0.1
    if "clip_norm" in clip:
        assert float(step.norm()) <= 0.01 + 1e-7
    else:
        assert float(step.max()) == pytest.approx(0.001, rel=1e-5)


def test_both_ways_of_clipping_apply_at_once(parts: Any) -> None:
    free = one_epoch(parts, batch_size=1000).linear.weight.detach().abs() / 0.1
    by_value = one_epoch(parts, batch_size=1000, clip_norm=1e6, clip_value=0.001).linear.weight.detach().abs() / 0.1
    by_norm = one_epoch(parts, batch_size=1000, clip_norm=0.01, clip_value=1e6).linear.weight.detach().abs() / 0.1
    assert float(free.max()) > 0.01
    assert float(by_value.max()) == pytest.approx(0.001, rel=1e-5) and float(by_norm.norm()) <= 0.01 + 1e-7


def test_amp_does_not_change_what_is_learned_much(parts: Any) -> None:
    plain, amp = fit(parts), fit(parts, amp=True)
    assert amp.history[-1].valid_loss == pytest.approx(plain.history[-1].valid_loss, rel=0.05)  # bfloat16 keeps 8 bits


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("default")  # the compiler's own deprecations are not ours
def test_compile_learns_the_same(parts: Any) -> None:
    plain, compiled = one_epoch(parts, batch_size=1000), one_epoch(parts, batch_size=1000, compile=True)
    torch.testing.assert_close(compiled.linear.weight, plain.linear.weight, rtol=1e-4, atol=1e-6)  # fused kernels round otherwise


def test_cosine_rises_to_one_and_falls_to_zero() -> None:
    values = [cosine(step, total=100, warmup=0.1) for step in range(101)]
    assert values[9] == pytest.approx(1.0) and values[0] == pytest.approx(0.1) and values[100] == pytest.approx(0, abs=1e-12)
    assert values[55] == pytest.approx(0.5) and all(a >= b for a, b in zip(values[10:], values[11:], strict=False))


def test_the_rate_falls_after_each_milestone(parts: Any) -> None:
    run = fit(parts, schedule="milestones", milestones=(2, 3, 5), milestone_factor=0.5, learning_rate=0.08)
    assert [epoch.learning_rate for epoch in run.history] == pytest.approx([0.08, 0.08, 0.04, 0.02, 0.02, 0.01])


@given(size=st.integers(1, 70), seed=st.integers(0, 10_000), epoch=st.integers(0, 50), together=st.integers(1, 9))
def test_an_epoch_holds_every_clip_once(size: int, seed: int, epoch: int, together: int) -> None:
    split = cut(DATASET, Fold())["train"]
    batches = shuffled(split, size, seed, epoch, together)
    assert sorted(torch.cat(batches).tolist()) == list(range(len(split)))
    assert size == 1 or all(len(batch) > 1 for batch in batches)
    assert all(len(batch) <= size + 1 for batch in batches)
    assert len(batches) in (math.ceil(len(split) / size), math.ceil(len(split) / size) - 1)


def test_buckets_save_padding_and_keep_batches_random() -> None:
    split = cut(DATASET, Fold())["train"]
    lengths = split.lengths("text") + split.lengths("audio")

    def padding(together: int) -> int:
        return sum(int(lengths[b].max() * len(b) - lengths[b].sum()) for b in shuffled(split, 6, 1, 1, together))

    assert padding(10) < padding(1) / 2
    first, second = ({frozenset(b.tolist()) for b in shuffled(split, 6, 1, epoch, 3)} for epoch in (1, 2))
    assert len(first & second) < len(first) / 2


def cut_cost(work: list[int], ends: tuple[int, ...]) -> int:
    return sum(batches_module.PART + (j - i) * work[j - 1] for i, j in pairwise(ends))


@given(work=st.lists(st.integers(1, 400), min_size=1, max_size=8), size=st.integers(1, 8))
def test_no_other_cut_of_sorted_clips_costs_less(work: list[int], size: int) -> None:
    work, most = sorted(work), size * max(work)
    cuts = ((0, *inner, len(work)) for n in range(len(work)) for inner in combinations(range(1, len(work)), n))
    allowed = [ends for ends in cuts if all((j - i) * work[j - 1] <= most for i, j in pairwise(ends))]
    found = tuple(batches_module._cheapest_cut(np.array(work), most))
    assert found in allowed and cut_cost(work, found) == min(cut_cost(work, ends) for ends in allowed)


@given(size=st.integers(1, 30), seed=st.integers(0, 100))
def test_parts_by_length_hold_every_clip_once_and_no_more_steps_than_the_longest_batch(size: int, seed: int) -> None:
    split = cut(DATASET, Fold())["train"]
    some = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))[: len(split) // 2]
    work = split.lengths("text") + split.lengths("audio")
    parts = by_length(split, some, size)
    assert sorted(torch.cat(parts).tolist()) == sorted(some.tolist())
    assert all(len(part) * work[part].max() <= size * work[some].max() for part in parts)
    assert all(work[a].max() <= work[b].min() for a, b in pairwise(parts))


def test_parts_by_length_change_the_batches_and_not_the_steps(parts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches_module, "PART", 1)  # so that these few short clips are cut at all
    given_, by_size = (one_epoch(parts, batch_size=7, accumulate=3, accumulate_by_length=flag) for flag in (False, True))
    assert given_.seen != by_size.seen and sorted(given_.seen) == sorted(by_size.seen)
    torch.testing.assert_close(by_size.linear.weight, given_.linear.weight, rtol=1e-5, atol=1e-6)


def test_parts_by_length_are_refused_for_a_method_that_may_join_clips(parts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Probe, "separable", False)
    with pytest.raises(ConfigError, match="accumulate_by_length = true: Probe does not declare") as caught:
        one_epoch(parts, accumulate_by_length=True)
    assert "separable = True" in str(caught.value)


DATASET: Dataset = tiny_dataset()


@given(rows=st.lists(st.integers(0, len(DATASET) - 1), min_size=1, max_size=9))
def test_gathered_clips_are_the_stored_frames_then_zeros(rows: list[int]) -> None:
    split = DATASET.rows(list(range(len(DATASET))))
    batch = gather(split, torch.tensor(rows))
    for name, ragged in DATASET.features.items():
        for i, row in enumerate(rows):
            clip, length = ragged.clip(row), int(batch.lengths[name][i])
            assert torch.equal(batch.features[name][i, :length], clip)
            assert not batch.features[name][i, length:].any()
            assert batch.mask(name)[i].sum() == length
            torch.testing.assert_close(batch.mean(name)[i], clip.mean(0))
    assert batch.labels is not None and split.labels is not None
    assert torch.equal(batch.labels, split.labels[rows])


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_what_is_applied_to_frames_is_applied_to_padded_clips(shifted: bool, weighted: bool) -> None:
    ragged = DATASET.features["text"]
    if shifted:
        ragged = replace(ragged, shift=torch.arange(ragged.dim).float(), scale=torch.full((ragged.dim,), 4.0))
    if weighted:
        ragged = ragged.weighted(0.5).without(torch.arange(len(ragged.values)) % 3 == 0)
    rows = torch.tensor([4, 0, 2])
    padded, lengths = ragged.padded(rows)
    assert lengths.tolist() == [len(ragged.clip(row)) for row in rows.tolist()]
    for clip, row, length in zip(padded, rows.tolist(), lengths.tolist(), strict=True):
        assert torch.equal(clip[:length], ragged.clip(row)) and not clip[length:].any()


def test_means_and_frames_agree_with_the_clips() -> None:
    split = DATASET.rows([5, 2, 9])
    for name, ragged in DATASET.features.items():
        clips = [ragged.clip(row) for row in (5, 2, 9)]
        assert torch.equal(split.frames(name), torch.cat(clips))
        torch.testing.assert_close(split.means(name), torch.stack([clip.mean(0) for clip in clips]))


def test_evaluation_order_is_complete_and_fixed() -> None:
    split = DATASET.rows(list(range(20)))
    orders = [torch.cat([batch.position for batch in in_order(split, 6)]).tolist() for _ in range(2)]
    assert orders[0] == orders[1] and sorted(orders[0]) == list(range(20))
