"""One vector per clip and modality, as MISA and its successors read their features (Hazarika et al. 2020, section 3.2)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from harness.nn.recurrent import BiLSTM


class StackedBiLSTM(nn.Module):
    """Two bidirectional LSTMs with a layer norm between: x (B, T, width), lengths (B,) -> all final states, (B, 4 hidden)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.first = BiLSTM(width, hidden)
        self.norm = nn.LayerNorm(2 * hidden)
        self.second = BiLSTM(2 * hidden, hidden)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        states, below = self.first(x, lengths)
        _, above = self.second(self.norm(states), lengths)
        return torch.cat([below, above], dim=1)


class ClipVectors(nn.Module):
    """Text by the mean over its real tokens, every other modality by stacked bidirectional LSTMs.

    ``dims`` has the features' width by modality. ``recurrent`` is the LSTMs' width, unset: the features' own, as
    published. With ``text_recurrent`` LSTMs of that width read text too. ``widths`` says how wide each vector is:
    the features' width for a mean, four times the LSTM's for its states. ``orthogonal``: hidden-to-hidden weights
    start orthogonal.
    """

    def __init__(
        self, dims: Mapping[str, int], recurrent: int | None = None, text_recurrent: int | None = None, orthogonal: bool = False
    ) -> None:
        super().__init__()
        hidden = {name: recurrent or dim for name, dim in dims.items() if name != "text"}
        if text_recurrent and "text" in dims:
            hidden["text"] = text_recurrent
        self.widths = {name: 4 * hidden[name] if name in hidden else dim for name, dim in dims.items()}
        self.recurrent = nn.ModuleDict({name: StackedBiLSTM(dims[name], width) for name, width in hidden.items()})
        if orthogonal:
            for module in self.modules():
                if isinstance(module, BiLSTM):
                    module.orthogonal()

    def forward(self, features: Mapping[str, Tensor], lengths: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Features (B, T, dim), zero at padding, and lengths (B,) by modality -> (B, width) by modality."""
        return {
            name: self.recurrent[name](features[name], lengths[name])
            if name in self.recurrent
            else features[name].sum(1) / lengths[name][:, None]
            for name in self.widths
        }


def project(width: int, out: int) -> nn.Sequential:
    """To a width that all modalities share: Linear, ReLU, layer norm, (..., width) -> (..., out)."""
    return nn.Sequential(nn.Linear(width, out), nn.ReLU(), nn.LayerNorm(out))
