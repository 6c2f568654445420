"""The LSTM on real steps against PyTorch's on packed sequences, in double precision, and its gradient against finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import at_places
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from harness.nn.lstm import Order, lstm, order

WIDTH, HIDDEN = 3, 4


def made(width: int = WIDTH, hidden: int = HIDDEN) -> nn.LSTM:
    torch.manual_seed(0)
    return nn.LSTM(width, hidden, batch_first=True).double()


def clips(lengths: list[int], pad: float = 0.0) -> tuple[Tensor, Tensor]:
    """Random clips padded with ``pad``, and their lengths."""
    torch.manual_seed(1)
    return pad_sequence([torch.randn(n, WIDTH).double() for n in lengths], batch_first=True, padding_value=pad), torch.tensor(lengths)


def states(module: nn.LSTM, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Order]:
    """Hidden and cell states as rows, and their order."""
    rows = order(lengths, x.shape[1])
    return *lstm(module, rows.pack(x), rows), rows


def packed(module: nn.LSTM, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Hidden states (B, T, H), zero at padding, and the last ones (B, H), by PyTorch."""
    hidden, (last, _) = module(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
    return pad_packed_sequence(hidden, batch_first=True, total_length=x.shape[1])[0], last[0]


some_lengths = st.lists(st.integers(1, 7), min_size=1, max_size=6)


@settings(deadline=None)
@given(some_lengths)
def test_states_and_gradients_are_those_of_a_packed_sequence(lengths: list[int]) -> None:
    module = made()
    x, n = clips(lengths)
    x.requires_grad_()
    expected, last = packed(module, x, n)
    hidden, _, rows = states(module, x, n)
    mine = at_places(rows, hidden, x.shape[1])
    torch.testing.assert_close(mine, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(rows.ends(hidden), last, rtol=0, atol=1e-12)
    weights = torch.randn_like(expected)
    wanted = torch.autograd.grad((expected * weights).sum() + last.square().sum(), [x, *module.parameters()])
    got = torch.autograd.grad((mine * weights).sum() + rows.ends(hidden).square().sum(), [x, *module.parameters()])
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("lengths", [[1], [4], [1, 1, 1], [2, 5, 3, 5]])
def test_gradients_through_hidden_and_cell_states_agree_with_finite_differences(lengths: list[int]) -> None:
    module = made()
    x, n = clips(lengths)

    def both(x: Tensor, ih: Tensor, hh: Tensor) -> tuple[Tensor, Tensor]:
        return states(module, x, n)[:2]

    assert torch.autograd.gradcheck(both, (x.requires_grad_(), module.weight_ih_l0, module.weight_hh_l0))


def test_cells_are_those_after_each_step() -> None:
    module = made()
    x, n = clips([3, 5])
    _, found, rows = states(module, x, n)
    cells = at_places(rows, found, 5)
    for clip, length in enumerate(n.tolist()):
        for step in range(1, length + 1):
            torch.testing.assert_close(cells[clip, step - 1], module(x[clip : clip + 1, :step])[1][1][0, 0], rtol=0, atol=1e-12)


def test_padding_is_never_read() -> None:
    module = made()
    lengths = [2, 5, 1]
    (x, n), (holes, _) = clips(lengths), clips(lengths, pad=math.nan)
    a, b = states(module, x, n), states(module, holes, n)
    assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])


def test_a_gradient_of_the_last_state_alone_is_enough() -> None:
    """Cells without a gradient, and states that nothing reads, are no zeros to be made up by the caller."""
    module = made()
    x, n = clips([2, 4])
    hidden, _, rows = states(module, x, n)
    rows.ends(hidden).sum().backward()
    mine = [parameter.grad.clone() for parameter in module.parameters()]
    module.zero_grad()
    packed(module, x, n)[1].sum().backward()
    for one, other in zip(mine, module.parameters(), strict=True):
        torch.testing.assert_close(one, other.grad, rtol=0, atol=1e-12)


@given(some_lengths, st.integers(0, 2))
def test_rows_are_every_real_step_once_and_know_their_neighbours(lengths: list[int], more: int) -> None:
    steps = max(lengths) + more
    found = order(torch.tensor(lengths), steps)
    places = [(row // steps, row % steps) for row in found.rows.tolist()]
    assert sorted(places) == [(clip, step) for clip, length in enumerate(lengths) for step in range(length)]
    assert [step for _, step in places] == sorted(step for _, step in places)
    assert found.counts == [sum(length > step for length in lengths) for step in range(max(lengths))]
    values = torch.tensor(places, dtype=torch.float64) + 1
    for (clip, step), earlier in zip(places, found.previous(values).tolist(), strict=True):
        assert earlier == ([clip + 1, step] if step else [0, 0])
    assert [places[row] for row in found.last.tolist()] == list(enumerate(length - 1 for length in lengths))
    x = torch.rand(len(lengths), steps, 2)
    real = (torch.arange(steps) < torch.tensor(lengths)[:, None])[..., None]
    assert torch.equal(at_places(found, found.pack(x), steps), x * real)


def test_under_autocast_states_keep_the_dtype_of_the_parameters() -> None:
    module = made().float()
    x, n = clips([3, 5])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = states(module, x.float(), n)[0]
    assert hidden.dtype == torch.float32
    torch.testing.assert_close(hidden, states(module, x.float(), n)[0], rtol=0, atol=0.02)


def test_without_values_all_steps_are_taken() -> None:
    module = made().to("meta")
    x, lengths = torch.empty(2, 5, WIDTH, device="meta", dtype=torch.float64), torch.empty(2, dtype=torch.int64, device="meta")
    hidden, cells, rows = states(module, x, lengths)
    assert hidden.shape == (10, HIDDEN) and rows.ends(hidden).shape == (2, HIDDEN) and cells.shape == (10, HIDDEN)
