"""Metrics on bootstrap resamples of clusters, by matrix products: a resample is how often each cluster is drawn.

What the rows of a table have in common is worked out once: the draws, and the reference row's values on them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import prod

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from harness.seeds import generator
from harness.training.metrics import Floats, Metric

Counts = NDArray[np.unsignedinteger]

_CHUNK_NUMBERS = 1_000_000  # numbers per intermediate array: 8 MB in float64
_KEPT_COUNTS = 20_000_000  # counts kept for the next system of the same table, of 1 or 2 bytes
_WHOLE = 2.0**24  # whole numbers up to here, and so their sums in any order, are exact in float32


def cluster_counts(clusters: int, resamples: int, seed: int, chunk: int) -> Iterator[Counts]:
    """How often each cluster is drawn, (at most ``chunk``, G) at a time; the draws do not depend on ``chunk``."""
    if clusters * resamples > _KEPT_COUNTS:
        yield from _drawn(clusters, resamples, seed, chunk)
        return
    kept = _kept(clusters, resamples, seed)
    yield from (kept[start : start + chunk] for start in range(0, resamples, chunk))


def _drawn(clusters: int, resamples: int, seed: int, chunk: int) -> Iterator[Counts]:
    rng = generator(seed, "two-level bootstrap", "clusters")
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        draws = rng.integers(clusters, size=(rows, clusters)) + clusters * np.arange(rows)[:, None]
        yield np.bincount(draws.ravel(), minlength=rows * clusters).reshape(rows, clusters).astype(np.min_scalar_type(clusters))


@lru_cache(maxsize=1)
def _kept(clusters: int, resamples: int, seed: int) -> Counts:
    counts = np.concatenate(list(_drawn(clusters, resamples, seed, max(1, _CHUNK_NUMBERS // clusters))))
    counts.flags.writeable = False
    return counts


def on_resamples(metrics: Sequence[Metric], totals: Sequence[Floats], resamples: int, seed: int) -> list[Floats]:
    """Each metric of each run on each resample, (R, S), read-only: ``totals`` are its statistics summed by cluster, (G, S, k).

    All metrics, and all systems with as many clusters, share the resamples. The last two systems' values are kept.
    """
    if not metrics:
        return []
    content = b"".join(np.ascontiguousarray(total, dtype=np.float64).tobytes() for total in totals)
    return list(_values(tuple(metrics), tuple(total.shape for total in totals), content, resamples, seed))


@lru_cache(maxsize=2)  # the row in hand and the reference row, whichever comes first
def _values(metrics: tuple[Metric, ...], shapes: tuple[tuple[int, ...], ...], content: bytes, resamples: int, seed: int) -> list[Floats]:
    ends = np.cumsum([prod(shape) for shape in shapes])
    parts = np.split(np.frombuffer(content), ends[:-1])
    totals = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
    columns, clusters = _Columns(totals), shapes[0][0]
    values = [np.empty((resamples, shape[1])) for shape in shapes]
    start, chunk = 0, max(1, _CHUNK_NUMBERS // max(clusters, columns.number))
    with _libraries().limit(limits=1, user_api="blas"):  # products this small lose more to waiting threads than they gain
        for counts in cluster_counts(clusters, resamples, seed, chunk):
            for metric, value, sums in zip(metrics, values, columns.summed(counts), strict=True):
                value[start : start + len(counts)] = metric.finish(sums)
            start += len(counts)
    for value in values:
        value.flags.writeable = False
    return values


@lru_cache(maxsize=1)
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()  # looks through all loaded libraries: once is enough


class _Columns:
    """The columns of ``totals``, (G, S, k) each, side by side, equal ones once: every metric and run counts the same clips.

    Columns of whole numbers (hits, confusions, clips) are multiplied in float32, exactly and in half the time.
    """

    def __init__(self, totals: Sequence[Floats]) -> None:
        clusters, seen = len(totals[0]), dict[bytes, int]()
        columns = np.concatenate([total.reshape(clusters, -1) for total in totals], axis=1).T
        places = np.array([seen.setdefault(column.tobytes(), len(seen)) for column in columns])
        distinct = columns[np.unique(places, return_index=True)[1]]
        whole = (distinct == np.rint(distinct)).all(axis=1) & (np.abs(distinct).max(axis=1) * clusters < _WHOLE)
        order = np.argsort(np.argsort(~whole, kind="stable"))  # whole columns first
        self.number = len(distinct)
        self._whole, self._rest = distinct[whole].astype(np.float32), np.ascontiguousarray(distinct[~whole])
        parts = np.split(order[places], np.cumsum([total[0].size for total in totals])[:-1])
        self._places = [part.reshape(total.shape[1:]).T for part, total in zip(parts, totals, strict=True)]

    def summed(self, counts: Counts) -> Iterator[Floats]:
        """For each of ``totals`` its sums with clusters taken ``counts`` (R, G) times, (R, S, k)."""
        sums = np.empty((self.number, len(counts)))
        sums[: len(self._whole)] = self._whole @ counts.astype(np.float32).T
        sums[len(self._whole) :] = self._rest @ counts.astype(np.float64).T
        yield from (sums[places].transpose(2, 1, 0) for places in self._places)
