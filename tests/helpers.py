"""Random ragged splits and small methods on them, for tests of layers and methods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.data.batches import Batch, gather
from harness.data.schema import MODALITIES, Ragged, Split, Task
from harness.errors import ConfigError
from harness.nn.lstm import Order
from harness.training import Inputs, Method, MethodConfig, methods

NAMES = [name for name in methods if methods[name].__module__.partition(".")[0] in ("baselines", "methods")]

SUBSETS = [subset for size in (1, 2, 3) for subset in combinations(MODALITIES, size)]
DIMS = {"text": 6, "audio": 3, "vision": 4}
LENGTHS = {"text": [3, 7, 4, 5, 9, 2], "audio": [5, 4, 11, 2, 3, 8], "vision": [2, 6, 3, 17, 4, 5]}
REGRESSION = Task(kind="regression", low=-3, high=3)
TASKS = {"regression": REGRESSION, "classification": Task(kind="classification", classes=("angry", "happy", "sad"))}
KINDS = list(TASKS)
CLASSIFIERS = ("logistic",)  # methods that predict nothing but classes
READS = {  # methods that read one modality and pass the others over
    "resnext3d": "vision",
    "convmixer_frames": "vision",
    "conv1d_audio": "audio",
    "resnet34_mfcc": "audio",
}
# The same layers, fewer and narrower: the published networks have 20 to 50 million parameters, and are built hundreds of times.
STREAMS: dict[str, Any] = {"blocks": (1, 1, 1, 1), "widths": (8, 16, 16, 32), "stem": 8, "groups": 2, "steps": 9}
PICTURES: dict[str, Any] = {"blocks": (1, 1, 1, 1), "widths": (16, 16, 32, 32)}
SMALL: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("resnext3d", "av_average", "av_concat"), STREAMS),
    "mmtm": STREAMS,
    "msaf": STREAMS | {"block_channels": (6, 16)},
    "merc": STREAMS
    | {"steps": 33, "picture_blocks": (1, 1, 1, 1), "picture_widths": (16, 16, 32, 32), "reduction": 4, "hidden": 32, "heads": 2},
    "resnet34_mfcc": PICTURES,
    "convmixer_frames": {"width": 32, "depth": 2},
    "cnn_lstm": {"pool": {"text": 1, "audio": 1, "vision": 1}},
}
CLOSE = {"rtol": 0.0, "atol": 1e-5}  # float32 sums in another order


def random_split(lengths: dict[str, list[int]], dims: dict[str, int], seed: int, classes: int | None = None) -> Split:
    """Clips with ``lengths[m]`` normal frames of width ``dims[m]``; labels in [-3, 3], or every class in turn.

    Two clips in a row share a group. Rows are shuffled, so that a clip's row and its position differ.
    """
    rng = np.random.default_rng(seed)
    features = {name: _ragged(counts, dims[name], rng) for name, counts in lengths.items()}
    clips = len(next(iter(lengths.values())))
    rows = torch.from_numpy(rng.permutation(clips))
    labels = torch.arange(clips) % classes if classes else torch.from_numpy(rng.uniform(-3, 3, clips).astype(np.float32))
    return Split(features, rows, tuple(f"clip{i}" for i in range(clips)), tuple(f"video{i // 2}" for i in range(clips)), labels)


def _ragged(counts: list[int], dim: int, rng: np.random.Generator) -> Ragged:
    offsets = torch.tensor([0, *np.cumsum(counts)], dtype=torch.int64)
    return Ragged(torch.from_numpy(rng.normal(size=(int(offsets[-1]), dim)).astype(np.float32)), offsets)


def filmed(split: Split) -> Split:
    """``split`` with vision's frames as pictures: bytes, whose order is that of the values."""
    if "vision" not in split.features:
        return split
    vision = split.features["vision"]
    low, high = vision.values.min(), vision.values.max()
    pixels = (255 * (vision.values - low) / (high - low)).round().to(torch.uint8)
    return replace(split, features={**split.features, "vision": replace(vision, values=pixels)})


