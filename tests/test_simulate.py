"""Simulated data: the published shape exactly, and an ideal predictor whose scores are what the card says."""

from __future__ import annotations

from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtri
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.preprocessing import StandardScaler

from harness.data.catalogue import Facts, facts
from harness.data.ideal import population_scores
from harness.data.schema import SPLITS, Dataset
from harness.data.simulate import Channel, Drawn, Length, Simulated, draw, posterior, simulate
from harness.errors import ConfigError

DOCUMENT = Path(__file__).parents[1] / "docs" / "simulated_data.md"
SMALL = {"text": 6, "audio": 2, "vision": 3}
METRICS = ("mae", "corr", "acc7", "acc2_nonneg", "acc2_nonzero")


@pytest.fixture(scope="session")
def mosi() -> Dataset:
    return simulate(facts("mosi"))


def spec_of(name: str) -> Simulated:
    return Simulated.model_validate(facts(name).simulated)


def levels(labels: np.ndarray) -> list[int]:
    """Clips in bins -3, -2, -1, negative 0, exact 0, positive 0, 1, 2, 3; bins round half to even."""
    bins = np.round(np.clip(labels, -3, 3))
    middle = [((bins == 0) & (np.sign(labels) == sign)).sum() for sign in (-1, 0, 1)]
    outer = [(bins == k).sum() for k in (-3, -2, -1, 1, 2, 3)]
    return [int(count) for count in outer[:3] + middle + outer[3:]]


def rows(dataset: Dataset | Drawn, split: str) -> np.ndarray:
    return np.flatnonzero(dataset.clips["split"] == split)


def labels_of(dataset: Dataset | Drawn, split: str) -> np.ndarray:
    return dataset.clips["label"].to_numpy(dtype=np.float64)[rows(dataset, split)]


def altered(**channel: Any) -> Facts:
    """MOSI's facts with every modality's settings changed."""
    known = facts("mosi")
    table = known.simulated | {"modalities": {m: c | channel for m, c in known.simulated["modalities"].items()}}
    return known.model_copy(update={"simulated": table})


# --- the shape ---


def test_every_split_has_exactly_the_published_clips_videos_and_labels(mosi: Dataset) -> None:
    for split, shape in spec_of("mosi").splits.items():
        assert levels(labels_of(mosi, split)) == list(shape.labels)
        assert mosi.card.clips[split] == facts("mosi").splits[split] == shape.clips
        assert mosi.card.groups[split] == shape.videos
    assert mosi.card.warnings == ()


def test_labels_lie_evenly_on_the_label_scale(mosi: Dataset) -> None:
    values, counts = np.unique(labels_of(mosi, "train").round(4), return_counts=True)
    np.testing.assert_allclose(values, np.arange(-15, 16) * 0.2, atol=1e-6)  # labels are stored as float32
    assert np.ptp(counts[values.round() == 2]) <= 1


@pytest.mark.parametrize(
    ("name", "file", "split", "video"), [("mosi", "mosi/label.csv", "mode", "video_id"), ("mosei", "mosei/text_labels.csv", "split", None)]
)
def test_the_settings_are_counts_of_the_real_labels(shared: Path, name: str, file: str, split: str, video: str | None) -> None:
    real = pd.read_csv(shared / "data" / file)
    for part, clips in real.groupby(real[split].replace({"val": "valid"})):
        shape = spec_of(name).splits[str(part)]
        exact = np.array(levels(clips["label"].to_numpy())) * shape.clips / len(clips)  # a few of MOSEI's clips are not in the file
        assert np.abs(exact - shape.labels).max() < 1
        if video:
            assert clips[video].nunique() == shape.videos


def test_clips_of_one_modality_are_as_long_as_in_every_other(mosi: Dataset) -> None:
    lengths = mosi.features["text"].lengths
    assert all((ragged.lengths == lengths).all() for ragged in mosi.features.values())
    assert lengths.min() >= 1 and lengths.max() <= 50
    standard_error = lengths.double().std() / len(lengths) ** 0.5
    assert abs(lengths.double().mean() - typical_lengths(spec_of("mosi").length).mean()) < 4 * standard_error


def test_no_video_lies_in_two_splits_and_ids_name_video_and_clip(mosi: Dataset) -> None:
    assert mosi.clips.groupby("group")["split"].nunique().max() == 1
    assert mosi.clips["id"].is_unique
    assert tuple(mosi.clips.iloc[0][["group", "id", "text"]]) == ("sim_train_01", "sim_train_01_1", "")


