"""Simulated data sets: the shape of a real one, drawn from a latent-variable model whose best possible score is known.

The model, its ideal predictor and what is not realistic about it stand in docs/simulated_data.md. In short: a clip has
a sentiment z, N(0, 1) in training; every frame t of modality m shows it along one fixed direction w_m,

    w_m . x_mt = signal_m (z + nuisance_m s_m + frame_m e_mt) + white noise,

beside style factors orthogonal to w_m that carry no sentiment; the label is a step function of z, the same in all splits,
and every split has the published label histogram. The time mean of w_m . x_mt is sufficient, so z given a clip's features
is Gaussian in closed form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator
from scipy.special import ndtri

from harness import seeds
from harness.data.assemble import assemble
from harness.data.catalogue import Facts
from harness.data.ideal import Floats, LabelMap, ideal_scores
from harness.data.schema import SPLITS, Dataset, Frozen, Ragged, Source
from harness.errors import ConfigError
from harness.registry import suggest

Ints = NDArray[np.int64]

HIGH = 3.0  # labels lie in [-3, 3]
LEVELS = 9  # the seven bins of acc7, with the middle one cut into negative, exactly zero and positive
CHUNK = 128  # frames that are filled at a time: they stay in the processor's cache


class Length(Frozen):
    """Frames per clip, the same in every modality: a log-normal number, rounded, cut to [1, ``longest``]."""

    log_mean: float
    log_std: float = Field(ge=0)
    longest: int = Field(ge=1)


class SplitShape(Frozen):
    """One split: its videos, and its clips by label: bins -3, -2, -1, negative 0, exact 0, positive 0, 1, 2, 3."""

    videos: int = Field(ge=1)
    labels: tuple[int, ...] = Field(min_length=LEVELS, max_length=LEVELS)

    @model_validator(mode="after")
    def _counts(self) -> Self:
        if min(self.labels) < 0 or sum(self.labels) < self.videos:
            raise ValueError(f"labels = {list(self.labels)} must be counts that give each of the {self.videos} videos a clip")
        return self

    @property
    def clips(self) -> int:
        return sum(self.labels)


class Channel(Frozen):
    """One modality. Sizes are in units of the white noise of one feature, before features get their scales."""

    dim: int = Field(ge=1)
    signal: float = Field(gt=0, description="lambda: change along w per unit of sentiment")
    nuisance: float = Field(ge=0, description="nu: std of the clip's error in units of sentiment; no clip length averages it away")
    frame: float = Field(ge=0, description="phi: std of a frame's error in units of sentiment")
    styles: int = Field(0, ge=0, description="number of style factors; at most dim - 1 are used")
    style: float = Field(0, ge=0, description="std of one style factor")
    memory: float = Field(0, ge=0, lt=1, description="correlation of a style factor between neighbouring frames")
    speaker: float = Field(0, ge=0, le=1, description="share of a style factor's variance that is the video's own")
    rms: tuple[float, float] = Field(description="range of the features' root mean squares about their offsets (log-uniform)")
    offset: float = Field(0, ge=0, description="largest offset of a feature, in units of its own rms")

    @model_validator(mode="after")
    def _range(self) -> Self:
        if not 0 < self.rms[0] <= self.rms[1]:
            raise ValueError(f"rms = {list(self.rms)} must be two positive numbers, the smaller first")
        return self

    def information(self, lengths: NDArray[Any]) -> Floats:
        """Precision that clips of these lengths add to the posterior of z: 1 / (nu^2 + (phi^2 + 1 / lambda^2) / T)."""
        error: Floats = self.nuisance**2 + (self.frame**2 + self.signal**-2) / np.asarray(lengths, dtype=np.float64)
        return 1 / error


class Simulated(Frozen):
    """The table ``[simulated]`` of a data set's file: everything that :func:`simulate` needs."""

    grid: float = Field(gt=0, le=0.5, description="step of the label scale")
    video_correlation: float = Field(ge=0, lt=1, description="correlation of z between two clips of one video")
    video_spread: float = Field(gt=0, description="coefficient of variation of the videos' expected numbers of clips")
    length: Length
    splits: dict[str, SplitShape]
    modalities: dict[str, Channel] = Field(min_length=1)

    @model_validator(mode="after")
    def _splits(self) -> Self:
        if set(self.splits) != set(SPLITS):
            raise ValueError(f"splits must be {', '.join(SPLITS)}, not {', '.join(self.splits) or 'none'}")
        values = set(self.label_map().values)
        for split, shape in self.splits.items():
            if not values.issuperset(_labels(shape.labels, self.grid)):
                raise ValueError(f"splits.{split}.labels counts labels that the training split does not have")
        return self

    def label_map(self) -> LabelMap:
        """g, the map from sentiment to label: that of the training split, in which z is N(0, 1)."""
        return LabelMap.of(_labels(self.splits["train"].labels, self.grid))

    def uncertainty(self, lengths: NDArray[Any], modalities: Sequence[str]) -> Floats:
        """Standard deviation of z given ``modalities`` of clips of these lengths (N,): (N,)."""
        known: Floats = 1 + np.sum([self.modalities[m].information(lengths) for m in modalities], axis=0)
        return known**-0.5


