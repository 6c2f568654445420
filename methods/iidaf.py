"""IIDAF: invertible disentanglement of shared and specific factors, information constraints, guided adaptive fusion."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from harness.nn.attention import Dropouts, EncoderLayer, attention_mask, embed
from harness.nn.convolution import TimeConv
from harness.nn.dependence import (
    Critic,
    Discriminator,
    Terms,
    conditional_information,
    discrimination,
    draw_neighbour,
    gram,
    hsic_of_grams,
    info_nce,
)
from harness.nn.divergences import central_moments, cmd
from harness.nn.dropout import Dropout
from harness.nn.invertible import Disentangler, MaskKind, MaskPlace
from harness.nn.recurrent import last_step
from harness.training import Batch, Inputs, LossWeights, Method, MethodConfig, Output, Task, Training, register_method
from harness.training.by_modality import ByModality, Rate
from harness.training.ranges import tunable, untuned
from harness.training.settings import TaskLoss, TextEncoder

Vectors = Mapping[str, Tensor]  # one (B, D) tensor per modality


class Weights(LossWeights):
    """Weights of IIDAF's losses (eq. 23); without a letter of their own, L_R and L_C share lambda_5 (eq. 20)."""

    inversion: float = Field(0.1, ge=0, description="L_IN, lambda_1: inverse of the factors against what they came from")
    similarity: float = Field(0.05, ge=0, description="L_S, lambda_2: central moment discrepancy of the shared factors")
    independence: float = Field(0.3, ge=0, description="L_H, lambda_3: HSIC of specific factors, and of specific and shared ones")
    reconstruction: float = Field(0.2, ge=0, description="L_RE, lambda_4: encoded features against those before disentanglement")
    relevance: float = Field(0.1, ge=0, description="L_R, lambda_5: InfoNCE between shared factors, and with the label")
    redundancy: float = Field(0.1, ge=0, description="L_C, lambda_5: information of specific factors on the label, given shared ones")
    discrimination: float = Field(
        1.0, ge=0, description="cross-entropy that fits the discriminators of L_C, and them alone", json_schema_extra=untuned()
    )


def mlp(width: int, hidden: int, out: int, dropout: float = 0.0) -> nn.Sequential:
    """Two linear layers with GELU and dropout between."""
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), Dropout(dropout), nn.Linear(hidden, out))


