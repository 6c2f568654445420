"""EfficientFace (Zhao et al. 2021): a small network on faces, of shuffled inverted residuals, local quadrants and a modulator."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.nn.subnets import BatchNorm

REDUCTION, DILATION = 16, 4  # of the modulator


def depthwise(inputs: int, channels: int, stride: int = 1) -> nn.Conv2d:
    """3 x 3, each input channel by itself; ``channels`` is a multiple of ``inputs``."""
    return nn.Conv2d(inputs, channels, 3, stride, 1, groups=inputs, bias=False)


def pointwise(inputs: int, channels: int) -> list[nn.Module]:
    """1 x 1 convolution, batch norm, ReLU."""
    return [nn.Conv2d(inputs, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]


class Shuffled(nn.Module):
    """Inverted residual with shuffled channels (Ma et al. 2018): x (B, inputs, H, W) -> (B, channels, H / stride, W / stride).

    With stride 1 one half of the channels passes; with stride 2 both branches read all. Then the halves' channels alternate.
    """

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        half = channels // 2
        self.near = (
            nn.Sequential(depthwise(inputs, inputs, stride), nn.BatchNorm2d(inputs), *pointwise(inputs, half)) if stride > 1 else None
        )
        before = inputs if stride > 1 else half
        self.far = nn.Sequential(*pointwise(before, half), depthwise(half, half, stride), nn.BatchNorm2d(half), *pointwise(half, half))

    def forward(self, x: Tensor) -> Tensor:
        halves = (self.near(x), self.far(x)) if self.near is not None else (x.chunk(2, dim=1)[0], self.far(x.chunk(2, dim=1)[1]))
        return torch.stack(halves, dim=2).flatten(1, 2)


class Quadrants(nn.Module):
    """A pair of depthwise convolutions for each quadrant of the picture: x (B, inputs, H, W) -> (B, channels, H / 2, W / 2).

    H and W are multiples of 4. No quadrant sees its neighbours: beyond its edges stand zeros.
    """

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(
            nn.Sequential(
                *(depthwise(inputs, channels, 2), nn.BatchNorm2d(channels), nn.ReLU()),
                *(depthwise(channels, channels), nn.BatchNorm2d(channels), nn.ReLU()),
            )
            for _ in range(4)
        )

    def forward(self, x: Tensor) -> Tensor:
        rows = [row.chunk(2, dim=3) for row in x.chunk(2, dim=2)]
        found = [part(patch) for part, patch in zip(self.parts, [*rows[0], *rows[1]], strict=True)]
        return torch.cat([torch.cat(found[:2], dim=3), torch.cat(found[2:], dim=3)], dim=2)


class Modulator(nn.Module):
    """Gates from channels and from places, multiplied before the sigmoid (Zhao et al. 2021): x (B, C, H, W) -> the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = channels // REDUCTION
        self.channel = nn.Sequential(nn.Linear(channels, narrow), BatchNorm(narrow), nn.ReLU(), nn.Linear(narrow, channels))
        wide = [nn.Conv2d(narrow, narrow, 3, padding=DILATION, dilation=DILATION) for _ in range(2)]
        self.place = nn.Sequential(
            *(nn.Conv2d(channels, narrow, 1), nn.BatchNorm2d(narrow), nn.ReLU()),
            *(wide[0], nn.BatchNorm2d(narrow), nn.ReLU(), wide[1], nn.BatchNorm2d(narrow), nn.ReLU()),
            nn.Conv2d(narrow, 1, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * (self.channel(x.mean((2, 3)))[..., None, None] * self.place(x)).sigmoid()  # type: ignore[no-any-return]


class EfficientFace(nn.Module):
    """One vector per face: x (N, colours, size, size) -> (N, width); ``size`` a multiple of 16. Without the classifier.

    ``stages``: inverted residuals per stage; ``channels``: after the stem and the stages; ``width``: of the vector.
    """

    def __init__(
        self,
        colours: int = 3,
        stages: Sequence[int] = (4, 8, 4),
        channels: Sequence[int] = (29, 116, 232, 464),
        width: int = 1024,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(colours, channels[0], 3, 2, 1, bias=False), nn.BatchNorm2d(channels[0]), nn.ReLU())
        self.stages = nn.ModuleList(
            nn.Sequential(Shuffled(before, after, 2), *(Shuffled(after, after, 1) for _ in range(count - 1)))
            for (before, after), count in zip(pairwise(channels), stages, strict=True)
        )
        self.local, self.modulator = Quadrants(channels[0], channels[1]), Modulator(channels[1])
        self.out = nn.Sequential(*pointwise(channels[-1], width))

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.stem(x), 3, stride=2, padding=1)
        first, *others = self.stages
        x = self.modulator(first(x)) + self.local(x)
        for stage in others:
            x = stage(x)
        return self.out(x).mean((2, 3))  # type: ignore[no-any-return]
