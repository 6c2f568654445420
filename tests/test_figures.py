"""Figures: what the artists hold equals what was given, computed another way; files are the same bytes every time."""

from __future__ import annotations

import re
from math import nan
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn.decomposition import PCA
from sklearn.metrics import confusion_matrix

from harness.analysis.friedman import Scores, diagram
from harness.errors import ConfigError, DataError
from harness.reporting.figures import confusion, features, ranks, runs, style

pytest.importorskip("matplotlib")

RNG = np.random.default_rng(3)


def texts(place) -> list[str]:
    return [text.get_text() for text in place.texts if text.get_text()]


def line(place, label: str):
    return next(one for one in place.lines if one.get_label() == label)


# ---- confusion


def test_counts_are_scikit_learns() -> None:
    truth = RNG.integers(0, 4, 50).astype(float)
    scores = RNG.normal(size=(3, 50, 4))
    expected = sum(confusion_matrix(truth, run.argmax(axis=1), labels=range(4)) for run in scores)
    assert (confusion.count_classes(scores, truth, 4) == expected).all()
    truth, guess = RNG.uniform(-3, 3, 80), RNG.uniform(-5, 5, (2, 80))
    expected = sum(confusion_matrix(np.rint(truth), np.rint(run.clip(-3, 3)), labels=range(-3, 4)) for run in guess)
    assert (confusion.count_bins(guess, truth) == expected).all()


def test_halves_fall_into_the_bins_of_acc7() -> None:
    """0.5 rounds to 0 and 1.5 to 2, on both sides."""
    counts = confusion.count_bins([0.5, 1.5, -4.0], [0.0, 2.0, -3.0])
    assert np.trace(counts) == 3 and counts[3, 3] == counts[5, 5] == counts[0, 0] == 1


def test_cells_are_shares_of_the_true_class() -> None:
    counts = np.array([[3, 1, 0], [0, 0, 0], [2, 2, 4]])
    figure = confusion.confusion({"A": counts, "B": counts.T}, ["x", "y", "z"], simulated=True)
    first, second = figure.axes[:2]
    drawn = first.collections[0].get_array()
    assert drawn.mask.reshape(3, 3).tolist() == [[False] * 3, [True] * 3, [False] * 3]
    assert drawn.reshape(3, 3)[0].tolist() == [75, 25, 0] and drawn.reshape(3, 3)[2].tolist() == [25, 25, 50]
    assert {(round(t.get_position()[1] - 0.5), round(t.get_position()[0] - 0.5)): t.get_text() for t in first.texts} == {
        (0, 0): "75", (0, 1): "25", (2, 0): "25", (2, 1): "25", (2, 2): "50",
    }  # fmt: skip
    assert first.get_title() == "A" and (first.get_ylabel(), first.get_xlabel()) == ("true", "predicted")
    assert [label.get_text() for label in second.get_yticklabels()] == ["x", "y", "z"] and second.yaxis_inverted()
    assert style.SIMULATED in figure._suptitle.get_text()


# ---- runs


def test_strips_show_every_run_their_mean_and_the_published_number() -> None:
    shown = runs.Strip("MAE", {"A": [0.8, 0.9, 1.0], "B": [0.5, nan]}, {"A": 0.7})
    figure = runs.strips([shown, runs.Strip("Corr", {"B": [0.1]}, {})])
    first, second = figure.axes
    assert points(first) == {("D", 0): [0.7], ("o", 0): [0.8, 0.9, 1.0], ("|", 0): [pytest.approx(0.9)], ("o", 1): [0.5], ("|", 1): [0.5]}
    assert [label.get_text() for label in first.get_yticklabels()] == ["A", "B"]
    assert points(second) == {("o", 1): [0.1], ("|", 1): [0.1]}


def points(place) -> dict[tuple[str, int], list[float]]:
    """(marker, height) -> where the points are."""
    found: dict[tuple[str, int], list[float]] = {}
    for one in place.lines:
        for x, height in one.get_xydata():
            found.setdefault((one.get_marker(), int(height)), []).append(float(x))
    return found


