"""MIKL: mutual-information selection of features and windows, KLSTM, consistency across modalities."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import combinations
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from harness.nn.dependence import Critic, info_nce
from harness.nn.dropout import Dropout
from harness.nn.information import histogram_information
from harness.nn.kan import Spline
from harness.nn.klstm import KLSTM, Gate
from harness.nn.recurrent import last_step
from harness.training import Batch, Inputs, LossWeights, Method, MethodConfig, Output, Split, Task, Training, register_method
from harness.training.by_modality import Rate
from harness.training.ranges import tunable

Modality = Literal["text", "audio", "vision"]
Fraction = Annotated[float, Field(gt=0, le=1)]
ROUNDING = 1e-9  # .1 of 30 frames are 3, not the next integer after 3.0000000000000004
CLIPS_TOGETHER = 256  # clips whose frames are in memory at once while windows are compared


class Weights(LossWeights):
    """Weights of the information terms of section 2.4; the text gives none, these are those of MMIM (Han et al. 2021)."""

    between: float = Field(0.1, ge=0, description="InfoNCE of I(X_a; X_v), eq. 16, over all pairs of modalities")
    fused: float = Field(0.1, ge=0, description="InfoNCE of I(Z; X_a) and I(Z; X_v), eq. 18 and 19")


class Window(nn.Module):
    """One part of every clip, the same share of it at the same relative place: x (B, T, D), lengths -> windows, their lengths.

    A clip of T frames gives ceil(share T) of them. Places divide what is left over into equal steps, of at most
    ``stride`` of a clip each; ``place`` counts them from 0 and is a buffer.
    """

    place: Tensor

    def __init__(self, share: float, stride: float) -> None:
        super().__init__()
        self.share, self.places = share, 1 + math.ceil((1 - share) / stride - ROUNDING)
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))

    def bounds(self, lengths: Tensor, place: Tensor | int) -> tuple[Tensor, Tensor]:
        """First frame and number of frames of each clip's window at ``place``; both (B,)."""
        size = (lengths.double() * self.share - ROUNDING).ceil().long()
        steps = max(self.places - 1, 1)
        return (2 * place * (lengths - size) + steps) // (2 * steps), size

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        start, size = self.bounds(lengths, self.place)
        step = torch.arange(math.ceil(x.shape[1] * self.share - ROUNDING), device=x.device)
        frame = (start[:, None] + step).clamp_max(x.shape[1] - 1)
        found = x.gather(1, frame[..., None].expand(-1, -1, x.shape[2]))
        return found.masked_fill((step >= size[:, None])[..., None], 0), size


