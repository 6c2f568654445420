"""TMBL: transformer-based multimodal binding learning."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from harness.nn.attention import embed
from harness.nn.divergences import orthogonality
from harness.nn.dropout import Dropout
from harness.nn.projected import ProjectedAttention
from harness.nn.utterances import ClipVectors, project
from harness.training import Batch, Inputs, LossWeights, Method, MethodConfig, Output, Task, Training, register_method
from harness.training.by_modality import Rate
from harness.training.ranges import tunable
from harness.training.settings import TaskLoss

PRIVATE = ("audio", "vision", "text")  # each is paired with the next one, the last with the first
SHARED = ("text", "vision", "audio")  # each is bound to the next one; they give query, key and value
TRAINING = {"learning_rate": 1e-4, "schedule": "plateau", "plateau_factor": 0.5, "plateau_patience": 6, "max_epochs": 300, "patience": 21}
NORM_EPSILON = 1e-6


class Weights(LossWeights):
    """Weights of TMBL's auxiliary losses."""

    difference: float = Field(0.5, ge=0, description="orthogonality of private and shared vectors")
    similarity: float = Field(0.5, ge=0, description="1 - cosine between the modalities' shared vectors")


class Options(MethodConfig):
    task_loss: TaskLoss | None = Field("mse", description="loss on the prediction; cross_entropy for classes")
    hidden: PositiveInt = Field(
        256, description="width of the tokens that are fused; even", json_schema_extra=tunable(choices=(64, 128, 256, 512))
    )
    layers: PositiveInt = Field(5, description="layers of every transformer", json_schema_extra=tunable(1, 6))
    heads: PositiveInt = Field(8, description="attention heads; must divide key_width and value_width")
    key_width: PositiveInt = Field(32, description="width of queries and keys, all heads together")
    value_width: PositiveInt = Field(64, description="width of values, all heads together")
    inner: PositiveInt = Field(
        512, description="hidden units of a layer's gated network, after the gate", json_schema_extra=tunable(128, 1024, log=True)
    )
    expansions: PositiveInt = Field(
        1, description="linear layers without activation between that widen for the gate; the authors' 2 need twice the memory"
    )
    dropout: Rate = Field(0.5, description="everywhere", json_schema_extra=tunable(0.0, 0.6))
    recurrent: PositiveInt | None = Field(None, description="width of the LSTMs of audio and vision; unset: the input's, as published")
    text_recurrent: PositiveInt | None = Field(None, description="width of LSTMs that read text; unset: the mean over tokens")
    as_published: bool = Field(False, description="attend over the clips of a batch; predictions then depend on the batch")
    weights: Weights = Weights()
    training: Training = Training(batch_size=64, **TRAINING)

    @model_validator(mode="after")
    def _widths_divide(self) -> Options:
        for name, width in {"key_width": self.key_width, "value_width": self.value_width}.items():
            if width % self.heads:
                raise ValueError(f"heads = {self.heads} does not divide {name} = {width}")
        if self.hidden % 2:
            raise ValueError(f"hidden = {self.hidden} is not even")
        return self


class Layer(nn.Module):
    """Post-norm attention, then a gated network whose gate is half of its own hidden layer; both residual.

    ``source`` None is self-attention with values as narrow as the keys, as the published private part has it.
    """

    def __init__(self, width: int, source: int | None, config: Options) -> None:
        super().__init__()
        from_, mixed = (width, config.key_width) if source is None else (source, config.value_width)
        options = {"heads": config.heads, "inner": config.key_width, "mixed": mixed, "dropout": config.dropout}
        self.attention = ProjectedAttention(width, from_, from_, bias=False, scale=config.key_width**-0.5, **options)  # type: ignore[arg-type]
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=NORM_EPSILON) for _ in range(2))
        inner = config.inner
        widen = (nn.Linear(inner * (1 if first else 2), 2 * inner) for first in [True] + [False] * (config.expansions - 1))
        self.up = nn.Sequential(nn.Linear(width, inner), *widen)
        self.down = nn.Linear(config.inner, width)
        self.drop = Dropout(config.dropout)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """query (B, T, width), key and value (B, T, source) -> (B, T, width)."""
        attend, feed = self.norms
        x = attend(query + self.drop(self.attention(query, key, value)))
        gate, up = self.up(x).chunk(2, dim=-1)
        return feed(x + self.drop(self.down(gate.relu() * up)))  # type: ignore[no-any-return]