def test_hundreds_of_runs_are_three_things_to_draw() -> None:
    """Each run a line of its own: no stroke leads from one to the next."""
    curves = [runs.Curve([3.0, 2.0, 1.0], [3.0 + i, 2.0 + i, 2.5 + i], 1 + i % 3) for i in range(200)]
    (place,) = runs.learning_curves({"A": curves}).axes
    train, valid, best = place.lines
    cut = [piece.tolist() for piece in np.split(valid.get_ydata(), np.flatnonzero(np.isnan(valid.get_ydata())))]
    assert [[y for y in piece if not np.isnan(y)] for piece in cut] == [list(curve.valid) for curve in curves]
    assert np.isnan(train.get_ydata()).sum() == 199 and (np.isnan(train.get_xdata()) == np.isnan(train.get_ydata())).all()
    assert best.get_xydata().tolist() == [[c.best_epoch, c.valid[c.best_epoch - 1]] for c in curves]
    svg = style.encoded(place.figure, "svg").decode()
    paths = re.findall(r'<path d="([^"]*)"[^>]*stroke: #0072b2', svg)
    assert len(paths) == 1 and paths[0].count("M") == 200


def test_long_names_leave_room_for_one_panel() -> None:
    """A warning of a layout that collapsed would be an error here."""
    name = "Without the adaptive window and cross-modal consistency, audio 0.25"
    figure = runs.strips([runs.Strip("Accuracy, %", {name: [70.0, 71.0]}, {})])
    style.encoded(figure, "svg")
    assert figure.axes[0].get_position().width * figure.get_figwidth() > 1.2


def test_learning_curves_are_the_histories() -> None:
    curve = runs.Curve([3.0, 2.0, 1.0], [3.1, 2.5, 2.6], 2)
    (place,) = runs.learning_curves({"A": [curve]}).axes
    train, valid, best = place.lines
    assert train.get_ydata().tolist() == [3, 2, 1] and valid.get_ydata().tolist() == [3.1, 2.5, 2.6]
    assert valid.get_xdata().tolist() == [1, 2, 3]
    assert (best.get_xdata()[0], best.get_ydata()[0]) == (2, 2.5)


def test_bands_are_t_intervals_over_runs() -> None:
    scores = RNG.normal(0.7, 0.1, (4, 3))
    figure = runs.robustness([0, 0.5, 1], {"A": scores, "one run": scores[:1]}, "rate", "MAE")
    place = figure.axes[0]
    assert line(place, "A").get_ydata() == pytest.approx(scores.mean(axis=0))
    (band,) = place.collections
    ends = stats.t.interval(0.95, 3, loc=scores.mean(axis=0), scale=stats.sem(scores))
    vertices = band.get_paths()[0].vertices
    for x, low, high in zip((0, 0.5, 1), *ends, strict=True):
        there = vertices[vertices[:, 0] == x][:, 1]
        assert (there.min(), there.max()) == (pytest.approx(low), pytest.approx(high))


def test_cost_is_logarithmic_and_bars_reach_the_extreme_runs() -> None:
    place = runs.score_against_cost({"A": (1e6, [0.7, 0.8, 0.9]), "B": (1e7, [0.6])}, "parameters", "MAE").axes[0]
    assert place.get_xscale() == "log" and texts(place) == ["A", "B"]
    (segment,) = place.containers[0].lines[2][0].get_segments()
    assert segment.tolist() == [[1e6, pytest.approx(0.7)], [1e6, pytest.approx(0.9)]]
    assert place.containers[0].lines[0].get_xydata().tolist() == [[1e6, pytest.approx(0.8)]]


def test_costs_that_differ_little_stand_on_a_plain_axis() -> None:
    place = runs.score_against_cost({"A": (1.0e9, [0.7]), "B": (1.3e9, [0.6])}, "FLOPs", "MAE").axes[0]
    assert place.get_xscale() == "linear"


# ---- ranks


