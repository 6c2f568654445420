"""The audit's arithmetic against brute force and other references; every check with a case that fires and one that does not."""

from __future__ import annotations

import csv
import itertools
from decimal import ROUND_HALF_DOWN, ROUND_HALF_UP, Decimal
from fractions import Fraction
from math import sqrt
from pathlib import Path
from statistics import pstdev, stdev

import numpy as np
import pytest
import scipy.stats
from audited import found, remarked, source
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from harness.analysis.audit import agreement, attainability, claims, halves, least_error, published, spreads
from harness.analysis.audit.facts import Labels, facts, spread
from harness.analysis.audit.least_error import Stated, bound_on, least_mae

# ---- attainable accuracies


def rounded(value: Fraction, digits: int) -> set[int]:
    """What ``value`` may be printed as, in units of the last digit: a tie goes either way."""
    scaled = Decimal(value.numerator * 10**digits) / Decimal(value.denominator)
    return {int(scaled.quantize(Decimal(1), rounding=way)) for way in (ROUND_HALF_UP, ROUND_HALF_DOWN)}


@given(st.integers(1, 60), st.integers(1, 4), st.integers(0, 2))
def test_attainable_values_equal_those_of_every_count(n: int, runs: int, digits: int) -> None:
    want = set().union(*(rounded(Fraction(100 * k, n * runs), digits) for k in range(n * runs + 1)))
    assert set(np.flatnonzero(attainability.attainable(n, runs, digits))) == want


@given(st.integers(1, 30), st.integers(2, 6), st.integers(0, 2))
@settings(max_examples=50)
def test_attainable_means_of_folds_equal_those_of_every_count(n: int, folds: int, digits: int) -> None:
    n += folds
    sizes = [len(part) for part in np.array_split(np.arange(n), folds)]
    right = itertools.product(*(range(sum(size == each for each in sizes) * size + 1) for size in sorted(set(sizes))))
    means = {sum(Fraction(k, size) for k, size in zip(each, sorted(set(sizes)), strict=True)) / folds for each in right}
    want = set().union(*(rounded(100 * mean, digits) for mean in means))
    assert set(np.flatnonzero(attainability.attainable_folds(n, folds, digits))) == want


@given(st.integers(1, 9), st.integers(1, 3))
def test_rounding_each_run_first_only_adds_values(n: int, runs: int) -> None:
    """Every mean of rounded runs is allowed; so is every mean of unrounded ones."""
    shares = [Fraction(round(Fraction(k, n) * 10**2), 10**2) for k in range(n + 1)]
    means = {sum(each) / runs for each in itertools.combinations_with_replacement(shares, runs)}
    allowed = attainability.attainable(n, runs, 0, run_decimals=2)
    assert all(allowed[value] for mean in means for value in rounded(100 * mean, 0))
    assert (allowed >= attainability.attainable(n, runs, 0)).all()


@pytest.mark.parametrize(
    ("n", "runs", "digits", "power"),
    [(686, 1, 2, 0.93), (686, 5, 2, 0.66), (686, 10, 2, 0.31), (686, 1, 1, 0.31), (457, 5, 2, 0.77), (4659, 1, 2, 0.53), (4659, 5, 2, 0.0)],
)
def test_power_is_the_share_of_values_that_no_count_gives(n: int, runs: int, digits: int, power: float) -> None:
    flags = attainability.attainable(n, runs, digits)
    units = 10 ** (digits + 2)
    reached = set().union(*(rounded(Fraction(100 * k, n * runs), digits) for k in range(n * runs + 1)))
    assert attainability.power(flags) == pytest.approx(1 - len(reached) / (units + 1))
    assert attainability.power(flags) == pytest.approx(power, abs=0.005)


ACCURACY = 'columns = ["accuracy"]\nprotocol = {{ what = "one run", n = 8, stated = {} }}\nrows = [["a", "62.5"], ["b", "{}"]]'


def test_attainable_accuracies_fire_only_where_the_protocol_is_stated() -> None:
    assert "b 62.6" in found(attainability.check(source(ACCURACY.format("true", "62.6"))))
    assert not attainability.check(source(ACCURACY.format("true", "37.5"))).findings
    assumed = attainability.check(source(ACCURACY.format("false", "62.6")))
    assert not assumed.findings and "1 of 2 accuracies" in remarked(assumed)


