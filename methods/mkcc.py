"""MKCC: multi-scale KAN convolution and cross-modal attention."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, Field, PositiveInt, model_validator
from torch import Tensor, nn

from harness.nn.attention import attention_mask
from harness.nn.kan import KANConv1d, Spline
from harness.nn.masked import MaskedBatchNorm, max_pool, time_mask, time_mean
from harness.training import Batch, Inputs, Method, MethodConfig, Output, Task, Training, register_method
from harness.training.by_modality import ByModality


def _odd(kernel: int) -> int:
    if kernel < 1 or kernel % 2 == 0:
        raise ValueError(f"kernel {kernel} is not odd and positive: it has no middle frame")
    return kernel


Kernels = Annotated[tuple[Annotated[int, AfterValidator(_odd)], ...], Field(min_length=1)]
Streams = dict[str, Tensor]


class Stage(nn.Module):
    """Convolutions of several kernel sizes with batch norm, side by side (eq. 10) or in a row (tables 1 and 2).

    x (B, in, T), lengths (B,) -> (B, ``channels``, T), times the number of kernels where they stand side by side; zero at padding.
    """

    def __init__(self, inputs: int, channels: int, config: MKCC.Config, kernels: tuple[int, ...]) -> None:
        super().__init__()
        self.parallel, self.rectified = config.wiring == "parallel", config.convolution == "cnn"
        widths = [inputs if self.parallel or i == 0 else channels for i in range(len(kernels))]
        self.convolutions = nn.ModuleList(config.build(width, channels, kernel) for width, kernel in zip(widths, kernels, strict=True))
        self.norms = nn.ModuleList(MaskedBatchNorm(channels) for _ in kernels)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        found = []
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            y = norm(convolution(x), lengths)
            y = F.relu(y) if self.rectified else y
            found.append(y)
            x = x if self.parallel else y
        return torch.cat(found, dim=1) if self.parallel else x


class CrossAttention(nn.Module):
    """Single-head attention of one modality's frames to another's, without biases (eq. 11).

    target (B, D, Tq), source (B, D, Tk) and their lengths -> (B, D, Tq): softmax(X_t W_Q (X_s W_K)^T / sqrt(D)) X_s W_V.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))

    def forward(self, target: Tensor, source: Tensor, target_lengths: Tensor, source_lengths: Tensor) -> Tensor:
        target, source = target.transpose(1, 2), source.transpose(1, 2)
        q, k, v = self.query(target), self.key(source), self.value(source)
        mask = attention_mask(q, k, target_lengths, source_lengths)
        return F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None], attn_mask=mask).squeeze(1).transpose(1, 2)


class Interaction(nn.Module):
    """Every modality attends to every other one; what it finds is added to it, or with ``replace`` stands in its place.

    Of several other modalities the sum is taken. A single modality stays as it is.
    """

    def __init__(self, modalities: tuple[str, ...], width: int, join: Literal["add", "replace"]) -> None:
        super().__init__()
        self.join = join
        self.attentions = nn.ModuleDict({f"{source}_to_{target}": CrossAttention(width) for target, source in permutations(modalities, 2)})

    def forward(self, streams: Streams, lengths: Streams) -> Streams:
        return {name: self._joined(name, streams, lengths) for name in streams}

    def _joined(self, name: str, streams: Streams, lengths: Streams) -> Tensor:
        x, others = streams[name], [other for other in streams if other != name]
        found = [self.attentions[f"{other}_to_{name}"](x, streams[other], lengths[name], lengths[other]) for other in others]
        if not found:
            return x
        whole = torch.stack([x, *found] if self.join == "add" else found).sum(0)
        return whole.masked_fill(~time_mask(x, lengths[name]), 0)


