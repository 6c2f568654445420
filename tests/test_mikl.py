"""MIKL: what its selection finds, what its window cuts, and that each ablation changes the computation it names."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from helpers import DIMS, TASKS, build, predict, random_split, some_split, whole
from pydantic import ValidationError
from torch import Tensor

from harness.data.schema import Ragged, Split
from harness.nn.information import histogram_information
from harness.nn.klstm import KLSTM
from harness.training import Inputs, Method, methods
from methods.mikl import MIKL, Window

CLIPS, WIDTH, INFORMATIVE = 300, 20, 10
SMALL: dict[str, Any] = {"hidden": 8, "critic": 4}


def planted(place: tuple[float, float] = (0.0, 1.0), clips: int = CLIPS, seed: int = 0) -> tuple[Split, list[int]]:
    """Audio of noise in which ``INFORMATIVE`` random features carry the label, between two shares of each clip."""
    rng = np.random.default_rng(seed)
    informative = sorted(rng.permutation(WIDTH)[:INFORMATIVE].tolist())
    split = random_split({"audio": rng.integers(10, 30, clips).tolist()}, {"audio": WIDTH}, seed)
    ragged = split.features["audio"]
    values, labels = ragged.values.clone(), split.labels
    assert labels is not None
    for row, label in zip(split.rows.tolist(), labels.tolist(), strict=True):
        start, end = int(ragged.offsets[row]), int(ragged.offsets[row + 1])
        first, last = (start + round(share * (end - start)) for share in place)
        values[first:last, informative] += label
    return replace(split, features={"audio": Ragged(values, ragged.offsets)}), informative


def fitted_mikl(split: Split, **settings: Any) -> Method:
    return build("mikl", split, **(SMALL | settings))


def kept(method: Method) -> list[int]:
    return method.get_buffer("kept_audio").tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("sample", ["clips", "frames"])
def test_selection_finds_the_informative_features(sample: str) -> None:
    split, informative = planted()
    assert kept(fitted_mikl(split, sample=sample)) == informative


def test_under_permuted_labels_selection_is_chance() -> None:
    """The overlap of two random halves of 20 features has mean 5 and variance 10/4 x 10/19; 20 permutations are drawn."""
    split, informative = planted()
    assert split.labels is not None
    overlaps = []
    for seed in range(20):
        order = torch.from_numpy(np.random.default_rng(seed).permutation(CLIPS))
        overlaps.append(len(set(informative) & set(kept(fitted_mikl(replace(split, labels=split.labels[order]))))))
    error = (2.5 * 10 / 19 / len(overlaps)) ** 0.5
    assert np.mean(overlaps) == pytest.approx(5, abs=4 * error)


def test_selection_does_not_see_scale_or_other_splits() -> None:
    """A rising function of a feature keeps its information; clips that are not in the split do not count."""
    split, informative = planted()
    half = replace(split, rows=split.rows[:150], ids=split.ids[:150], groups=split.groups[:150], labels=split.labels[:150])  # type: ignore[index]
    ragged = split.features["audio"]
    spoilt = ragged.values.clone()
    for row in split.rows[150:].tolist():
        spoilt[ragged.offsets[row] : ragged.offsets[row + 1]] = torch.nan
    shifted = Ragged(spoilt, ragged.offsets, shift=torch.randn(WIDTH), scale=torch.rand(WIDTH) + 0.1)
    changed = fitted_mikl(replace(half, features={"audio": shifted}))
    assert changed.state_dict()["windows.audio.place"] == fitted_mikl(half).state_dict()["windows.audio.place"]
    assert kept(changed) == kept(fitted_mikl(half)) == informative


@pytest.mark.parametrize("place, expected", [((0.0, 0.3), 0), ((0.3, 0.7), 2), ((0.75, 1.0), 5)])
def test_window_goes_where_the_information_is(place: tuple[float, float], expected: int) -> None:
    """Half of a clip, at six places: the first holds [0, .5], the last [.5, 1], the middle two most of [.25, .75]."""
    split, _ = planted(place, clips=1000)
    found = int(fitted_mikl(split).get_buffer("windows.audio.place"))
    assert found == expected or (expected == 2 and found == 3)


def test_window_scores_are_the_information_of_window_means() -> None:
    """Against means taken clip by clip."""
    split, _ = planted((0.2, 0.6), clips=60)
    method = fitted_mikl(split, window_share=0.3, window_stride=0.25)
    window, label = method.get_submodule("windows")["audio"], method._label_bins(split.labels)  # type: ignore[index, operator]
    scores = []
    for place in range(window.places):
        rows = []
        for row in split.rows.tolist():
            clip = split.features["audio"].clip(row)
            start, size = window.bounds(torch.tensor([len(clip)]), place)
            rows.append(clip[int(start) : int(start + size), kept(method)].double().mean(0))
        scores.append(histogram_information(torch.stack(rows), label).mean())
    assert int(method.get_buffer("windows.audio.place")) == int(torch.stack(scores).argmax())


@pytest.mark.parametrize("share, stride, places", [(0.5, 0.1, 6), (0.5, 0.5, 2), (0.3, 0.25, 4), (1.0, 0.1, 1), (0.9, 0.1, 2)])
def test_places_cover_a_clip(share: float, stride: float, places: int) -> None:
    window, lengths = Window(share, stride), torch.arange(1, 60)
    bounds = [window.bounds(lengths, place) for place in range(window.places)]
    assert window.places == places
    assert not bounds[0][0].any()
    assert torch.equal(bounds[-1][0] + bounds[-1][1], lengths) or places == 1
    for (start, size), (later, _) in pairwise(bounds):
        assert (later >= start).all() and (size == (lengths.double() * share - 1e-9).ceil()).all()
        assert (later - start <= stride * lengths + 1).all()


def test_window_cuts_each_clip_at_its_own_length() -> None:
    window = Window(0.5, 0.1)
    window.place.fill_(3)
    x = torch.arange(1.0, 25.0).expand(2, 24)[..., None].clone()
    x[1, 9:] = 0
    found, lengths = window(x, torch.tensor([24, 9]))
    assert lengths.tolist() == [12, 5]
    assert found[0, :, 0].tolist() == list(range(8, 20))  # 3/5 of the 12 left over is 7.2
    assert found[1, :, 0].tolist() == [3, 4, 5, 6, 7] + [0] * 7  # 3/5 of 4 is 2.4


def intermediate(method: Method, name: str, split: Split) -> Tensor:
    """The input that the recurrent layer of ``name`` gets."""
    seen: list[Tensor] = []
    handle = method.get_submodule(f"recurrent.{name}").register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    predict(method.eval(), whole(split))
    handle.remove()
    return seen[0]


def test_without_selection_every_feature_is_read() -> None:
    split = some_split()
    full, without = (fitted_mikl(split, **more) for more in ({}, {"selection": ()}))
    assert [intermediate(full, name, split).shape[2] for name in DIMS] == [6, 2, 2]
    assert [intermediate(without, name, split).shape[2] for name in DIMS] == [6, 3, 4]


def test_without_window_every_frame_is_read() -> None:
    split = some_split()
    full, without = (fitted_mikl(split, **more) for more in ({}, {"window": ()}))
    assert [intermediate(full, name, split).shape[1] for name in DIMS] == [9, 6, 9]
    assert [intermediate(without, name, split).shape[1] for name in DIMS] == [9, 11, 17]


def test_standard_lstm_takes_the_place_of_the_klstm() -> None:
    split = some_split()
    full, plain = (fitted_mikl(split, **more) for more in ({}, {"recurrent": "lstm"}))
    assert all(isinstance(layer, KLSTM) for layer in full.get_submodule("recurrent").values())  # type: ignore[operator]
    assert all(isinstance(layer, torch.nn.LSTM) for layer in plain.get_submodule("recurrent").values())  # type: ignore[operator]
    assert predict(plain.eval(), whole(split)).isfinite().all()


def test_without_consistency_no_information_is_maximised() -> None:
    split = some_split()
    full, without = (fitted_mikl(split, **more)(whole(split)) for more in ({}, {"consistency": False}))
    assert full.losses["between"] > 0 and full.losses["fused"] > 0
    assert without.losses["between"] == 0 and without.losses["fused"] == 0
    assert not [name for name, _ in fitted_mikl(split, consistency=False).named_parameters() if "between" in name or "with_fused" in name]


def test_consistency_terms_follow_their_definition() -> None:
    """-log of each clip's softmax share of its own pair, summed over pairs, and over modalities for Z."""
    split = some_split()
    method = fitted_mikl(split)
    output = method(whole(split))
    total = torch.zeros(())
    for pair in ("text_audio", "text_vision", "audio_vision"):
        one, other = (output.representations[name] for name in pair.split("_"))
        scores = method.get_submodule(f"between.{pair}")(one, other)
        total = total - torch.stack([scores[i, i] - scores[i].exp().sum().log() for i in range(len(split))]).mean()
    torch.testing.assert_close(output.losses["between"], total, rtol=0, atol=1e-5)