def test_systems_hang_from_their_mean_ranks_and_bars_span_cliques() -> None:
    table = np.array([[9, 8, 3, 1], [9, 7, 4, 2], [8, 9, 2, 1], [9, 8, 3, 2], [9, 8, 2, 1], [7, 8, 3, 2]], dtype=float)
    scores = Scores(table, ["A", "B", "C", "D"], list("uvwxyz"))
    found = diagram(scores, post_hoc="Nemenyi")
    expected = stats.rankdata(-table, axis=1).mean(axis=0)
    place = ranks.critical_difference_diagram(found).axes[0]
    for name, rank in zip(scores.systems, expected, strict=True):
        assert line(place, name).get_xdata()[0] == pytest.approx(rank)
        assert any(text.strip() == f"{name} {rank:.2f}" for text in texts(place))
    assert found.cliques
    for number, clique in enumerate(found.cliques):
        reach = [expected[list("ABCD").index(name)] for name in clique]
        assert line(place, f"clique {number}").get_xdata() == pytest.approx([min(reach) - 0.04, max(reach) + 0.04])
    title = place.get_title(loc="left")
    assert f"critical difference {found.critical_difference:.2f}" in title and ("p < 0.001" in title) == (found.friedman.p < 0.001)


def test_long_names_of_systems_stay_clear_of_the_lines() -> None:
    """No name reaches the place from which its system hangs."""
    table = RNG.normal(size=(6, 4)) + np.arange(4)
    found = diagram(Scores(table, ["A", "B", "a rather long name of a system", "D"], list("uvwxyz")))
    figure = ranks.critical_difference_diagram(found)
    figure.draw_without_rendering()
    place = figure.axes[0]
    for text in place.texts:
        name, _, _ = text.get_text().strip().rpartition(" ")
        if name in found.systems:
            box = text.get_window_extent().transformed(place.transData.inverted())
            rank = line(place, name).get_xdata()[0]
            assert box.x1 < rank or box.x0 > rank


# ---- features


def test_boxes_have_the_medians_and_quartiles() -> None:
    gates = {"mosi": {"shared": RNG.uniform(size=50), "specific": RNG.uniform(size=50)}, "mosei": {"shared": RNG.uniform(size=30)}}
    place = features.gate_boxes(gates).axes[0]
    order = [gates["mosi"]["shared"], gates["mosei"]["shared"], gates["mosi"]["specific"]]
    medians = [one.get_ydata()[0] for one in place.lines if len(one.get_ydata()) == 2 and one.get_ydata()[0] == one.get_ydata()[1]]
    assert set(map(float, (np.median(values) for values in order))) <= set(map(float, medians))
    for box, values in zip(place.patches, order, strict=True):
        edges = box.get_path().vertices[:, 1]
        assert (edges.min(), edges.max()) == tuple(pytest.approx(q) for q in np.quantile(values, [0.25, 0.75]))


def test_pca_is_scikit_learns_up_to_sign() -> None:
    x = RNG.normal(size=(40, 5)) * [5, 3, 1, 1, 1]
    own, other = features.embed(x, "PCA"), PCA(2).fit_transform(x)
    assert np.abs(own) == pytest.approx(np.abs(other), abs=1e-9)
    assert features.embed(x[:, ::-1], "PCA") == pytest.approx(own, abs=1e-9)
    assert features.embed(x[:, :1], "PCA").shape == (40, 2)


def test_tsne_keeps_far_groups_apart_and_repeats() -> None:
    x = np.concatenate([RNG.normal(size=(20, 4)), RNG.normal(size=(20, 4)) + 40])
    points = features.embed(x)
    assert (points == features.embed(x)).all()
    within = max(np.ptp(points[:20], axis=0).max(), np.ptp(points[20:], axis=0).max())
    assert np.linalg.norm(points[:20].mean(axis=0) - points[20:].mean(axis=0)) > within / 2
    with pytest.raises(DataError, match="at least 3"):
        features.embed([[1.0, nan], [0, 0], [1, 1]])


