"""Frames that are pictures: what a frame's number of features says of its side and colours."""

from __future__ import annotations

from math import isqrt

from harness.errors import ConfigError

SMALLEST = 3  # pixels per side: 4 features or fewer are taken for features


def square(dim: int) -> tuple[int, int] | None:
    """Side and channels (1 grey, 3 colours) of the square picture that ``dim`` values are; None if they are none."""
    for channels in (1, 3):
        side = isqrt(dim // channels)
        if channels * side**2 == dim and side >= SMALLEST:
            return side, channels
    return None


def frame_channels(name: str, dim: int, size: int) -> int:
    """1 (grey) or 3 (colours) if ``dim`` features are the pixels of ``size`` x ``size``; ConfigError if they are not."""
    if dim in (size**2, 3 * size**2):
        return dim // size**2
    raise ConfigError(
        f"{name} has {dim} features per frame; frame_size = {size} means {size**2} (grey) or {3 * size**2} (red, green, blue)",
        f"Set frame_size to {_side(dim)}.",
    )


def _side(dim: int) -> str:
    """What frame_size could be for frames of ``dim`` features, in words."""
    found = square(dim)
    if found:
        return f"{found[0]} if these are the pixels of a frame, or to null if they are other features"
    return "null: these features are not the pixels of a square frame"
