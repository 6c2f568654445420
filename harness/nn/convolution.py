"""Convolution over time that keeps the length of every clip."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class TimeConv(nn.Module):
    """A convolution over time without bias: x (B, T, width) -> (B, T, out), for any kernel size.

    Zeros stand before the first and after the last step, (kernel - 1) // 2 and kernel // 2 of them; the input's
    padding must be zero, so a clip's real steps do not see how much of it follows. Steps after a clip's end are
    not zero in the result: later layers must mask them.
    """

    def __init__(self, width: int, out: int, kernel: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(width, out, kernel, bias=False)
        self.pad = ((kernel - 1) // 2, kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x.transpose(1, 2), self.pad)).transpose(1, 2)  # type: ignore[no-any-return]
