"""MulT as it is usually written: padded batches, attention weights kept, dropout by booleans, every layer on every step.

What the library's model is timed against, and what its loss curves are held to: the same mathematics (Tsai et al. 2019), written down
a second time. Weights are copied from the library's model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.mult import MulT
from harness.nn.attention import Attention, Encoder, EncoderLayer


def hidden_keys(queries: int, keys: int, query_lengths: Tensor, key_lengths: Tensor) -> Tensor:
    """True where a query may not look, (B, queries, keys): at padding, and at what comes later than its own time."""
    i, j = torch.arange(queries)[None, :, None], torch.arange(keys)[None, None, :]
    ahead = (key_lengths - query_lengths).abs()[:, None, None]
    return (j >= key_lengths[:, None, None]) | (j > i + ahead)


def positions(steps: int, width: int) -> Tensor:
    """Sines in the first half of the columns, cosines in the second: (steps, width), width even."""
    half = width // 2
    angles = torch.arange(1, steps + 1)[:, None] / 10000 ** (torch.arange(half, dtype=torch.float64) / (half - 1))
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class PlainAttention(nn.Module):
    """Query, key and value by layers of their own; weights (B, heads, Tq, Tk) in full."""

    def __init__(self, ours: Attention) -> None:
        super().__init__()
        width = ours.outward.in_features
        self.heads, self.p = ours.heads, ours.dropout
        self.inward = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.outward = nn.Linear(width, width)
        parts = zip(self.inward, ours.inward.weight.chunk(3), ours.inward.bias.chunk(3), strict=True)
        for linear, weight, bias in [*parts, (self.outward, ours.outward.weight, ours.outward.bias)]:
            with torch.no_grad():
                linear.weight.copy_(weight)
                linear.bias.copy_(bias)

    def forward(self, query: Tensor, source: Tensor, hidden: Tensor) -> Tensor:
        b, steps, width = query.shape
        parts = zip(self.inward, (query, source, source), strict=True)
        q, k, v = (linear(x).view(b, -1, self.heads, width // self.heads).transpose(1, 2) for linear, x in parts)
        scores = q @ k.transpose(2, 3) / math.sqrt(width // self.heads)
        weights = F.dropout(scores.masked_fill(hidden[:, None], -math.inf).softmax(-1), self.p, self.training)
        mixed: Tensor = self.outward((weights @ v).transpose(1, 2).reshape(b, steps, width))
        return mixed


class PlainLayer(nn.Module):
    def __init__(self, ours: EncoderLayer) -> None:
        super().__init__()
        width, inner = ours.feed[0].in_features, ours.feed[0].out_features
        self.attention = PlainAttention(ours.attention)
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)
        for mine, theirs in zip((self.before, self.between, self.up, self.down), (*ours.norms, ours.feed[0], ours.feed[3]), strict=True):
            mine.load_state_dict(theirs.state_dict())

    def forward(self, query: Tensor, source: Tensor, hidden: Tensor) -> Tensor:
        x = query + self.attention(self.before(query), self.before(source), hidden)
        return x + self.down(F.relu(self.up(self.between(x))))  # type: ignore[no-any-return]


class PlainEncoder(nn.Module):
    """Without dropout on activations and residual branches, which MulT's presets do not have."""

    def __init__(self, ours: Encoder) -> None:
        super().__init__()
        self.p = ours.drop.p
        self.layers = nn.ModuleList(PlainLayer(layer) for layer in ours.layers)
        self.norm = nn.LayerNorm(ours.norm.normalized_shape)
        self.norm.load_state_dict(ours.norm.state_dict())

    def forward(self, target: Tensor, source: Tensor, hidden: Tensor) -> Tensor:
        """From one modality to another; with one tensor twice, within a modality, where every layer looks at the layer below."""
        within = source is target
        x = F.dropout(target, self.p, self.training)
        source = x if within else F.dropout(source, self.p, self.training)
        for layer in self.layers:
            x = layer(x, x if within else source, hidden)
        return self.norm(x)  # type: ignore[no-any-return]


class PlainMulT(nn.Module):
    """Features (B, T, width) zero at padding and lengths (B,) by modality -> intensities (B,)."""

    def __init__(self, ours: MulT) -> None:
        super().__init__()
        self.config, self.names = ours.config, ours.modalities
        self.project = nn.ModuleDict()
        for name, layer in ours.project.items():
            theirs = layer.conv
            size = theirs.kernel_size[0]
            self.project[name] = nn.Conv1d(theirs.in_channels, theirs.out_channels, size, padding=size // 2, bias=False)
            self.project[name].load_state_dict(theirs.state_dict())
        self.cross = nn.ModuleDict({name: PlainEncoder(encoder) for name, encoder in ours.cross.items()})
        self.memory = nn.ModuleDict({name: PlainEncoder(encoder) for name, encoder in ours.memory.items()})
        fused = ours.out.in_features
        self.up, self.down, self.out = nn.Linear(fused, fused), nn.Linear(fused, fused), nn.Linear(fused, 1)
        for mine, theirs in zip((self.up, self.down, self.out), (ours.residual[0], ours.residual[3], ours.out), strict=True):
            mine.load_state_dict(theirs.state_dict())

    def forward(self, features: Mapping[str, Tensor], lengths: Mapping[str, Tensor]) -> Tensor:
        embedded = {name: self._embed(self._stream(name, features[name])) for name in self.names}
        last = []
        for target in self.names:
            others = [source for source in self.names if source != target]
            seen = [self._look(self.cross[f"{target}_from_{source}"], target, source, embedded, lengths) for source in others]
            joint = self._embed(torch.cat(seen, dim=2))
            memory = self._look(self.memory[target], target, target, {target: joint}, lengths)
            last.append(memory[torch.arange(len(memory)), lengths[target] - 1])
        fused = torch.cat(last, dim=1)
        hidden = F.dropout(F.relu(self.up(fused)), self.config.output_dropout, self.training)
        return self.out(fused + self.down(hidden)).squeeze(1)  # type: ignore[no-any-return]

    def _stream(self, name: str, x: Tensor) -> Tensor:
        dropped = F.dropout(x, self.config.text_dropout, self.training) if name == "text" else x
        return self.project[name](dropped.transpose(1, 2)).transpose(1, 2)  # type: ignore[no-any-return]

    def _embed(self, x: Tensor) -> Tensor:
        return x * math.sqrt(x.shape[2]) + positions(x.shape[1], x.shape[2]).to(x.dtype)

    def _look(self, encoder: nn.Module, target: str, source: str, x: Mapping[str, Tensor], lengths: Mapping[str, Tensor]) -> Tensor:
        hidden = hidden_keys(x[target].shape[1], x[source].shape[1], lengths[target], lengths[source])
        return encoder(x[target], x[source], hidden)  # type: ignore[no-any-return]
