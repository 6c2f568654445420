"""AMCM: films through adjacency matrices, sound as a picture, attention between their steps, a focal loss with dynamic weights."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from harness.errors import ConfigError
from harness.nn.adjacency import AdjacencyLayer, ConvMixerLayer, Coordinates, Patches, Sampling, resampled
from harness.nn.attention import attention_mask
from harness.nn.masked import MaskedBatchNorm, time_mean
from harness.nn.resnet import ResNet
from harness.training import Batch, Inputs, Method, MethodConfig, Output, Task, Training, register_method
from harness.training.audiovisual import LONG_TRAINING, SMALL_FACES, Four, patched, presets
from harness.training.by_modality import ByModality
from harness.training.settings import TaskLoss

Network = Literal["film", "picture"]


class Film(nn.Module):
    """A clip's frames as nodes through the layers of the film network, mean over a frame's nodes.

    x (B, T, dim), lengths (B,) -> (B, steps, width) and its lengths, which are all ``steps``.
    """

    def __init__(self, size: int, channels: int, grid: int, config: AMCM.Config) -> None:
        super().__init__()
        self.config = config
        self.patches = Patches(size, channels, grid, config.width, config.tubelet)
        self.layers = nn.ModuleList(self._layer(grid, config) for _ in range(config.depth))

    @staticmethod
    def _layer(grid: int, config: AMCM.Config) -> nn.Module:
        if config.mixer == "convmixer":
            return ConvMixerLayer(grid, config.width, config.kernel)
        return AdjacencyLayer(grid, config.steps, config.width, config.start, config.coordinates)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        steps = self.config.steps
        nodes = self.patches(resampled(x, lengths, steps * self.config.tubelet, self.config.sampling))
        for layer in self.layers:
            nodes = layer(nodes)
        return nodes.mean(2), torch.full_like(lengths, steps)


class Picture(nn.Module):
    """A clip's features as a picture, time by features, through ResNet-34; mean over what is left of the features.

    x (B, T, channels * F), a frame's channels one after the other, lengths (B,) -> (B, T / 32, width), rounded up, and its lengths.
    """

    def __init__(self, config: AMCM.Config) -> None:
        super().__init__()
        self.channels = config.picture_channels
        self.trunk = ResNet(self.channels, config.blocks, config.trunk)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        y, lengths = self.trunk(x.view(*x.shape[:2], self.channels, -1).transpose(1, 2), lengths)
        return y.mean(3).transpose(1, 2), lengths


class CMTAM(nn.Module):
    """Cross-modal temporal attention with a learnable intermediate matrix (eq. 11-15).

    target (B, T, width of M), source (B, T', width of M'), their lengths -> (B, T, query): ConvPointwise(attention + Q), with
    attention = softmax(Q LIM K^T / sqrt(d_k)) V over real steps; Q from the target, K and V from the source, each BN(Linear).
    The result's padding is not zero.
    """

    def __init__(self, target: int, source: int, query: int, key: int) -> None:
        super().__init__()
        widths = {"query": (target, query), "key": (source, key), "value": (source, query)}
        # A bias would be lost in the batch norm that follows.
        self.linears = nn.ModuleDict({name: nn.Linear(before, after, bias=False) for name, (before, after) in widths.items()})
        self.norms = nn.ModuleDict({name: MaskedBatchNorm(after) for name, (_, after) in widths.items()})
        self.lim = nn.Parameter(nn.init.xavier_uniform_(torch.empty(query, key)))
        self.point = nn.Linear(query, query)

    def forward(self, target: Tensor, source: Tensor, target_lengths: Tensor, source_lengths: Tensor) -> Tensor:
        q = self._normed("query", target, target_lengths)
        k, v = (self._normed(name, source, source_lengths) for name in ("key", "value"))
        mask = attention_mask(q, k, target_lengths, source_lengths)
        found = F.scaled_dot_product_attention((q @ self.lim)[:, None], k[:, None], v[:, None], attn_mask=mask).squeeze(1)
        return self.point(found + q)  # type: ignore[no-any-return]

    def _normed(self, name: str, x: Tensor, lengths: Tensor) -> Tensor:
        y = self.linears[name](x).transpose(1, 2)
        return self.norms[name](y, lengths).transpose(1, 2)  # type: ignore[no-any-return]


@register_method("amcm")
class AMCM(Method):
    """Adjacency-matrix ConvMixer on faces, ResNet-34 on the MFCC picture, two CMTAM, FLDW (Shi et al. 2024, eq. 3-18).

    Parameters at ``ravdess`` with 112 x 112 colour frames and 40 MFCC: 23,238,344, of which 21,278,400 are ResNet-34's. The
    paper gives no number.

    The text leaves open, or says in two ways:

    * ``width`` h, ``tubelet`` (frames in a patch), ``kernel`` of ConvMixer: not given. ``grid`` and ``steps`` are the adjacency
      matrices' sizes of table 1, (grid^2)^2 and steps^2; with frames of 112 pixels, grids 28, 16, 14, 8 are patches of 4, 7, 8, 14.
    * Eq. 7 gives its result one channel; eq. 8 goes on with c, as here. Eq. 4 lists t + 1 positions for t steps.
      ``coordinates``: positions are whole numbers as printed, or divided by their count.
    * ``start`` of all adjacency weights is the text's 1, from which it sees them move to .8-1.3.
    * Films of another length than ``steps`` are cut into that many parts (``sampling``). A frame's nodes are averaged before
      CMTAM, and the steps of what it gives before they are concatenated and classified.
    * ``picture_channels``: MFCC alone, or with deltas and delta-deltas side by side (the feature set ``mfcc_delta``). ResNet's
      average pooling goes over coefficients only, so that a step is 32 frames of sound.
    * d_q = d_v (``query``), which eq. 15 needs, and d_k (``key``); LIM starts as Xavier's uniform matrix.
    * ``task_loss`` "fldw", gamma 2 (``focal.gamma``). In the first epoch its weights are 1; matrices are counted from the
      predictions that training makes. The epoch is selected by the focal loss without weights: those change by epoch.
    * How frames are scaled: pixels stay in [0, 1], MFCC and other features are standardised. By how much they are cut and turned at
      random (``augmentation``): up to a tenth of a side and 10 degrees, all frames of a clip alike.

    Ablations of table 3: ``mixer`` "convmixer", ``fusion`` "concatenation", ``task_loss`` "cross_entropy"; of table 2:
    ``task_loss`` and ``focal``; of table 1: ``grid``, ``steps``.

    A frame that is no picture but a vector of features (action units, embeddings) becomes a single node: the equations
    with n = 1, whatever ``grid`` says. ``networks`` says which modality is read as a film and which as a picture. Of three modalities
    each attends to each; a single one is averaged and classified. Representations: each modality's mean (B, width), and
    ``fused``, what is classified. ``adjacency`` gives the matrices for figures 9 and 10.
    """

    class Config(MethodConfig):
        task_loss: TaskLoss | None = Field("fldw", description="loss on the prediction; for intensities l1")
        networks: ByModality[Network] = Field(
            ByModality[Network](text="film", audio="picture", vision="film"),
            description="film: adjacency matrices; picture: ResNet",
        )
        grid: PositiveInt = Field(16, description="patches per side of a frame: the spatial adjacency matrix is grid^2 x grid^2 (table 1)")
        steps: int = Field(16, ge=2, description="steps of a film: the temporal adjacency matrix is steps x steps (table 1)")
        tubelet: PositiveInt = Field(1, description="frames in a patch")
        sampling: Sampling = Field("mean", description="how a film of another length is brought to steps: mean over parts, or their middle")
        width: PositiveInt = Field(256, description="channels h of a node")
        depth: PositiveInt = Field(4, description="layers of the film network (figure 1)")
        mixer: Literal["adjacency", "convmixer"] = Field("adjacency", description="convmixer: the network of eq. 1 and 2 instead (table 3)")
        kernel: PositiveInt = Field(9, description="convmixer: odd size of the depthwise convolution")
        start: float = Field(1.0, description="value of all adjacency weights before training")
        coordinates: Coordinates = Field("index", description="position codes: whole numbers (eq. 3, 4), or these divided by their count")
        picture_channels: PositiveInt = Field(1, description="parts of equal width that a picture's features consist of; 3 with deltas")
        blocks: Four = Field((3, 4, 6, 3), description="residual blocks per stage (ResNet-34)")
        trunk: Four = Field((64, 128, 256, 512), description="channels per stage (ResNet-34)")
        fusion: Literal["cmtam", "concatenation"] = Field("cmtam", description="concatenation: of each modality's mean (table 3)")
        query: PositiveInt = Field(256, description="width of Q and V")
        key: PositiveInt = Field(256, description="width of K")
        training: Training = Training(**LONG_TRAINING)

        @model_validator(mode="after")
        def _fits(self) -> AMCM.Config:
            if self.kernel % 2 == 0:
                raise ValueError(f"kernel = {self.kernel} is even: a node would not be in the middle")
            return self

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = presets(SMALL_FACES)
    reference = (
        "Shi, Qin, Yu, Hao 2024, Audio-Visual Emotion Recognition Based on Improved ConvMixer and Dynamic Focal Loss, "
        "Acta Electronica Sinica 52(8)"
    )

    def __init__(self, inputs: Inputs, task: Task, config: Config) -> None:
        super().__init__(inputs, task, config)
        self.task, self.config = task, config
        kinds = {name: config.networks[name] for name in inputs.modalities}
        widths = {name: config.width if kind == "film" else config.trunk[-1] for name, kind in kinds.items()}
        self.streams = nn.ModuleDict(
            {
                name: Film(*patched(inputs, name, config.grid), config) if kinds[name] == "film" else self._picture(name, dim)
                for name, dim in inputs.dims.items()
            }
        )
        pairs = permutations(widths, 2) if config.fusion == "cmtam" else ()
        self.attentions = nn.ModuleDict({f"{t}_{s}": CMTAM(widths[t], widths[s], config.query, config.key) for t, s in pairs})
        self.out = nn.Linear(len(self.attentions) * config.query or sum(widths.values()), task.outputs)

    def _picture(self, name: str, dim: int) -> Picture:
        if dim % self.config.picture_channels:
            raise ConfigError(
                f"{name} has {dim} features per frame, which picture_channels = {self.config.picture_channels} does not divide",
                "Allowed: a divisor; 1 for MFCC alone, 3 with deltas and delta-deltas.",
            )
        return Picture(self.config)

    def forward(self, batch: Batch) -> Output:
        read = {name: stream(batch.features[name], batch.lengths[name]) for name, stream in self.streams.items()}
        means = {name: time_mean(x.transpose(1, 2), lengths) for name, (x, lengths) in read.items()}
        attended = [self._attended(name, read) for name in self.attentions]
        fused = torch.cat(attended or list(means.values()), dim=1)
        y = self.out(fused)
        return Output(y.squeeze(1) if self.task.kind == "regression" else y, representations=means | {"fused": fused})

    def _attended(self, pair: str, read: Mapping[str, tuple[Tensor, Tensor]]) -> Tensor:
        """Mean over real steps of what the first modality of ``pair`` finds in the second, (B, query)."""
        (target, lengths), (source, others) = (read[name] for name in pair.split("_"))
        found = self.attentions[pair](target, source, lengths, others).transpose(1, 2)
        real = torch.arange(found.shape[2], device=found.device) < lengths[:, None, None]
        return time_mean(found.masked_fill(~real, 0), lengths)

    def adjacency(self, modality: str = "vision") -> dict[str, Tensor]:
        """The learned matrices of a modality that is read as a film, layer by layer, detached, on the CPU.

        ``spatial`` (depth, n, n, n, n): [layer, row, column, row', column'] weighs the way from patch (row, column) to patch (row',
        column'); figure 9 shows at each patch the weights of the ways that lead to it. ``temporal`` (depth, t, t): [layer, from, to]
        (figure 10). KeyError where the modality is read otherwise.
        """
        stream = self.streams[modality]
        layers = [layer for layer in stream.modules() if isinstance(layer, AdjacencyLayer)]
        if not layers:
            raise KeyError(f"{modality} has no adjacency matrices")
        assert isinstance(stream, Film)
        spatial = torch.stack([layer.spatial.detach().cpu() for layer in layers])
        return {
            "spatial": spatial.view(len(layers), *[stream.patches.grid] * 4),
            "temporal": torch.stack([layer.temporal.detach().cpu() for layer in layers]),
        }