def test_the_card_says_that_the_data_are_simulated(mosi: Dataset) -> None:
    assert mosi.card.simulated and mosi.card.name == "mosi@simulated" and mosi.card.source.layout == "simulated"
    assert {m: card.dim for m, card in mosi.card.modalities.items()} == {"text": 768, "audio": 5, "vision": 20}
    assert set(mosi.card.best_possible) == set(METRICS)
    assert mosi.card.licence == mosi.card.citation == ""


def test_features_have_their_scales(mosi: Dataset) -> None:
    assert mosi.features["text"].values.square().mean() ** 0.5 == pytest.approx(0.5, abs=0.01)
    spread = mosi.features["audio"].values.std(0)
    assert spread.max() > 5 * spread.min()  # not normalised: fitted on training clips or a model fails on it
    assert (mosi.features["audio"].values.mean(0).abs() > spread).any()


# --- seeds and sizes ---


def test_the_same_seed_gives_the_same_bits_and_another_gives_other_data() -> None:
    first, again, other = (simulate(facts("mosi"), seed=seed, dims=SMALL) for seed in (3, 3, 4))
    assert first.card == again.card and first.clips.equals(again.clips)
    for m in first.features:
        assert (first.features[m].values == again.features[m].values).all()
        assert (
            first.features[m].values.shape != other.features[m].values.shape or (first.features[m].values != other.features[m].values).any()
        )
    assert first.card.labels == other.card.labels and first.card.best_possible != other.card.best_possible


def test_a_modality_does_not_depend_on_the_others() -> None:
    whole = simulate(facts("mosi"), dims=SMALL)
    alone = simulate(facts("mosi"), dims=SMALL, modalities=["audio"])
    assert list(alone.features) == ["audio"] and alone.clips.equals(whole.clips)
    assert (alone.features["audio"].values == whole.features["audio"].values).all()


def test_other_sizes_scale_the_histogram() -> None:
    double = simulate(facts("mosi"), sizes={"test": 2 * 686}, dims=SMALL)
    assert levels(labels_of(double, "test")) == [2 * count for count in spec_of("mosi").splits["test"].labels]
    assert double.card.groups["test"] == 62 and double.card.clips["train"] == 1284


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 40), min_size=3, max_size=3),
    st.sampled_from(["text", "audio", "vision"]),
    st.integers(1, 3),
    st.integers(0, 99),
)
def test_any_size_works(sizes: list[int], modality: str, dim: int, seed: int) -> None:
    wanted = dict(zip(SPLITS, sizes, strict=True))
    dataset = simulate(facts("mosi"), seed=seed, sizes=wanted, dims={modality: dim}, modalities=[modality], name="tiny")
    assert dataset.card.clips == wanted and dataset.card.name == "tiny"
    assert dataset.features[modality].dim == dim
    assert np.isfinite(list(dataset.card.best_possible.values())).all() and "mae" in dataset.card.best_possible


def test_three_clips_in_one_modality() -> None:
    dataset = simulate(facts("mosi"), sizes=dict.fromkeys(SPLITS, 3), modalities=["text"])
    assert len(dataset) == 9 and dataset.features["text"].dim == 768


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"modalities": ["txt"]}, "Did you mean 'text'"),
        ({"modalities": []}, "no modality"),
        ({"dims": {"video": 3}}, "no modality 'video'"),
        ({"sizes": {"dev": 3}}, "no split 'dev'"),
        ({"sizes": {"test": -1}}, "test = -1"),
        ({"sizes": {"train": 0}}, "train = 0"),
        ({"dims": {"text": 0}}, "text = 0"),
    ],
)
def test_impossible_options_are_named(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        simulate(facts("mosi"), **options)


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({}, "no simulated form"),
        ({"grid": -1}, "grid"),
        ({"colour": 1}, "colour"),
        ({"splits": {"train": {"videos": 1, "labels": [1] * 9}}}, "splits must be train, valid, test"),
        ({"splits": {s: {"videos": 1, "labels": [s != "train", *[9] * 8]} for s in SPLITS}}, "does not have"),
        ({"splits": {s: {"videos": 9, "labels": [0, 0, 0, 0, 8, 0, 0, 0, 0]} for s in SPLITS}}, "9 videos"),
        ({"modalities": {"text": {"dim": 3, "signal": 1, "nuisance": 1, "frame": 1, "rms": [2, 1]}}}, "the smaller first"),
    ],
)
def test_faulty_settings_are_named(table: dict[str, Any], told: str) -> None:
    known = facts("mosi")
    with pytest.raises(ConfigError, match=told):
        simulate(known.model_copy(update={"simulated": known.simulated | table if table else {}}))


