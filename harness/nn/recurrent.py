"""Recurrent encoders of sequences padded at the end; no result depends on the padding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness.nn.lstm import lstm as on_real_steps
from harness.nn.lstm import order

WIDE = 3  # input at least so many times as wide as the state: on a CPU, leaving out padding pays, and PyTorch's small steps do not


def last_step(x: Tensor, lengths: Tensor) -> Tensor:
    """Each clip's last real step: x (B, T, D), lengths (B,) -> (B, D)."""
    return x.gather(1, (lengths - 1)[:, None, None].expand(-1, 1, x.shape[2])).squeeze(1)


def reverse(x: Tensor, lengths: Tensor) -> Tensor:
    """Each clip's real steps in reverse order, its padding where it was: x (B, T, D), lengths (B,) -> (B, T, D)."""
    steps = torch.arange(x.shape[1], device=x.device)
    mirrored = lengths[:, None] - 1 - steps
    source = torch.where(mirrored >= 0, mirrored, steps)
    return x.gather(1, source[..., None].expand_as(x))


def last_state(lstm: nn.LSTM, x: Tensor, lengths: Tensor) -> Tensor:
    """The state of a one-layer ``batch_first`` LSTM at each clip's last real step: x (B, T, width), lengths (B,) -> (B, hidden)."""
    if x.device.type == "cpu" and lstm.input_size >= WIDE * lstm.hidden_size:
        rows = order(lengths, x.shape[1])
        return rows.ends(on_real_steps(lstm, rows.pack(x), rows)[0])
    return last_step(lstm(x)[0], lengths)


class LastLSTM(nn.Module):
    """A one-layer LSTM read at the last real step: x (B, T, width), lengths (B,) -> (B, hidden)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, hidden, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return last_state(self.lstm, x, lengths)


class BiLSTM(nn.Module):
    """A one-layer bidirectional LSTM, with the parameters of ``nn.LSTM(width, hidden, bidirectional=True)``.

    The backward pass reads each clip from its last real step, as on packed sequences.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.ahead = nn.LSTM(width, hidden, batch_first=True)
        self.back = nn.LSTM(width, hidden, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, T, width), lengths (B,) -> states (B, T, 2 hidden), meaningless at padding, and final states (B, 2 hidden)."""
        ahead = self.ahead(x)[0]
        back = self.back(reverse(x, lengths))[0]
        final = torch.cat([last_step(ahead, lengths), last_step(back, lengths)], dim=-1)
        return torch.cat([ahead, reverse(back, lengths)], dim=-1), final

    def orthogonal(self) -> None:
        """Start from orthogonal hidden-to-hidden weights."""
        for lstm in (self.ahead, self.back):
            nn.init.orthogonal_(lstm.get_parameter("weight_hh_l0"))
