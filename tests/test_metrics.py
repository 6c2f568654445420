"""Metrics against scikit-learn, NumPy and their definitions, and the sums that the bootstrap relies on."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import pearsonr

from harness.data.schema import Task
from harness.errors import ConfigError, DataError
from harness.seeds import generator
from harness.training import by_class
from harness.training.metrics import default_metrics, metrics, score

INTENSITY = ("mae", "corr", "acc2_nonneg", "acc2_nonzero", "f1_nonneg", "f1_nonzero", "acc7", "acc5", "acc3")
CLASSES = ("accuracy", "uar", "f1_weighted", "f1_macro")
BY_CLASS = tuple(f"{name}_{number}" for name in ("recall", "f1") for number in range(by_class.CLASSES))
# quarters hit every tie (.5, 1.5, 2.5), every bound and 0, and are exact in binary
QUARTERS = st.integers(-16, 16).map(lambda n: n / 4)


@st.composite
def intensities(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Prediction and truth, both (N,), N from 1."""
    size = draw(st.integers(1, 30))
    return tuple(draw(hnp.arrays(np.float64, size, elements=QUARTERS)) for _ in range(2))


@st.composite
def labels(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    size, classes = draw(st.integers(1, 30)), draw(st.integers(1, 5))
    return tuple(draw(hnp.arrays(np.int64, size, elements=st.integers(0, classes - 1))) for _ in range(2))


def rng() -> np.random.Generator:
    return generator(7, "test metrics")


# ---- intensities


@given(intensities())
def test_sign_metrics_agree_with_scikit_learn(pair):
    prediction, truth = pair
    kept = truth != 0
    got = score(INTENSITY, prediction, truth)
    assert got["mae"] == pytest.approx(sk.mean_absolute_error(truth, prediction), abs=1e-14)
    assert got["acc2_nonneg"] == pytest.approx(sk.accuracy_score(truth >= 0, prediction >= 0), abs=1e-14)
    assert got["f1_nonneg"] == pytest.approx(weighted_f1(truth >= 0, prediction >= 0), abs=1e-14)
    if kept.any():
        assert got["acc2_nonzero"] == pytest.approx(sk.accuracy_score(truth[kept] > 0, prediction[kept] > 0), abs=1e-14)
        assert got["f1_nonzero"] == pytest.approx(weighted_f1(truth[kept] > 0, prediction[kept] > 0), abs=1e-14)
    else:
        assert np.isnan(got["acc2_nonzero"]) and np.isnan(got["f1_nonzero"])


def weighted_f1(truth: np.ndarray, prediction: np.ndarray) -> float:
    return sk.f1_score(truth, prediction, average="weighted", zero_division=0)


@given(intensities(), st.sampled_from([("acc7", 3), ("acc5", 2), ("acc3", 1)]))
def test_binned_accuracies_agree_with_pythons_own_rounding(pair, which):
    """Python's round() rounds half to even as well, and knows nothing of NumPy."""
    name, bound = which

    def bins(values: np.ndarray) -> list[int]:
        return [round(max(-bound, min(bound, float(value)))) for value in values]

    prediction, truth = pair
    assert metrics[name].score(prediction, truth) == pytest.approx(sk.accuracy_score(bins(truth), bins(prediction)), abs=1e-14)


@pytest.mark.parametrize(
    ("prediction", "truth", "hit"),
    [
        (0.5, 0.0, 1),
        (0.5, 1.0, 0),
        (1.5, 2.0, 1),
        (2.5, 2.0, 1),
        (-0.5, 0.0, 1),
        (-2.5, -2.0, 1),
        (3.6, 3.0, 1),
        (-9.0, -3.0, 1),
        (2.4, 2.5, 1),
    ],
)
def test_acc7_clips_and_rounds_half_to_even_on_both_sides(prediction, truth, hit):
    assert metrics["acc7"].score([prediction], [truth]) == hit


def test_a_label_of_zero_is_non_negative_and_no_sign():
    assert score(["acc2_nonneg", "acc2_nonzero"], [-0.1, 0.1, 0.2], [0.0, 0.0, -1.0]) == {"acc2_nonneg": 1 / 3, "acc2_nonzero": 0.0}
    assert metrics["acc2_nonneg"].score([-0.0], [0.0]) == 1.0
    assert metrics["acc2_nonzero"].score([0.0, 0.0], [-1.0, 1.0]) == 0.5


@pytest.mark.parametrize("offset", [0.0, 3.0, 1e6])
@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_correlation_agrees_with_numpy_and_scipy(offset, scale):
    """An offset a million times the spread is where raw moments fail by 1e-4; both references centre first, so do we."""
    truth = rng().normal(size=686)
    prediction = scale * (truth + rng().normal(size=686) + offset)
    got = metrics["corr"].score(prediction, truth)
    assert got == pytest.approx(np.corrcoef(prediction, truth)[0, 1], abs=1e-12)
    assert got == pytest.approx(pearsonr(prediction, truth).statistic, abs=1e-12)


@pytest.mark.parametrize("constant", [0.0, 0.1, -1 / 3, 1e9])
def test_correlation_of_a_constant_is_undefined(constant):
    """0.1 and 1/3 have no exact mean in binary: rounding must not pass for variance."""
    varied = rng().normal(size=97)
    assert np.isnan(metrics["corr"].score(np.full(97, constant), varied))
    assert np.isnan(metrics["corr"].score(varied, np.full(97, constant)))


def test_correlation_reaches_its_bounds_exactly():
    x = rng().normal(size=50)
    assert (metrics["corr"].score(3 * x + 1, x), metrics["corr"].score(-x, x)) == pytest.approx((1.0, -1.0), abs=1e-15)
    assert abs(metrics["corr"].score(3 * x + 1, x)) <= 1.0


def test_one_clip():
    got = score(INTENSITY, [0.7], [1.0])
    assert np.isnan(got.pop("corr"))
    assert got.pop("mae") == pytest.approx(0.3, abs=1e-15)
    assert set(got.values()) == {1.0}


def test_single_precision_predictions_are_not_rounded_further():
    prediction = rng().normal(size=40).astype(np.float32)
    truth = rng().normal(size=40)
    assert score(INTENSITY, prediction, truth) == score(INTENSITY, prediction.astype(np.float64), truth)


# ---- classes


@given(labels())
def test_class_metrics_agree_with_scikit_learn(pair):
    prediction, truth = pair
    want = {
        "accuracy": sk.accuracy_score(truth, prediction),
        "uar": sk.recall_score(truth, prediction, labels=np.unique(truth), average="macro", zero_division=0),
        "f1_weighted": sk.f1_score(truth, prediction, average="weighted", zero_division=0),
        "f1_macro": sk.f1_score(truth, prediction, average="macro", zero_division=0),
    }
    assert score(CLASSES, prediction, truth) == pytest.approx(want, abs=1e-14)


@given(labels(), st.integers(0, 3))
def test_scores_mean_their_largest_class_and_unused_classes_change_nothing(pair, unused):
    prediction, truth = pair
    scores = np.eye(max(prediction.max(), truth.max()) + 1 + unused)[prediction] * 3.0 - 1.0
    assert score(CLASSES, scores, truth) == pytest.approx(score(CLASSES, prediction, truth), abs=1e-14)


def test_labels_may_come_as_floating_numbers():
    assert score(CLASSES, [1.0, 0.0, 2.0], [1.0, 0.0, 0.0]) == score(CLASSES, np.array([1, 0, 2]), np.array([1, 0, 0]))


# ---- sums


@given(intensities(), st.data())
def test_weighted_sums_are_the_metric_of_repeated_clips(pair, data):
    """The property that turns a bootstrap resample into a matrix product."""
    check_weights(INTENSITY, pair, data)


@given(labels(), st.data())
def test_weighted_sums_are_the_metric_of_repeated_clips_for_classes(pair, data):
    check_weights(CLASSES, pair, data)


def check_weights(names: tuple[str, ...], pair: tuple[np.ndarray, np.ndarray], data: st.DataObject) -> None:
    prediction, truth = pair
    weights = data.draw(hnp.arrays(np.int64, len(truth), elements=st.integers(0, 3)))
    if not weights.any():
        weights[0] = 1
    for name in names:
        metric = metrics[name]
        weighted = metric.finish(weights @ metric.statistics(prediction, truth))
        repeated = metric.score(np.repeat(prediction, weights), np.repeat(truth, weights))
        # centred on all clips, not on the repeated ones: the correlation may differ in the last digits
        assert weighted == pytest.approx(repeated, abs=1e-12, nan_ok=True), name


@pytest.mark.parametrize("name", INTENSITY + CLASSES)
def test_no_clips_give_no_value(name):
    metric = metrics[name]
    sums = metric.statistics([1.0, 0.0], [1.0, 1.0]).sum(axis=0)
    assert np.isnan(metric.finish(np.zeros_like(sums)))


@given(intensities(), st.randoms(use_true_random=False))
def test_the_order_of_clips_does_not_matter(pair, random):
    prediction, truth = pair
    order = list(range(len(truth)))
    random.shuffle(order)
    assert score(INTENSITY, prediction[order], truth[order]) == pytest.approx(score(INTENSITY, *pair), abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("name", INTENSITY + CLASSES)
def test_a_leading_axis_holds_systems(name):
    truth = np.arange(12) % 3
    systems = rng().integers(3, size=(4, 12))
    want = [metrics[name].score(system, truth) for system in systems]
    np.testing.assert_allclose(metrics[name].scores(systems, truth), want, atol=1e-14)


def test_a_leading_axis_holds_systems_of_scores():
    truth, systems = np.arange(12) % 3, rng().normal(size=(4, 12, 3))
    np.testing.assert_allclose(
        metrics["uar"].scores(systems, truth), [metrics["uar"].score(system, truth) for system in systems], atol=1e-14
    )


@pytest.mark.parametrize("name", [name for name in INTENSITY + CLASSES if metrics[name].counts_hits])
def test_metrics_that_count_hits_have_hits_as_statistics(name):
    hits, counted = metrics[name].statistics([0, 1, 2, 1], [0, 2, 2, 0]).T
    assert set(hits) | set(counted) <= {0.0, 1.0} and (hits <= counted).all()


# ---- what is refused


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", INTENSITY + CLASSES)
def test_a_prediction_that_is_no_number_is_refused(name, bad):
    with pytest.raises(DataError, match="1 of 3 predicted values are NaN or infinite"):
        metrics[name].score([0.0, bad, 1.0], [0.0, 1.0, 1.0])


@pytest.mark.parametrize("name", INTENSITY + CLASSES)
def test_a_label_that_is_no_number_is_refused(name):
    with pytest.raises(DataError, match="1 of 2 true values"):
        metrics[name].score([0.0, 1.0], [0.0, np.nan])


@pytest.mark.parametrize("name", INTENSITY + CLASSES)
@pytest.mark.parametrize(("predictions", "clips"), [(2, 3), (3, 2), (1, 2), (0, 1)])
def test_unequal_lengths_are_refused(name, predictions, clips):
    with pytest.raises(DataError, match=f"{predictions} predictions for {clips} labels"):
        metrics[name].score(np.zeros(predictions, np.int64), np.zeros(clips))


@pytest.mark.parametrize("name", INTENSITY + CLASSES)
def test_no_clips_are_refused(name):
    with pytest.raises(DataError, match="no clips"):
        metrics[name].score([], [])


@pytest.mark.parametrize("name", INTENSITY + CLASSES)
def test_a_truth_per_system_is_refused(name):
    with pytest.raises(DataError, match=r"shape \(2, 3\)"):
        metrics[name].score(np.zeros((2, 3)), np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("prediction", "truth", "message"), [([0, -1], [0, 1], "-1"), ([0, 1], [0, 1.5], "1.5"), ([[0.1, 0.9]], [2], "label 2")]
)
def test_what_is_no_class_is_refused(prediction, truth, message):
    with pytest.raises(DataError, match=message):
        metrics["accuracy"].score(prediction, truth)


def test_an_unknown_metric_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'acc2_nonneg'"):
        score(["acc2_noneg"], [1.0], [1.0])


# ---- names


def test_default_metrics_fit_the_task():
    assert default_metrics(Task(kind="regression", low=-3, high=3)) == INTENSITY
    assert default_metrics(Task(kind="regression", low=-1, high=1)) == tuple(name for name in INTENSITY if name not in ("acc7", "acc5"))
    assert default_metrics(Task(kind="classification", classes=("calm", "angry"))) == CLASSES


def test_every_metric_carries_its_own_name():
    assert [metrics[name].name for name in metrics] == sorted(INTENSITY + CLASSES + BY_CLASS)
    assert [name for name in metrics if not metrics[name].higher_is_better] == ["mae"]


# ---- one class


@given(labels())
def test_recall_and_f1_of_a_class_are_scikit_learns(clips: tuple[np.ndarray, np.ndarray]) -> None:
    prediction, truth = clips
    for number in range(5):
        found = {name: metrics[f"{name}_{number}"].score(prediction, truth) for name in ("recall", "f1")}
        expected = sk.precision_recall_fscore_support(truth, prediction, labels=[number], zero_division=np.nan)
        recall, f1 = expected[1][0], expected[2][0]
        assert found["recall"] == pytest.approx(recall, nan_ok=True)
        assert found["f1"] == pytest.approx(f1 if number in {*prediction, *truth} else np.nan, nan_ok=True)


def test_metrics_of_a_class_read_scores_of_several_systems() -> None:
    scores, truth = rng().normal(size=(3, 40, 4)), rng().integers(0, 4, 40)
    guesses = scores.argmax(-1)
    for number in range(4):
        found = metrics[f"f1_{number}"].scores(scores, truth)
        assert found == pytest.approx([sk.f1_score(truth, guess, labels=[number], average="macro") for guess in guesses])
        recalls = metrics[f"recall_{number}"].scores(scores, truth)
        assert recalls == pytest.approx([sk.recall_score(truth, guess, labels=[number], average="macro") for guess in guesses])
    assert np.isnan(metrics["recall_9"].scores(scores, truth)).all()
