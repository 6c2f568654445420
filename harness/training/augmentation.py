"""Random changes of films in training: mirrored, turned, cut to a part and enlarged, all frames of a clip alike.

What happens to a clip in an epoch follows from the stream (seed, "augmentation", epoch, clip id) alone: not from the batch it is in,
the method or the order. A run that stops goes on with the same bits, and validation and test clips are never touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness import seeds
from harness.data.batches import Batch
from harness.data.schema import Split
from harness.errors import ConfigError
from harness.training.contract import MethodConfig
from harness.training.pixels import square
from harness.training.settings import Augmentation

FILM = "vision"


def augmented(batch: Batch, train: Split, config: MethodConfig, seed: int, epoch: int) -> Batch:
    """``batch`` of clips of ``train`` as epoch ``epoch`` trains on it; ``batch`` itself where nothing is to be changed.

    Frames of a method whose ``frame_size`` is unset are features and stay. ConfigError where a method without that setting is
    given frames that are no square pictures.
    """
    settings = config.augmentation
    if not settings.active or FILM not in batch.features or getattr(config, "frame_size", True) is None:
        return batch
    side, channels = _picture(batch.features[FILM].shape[2])
    names = [train.ids[place] for place in batch.position.tolist()]
    mirrored, grid = _drawn(names, settings, seed, epoch)
    x = batch.features[FILM]
    pictures = x.view(*x.shape[:2], side, side, channels)
    changed = _warped(torch.where(mirrored[:, None, None, None, None], pictures.flip(3), pictures), grid)
    return replace(batch, features={**batch.features, FILM: changed.reshape(x.shape)})


def _picture(dim: int) -> tuple[int, int]:
    found = square(dim)
    if found is None:
        raise ConfigError(
            f"augmentation changes pictures; the {dim} features of {FILM} are not the pixels of a square frame",
            "Leave out augmentation.flip, augmentation.rotation and augmentation.crop, or extract frames: --vision frames.",
        )
    return found


def _drawn(names: Sequence[str], settings: Augmentation, seed: int, epoch: int) -> tuple[Tensor, Tensor]:
    """Which clips are mirrored (B,), and the map from places in the new picture to places in the old one, (B, 2, 3)."""
    draws = np.stack([seeds.generator(seed, "augmentation", epoch, name).random(5) for name in names])
    coin, turn, part, *shift = draws.T
    angle = np.radians(settings.rotation) * (2 * turn - 1)
    scale = 1 - settings.crop * part
    left, up = ((1 - scale) * (2 * place - 1) for place in shift)
    rows = [[scale * np.cos(angle), -scale * np.sin(angle), left], [scale * np.sin(angle), scale * np.cos(angle), up]]
    grid = torch.from_numpy(np.stack([np.stack(row, axis=1) for row in rows], axis=1)).float()
    return torch.from_numpy(coin < settings.flip), grid


def _warped(pictures: Tensor, grid: Tensor) -> Tensor:
    """pictures (B, T, S, S, C) at the places that ``grid`` names, between pixels by their four neighbours, zero beyond the edge.

    Clips that are neither turned nor cut keep their bits.
    """
    still = (grid == torch.eye(2, 3)).all(2).all(1)
    if bool(still.all()):
        return pictures
    planes = pictures.permute(0, 1, 4, 2, 3).flatten(1, 2)  # frames and colours of a clip move alike
    places = F.affine_grid(grid.to(planes.dtype), list(planes.shape), align_corners=False)
    moved = F.grid_sample(planes, places, align_corners=False).view(*pictures.shape[:2], pictures.shape[4], *pictures.shape[2:4])
    return torch.where(still[:, None, None, None, None], pictures, moved.permute(0, 1, 3, 4, 2))
