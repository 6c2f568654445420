"""Networks on films: patches of frames as nodes, mixed by learned adjacency matrices or by depthwise convolution.

Nodes are (B, t, N, width): t steps in time, N = n x n patches of a frame line by line. Every clip is brought to t steps first, so
no layer here meets padding.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Sampling = Literal["mean", "middle"]
Coordinates = Literal["index", "unit"]


def resampled(x: Tensor, lengths: Tensor, steps: int, how: Sampling = "mean") -> Tensor:
    """x (B, T, D), lengths (B,) -> (B, steps, D): each clip cut into ``steps`` equal parts, whatever its length.

    "mean": of the frames that a part touches. "middle": the frame at its middle. A clip of ``steps`` frames stays as it is,
    a shorter one repeats frames.
    """
    part = torch.arange(steps, device=x.device)
    count = lengths[:, None]
    if how == "middle":
        frame = ((2 * part + 1) * count) // (2 * steps)
        return x.gather(1, frame[..., None].expand(-1, -1, x.shape[2]))
    first, end = part * count // steps, ((part + 1) * count + steps - 1) // steps  # (B, steps)
    frames = torch.arange(x.shape[1], device=x.device)
    touched = (frames >= first[..., None]) & (frames < end[..., None])  # (B, steps, T)
    return touched.to(x.dtype) @ x / (end - first)[..., None]


class ChannelNorm(nn.BatchNorm1d):
    """Batch norm of the last axis of x (..., C) over all others."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.reshape(-1, x.shape[-1])).view(x.shape)


class Patches(nn.Module):
    """Patch embedding: non-overlapping patches of frames to nodes, BN(GELU(convolution)) (Trockman, Kolter 2022, section 2).

    x (B, t * tubelet, size * size * channels), frames line by line and pixels channel by channel -> (B, t, grid * grid, width). A
    patch is size / grid pixels wide and high and ``tubelet`` frames long. ``grid`` must divide ``size``.
    """

    def __init__(self, size: int, channels: int, grid: int, width: int, tubelet: int = 1) -> None:
        super().__init__()
        if size % grid:
            raise ValueError(f"a frame of {size} x {size} pixels has no {grid} x {grid} patches of whole pixels")
        self.grid, self.patch, self.tubelet = grid, size // grid, tubelet
        self.linear = nn.Linear(tubelet * self.patch**2 * channels, width)
        self.norm = ChannelNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        n, p = self.grid, self.patch
        pixels = x.view(len(x), -1, self.tubelet, n, p, n, p, x.shape[2] // (n * p) ** 2)
        patches = pixels.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4).flatten(2, 3)  # (B, t, N, tubelet * p * p * channels)
        return self.norm(F.gelu(self.linear(patches)))  # type: ignore[no-any-return]


class Coded(nn.Module):
    """A linear layer on features with their position's code beside them (AMCM, eq. 5 and 7), without copying codes.

    x (..., width) -> (..., width); ``code`` (..., k) broadcasts over the axes of x before the last.
    """

    code: Tensor

    def __init__(self, width: int, code: Tensor) -> None:
        super().__init__()
        self.width = width
        self.linear = nn.Linear(width + code.shape[-1], width)
        self.register_buffer("code", code, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.linear.weight, self.linear.bias
        return F.linear(x, weight[:, : self.width]) + F.linear(self.code, weight[:, self.width :], bias)


class AdjacencyLayer(nn.Module):
    """One layer of AMCM's film network: nodes aggregate over space, then over time, then channels mix (eq. 3-9).

    x (B, t, N, width), N = grid * grid -> the same shape. ``spatial`` (N, N) and ``temporal`` (t, t) are learned without any
    constraint; entry [i, j] weighs the way from node i to node j. All start at ``start``. ``coordinates`` "index": codes are
    the positions [i, j], 1 to n (eq. 3), and 0 to t - 1 (eq. 4, which lists t + 1 of them); "unit": these over n and t.
    """

    def __init__(self, grid: int, steps: int, width: int, start: float = 1.0, coordinates: Coordinates = "index") -> None:
        super().__init__()
        place, time = codes(grid, steps, coordinates)
        self.place, self.time = Coded(width, place), Coded(width, time)
        self.spatial = nn.Parameter(torch.full((grid**2, grid**2), start))
        self.temporal = nn.Parameter(torch.full((steps, steps), start))
        self.point = nn.Linear(width, width)
        self.norms = nn.ModuleList(ChannelNorm(width) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        over_space, over_time, over_channels = self.norms
        f = self.place(x)  # eq. 5
        f = over_space(F.gelu(self.spatial.T @ f)) + f  # eq. 6
        f = self.time(f)  # eq. 7
        f = over_time(F.gelu(self.temporal.T @ f.flatten(2)).view(f.shape)) + f  # eq. 8
        return over_channels(F.gelu(self.point(f)))  # type: ignore[no-any-return]  # eq. 9


class ConvMixerLayer(nn.Module):
    """A layer of ConvMixer on every frame by itself: depthwise convolution with a shortcut, then channels mix (AMCM, eq. 1, 2).

    x (B, t, N, width), N = grid * grid -> the same shape. ``kernel`` is odd; beyond a frame's edge stand zeros.
    """

    def __init__(self, grid: int, width: int, kernel: int) -> None:
        super().__init__()
        self.grid = grid
        self.depthwise = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
        self.point = nn.Linear(width, width)
        self.norms = nn.ModuleList(ChannelNorm(width) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        over_space, over_channels = self.norms
        frames = x.reshape(-1, self.grid, self.grid, x.shape[3]).permute(0, 3, 1, 2)
        f = over_space(F.gelu(self.depthwise(frames)).permute(0, 2, 3, 1).reshape(x.shape)) + x  # eq. 1
        return over_channels(F.gelu(self.point(f)))  # type: ignore[no-any-return]  # eq. 2


def codes(grid: int, steps: int, coordinates: Coordinates = "index") -> tuple[Tensor, Tensor]:
    """Position codes of patches, (grid * grid, 2), and of steps, (steps, 1, 1); see ``AdjacencyLayer``."""
    line = torch.arange(1.0, grid + 1)
    place = torch.cartesian_prod(line, line)
    time = torch.arange(float(steps))[:, None, None]
    return (place, time) if coordinates == "index" else (place / grid, time / steps)
