"""Fusion step by step: common time steps for all modalities, LSTMs that show their cells, and a gated memory over them.

The parts of the memory fusion network (Zadeh et al. 2018) and of its relatives. Nothing here looks at padding: from the LSTMs on,
all real steps of a batch are rows, in the ``Order`` of ``harness.nn.lstm``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from harness.nn.dropout import dropout
from harness.nn.lstm import Order, lstm, order


def align(features: Mapping[str, Tensor], lengths: Mapping[str, Tensor], longest: int | None = None) -> tuple[dict[str, Tensor], Tensor]:
    """All modalities on the same steps: features (B, T_m, D_m), zero at padding, and lengths (B,) -> (B, T, D_m) each, and (B,).

    For methods whose papers read word-aligned data. A clip has as many steps as text has; without text, as its longest
    modality has; at most ``longest``. Every other modality is averaged over each step's share of the clip (``resample``),
    which changes nothing where the lengths agree already.
    """
    guide = "text" if "text" in features else next(iter(features)) if len(features) == 1 else None
    steps = lengths[guide] if guide else torch.stack(list(lengths.values())).amax(0)
    total = max(x.shape[1] for name, x in features.items() if guide in (None, name))
    if longest is not None and total > longest:
        guide, steps, total = None, steps.clamp(max=longest), longest
    return {name: x if name == guide else resample(x, lengths[name], steps, total) for name, x in features.items()}, steps


def resample(x: Tensor, lengths: Tensor, steps: Tensor, total: int) -> Tensor:
    """Each clip's ``lengths`` frames as ``steps`` means: x (B, L, D), lengths and steps (B,) -> (B, total, D), zero at padding.

    Step s of n is the mean of the frames that meet the part [s / n, (s + 1) / n) of the clip, as in adaptive average
    pooling: neighbours are averaged where there are more frames than steps, frames repeat where there are fewer.
    """
    s = torch.arange(total, device=x.device)
    length, n = lengths[:, None], steps[:, None]
    start = torch.minimum(s * length // n, length)
    end = torch.minimum(((s + 1) * length + n - 1) // n, length)
    # Differences of running sums cost as little for long clips as for short ones; in double, they lose nothing.
    sums = F.pad(x.cumsum(1, dtype=torch.float64), (0, 0, 1, 0))
    inside = _at(sums, end) - _at(sums, start)
    return (inside / (end - start).clamp(min=1)[..., None]).to(x.dtype)


def _at(x: Tensor, index: Tensor) -> Tensor:
    """x (B, L, D), index (B, T) -> (B, T, D)."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[2]))


@dataclass(frozen=True)
class Hidden:
    """The hidden layer of a two-layer network: its width and the dropout on it."""

    width: PositiveInt
    dropout: Annotated[float, Field(ge=0, lt=1)]


class TwoLayers(nn.Module):
    """Linear, ReLU, dropout, linear: (..., width) -> (..., out)."""

    def __init__(self, width: int, hidden: Hidden, out: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, hidden.width)
        self.outer = nn.Linear(hidden.width, out)
        self.dropout = hidden.dropout

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(dropout(self.inner(x).relu(), self.dropout, self.training))  # type: ignore[no-any-return]


class CellLSTM(nn.Module):
    """A one-layer LSTM that shows its cells: rows x (N, width) of real steps -> hidden states and cell states, (N, hidden) each.

    It has the parameters of ``nn.LSTM(width, hidden)``, which keeps all cell states but the last to itself.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, hidden, batch_first=True)

    def forward(self, x: Tensor, rows: Order) -> tuple[Tensor, Tensor]:
        return lstm(self.lstm, x, rows)


def with_previous(states: Tensor, rows: Order) -> Tensor:
    """Each step's state behind the one before it, zero before the first: (N, D) -> (N, 2 D)."""
    return torch.cat([rows.previous(states), states], dim=1)


