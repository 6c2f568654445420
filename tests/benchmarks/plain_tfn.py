"""TFN as it is usually written (Zadeh et al. 2017): the outer product of all vectors in memory, then an ordinary linear layer.

What the library's model is timed against, and what its loss curves are held to. Weights are copied from the library's model.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.tfn import TFN
from harness.nn.subnets import SubNet, TextSubNet


class PlainText(nn.Module):
    """An LSTM over all padded words, read at each clip's last real one."""

    def __init__(self, ours: TextSubNet) -> None:
        super().__init__()
        self.lstm, self.out, self.p = copy.deepcopy(ours.lstm.lstm), copy.deepcopy(ours.out), ours.drop.p

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        states = self.lstm(x)[0][torch.arange(len(x)), lengths - 1]
        return self.out(F.dropout(states, self.p, self.training))  # type: ignore[no-any-return]


class PlainMean(nn.Module):
    """Batch norm, dropout and three layers over the mean of a clip's real frames."""

    def __init__(self, ours: SubNet) -> None:
        super().__init__()
        theirs = ours.layers
        self.norm, self.p = nn.BatchNorm1d(theirs[0].num_features), theirs[1].p
        self.norm.load_state_dict(theirs[0].state_dict())
        self.layers = nn.ModuleList(copy.deepcopy(theirs[place]) for place in (2, 4, 6))

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        real = torch.arange(x.shape[1]) < lengths[:, None]
        y = F.dropout(self.norm((x * real[..., None]).sum(1) / lengths[:, None]), self.p, self.training)
        for layer in self.layers:
            y = F.relu(layer(y))
        return y


class PlainTFN(nn.Module):
    """Features (B, T, width) zero at padding and lengths (B,) by modality -> intensities (B,)."""

    def __init__(self, ours: TFN) -> None:
        super().__init__()
        self.task, self.p = ours.task, ours.fuse.p
        nets = ours.encode.nets.items()
        self.nets = nn.ModuleDict({name: PlainText(net) if isinstance(net, TextSubNet) else PlainMean(net) for name, net in nets})
        cells, out = ours.fuse.weight.shape
        self.fuse = nn.Linear(cells, out)
        with torch.no_grad():
            self.fuse.weight.copy_(ours.fuse.weight.T)
            self.fuse.bias.copy_(ours.fuse.bias)
        self.second, self.out = copy.deepcopy(ours.post_fusion[1]), copy.deepcopy(ours.out)

    def forward(self, features: Mapping[str, Tensor], lengths: Mapping[str, Tensor]) -> Tensor:
        text, audio, vision = (F.pad(net(features[name], lengths[name]), (1, 0), value=1.0) for name, net in self.nets.items())
        product = torch.einsum("bi,bj,bk->bijk", text, audio, vision).flatten(1)
        hidden = F.relu(self.second(F.relu(self.fuse(F.dropout(product, self.p, self.training)))))
        y = self.out(hidden).squeeze(1).sigmoid()
        return self.task.low + (self.task.high - self.task.low) * y  # type: ignore[no-any-return]