def test_a_feature_map_holds_every_clip_of_every_part() -> None:
    parts = {"shared text": RNG.normal(size=(8, 3)), "specific text": RNG.normal(size=(6, 3))}
    place = features.feature_map(parts, "PCA").axes[0]
    drawn = np.concatenate([np.asarray(one.get_offsets()) for one in place.collections])
    assert drawn == pytest.approx(features.embed(np.concatenate(list(parts.values())), "PCA"))
    assert [len(one.get_offsets()) for one in place.collections] == [8, 6]
    assert [text.get_text() for text in place.get_legend().get_texts()] == list(parts)


def test_many_points_are_one_picture() -> None:
    """Five thousand shapes would make a file of a megabyte."""
    sizes = {}
    for clips in (100, 5000):
        figure = features.feature_map({"a": RNG.normal(size=(clips, 2))}, "PCA")
        sizes[clips] = len(style.encoded(figure, "svg"))
        assert figure.axes[0].collections[0].get_rasterized() is (clips == 5000)
    assert sizes[5000] < 300_000


def test_adjacency_maps_share_a_symmetric_scale_and_block_by_target() -> None:
    spatial = RNG.normal(size=(2, 2, 2, 2))
    figure = features.adjacency_maps({"temporal": np.diag([1.0, -4.0]), "spatial": spatial})
    first, second = (place.collections[0] for place in figure.axes[:2])
    assert first.get_array().reshape(2, 2).tolist() == [[1, 0], [0, -4]]
    assert first.get_clim() == second.get_clim() == (-4, 4)
    blocks = second.get_array().reshape(4, 4)
    for r, c, to_r, to_c in np.ndindex(2, 2, 2, 2):
        assert blocks[2 * to_r + r, 2 * to_c + c] == spatial[r, c, to_r, to_c]
    with pytest.raises(DataError, match=r"shape \(3,\)"):
        features.adjacency_maps({"x": np.ones(3)})


def test_splines_are_the_given_values() -> None:
    x = np.linspace(-1, 1, 9)
    figure = features.spline_curves(x, {f"edge {i}": np.sin(i * x) for i in range(20)})
    drawn = [place for place in figure.axes if place.lines]
    assert len(drawn) == 16 and drawn[3].lines[0].get_ydata() == pytest.approx(np.sin(3 * x))
    assert drawn[3].get_title() == "edge 3"


# ---- files


def test_files_repeat_and_hold_no_time(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        style.save(runs.learning_curves({"A_1 $x$": [runs.Curve([2.0, 1], [2, 1], 2)]}, simulated=True), tmp_path / folder / "f.g")
    for kind in style.FORMATS:
        one, other = ((tmp_path / folder / f"f.g.{kind}").read_bytes() for folder in ("a", "b"))
        assert one == other and len(one) > 1000
    svg = (tmp_path / "a" / "f.g.svg").read_text()
    assert "SIMULATED DATA" in svg and "A_1 $x$" in svg and "dc:date" not in svg


def test_the_documented_example_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[1] / "docs" / "page.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(code, "docs/page.md", "exec"), {})
    assert (tmp_path / "robustness.pdf").read_bytes().startswith(b"%PDF")


def test_formats_are_named_or_refused() -> None:
    assert (
        style.parse_formats("pdf") == ("svg", "pdf")
        and style.parse_formats("PNG, svg") == ("svg", "png")
        and style.parse_formats("none") == ()
    )
    with pytest.raises(ConfigError, match="'bmp' is no format"):
        style.parse_formats("svg,bmp")


def test_colours_differ_for_every_kind_of_eye() -> None:
    """By lightness alone neighbours in the order of use can be told apart, as a print in grey would show them."""
    grey = [sum(w * int(c[i : i + 2], 16) for w, i in ((0.299, 1), (0.587, 3), (0.114, 5))) for c in style.COLOURS]
    assert min(abs(a - b) for a, b in zip(grey, grey[1:], strict=False)) > 25
    assert len(set(style.MARKERS)) == len(style.COLOURS) and all(re.fullmatch("#[0-9a-f]{6}", c) for c in style.COLOURS)