class Transformer(nn.Module):
    """Self-attention layers of inner width 4 ``width`` and a last layer norm: x (B, T, width), mask -> (B, T, width)."""

    def __init__(self, width: int, heads: int, layers: int, dropout: float) -> None:
        super().__init__()
        drop = Dropouts(attention=dropout, activation=dropout, residual=dropout)
        self.drop = Dropout(dropout)
        self.layers = nn.ModuleList(EncoderLayer(width, heads, 4 * width, drop) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.drop(x)
        for layer in self.layers:
            x = layer(x, x, mask)
        return self.norm(x)  # type: ignore[no-any-return]


class Information(nn.Module):
    """MIC: the networks of L_R and L_C, on factors and a label embedding of one width (eq. 16-20)."""

    def __init__(self, modalities: tuple[str, ...], task: Task, config: IIDAF.Config) -> None:
        super().__init__()
        self.classes, self.config = len(task.classes), config
        width, critic = config.factor, config.critic
        self.embed_label = nn.Linear(self.classes or 1, width)
        self.between = nn.ModuleDict({f"{m}_{n}": Critic(width, width, critic, width) for m, n in combinations(modalities, 2)})
        self.with_label = nn.ModuleDict({name: Critic(width, width, critic, width) for name in modalities})
        self.discriminators = nn.ModuleDict({name: Discriminator(3 * width, config.discriminator) for name in modalities})

    def embed(self, labels: Tensor, like: Tensor) -> Tensor:
        """z (B, width) of intensities (B,) or classes (B,)."""
        labels = labels.to(like.device)
        if self.classes:
            labels = labels[:, None] == torch.arange(self.classes, device=like.device)
        return self.embed_label(labels.to(like.dtype).view(len(like), -1))  # type: ignore[no-any-return]

    def relevance(self, shared: Vectors, z: Tensor | None) -> list[Tensor]:
        """InfoNCE of every pair of shared factors, and of each with the label if there are labels (eq. 16)."""
        pairs = [info_nce(self.between[f"{m}_{n}"](shared[m], shared[n])) for m, n in combinations(shared, 2)]
        return pairs if z is None else pairs + [info_nce(self.with_label[name](r, z)) for name, r in shared.items()]

    def redundancy(self, name: str, u: Tensor, r: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """One modality's I(u; z | r) (eq. 18), whose gradient reaches u and r alone, and its discriminator's loss."""
        phi: Discriminator = self.discriminators[name]  # type: ignore[assignment]
        z = z.detach()  # or the estimate would fall as the embedding forgets the label
        both = torch.cat([z, z[draw_neighbour(r, self.config.neighbours)]])
        u, r = u.repeat(2, 1), r.repeat(2, 1)
        joint, product = phi.frozen(u, both, r).chunk(2)
        estimate = conditional_information(joint, product, self.config.conditional, self.config.log_odds_limit)
        joint, product = phi(u.detach(), both, r.detach()).chunk(2)
        return estimate, discrimination(joint, product)


class GuidedFusion(nn.Module):
    """SGAFF: shared factors enhance, guide the specific ones, and a gate weighs the two branches (eq. 21 and 22).

    r^e = r + FFN(linear(r)); u^g = u + W [u; r^e]; prediction = gamma g_s(r^e) + (1 - gamma) g_p(u^g), with one gamma per clip,
    a sigmoid of a network on all u^g and r^e. ``uses`` "shared": g_s(r^e) alone; "specific": g_p(u) alone, unguided.
    """

    def __init__(self, modalities: tuple[str, ...], width: int, hidden: int, outputs: int, dropout: float, uses: str) -> None:
        super().__init__()
        wide, self.uses = len(modalities) * width, uses
        if uses != "specific":
            enhance = {m: nn.Sequential(nn.Linear(width, width), mlp(width, hidden, width, dropout)) for m in modalities}
            self.enhance = nn.ModuleDict(enhance)
            self.shared_head = mlp(wide, hidden, outputs, dropout)
        if uses != "shared":
            self.specific_head = mlp(wide, hidden, outputs, dropout)
        if uses == "both":
            self.guide = nn.ModuleDict({m: nn.Linear(2 * width, width, bias=False) for m in modalities})
            self.gate = mlp(2 * wide, hidden, 1, dropout)

    def forward(self, shared: Vectors, specific: Vectors) -> tuple[Tensor, dict[str, Tensor]]:
        """Factors (B, width) by modality -> prediction (B, outputs); ``gate`` (B, 2), the two branches' weights; ``guided_<modality>``."""
        if self.uses == "specific":
            return self.specific_head(_join(specific)), {}
        enhanced = {name: r + self.enhance[name](r) for name, r in shared.items()}
        if self.uses == "shared":
            return self.shared_head(_join(enhanced)), {}
        guided = {name: u + self.guide[name](torch.cat([u, enhanced[name]], dim=1)) for name, u in specific.items()}
        gamma = self.gate(torch.cat([_join(guided), _join(enhanced)], dim=1)).sigmoid()
        y = gamma * self.shared_head(_join(enhanced)) + (1 - gamma) * self.specific_head(_join(guided))
        return y, {"gate": torch.cat([gamma, 1 - gamma], dim=1)} | {f"guided_{name}": u for name, u in guided.items()}


class Concatenation(nn.Module):
    """What stands in for SGAFF: one prediction head on the factors side by side (the paper's "simple concatenation")."""

    def __init__(self, modalities: tuple[str, ...], width: int, outputs: int, dropout: float, uses: str) -> None:
        super().__init__()
        self.uses = uses
        self.head = mlp((2 if uses == "both" else 1) * len(modalities) * width, width, outputs, dropout)

    def forward(self, shared: Vectors, specific: Vectors) -> tuple[Tensor, dict[str, Tensor]]:
        used = {"both": [*shared.values(), *specific.values()], "shared": [*shared.values()], "specific": [*specific.values()]}
        return self.head(torch.cat(used[self.uses], dim=1)), {}


def _join(vectors: Vectors) -> Tensor:
    return torch.cat(list(vectors.values()), dim=1)


@register_method("iidaf")
class IIDAF(Method):
    """Interpretable invertible disentanglement and adaptive fusion (Yang, Sun, Zhu 2026, eq. 1-23).

    Every modality is encoded by its own and a shared transformer; IAMD turns it into a shared factor r and a specific one
    u; MIC makes the r informative on each other and on the label, and the u uninformative on the label given r; SGAFF fuses.

    Parameters at ``mosi`` with 768/5/20: 8,626,246; without IAMD / MIC / SGAFF 7,278,214 / 5,568,195 / 7,392,324, which are
    the printed 8.63 / 7.28 / 5.57 / 7.39 M. The paper gives layers and heads per modality, and no width; widths here are its
    sizes' reading. With factors as wide as the stream (128) and four times that inside every network of MIC's discriminators
    and SGAFF, what MIC and SGAFF add comes out; ``critic`` and ``coupling`` (288, 304) are merely what closes the remaining
    gaps, and kernel 5 with 4 shared layers one of several ways to the rest. Its ablations change no FLOPs, so all
    three modules work on one vector per clip, not on every step.

    Readings of what the text leaves open, each a setting where another reading stands to reason:

    * Eq. 1: pre-norm layers with sinusoidal positions, as in the cited Tsai et al. 2019. The shared encoder reads each modality
      by itself (``joint`` "separate"), or all steps of all modalities at once ("concatenated").
    * A clip's vector is the mean over its real steps (``pooling``).
    * Eq. 7-9 as printed attend over the batch: ``mask`` "batch", whose predictions depend on the other clips, in evaluation
      too. The default "channel" attends between the channels of one clip's halves. One mask follows the last block.
    * Eq. 10 subtracts x from both factors side by side, which takes factors of half the stream's width: then (``factor`` =
      ``width`` / 2) it is computed as printed. Such halves do not reach the printed sizes by any usual widths of SGAFF, so by
      default factors are as wide as the stream, and a linear map, which the paper does not name, brings the pair to x's
      width. ``reconstruct`` says whether the pair is that before the blocks, as printed, or their inverse's result;
      ``target`` whether x is that of a modality's own encoder (lower-case x, as printed) or of the shared one.
    * Eq. 10 and 11 are means over entries (``squared_norm``): as sums over some hundred channels they would drown the task.
    * Eq. 12 prints only the first and the last moment: ``moments_used`` "ends". It is taken on sigmoid(r), which lies in
      [0, 1]. Eq. 13 and 15 divide by the number of pairs or modalities, which is 3 with three modalities.
    * Eq. 14: Gaussian kernels, median bandwidth (``bandwidth``).
    * Eq. 18: ``conditional`` "both" as printed, a symmetrised divergence; "first" is the information itself. The
      discriminator learns from its own loss, whose gradient stops at the features, and L_C's stops at the discriminator
      and at the label's embedding; both take one step per batch, the discriminator at ``discriminator_learning_rate``. It is
      not in eq. 23 and its weight has no effect under Adam. Log-odds are clipped where the probability is 1e-4.
    * Without IAMD, the factors are the two networks' outputs, and L_RE and L_IN, its own losses, are 0. Without MIC, so are L_R
      and L_C; setting both of their weights to 0 is the same model with idle parameters, though the paper's tables 6 and 7
      give the two different results.

    The presets are Table 2 (AdamW is the text's); the BERT rates there are those of ``text_encoder``, where one is trained
    with the method. Epochs and patience are not given. With one modality all losses over pairs are 0. All losses
    are defined over the training batch, and computed in training mode only; so are the labels read.

    Representations: ``shared_<modality>`` and ``specific_<modality>`` (B, factor); with SGAFF and both kinds of factors
    ``guided_<modality>`` (B, factor) and ``gate`` (B, 2), the weights of the shared and of the specific branch.
    """

    class Config(MethodConfig):
        task_loss: TaskLoss | None = Field("mse", description="loss on the prediction; cross_entropy for classes")
        width: PositiveInt = Field(128, description="channels of each modality's stream", json_schema_extra=tunable(choices=(64, 128, 256)))
        kernel: PositiveInt = Field(5, description="steps that the convolution on the input spans")
        layers: ByModality[PositiveInt] = Field(ByModality[PositiveInt](text=3, audio=2, vision=2), description="a modality's own layers")
        heads: ByModality[PositiveInt] = Field(ByModality[PositiveInt](text=4, audio=2, vision=2), description="heads of these layers")
        shared_layers: PositiveInt = Field(4, description="layers of the encoder that all modalities share")
        shared_heads: PositiveInt = Field(4, description="heads of these layers")
        joint: Literal["separate", "concatenated"] = Field("separate", description="the shared encoder reads modalities singly or as one")
        pooling: Literal["mean", "last"] = Field("mean", description="how a clip's real steps become one vector")
        dropout: Rate = Field(
            0.1, description="in the encoders and in the hidden layers of SGAFF and the heads", json_schema_extra=tunable(0.0, 0.6)
        )
        iamd: bool = Field(True, description="invertible disentanglement; off: factors straight from their two networks")
        mic: bool = Field(True, description="mutual-information constraints L_R and L_C")
        sgaff: bool = Field(True, description="guided fusion of two branches; off: one head on all factors side by side")
        uses: Literal["both", "shared", "specific"] = Field("both", description="factors that the prediction is made of")
        factor: PositiveInt = Field(
            128, description="width of a shared and of a specific factor", json_schema_extra=tunable(choices=(64, 128, 256))
        )
        blocks: PositiveInt = Field(4, description="invertible blocks", json_schema_extra=tunable(1, 6))
        reflections: PositiveInt = Field(3, description="Householder reflections of a block")
        coupling: PositiveInt = Field(304, description="hidden width of a block's coupling network")
        norm: bool = Field(True, description="layer norm in the blocks")
        mask: MaskKind = Field("channel", description="attention mask over a clip's channels, or over the batch as printed, or none")
        mask_place: MaskPlace = Field("last", description="a mask after the last block, or one after every block")
        reconstruct: Literal["before", "inverse"] = Field("before", description="what L_RE compares with x")
        target: Literal["own", "shared"] = Field("own", description="which encoder's result is the x of L_RE")
        squared_norm: Literal["mean", "sum"] = Field("mean", description="over a vector's entries, in L_RE and L_IN")
        moments: PositiveInt = Field(5, description="moments that L_S compares")
        moments_used: Literal["all", "ends"] = Field("all", description="all of these moments, or the first and the last")
        bandwidth: PositiveFloat | None = Field(None, description="of L_H's Gaussian kernels; unset: median distance in the batch")
        critic: PositiveInt = Field(288, description="hidden width of InfoNCE's scoring networks")
        discriminator: PositiveInt = Field(512, description="hidden width of L_C's discriminators")
        discriminator_learning_rate: PositiveFloat = Field(
            1e-3, description="learning rate of the discriminators", json_schema_extra=tunable(1e-4, 1e-2, log=True)
        )
        neighbours: PositiveInt = Field(5, description="nearest shared factors among which a hard negative's label is drawn")
        conditional: Terms = Field("both", description="both terms of eq. 18, or the first, which is the information")
        log_odds_limit: PositiveFloat = Field(9.21, description="log-odds beyond which L_C is flat")
        fusion: PositiveInt = Field(512, description="hidden width of SGAFF's networks", json_schema_extra=tunable(128, 512, log=True))
        weights: Weights = Weights()
        training: Training = Training(batch_size=32, optimiser="adamw", learning_rate=6e-5, weight_decay=5e-5)
        text_encoder: TextEncoder = TextEncoder(learning_rate=2e-5, weight_decay=5e-5)

        @model_validator(mode="after")
        def _heads_divide_width(self) -> IIDAF.Config:
            for heads in (*self.heads.model_dump().values(), self.shared_heads):
                if self.width % heads:
                    raise ValueError(f"{heads} attention heads do not divide width = {self.width}")
            return self

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "mosi": {},
        "mosei": {"weights": {"inversion": 0.05, "similarity": 0.05, "independence": 0.2, "reconstruction": 0.1}},
        "ur_funny": {
            "weights": {"inversion": 0.05, "similarity": 0.05, "independence": 0.2, "reconstruction": 0.1},
            "training": {"batch_size": 32, "optimiser": "adamw", "learning_rate": 4.5e-5, "weight_decay": 5e-5},
            "text_encoder": {"learning_rate": 5e-5, "weight_decay": 5e-5},
        },
    }
    reference = "Yang, Sun, Zhu 2026, Interpretable invertible disentanglement and adaptive fusion, Journal of Image and Graphics"

    def __init__(self, inputs: Inputs, task: Task, config: Config) -> None:
        super().__init__(inputs, task, config)
        self.task, self.config, self.modalities = task, config, inputs.modalities
        width, factor, names = config.width, config.factor, inputs.modalities
        self.project = nn.ModuleDict({m: TimeConv(dim, width, config.kernel) for m, dim in inputs.dims.items()})
        self.own = nn.ModuleDict({m: Transformer(width, config.heads[m], config.layers[m], config.dropout) for m in names})
        self.common = Transformer(width, config.shared_heads, config.shared_layers, config.dropout)
        self.specific = nn.ModuleDict({m: mlp(width, width, factor) for m in names})
        self.shared = nn.ModuleDict({m: mlp(width, width, factor) for m in names})
        if config.iamd:
            self.disentangle = nn.ModuleDict({m: self._disentangler() for m in names})
            self.decode = nn.ModuleDict({m: self._decoder() for m in names})
        if config.mic:
            self.information = Information(names, task, config)
        self.fuse = self._fusion()

    def _disentangler(self) -> Disentangler:
        c = self.config
        return Disentangler(2 * c.factor, c.coupling, c.blocks, c.reflections, c.norm, c.mask, c.mask_place)

    def _decoder(self) -> nn.Module:
        width, both = self.config.width, 2 * self.config.factor
        return nn.Identity() if width == both else nn.Linear(both, width)

    def _fusion(self) -> nn.Module:
        c, outputs = self.config, self.task.outputs
        if c.sgaff:
            return GuidedFusion(self.modalities, c.factor, c.fusion, outputs, c.dropout, c.uses)
        return Concatenation(self.modalities, c.factor, outputs, c.dropout, c.uses)

    def parameter_groups(self, training: Training) -> list[dict[str, Any]]:
        """The discriminators learn at a rate of their own: L_C is worth as much as they keep up with the features."""
        fitted = list(self.information.discriminators.parameters()) if self.config.mic else []
        others = [p for p in self.parameters() if not any(p is q for q in fitted)]
        groups: list[dict[str, Any]] = [{"params": others}]
        return groups + [{"params": fitted, "lr": self.config.discriminator_learning_rate}] if fitted else groups

    def forward(self, batch: Batch) -> Output:
        own = {name: self._own(batch, name) for name in self.modalities}
        common = self._joint(batch, own)
        pooled = {name: self._pool(batch, name, x) for name, x in common.items()}
        mixed = {name: torch.cat([self.specific[name](x), self.shared[name](x)], dim=1) for name, x in pooled.items()}
        factors = {name: self.disentangle[name](h) for name, h in mixed.items()} if self.config.iamd else mixed
        specific, shared = ({name: h.chunk(2, dim=1)[half] for name, h in factors.items()} for half in (0, 1))
        y, shown = self.fuse(shared, specific)
        shown |= {f"shared_{name}": r for name, r in shared.items()} | {f"specific_{name}": u for name, u in specific.items()}
        losses = {}
        if self.training:
            target = {name: self._pool(batch, name, x) for name, x in own.items()} if self.config.target == "own" else pooled
            losses = self._iamd_losses(target, mixed, factors) | self._pair_losses(shared, specific)
            losses |= self._mic_losses(shared, specific, batch.labels)
            losses = {name: terms.sum() for name, terms in losses.items()}
        return Output(y.squeeze(1) if self.task.kind == "regression" else y, losses, shown)

    def _own(self, batch: Batch, name: str) -> Tensor:
        """x_m, (B, T, width): eq. 1."""
        x, lengths = self.project[name](batch.features[name]), batch.lengths[name]
        return self.own[name](embed(x, positions=True), attention_mask(x, x, lengths, lengths))  # type: ignore[no-any-return]

    def _joint(self, batch: Batch, own: Vectors) -> dict[str, Tensor]:
        """X_m, (B, T_m, width) by modality: the shared encoder's results."""
        if self.config.joint == "separate":
            lengths = batch.lengths
            return {name: self.common(x, attention_mask(x, x, lengths[name], lengths[name])) for name, x in own.items()}
        steps = torch.cat(list(own.values()), dim=1)
        real = torch.cat([batch.mask(name) for name in own], dim=1)
        mask = torch.zeros_like(real, dtype=steps.dtype).masked_fill(~real, -torch.inf)[:, None, None]
        parts = self.common(steps, mask).split([x.shape[1] for x in own.values()], dim=1)
        return dict(zip(own, parts, strict=True))

    def _pool(self, batch: Batch, name: str, x: Tensor) -> Tensor:
        """x (B, T, D) -> (B, D), whatever stands at padding."""
        if self.config.pooling == "last":
            return last_step(x, batch.lengths[name])
        return torch.where(batch.mask(name)[..., None], x, 0).sum(1) / batch.lengths[name][:, None]

    def _iamd_losses(self, target: Vectors, mixed: Vectors, factors: Vectors) -> dict[str, Tensor]:
        """L_RE and L_IN by modality (eq. 10 and 11): means over clips."""
        zero = _zero(mixed)
        if not self.config.iamd:
            return {"reconstruction": zero, "inversion": zero}
        undone = {name: self.disentangle[name].inverse(h) for name, h in factors.items()}  # type: ignore[operator]
        source = mixed if self.config.reconstruct == "before" else undone
        return {
            "reconstruction": torch.stack([self._squared(self.decode[name](h) - target[name]) for name, h in source.items()]),
            "inversion": torch.stack([self._squared(undone[name] - h) for name, h in mixed.items()]),
        }

    def _squared(self, difference: Tensor) -> Tensor:
        squares = difference.square()
        return squares.mean() if self.config.squared_norm == "mean" else squares.sum(1).mean()

    def _pair_losses(self, shared: Vectors, specific: Vectors) -> dict[str, Tensor]:
        """L_S (eq. 12 and 13) and L_H (eq. 14 and 15)."""
        bounded = [r.sigmoid() for r in shared.values()]
        alike = [self._discrepancy(x, y) for x, y in combinations(bounded, 2)]
        grams = [(gram(shared[name], self.config.bandwidth), gram(specific[name], self.config.bandwidth)) for name in shared]
        within = [hsic_of_grams(r, u) for r, u in grams]
        between = [hsic_of_grams(u, v) for (_, u), (_, v) in combinations(grams, 2)]
        zero = _zero(shared)
        return {
            "similarity": torch.stack(alike).mean() if alike else zero,
            "independence": torch.stack(within).mean() + (torch.stack(between).mean() if between else zero),
        }

    def _discrepancy(self, x: Tensor, y: Tensor) -> Tensor:
        count = self.config.moments
        if self.config.moments_used == "all":
            return cmd(x, y, count)
        difference = central_moments(x, count) - central_moments(y, count)
        ends: Tensor = torch.linalg.vector_norm(difference[[0, -1]], dim=1).sum()
        return ends

    def _mic_losses(self, shared: Vectors, specific: Vectors, labels: Tensor | None) -> dict[str, Tensor]:
        """L_R, L_C and the discriminators' own loss, by pair or modality (eq. 16-20)."""
        zero = _zero(shared)
        relevance, redundancy, fit = [zero], [zero], [zero]
        if self.config.mic:
            z = None if labels is None else self.information.embed(labels, next(iter(shared.values())))
            relevance += self.information.relevance(shared, z)
            if z is not None and len(z) > 1:  # a single clip has no neighbour to take a negative from
                for name, r in shared.items():
                    estimate, misfit = self.information.redundancy(name, specific[name], r, z)
                    redundancy.append(estimate)
                    fit.append(misfit)
        names = ("relevance", "redundancy", "discrimination")
        return {name: torch.stack(terms) for name, terms in zip(names, (relevance, redundancy, fit), strict=True)}


def _zero(vectors: Vectors) -> Tensor:
    return next(iter(vectors.values())).new_zeros(())
