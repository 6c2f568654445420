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
from harness.data.schema import Picture, Split
from harness.training.contract import MethodConfig
from harness.training.settings import Augmentation


def augmented(batch: Batch, train: Split, config: MethodConfig, seed: int, epoch: int) -> Batch:
    """``batch`` of clips of ``train`` as epoch ``epoch`` trains on it; ``batch`` itself where nothing is to be changed.

    Modalities whose frames are pixels are changed; vectors of features stay as they are.
    """
    settings = config.augmentation
    films = {name: picture for name, ragged in train.features.items() if (picture := ragged.picture) is not None}
    if not settings.active or not films:
        return batch
    mirrored, grid = _drawn([train.ids[place] for place in batch.position.tolist()], settings, seed, epoch)
    changed = {name: _changed(batch.features[name], picture, mirrored, grid) for name, picture in films.items()}
    return replace(batch, features={**batch.features, **changed})


def _changed(x: Tensor, picture: Picture, mirrored: Tensor, grid: Tensor) -> Tensor:
    """x (B, T, D), a picture per frame, mirrored where ``mirrored`` (B,) is true, then moved by ``grid`` (B, 2, 3)."""
    pictures = x.view(*x.shape[:2], picture.side, picture.side, picture.channels)
    return _warped(torch.where(mirrored[:, None, None, None, None], pictures.flip(3), pictures), grid).reshape(x.shape)


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