# ---- two halves of Acc-2, accuracy with F1


@given(st.lists(st.tuples(st.sampled_from([-1, 0, 1]), st.sampled_from([-1, 1])), min_size=2, max_size=12))
def test_the_clips_between_the_halves_are_zeros_predicted_right(clips: list[tuple[int, int]]) -> None:
    labels, predictions = map(np.array, zip(*clips, strict=True))
    zeros = int((labels == 0).sum())
    if zeros == len(labels):
        return
    nonneg = Fraction(100 * int(((labels >= 0) == (predictions >= 0)).sum()), len(labels))
    nonzero = Fraction(100 * int(((labels > 0) == (predictions > 0))[labels != 0].sum()), len(labels) - zeros)
    exact = halves.zeros_right((nonneg, nonneg), (nonzero, nonzero), len(labels), zeros)
    assert exact == (((labels == 0) & (predictions >= 0)).sum(),) * 2


HALVES = 'columns = ["acc2_nonneg", "acc2_nonzero"]\nrows = [["a", "{}", "{}"]]'


@pytest.mark.parametrize(
    ("nonneg", "nonzero", "fires"), [("41.9", "44.3", True), ("44.3", "41.9", False), ("83.8", "85.3", False), ("90.0", "80.0", True)]
)
def test_halves_fire_beyond_the_zero_labels(nonneg: str, nonzero: str, fires: bool) -> None:
    assert bool(halves.check_halves(source(HALVES.format(nonneg, nonzero))).findings) is fires


def test_interchanged_halves_are_recognised() -> None:
    assert "interchanged" in found(halves.check_halves(source(HALVES.format("41.9", "44.3"))))
    assert "interchanged" not in found(halves.check_halves(source(HALVES.format("60.0", "85.0"))))


def test_the_least_accuracy_at_an_f1_equals_that_of_every_confusion_matrix() -> None:
    positives, negatives = 3, 6
    matrices = [(tp, fp) for tp in range(1, positives + 1) for fp in range(negatives + 1)]
    for tp, fp in matrices:
        f1 = Fraction(2 * tp, tp + fp + positives)
        accuracy = Fraction(tp + negatives - fp, positives + negatives)
        assert accuracy >= halves.least_accuracy(f1, Fraction(positives, positives + negatives))
    tight = halves.least_accuracy(Fraction(2 * 3, 3 + 4 + 3), Fraction(1, 3))
    assert tight == Fraction(3 + 2, 9)


CLASS = 'columns = ["accuracy@happy", "f1@happy"]\nrows = [["a", "{}", "{}"]]'


@pytest.mark.parametrize(("accuracy", "f1", "fires"), [("30.56", "35.63", True), ("90.1", "35.63", False)])
def test_a_class_accuracy_below_its_f1s_bound_fires(accuracy: str, f1: str, fires: bool) -> None:
    assert bool(halves.check_classes(source(CLASS.format(accuracy, f1), data="iemocap")).findings) is fires


# ---- means with deviations


@given(st.floats(0, 60), st.integers(1, 12))
def test_t_tail_agrees_with_scipy(t: float, df: int) -> None:
    assert spreads.t_tail(t, df) == pytest.approx(2 * scipy.stats.t.sf(t, df), abs=1e-12)


@given(st.lists(st.tuples(st.integers(-300, 300), st.integers(-300, 300)), min_size=3, max_size=6), st.booleans())
@settings(max_examples=200)
def test_the_p_value_of_any_runs_lies_in_the_range_of_their_printed_figures(runs: list[tuple[int, int]], population: bool) -> None:
    a, b = (np.array(values) / 100 + 50 for values in zip(*runs, strict=True))
    spread_of = pstdev if population else stdev
    cells = [published_cell(f"{values.mean():.1f}±{spread_of(values.tolist()):.2f}") for values in (a, b)]
    if np.ptp(a - b) < 1e-9:
        return
    low, high = spreads.paired_p_range(cells[0], cells[1], len(runs))
    assert low - 1e-9 <= scipy.stats.ttest_rel(a, b).pvalue <= high + 1e-9


