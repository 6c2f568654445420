"""Transformer fusion of faces and MFCC, late, intermediate or by attention alone (Chumachenko et al. 2022).

Reference: Chumachenko, Iosifidis, Gabbouj 2022, section 3 (the text's figures; the equations are those of scaled dot-product attention),
and their code for sizes. MKCC's set-up (3.6 s, 15 frames, 10 MFCC, SGD) is theirs.

Open, and read as: EfficientFace starts from scratch (their AffectNet weights are not at hand). ``heads`` 1, their default. SGD damps by
.9 what momentum adds, as their code says and the text does not: with it, a constant gradient moves weights as it would without
momentum. The loop's SGD has no damping: ``learning_rate`` is .1 times theirs instead, which moves a constant gradient alike.

Not reproduced: films that begin at 0 where sound is cut from the middle (both are cut alike here); the box of an earlier frame where
a face is not found; a clip of exactly 3.6 s read as empty; splits in the order of a folder's listing; a schedule that is never
stepped. With ``attention`` the published network has a projection and half of its key-value map that no gradient reaches, and
always the classifiers of both modalities, which nothing reads: they are held in ``unread``, frozen, so that the numbers of
parameters are the published ones, and are not counted as trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from harness.errors import ConfigError
from harness.nn.efficientface import EfficientFace
from harness.nn.films import Pictures, fixed
from harness.training import Batch, Inputs, Method, Output, Task, Training, register_method
from harness.training.audiovisual import FilmConfig, Three, presets, shaped
from harness.training.by_modality import ByModality

Fusion = Literal["late", "intermediate", "attention"]
TRAINING: dict[str, Any] = {
    "batch_size": 8,
    "optimiser": "sgd",
    "learning_rate": 0.004,
    "momentum": 0.9,
    "weight_decay": 1e-3,
    "schedule": "milestones",
    "milestones": (40, 55, 65, 70),
    "milestone_factor": 0.1,
    "max_epochs": 100,
    "patience": 100,
}
PAPER: dict[str, Any] = {
    "augmentation": {"flip": 0.5, "rotation": 10.0},
    "training": TRAINING,
}
Two = tuple[PositiveInt, PositiveInt]
SHORTEST = 13  # steps that the sound network's four blocks need


class Sound(nn.Module):
    """Two blocks of convolution 3 without padding, batch norm, ReLU and maximum over two neighbours: (B, C, T) -> (B, C', T - 6)."""

    def __init__(self, inputs: int, channels: Two) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*_block(inputs, channels[0]), nn.MaxPool1d(2, 1), *_block(channels[0], channels[1]), nn.MaxPool1d(2, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)  # type: ignore[no-any-return]


class Faces(nn.Module):
    """One vector per frame: x (B, T, D), lengths (B,) -> (B, width, steps); EfficientFace, or the features as they are."""

    def __init__(self, pictures: Pictures, config: AVTransformer.Config) -> None:
        super().__init__()
        self.pictures = pictures
        self.network = (
            EfficientFace(pictures.channels, config.stages, config.face_channels, config.face_width) if pictures.size > 1 else None
        )
        self.width = pictures.channels if self.network is None else config.face_width

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        films = self.pictures(x, lengths)
        if self.network is None:
            return films.flatten(2)
        vectors: Tensor = self.network(films.transpose(1, 2).flatten(0, 1))
        return vectors.view(len(x), -1, self.width).transpose(1, 2)


class Attention(nn.Module):
    """Scores of a query stream over a key stream, and what they fetch: (B, C, T) each.

    ``valued`` False: scores alone; value map and projection are then in ``unread``.
    """

    def __init__(self, target: int, source: int, heads: int, valued: bool = True) -> None:
        super().__init__()
        if target % heads:
            raise ValueError(f"{heads} attention heads do not divide a width of {target}")
        self.heads = heads
        self.query, self.key = nn.Linear(target, target, bias=False), nn.Linear(source, target, bias=False)
        self.value, self.out = nn.Linear(source, target, bias=False), nn.Linear(target, target)
        if not valued:
            self.unread = unread({"value": self.value, "out": self.out})

    def scores(self, target: Tensor, source: Tensor) -> Tensor:
        """target (B, Tq, C), source (B, Tk, C') -> (B, heads, Tq, Tk), rows sum to 1."""
        q, k = (self._split(x) for x in (self.query(target), self.key(source)))
        return (q @ k.transpose(2, 3) / q.shape[3] ** 0.5).softmax(3)  # type: ignore[no-any-return]

    def forward(self, target: Tensor, source: Tensor) -> Tensor:
        """(B, Tq, C)."""
        found = self.scores(target, source) @ self._split(self.value(source))
        return self.out(found.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


class Block(nn.Module):
    """Attention to another stream without a residual connection around it, then a network with one: (B, C, T) -> the same shape."""

    def __init__(self, target: int, source: int, heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in (target, source, target))
        self.attention = Attention(target, source, heads)
        self.feed = nn.Sequential(nn.Linear(target, 2 * target), nn.GELU(), nn.Linear(2 * target, target))

    def forward(self, target: Tensor, source: Tensor) -> Tensor:
        asks, answers, inner = self.norms
        x = self.attention(asks(target.transpose(1, 2)), answers(source.transpose(1, 2)))
        return (x + self.feed(inner(x))).transpose(1, 2)


@register_method("av_transformer")
class AVTransformer(Method):
    """Convolutions over faces and over sound with attention between them (Chumachenko et al. 2022).

    Parameters at ``ravdess`` with 10 MFCC, 156 frames, 15 faces of 224 x 224 colours: ``fusion`` "late" 2,045,550, "intermediate"
    1,938,414, "attention" 1,854,766.

    * late: streams attend after their last convolution; what they find is averaged over time.
    * intermediate: after the first two convolutions; what a stream finds is added to it.
    * attention: there too, but only scores pass: summed over queries, those of the other stream weigh a stream's steps.

    Where frames are vectors of features, these stand in EfficientFace's place. Of three modalities each attends to each: what
    it finds is added, what weighs it is multiplied; a single one goes on alone. Representations: each modality's vector.
    """

    class Config(FilmConfig):
        fusion: Fusion = Field("attention", description="late, intermediate or attention: where and how streams meet")
        heads: PositiveInt = Field(1, description="attention heads; scores are averaged over them")
        networks: ByModality[Literal["film", "sequence"]] = Field(
            ByModality[Literal["film", "sequence"]](text="sequence", audio="sequence", vision="film"),
            description="film: faces; sequence: the sound network",
        )
        steps: PositiveInt = Field(15, description="frames that a film is brought to")
        sequence_steps: ByModality[int] = Field(
            ByModality[int](text=50, audio=156, vision=156),
            description="frames that a sequence is cut to, from its middle, or filled up to with zeros; at least 13",
        )
        sound: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = Field((64, 128, 256, 128), description="channels of sound")
        film: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = Field((64, 64, 128, 128), description="channels over frames")
        stages: Three = Field((4, 8, 4), description="EfficientFace: residuals per stage")
        face_channels: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = Field(
            (29, 116, 232, 464), description="EfficientFace: after stem and stages"
        )
        face_width: PositiveInt = Field(1024, description="EfficientFace: width of a face's vector")
        training: Training = Training(**TRAINING)

        @model_validator(mode="after")
        def _fits(self) -> AVTransformer.Config:
            short = [steps for steps in self.sequence_steps.model_dump().values() if steps < SHORTEST]
            if short:
                raise ValueError(f"sequence_steps = {short[0]} leaves nothing after four convolutions; at least {SHORTEST}")
            return self

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = presets(PAPER)
    reference = "Chumachenko, Iosifidis, Gabbouj 2022, Self-attention fusion for audiovisual emotion recognition with incomplete data, ICPR"

    def __init__(self, inputs: Inputs, task: Task, config: Config) -> None:
        super().__init__(inputs, task, config)
        self.task, self.config = task, config
        kinds = {name: config.networks[name] for name in inputs.dims}
        channels = {name: config.film if kind == "film" else config.sound for name, kind in kinds.items()}
        self.faces = nn.ModuleDict({name: Faces(_quartered(inputs, name, config), config) for name in inputs.dims if kinds[name] == "film"})
        widths = {name: int(self.faces[name].width) if name in self.faces else dim for name, dim in inputs.dims.items()}  # type: ignore[arg-type]
        self.early = nn.ModuleDict({name: _half(kinds[name], width, channels[name][:2]) for name, width in widths.items()})
        self.late = nn.ModuleDict({name: _half(kinds[name], channels[name][1], channels[name][2:]) for name in widths})
        site = {name: channels[name][3 if config.fusion == "late" else 1] for name in widths}
        self.meet = nn.ModuleDict({f"{t}_{s}": self._meeting(site[t], site[s]) for t, s in permutations(widths, 2)})
        ends = {name: channels[name][3] for name in widths}
        pairs = [ends[t] for t, _ in permutations(widths, 2)] if config.fusion == "late" else []
        self.out = nn.Linear(sum(pairs or ends.values()), task.outputs)
        self.unread = unread({name: nn.Linear(width, task.outputs) for name, width in ends.items()})

    def _meeting(self, target: int, source: int) -> nn.Module:
        if self.config.fusion == "attention":
            return Attention(target, source, self.config.heads, valued=False)
        return Block(target, source, self.config.heads)

    def forward(self, batch: Batch) -> Output:
        x = {name: net(self._read(batch, name)) for name, net in self.early.items()}
        if self.config.fusion != "late":
            x = {name: self._met(name, x) for name in x}
        x = {name: net(x[name]) for name, net in self.late.items()}
        vectors = {name: stream.mean(2) for name, stream in x.items()}
        found = []
        if self.config.fusion == "late":
            found = [self.meet[pair](*(x[name] for name in pair.split("_"))).mean(2) for pair in self.meet]
        y = self.out(torch.cat(found or list(vectors.values()), dim=1))
        return Output(shaped(y, self.task), representations=vectors)

    def _read(self, batch: Batch, name: str) -> Tensor:
        """(B, C, T), every clip of the same length."""
        x, lengths = batch.features[name], batch.lengths[name]
        return self.faces[name](x, lengths) if name in self.faces else fixed(x, lengths, self.config.sequence_steps[name]).transpose(1, 2)  # type: ignore[no-any-return]

    def _met(self, name: str, x: Mapping[str, Tensor]) -> Tensor:
        """A stream with what others add to it, or weighed by how much they look at its steps."""
        y = x[name]
        for other in (other for other in x if other != name):
            if self.config.fusion == "intermediate":
                y = y + self.meet[f"{name}_{other}"](x[name], x[other])
            else:
                scores = self.meet[f"{other}_{name}"].scores(x[other].transpose(1, 2), x[name].transpose(1, 2))  # type: ignore[operator]
                y = y * scores.mean(1).sum(1)[:, None]
        return y


def _quartered(inputs: Inputs, name: str, config: AVTransformer.Config) -> Pictures:
    picture = inputs.pictures.get(name)
    if picture is not None and picture.side % 16:
        raise ConfigError(
            f"{name}'s frames have {picture.side} x {picture.side} pixels, no multiple of 16, which EfficientFace's quadrants need",
            "Extract frames of another size, such as --set frames.size=112, or 224 as published.",
        )
    return config.pictures(inputs, name)


def unread(modules: Mapping[str, nn.Module]) -> nn.ModuleDict:
    """``modules`` frozen: parameters that the published network carries and nothing reads."""
    return nn.ModuleDict(modules).requires_grad_(False)


def _half(kind: str, inputs: int, channels: Two) -> nn.Module:
    """Two convolutions over time of one stream."""
    return Sound(inputs, channels) if kind == "sequence" else nn.Sequential(*_block(inputs, channels[0], 1), *_block(*channels, 1))


def _block(inputs: int, channels: int, padding: int = 0) -> list[nn.Module]:
    return [nn.Conv1d(inputs, channels, 3, padding=padding), nn.BatchNorm1d(channels), nn.ReLU()]