class DeltaAttention(nn.Module):
    """Delta-memory attention: cells of all views side by side (N, D) -> attended cells (N, 2 D).

    A softmax over the 2 D entries of two successive steps weighs each of them (Zadeh et al. 2018, the DMAN). It needs no
    state but the LSTMs', so all steps are computed at once.
    """

    def __init__(self, width: int, hidden: Hidden) -> None:
        super().__init__()
        self.score = TwoLayers(2 * width, hidden, 2 * width)

    def forward(self, cells: Tensor, rows: Order) -> Tensor:
        both = with_previous(cells, rows)
        return self.score(both).softmax(dim=1) * both  # type: ignore[no-any-return]


class GatedMemory(nn.Module):
    """Multi-view gated memory u: what is seen at each step (N, width) -> the memory after each step (N, memory).

    u_t = keep * u_{t-1} + write * tanh(candidate(seen_t)), from zero; both gates are sigmoids of two-layer networks that
    read [seen_t; u_{t-1}] (Zadeh et al. 2018, the MGM, as in the authors' code). Only the memory's own share is computed
    step by step.
    """

    def __init__(self, width: int, memory: int, candidate: Hidden, keep: Hidden, write: Hidden) -> None:
        super().__init__()
        self.candidate = TwoLayers(width, candidate, memory)
        self.keep = TwoLayers(width + memory, keep, memory)
        self.write = TwoLayers(width + memory, write, memory)

    def forward(self, seen: Tensor, rows: Order) -> Tensor:
        keep, write, width = self.keep.inner, self.write.inner, seen.shape[1]
        weight = torch.cat([keep.weight, write.weight])
        outside = F.linear(seen, weight[:, :width], torch.cat([keep.bias, write.bias]))
        recurrent = weight[:, width:].T
        candidates = self.candidate(seen).tanh()
        u = candidates.new_zeros(rows.counts[0], candidates.shape[1])
        memories = []
        steps = (torch.split(x, rows.counts) for x in (outside, self._kept(outside), candidates))
        for now, kept, candidate in zip(*steps, strict=True):
            u = u[: len(now)]
            hidden = torch.addmm(now, u, recurrent).relu() * kept
            of_keep, of_write = hidden[:, : keep.out_features], hidden[:, keep.out_features :]
            u = self.keep.outer(of_keep).sigmoid() * u + self.write.outer(of_write).sigmoid() * candidate
            memories.append(u)
        return torch.cat(memories)

    def _kept(self, like: Tensor) -> Tensor:
        """Dropout's factors for the hidden units of both gates, drawn for all steps at once; as ``like`` (N, units)."""
        ones = torch.ones_like(like)
        of_keep, of_write = ones[:, : self.keep.inner.out_features], ones[:, self.keep.inner.out_features :]
        kept = [dropout(of_keep, self.keep.dropout, self.training), dropout(of_write, self.write.dropout, self.training)]
        return torch.cat(kept, dim=1)


class MemoryFusion(nn.Module):
    """The memory fusion network up to its output: one LSTM per view, delta-memory attention, gated memory.

    ``dims`` and ``hidden`` by modality; ``width`` is that of all final states side by side.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        hidden: Mapping[str, int],
        memory: int,
        attention: Hidden,
        candidate: Hidden,
        keep: Hidden,
        write: Hidden,
    ) -> None:
        super().__init__()
        views = sum(hidden[name] for name in dims)
        self.width = views + memory
        self.views = nn.ModuleDict({name: CellLSTM(dim, hidden[name]) for name, dim in dims.items()})
        self.attention = DeltaAttention(views, attention)
        self.memory = GatedMemory(2 * views, memory, candidate, keep, write)

    def forward(self, features: Mapping[str, Tensor], lengths: Tensor) -> dict[str, Tensor]:
        """Features (B, T, dim) on common steps, lengths (B,) -> each view's and the ``memory``'s state at the last real step, (B, .)."""
        rows = order(lengths, next(iter(features.values())).shape[1])
        states = {name: view(rows.pack(features[name]), rows) for name, view in self.views.items()}
        memory = self.memory(self.attention(torch.cat([cells for _, cells in states.values()], dim=1), rows), rows)
        return {name: rows.ends(hidden) for name, (hidden, _) in states.items()} | {"memory": rows.ends(memory)}