# --- the model ---


def test_the_posterior_is_that_of_dense_gaussian_conditioning() -> None:
    """Independent of the closed form: the joint covariance of z and every single feature of one clip, conditioned in float64."""
    channels = {
        "text": Channel(dim=4, signal=2, nuisance=0.7, frame=1.1, styles=2, style=1.5, memory=0.4, speaker=0.3, rms=(0.5, 0.5)),
        "audio": Channel(dim=2, signal=1, nuisance=1.5, frame=2, styles=5, style=2, memory=0.8, speaker=0.5, rms=(0.1, 10), offset=3),
        "vision": Channel(dim=1, signal=0.5, nuisance=0, frame=0, rms=(1, 1)),
    }
    spec = small_spec().model_copy(update={"modalities": channels})
    drawn = draw(spec, spec.label_map(), 0, "tiny")
    for clip in range(9):
        mean, std = posterior(spec, drawn, np.array([clip]))
        expected_mean, expected_variance = condition(channels, drawn, clip)
        # features are float32, so that a frame's place along w is known to about 1e-6 of the features' size
        assert mean[0] == pytest.approx(expected_mean, abs=1e-5)
        assert std[0] ** 2 == pytest.approx(expected_variance, rel=1e-6)


def small_spec() -> Simulated:
    splits = {split: {"videos": 2, "labels": [0, 0, 1, 0, 1, 0, 1, 0, 0]} for split in SPLITS}
    length = {"log_mean": 1.2, "log_std": 0.5, "longest": 6}
    channel = {"dim": 1, "signal": 1, "nuisance": 1, "frame": 1, "rms": [1, 1]}
    return Simulated.model_validate(
        {"grid": 0.5, "video_correlation": 0.3, "video_spread": 0.4, "length": length, "splits": splits, "modalities": {"text": channel}}
    )


def condition(channels: dict[str, Channel], drawn: Drawn, clip: int) -> tuple[float, float]:
    """Mean and variance of z ~ N(0, 1) given all features of ``clip``, modalities being independent given z."""
    precision = weighted = 0.0
    for m, channel in channels.items():
        world, frames = drawn.worlds[m], drawn.features[m].clip(clip).numpy().astype(np.float64)
        steps = np.arange(len(frames))
        w, v = world.directions[0].astype(np.float64), world.directions[1:].astype(np.float64)
        lag = channel.memory ** np.abs(steps[:, None] - steps) * (1 - channel.speaker) + channel.speaker
        error = channel.nuisance**2 + channel.frame**2 * np.eye(len(steps))
        covariance = channel.signal**2 * np.kron(error, np.outer(w, w)) + channel.style**2 * np.kron(lag, v.T @ v)
        scale = np.tile(world.scale.astype(np.float64), len(steps))
        covariance = (covariance + np.eye(len(scale))) * np.outer(scale, scale)  # of the features given z
        slope = channel.signal * np.tile(w, len(steps)) * scale  # change of the features with z
        solved = np.linalg.solve(covariance, slope)
        precision += slope @ solved
        weighted += solved @ (frames - world.offset).ravel()
    return weighted / (1 + precision), 1 / (1 + precision)


def test_videos_share_a_part_of_their_sentiment() -> None:
    spec = spec_of("mosi").model_copy(update={"modalities": {}})
    drawn = draw(grown(spec, 20), spec.label_map(), 0, "mosi")
    train = rows(drawn, "train")
    by_video = pd.Series(drawn.z[train]).groupby(drawn.clips["group"].to_numpy()[train])
    n, sizes = len(train), by_video.size()
    within = ((drawn.z[train] - by_video.transform("mean")) ** 2).sum() / (n - len(sizes))
    between = (sizes * by_video.mean() ** 2).sum() / (len(sizes) - 1)
    effective = (n - (sizes**2).sum() / n) / (len(sizes) - 1)
    correlation = (between - within) / (between + (effective - 1) * within)
    # standard error of an intraclass correlation of .27 from 1040 videos of about 25 clips: .27 * sqrt(2 / 1040) = .012
    assert correlation == pytest.approx(spec.video_correlation, abs=4 * 0.012)


