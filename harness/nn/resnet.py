"""ResNet with basic blocks over pictures whose rows are time: no value depends on what a batch pads a clip with."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from harness.nn.masked import MaskedBatchNorm, time_mask


class PictureNorm(MaskedBatchNorm):
    """Batch norm over the real rows of x (B, C, T, F), lengths (B,) of the axis T; zero at padding."""

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return super().forward(x.flatten(2), lengths * x.shape[3]).view(x.shape)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions with batch norm around a shortcut (He et al. 2016): x (B, inputs, T, F), zero at padding.

    -> (B, channels, T / stride, F / stride), rounded up, zero at padding, and its lengths. A shortcut that changes shape is a
    1 x 1 convolution with batch norm.
    """

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride, padding=1, bias=False)
        self.bn1 = PictureNorm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = PictureNorm(channels)
        changes = stride != 1 or inputs != channels
        self.downsample = (
            nn.ModuleList([nn.Conv2d(inputs, channels, 1, stride, bias=False), PictureNorm(channels)]) if changes else nn.ModuleList()
        )

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        lengths = strided(lengths, self.stride)
        y = halved(x, self.conv1) if self.stride == 2 else self.conv1(x)
        y = F.relu(self.bn1(y, lengths))
        y = self.bn2(self.conv2(y), lengths)
        if len(self.downsample):
            convolution, norm = self.downsample
            x = norm(convolution(x), lengths)
        return F.relu(y + x), lengths


class ResNet(nn.Module):
    """Trunk of a residual network (He et al. 2016): ResNet-34 by default, without the classifier.

    x (B, channels, T, F), zero at padding, and lengths (B,) of the axis T -> (B, widths[-1], T / 32, F / 32), rounded up and zero
    at padding, and its lengths. Every clip gets what it would get alone: a convolution sees zeros after its end, as at
    any edge, and batch norm sees its rows only. ResNet-34 has 21,278,400 parameters for one channel, 6,272 more for every
    further two. Parameters have torchvision's names. Kaiming's normal initialisation.
    """

    def __init__(self, channels: int = 1, blocks: Sequence[int] = (3, 4, 6, 3), widths: Sequence[int] = (64, 128, 256, 512)) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, widths[0], 7, stride=2, padding=3, bias=False)
        self.bn1 = PictureNorm(widths[0])
        inputs = widths[0]
        self.stages = len(blocks)
        for stage, (count, width) in enumerate(zip(blocks, widths, strict=True), start=1):
            strides = [1 if stage == 1 else 2] + [1] * (count - 1)
            first = [inputs] + [width] * (count - 1)
            self.add_module(f"layer{stage}", nn.ModuleList(map(BasicBlock, first, [width] * count, strides)))
            inputs = width
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        lengths = strided(lengths, 2)
        x = F.relu(self.bn1(halved(x, self.conv1), lengths))
        lengths = strided(lengths, 2)
        # Padding is zero and nothing real is less, but the step after a clip's last one may cover a real row.
        x = blank(F.max_pool2d(x, 3, stride=2, padding=1), lengths)
        for stage in range(1, self.stages + 1):
            for block in self.get_submodule(f"layer{stage}"):  # type: ignore[attr-defined]
                x, lengths = block(x, lengths)
        return x, lengths


def strided(lengths: Tensor, stride: int) -> Tensor:
    """Steps that a convolution of odd kernel k, padded by k // 2, makes of ``lengths``."""
    return (lengths + stride - 1) // stride


def halved(x: Tensor, convolution: nn.Module) -> Tensor:
    """What ``convolution``, of stride 2 and padded by half its kernel, makes of x (B, C, T, F).

    Where the result is one column wide, oneDNN's bfloat16 convolution (PyTorch 2.13) reads memory that is not its own. There the
    zeros beyond the edge are put in, and the second column that they make is cut off.
    """
    if x.shape[3] > 2:
        return convolution(x)  # type: ignore[no-any-return]
    return convolution(F.pad(x, (0, 3 - x.shape[3])))[..., :1]  # type: ignore[no-any-return]


def blank(x: Tensor, lengths: Tensor) -> Tensor:
    """x (B, C, T, F) with zeros at padding."""
    return x.masked_fill(~time_mask(x, lengths)[..., None], 0)
