"""KLSTM against PyTorch's LSTM and against its own equations, written out one step and one clip at a time."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from harness.analysis.flops import count
from harness.nn.kan import Spline
from harness.nn.klstm import KLSTM, Gate, InputGate, MemoryGate, StateGate

EXACT = {"rtol": 0.0, "atol": 1e-12}
GATES = get_args(Gate)


def random_layer(gate: Gate, inputs: int = 3, hidden: int = 4) -> KLSTM:
    torch.manual_seed(0)
    layer = KLSTM(inputs, hidden, gate, Spline(4)).double()
    for parameter in layer.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.4)
    return layer


def clips(batch: int = 3, steps: int = 6, width: int = 3) -> Tensor:
    return torch.randn(batch, steps, width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("dtype, close", [(torch.float64, EXACT), (torch.float32, {"rtol": 0.0, "atol": 1e-5})])
def test_a_linear_gate_makes_it_an_lstm(dtype: torch.dtype, close: Any) -> None:
    """Values and gradients, with W_io, b_io copied into the gate and U_o = 0."""
    torch.manual_seed(0)
    ours, theirs = KLSTM(3, 4).to(dtype), nn.LSTM(3, 4, batch_first=True).to(dtype)
    ours.gate = gate = nn.Linear(3, 4).to(dtype)
    with torch.no_grad():
        theirs.bias_hh_l0.zero_()
        theirs.weight_hh_l0[12:] = 0
        ours.inward.weight.copy_(theirs.weight_ih_l0[:12])
        ours.inward.bias.copy_(theirs.bias_ih_l0[:12])
        ours.back.weight.copy_(theirs.weight_hh_l0[:12])
        gate.weight.copy_(theirs.weight_ih_l0[12:])
        gate.bias.copy_(theirs.bias_ih_l0[12:])
    x, weight = clips().to(dtype), torch.randn(3, 6, 4, dtype=dtype)
    torch.testing.assert_close(ours(x), theirs(x)[0], **close)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    (ours(inputs[0]) * weight).sum().backward()
    (theirs(inputs[1])[0] * weight).sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, **close)
    pairs = [(ours.inward.weight, theirs.weight_ih_l0), (ours.inward.bias, theirs.bias_ih_l0), (ours.back.weight, theirs.weight_hh_l0)]
    for mine, other in pairs:
        assert mine.grad is not None and other.grad is not None
        torch.testing.assert_close(mine.grad, other.grad[:12], **close)
    torch.testing.assert_close(gate.weight.grad, theirs.weight_ih_l0.grad[12:], **close)  # type: ignore[index]


def gate_logits(layer: KLSTM, x: Tensor) -> list[Tensor]:
    """The gate's logits at each step of one clip x (T, in)."""
    gate, found = layer.gate, []
    state = torch.zeros(layer.back.in_features, dtype=torch.float64)
    for step in x:
        if isinstance(gate, InputGate):
            found.append(gate.kan(step))
        elif isinstance(gate, StateGate):
            state = torch.tanh(gate.short.weight_ih_l0 @ step + gate.short.bias_ih_l0 + gate.short.weight_hh_l0 @ state)
            found.append(gate.kan(state))
        elif isinstance(gate, MemoryGate):
            y = gate.kan(gate.inward.weight @ step + gate.back.weight @ state)
            state = gate.renew[:, 0] * y + gate.keep[:, 0] * state
            found.append(gate.out.weight @ y + gate.out.bias)
    return found


def by_equations(layer: KLSTM, x: Tensor) -> Tensor:
    """Eq. 10 to 14 for one clip x (T, in) -> (T, hidden)."""
    h = c = torch.zeros(layer.back.in_features, dtype=torch.float64)
    states = []
    for step, logits in zip(x, gate_logits(layer, x), strict=True):
        i, f, g = (layer.inward.weight @ step + layer.inward.bias + layer.back.weight @ h).chunk(3)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = logits.sigmoid() * c.tanh()
        states.append(h)
    return torch.stack(states)


@pytest.mark.parametrize("gate", GATES)
def test_every_reading_follows_its_equations(gate: Gate) -> None:
    layer, x = random_layer(gate), clips()
    torch.testing.assert_close(layer(x), torch.stack([by_equations(layer, clip) for clip in x]), **EXACT)


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("gate", GATES)
def test_gradients(gate: Gate, steps: int) -> None:
    layer = random_layer(gate, 2, 3)
    names, values = zip(*((n, p) for n, p in layer.named_parameters() if p.requires_grad), strict=True)

    def call(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(call, (clips(2, steps, 2).requires_grad_(), *values))


@pytest.mark.parametrize("gate", GATES)
def test_a_step_depends_on_no_later_one(gate: Gate) -> None:
    layer, x = random_layer(gate), clips()
    changed = torch.cat([x[:, :4], x[:, 4:] + 10], dim=1)
    assert torch.equal(layer(x)[:, :4], layer(changed)[:, :4])
    assert not torch.allclose(layer(x)[:, 4:], layer(changed)[:, 4:])


@pytest.mark.parametrize("gate", GATES)
def test_backward_may_run_twice(gate: Gate) -> None:
    layer, x = random_layer(gate), clips().requires_grad_()
    total = layer(x).sum()
    first, second = (torch.autograd.grad(total, x, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_readings_differ() -> None:
    results = [random_layer(gate)(clips()) for gate in GATES]
    assert all(not torch.allclose(results[i], results[j], atol=1e-3) for i in range(3) for j in range(i))


def test_unknown_reading() -> None:
    with pytest.raises(ValueError, match="none of literal, state, tkan"):
        KLSTM(2, 3, "gru")  # type: ignore[arg-type]


def test_start_and_number_of_parameters() -> None:
    """Cell 3H(I + H + 1); KAN 9 per edge; state H(I + H + 1), memory H(I + H) + 2H + H(H + 1)."""
    sizes = {gate: sum(p.numel() for p in KLSTM(5, 16, gate).parameters() if p.requires_grad) for gate in GATES}
    cell = 3 * 16 * (5 + 16 + 1)
    assert sizes == {
        "literal": cell + 9 * 5 * 16,
        "state": cell + 9 * 16 * 16 + 16 * (5 + 16 + 1),
        "tkan": cell + 9 * 16 * 16 + 16 * (5 + 16) + 2 * 16 + 16 * 17,
    }
    weight = KLSTM(5, 16).back.weight
    assert 0.9 / math.sqrt(16) < weight.abs().max() <= 1 / math.sqrt(16)


@pytest.mark.parametrize("gate", GATES)
def test_flops_are_those_of_the_products(gate: Gate) -> None:
    clips, steps, i, h = 2, 5, 3, 4
    gates = {"literal": 9 * i * h, "state": i * h + h * h + 9 * h * h, "tkan": i * h + h * h + 9 * h * h + h * h}
    counted = count(KLSTM(i, h, gate), lambda layer, device: layer(torch.zeros(clips, steps, i, device=device)))
    assert counted.macs == clips * steps * (3 * h * (i + h) + gates[gate])
    assert counted.device == "meta"


@pytest.mark.parametrize("gate", GATES)
def test_autocast(gate: Gate) -> None:
    layer, x = KLSTM(3, 4, gate), clips().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    y.sum().backward()
    torch.testing.assert_close(y.float(), layer(x), rtol=0, atol=0.05)  # bfloat16 has 8 bits
    assert all(p.grad is None or p.grad.dtype == torch.float32 for p in layer.parameters())