def test_style_belongs_to_the_video_and_lasts_from_frame_to_frame() -> None:
    channel = Channel(dim=4, signal=1, nuisance=1, frame=1, styles=2, style=3, memory=0.6, speaker=0.4, rms=(0.5, 2), offset=1)
    spec = grown(spec_of("mosi").model_copy(update={"modalities": {"text": channel}}), 20)
    drawn = draw(spec, spec.label_map(), 0, "mosi")
    ragged, world = drawn.features["text"], drawn.worlds["text"]
    style = (ragged.values.numpy() - world.offset) / world.scale @ world.directions[1:].T
    clip = np.repeat(np.arange(len(drawn.z)), ragged.lengths.numpy())
    first = ragged.offsets[:-1].numpy()
    neighbours = np.flatnonzero(np.diff(clip) == 0)
    same_video = np.flatnonzero(np.diff(pd.factorize(drawn.clips["group"])[0]) == 0)
    # 1860 videos and two factors: the video's variance of 3.6 is known to about 3.6 sqrt(2 / 3720) = .08; four times that
    assert (style**2).mean() == pytest.approx(9 + 1, abs=0.35)
    assert (style[neighbours] * style[neighbours + 1]).mean() == pytest.approx(9 * (0.4 + 0.6 * 0.6), abs=0.35)
    assert (style[first[same_video]] * style[first[same_video + 1]]).mean() == pytest.approx(9 * 0.4, abs=0.35)


def grown(spec: Simulated, factor: int) -> Simulated:
    larger = {
        split: shape.model_copy(update={"videos": shape.videos * factor, "labels": tuple(factor * n for n in shape.labels)})
        for split, shape in spec.splits.items()
    }
    return spec.model_copy(update={"splits": larger})


def test_labels_are_the_map_of_the_sentiment() -> None:
    spec = spec_of("mosi")
    label = spec.label_map()
    drawn = draw(spec.model_copy(update={"modalities": {}}), label, 0, "mosi")
    np.testing.assert_array_equal(label(drawn.z), drawn.clips["label"])
    train = drawn.z[rows(drawn, "train")]
    assert len(np.unique(drawn.z)) == len(drawn.z)
    # one draw in each of n equal strata: only the two outermost, where z varies by about .4, can move the mean at all
    assert train.mean() == pytest.approx(0, abs=4 * 2**0.5 * 0.4 / len(train)) and train.std() == pytest.approx(1, abs=0.01)


# --- the ideal predictor ---


def standard_errors(scores: dict[str, float], labels: np.ndarray) -> dict[str, float]:
    """Of scores on these clips: at most that of independent draws, since the sentiments are stratified."""
    n, nonzero = len(labels), np.count_nonzero(labels)
    return {
        "mae": scores["mae"] / n**0.5,  # the absolute error's deviation is about its mean
        "corr": (1 - scores["corr"] ** 2) / n**0.5,
        **{m: (scores[m] * (1 - scores[m]) / (nonzero if m == "acc2_nonzero" else n)) ** 0.5 for m in METRICS[2:]},
    }


@pytest.mark.parametrize("modalities", [("text", "audio", "vision"), ("text",), ("audio",)])
def test_the_card_states_the_population_value_within_four_standard_errors(modalities: tuple[str, ...]) -> None:
    dataset = simulate(facts("mosi"), sizes={"test": 10000}, dims={"text": 6, "audio": 2, "vision": 2}, modalities=modalities)
    spec, test = spec_of("mosi"), rows(dataset, "test")
    labels, lengths = labels_of(dataset, "test"), dataset.features[modalities[0]].lengths.numpy()[test]
    label = spec.label_map()
    expected = population_scores(label, label.histogram(labels), spec.uncertainty(lengths, modalities))
    errors = standard_errors(expected, labels)
    for metric in METRICS:
        assert dataset.card.best_possible[metric] == pytest.approx(expected[metric], abs=4 * errors[metric]), metric


@pytest.mark.parametrize("name", ["mosi", "mosei"])
def test_another_modality_never_hurts_in_the_population(name: str) -> None:
    table = population_table(name, False)
    for more in table:
        for fewer in (subset for subset in table if set(subset) < set(more)):
            assert table[more]["mae"] < table[fewer]["mae"]
            assert all(table[more][m] >= table[fewer][m] for m in METRICS[1:])


