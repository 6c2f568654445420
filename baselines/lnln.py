"""LNLN: the language-dominated noise-resistant learning network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from harness.nn.adversarial import Discriminator, reverse_gradient
from harness.nn.attention import attention_mask
from harness.nn.projected import ProjectedAttention, attend
from harness.training import Batch, Inputs, LossWeights, Method, MethodConfig, Output, Task, Training, register_method
from harness.training.by_modality import ByModality
from harness.training.ranges import tunable
from harness.training.settings import TaskLoss

CHECK_HIDDEN = 64  # units of the completeness head and of the discriminator: fixed in the published code


class Weights(LossWeights):
    """Weights of LNLN's auxiliary losses (Zhang et al. 2024)."""

    completeness: float = Field(0.9, ge=0, description="mean squared error of the estimated completeness of the dominant modality")
    adversarial: float = Field(0.8, ge=0, description="cross-entropy of the effectiveness discriminator")
    reconstruction: float = Field(0.1, ge=0, description="mean squared error of the complete input's tokens, from the incomplete ones")


class Options(MethodConfig):
    task_loss: TaskLoss | None = Field("mse", description="loss on the prediction; cross_entropy for classes")
    dominant: Literal["text", "audio", "vision"] = Field("text", description="modality to correct; where the data lack it, their first one")
    width: PositiveInt = Field(
        128, description="width of every token; heads must divide it", json_schema_extra=tunable(choices=(64, 128, 256))
    )
    tokens: PositiveInt = Field(8, description="tokens that stand for one modality")
    depth: PositiveInt = Field(
        2, description="layers of each transformer; the hyper-modality has one more", json_schema_extra=tunable(1, 4)
    )
    fusion_depth: PositiveInt = Field(2, description="layers of the fusion transformer", json_schema_extra=tunable(1, 4))
    heads: PositiveInt = Field(8, description="attention heads")
    head_width: PositiveInt = Field(64, description="width of one head; in the hyper-modality's layers it is width / heads")
    inner: PositiveInt = Field(128, description="hidden units of a layer's two-layer network", json_schema_extra=tunable(64, 512, log=True))
    longest: ByModality[PositiveInt] = Field(
        ByModality[PositiveInt](text=50, audio=375, vision=500), description="steps with a learned position of their own"
    )
    complete_share: float = Field(0.5, ge=0, le=1, description="share of training clips that are left complete, by modality")
    reversal: float = Field(1.0, ge=0, description="factor of the reversed gradient")
    as_published: bool = Field(False, description="reverse every loss's gradient at the proxy, not only the discriminator's")
    weights: Weights = Weights()
    training: Training = Training(
        batch_size=64, optimiser="adamw", learning_rate=1e-4, weight_decay=1e-4, schedule="cosine", warmup=0.1, max_epochs=200, patience=200
    )

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Options:
        if self.width % self.heads:
            raise ValueError(f"heads = {self.heads} does not divide width = {self.width}")
        return self


class Layer(nn.Module):
    """Pre-norm attention, then a two-layer network, both residual; query, key and value have layer norms of their own."""

    def __init__(self, config: Options) -> None:
        super().__init__()
        width, mixed = config.width, config.heads * config.head_width
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.attention = ProjectedAttention(width, width, width, heads=config.heads, inner=mixed, mixed=mixed)
        self.feed = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, config.inner), nn.GELU(), nn.Linear(config.inner, width))

    def forward(self, query: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
        """query (B, Tq, width) looks at source (B, Tk, width) -> (B, Tq, width)."""
        q, k, v = self.norms
        x = query + self.attention(q(query), k(source), v(source), mask)
        return x + self.feed(x)  # type: ignore[no-any-return]


class Placed(nn.Module):
    """Learned tokens in front of a sequence, learned positions on both: x (B, T, width) -> (B, extra + T, width).

    There are ``steps`` positions; the steps after them share the last one, so that a longer clip is still read whole.
    """

    def __init__(self, width: int, steps: int, extra: int) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(extra + steps, width))
        self.extra = nn.Parameter(torch.zeros(extra, width)) if extra else None

    def forward(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        """``extra`` (N, width): tokens in place of the module's own."""
        extra = self.extra if extra is None else extra
        if extra is not None:
            x = torch.cat([extra.expand(len(x), -1, -1), x], dim=1)
        place = torch.arange(x.shape[1], device=x.device).clamp(max=len(self.positions) - 1)
        return x + self.positions[place]


class Transformer(nn.Module):
    """``depth`` layers of self-attention over x (B, T, width) with ``extra`` learned tokens in front."""

    def __init__(self, config: Options, steps: int, extra: int = 0) -> None:
        super().__init__()
        self.placed = Placed(config.width, steps, extra)
        self.extra = extra
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.depth))

    def states(self, x: Tensor) -> list[Tensor]:
        """What the first layer reads and what each layer gives, each (B, extra + T, width)."""
        states = [self.placed(x)]
        for layer in self.layers:
            states.append(layer(states[-1], states[-1]))
        return states

    def forward(self, x: Tensor, keep: int, lengths: Tensor | None = None) -> Tensor:
        """The first ``keep`` tokens, (B, keep, width); the top layer computes no other. Keys past ``lengths`` (B,) are not seen."""
        x = self.placed(x)
        mask = None
        if lengths is not None:
            seen = lengths + self.extra
            mask = attention_mask(x[:, :1], x, seen, seen)  # one row: every query sees the same keys
        *below, top = self.layers
        for layer in below:
            x = layer(x, x, mask)
        return top(x[:, :keep], x, mask)  # type: ignore[no-any-return]


