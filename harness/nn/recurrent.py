"""Recurrent encoders of sequences padded at the end; no result depends on the padding.

Packed sequences, which skip the padding, cost a kernel per step and gate: they pay where the input is wide and most of a
batch is padding, and nowhere else (on a GPU they would need the lengths on the CPU).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

PACK_WIDTH = 3  # input at least so many times as wide as the state
PACK_SHARE = 0.6  # of the batch's steps are real, at most


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
    if x.device.type == "cpu" and lstm.input_size >= PACK_WIDTH * lstm.hidden_size and lengths.sum() < PACK_SHARE * x.shape[0] * x.shape[1]:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return lstm(packed)[1][0].squeeze(0)  # type: ignore[no-any-return]
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