def typical_lengths(length: Length) -> np.ndarray:
    """Lengths spread exactly as the model draws them, at 20,000 quantiles."""
    quantiles = ndtri((np.arange(20000) + 0.5) / 20000)
    return np.clip(np.rint(np.exp(length.log_mean + length.log_std * quantiles)), 1, length.longest)


@cache
def population_table(name: str, learned: bool) -> dict[tuple[str, ...], dict[str, float]]:
    """Ideal test scores by set of modalities; ``learned``: of the predictor that believes in the training split's labels."""
    spec, lengths = spec_of(name), typical_lengths(spec_of(name).length)
    label = spec.label_map()
    test = labels_of(simulate(facts(name), sizes={"train": 1, "valid": 1}, dims={"audio": 1}, modalities=["audio"]), "test")
    subsets = [subset for size in (1, 2, 3) for subset in combinations(spec.modalities, size)]
    prior = label.shares if learned else None
    return {s: population_scores(label, label.histogram(test), spec.uncertainty(lengths, s), prior) for s in subsets}


@pytest.mark.parametrize(("name", "learned"), [("mosi", False), ("mosi", True), ("mosei", False)])
def test_the_document_states_these_scores(name: str, learned: bool) -> None:
    heading = f"{facts(name).title}, {'learned from training' if learned else 'best possible'}"
    lines = DOCUMENT.read_text(encoding="utf-8").split(f"**{heading}**")[1].split("**")[0].split("##")[0].splitlines()
    stated = {
        cells[0]: [float(cell) for cell in cells[1:]]
        for line in lines
        if (cells := [c.strip() for c in line.strip("|").split("|")])[1:] and cells[1][:1].isdigit()
    }
    expected = {" + ".join(s): [scores[m] for m in METRICS] for s, scores in population_table(name, learned).items()}
    assert list(stated) == list(expected)
    np.testing.assert_allclose(list(stated.values()), list(expected.values()), atol=5.1e-4)  # three decimals are printed


# --- learning ---


@pytest.fixture(scope="session")
def learnable() -> Dataset:
    return simulate(facts("mosi"), sizes={"train": 8000, "test": 4000}, dims={"text": 24})


def means(dataset: Dataset, split: str) -> np.ndarray:
    part = dataset.rows(rows(dataset, split).tolist())
    return np.hstack([part.means(m).numpy() for m in part.features]).astype(np.float64)


def test_a_learner_comes_close_to_the_best_and_not_below(learnable: Dataset) -> None:
    """Ridge on time means finds the direction of sentiment; a running median of the labels along it is nearly the ideal answer."""
    labels, truth = labels_of(learnable, "train"), labels_of(learnable, "test")
    scaler = StandardScaler().fit(means(learnable, "train"))
    ridge = Ridge(alpha=100.0).fit(scaler.transform(means(learnable, "train")), labels)
    along, tested = (ridge.predict(scaler.transform(means(learnable, split))) for split in ("train", "test"))
    neighbours = KNeighborsRegressor(n_neighbors=400).fit(along[:, None], labels).kneighbors(tested[:, None], return_distance=False)
    nonlinear = np.abs(np.median(labels[neighbours], axis=1) - truth)
    linear = np.abs(tested - truth)
    best, learned = learnable.card.best_possible["mae"], float(learnable.card.source.notes["best learned"].split("mae ")[1].split(",")[0])
    noise = 3 * nonlinear.std() / len(truth) ** 0.5
    assert learned > best
    assert best - noise < nonlinear.mean() < learned + noise
    assert nonlinear.mean() < linear.mean() < learned + 0.1  # a straight line cannot follow the steps of g, which costs about .05


def test_styles_and_scales_do_not_change_what_can_be_known() -> None:
    plain = simulate(altered(styles=0, rms=[1, 1], offset=0), dims=SMALL, sizes={"test": 3000})
    styled = simulate(altered(styles=2, style=50.0, speaker=0.9), dims=SMALL, sizes={"test": 3000})
    for metric in METRICS:
        error = 4 * 2**0.5 * standard_errors(plain.card.best_possible, labels_of(plain, "test"))[metric]
        assert plain.card.best_possible[metric] == pytest.approx(styled.card.best_possible[metric], abs=error)