def simulate(
    facts: Facts,
    *,
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
    dims: Mapping[str, int] | None = None,
    modalities: Sequence[str] | None = None,
    name: str | None = None,
) -> Dataset:
    """A data set of the shape of ``facts``, marked as simulated, with the ideal predictor's test scores on its card.

    ``sizes`` (split -> clips) and ``dims`` (modality -> features per frame) override the published shape; label
    histograms are then scaled by largest remainder. A modality's features do not depend on which others are asked for.
    Raises ``ConfigError`` for a data set without a simulated form and for unknown names or impossible numbers.
    """
    published = _spec(facts)
    label = published.label_map()
    spec = _adapted(published, sizes or {}, dims or {}, modalities)
    drawn = draw(spec, label, seed, facts.name)
    test = np.flatnonzero(drawn.clips["split"] == "test")
    known = (drawn.clips["label"].to_numpy(dtype=np.float64)[test], *posterior(spec, drawn, test))
    return assemble(
        name=name or f"{facts.name}@simulated",
        facts=facts,
        clips=drawn.clips,
        features=dict(drawn.features),
        source=Source(layout="simulated", notes=_notes(seed, ideal_scores(label, *known, label.shares))),
        simulated=True,
        best_possible={metric: round(score, 6) for metric, score in ideal_scores(label, *known).items()},
    )


@dataclass(frozen=True)
class World:
    """What all clips of one modality share: directions (1 + styles, dim), of which the first is w; scale and offset (dim,)."""

    directions: NDArray[np.float32]
    scale: NDArray[np.float32]
    offset: NDArray[np.float32]


@dataclass(frozen=True)
class Drawn:
    """One draw from the model: what a data set shows (``clips``, ``features``) and what it hides (``z`` (N,), ``worlds``)."""

    clips: pd.DataFrame
    features: Mapping[str, Ragged]
    z: Floats
    worlds: Mapping[str, World]


def draw(spec: Simulated, label: LabelMap, seed: int, dataset: str) -> Drawn:
    """All clips of ``spec``, split after split, with labels g(z). The random streams are named by ``seed``, ``dataset`` and modality."""
    clips, z = _clips(spec, label, seed, dataset)
    lengths = _lengths(spec.length, len(clips), seeds.generator(seed, "simulate", dataset, "length"))
    video = pd.factorize(clips["group"])[0]
    worlds, features = {}, {}
    for m, channel in spec.modalities.items():
        worlds[m] = _world(channel, seeds.generator(seed, "simulate", dataset, "world", m))
        features[m] = _features(channel, worlds[m], z, lengths, video, seeds.generator(seed, "simulate", dataset, "frames", m))
    return Drawn(clips, features, z, worlds)


def posterior(spec: Simulated, drawn: Drawn, rows: Ints) -> tuple[Floats, Floats]:
    """Mean and standard deviation of z given the features of each clip in ``rows`` (N,), a run of neighbours: (N,), (N,)."""
    precision, weighted = np.ones(len(rows)), np.zeros(len(rows))
    for m, ragged in drawn.features.items():
        channel, world = spec.modalities[m], drawn.worlds[m]
        starts = ragged.offsets[rows[0] : rows[-1] + 2].numpy()
        frames = ragged.values[starts[0] : starts[-1]].numpy()
        means = np.add.reduceat(frames, starts[:-1] - starts[0], axis=0, dtype=np.float64) / np.diff(starts)[:, None]
        seen = ((means - world.offset) / world.scale) @ world.directions[0].astype(np.float64)
        information = channel.information(np.diff(starts))
        precision += information
        weighted += information * seen / channel.signal
    return weighted / precision, precision**-0.5