@register_method("mikl")
class MIKL(Method):
    """Features and a window of each modality chosen by mutual information with the label, read by KLSTMs (Luo et al. 2025).

    Parameters at ``mosi`` with audio 5 and vision 20: 3,563,233, against the 3.58 M of table 3. The text gives no width;
    those of the KLSTM and of the critics are set so that the sum comes near with gates read as ``tkan``. Some
    17,000 remain, and other widths, gates or input features would do as well.

    The text leaves open, besides the sizes, all that is a setting here without a source in its description:

    * Estimator (eq. 1 to 6): counts over quantile bins, on the training split, the label in 7 bins. A feature's values are
      its means over clips (``sample``); how many features are kept is a share of them.
    * Window (section 2.2): one place per modality for the whole data set, relative to each clip's length, where the
      information of the kept features' means over the window, averaged over these features, is largest (the first of equals).
    * KAN(x, t) (eq. 12): see harness.nn.klstm. The KLSTM is read at the window's last frame.
    * Z: a linear layer with ReLU on the modalities' vectors. Information is maximised as InfoNCE with one critic per term.
    * Training: the text names neither optimiser nor rate; these are the harness's defaults.

    The method is defined for audio and vision; text, where given, is neither selected nor cut unless it is named in
    ``selection`` and ``window``. Ablations of table 4: ``recurrent = "lstm"``, ``selection = []``, ``window = []``,
    ``consistency = false``. Tables 5 and 6 (weights a, 1 - a) are ``input_weights``.

    Buffers ``kept_<modality>`` and ``windows.<modality>.place`` hold what ``fit`` chose. Representations: each modality's
    vector and ``fused``, (B, hidden).
    """

    class Config(MethodConfig):
        hidden: PositiveInt = Field(
            336, description="width of the recurrent layers and of the fused vector", json_schema_extra=tunable(64, 512, log=True)
        )
        recurrent: Literal["klstm", "lstm"] = Field("klstm", description="lstm: the first row of table 4")
        gate: Gate = Field("tkan", description="reading of KAN(x, t), eq. 12")
        grid: PositiveInt = Field(5, description="cells of the splines (as in MKCC, by the same authors)")
        order: int = Field(3, ge=2, le=5, description="degree of the splines (as in MKCC)")
        span: tuple[float, float] = Field((-1.0, 1.0), description="interval that the splines' cells divide; beyond it they are linear")
        selection: tuple[Modality, ...] = Field(("audio", "vision"), description="modalities whose features are selected; empty: w/o")
        kept: Fraction = Field(0.5, description="share of features that is kept, rounded up", json_schema_extra=tunable(0.2, 1.0))
        bins: PositiveInt = Field(16, description="quantile bins of a feature")
        label_bins: PositiveInt = Field(7, description="equal bins of an intensity, centred on both ends of its range")
        sample: Literal["clips", "frames"] = Field("clips", description="what is counted: means over clips, or every frame with its label")
        window: tuple[Modality, ...] = Field(("audio", "vision"), description="modalities that are cut to a window; empty: w/o")
        window_share: Fraction = Field(0.5, description="length of the window, of each clip's own", json_schema_extra=tunable(0.2, 1.0))
        window_stride: Fraction = Field(0.1, description="largest distance between two places tried, of each clip's length")
        dropout: Rate = Field(0.0, description="on the fused vector", json_schema_extra=tunable(0.0, 0.6))
        consistency: bool = Field(True, description="section 2.4; false: w/o")
        critic: PositiveInt = Field(64, description="width of both layers of each critic", json_schema_extra=tunable(16, 256, log=True))
        weights: Weights = Weights()
        training: Training = Training(batch_size=32, learning_rate=1e-3)

        @model_validator(mode="after")
        def _interval(self) -> MIKL.Config:
            if self.span[0] >= self.span[1]:
                raise ValueError(f"span {list(self.span)} is empty: its first number must be the smaller one")
            return self

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"mosi": {}, "mosei": {}, "iemocap": {}}
    reference = "Luo et al. 2025, KLSTM-based Mutual Information Audiovisual Emotion Recognition, Computer Systems & Applications 34(9)"

    def __init__(self, inputs: Inputs, task: Task, config: Config) -> None:
        super().__init__(inputs, task, config)
        self.task, self.config = task, config
        kept = {name: math.ceil(dim * config.kept) if name in config.selection else dim for name, dim in inputs.dims.items()}
        for name, count in kept.items():
            self.register_buffer(f"kept_{name}", torch.arange(count))
        self.windows = nn.ModuleDict({m: Window(config.window_share, config.window_stride) for m in kept if m in config.window})
        self.recurrent = nn.ModuleDict({name: self._recurrent(count) for name, count in kept.items()})
        self.fuse = nn.Sequential(nn.Linear(len(kept) * config.hidden, config.hidden), nn.ReLU(), Dropout(config.dropout))
        self.out = nn.Linear(config.hidden, task.outputs)
        self.between, self.with_fused = nn.ModuleDict(), nn.ModuleDict()
        if config.consistency:
            self.between = nn.ModuleDict({f"{a}_{b}": self._critic() for a, b in combinations(kept, 2)})
            self.with_fused = nn.ModuleDict({name: self._critic() for name in kept})

    def _recurrent(self, width: int) -> nn.Module:
        config = self.config
        if config.recurrent == "lstm":
            return nn.LSTM(width, config.hidden, batch_first=True)
        return KLSTM(width, config.hidden, config.gate, Spline(config.grid, config.order, *config.span))

    def _critic(self) -> Critic:
        return Critic(self.config.hidden, self.config.hidden, self.config.critic, self.config.critic)

    # ---- what is fitted

    def fit(self, train: Split) -> None:
        assert train.labels is not None
        label = self._label_bins(train.labels)
        for name in self.recurrent:
            if name in self.config.selection:
                self._kept(name).copy_(self._informative(train, name, label))
            if name in self.windows:
                self.windows[name].get_buffer("place").fill_(self._best_place(train, name, label))

    def _kept(self, name: str) -> Tensor:
        return self.get_buffer(f"kept_{name}")

    def _label_bins(self, labels: Tensor) -> Tensor:
        if self.task.kind == "classification":
            return labels
        share = (labels.double() - self.task.low) / (self.task.high - self.task.low)
        return (share.clamp(0, 1) * (self.config.label_bins - 1)).round().long()

    def _informative(self, train: Split, name: str, label: Tensor) -> Tensor:
        """The features with the most information on the label, in their own order (eq. 1 to 3)."""
        if self.config.sample == "clips":
            information = histogram_information(train.means(name), label, self.config.bins)
        else:
            each = torch.repeat_interleave(label, train.lengths(name))
            information = histogram_information(train.frames(name), each, self.config.bins)
        best = information.argsort(descending=True, stable=True)[: len(self._kept(name))]
        return best.sort().values

    def _best_place(self, train: Split, name: str, label: Tensor) -> int:
        """The place whose window has the most information on the label, averaged over kept features (eq. 4 to 6)."""
        window = self.windows[name]
        assert isinstance(window, Window)
        means = torch.cat(list(_window_means(train, name, self._kept(name).cpu(), window)), dim=1)
        return int(torch.stack([histogram_information(one, label, self.config.bins).mean() for one in means]).argmax())

    # ---- the model

    def forward(self, batch: Batch) -> Output:
        vectors = {name: self._vector(batch, name) for name in self.recurrent}
        fused = self.fuse(torch.cat(list(vectors.values()), dim=1))
        y = self.out(fused)
        return Output(
            y.squeeze(1) if self.task.kind == "regression" else y,
            {"between": self._between(vectors), "fused": self._with_fused(vectors, fused)},
            vectors | {"fused": fused},
        )

    def _vector(self, batch: Batch, name: str) -> Tensor:
        """Selection, window, KLSTM read at its last step: (B, hidden)."""
        x, lengths = batch.features[name], batch.lengths[name]
        if name in self.config.selection:
            x = x.index_select(2, self._kept(name))
        if name in self.windows:
            x, lengths = self.windows[name](x, lengths)
        states = self.recurrent[name](x)
        return last_step(states[0] if isinstance(states, tuple) else states, lengths)

    def _between(self, vectors: Mapping[str, Tensor]) -> Tensor:
        return self._sum([info_nce(self.between[f"{a}_{b}"](vectors[a], vectors[b])) for a, b in combinations(vectors, 2) if self.between])

    def _with_fused(self, vectors: Mapping[str, Tensor], fused: Tensor) -> Tensor:
        return self._sum([info_nce(critic(fused, vectors[name])) for name, critic in self.with_fused.items()])

    def _sum(self, terms: list[Tensor]) -> Tensor:
        return torch.stack(terms).sum() if terms else self.out.weight.new_zeros(())


def _window_means(train: Split, name: str, kept: Tensor, window: Window) -> Iterator[Tensor]:
    """Means of the ``kept`` features over each clip's window at every place, some clips at a time: (places, clips, kept)."""
    for rows in torch.split(train.rows, CLIPS_TOGETHER):
        part = replace(train, rows=rows)
        lengths = part.lengths(name)
        sums = torch.cat([torch.zeros(1, len(kept), dtype=torch.float64), part.frames(name)[:, kept].double().cumsum(0)])
        offset = lengths.cumsum(0) - lengths
        bounds = (window.bounds(lengths, place) for place in range(window.places))
        yield torch.stack([(sums[offset + start + size] - sums[offset + start]) / size[:, None] for start, size in bounds])
