"""Predictions of two systems on the same clips, and their statistics summed by cluster.

Clips of one video share a speaker, a camera and a topic, so whole videos (clusters) are what tests resample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.errors import DataError
from harness.training.metrics import Floats, Labels, Metric, Statistics

UNTESTED = -1  # in ``Pair.folds``: a clip that a run did not hold out


class Design(StrEnum):
    """How the runs of a pair came about; it decides which test is right."""

    SEEDS = "fixed split, several seeds"
    RUN = "fixed split, one run"
    FOLDS = "repeated k-fold"
    DRAWS = "repeated hold-out"


@dataclass(frozen=True, eq=False)
class Pair:
    """System A and reference B on the same N clips.

    ``a``, ``b``: (S, N) intensities or labels, or (S, N, C) scores; one run may come without its axis. ``truth`` (N,).
    ``clusters`` (N,): each clip's video or speaker; None when clips are independent. ``paired_seeds``: run s of A and
    run s of B share a seed; if not, they may differ in S. Cross-validation: run s is one repeat, ``folds`` (S, N) says
    in which fold it held each clip out, ``train_clips`` how many clips a fold trains on (None: all the others). Hold-out
    draws: run s is one draw, ``folds`` is any number where it tests and ``UNTESTED`` elsewhere; predictions there are not
    read, but must be numbers.
    """

    a: ArrayLike
    b: ArrayLike
    truth: ArrayLike
    clusters: ArrayLike | None = None
    paired_seeds: bool = True
    folds: ArrayLike | None = None
    train_clips: float | None = None
    _tables: dict[Statistics, tuple[Floats, Floats]] = field(default_factory=dict, init=False, repr=False)
    _totals: dict[Statistics, tuple[Floats, Floats]] = field(default_factory=dict, init=False, repr=False)

    @property
    def clips(self) -> int:
        return len(np.atleast_1d(np.asarray(self.truth)))

    def tables(self, metric: Metric) -> tuple[Floats, Floats]:
        """Statistics per run and clip of A and of B, (S_a, N, k) and (S_b, N, k).

        Raises ``DataError`` as ``Metric.statistics`` does, and when paired runs differ in number.
        """
        if metric.statistics not in self._tables:
            sides = (_table(metric, side, self.truth) for side in (self.a, self.b))
            self._tables[metric.statistics] = next(sides), next(sides)
        a, b = self._tables[metric.statistics]
        if self.paired_seeds and len(a) != len(b):
            raise DataError(
                f"{len(a)} runs of one system and {len(b)} of the other are no pairs",
                "Pass the runs of the seeds that both have, or paired_seeds=False.",
            )
        return a, b

    def totals(self, metric: Metric) -> tuple[Floats, Floats]:
        """Statistics per run of A and of B, summed over the clips that it tested, (S_a, k) and (S_b, k). Raises as ``tables``."""
        tables = self.tables(metric)
        if metric.statistics not in self._totals:
            sums = (masked(table, self.tested(len(table))).sum(axis=1) for table in tables)
            self._totals[metric.statistics] = next(sums), next(sums)
        return self._totals[metric.statistics]

    def pooled(self) -> Pair:
        """The same runs, their folds forgotten: predictions on one set of test clips. Tables of either are those of both."""
        pooled = replace(self, folds=None)
        object.__setattr__(pooled, "_tables", self._tables)
        return pooled

    def design(self, metric: Metric) -> Design:
        """The design, where ``metric`` tells the axis of runs from that of classes."""
        if self.folds is not None:
            return Design.DRAWS if (np.asarray(self.folds) == UNTESTED).any() else Design.FOLDS
        return Design.SEEDS if max(map(len, self.tables(metric))) > 1 else Design.RUN

    def deals(self, runs: int) -> NDArray[np.generic]:
        """``folds`` of each of ``runs`` runs, (runs, N); ``DataError`` where they do not fit, or a fold left nothing to train on."""
        folds = np.atleast_2d(np.asarray(self.folds))
        if folds.shape != (runs, self.clips):
            raise DataError(
                f"folds of shape {folds.shape} for {runs} repeats of {self.clips} clips", "Say per repeat which fold a clip is in."
            )
        if self._has_single_fold:
            raise DataError("a repeat of the cross-validation has a single fold: nothing was left to train on")
        return folds

    @cached_property
    def _has_single_fold(self) -> bool:
        return any(len(np.unique(fold)) < 2 for fold in np.atleast_2d(np.asarray(self.folds)))

    def tested(self, runs: int) -> NDArray[np.bool_]:
        """Which clips each of ``runs`` runs was tested on, (runs, N); ``DataError`` as ``deals``."""
        return np.ones((runs, self.clips), dtype=bool) if self.folds is None else np.asarray(self.deals(runs) != UNTESTED)

    def groups(self) -> tuple[Labels, int]:
        """The cluster of each clip as an index (N,), and the number of clusters; without clusters each clip is its own."""
        return self._groups

    @cached_property
    def _groups(self) -> tuple[Labels, int]:
        if self.clusters is None:
            return np.arange(self.clips), self.clips
        labels = np.asarray(self.clusters)
        if labels.shape != (self.clips,):
            raise DataError(f"cluster labels of shape {labels.shape} for {self.clips} clips", "Name one video or speaker per clip.")
        names, index = np.unique(labels, return_inverse=True)
        return index.astype(np.int64), len(names)

    def clustered(self, metrics: Sequence[Metric]) -> list[Clustered]:
        """The statistics of both systems in each metric, summed by cluster."""
        group, _ = self.groups()
        tables = {metric.statistics: self.tables(metric) for metric in metrics}
        sums = {kind: (_by_cluster(a, group), _by_cluster(b, group)) for kind, (a, b) in tables.items()}
        return [Clustered(metric, *sums[metric.statistics]) for metric in metrics]


@dataclass(frozen=True, eq=False)
class Clustered:
    """Statistics of both systems in one metric, summed by cluster: ``a`` (G, S_a, k), ``b`` (G, S_b, k)."""

    metric: Metric
    a: Floats
    b: Floats

    def values(self) -> tuple[Floats, Floats]:
        """The metric on all clips, per run: (S_a,), (S_b,)."""
        return self.metric.finish(self.a.sum(axis=0)), self.metric.finish(self.b.sum(axis=0))

    def weighted(self, counts: Floats) -> tuple[Floats, Floats]:
        """The metric per run with clusters taken ``counts`` (R, G) times: (R, S_a), (R, S_b)."""
        return _weighted(self.metric, self.a, counts), _weighted(self.metric, self.b, counts)


def masked(table: Floats, tested: NDArray[np.bool_]) -> Floats:
    """(S, N, k) with zeros where a clip was not ``tested`` (S, N): the table itself where all were."""
    return table if tested.all() else table * tested[..., None]


def _table(metric: Metric, prediction: ArrayLike, truth: ArrayLike) -> Floats:
    table = metric.statistics(prediction, truth)
    table = table[None] if table.ndim == 2 else table
    if table.ndim != 3:
        raise DataError(f"predictions of shape {np.shape(prediction)} are neither (runs, clips) nor (runs, clips, classes)")
    return table


def _by_cluster(table: Floats, group: Labels) -> Floats:
    """(S, N, k) summed over the clips of each cluster: (G, S, k)."""
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    return np.add.reduceat(table.transpose(1, 0, 2)[order], starts, axis=0)


def _weighted(metric: Metric, totals: Floats, counts: Floats) -> Floats:
    sums = counts @ totals.reshape(len(totals), -1)
    return metric.finish(sums.reshape(len(counts), *totals.shape[1:]))