def _spec(facts: Facts) -> Simulated:
    where = f"the table [simulated] of data set '{facts.name}'"
    if not facts.simulated:
        raise ConfigError(f"data set '{facts.name}' has no simulated form", "Import the real one: harness data import --help.")
    try:
        return Simulated.model_validate(facts.simulated)
    except ValidationError as error:
        faults = "\n".join(f"  {'.'.join(map(str, fault['loc'])) or 'table'}: {fault['msg']}" for fault in error.errors())
        raise ConfigError(f"{where} is not valid:\n{faults}", "docs/simulated_data.md describes its keys.") from error


def _adapted(spec: Simulated, sizes: Mapping[str, int], dims: Mapping[str, int], modalities: Sequence[str] | None) -> Simulated:
    chosen = tuple(spec.modalities) if modalities is None else tuple(modalities)
    if not chosen:
        raise ConfigError("no modality was chosen", f"Choose from {', '.join(spec.modalities)}.")
    for kind, asked, known in (("modality", chosen, spec.modalities), ("modality", dims, spec.modalities), ("split", sizes, spec.splits)):
        for name in asked:
            if name not in known:
                raise ConfigError(f"there is no {kind} '{name}' in this data set", suggest(name, known))
    for key, number in [*sizes.items(), *dims.items()]:
        if number < 1:
            raise ConfigError(f"a simulated data set cannot have {key} = {number}", "Give a number of at least 1.")
    return spec.model_copy(
        update={
            "splits": {split: _resized(shape, sizes.get(split, shape.clips)) for split, shape in spec.splits.items()},
            "modalities": {m: spec.modalities[m].model_copy(update={"dim": dims.get(m, spec.modalities[m].dim)}) for m in chosen},
        }
    )


def _resized(shape: SplitShape, clips: int) -> SplitShape:
    videos = min(clips, max(1, round(shape.videos * clips / shape.clips)))
    return SplitShape(videos=videos, labels=tuple(_apportion(np.array(shape.labels), clips).tolist()))


def _apportion(weights: NDArray[Any], total: int) -> Ints:
    """``total`` dealt in proportion to ``weights`` (K,) by largest remainder; the first of equals goes first."""
    exact = weights * total / weights.sum()
    counts: Ints = np.floor(exact).astype(np.int64)
    counts[np.argsort(counts - exact, kind="stable")[: total - counts.sum()]] += 1
    return counts


def _labels(counts: Sequence[int], grid: float) -> Floats:
    """The labels of one split in ascending order: each level's clips spread evenly over the label values inside it."""
    ticks = round(HIGH / grid)
    values = np.array([round(k * grid, 4) for k in range(-ticks, ticks + 1) if abs(k * grid) <= HIGH + 1e-9])
    level = np.select([values.round() <= -1, values.round() >= 1], [values.round() + 3, values.round() + 5], np.sign(values) + 4)
    return np.concatenate([np.repeat(v, _apportion(np.ones(len(v)), n)) for k, n in enumerate(counts) if len(v := values[level == k])])


def _clips(spec: Simulated, label: LabelMap, seed: int, dataset: str) -> tuple[pd.DataFrame, Floats]:
    """The table of clips, split after split and video after video, and each clip's z."""
    tables, sentiments = [], []
    for split in SPLITS:
        rng = seeds.generator(seed, "simulate", dataset, "clips", split)
        shape = spec.splits[split]
        share = rng.gamma(spec.video_spread**-2, size=shape.videos) + 1e-9
        sizes = 1 + rng.multinomial(shape.clips - shape.videos, share / share.sum())
        video = np.repeat(np.arange(shape.videos), sizes)
        rank = _ranks(video, spec.video_correlation, rng)
        z = _sentiments(label, _labels(shape.labels, spec.grid), rng)[rank]
        tables.append(_table(split, video, sizes, label(z)))
        sentiments.append(z)
    return pd.concat(tables, ignore_index=True), np.concatenate(sentiments)


def _ranks(video: Ints, correlation: float, rng: np.random.Generator) -> Ints:
    """The place of each clip in the order of sentiment; clips of one video tend to lie near each other."""
    own, shared = rng.standard_normal(len(video)), rng.standard_normal(video.max() + 1)
    score = correlation**0.5 * shared[video] + (1 - correlation) ** 0.5 * own
    return np.argsort(np.argsort(score))


def _sentiments(label: LabelMap, labels: Floats, rng: np.random.Generator) -> Floats:
    """An ascending z for each of the ascending ``labels``: N(0, 1) on the step of g, one draw in each of equal strata."""
    _, step, counts = np.unique(labels, return_inverse=True, return_counts=True)
    inside = rng.integers(1, 2**20, size=len(labels)) / 2**20  # never on a border, where g would be ambiguous
    place = (np.arange(len(labels)) - (np.cumsum(counts) - counts)[step] + inside) / counts[step]
    k = np.searchsorted(label.values, labels)
    return np.asarray(ndtri(np.cumsum(label.shares)[k] - label.shares[k] * (1 - place)), dtype=np.float64)


