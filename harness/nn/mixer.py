"""Mixing of tokens and channels by two-layer networks."""

from __future__ import annotations

from torch import Tensor, nn

from harness.nn.dropout import Dropout


class MixerBlock(nn.Module):
    """x (B, N, width) -> (B, N, width): x <- x + f(x) along the N tokens, then x <- x + g(x) along the channels.

    f and g are Linear, GELU, dropout, Linear, dropout with ``hidden`` units. There is no layer norm: this is the
    "communicator" of PS-Mixer (Lin et al. 2023), not the block of MLP-Mixer (Tolstikhin et al. 2021, eq. 1), which has two.
    """

    def __init__(self, tokens: int, width: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.tokens = _two_layers(tokens, hidden, dropout)
        self.channels = _two_layers(width, hidden, dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(x.transpose(1, 2)).transpose(1, 2)
        return x + self.channels(x)  # type: ignore[no-any-return]


def _two_layers(width: int, hidden: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), Dropout(dropout), nn.Linear(hidden, width), Dropout(dropout))