class HyperLayer(nn.Module):
    """The dominant modality looks at every other one; the sum of what it sees is added to the normed hyper-modality."""

    def __init__(self, config: Options, sources: tuple[str, ...]) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.norms = nn.ModuleDict({name: nn.LayerNorm(width) for name in ("dominant", "hyper", *sources)})
        self.query = nn.Linear(width, width, bias=False)
        self.keys = nn.ModuleDict({name: nn.Linear(width, width, bias=False) for name in sources})
        self.values = nn.ModuleDict({name: nn.Linear(width, width, bias=False) for name in sources})
        self.out = nn.Linear(width, width)

    def forward(self, hyper: Tensor, dominant: Tensor, others: Mapping[str, Tensor]) -> Tensor:
        """All (B, tokens, width)."""
        q = self.query(self.norms["dominant"](dominant))
        normed = {name: self.norms[name](others[name]) for name in self.keys}
        seen = [attend(q, self.keys[name](x), self.values[name](x), self.heads) for name, x in normed.items()]
        return self.norms["hyper"](hyper) + self.out(torch.stack(seen).sum(0))  # type: ignore[no-any-return]


class Fusion(nn.Module):
    """The corrected dominant modality looks at the hyper-modality: both (B, tokens, width) -> mean token, (B, width).

    One learned token stands in front of both; the mean leaves it out.
    """

    def __init__(self, config: Options) -> None:
        super().__init__()
        self.source = Placed(config.width, config.tokens, 1)
        self.target = Placed(config.width, config.tokens + 1, 0)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.fusion_depth))

    def forward(self, hyper: Tensor, dominant: Tensor) -> Tensor:
        source: Tensor = self.source(hyper)
        x: Tensor = self.target(dominant, self.source.extra)
        for layer in self.layers:
            x = layer(x, source)
        return x[:, 1:].mean(1)


