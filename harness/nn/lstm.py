"""A one-layer LSTM over real steps only, with a backward pass of its own: for CPUs, whose library pads or steps in small kernels.

Inputs meet their weights in one product for all real steps. What is left for each step is the state's product and seven kernels
ahead, five back; steps go on with the clips that still have one. Everything that does not depend on the carried gradient is
computed for all steps at once before the way back, and the gradients of both weights are one product each after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from harness.nn.steps import pack


@dataclass(frozen=True)
class Order:
    """All N real steps of B clips as rows: first steps first, within a step the longest clips first, as in a packed sequence.

    (``harness.nn.steps`` has them clip after clip, for layers without a state.)

    ``rows`` (N,) says where each stands in B x T, ``clips`` (N,) whose it is; ``before`` is the row of the step before each row, from the
    second step on; ``last`` (B,) is the row of each clip's last step; ``counts``: how many clips have each step.
    """

    rows: Tensor
    clips: Tensor
    before: Tensor
    last: Tensor
    counts: list[int]

    def pack(self, x: Tensor) -> Tensor:
        """x (B, T, D) as rows (N, D)."""
        return pack(x, self.rows)

    def previous(self, x: Tensor) -> Tensor:
        """The row of the step before each of the rows (N, D), zero before the first step."""
        return torch.cat([x.new_zeros(self.counts[0], x.shape[1]), x.index_select(0, self.before)])

    def starts(self, x: Tensor) -> Tensor:
        """One vector per clip, x (B, D), in the order of the first steps' rows."""
        return x.index_select(0, self.clips[: self.counts[0]])

    def ends(self, x: Tensor) -> Tensor:
        """The rows (N, D) of each clip's last step, (B, D)."""
        return x.index_select(0, self.last)


def order(lengths: Tensor, steps: int) -> Order:
    """The rows of clips of ``lengths`` (B,), each at least 1 and padded at the end to ``steps``.

    Lengths without values (on the device ``meta``) are taken to be ``steps``.
    """
    if lengths.device.type == "meta":
        known = order(torch.full(lengths.shape, steps), steps)
        rows, clips, before, last = (x.to("meta") for x in (known.rows, known.clips, known.before, known.last))
        return Order(rows, clips, before, last, known.counts)
    descending, clips = lengths.sort(descending=True, stable=True)
    step, place = (torch.arange(int(descending[0]), device=lengths.device)[:, None] < descending).nonzero(as_tuple=True)
    counts = torch.bincount(step)
    begin, later = counts.cumsum(0) - counts, step[len(clips) :]
    before = begin[later - 1] + place[len(clips) :]
    last = torch.empty_like(clips).index_copy_(0, clips, begin[descending - 1] + torch.arange(len(clips), device=lengths.device))
    return Order(clips[place] * steps + step, clips[place], before, last, counts.tolist())


def lstm(module: nn.LSTM, x: Tensor, rows: Order) -> tuple[Tensor, Tensor]:
    """Hidden and cell states, (N, hidden) each, of a one-layer ``batch_first`` LSTM that reads the rows x (N, width).

    Equal to ``nn.LSTM`` on a packed sequence. Under autocast, states keep the parameters' dtype.
    """
    ih, hh, bias, more = (module.get_parameter(f"{name}_l0") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    return recur(F.linear(x, ih, bias + more).to(hh.dtype), hh, rows)


def recur(gates: Tensor, weight: Tensor, rows: Order) -> tuple[Tensor, Tensor]:
    """Hidden and cell states, (N, hidden) each, of an LSTM from what its gates get from outside, (N, 4 hidden): inputs and biases.

    ``weight`` (4 hidden, hidden) is what they get from the state before; gates: input, forget, candidate, output.
    """
    return _Recur.apply(gates, weight, rows)  # type: ignore[no-any-return, no-untyped-call]


class _Recur(torch.autograd.Function):
    """Inputs of the gates (N, 4 H), recurrent weight (4 H, H) -> hidden and cell states (N, H); gates: input, forget, candidate, output."""

    @staticmethod
    def forward(ctx: Any, gates: Tensor, weight: Tensor, rows: Order) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        size, counts = weight.shape[1], rows.counts
        hidden, cells, squashed = (gates.new_empty(len(gates), size) for _ in range(3))
        acts, back = torch.empty_like(gates), weight.T
        write, keep, candidate, read = (torch.split(part, counts) for part in acts.chunk(4, dim=1))
        both = torch.split(acts[:, : 2 * size], counts)  # write and keep
        given, act, h, c, tanh = (torch.split(x, counts) for x in (gates, acts, hidden, cells, squashed))
        for step, count in enumerate(counts):
            if step:
                torch.addmm(given[step], h[step - 1][:count], back, out=act[step])
            else:
                act[0].copy_(given[0])
            both[step].sigmoid_()
            candidate[step].tanh_()
            read[step].sigmoid_()
            torch.mul(write[step], candidate[step], out=c[step])
            if step:
                c[step].addcmul_(keep[step], c[step - 1][:count])
            torch.tanh(c[step], out=tanh[step])
            torch.mul(read[step], tanh[step], out=h[step])
        ctx.save_for_backward(acts, hidden, cells, squashed, weight, rows.before)
        ctx.counts = rows.counts
        return hidden, cells

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_hidden: Tensor | None, of_cells: Tensor | None) -> tuple[Tensor | None, ...]:
        acts, hidden, cells, squashed, weight, before = ctx.saved_tensors
        of_hidden = torch.zeros_like(hidden) if of_hidden is None else of_hidden.clone()
        of_cells = torch.zeros_like(cells) if of_cells is None else of_cells.clone()
        slopes, through = _slopes(acts, cells, squashed, before)
        counts = ctx.counts
        keep = torch.split(acts[:, cells.shape[1] : 2 * cells.shape[1]], counts)
        h, c, slope, three, to_cell = (torch.split(x, counts) for x in (of_hidden, of_cells, slopes, slopes[:, :3], through))
        for step in reversed(range(len(counts))):
            c[step].addcmul_(h[step], to_cell[step])
            three[step].mul_(c[step][:, None])
            slope[step][:, 3].mul_(h[step])
            if step:
                earlier = h[step - 1][: counts[step]]
                torch.addmm(earlier, slope[step].flatten(1), weight, out=earlier)
                c[step - 1][: counts[step]].addcmul_(c[step], keep[step])
        of_gates = slopes.flatten(1)
        return of_gates, of_gates[len(of_gates) - len(before) :].T @ hidden.index_select(0, before), None


def _slopes(acts: Tensor, cells: Tensor, squashed: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """Of each gate's input: what its gradient is, per gradient of the cell (of the output gate: of the hidden state), (N, 4, H);
    and the cell's gradient per gradient of the hidden state, (N, H)."""
    write, keep, candidate, read = acts.chunk(4, dim=1)
    slopes = acts.new_empty(len(acts), 4, cells.shape[1])
    first = len(acts) - len(before)
    torch.mul(write - write * write, candidate, out=slopes[:, 0])
    slopes[:first, 1] = 0
    torch.mul((keep - keep * keep)[first:], cells.index_select(0, before), out=slopes[first:, 1])
    torch.mul(write, 1 - candidate * candidate, out=slopes[:, 2])
    torch.mul(read - read * read, squashed, out=slopes[:, 3])
    return slopes, read * (1 - squashed * squashed)
