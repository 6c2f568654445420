"""3-D ResNeXt: a residual network of grouped convolutions over films of one length (Hara et al. 2018; Xie et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class FilmNorm(nn.BatchNorm3d):
    """``nn.BatchNorm3d`` that also accepts a single value per channel, which it normalises by the running statistics.

    One value has no variance; the running statistics are left as they were.
    """

    def forward(self, input: Tensor) -> Tensor:
        if self.training and input.numel() == self.num_features:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(input)


class Bottleneck(nn.Module):
    """1 x 1 x 1, grouped 3 x 3 x 3 and 1 x 1 x 1 convolution around a shortcut: x (B, inputs, T, H, W) -> (B, channels, ...).

    The grouped convolution is half as wide as the result; time, height and width are divided by ``stride``, rounded up. With
    ``flat``, for films of one pixel, kernels and strides are those over time alone. A shortcut that changes shape is a
    convolution with batch norm.
    """

    def __init__(self, inputs: int, channels: int, stride: int, groups: int, flat: bool) -> None:
        super().__init__()
        middle, strides = channels // 2, over(stride, flat)
        self.conv1, self.bn1 = nn.Conv3d(inputs, middle, 1, bias=False), FilmNorm(middle)
        self.conv2 = nn.Conv3d(middle, middle, over(3, flat), strides, over(1, flat, 0), groups=groups, bias=False)
        self.bn2 = FilmNorm(middle)
        self.conv3, self.bn3 = nn.Conv3d(middle, channels, 1, bias=False), FilmNorm(channels)
        changes = stride != 1 or inputs != channels
        self.downsample = (
            nn.Sequential(nn.Conv3d(inputs, channels, 1, strides, bias=False), FilmNorm(channels)) if changes else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class ResNeXt3D(nn.Module):
    """Trunk of a 3-D ResNeXt, ResNeXt-50 by default: x (B, channels, T, H, W) -> (B, widths[-1], T / 16, H / 32, W / 32), rounded up.

    ``stem`` and the four ``stages`` can be called one by one; of 30 frames of 224 pixels they give (T, H) = (15, 56), (15, 56),
    (8, 28), (4, 14), (2, 7). With a classifier of 8 classes, 25,882,056 parameters for three colours. With ``flat``, for films of
    one pixel with ``channels`` features, kernels run over time alone. Kaiming's normal initialisation (fan out).
    """

    def __init__(
        self,
        channels: int = 3,
        blocks: Sequence[int] = (3, 4, 6, 3),
        widths: Sequence[int] = (256, 512, 1024, 2048),
        stem: int = 64,
        groups: int = 32,
        flat: bool = False,
    ) -> None:
        super().__init__()
        for width in widths:
            if width % (2 * groups):
                raise ValueError(f"groups = {groups} does not divide half of a stage's {width} channels")
        self.stem = nn.Sequential(
            nn.Conv3d(channels, stem, over(7, flat), (1, *over(2, flat)[1:]), over(3, flat, 0), bias=False),
            FilmNorm(stem),
            nn.ReLU(),
            nn.MaxPool3d(over(3, flat), over(2, flat), over(1, flat, 0)),
        )
        self.stages = nn.ModuleList()
        before = stem
        for stage, (count, width) in enumerate(zip(blocks, widths, strict=True)):
            stride = 1 if stage == 0 else 2
            first = Bottleneck(before, width, stride, groups, flat)
            self.stages.append(nn.Sequential(first, *(Bottleneck(width, width, 1, groups, flat) for _ in range(count - 1))))
            before = width
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return x


def over(value: int, flat: bool, space: int = 1) -> tuple[int, int, int]:
    """``value`` for time, height and width; with ``flat`` for time alone, ``space`` for the other two."""
    return (value, space, space) if flat else (value, value, value)