@register_method("lnln")
class LNLN(Method):
    """A dominant modality, corrected where it is incomplete, leads the fusion (Zhang et al. 2024).

    Parameters at ``mosi`` with 768/5/20: 6,483,012, the published code's without its text encoder. Of these, the 128 of
    the position of the token before the fusion's target have no effect: nothing looks at that token.

    In training every clip loses frames: a rate per clip and modality is uniform in [0, 1], or 0 for ``complete_share``
    of the clips, and each frame is zeroed with that probability; ``missing.training`` would take frames from what should
    be complete, and is best left alone. In evaluation the input is read as it comes. Targets of the reconstruction are
    the tokens of the complete clip; they carry a gradient, as published. Left open and read so:

    * Lost words become zero vectors. The authors, who fine-tune BERT, replace the word by the unknown token.
    * Without the ``dominant`` modality the first one of the data leads; alone, it also feeds its own hyper-modality,
      and the proxy is made of learned tokens only. The number of other modalities is free.
    * Learned positions are as many as the peers' padded lengths; see ``longest``.
    * Proxy and hyper-modality tokens start from a standard normal distribution.

    Faults of the published code that are not reproduced:

    * The sign of every loss's gradient is reversed at the proxy, so the proxy is trained to make the prediction worse;
      here only the discriminator's is. ``as_published`` restores it.
    * Checkpoints were chosen by test score, one per metric; here by validation loss, after at most 200 epochs.
    * Masks were drawn once for most clips, from one fixed seed; here anew in every epoch from the run's own stream.
    * Attention looks at padding.

    Representations: each modality's mean token, that of the ``corrected`` dominant modality, and ``fused``; (B, width).
    """

    Config = Options
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "mosi": {},
        "mosei": {"fusion_depth": 4, "longest": {"text": 50, "audio": 500, "vision": 500}},
    }
    reference = "Zhang et al. 2024, Towards Robust Multimodal Sentiment Analysis with Incomplete Data, NeurIPS"

    def __init__(self, inputs: Inputs, task: Task, config: Options) -> None:
        super().__init__(inputs, task, config)
        self.task, self.config = task, config
        width, tokens = config.width, config.tokens
        self.dominant = config.dominant if config.dominant in inputs.dims else inputs.modalities[0]
        self.others = tuple(name for name in inputs.modalities if name != self.dominant)
        self.project = nn.ModuleDict({name: nn.Linear(dim, width) for name, dim in inputs.dims.items()})
        self.embed = nn.ModuleDict({name: Transformer(config, config.longest[name], tokens) for name in inputs.dims})
        self.check = Transformer(config, tokens, 1)
        self.completeness = nn.Sequential(
            nn.Linear(width, CHECK_HIDDEN), nn.LeakyReLU(0.1), nn.Linear(CHECK_HIDDEN, 1), nn.Sigmoid(), nn.Flatten(0)
        )
        self.proxy_tokens = nn.Parameter(torch.randn(tokens, width))
        self.proxy = Transformer(config, tokens * len(inputs.dims), tokens)
        self.discriminator = Discriminator(width, CHECK_HIDDEN, 2)
        self.lead = Transformer(config, tokens)
        self.hyper_tokens = nn.Parameter(torch.randn(tokens, width))
        self.hyper = nn.ModuleList(HyperLayer(config, self.others or (self.dominant,)) for _ in range(config.depth + 1))
        self.fusion = Fusion(config)
        self.reconstruct = nn.ModuleDict({name: Transformer(config, tokens) for name in inputs.dims})
        self.out = nn.Linear(width, task.outputs)

    def forward(self, batch: Batch) -> Output:
        complete = self._tokens(batch, batch.features)
        if not self.training:
            seen, rates = complete, {}
        else:
            rates = {name: missing_rates(x[:, 0, 0], self.config.complete_share) for name, x in batch.features.items()}
            seen = self._tokens(batch, {name: drop_frames(x, rates[name]) for name, x in batch.features.items()})
        weight = self.completeness(self.check(seen[self.dominant], keep=1))
        proxy = self._proxy(seen)
        if self.config.as_published:
            proxy = reverse_gradient(proxy, self.config.reversal)
        corrected = mix(weight, seen[self.dominant], proxy)
        fused = self._fuse(corrected, seen)
        y = self.out(fused)
        return Output(
            y.squeeze(1) if self.task.kind == "regression" else y,
            self._losses(weight, proxy, rates, seen, complete) if self.training else {},
            {name: x.mean(1) for name, x in seen.items()} | {"corrected": corrected.mean(1), "fused": fused},
        )

    def _tokens(self, batch: Batch, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Each modality's tokens, (B, tokens, width)."""
        keep = self.config.tokens
        return {name: embed(self.project[name](features[name]), keep, batch.lengths[name]) for name, embed in self.embed.items()}

    def _proxy(self, seen: Mapping[str, Tensor]) -> Tensor:
        """The dominant modality's tokens as the others suggest them, (B, tokens, width)."""
        start = self.proxy_tokens.expand(len(seen[self.dominant]), -1, -1)
        return self.proxy(torch.cat([start, *(seen[name] for name in self.others)], dim=1), keep=self.config.tokens)  # type: ignore[no-any-return]

    def _fuse(self, corrected: Tensor, seen: Mapping[str, Tensor]) -> Tensor:
        hyper = self.hyper_tokens.expand(len(corrected), -1, -1)
        states = self.lead.states(corrected)
        for layer, state in zip(self.hyper, states, strict=True):
            hyper = layer(hyper, state, seen)
        return self.fusion(hyper, states[-1])  # type: ignore[no-any-return]

    def _losses(
        self, weight: Tensor, proxy: Tensor, rates: Mapping[str, Tensor], seen: Mapping[str, Tensor], complete: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        doubted = proxy if self.config.as_published else reverse_gradient(proxy, self.config.reversal)
        judged = torch.cat([mix(weight, seen[self.dominant], doubted), complete[self.dominant]])
        made = (torch.arange(len(judged), device=judged.device) < len(proxy)).long()  # 1: corrected, 0: a complete clip's own
        logits = self.discriminator(judged)
        errors = [F.mse_loss(rebuild(seen[name], keep=self.config.tokens), complete[name]) for name, rebuild in self.reconstruct.items()]
        return {
            "completeness": F.mse_loss(weight, 1 - rates[self.dominant]),
            "adversarial": F.cross_entropy(logits.flatten(0, 1), made.repeat_interleave(logits.shape[1])),
            "reconstruction": torch.stack(errors).mean(),
        }


def mix(weight: Tensor, dominant: Tensor, proxy: Tensor) -> Tensor:
    """The corrected modality, weight * dominant + (1 - weight) * proxy: weight (B,), tokens (B, N, width)."""
    share = weight[:, None, None]
    return share * dominant + (1 - share) * proxy


def missing_rates(like: Tensor, complete_share: float) -> Tensor:
    """Shares of frames to lose, uniform in [0, 1), but 0 with probability ``complete_share``; shaped as ``like`` (B,)."""
    damaged = torch.rand_like(like) >= complete_share
    return torch.rand_like(like) * damaged


def drop_frames(x: Tensor, rates: Tensor) -> Tensor:
    """x (B, T, D) with each frame zeroed with its clip's probability, rates (B,)."""
    return x * (torch.rand_like(x[..., 0]) >= rates[:, None])[..., None]