def at_places(rows: Order, x: Tensor, steps: int) -> Tensor:
    """Rows (N, D) at their places, zero at padding: (B, ``steps``, D)."""
    flat = x.new_zeros(len(rows.last) * steps, x.shape[1])
    return flat.index_copy(0, rows.rows, x).view(-1, steps, x.shape[1])


def some_split(kind: str = "regression", modalities: tuple[str, ...] = MODALITIES) -> Split:
    return random_split(LENGTHS, DIMS, seed=1, classes=3 if kind == "classification" else None).only(modalities)


def usual(name: str) -> str:
    """The kind of task on which a method is tried where one is enough."""
    return "classification" if name in CLASSIFIERS else "regression"


def build(name: str, split: Split, kind: str = "regression", seed: int = 0, **settings: Any) -> Method:
    """A method with ``settings`` over those of ``SMALL``, fitted."""
    torch.manual_seed(seed)
    method = methods[name](Inputs.of(split), TASKS[kind], methods[name].Config(**SMALL.get(name, {}) | settings))
    method.fit(split)
    return method


def build_or_refusal(name: str, split: Split, kind: str = "regression") -> Method | None:
    """The method, or None where it refuses the modalities of ``split`` as it may: by a ConfigError that names one it lacks.

    Or where it refuses intensities, as methods for classes may.
    """
    if kind != "classification" and name in CLASSIFIERS:
        with pytest.raises(ConfigError, match="predicts classes"):
            build(name, split, kind)
        return None
    try:
        return build(name, split, kind)
    except ConfigError as error:
        lacking = set(MODALITIES) - set(split.features)
        assert any(modality in error.problem for modality in lacking), f"{error.problem!r} names none of {sorted(lacking)}"
        return None


@cache
def fitted(name: str) -> Method:
    """A method in evaluation mode, its batch statistics moved by one training batch."""
    split = some_split(usual(name))
    method = build(name, split, usual(name))
    method(whole(split))
    return method.eval()


def whole(split: Split) -> Batch:
    return gather(split, torch.arange(len(split)))


def predict(method: Method, batch: Batch) -> Tensor:
    with torch.inference_mode():
        return method(batch).prediction


def merged(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Settings ``over`` laid over ``base``, level by level."""
    return base | {key: merged(base[key], value) if isinstance(value, Mapping) else value for key, value in over.items()}


def without_dropout(method: Method) -> Method:
    """``method`` with the rates of all its modules at 0."""
    for module in method.modules():
        for rate in ("p", "dropout", "text_dropout"):
            if isinstance(getattr(module, rate, None), float):
                setattr(module, rate, 0.0)
    return method


def check_training_fits(method: Method, batch: Batch) -> None:
    """A quarter of the constant's error after 60 steps, dropout off: the pieces are wired so that gradients teach."""
    optimiser = torch.optim.Adam(without_dropout(method).parameters(), lr=3e-3)
    assert batch.labels is not None
    for _ in range(60):
        optimiser.zero_grad()
        F.l1_loss(method(batch).prediction, batch.labels).backward()
        optimiser.step()
    constant = F.l1_loss(batch.labels.median().expand(len(batch)), batch.labels)
    assert F.l1_loss(method(batch).prediction, batch.labels) < constant / 4


def own_settings(small: Mapping[str, Mapping[str, Any]]) -> list[Any]:
    """One case (name, path, value) for each setting of these methods' own, ``small`` laid over the defaults."""
    return [
        pytest.param(name, path, value, id=f"{name}-{'.'.join(path)}")
        for name, over in small.items()
        for path, value in _leaves(merged(methods[name].Config().model_dump(exclude=set(MethodConfig.model_fields)), over))
    ]


def _leaves(settings: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    found = []
    for key, value in settings.items():
        found += _leaves(value, (*prefix, key)) if isinstance(value, Mapping) else [((*prefix, key), value)]
    return found


def nested(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """``value`` below the keys of ``path``."""
    for key in reversed(path):
        value = {key: value}
    return value  # type: ignore[no-any-return]
