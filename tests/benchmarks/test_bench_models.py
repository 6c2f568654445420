"""MulT and TFN against plain implementations of the same models: equal loss curves, and training steps as a ratio in one run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers import REGRESSION, random_split
from plain_mult import PlainEncoder, PlainMulT, hidden_keys
from plain_tfn import PlainTFN
from ratios import ratio, saved_bytes
from torch import Tensor, nn

from baselines.mult import MulT
from baselines.tfn import TFN
from harness.data.batches import Batch, by_length, gather
from harness.data.schema import Split
from harness.nn.attention import Dropouts, Encoder, attention_mask
from harness.training import Inputs, Method, loop

STEPS = 20
WIDTHS = {"text": 768, "audio": 5, "vision": 20}


def clips(count: int, longest: dict[str, int], dims: dict[str, int], aligned: bool = False) -> Split:
    """``count`` clips of uniformly drawn lengths from a tenth of the longest on, about half of a batch's steps padding."""
    rng = torch.Generator().manual_seed(0)
    drawn = {name: torch.randint(max(most // 10, 1), most + 1, (count,), generator=rng).tolist() for name, most in longest.items()}
    lengths = dict.fromkeys(drawn, drawn["text"]) if aligned else drawn
    return random_split(lengths, dims, seed=0)


# ---- loss curves


def double(split: Split) -> Split:
    return replace(split, features={name: replace(ragged, values=ragged.values.double()) for name, ragged in split.features.items()})


def curve(method: Method, config: Any, split: Split) -> Tensor:
    """Training losses of ``STEPS`` optimiser steps by the library's loop; a step takes all of ``split``, so each epoch is one step."""
    run = loop.train(method.double(), split, split, REGRESSION, config, seed=1)
    return torch.tensor([epoch.train_loss for epoch in run.history], dtype=torch.float64)


def plain_curve(model: nn.Module, config: Any, split: Split) -> Tensor:
    """The same losses by the plain model, Adam and a loop of three lines; clips in their own order, as one padded batch."""
    model.double().train()
    batch, losses = gather(split, torch.arange(len(split))), []
    adam = torch.optim.Adam(model.parameters(), lr=config.training.learning_rate)
    for _ in range(STEPS):
        adam.zero_grad()
        loss = F.l1_loss(model(batch.features, batch.lengths), batch.labels.double())  # type: ignore[union-attr]
        loss.backward()
        if config.training.clip_value:
            nn.utils.clip_grad_value_(model.parameters(), config.training.clip_value)
        adam.step()
        losses.append(loss.detach())
    return torch.stack(losses)


def test_mults_loss_curve_is_the_plain_models() -> None:
    """Packed steps, parts of like length and both kinds of attention change nothing: lengths lie on both sides of 64 keys."""
    split = double(clips(32, {"text": 20, "audio": 40, "vision": 90}, {"text": 12, "audio": 5, "vision": 7}))
    none = {"attention_dropout": {"text": 0.0, "audio": 0.0, "vision": 0.0}, "memory_dropout": 0.0, "text_dropout": 0.0}
    training = MulT.Config().training.model_copy(update={"batch_size": 4, "max_epochs": STEPS, "patience": STEPS, "standardise": ()})
    config = MulT.Config(width=12, heads=3, layers=2, embedding_dropout=0.0, output_dropout=0.0, training=training, **none)
    ours = loop.build(MulT, Inputs({name: ragged.dim for name, ragged in split.features.items()}), REGRESSION, config, seed=1)
    expected = plain_curve(PlainMulT(ours), config, split)  # type: ignore[arg-type]
    found = curve(ours, config, split)
    assert expected[-1] < 0.9 * expected[0], "the curve does not move"
    torch.testing.assert_close(found, expected, rtol=2e-6, atol=0)  # the loop takes losses of predictions in single precision


def test_tfns_loss_curve_is_the_plain_models() -> None:
    split = double(clips(24, {"text": 20, "audio": 30, "vision": 40}, {"text": 40, "audio": 5, "vision": 7}))
    none = {"dropout": {"text": 0.0, "audio": 0.0, "vision": 0.0}, "post_fusion_dropout": 0.0}
    training = TFN.Config().training.model_copy(update={"batch_size": 24, "max_epochs": STEPS, "patience": STEPS, "standardise": ()})
    config = TFN.Config(hidden={"text": 8, "audio": 32, "vision": 96}, text_out=6, training=training, **none)
    ours = loop.build(TFN, Inputs({name: ragged.dim for name, ragged in split.features.items()}), REGRESSION, config, seed=1)
    expected = plain_curve(PlainTFN(ours), config, split)  # type: ignore[arg-type]
    found = curve(ours, config, split)
    assert expected[-1] < 0.9 * expected[0], "the curve does not move"
    torch.testing.assert_close(found, expected, rtol=2e-6, atol=0)


# ---- times


def ours_step(method: Method, batches: list[Batch]) -> Callable[[], object]:
    """Forward and backward pass over ``batches`` that share one gradient."""
    total = sum(map(len, batches))

    def call() -> None:
        for batch in batches:
            F.l1_loss(method(batch).prediction, batch.labels, reduction="sum").div(total).backward()  # type: ignore[arg-type, no-untyped-call]
        method.zero_grad(set_to_none=True)

    return call


def plainly(model: nn.Module, batch: Batch) -> Tensor:
    return model(batch.features, batch.lengths)  # type: ignore[no-any-return]


def plain_step(model: nn.Module, batches: list[Batch]) -> Callable[[], object]:
    total = sum(map(len, batches))

    def call() -> None:
        for batch in batches:
            F.l1_loss(plainly(model, batch), batch.labels, reduction="sum").div(total).backward()  # type: ignore[arg-type, no-untyped-call]
        model.zero_grad(set_to_none=True)

    return call


def test_crossmodal_encoder_is_faster(benchmark: Any) -> None:
    """Text of 50 words looks at 375 sounds, MulT's widths and rates. 1.9 times; what is asserted leaves room for a busy machine."""
    torch.manual_seed(0)
    ours = Encoder(50, 10, 4, Dropouts(attention=0.2, embedding=0.2))
    plain = PlainEncoder(ours)
    lengths, others = torch.randint(5, 51, (16,)), torch.randint(20, 376, (16,))
    target, source = torch.randn(16, 50, 50), torch.randn(16, 375, 50)
    mask, hidden = attention_mask(target, source, lengths, others, causal=True), hidden_keys(50, 375, lengths, others)

    def fast() -> None:
        ours(target, source, mask, lengths, others).sum().backward()

    def slow() -> None:
        plain(target, source, hidden).sum().backward()

    benchmark.extra_info["times faster"] = faster = ratio(slow, fast, rounds=10)
    benchmark.pedantic(fast, rounds=5)
    assert faster >= 1.3


def test_mults_step_is_faster(benchmark: Any) -> None:
    """64 aligned clips: the library's parts of like length against four batches of 16. Twice as fast."""
    split = clips(64, dict.fromkeys(WIDTHS, 50), WIDTHS, aligned=True)
    config = MulT.Config()
    ours = loop.build(MulT, Inputs(WIDTHS), REGRESSION, config, seed=1).train()
    plain = PlainMulT(ours).train()  # type: ignore[arg-type]
    size = config.training.batch_size
    parts = [gather(split, part) for part in by_length(split, torch.randperm(64), size)]
    batches = [gather(split, part) for part in torch.randperm(64).split(size)]
    fast = ours_step(ours, parts)
    benchmark.extra_info["times faster"] = faster = ratio(plain_step(plain, batches), fast, rounds=2, warm_up=1)
    benchmark.pedantic(fast, rounds=1)
    assert faster >= 1.4


def test_tfns_step_is_faster_and_keeps_less(benchmark: Any) -> None:
    """1.4 times; beside the parameters, an eighth of the bytes."""
    split = clips(32, {"text": 50, "audio": 375, "vision": 500}, WIDTHS)
    config = TFN.Config()
    ours = loop.build(TFN, Inputs(WIDTHS), REGRESSION, config, seed=1).train()
    plain = PlainTFN(ours).train()  # type: ignore[arg-type]
    batch = gather(split, torch.arange(32))
    fast = ours_step(ours, [batch])
    benchmark.extra_info["times faster"] = faster = ratio(plain_step(plain, [batch]), fast, rounds=10)
    kept = saved_bytes(lambda: ours(batch), *ours.parameters()), saved_bytes(lambda: plainly(plain, batch), *plain.parameters())
    benchmark.extra_info["bytes, ours and plain"] = kept
    benchmark.pedantic(fast, rounds=5)
    assert faster >= 1.1
    assert kept[0] <= kept[1] / 4


@pytest.mark.parametrize("fast", [True, False])
def test_the_ratio_sees_a_slower_step(fast: bool) -> None:
    """That the measure itself can tell: half the work takes about half the time."""
    x = torch.randn(300, 300)
    once, twice = (lambda: x @ x), (lambda: (x @ x, x @ x))
    found = ratio(twice, once, rounds=40) if fast else ratio(once, twice, rounds=40)
    assert (found > 1.4) == fast
