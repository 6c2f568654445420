"""KLSTM: an LSTM whose output gate is a Kolmogorov-Arnold network (MIKL, eq. 7 to 14).

    f_t = sigma(W_f x_t + U_f h_{t-1} + b_f)              (10)     c_t = f_t * c_{t-1} + i_t * g_t     (13)
    i_t = sigma(W_i x_t + U_i h_{t-1} + b_i)              (11)     h_t = o_t * tanh(c_t)               (14)
    g_t = tanh(W_c x_t + U_c h_{t-1} + b_c)                        o_t = sigma(KAN(x, t))              (12)

What KAN(x, t) reads is left open by the text and is ``Gate`` here. In none of its readings does the gate see h: gates are
known for all steps before the cell runs, and only what is truly recurrent is looped over, in loops that record no graph.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from harness.nn.kan import KANLinear, Spline, blocks, expansion, expansion_slopes

Gate = Literal["tkan", "state", "literal"]
CUBIC = Spline()


class _Cell(torch.autograd.Function):
    """Eq. 10, 11, 13, 14 over time: inputs' part of i, f, g (T, B, 3H), o (T, B, H), U (3H, H) -> h (T, B, H)."""

    @staticmethod
    def forward(ctx: Any, inward: Tensor, o: Tensor, u: Tensor) -> Tensor:
        steps, clips, hidden = o.shape
        gates, squashed = inward.clone(), torch.empty_like(o)
        cells, states = (o.new_zeros(steps + 1, clips, hidden) for _ in range(2))
        for t, gate in enumerate(gates):
            i, f, g = torch.addmm(gate, states[t], u.t(), out=gate).chunk(3, dim=1)
            gate[:, : 2 * hidden].sigmoid_()
            torch.mul(i, g.tanh_(), out=cells[t + 1]).addcmul_(f, cells[t])
            torch.tanh(cells[t + 1], out=squashed[t])
            torch.mul(o[t], squashed[t], out=states[t + 1])
        ctx.save_for_backward(gates, cells, squashed, states, o, u)
        return states[1:].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        gates, cells, squashed, states, o, u = ctx.saved_tensors
        i, f, g = gates.chunk(3, dim=2)
        opened = o * (1 - squashed * squashed)  # of h by c
        slopes = torch.stack([g * i * (1 - i), cells[:-1] * f * (1 - f), i * (1 - g * g)], dim=2)  # of c by the gates' inputs
        to_gates, to_states, to_cell = torch.empty_like(slopes), grad.clone(), torch.zeros_like(o[0])
        for t in reversed(range(len(o))):
            to_cell.addcmul_(to_states[t], opened[t])
            torch.mul(slopes[t], to_cell[:, None], out=to_gates[t])
            to_cell.mul_(f[t])
            if t:
                torch.addmm(to_states[t - 1], to_gates[t].flatten(1), u, out=to_states[t - 1])
        to_inward = to_gates.flatten(2)
        return to_inward, to_states * squashed, to_inward.flatten(0, 1).t() @ states[:-1].flatten(0, 1)


class _Memory(torch.autograd.Function):
    """TKAN's recurrent KAN: u_t = inward_t + R s_{t-1}, y_t = KAN(u_t), s_t = a * y_t + b * s_{t-1}; gives y.

    Clips stand along columns, as in the KAN layer: inward and y are (T, H, B), R (H, H), a and b (H, 1), the KAN's
    weights (H, count + 1, H).
    """

    @staticmethod
    def forward(ctx: Any, inward: Tensor, r: Tensor, kan: Tensor, a: Tensor, b: Tensor, spline: Spline) -> Tensor:
        mixed, y = torch.empty_like(inward), torch.empty_like(inward)
        states = inward.new_zeros(len(inward) + 1, *inward.shape[1:])
        matrix = kan.flatten(1)
        for t in range(len(inward)):
            torch.addmm(inward[t], r, states[t], out=mixed[t])
            torch.mm(matrix, expansion(mixed[t : t + 1], spline)[0].flatten(0, 1), out=y[t])
            torch.mul(b, states[t], out=states[t + 1]).addcmul_(a, y[t])
        ctx.spline = spline
        ctx.save_for_backward(mixed, y, states, r, kan, a, b)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        mixed, y, states, r, kan, a, b = ctx.saved_tensors
        matrix, to_kan, clips = kan.flatten(1), torch.zeros_like(kan.flatten(1)), y.shape[2]
        to_y, to_mixed, to_state = torch.empty_like(y), torch.empty_like(mixed), torch.zeros_like(states)
        for steps in reversed(blocks(mixed, ctx.spline)):
            expanded, slopes = expansion_slopes(_beside(mixed[steps])[None], ctx.spline)
            slope = slopes[0].view(*slopes.shape[1:3], -1, clips).unbind(2)
            for t in reversed(range(len(mixed))[steps]):
                torch.addcmul(grad[t], a, to_state[t + 1], out=to_y[t])
                back = (matrix.t() @ to_y[t]).view_as(slope[0]).mul_(slope[t - steps.start])
                torch.sum(back, dim=0, out=to_mixed[t])
                torch.addmm(torch.mul(b, to_state[t + 1]), r.t(), to_mixed[t], out=to_state[t])
            to_kan += _beside(to_y[steps]) @ expanded[0].flatten(0, 1).t()
        to_r = _beside(to_mixed) @ _beside(states[:-1]).t()
        to_a, to_b = ((to_state[1:] * x).sum((0, 2))[:, None] for x in (y, states[:-1]))
        return to_mixed, to_r, to_kan.view_as(kan), to_a, to_b, None


