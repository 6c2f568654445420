"""Films as tensors of pictures, sequences as tensors of fixed length: nothing that reads these meets padding."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.nn.adjacency import Sampling, resampled

Colours = Literal["none", "imagenet"]
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and deviation of red, green, blue in [0, 1]


def fixed(x: Tensor, lengths: Tensor, steps: int) -> Tensor:
    """x (B, T, D), zero at padding, lengths (B,) -> (B, steps, D): the middle of a longer clip, a shorter one with zeros at its end."""
    start = ((lengths - steps).clamp_min(0) // 2)[:, None]
    frame = start + torch.arange(steps, device=x.device)
    x = F.pad(x, (0, 0, 0, max(0, steps - x.shape[1])))
    taken = x.gather(1, frame.clamp_max(x.shape[1] - 1)[..., None].expand(-1, -1, x.shape[2]))
    return taken.masked_fill((frame >= lengths[:, None])[..., None], 0)


class Pictures(nn.Module):
    """Frames of a film as pictures: x (B, T, size * size * channels), lengths (B,) -> (B, channels, steps, size, size).

    A frame lists its pixels line by line, each with its channels. Every clip is brought to ``steps`` frames (``resampled``).
    ``colours`` "imagenet": of values in [0, 1], minus mean, over deviation of that set's colours; of grey, the means of these.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, size: int, channels: int, steps: int, sampling: Sampling = "middle", colours: Colours = "none") -> None:
        super().__init__()
        self.size, self.channels, self.steps, self.sampling, self.colours = size, channels, steps, sampling, colours
        if colours == "imagenet" and channels not in (1, 3):
            raise ValueError(f"a frame has 1 or 3 colours, not {channels}")
        mean, deviation = (torch.tensor(values) for values in IMAGENET)
        for name, values in {"mean": mean, "deviation": deviation}.items():
            self.register_buffer(name, values if channels == 3 else values.mean(0, keepdim=True), persistent=False)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        frames = resampled(x, lengths, self.steps, self.sampling).view(len(x), self.steps, self.size, self.size, self.channels)
        if self.colours == "imagenet":
            frames = (frames - self.mean) / self.deviation
        return frames.permute(0, 4, 1, 2, 3)