def published_cell(printed: str, metric: str = "f1") -> published.Cell:
    return source(f'columns = ["{metric}"]\nrows = [["a", "{printed}"]]').at(f"T1/mosi/a/{metric}")


@given(st.integers(2, 4), st.integers(2, 5), st.integers(0, 1), st.integers(0, 1000), st.integers(0, 500))
@settings(max_examples=150, deadline=None)
def test_deviations_of_whole_clips_equal_those_of_every_run(runs: int, n: int, ddof: int, mean: int, std: int) -> None:
    """Mean and deviation printed with one decimal; brute force over runs of any whole number of clips, also beyond 0 and n."""
    half = Fraction(1, 20)
    means, stds = (
        (Fraction(mean, 10) - half, Fraction(mean, 10) + half),
        (max(Fraction(std, 10) - half, Fraction(0)), Fraction(std, 10) + half),
    )
    want = False
    for counts in itertools.combinations_with_replacement(range(-n, 2 * n + 1), runs):
        centre = Fraction(100 * sum(counts), n * runs)
        if means[0] <= centre <= means[1]:
            variance = sum((Fraction(100 * k, n) - centre) ** 2 for k in counts) / (runs - ddof)
            want |= stds[0] ** 2 <= variance <= stds[1] ** 2
    assert spreads.deviation_attainable(means, stds, n, runs, ddof) is want


STD = 'columns = ["acc7"]\nprotocol = {{ what = "five seeds", runs = 5, stated = true }}\nrows = [["a", "{}"]]'


@pytest.mark.parametrize(
    ("printed", "words"),
    [
        ("45.8±0.14", ""),
        ("45.8±0.03", "not attainable as stated: no 5 whole numbers of 686 clips"),
        ("45.8±0.00", "a deviation of 0 over 5 runs"),
        ("99.9±3.00", "not attainable as stated: 5 values in [0, 100] deviate by at most 0.34"),
        ("45.8±0.90", ""),
    ],
)
def test_deviations_that_no_runs_have_fire(printed: str, words: str) -> None:
    result = spreads.check(source(STD.format(printed)))
    assert (words in found(result)) if words else not result.findings


@given(st.lists(st.integers(0, 100), min_size=2, max_size=6))
def test_no_values_deviate_more_than_the_limit(values: list[int]) -> None:
    mean = Fraction(sum(values), len(values))
    assert stdev(values) <= spreads.std_limit(Fraction(0), Fraction(100), mean, len(values)) + 1e-9
    ends = [0] * (len(values) - 1) + [100]
    assert stdev(ends) == pytest.approx(spreads.std_limit(Fraction(0), Fraction(100), Fraction(100, len(ends)), len(ends)))


MARKS = """columns = ["f1"]
protocol = {{ what = "five seeds", runs = 5, stated = true }}
significance = {{ row = "a", against = "b" }}
rows = [["a", "{}"], ["b", "{}"]]"""


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        ("83.7±0.22", "81.4±0.20", "not marked significant"),
        ("83.7±0.22†", "81.4±0.20", ""),
        ("83.7±0.22", "83.6±0.20", ""),
        ("80.1±0.10†", "80.0±3.00", "is marked p < 0.05"),
    ],
)
def test_marks_of_significance_fire_where_every_correlation_agrees(ours: str, theirs: str, words: str) -> None:
    result = spreads.check_significance(source(MARKS.format(ours, theirs)))
    assert (words in found(result)) if words else not result.findings


# ---- the least MAE


MOSI = facts("mosi").labels
assert MOSI


def moments(labels: Labels, weights: np.ndarray, predictions: np.ndarray) -> tuple[float, float, float]:
    """MAE, Corr and Acc-2 (neg/non-neg) of a joint distribution over labels (K,) and predictions (P,)."""
    y, p = labels.values[:, None], predictions[None, :]
    mean_y, mean_p = (weights * y).sum(), (weights * p).sum()
    covariance = (weights * (y - mean_y) * (p - mean_p)).sum()
    spread_y, spread_p = (weights * (y - mean_y) ** 2).sum(), (weights * (p - mean_p) ** 2).sum()
    return (weights * abs(y - p)).sum(), covariance / sqrt(spread_y * spread_p), (weights * ((y >= 0) == (p >= 0))).sum()


