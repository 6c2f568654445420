"""The utterance networks of TFN and LMF."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from harness.nn.dropout import Dropout
from harness.nn.recurrent import LastLSTM


class BatchNorm(nn.BatchNorm1d):
    """``nn.BatchNorm1d`` that also accepts a training batch of one clip, which it normalises by the running statistics.

    One clip has no variance; its running statistics are left as they were.
    """

    def forward(self, input: Tensor) -> Tensor:
        if self.training and len(input) == 1:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(input)


class SubNet(nn.Module):
    """Network of one time-averaged modality (Zadeh et al. 2017, section 4.1): (B, width) -> (B, hidden).

    Batch norm, dropout, three linear layers with ReLU.
    """

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            BatchNorm(width),
            Dropout(dropout),
            *(nn.Linear(width, hidden), nn.ReLU()),
            *(nn.Linear(hidden, hidden), nn.ReLU()),
            *(nn.Linear(hidden, hidden), nn.ReLU()),
        )

    def forward(self, mean: Tensor) -> Tensor:
        return self.layers(mean)  # type: ignore[no-any-return]


class TextSubNet(nn.Module):
    """LSTM over words, dropout on its last state, linear layer: x (B, T, width), lengths (B,) -> (B, out)."""

    def __init__(self, width: int, hidden: int, out: int, dropout: float) -> None:
        super().__init__()
        self.lstm = LastLSTM(width, hidden)
        self.drop = Dropout(dropout)
        self.out = nn.Linear(hidden, out)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return self.out(self.drop(self.lstm(x, lengths)))  # type: ignore[no-any-return]


class Utterances(nn.Module):
    """One vector per clip and modality: ``TextSubNet`` on text, ``SubNet`` on the mean over real frames of the others.

    ``dims``, ``hidden`` and ``dropout`` are by modality; ``widths`` says how wide each vector is.
    """

    def __init__(self, dims: Mapping[str, int], hidden: Mapping[str, int], text_out: int, dropout: Mapping[str, float]) -> None:
        super().__init__()
        self.widths = {name: text_out if name == "text" else hidden[name] for name in dims}
        self.nets = nn.ModuleDict(
            {
                name: TextSubNet(dim, hidden[name], text_out, dropout[name]) if name == "text" else SubNet(dim, hidden[name], dropout[name])
                for name, dim in dims.items()
            }
        )

    def forward(self, features: Mapping[str, Tensor], lengths: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Features (B, T, dim), zero at padding, and lengths (B,) by modality -> (B, width) by modality."""
        return {
            name: net(features[name], lengths[name]) if name == "text" else net(features[name].sum(1) / lengths[name][:, None])
            for name, net in self.nets.items()
        }
