"""Sums over resamples, exactly: against whole-number arithmetic, fsum, and themselves in other circumstances."""

from __future__ import annotations

from math import fsum

import numpy as np
import pytest
from simulated_pairs import rng, systems
from threadpoolctl import threadpool_limits

from harness.analysis import resamples
from harness.analysis.resamples import cluster_counts, on_resamples
from harness.training.metrics import Metric, metrics

CHOSEN = [metrics[name] for name in ("mae", "corr", "acc2_nonneg", "f1_nonzero", "acc7")]
SUMS = Metric("sums", "sums", True, False, 3, lambda *_: np.empty(0), lambda sums: sums[..., 0])


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    forget()


def forget() -> None:
    resamples._values.cache_clear()
    resamples._kept.cache_clear()


def totals(*name: str) -> list[np.ndarray]:
    return [table.a for table in systems(rng("resamples", *name)).clustered(CHOSEN)]


def counted(clusters: int, draws: int, seed: int) -> list[list[int]]:
    return np.concatenate(list(cluster_counts(clusters, draws, seed, 7))).tolist()


@pytest.mark.parametrize("largest", [3, 2**24 // 12 - 1, 2**24 // 12 + 1, 2**22, 2**30, 2**45])
def test_sums_of_whole_numbers_are_exact(largest: int) -> None:
    """Python's whole numbers are the reference; single precision ends at 2^24, which is about what 12 clusters sum to here."""
    table = (largest - rng("whole", largest).integers(0, 3, size=(12, 3, 1))) * np.array([1, 1, -1])[:, None]
    (found,) = on_resamples([SUMS], [table.astype(float)], 200, 1)
    exact = [[sum(n * int(table[g, run, 0]) for g, n in enumerate(drawn)) for run in range(3)] for drawn in counted(12, 200, 1)]
    assert found.tolist() == exact


def test_sums_of_other_numbers_keep_double_precision() -> None:
    table = rng("fractions").normal(size=(31, 2, 1))
    (found,) = on_resamples([SUMS], [table], 200, 1)
    for drawn, value in zip(counted(31, 200, 1), found, strict=True):
        for run in range(2):
            terms = [n * table[g, run, 0] for g, n in enumerate(drawn)]
            assert abs(value[run] - fsum(terms)) <= 31 * 2**-53 * fsum(map(abs, terms))  # the bound for a sum of 31 products


def test_a_table_of_fractions_beside_whole_numbers_leaves_each_its_own_columns() -> None:
    """Equal columns are summed once; every metric must still find its own, in its own order."""
    random = rng("beside")
    whole, parts = random.integers(0, 9, size=(10, 2, 1)).astype(float), random.normal(size=(10, 2, 1))
    mixed = [parts, whole, whole[:, ::-1], parts[:, ::-1], np.concatenate([whole[:, :1], parts[:, :1]], axis=1)]
    p, w, turned_w, turned_p, both = on_resamples([SUMS] * 5, mixed, 50, 1)
    assert (turned_w == w[:, ::-1]).all() and (turned_p == p[:, ::-1]).all()
    assert (both == np.stack([w[:, 0], p[:, 0]], axis=1)).all() and not (w == w[:, ::-1]).all()


def test_metrics_are_those_of_the_sums() -> None:
    """Each metric finished from sums by NumPy's einsum: whole numbers to the bit, others to rounding."""
    tables = totals("finished")
    counts = np.array(counted(31, 300, 5), dtype=float)
    for metric, table, found in zip(CHOSEN, tables, on_resamples(CHOSEN, tables, 300, 5), strict=True):
        want = metric.finish(np.einsum("rg,gsk->rsk", counts, table))
        exact = metric.name not in ("mae", "corr")
        assert found.shape == (300, 5) and (np.array_equal(found, want) if exact else np.allclose(found, want, rtol=1e-12, atol=0))


def test_draws_do_not_depend_on_being_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = counted(31, 100, 3)
    monkeypatch.setattr(resamples, "_KEPT_COUNTS", 0)
    assert counted(31, 100, 3) == kept and counted(31, 100, 4) != kept and set(map(sum, kept)) == {31}


def test_values_do_not_depend_on_what_was_asked_before() -> None:
    one, other = totals("one"), totals("other")
    asked = [(CHOSEN, one, 100, 1), (CHOSEN, other, 100, 1), (CHOSEN, one, 100, 2), (CHOSEN, one, 101, 1), (CHOSEN[:2], one[:2], 100, 1)]
    alone = []
    for question in asked:
        forget()
        alone.append(on_resamples(*question))
    for place in (0, 1, 0, 2, 0, 3, 4, 0, 1):
        again = on_resamples(*asked[place])
        assert all(np.array_equal(x, y) for x, y in zip(again, alone[place], strict=True))
    assert not any(np.array_equal(alone[0][0], alone[place][0][:100]) for place in (1, 2))


def test_what_is_kept_cannot_be_changed() -> None:
    (found,) = on_resamples(CHOSEN[:1], totals("kept")[:1], 20, 1)
    with pytest.raises(ValueError, match="read-only"):
        found += 1
    with pytest.raises(ValueError, match="read-only"):
        next(cluster_counts(31, 20, 1, 5))[:] = 0


def test_the_number_of_threads_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in chunks so odd that threads cut a product in uneven parts."""
    for numbers in (1_000_000, 31 * 333):
        monkeypatch.setattr(resamples, "_CHUNK_NUMBERS", numbers)
        found = []
        for threads in (1, 2, 3):
            forget()
            with threadpool_limits(limits=threads):
                found.append(on_resamples(CHOSEN, totals("threads"), 1000, 1))
        assert all(np.array_equal(x, y) for more in found[1:] for x, y in zip(found[0], more, strict=True))