@pytest.mark.parametrize("gate", ["literal", "state"])
def test_other_readings_of_the_gate_work(gate: str) -> None:
    split = some_split()
    found, default = (predict(fitted_mikl(split, **more).eval(), whole(split)) for more in ({"gate": gate}, {}))
    assert found.isfinite().all() and not torch.allclose(found, default)


def test_what_was_fitted_is_part_of_the_state() -> None:
    split, _ = planted((0.6, 1.0))
    source = fitted_mikl(split)
    assert split.labels is not None
    target = MIKL(Inputs({"audio": WIDTH}), TASKS["regression"], MIKL.Config(**SMALL))
    assert kept(target) != kept(source)
    target.load_state_dict(source.state_dict())
    assert kept(target) == kept(source)
    assert int(target.get_buffer("windows.audio.place")) == int(source.get_buffer("windows.audio.place")) > 0


def test_labels_in_seven_bins() -> None:
    method = fitted_mikl(some_split())
    bins = method._label_bins(torch.tensor([-3.0, -2.6, -2.4, 0.0, 0.4, 0.6, 3.0]))  # type: ignore[operator]
    assert bins.tolist() == [0, 0, 1, 3, 3, 4, 6]


def test_number_of_parameters_that_the_text_gives() -> None:
    """3.58 M (table 3); the docstring states what remains."""
    inputs = Inputs({"audio": 5, "vision": 20})
    config = MIKL.Config.model_validate(MIKL.presets["mosi"])
    count = sum(p.numel() for p in MIKL(inputs, TASKS["regression"], config).parameters())
    assert count == 3_563_233 and f"{count:,}" in str(MIKL.__doc__)
    assert abs(count - 3.58e6) < 0.005 * 3.58e6


@pytest.mark.parametrize(
    "wrong, message",
    [({"kept": 0}, "kept"), ({"selection": ("smell",)}, "selection"), ({"span": (1, 1)}, "span"), ({"gate": "gru"}, "gate")],
)
def test_settings_are_checked(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        methods["mikl"].Config(**wrong)