@register_method("mkcc")
class MKCC(Method):
    """Two stages of multi-scale KAN convolution per modality with attention between them (Luo et al. 2025).

    Parameters at ``ravdess`` with 10 MFCC and 18 action units: 7,871,240 (the text gives none). Each edge of a KAN
    convolution has 8 coefficients, their weight w_1 and the base weight w_2 (eq. 7).

    The text leaves open, or says in two ways:

    * ``wiring``: eq. 10 concatenates kernels 3, 5 and 7, tables 1 and 2 list them as layers in a row, for audio as 5, 3, 7.
      Side by side, each kernel has the channels of the tables, so that a stage gives three times as many.
    * The text speaks of 3 x 3 and the tables of KAN1D: kernels run over time here.
    * ``pool``: a block is said to hold max pooling, the tables show none; it stands after the first stage's attention,
      where the text describes it, over two frames.
    * ``attention``: after the first stage, as described; ``join``: what eq. 11 gives is "blended into" the modality that
      asks, hence added, though eq. 11 alone would replace it.
    * ``span`` of the splines, the batch size (that of Chumachenko et al. 2022, whose set-up this is) and the activation
      of the CNN that table 4 compares with (ReLU).
    * SGD: rate, momentum and decay are the text's. The set-up that they come from damps by .9 what momentum adds; the
      text does not say so.

    Ablations of table 4: ``convolution = "cnn"``, ``kernels``, ``attention = []``. Table 5 (weights a, 1 - a) is
    ``input_weights``. Convolutions see zeros beyond a clip's ends, as an input like any other; batch norm, pooling and
    attention see real frames only. Serves one, two or three modalities; without a second one nothing attends.
    Representations: each modality's vector, (B, channels of the second stage), and ``fused``, all of them.
    """

    class Config(MethodConfig):
        channels: tuple[PositiveInt, PositiveInt] = Field((64, 128), description="of each kernel size in the two stages (tables 1, 2)")
        kernels: ByModality[Kernels] = Field(
            ByModality[Kernels](text=(3, 5, 7), audio=(5, 3, 7), vision=(3, 5, 7)),
            description="odd kernel sizes, in their order (tables 1, 2)",
        )
        wiring: Literal["parallel", "sequential"] = Field("parallel", description="parallel: eq. 10; sequential: tables 1 and 2")
        convolution: Literal["kan", "cnn"] = Field("kan", description="cnn: plain convolution with ReLU instead (table 4)")
        grid: PositiveInt = Field(5, description="cells of the splines (tables 1, 2)")
        order: int = Field(3, ge=2, le=5, description="degree of the splines (tables 1, 2)")
        span: tuple[float, float] = Field((-1.0, 1.0), description="interval that the cells divide; beyond it splines are linear")
        attention: tuple[Literal[1, 2], ...] = Field((1,), description="stages after which modalities attend to each other; empty: w/o")
        join: Literal["add", "replace"] = Field("add", description="how attention's result meets the stream it was asked for")
        pool: PositiveInt = Field(2, description="frames per maximum after the first stage; 1: none")
        training: Training = Training(
            batch_size=8, optimiser="sgd", learning_rate=0.04, momentum=0.9, weight_decay=1e-3, max_epochs=100, patience=100
        )

        @model_validator(mode="after")
        def _fits(self) -> MKCC.Config:
            if self.span[0] >= self.span[1]:
                raise ValueError(f"span {list(self.span)} is empty: its first number must be the smaller one")
            counts = {name: len(kernels) for name, kernels in self.kernels.model_dump().items()}
            if self.attention and self.wiring == "parallel" and len(set(counts.values())) > 1:
                raise ValueError(
                    f"kernels: {counts} of them give streams of unequal width; eq. 11 multiplies Q by K, which needs equal ones"
                )
            return self

        def width(self, channels: int, modality: str) -> int:
            """Channels that a stage gives."""
            return channels * len(self.kernels[modality]) if self.wiring == "parallel" else channels

        def build(self, inputs: int, outputs: int, kernel: int) -> nn.Module:
            """A convolution over time that keeps the number of frames."""
            if self.convolution == "cnn":
                return nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
            spline = Spline(self.grid, self.order, *self.span)
            return KANConv1d(inputs, outputs, kernel, padding=kernel // 2, spline=spline, scale=True)

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"ravdess": {}}
    reference = (
        "Luo et al. 2025, Multiscale KAN Convolution with Cross-modal Attention for Audiovisual Emotion Recognition, "
        "Computer Technology and Development 2025(07)"
    )

    def __init__(self, inputs: Inputs, task: Task, config: Config) -> None:
        super().__init__(inputs, task, config)
        self.task, self.config = task, config
        first, second = config.channels
        widths = [{name: config.width(channels, name) for name in inputs.dims} for channels in config.channels]
        self.first = nn.ModuleDict({name: Stage(dim, first, config, config.kernels[name]) for name, dim in inputs.dims.items()})
        self.second = nn.ModuleDict({name: Stage(dim, second, config, config.kernels[name]) for name, dim in widths[0].items()})
        self.interactions = nn.ModuleDict(
            {str(stage): Interaction(inputs.modalities, max(widths[stage - 1].values()), config.join) for stage in config.attention}
        )
        self.out = nn.Linear(sum(widths[1].values()), task.outputs)

    def forward(self, batch: Batch) -> Output:
        lengths = dict(batch.lengths)
        streams = {name: stage(batch.features[name].transpose(1, 2), lengths[name]) for name, stage in self.first.items()}
        streams = self._interact("1", streams, lengths)
        for name, x in streams.items():
            streams[name], lengths[name] = max_pool(x, lengths[name], self.config.pool)
        streams = {name: stage(streams[name], lengths[name]) for name, stage in self.second.items()}
        streams = self._interact("2", streams, lengths)
        vectors = {name: time_mean(x, lengths[name]) for name, x in streams.items()}
        fused = torch.cat(list(vectors.values()), dim=1)
        y = self.out(fused)
        return Output(y.squeeze(1) if self.task.kind == "regression" else y, representations=vectors | {"fused": fused})

    def _interact(self, stage: str, streams: Streams, lengths: Streams) -> Streams:
        return self.interactions[stage](streams, lengths) if stage in self.interactions else streams
