"""Modalities that gate each other's channels midway: MMTM and split attention. Streams are (B, C_m, any axes), by modality."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.nn.subnets import BatchNorm

Streams = Mapping[str, Tensor]


class MMTM(nn.Module):
    """Multimodal transfer module (Vaezi Joze et al. 2020, eq. 1-5), over any number of modalities.

    s_m, the mean of each channel; z = ReLU(W [s_1; s_2; ...] + b), 2 (C_1 + C_2 + ...) / ``ratio`` wide; every channel of m is
    multiplied by ``scale`` sigmoid(W_m z + b_m). ``ratio`` 4 and ``scale`` 1 are the authors' code; with ``scale`` 2 a gate
    of 0 is neutral, as in their text.
    """

    def __init__(self, channels: Mapping[str, int], ratio: int = 4, scale: float = 1.0) -> None:
        super().__init__()
        whole = sum(channels.values())
        joint = max(1, 2 * whole // ratio)
        self.scale = scale
        self.squeeze = nn.Linear(whole, joint)
        self.excite = nn.ModuleDict({name: nn.Linear(joint, count) for name, count in channels.items()})

    def forward(self, streams: Streams) -> dict[str, Tensor]:
        joint = F.relu(self.squeeze(torch.cat([means(streams[name]) for name in self.excite], dim=1)))
        return {name: x * beside(self.scale * self.excite[name](joint).sigmoid(), x) for name, x in streams.items()}


class SplitAttention(nn.Module):
    """Multimodal split attention fusion (Su et al. 2020, section 3), over any number of modalities.

    Channels are cut into blocks of ``block``, the last of a modality filled up with zeros. G, (B, block): the sum over all blocks
    of all modalities of their channels' means; Z = ReLU(BN(W G + b)), block / ``reduction`` wide; one linear layer per block, and a
    softmax over all blocks of all modalities, channel by channel, give gates alpha. Every block is multiplied by
    ``least`` + (1 - ``least``) alpha. In training, whole blocks of a clip are zero with probability ``drop``, the others
    divided by 1 - ``drop``, once.
    """

    def __init__(self, channels: Mapping[str, int], block: int, reduction: int = 4, drop: float = 0.2, least: float = 0.0) -> None:
        super().__init__()
        self.block, self.drop, self.least = block, drop, least
        self.counts = {name: -(-count // block) for name, count in channels.items()}
        narrow = max(1, block // reduction)
        self.squeeze, self.norm = nn.Linear(block, narrow), BatchNorm(narrow)
        self.excite = nn.Linear(narrow, sum(self.counts.values()) * block)

    def forward(self, streams: Streams) -> dict[str, Tensor]:
        kept = self._kept(next(iter(streams.values())))
        blocks = {name: self._blocks(x) for name, x in streams.items()}
        dropped = {name: x * beside(kept[name], x) for name, x in blocks.items()}
        whole = torch.stack([x.flatten(3).mean(3).sum(1) for x in dropped.values()]).sum(0)  # (B, block)
        scores = self.excite(F.relu(self.norm(self.squeeze(whole)))).view(len(whole), -1, self.block)
        gates = self.least + (1 - self.least) * scores.softmax(1)
        parts = dict(zip(self.counts, torch.split(gates, list(self.counts.values()), dim=1), strict=True))
        gated = {name: (x * beside(parts[name], x)).flatten(1, 2) for name, x in dropped.items()}
        return {name: gated[name][:, : x.shape[1]] for name, x in streams.items()}

    def _blocks(self, x: Tensor) -> Tensor:
        """(B, C, ...) -> (B, blocks, block, ...)."""
        lacking = -x.shape[1] % self.block
        filled = torch.cat([x, x.new_zeros(len(x), lacking, *x.shape[2:])], dim=1) if lacking else x
        return filled.reshape(len(x), -1, self.block, *x.shape[2:])

    def _kept(self, like: Tensor) -> dict[str, Tensor]:
        """Factor on each block of each clip by modality, (B, blocks)."""
        factors = F.dropout(like.new_ones(len(like), sum(self.counts.values())), self.drop, self.training)
        return dict(zip(self.counts, torch.split(factors, list(self.counts.values()), dim=1), strict=True))


def means(x: Tensor) -> Tensor:
    """Mean of each channel of x (B, C, any axes): (B, C)."""
    return x.flatten(2).mean(2)


def beside(factor: Tensor, x: Tensor) -> Tensor:
    """``factor`` with axes of length 1 at its end, so that it broadcasts over the later axes of x."""
    return factor.reshape(*factor.shape, *[1] * (x.ndim - factor.ndim))