class Start(nn.Module):
    """Sinusoidal positions, dropout, layer norm: (B, T, width) -> (B, T, width)."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.drop = Dropout(dropout)
        self.norm = nn.LayerNorm(width, eps=NORM_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.drop(x + embed(torch.zeros_like(x), positions=True)))  # type: ignore[no-any-return]


class Pair(nn.Module):
    """The private part of two modalities: (B, T, first), (B, T, second) -> the same shapes, each stream after all layers."""

    def __init__(self, first: int, second: int, config: Options) -> None:
        super().__init__()
        self.alone = config.as_published
        self.starts = nn.ModuleList(Start(width, config.dropout) for width in (first, second))
        sources = (None, None) if self.alone else (second, first)
        self.first = nn.ModuleList(Layer(first, sources[0], config) for _ in range(config.layers))
        self.second = nn.ModuleList(Layer(second, sources[1], config) for _ in range(config.layers))

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        x, y = (start(stream) for start, stream in zip(self.starts, (x, y), strict=True))
        for first, second in zip(self.first, self.second, strict=True):
            x, y = (first(x, x, x), second(y, y, y)) if self.alone else (first(x, y, y), second(y, x, x))
        return x, y


class Shared(nn.Module):
    """The shared part: N streams (B, T, width), all of whose layers have the same query, key and value streams.

    Query is the first stream, key the second, value the third; with fewer streams the last one stands in.
    """

    def __init__(self, streams: int, config: Options) -> None:
        super().__init__()
        self.starts = nn.ModuleList(Start(config.hidden, config.dropout) for _ in range(streams))
        self.layers = nn.ModuleList(
            nn.ModuleList(Layer(config.hidden, config.hidden, config) for _ in range(streams)) for _ in range(config.layers)
        )

    def forward(self, streams: list[Tensor]) -> list[Tensor]:
        streams = [start(x) for start, x in zip(self.starts, streams, strict=True)]
        for row in self.layers:
            query, key, value = streams[0], streams[:2][-1], streams[-1]
            assert isinstance(row, nn.ModuleList)
            streams = [layer(query, key, value) for layer in row]
        return streams


@register_method("tmbl")
class TMBL(Method):
    """Private transformers of two modalities each, and a shared one over bound modalities (Huang et al. 2024).

    Parameters at ``mosi`` with 768/5/20: 39,571,333, 1.1 GB while training. The authors widen each gate by two linear layers
    with no activation between, which express no more than one: ``expansions`` 2 restores them, 86,803,333 and 1.8 GB; with
    the authors' 768/74/47 features 91,983,973. Their 210,113,077, which leave BERT out, are 91,424,613 that are trained and
    118,688,464 that no gradient reaches: transformers made and not called, one of two attentions in each layer, two mixers,
    a layer norm. From the 91,424,613 (those of ``as_published``) the 91,983,973 differ by 801,280 more in the private part,
    whose attention is cross-modal, and 241,920 fewer, since a token's position is no parameter of a place in the batch.

    A clip's vector stands twice in every stream, as published; here the two are a sequence of their own, told apart by
    their positions. Left open and read so:

    * A modality is bound to the next one by their sum (the authors' code for batches that it cannot halve).
    * Of two modalities, each is paired with the other twice; one is paired with itself and bound to none.
    * In the difference loss a clip's vector is the mean of its two tokens; the similarity loss is a mean over tokens.
    * Classes have as many output channels; features that stay as they are can be read by LSTMs: ``text_recurrent``.
    * Audio and vision are z-scored over the training split (the authors' files: per clip). Learning rate: see PS-Mixer.

    Faults of the published code that are not reproduced:

    * The sequence of its attention is the batch. ``as_published`` restores this, with it bound vectors that are half of
      one modality's clips and half of the other's, self-attention in the private part, and tokens and positions that
      belong to places in the batch and are left out when a batch is not full.
    * A layer's 1 x 1 convolution across the clips of a batch of 32 (on UR-FUNNY); a difference loss that is constant,
      since it compares the two copies of the whole batch. Neither is part of ``as_published``.
    * Every 10th epoch the best weights are loaded into the model that trains.

    Representations: ``private_<modality>`` and ``shared_<modality>``, (B, hidden).
    """

    Config = Options
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "mosi": {},
        "mosei": {"training": {"batch_size": 48, **TRAINING}},
        "ur_funny": {"training": {"batch_size": 32, **TRAINING}},
    }
    reference = "Huang et al. 2024, TMBL: Transformer-based Multimodal Binding Learning Model, Knowledge-Based Systems"

    def __init__(self, inputs: Inputs, task: Task, config: Options) -> None:
        super().__init__(inputs, task, config)
        self.task, self.config = task, config
        self.read = ClipVectors(inputs.dims, config.recurrent, config.text_recurrent)
        widths, hidden = self.read.widths, config.hidden
        self.order, self.ring = ([name for name in names if name in widths] for names in (PRIVATE, SHARED))
        self.private = nn.ModuleDict({name: Pair(widths[name], widths[after], config) for name, after in following(self.order).items()})
        self.narrow = nn.ModuleDict({name: nn.Linear(width, hidden) for name, width in widths.items()})
        self.project = nn.ModuleDict({name: project(width, hidden) for name, width in widths.items()})
        self.shared = Shared(len(widths), config)
        places = config.training.batch_size if config.as_published else 1
        self.mark = nn.Parameter(torch.zeros(places, 1, hidden))
        self.positions = nn.Parameter(torch.zeros(places, 4 * len(widths) + 2, hidden))
        self.out = nn.Sequential(
            *(nn.Conv1d(hidden, hidden // 2, 3, padding=1), nn.ReLU()),
            *(nn.Conv1d(hidden // 2, hidden // 2, 3, padding=1), Dropout(config.dropout), nn.ReLU()),
            nn.Conv1d(hidden // 2, task.outputs, 3, padding=1),
        )

    def forward(self, batch: Batch) -> Output:
        vectors = self.read(batch.features, batch.lengths)
        private, shared = self._private(vectors), self._shared(vectors)
        y = self.out(self._sequence(private, shared).transpose(1, 2)).mean(2)
        named = {f"private_{name}": x.mean(1) for name, x in private.items()} | {f"shared_{name}": x.mean(1) for name, x in shared.items()}
        return Output(y.squeeze(1) if self.task.kind == "regression" else y, self._losses(private, shared), named)

    def _private(self, vectors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Two tokens by modality, (B, 2, hidden): the mean of what its two pairs make of them."""
        twice = {name: self._pairwise(x, x) for name, x in vectors.items()}
        found: dict[str, list[Tensor]] = {name: [] for name in self.order}
        for name, after in following(self.order).items():
            for owner, x in zip((name, after), self.private[name](twice[name], twice[after]), strict=True):
                found[owner].append(x)
        return {name: self._by_clip(self.narrow[name](torch.stack(xs).mean(0))) for name, xs in found.items()}

    def _shared(self, vectors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Two tokens by modality, (B, 2, hidden): from its vector bound to the next modality's, and from its own."""
        own = {name: self.project[name](vectors[name]) for name in self.ring}
        streams = [self._pairwise(self._bind(own[name], own[after]), own[name]) for name, after in following(self.ring).items()]
        return {name: self._by_clip(x) for name, x in zip(self.ring, self.shared(streams), strict=True)}

    def _bind(self, one: Tensor, other: Tensor) -> Tensor:
        half = len(one) // 2
        if self.config.as_published and len(one) == 2 * half:
            return torch.cat([one[:half], other[:half]])
        return one + other if one is not other else one

    def _pairwise(self, one: Tensor, other: Tensor) -> Tensor:
        """Two vectors (B, D) of a clip as a sequence, (B, 2, D); ``as_published`` as two sequences over clips, (2, B, D)."""
        return torch.stack([one, other], dim=0 if self.config.as_published else 1)

    def _by_clip(self, x: Tensor) -> Tensor:
        return x.transpose(0, 1) if self.config.as_published else x

    def _sequence(self, private: Mapping[str, Tensor], shared: Mapping[str, Tensor]) -> Tensor:
        """All tokens of a clip with a mark after each part, (B, 4 modalities + 2, hidden)."""
        parts = [torch.cat(list(tokens.values()), dim=1) for tokens in (private, shared)]
        clips = len(parts[0])
        if self.config.as_published and clips != len(self.mark):
            return torch.cat(parts, dim=1)
        mark = self.mark.expand(clips, -1, -1)
        return torch.cat([parts[0], mark, parts[1], mark], dim=1) + self.positions

    def _losses(self, private: Mapping[str, Tensor], shared: Mapping[str, Tensor]) -> dict[str, Tensor]:
        apart = [(private[name], shared[name]) for name in self.order] + list(combinations(private.values(), 2))
        alike = [1 - F.cosine_similarity(x, y, dim=2).mean() for x, y in combinations(shared.values(), 2)]
        return {
            "difference": torch.stack([orthogonality(x.mean(1), y.mean(1)) for x, y in apart]).sum(),
            "similarity": torch.stack(alike).mean() if alike else private[self.order[0]].new_zeros(()),
        }


def following(names: list[str]) -> dict[str, str]:
    """The name that comes after each one, the first after the last."""
    return dict(zip(names, names[1:] + names[:1], strict=True))
