"""KLSTM against a recorded loop over its steps: forward and backward, as a ratio in one run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from plain_klstm import loop
from ratios import ratio
from torch import Tensor

from harness.nn.klstm import KLSTM, Gate

BATCH, STEPS, WIDTH, HIDDEN = 32, 50, 20, 64


def pair(gate: Gate) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    torch.manual_seed(0)
    layer, x = KLSTM(WIDTH, HIDDEN, gate), torch.randn(BATCH, STEPS, WIDTH)
    return lambda: layer(x), lambda: loop(layer, x)


@pytest.mark.parametrize("gate", ["literal", "tkan"])
def test_both_compute_the_same(gate: Gate) -> None:
    ours, plain = pair(gate)
    torch.testing.assert_close(ours(), plain(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("gate, least", [("literal", 1.7), ("tkan", 1.2)])
def test_layer_is_faster_than_a_loop(benchmark: Any, gate: Gate, least: float) -> None:
    """More than three times and twice on a quiet machine; what is asserted leaves room for a busy one."""
    ours, plain = pair(gate)
    faster = ratio(lambda: plain().sum().backward(), lambda: ours().sum().backward(), rounds=20)
    benchmark.extra_info["times faster"] = faster
    benchmark.pedantic(lambda: ours().sum().backward(), rounds=5)
    assert faster >= least