def _table(split: str, video: Ints, sizes: Ints, labels: Floats) -> pd.DataFrame:
    width = max(2, len(str(len(sizes))))
    groups = [f"sim_{split}_{v + 1:0{width}d}" for v in video]
    number = np.concatenate([np.arange(1, size + 1) for size in sizes])
    ids = [f"{group}_{n}" for group, n in zip(groups, number, strict=True)]
    return pd.DataFrame({"id": ids, "group": groups, "split": split, "label": labels, "text": ""})


def _lengths(length: Length, clips: int, rng: np.random.Generator) -> Ints:
    drawn = np.exp(rng.normal(length.log_mean, length.log_std, size=clips))
    return np.clip(np.rint(drawn), 1, length.longest).astype(np.int64)


def _world(channel: Channel, rng: np.random.Generator) -> World:
    styles = min(channel.styles, channel.dim - 1)
    basis, _ = np.linalg.qr(rng.standard_normal((channel.dim, 1 + styles)))
    energy = channel.signal**2 * (1 + channel.nuisance**2 + channel.frame**2) + styles * channel.style**2
    scale = np.exp(rng.uniform(log(channel.rms[0]), log(channel.rms[1]), size=channel.dim))
    offset = scale * rng.uniform(-channel.offset, channel.offset, size=channel.dim)
    scale /= (1 + energy / channel.dim) ** 0.5
    return World(basis.T.astype(np.float32), scale.astype(np.float32), offset.astype(np.float32))


def _features(channel: Channel, world: World, z: Floats, lengths: Ints, video: Ints, rng: np.random.Generator) -> Ragged:
    """All frames of one modality.

    Products are summed one direction at a time by elementwise arithmetic: a matrix product would round differently
    on another processor, and the data set's fingerprint with it.
    """
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    factors = _factors(channel, len(world.directions) - 1, z, lengths, video, rng)
    values = np.empty((offsets[-1], channel.dim), dtype=np.float32)
    product = np.empty((CHUNK, channel.dim), dtype=np.float32)
    for start in range(0, len(values), CHUNK):
        part = values[start : start + CHUNK]
        rng.standard_normal(out=part, dtype=np.float32)
        for factor, direction in zip(factors, world.directions, strict=True):
            part += np.multiply(factor[start : start + CHUNK, None], direction, out=product[: len(part)])
        part *= world.scale
        part += world.offset
    return Ragged(torch.from_numpy(values), torch.from_numpy(offsets))


def _factors(channel: Channel, styles: int, z: Floats, lengths: Ints, video: Ints, rng: np.random.Generator) -> NDArray[np.float32]:
    """Each frame's coordinates along the directions: the sentiment with its errors, then the styles. (1 + styles, frames)."""
    clip = np.repeat(np.arange(len(lengths)), lengths)
    shown = z + channel.nuisance * rng.standard_normal(len(z))
    sentiment = channel.signal * (shown[clip] + channel.frame * rng.standard_normal(len(clip)))
    own = rng.standard_normal((video.max() + 1, styles))
    style = _autoregressive(rng.standard_normal((len(clip), styles)), lengths, channel.memory)
    style = channel.style * ((1 - channel.speaker) ** 0.5 * style + channel.speaker**0.5 * own[video[clip]])
    return np.vstack([sentiment, style.T]).astype(np.float32)


def _autoregressive(noise: Floats, lengths: Ints, memory: float) -> Floats:
    """White ``noise`` (frames, F) turned into stationary AR(1) series of unit variance, one per clip, in place."""
    starts = np.cumsum(lengths) - lengths
    for step in range(1, int(lengths.max())):
        now = starts[lengths > step] + step
        noise[now] = memory * noise[now - 1] + (1 - memory**2) ** 0.5 * noise[now]
    return noise


def _notes(seed: int, learned: Mapping[str, float]) -> dict[str, str]:
    return {
        "model": "latent-variable model of docs/simulated_data.md; no score on it says anything about people",
        "seed": str(seed),
        "text": "the clips have no words, so the text column is empty",
        "best possible": "per metric, the ideal predictor that knows the model and how often each label occurs in the test split",
        "best learned": "the same believing in the training split's labels: " + ", ".join(f"{m} {v:.3f}" for m, v in learned.items()),
    }
