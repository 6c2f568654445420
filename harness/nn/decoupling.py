"""Layers and losses of the methods that split every modality's stream into a shared and a private part (DMD, DLF).

Streams are (B, T, width), by modality; every mean over steps is over a clip's real steps, then over clips, so that
no loss depends on padding and every clip weighs the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import permutations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.nn.attention import Dropouts, EncoderLayer, attention_mask, embed
from harness.nn.convolution import TimeConv
from harness.nn.dropout import Dropout, dropout

PRIOR_TEMPERATURE, EDGE_SCALE = 0.25, 1 / 8  # of a graph distillation unit: fixed in DMD's code


class Pointwise(nn.Module):
    """The same linear map without bias at every step, a convolution of kernel 1: x (B, T, width) -> (B, T, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.linear(x)  # type: ignore[no-any-return]


class SelfEncoder(nn.Module):
    """MulT's encoder as self-attention, read at every step: x (B, T, width), mask (B, 1, T, T) -> (B, T, width)."""

    def __init__(self, width: int, heads: int, layers: int, drop: Dropouts, positions: bool) -> None:
        super().__init__()
        self.positions = positions
        self.drop = Dropout(drop.embedding)
        self.layers = nn.ModuleList(EncoderLayer(width, heads, 4 * width, drop) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.drop(embed(x, self.positions))
        for layer in self.layers:
            x = layer(x, x, mask)
        return self.norm(x)  # type: ignore[no-any-return]


class ResidualHead(nn.Module):
    """x (B, width) -> prediction (B, outputs) and hidden x + W2 Drop(ReLU(W1 x)), (B, width)."""

    def __init__(self, width: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(width, width), nn.ReLU(), Dropout(dropout), nn.Linear(width, width))
        self.out = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = x + self.branch(x)
        return self.out(hidden), hidden


class SigmoidFusion(nn.Module):
    """sigmoid(W v) of every vector v (B, width), side by side, through a ``ResidualHead``; returns what that returns."""

    def __init__(self, widths: Iterable[int], outputs: int, dropout: float) -> None:
        super().__init__()
        self.squeeze = nn.ModuleList(nn.Linear(width, width) for width in widths)
        self.head = ResidualHead(sum(layer.out_features for layer in self.squeeze), outputs, dropout)  # type: ignore[misc]

    def forward(self, vectors: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
        squeezed = [layer(v).sigmoid() for layer, v in zip(self.squeeze, vectors, strict=True)]
        return self.head(torch.cat(squeezed, dim=1))  # type: ignore[no-any-return]


class FlatHead(nn.Module):
    """flat (B, width) -> prediction (B, outputs) and code W1 flat, (B, code), from flat + W2 Drop(ReLU(code))."""

    def __init__(self, width: int, code: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.down = nn.Linear(width, code)
        self.up = nn.Sequential(nn.ReLU(), Dropout(dropout), nn.Linear(code, width))
        self.out = nn.Linear(width, outputs)

    def forward(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        code = self.down(flat)
        return self.out(flat + self.up(code)), code


@dataclass(frozen=True)
class Parts:
    """A batch's streams by modality: as projected, what all modalities share of each, what is its own."""

    whole: Mapping[str, Tensor]
    shared: Mapping[str, Tensor]
    private: Mapping[str, Tensor]


class Decoupling(nn.Module):
    """Projects every modality to ``width`` channels and splits it in two (Li et al. 2023, feature decoupling).

    ``private`` makes one encoder per modality, ``shared`` is one for all; an encoder takes a stream and the mask of
    its self-attention. ``steps`` by modality is how many steps the alignment layer reads (see ``flatten``). One
    modality alone is aligned with nothing, and there is no such layer then.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        width: int,
        kernels: Mapping[str, int],
        steps: Mapping[str, int],
        text_dropout: float,
        shared: nn.Module,
        private: Callable[[str], nn.Module],
    ) -> None:
        super().__init__()
        self.steps, self.text_dropout = {name: steps[name] for name in dims}, text_dropout
        self.project = nn.ModuleDict({name: TimeConv(dim, width, kernels[name]) for name, dim in dims.items()})
        self.shared = shared
        self.private = nn.ModuleDict({name: private(name) for name in dims})
        self.decode = nn.ModuleDict({name: nn.Linear(2 * width, width, bias=False) for name in dims})
        aligned = dims if len(dims) > 1 else ()
        self.align = nn.ModuleDict({name: nn.Linear(steps[name] * width, width) for name in aligned})

    def forward(self, features: Mapping[str, Tensor], masks: Mapping[tuple[str, str], Tensor]) -> Parts:
        """Features (B, T, dim), zero at padding, and masks by (query, key) from ``masks_between``."""
        whole = {name: project(self._input(name, features[name])) for name, project in self.project.items()}
        shared = {name: self.shared(x, masks[name, name]) for name, x in whole.items()}
        private = {name: self.private[name](x, masks[name, name]) for name, x in whole.items()}
        return Parts(whole, shared, private)

    def _input(self, name: str, x: Tensor) -> Tensor:
        return dropout(x, self.text_dropout, self.training) if name == "text" else x

    def losses(
        self,
        parts: Parts,
        masks: Mapping[tuple[str, str], Tensor],
        real: Mapping[str, Tensor],
        labels: Tensor,
        margin: float,
    ) -> dict[str, Tensor]:
        """The four losses of the split; the first three are sums over modalities. ``real`` is True at real steps, (B, T).

        ``reconstruction``: squared error of the projection from both parts. ``cycle``: squared error between the
        private part and the private part of that reconstruction. ``orthogonality``: positive cosine of a step's two
        parts. ``margin``: see ``margin_loss``, over the aligned shared vectors.
        """
        rebuilt = {name: layer(torch.cat([parts.private[name], parts.shared[name]], 2)) for name, layer in self.decode.items()}
        again = {name: self.private[name](x, masks[name, name]) for name, x in rebuilt.items()}
        vectors = [layer(flatten(parts.shared[name], real[name], self.steps[name])) for name, layer in self.align.items()]
        return {
            "reconstruction": _total(squared_error(x, parts.whole[name], real[name]) for name, x in rebuilt.items()),
            "cycle": _total(squared_error(x, parts.private[name], real[name]) for name, x in again.items()),
            "orthogonality": _total(positive_cosine(parts.private[name], parts.shared[name], mask) for name, mask in real.items()),
            "margin": margin_loss(torch.stack(vectors), labels, margin) if vectors else rebuilt[next(iter(rebuilt))].new_zeros(()),
        }


class GraphDistillation(nn.Module):
    """Every modality learns from every other one, by weights that a network gives each clip (Li et al. 2023, GD-Unit).

    ``favoured`` holds pairs (student, teacher) that the prior prefers: softmax over all ordered pairs of 1 / .25 for
    these and 0 for others. ``away`` is the weight of a loss that turns a student's vector away from its teacher's,
    ``towards_prior`` that of the squared distance between mean edges and prior.

    The edge network has no bias: a softmax over pairs would not notice it.
    """

    prior: Tensor

    def __init__(
        self,
        modalities: Iterable[str],
        outputs: int,
        width: int,
        hidden: int,
        favoured: Collection[tuple[str, str]],
        towards_prior: float,
        away: float = 0.0,
    ) -> None:
        super().__init__()
        names = list(modalities)
        self.pairs = list(permutations(range(len(names)), 2))
        self.away, self.towards_prior = away, towards_prior
        self.read_prediction = nn.Linear(outputs, hidden)
        self.read_vector = nn.Linear(width, hidden)
        self.edge = nn.Linear(4 * hidden, 1, bias=False)
        preferred = torch.tensor([float((names[student], names[teacher]) in favoured) for student, teacher in self.pairs])
        self.register_buffer("prior", (preferred / PRIOR_TEMPERATURE).softmax(0), persistent=False)

    def edges(self, predictions: Tensor, vectors: Tensor) -> Tensor:
        """Weight of every pair (student, teacher), a distribution per clip: (M, B, outputs), (M, B, width) -> (pairs, B)."""
        z = torch.cat([self.read_prediction(predictions), self.read_vector(vectors)], dim=2)
        scores: Tensor = self.edge(torch.cat(self._ends(z), dim=2)).squeeze(2)
        return (scores * EDGE_SCALE).softmax(0)

    def forward(self, predictions: Tensor, vectors: Tensor) -> Tensor:
        """The distillation loss of M modalities' predictions (M, B, outputs) and vectors (M, B, width); a scalar.

        sum over pairs of (edge + prior) |student - teacher|, averaged over clips and outputs; no gradient reaches a
        teacher through what its student imitates.
        """
        edges = self.edges(predictions, vectors)
        weights = edges + self.prior[:, None]
        students, teachers = self._ends(predictions)
        loss = (weights * (students - teachers.detach()).abs().mean(2)).sum(0).mean()
        loss = loss + self.towards_prior * (edges.mean(1) - self.prior).square().sum()
        if self.away:
            students, teachers = self._ends(vectors)
            alike = F.cosine_similarity(students, teachers.detach(), dim=2).relu()
            loss = loss + self.away * (weights * alike).sum(0).mean()
        return loss

    def _ends(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Students and teachers of all pairs: (M, B, D) -> (pairs, B, D) twice."""
        students, teachers = zip(*self.pairs, strict=True)
        return x[list(students)], x[list(teachers)]


def masks_between(
    pairs: Iterable[tuple[str, str]], features: Mapping[str, Tensor], lengths: Mapping[str, Tensor], causal: bool
) -> dict[tuple[str, str], Tensor]:
    """``attention_mask`` for each pair (query, key) of modalities."""
    return {(query, key): attention_mask(features[query], features[key], lengths[query], lengths[key], causal) for query, key in set(pairs)}


def flatten(x: Tensor, real: Tensor, steps: int) -> Tensor:
    """The first ``steps`` steps as one vector, zeros where a clip is shorter: x (B, T, D), real (B, T) -> (B, steps D)."""
    kept = x.masked_fill(~real[..., None], 0.0)[:, :steps]
    return F.pad(kept, (0, 0, 0, steps - kept.shape[1])).flatten(1)


def squared_error(x: Tensor, y: Tensor, real: Tensor) -> Tensor:
    """Mean squared difference of x, y (B, T, D) over entries, real steps and clips; a scalar."""
    return _clip_mean((x - y).square().mean(2), real)


def positive_cosine(x: Tensor, y: Tensor, real: Tensor) -> Tensor:
    """Mean of max(0, cos(x, y)) over real steps and clips, x, y (B, T, D): 0 where all steps are orthogonal or opposed."""
    return _clip_mean(F.cosine_similarity(x, y, dim=2).relu(), real)


def margin_loss(vectors: Tensor, labels: Tensor, margin: float) -> Tensor:
    """Mean of max(0, margin |y_i - y_k| - cos(x_i, x_j) + cos(x_i, x_k)) over all triples; 0 where there is none.

    ``vectors`` (M, B, D) of M modalities, ``labels`` (B,). The positive j has the anchor's label and another modality,
    the negative k another label and the anchor's modality (Li et al. 2023, feature decoupling). Two different classes lie 1
    apart.
    """
    modalities, clips, _ = vectors.shape
    unit = F.normalize(vectors, dim=2)
    positive = unit.flatten(0, 1) @ unit.flatten(0, 1).T
    negative = (unit @ unit.transpose(1, 2)).flatten(0, 1)
    gap = _label_distance(labels)
    of = torch.arange(modalities, device=vectors.device).repeat_interleave(clips)
    is_positive = (gap == 0).repeat(modalities, modalities) & (of[:, None] != of)
    is_negative = (gap != 0).repeat(modalities, 1)
    hinge = (margin * gap.to(unit.dtype).repeat(modalities, 1)[:, None] - positive[..., None] + negative[:, None]).relu()
    chosen = is_positive[..., None] & is_negative[:, None]
    return (hinge * chosen).sum() / chosen.sum().clamp(min=1)


def _label_distance(labels: Tensor) -> Tensor:
    distance = (labels[:, None] - labels).abs()
    return distance if labels.is_floating_point() else distance.clamp(max=1)


def _clip_mean(values: Tensor, real: Tensor) -> Tensor:
    """Mean over each clip's real steps, then over clips: values, real (B, T) -> scalar."""
    return ((values * real).sum(1) / real.sum(1)).mean()


def _total(losses: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(losses)).sum()