@given(st.integers(0, 10_000), st.floats(0, 3), st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_no_predictions_beat_the_bound(seed: int, noise: float, sharp: float) -> None:
    """Exact for some clips, at an end of the range or drawn for the others: near the optimum, and far from it."""
    rng = np.random.default_rng(seed)
    y = rng.choice(MOSI.values, 300, p=MOSI.shares)
    p = np.where(rng.random(300) < sharp, y, np.clip(rng.choice([-3, 0, 3, 1], 300) + noise * rng.normal(size=300), -3, 3))
    if np.ptp(y) == 0 or np.ptp(p) == 0:
        return
    values, counts = np.unique(y, return_counts=True)
    said = Stated(float(np.corrcoef(y, p)[0, 1]), float(((y >= 0) == (p >= 0)).mean()))
    nonzero = y != 0
    other = Stated(said.corr, float(((y > 0) == (p > 0))[nonzero].mean()), "acc2_nonzero")
    for stated in (said, other):
        assert least_mae(Labels(values, counts / 300), stated) <= abs(y - p).mean() + 1e-9


@pytest.mark.parametrize(("corr", "acc2"), [(0.1245, 1.0), (0.1245, 0.5575), (0.0415, 0.4195), (0.4, 0.7), (0.7, 0.8)])
def test_the_bound_is_what_a_linear_programme_attains(corr: float, acc2: float) -> None:
    """Masses over labels and a grid of predictions; the correlation is linearised where the last solution had its moments."""
    predictions = np.unique(np.round(np.concatenate([np.linspace(-3, 3, 61), MOSI.values, [-1e-9]]), 9))
    y, p = np.meshgrid(MOSI.values, predictions, indexing="ij")
    mean, deviation = MOSI.shares @ MOSI.values, sqrt(MOSI.shares @ MOSI.values**2 - (MOSI.shares @ MOSI.values) ** 2)
    marginals = np.kron(np.eye(len(MOSI.values)), np.ones(len(predictions)))
    m, v = mean, deviation
    for _ in range(25):
        limit = (y - mean) * p - corr * deviation * ((p - m) ** 2 + v**2) / (2 * v)
        right = ((y >= 0) == (p >= 0)).astype(float)
        solved = linprog(
            abs(y - p).ravel(), A_ub=[limit.ravel(), right.ravel()], b_ub=[0, acc2], A_eq=marginals, b_eq=MOSI.shares, method="highs"
        )
        weights = solved.x.reshape(y.shape)
        m, v = (m + (weights * p).sum()) / 2, (v + sqrt((weights * p**2).sum() - (weights * p).sum() ** 2)) / 2
    mae, got, share = moments(MOSI, weights, predictions)
    assert got <= corr + 1e-3 and share <= acc2 + 1e-6  # a real distribution of predictions with these figures
    assert least_mae(MOSI, Stated(corr, acc2)) == pytest.approx(mae, abs=2e-3)


def test_the_bound_grows_with_what_is_known_and_coarser_figures_are_safe() -> None:
    stated = Stated(0.1245, 0.5575)
    bounds = [bound_on("mosi", each) for each in (Stated(1.0), Stated(0.1245), stated, stated.coarser())]
    assert bounds == sorted(bounds) and bounds[0] == pytest.approx(0, abs=1e-6)
    assert bound_on("mosi", stated, 6) < bound_on("mosi", stated)


def test_iidafs_audio_video_row_is_out_of_reach() -> None:
    result = least_error.check(published.load("iidaf"))
    assert [finding.where for finding in result.findings] == ["T5, mosi, a+v"]
    assert bound_on("mosi", Stated(0.1245, 0.5575)) == pytest.approx(0.937, abs=1e-3)
    assert bound_on("mosi", Stated(0.1245)) == pytest.approx(0.848, abs=1e-3)
    assert "at least 0.93" in found(result) and "at least 0.84" in found(result)
    row = 'columns = ["mae", "corr", "acc2_nonneg"]\nrows = [["a", "{}", "0.124", "55.7"]]'
    assert not least_error.check(source(row.format("1.420"))).findings
    assert least_error.check(source(row.format("0.720"))).findings


def test_the_real_labels_give_the_same_bound(shared: Path) -> None:
    """The histogram, spread evenly in its bins, stands for labels that are not shipped."""
    with open(shared / "data" / "mosi" / "label.csv", encoding="utf-8") as file:
        labels = [float(row["label"]) for row in csv.DictReader(file) if row["mode"] == "test"]
    values, counts = np.unique(labels, return_counts=True)
    real = Labels(values, counts / counts.sum())
    assert (len(labels), labels.count(0.0)) == (facts("mosi").test, facts("mosi").zeros[0])  # type: ignore[index]
    assert least_mae(real, Stated(0.1245, 0.5575)) == pytest.approx(least_mae(MOSI, Stated(0.1245, 0.5575)), abs=0.01)
    assert least_mae(real, Stated(0.1245)) > 0.7205


@pytest.mark.parametrize(("data", "grid"), [("mosi", 0.2), ("mosei", 1 / 3)])
def test_labels_have_the_catalogues_histogram(data: str, grid: float) -> None:
    labels, known = facts(data).labels, facts(data)
    assert labels and known.test and known.zeros
    assert labels.shares.sum() == pytest.approx(1)
    assert np.round(labels.values / grid) == pytest.approx(labels.values / grid)
    zero = float(labels.shares[np.abs(labels.values) < 1e-9].sum()) * known.test
    assert known.zeros[0] <= round(zero) <= known.zeros[1]
    inner, outer = (spread([1, 0, 2, 0, 1, 0, 2, 0, 1], grid, towards) for towards in (-1, 1))
    assert np.abs(inner.values).max() < np.abs(outer.values).max() and len(inner.values) == 5


# ---- claims and counts


CLAIM = """columns = ["mae"]
rows = [["a", "0.722"], ["b", "0.740"]]"""


@pytest.mark.parametrize(
    ("kind", "stated", "words"),
    [
        ("change", "2.4", ""),
        ("change", "2.5", "their rounding allows 2.30 to 2.57"),
        ("change", "3.0", "not attainable from the printed values"),
        ("difference", "0.018", ""),
        ("difference", "0.02", ""),
        ("difference", "0.03", "differ by 0.018"),
        ("value", "0.722", ""),
        ("value", "0.721", "prints 0.722"),
        ("fall", None, ""),
        ("rise", None, "lower than 0.740"),
        ("best", None, ""),
    ],
)
def test_claims_are_recomputed(kind: str, stated: str | None, words: str) -> None:
    line = f"stated = {stated!r}" if stated else ""
    claim = f'[[claims]]\nwhere = "text"\nquote = "q"\nkind = "{kind}"\nof = "T1/mosi/a/mae"\nagainst = "T1/mosi/b/mae"\n{line}'
    result = claims.check(source(CLAIM, claim))
    assert (words in found(result)) if words else not result.findings, found(result)
    assert result.count == 1 and len(result.cells) == 2


def test_points_under_the_sign_of_per_cent_are_recognised() -> None:
    table = 'columns = ["accuracy"]\nrows = [["a", "71.91"], ["b", "64.71"]]'
    claim = (
        '[[claims]]\nwhere = "text"\nquote = "q"\nkind = "change"\nof = "T1/mosi/a/accuracy"\nagainst = "T1/mosi/b/accuracy"\nstated = {!r}'
    )
    assert "11.13 %; 7.2 is the difference in points" in found(claims.check(source(table, claim.format("7.2"))))
    assert not claims.check(source(table, claim.format("11.1"))).findings


@pytest.mark.parametrize(("first", "second", "fires"), [("0.722", "0.740", False), ("0.740", "0.722", True), ("0.722", "0.722", False)])
def test_the_best_is_the_best(first: str, second: str, fires: bool) -> None:
    table = f'columns = ["mae"]\nrows = [["a", "{first}"], ["b", "{second}"]]'
    claim = '[[claims]]\nwhere = "text"\nquote = "q"\nkind = "best"\nof = "T1/mosi/a/mae"'
    assert bool(claims.check(source(table, claim)).findings) is fires


@pytest.mark.parametrize(("stated", "fires"), [("0.06", True), ("0.0003", False)])
def test_a_p_value_that_no_correlation_gives_fires(stated: str, fires: bool) -> None:
    table = 'columns = ["f1"]\nrows = [["a", "83.7±0.22†"], ["b", "81.4±0.20"]]'
    places = 'of = "T1/mosi/a/f1"\nagainst = "T1/mosi/b/f1"'
    claim = f'[[claims]]\nwhere = "text"\nquote = "q"\nkind = "p_value"\n{places}\nstated = "{stated}"\nruns = 5'
    assert bool(claims.check(source(table, claim)).findings) is fires


@pytest.mark.parametrize(("dagger", "fires"), [("†", False), ("", True)])
def test_claimed_significance_needs_its_mark(dagger: str, fires: bool) -> None:
    table = f'columns = ["f1"]\nrows = [["a", "83.7±0.22{dagger}"]]'
    claim = '[[claims]]\nwhere = "text"\nquote = "q"\nkind = "significant"\nof = "T1/mosi/a/f1"'
    assert bool(claims.check(source(table, claim)).findings) is fires


@pytest.mark.parametrize(
    ("line", "fires"),
    [
        ('parts = [1284, 229, 686]\nstated = 2199\nfact = "mosi.clips"', False),
        ('parts = [1284, 229, 687]\nstated = 2199\nfact = "mosi.clips"', True),
        ('stated = 89\nfact = "mosi.videos"', True),
        ('stated = 93\nfact = "mosi.videos"', False),
        ('stated = [42, 1166]\nfact = "enterface.archives"', True),
        ('stated = [42, 1260]\nfact = "enterface.archives"', False),
        ('stated = 16514\nfact = "ur_funny.clips"\nversion = "1"', False),
    ],
)
def test_counts_are_added_up_and_looked_up(line: str, fires: bool) -> None:
    result = claims.check_counts(source(rest=f'[[counts]]\nwhere = "t"\nwhat = "w"\n{line}'))
    assert bool(result.findings) is fires and result.count == 1


# ---- agreement


TWO = """[[tables]]
item = "T2"
data = "{data}"
columns = ["accuracy", "f1"]
{more}
rows = [["a", "{accuracy}", "60.0"], ["c", "50.0", "40.0"]]"""
FIRST = 'columns = ["accuracy", "f1"]\nrows = [["a", "70.0", "60.0"], ["b", "50.1", "40.0"]]'


@pytest.mark.parametrize(
    ("accuracy", "data", "fires"), [("70.0", "mosi", False), ("70.04", "mosi", False), ("70.2", "mosi", True), ("70.2", "mosei", False)]
)
def test_one_system_has_one_value(accuracy: str, data: str, fires: bool) -> None:
    result = agreement.check_same_system(source(FIRST, TWO.format(accuracy=accuracy, data=data, more="")))
    assert bool(result.findings) is fires


def test_where_a_differing_value_belongs_is_said() -> None:
    text = found(agreement.check_same_system(source(FIRST, TWO.format(accuracy="50.1", data="mosi", more=""))))
    assert "50.1 is the value of 'b' (T1)" in text


@pytest.mark.parametrize(("accuracy", "fires"), [("50.0", False), ("49.9", False), ("51.0", True)])
def test_an_ablation_better_than_the_full_model_fires(accuracy: str, fires: bool) -> None:
    table = f'columns = ["accuracy"]\nfull = "a"\nrows = [["a", "50.0"], ["w/o x", "{accuracy}"]]'
    assert bool(agreement.check_ablations(source(table)).findings) is fires


@pytest.mark.parametrize(("accuracy", "fires"), [("50.0", True), ("50.1", False)])
def test_two_names_with_one_result_fire(accuracy: str, fires: bool) -> None:
    table = f'columns = ["accuracy", "f1"]\nrows = [["a", "50.0", "40.0"], ["b", "{accuracy}", "40.0"]]'
    assert bool(agreement.check_identical_rows(source(table)).findings) is fires
    named = f'columns = ["accuracy", "f1"]\nsame = {{ b = "a" }}\nrows = [["a", "50.0", "40.0"], ["b", "{accuracy}", "40.0"]]'
    assert not agreement.check_identical_rows(source(named)).findings
