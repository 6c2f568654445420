"""Mutual information against the exact sum on tables, closed forms and invariances."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import mutual_info_score

from harness.nn.information import histogram_information, mutual_information, quantile_bins

tables = arrays(np.int64, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.integers(0, 20)).filter(lambda t: t.any())


def exact(table: np.ndarray) -> float:
    """Eq. 3, cell by cell."""
    p = table / table.sum()
    cells = [(i, j) for i in range(p.shape[0]) for j in range(p.shape[1]) if p[i, j] > 0]
    return sum(p[i, j] * math.log(p[i, j] / (p[i].sum() * p[:, j].sum())) for i, j in cells)


def sample(table: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """A sample with these counts, in random order: values (N, 1), labels (N,)."""
    rows, columns = (np.repeat(index.ravel(), table.ravel()) for index in np.indices(table.shape))
    order = np.random.default_rng(0).permutation(len(rows))
    return torch.from_numpy(rows[order])[:, None].float(), torch.from_numpy(columns[order])


@given(tables)
@settings(deadline=None)
def test_table_gives_the_exact_sum(table: np.ndarray) -> None:
    assert mutual_information(torch.from_numpy(table)).item() == pytest.approx(exact(table), abs=1e-12)


def test_many_tables_at_once_and_known_values() -> None:
    independent = torch.outer(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 5.0]))
    diagonal = torch.eye(3)[:, :2] + torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    found = mutual_information(torch.stack([independent, diagonal]))
    entropy = -(math.log(1 / 3) / 3 + 2 * math.log(2 / 3) / 3)
    torch.testing.assert_close(found, torch.tensor([0.0, entropy], dtype=torch.float64), rtol=0, atol=1e-12)


@given(tables)
@settings(deadline=None)
def test_discrete_samples_give_the_exact_sum(table: np.ndarray) -> None:
    """As many bins as clips separate any two values, so that the histogram loses nothing."""
    x, label = sample(table)
    assert histogram_information(x, label, bins=len(x)).item() == pytest.approx(exact(table), abs=1e-12)


def test_columns_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(500, 7)))
    label = torch.from_numpy(rng.integers(0, 4, 500))
    codes = quantile_bins(x, 16)
    expected = [mutual_info_score(codes[:, d].numpy(), label.numpy()) for d in range(7)]
    np.testing.assert_allclose(histogram_information(x, label, 16).numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("count, bins", [(160, 16), (163, 16), (5, 16), (1, 3), (40, 1)])
def test_bins_are_of_equal_size(count: int, bins: int) -> None:
    codes = quantile_bins(torch.randperm(count)[:, None].float(), bins)
    sizes = torch.bincount(codes[:, 0], minlength=bins)
    assert len(sizes) == bins and sizes.sum() == count
    assert sizes.max() - sizes.min() <= 1


def test_ties_share_a_bin_and_only_order_counts() -> None:
    x = torch.tensor([[0.0], [1.0], [1.0], [1.0], [1.0], [2.0]])
    codes = quantile_bins(x, 3)
    assert len(set(codes[1:5, 0].tolist())) == 1
    x = torch.randn(200, 3)
    assert torch.equal(quantile_bins(x, 8), quantile_bins(x.exp(), 8))


def test_gaussian_within_the_stated_bias() -> None:
    """I = -log(1 - rho^2) / 2; 20 x 20 bins lose a little of it, and the plug-in estimate adds about 19 x 19 / (2 N)."""
    rng = np.random.default_rng(0)
    rho, count = 0.8, 200_000
    x = rng.normal(size=count)
    y = rho * x + math.sqrt(1 - rho**2) * rng.normal(size=count)
    label = quantile_bins(torch.from_numpy(y)[:, None], 20)[:, 0]
    found = histogram_information(torch.from_numpy(x)[:, None], label, 20).item()
    assert found == pytest.approx(-0.5 * math.log(1 - rho**2), abs=0.03)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="no sample"):
        histogram_information(torch.zeros(3, 2), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ValueError, match="no sample"):
        histogram_information(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(ValueError, match="at least one bin"):
        quantile_bins(torch.zeros(3, 2), 0)
