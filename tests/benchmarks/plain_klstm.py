"""KLSTM as a loop over time steps that autograd records: each step evaluates all of the cell, the gate's KAN included.

What the library's layer is timed against; it shares the layer's parameters and its KAN.
"""

from __future__ import annotations

import torch
from torch import Tensor

from harness.nn.klstm import KLSTM, InputGate, MemoryGate


def loop(layer: KLSTM, x: Tensor) -> Tensor:
    """x (B, T, in) -> (B, T, hidden), for the ``literal`` and the ``tkan`` gate."""
    h = c = state = x.new_zeros(len(x), layer.back.in_features)
    gate, states = layer.gate, []
    for step in x.unbind(1):
        if isinstance(gate, InputGate):
            logits = gate.kan(step)
        elif isinstance(gate, MemoryGate):
            y = gate.kan(gate.inward(step) + gate.back(state))
            state = gate.renew[:, 0] * y + gate.keep[:, 0] * state
            logits = gate.out(y)
        i, f, g = (layer.inward(step) + layer.back(h)).chunk(3, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = logits.sigmoid() * c.tanh()
        states.append(h)
    return torch.stack(states, dim=1)
