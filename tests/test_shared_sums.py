"""What the tests of a pair of systems have in common is worked out once, and is what each would have worked out."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.analysis import power
from harness.analysis.designs import run_values
from harness.analysis.pairs import UNTESTED, Pair
from harness.commands.rendering import without_collections
from harness.data.catalogue import facts
from harness.errors import ConfigError
from harness.training.metrics import metrics

RNG = np.random.default_rng(5)
TRUTH = RNG.normal(size=12)
A, B = RNG.normal(size=(2, 3, 12))
FOLDS = np.array([np.arange(12) % 3, np.arange(12) % 4, np.arange(12) // 4])
DRAWS = np.where(FOLDS == 0, UNTESTED, FOLDS)  # of each run, some clips


@pytest.mark.parametrize("folds", [None, FOLDS, DRAWS], ids=["seeds", "folds", "draws"])
def test_values_of_runs_are_those_of_the_clips_that_each_tested(folds: np.ndarray | None) -> None:
    tested = np.ones((3, 12), dtype=bool) if folds is None else folds != UNTESTED
    pair = Pair(A, B, TRUTH, folds=folds)
    for name in ("mae", "acc2_nonneg", "mae"):
        for own, side in zip(run_values(metrics[name], pair), (A, B), strict=True):
            expected = [metrics[name].score(side[run][tested[run]], TRUTH[tested[run]]) for run in range(3)]
            assert own == pytest.approx(expected, abs=1e-12)


def test_the_pooled_pair_shares_tables_and_forgets_folds() -> None:
    pair = Pair(A, B, TRUTH, folds=FOLDS)
    run_values(metrics["mae"], pair)
    pooled = pair.pooled()
    assert pooled.folds is None and pooled.tables(metrics["mae"])[0] is pair.tables(metrics["mae"])[0]
    assert pooled.tables(metrics["corr"])[1] is pair.tables(metrics["corr"])[1]
    partly = Pair(A, B, TRUTH, folds=np.where(np.arange(12) < 6, np.arange(12) % 2, UNTESTED) * np.ones((3, 1), dtype=int))
    before = run_values(metrics["mae"], partly)[0]
    assert (run_values(metrics["mae"], partly.pooled())[0] != before).all()  # sums over tested clips are not those over all


def test_equal_statistics_are_summed_by_cluster_once() -> None:
    pair = Pair(A.round().clip(-1, 1) + 1, B.round().clip(-1, 1) + 1, TRUTH, clusters=np.arange(12) // 3)
    first, second, other = pair.clustered([metrics["f1_nonneg"], metrics["f1_nonneg"], metrics["mae"]])
    assert first.a is second.a and first.b is second.b and other.a.shape == (4, 3, 2)


@given(
    difference=st.floats(0.001, 1),
    clips=st.floats(0, 0.01),
    runs=st.floats(1e-6, 1),
    units=st.integers(3, 200),
)
def test_the_first_number_of_seeds_is_that_of_a_look_at_all(difference: float, clips: float, runs: float, units: int) -> None:
    seeds = np.arange(2, power.MOST_SEEDS + 1)
    enough = power._found(difference, np.full(len(seeds), clips), units, runs / seeds, seeds, 0.05) >= 0.8
    expected = int(seeds[enough.argmax()]) if enough.any() else None
    assert power._fewest_seeds(difference, clips, units, runs, 0.05, 0.8) == expected


def test_the_catalogue_is_read_again_where_a_users_file_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MER_DATA", str(tmp_path))
    assert facts("mosi") is facts("mosi")
    with pytest.raises(ConfigError, match="no data set called 'mine'"):
        facts("mine")
    own = tmp_path / "datasets" / "mine.toml"
    own.parent.mkdir()
    text = 'title = "{}"\nmetrics = ["mae"]\ntask = {{ kind = "regression", low = -3, high = 3 }}\n'
    for title in ("First", "The second"):
        own.write_text(text.format(title))
        assert facts("mine").title == title
    own.with_name("mosi.toml").write_text(text.format("Another"))
    with pytest.raises(ConfigError, match="two files describe"):
        facts("mosi")


@pytest.mark.parametrize("before", [True, False])
def test_garbage_is_sought_again_afterwards_if_it_was_before(before: bool) -> None:
    try:
        (gc.enable if before else gc.disable)()
        with pytest.raises(ValueError), without_collections():
            assert not gc.isenabled()
            raise ValueError
        assert gc.isenabled() == before
    finally:
        gc.enable()