def _beside(x: Tensor) -> Tensor:
    """(T, H, B) -> (H, T B)."""
    return x.transpose(0, 1).flatten(1)


class InputGate(nn.Module):
    """``literal``: KAN(x_t), eq. 12 as printed; logits of the gate, (B, T, inputs) -> (B, T, hidden)."""

    def __init__(self, inputs: int, hidden: int, spline: Spline) -> None:
        super().__init__()
        self.kan = KANLinear(inputs, hidden, spline)

    def forward(self, x: Tensor) -> Tensor:
        return self.kan(x)  # type: ignore[no-any-return]


class StateGate(nn.Module):
    """``state``: KAN(s_t) of the short-term state s_t = tanh(W_hh s_{t-1} + W_hx x_t + b_h), eq. 7 to 9.

    Eq. 7 and 9 print the same recursion, with and without f and b; f is tanh here, without which W_hh would have to
    stay below 1 in norm.
    """

    def __init__(self, inputs: int, hidden: int, spline: Spline) -> None:
        super().__init__()
        self.short = nn.RNN(inputs, hidden, batch_first=True)
        self.short.get_parameter("bias_hh_l0").requires_grad_(False).zero_()  # eq. 7 has one bias
        self.kan = KANLinear(hidden, hidden, spline)

    def forward(self, x: Tensor) -> Tensor:
        return self.kan(self.short(x)[0])  # type: ignore[no-any-return]


class MemoryGate(nn.Module):
    """``tkan``: one layer of TKAN (Genet and Inzirillo 2024, arXiv:2405.07344), whose recursion eq. 8 and 9 cite.

    u_t = W_hx x_t + W_hh s_{t-1};  y_t = KAN(u_t);  s_t = a * y_t + b * s_{t-1};  logits W y_t + w. The state is as
    wide as the cell; a and b, one number per unit, start at 1/2.
    """

    def __init__(self, inputs: int, hidden: int, spline: Spline) -> None:
        super().__init__()
        self.inward = nn.Linear(inputs, hidden, bias=False)
        self.back = nn.Linear(hidden, hidden, bias=False)
        self.kan = KANLinear(hidden, hidden, spline)
        self.renew, self.keep = (nn.Parameter(torch.full((hidden, 1), 0.5)) for _ in range(2))
        self.out = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        inward = self.inward(x).permute(1, 2, 0).to(self.renew.dtype)
        y = _Memory.apply(inward, self.back.weight, self.kan.weight(), self.renew, self.keep, self.kan.spline)  # type: ignore[no-untyped-call]
        return self.out(y.permute(2, 0, 1))  # type: ignore[no-any-return]


GATES = {"literal": InputGate, "state": StateGate, "tkan": MemoryGate}


class KLSTM(nn.Module):
    """One layer: x (B, T, inputs) -> h (B, T, hidden), from zero states; h at a step depends on no later step.

    ``gate`` names the reading of KAN(x, t): ``tkan`` (default), ``state`` or ``literal``, see the classes above.
    ``self.gate`` may be replaced by any module from (B, T, inputs) to logits (B, T, hidden): with a linear one this is
    ``nn.LSTM`` whose output gate does not see h. Weights of the other gates stand in the order i, f, g and start as
    those of ``nn.LSTM``. Computes in the dtype of its parameters. Differentiable once.
    """

    def __init__(self, inputs: int, hidden: int, gate: Gate = "tkan", spline: Spline = CUBIC) -> None:
        super().__init__()
        if gate not in GATES:
            raise ValueError(f"gate = '{gate}' is none of {', '.join(GATES)}")
        self.inward = nn.Linear(inputs, 3 * hidden)
        self.back = nn.Linear(hidden, 3 * hidden, bias=False)
        for parameter in (*self.inward.parameters(), *self.back.parameters()):
            nn.init.uniform_(parameter, -(hidden**-0.5), hidden**-0.5)
        self.gate: nn.Module = GATES[gate](inputs, hidden, spline)

    def forward(self, x: Tensor) -> Tensor:
        dtype = self.back.weight.dtype
        o = self.gate(x).sigmoid().transpose(0, 1).to(dtype)
        inward = self.inward(x).transpose(0, 1).to(dtype)
        return _Cell.apply(inward, o, self.back.weight).transpose(0, 1)  # type: ignore[no-untyped-call, no-any-return]
