"""MFN, Graph-MFN, MFM, EF-LSTM and LF-DNN: their layers against closed forms, their sizes, settings and losses."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import (
    CLOSE,
    DIMS,
    LENGTHS,
    REGRESSION,
    SUBSETS,
    TASKS,
    at_places,
    build,
    check_training_fits,
    fitted,
    merged,
    nested,
    own_settings,
    predict,
    random_split,
    some_split,
    whole,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn

from baselines.ef_lstm import StepNorm
from baselines.graph_mfn import FusionGraph
from baselines.mfm import MFM, Decoder, reconstruction
from baselines.mfn import MFN
from harness.data.schema import MODALITIES
from harness.nn.lstm import Order, order
from harness.nn.memory import CellLSTM, DeltaAttention, GatedMemory, Hidden, align, resample, with_previous
from harness.nn.mmd import mmd
from harness.training import Inputs, methods

NAMES = ["mfn", "graph_mfn", "mfm", "ef_lstm", "lf_dnn"]
EXACT = {"rtol": 0.0, "atol": 1e-12}  # float64 sums in another order

MOSI, MOSEI = {"text": 768, "audio": 5, "vision": 20}, {"text": 768, "audio": 74, "vision": 35}
SIZES = {
    ("mfn", "mosi"): 2_172_657,
    ("mfn", "mosei"): 1_276_865,
    ("graph_mfn", "mosi"): 2_110_624 + 208_656,  # with the four networks that the peers neither train nor store
    ("graph_mfn", "mosei"): 675_792 + 133_712,
    ("mfm", "mosi"): 1_416_123 - 45_313,  # less the MFN's output network, which takes no part
    ("mfm", "mosei"): 5_996_541 - 156_161,
    ("ef_lstm", "mosi"): 885_605,
    ("ef_lstm", "mosei"): 1_754_725,
    ("lf_dnn", "mosi"): 597_171,
    ("lf_dnn", "mosei"): 572_283,
}
AUTHORS = {  # MFN as its authors' two stored models have it, for inputs 300/5/20
    292_657: {"hidden": (64, 48, 32), "memory": 400, "attention": 32, "candidate": 32, "keep": 64, "write": 32, "output": 64},
    839_549: {"hidden": (156, 80, 16), "memory": 300, "attention": 256, "candidate": 64, "keep": 128, "write": 32, "output": 64},
}


def trained(name: str, dims: dict[str, int], config: dict[str, Any]) -> int:
    method = methods[name](Inputs(dims), REGRESSION, methods[name].Config.model_validate(config))
    return sum(p.numel() for p in method.parameters() if p.requires_grad)


@pytest.mark.parametrize(("name", "dataset"), SIZES)
def test_parameter_counts_are_the_peers(name: str, dataset: str) -> None:
    assert trained(name, {"mosi": MOSI, "mosei": MOSEI}[dataset], dict(methods[name].presets[dataset])) == SIZES[name, dataset]


@pytest.mark.parametrize("size", AUTHORS)
def test_mfn_has_the_size_of_its_authors_models(size: int) -> None:
    layers = {key: {"width": value, "dropout": 0.0} for key, value in AUTHORS[size].items() if key not in ("hidden", "memory")}
    config = {"hidden": dict(zip(MODALITIES, AUTHORS[size]["hidden"], strict=True)), "memory": AUTHORS[size]["memory"], **layers}
    assert trained("mfn", {"text": 300, "audio": 5, "vision": 20}, config) == size


@pytest.mark.parametrize(("dataset", "dims", "size"), [("mosi", MOSI, 2_110_624), ("mosei", MOSEI, 675_792)])
def test_graph_mfn_as_published_trains_what_the_peers_train(dataset: str, dims: dict[str, int], size: int) -> None:
    config = merged(methods["graph_mfn"].Config().model_dump(), methods["graph_mfn"].presets[dataset]) | {"train_nodes": False}
    assert trained("graph_mfn", dims, config) == size


# Training and settings

NARROW = {"hidden": {"text": 24, "audio": 16, "vision": 20}, "memory": 40}
SMALL: dict[str, dict[str, Any]] = {
    "mfn": NARROW,
    "graph_mfn": NARROW,
    "mfm": NARROW,
    "ef_lstm": {"hidden": 32, "layers": 2},
    "lf_dnn": {"hidden": {"text": 24, "audio": 16, "vision": 20}},
}


@pytest.mark.parametrize("name", NAMES)
def test_training_fits_a_few_clips(name: str) -> None:
    split = some_split()
    check_training_fits(build(name, split, **SMALL[name]), whole(split))


def effect(name: str, config: dict[str, Any]) -> tuple[float, ...]:
    """What training sees: the prediction, the losses and the number of parameters.

    In double, where even what attention over a thousand cells adds to a memory is not rounded away.
    """
    method, batch = build(name, some_split(), **config).double(), whole(some_split())
    torch.manual_seed(1)
    output = method(replace(batch, features={name: x.double() for name, x in batch.features.items()}))
    losses = (loss.item() for loss in output.losses.values())
    return (output.prediction.sum().item(), *losses, sum(p.numel() for p in method.parameters()))


def small(name: str) -> dict[str, Any]:
    return merged(methods[name].Config().model_dump(), SMALL[name])


@cache
def effect_of_defaults(name: str) -> tuple[float, ...]:
    return effect(name, small(name))


@pytest.mark.parametrize(("name", "path", "value"), own_settings(SMALL))
def test_no_setting_is_without_effect(name: str, path: tuple[str, ...], value: Any) -> None:
    other: Any = not value if isinstance(value, bool) else value // 2 if isinstance(value, int) else value / 2 + 0.3
    assert effect_of_defaults(name) != effect(name, merged(small(name), nested(path, other)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("modalities", SUBSETS, ids="+".join)
def test_half_precision_trains(name: str, modalities: tuple[str, ...]) -> None:
    split = some_split(modalities=modalities)
    method, batch = build(name, split), whole(split)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = method(batch)
    (output.prediction.float().sum() + sum(output.losses.values(), torch.zeros(()))).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())


@pytest.mark.parametrize(
    "bad", [{"width": 0, "dropout": 0.0}, {"width": 3, "dropout": 1.0}, {"width": 3}, {"width": 3, "dropout": 0, "x": 1}]
)
def test_hidden_layers_are_checked(bad: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match="attention"):
        MFN.Config.model_validate({"attention": bad})


# Common time steps


@given(counts=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=4), padding=st.integers(0, 3))
@settings(deadline=None, max_examples=40)
def test_resampling_is_adaptive_average_pooling_of_each_clip(counts: list[tuple[int, int]], padding: int) -> None:
    lengths, steps = (torch.tensor(column) for column in zip(*counts, strict=True))
    x = ragged(lengths, 3, torch.float64, padding)
    total = int(steps.max()) + padding
    result = resample(x, lengths, steps, total)
    assert result.shape == (len(counts), total, 3)
    for clip, (length, n) in enumerate(counts):
        pooled = F.adaptive_avg_pool1d(x[clip, :length].T[None], n)[0].T
        torch.testing.assert_close(result[clip, :n], pooled, **EXACT)
        assert not result[clip, n:].any()


def ragged(lengths: Tensor, dim: int, dtype: torch.dtype, padding: int = 0) -> Tensor:
    """Normal frames, zero at padding, (B, longest + padding, dim)."""
    x = torch.randn(len(lengths), int(lengths.max()) + padding, dim, dtype=dtype, generator=torch.Generator().manual_seed(0))
    return x * (torch.arange(x.shape[1]) < lengths[:, None])[..., None]


def test_aligned_sequences_stay_as_they_are() -> None:
    lengths = torch.tensor([4, 9, 1])
    features = {name: ragged(lengths, DIMS[name], torch.float32) for name in MODALITIES}
    same, steps = align(features, dict.fromkeys(MODALITIES, lengths))
    assert torch.equal(steps, lengths)
    assert all(torch.equal(same[name], features[name]) for name in MODALITIES)


@pytest.mark.parametrize("modalities", SUBSETS, ids="+".join)
@pytest.mark.parametrize("longest", [None, 4])
def test_text_sets_the_steps_else_the_longest_modality(modalities: tuple[str, ...], longest: int | None) -> None:
    batch = whole(some_split(modalities=modalities))
    features, steps = align(batch.features, batch.lengths, longest)
    guides = ["text"] if "text" in modalities else list(modalities)
    expected = torch.stack([batch.lengths[name] for name in guides]).amax(0)
    assert torch.equal(steps, expected if longest is None else expected.clamp(max=longest))
    for name, x in features.items():
        expected = resample(batch.features[name], batch.lengths[name], steps, int(steps.max()))
        torch.testing.assert_close(x, expected, **CLOSE)
    if len(modalities) == 1 and longest is None:
        assert features[modalities[0]] is batch.features[modalities[0]]


def test_alignment_follows_time() -> None:
    """Twice as many frames as words: a word gets its own two; half as many: a frame serves two words."""
    text, audio, vision = torch.zeros(1, 4, 2), torch.arange(8.0).view(1, 8, 1), torch.tensor([[[1.0], [2.0]]])
    lengths = {name: torch.tensor([x.shape[1]]) for name, x in (("text", text), ("audio", audio), ("vision", vision))}
    aligned, _ = align({"text": text, "audio": audio, "vision": vision}, lengths)
    assert aligned["audio"].flatten().tolist() == [0.5, 2.5, 4.5, 6.5]
    assert aligned["vision"].flatten().tolist() == [1, 1, 2, 2]


# Cells, attention, memory


def unpadded(clips: int, steps: int) -> Order:
    """The order of clips without padding."""
    return order(torch.full((clips,), steps), steps)


@pytest.mark.parametrize(("width", "hidden", "steps"), [(3, 5, 7), (4, 1, 1)])
def test_cell_lstm_is_the_lstm(width: int, hidden: int, steps: int) -> None:
    torch.manual_seed(0)
    loop, x = CellLSTM(width, hidden).double(), torch.randn(2, steps, width, dtype=torch.float64)
    rows = unpadded(2, steps)
    states, cells = (at_places(rows, states, steps) for states in loop(rows.pack(x), rows))
    torch.testing.assert_close(states, loop.lstm(x)[0], **EXACT)
    for t in range(steps):
        _, (_, cell) = loop.lstm(x[:, : t + 1])
        torch.testing.assert_close(cells[:, t], cell[0], **EXACT)


def test_previous_state_stands_before_each_state() -> None:
    states = torch.arange(12.0).view(3, 4) + 1
    assert with_previous(states, unpadded(1, 3)).tolist() == [[0] * 4 + [1, 2, 3, 4], [1, 2, 3, 4, 5, 6, 7, 8], [5, 6, 7, 8, 9, 10, 11, 12]]


def test_delta_attention_weighs_entries_of_two_steps() -> None:
    torch.manual_seed(0)
    attend, cells, rows = DeltaAttention(3, Hidden(4, 0.0)), torch.randn(10, 3), unpadded(2, 5)
    both = with_previous(cells, rows)
    nn.init.zeros_(attend.score.outer.weight)
    nn.init.zeros_(attend.score.outer.bias)
    torch.testing.assert_close(attend(cells, rows), both / 6, **CLOSE)
    attend.score.outer.bias.data[4] = 1e3
    torch.testing.assert_close(attend(cells, rows), both * F.one_hot(torch.tensor(4), 6), **CLOSE)


def forced(memory: GatedMemory, keep: float, write: float) -> GatedMemory:
    """Both gates at fixed values, whatever they read: 0 or 1 for -inf and inf before the sigmoid."""
    for gate, value in ((memory.keep, keep), (memory.write, write)):
        nn.init.zeros_(gate.outer.weight)
        nn.init.constant_(gate.outer.bias, value)
    return memory


@pytest.mark.parametrize(("keep", "write"), [(0, 1), (1, 0), (1, 1), (0, 0)])
def test_memory_keeps_and_replaces_as_its_gates_say(keep: int, write: int) -> None:
    torch.manual_seed(0)
    memory = forced(GatedMemory(3, 4, Hidden(5, 0.0), Hidden(6, 0.0), Hidden(7, 0.0)), 1e3 * (2 * keep - 1), 1e3 * (2 * write - 1))
    seen, rows = torch.randn(2, 5, 3), unpadded(2, 5)
    written = memory.candidate(seen).tanh() * write
    expected = written.cumsum(1) if keep else written
    torch.testing.assert_close(at_places(rows, memory(rows.pack(seen), rows), 5), expected, **CLOSE)


def test_memory_is_its_recurrence() -> None:
    torch.manual_seed(0)
    memory = GatedMemory(3, 4, Hidden(5, 0.0), Hidden(6, 0.0), Hidden(7, 0.0)).double()
    seen = torch.randn(2, 6, 3, dtype=torch.float64)
    u, rows = torch.zeros(2, 4, dtype=torch.float64), unpadded(2, 6)
    for t, now in enumerate(at_places(rows, memory(rows.pack(seen), rows), 6).unbind(1)):
        both = torch.cat([seen[:, t], u], dim=1)
        u = memory.keep(both).sigmoid() * u + memory.write(both).sigmoid() * memory.candidate(seen[:, t]).tanh()
        torch.testing.assert_close(now, u, **EXACT)


def test_memory_drops_hidden_units_of_each_gate_at_its_own_rate() -> None:
    torch.manual_seed(0)
    memory = GatedMemory(3, 4, Hidden(5, 0.0), Hidden(40, 0.75), Hidden(30, 0.0))
    kept = memory._kept(torch.zeros(160, 70)).view(8, 20, 70)
    assert set(kept[..., :40].unique().tolist()) == {0.0, 4.0} and kept[..., 40:].eq(1).all()
    assert abs(kept[..., :40].eq(0).float().mean().item() - 0.75) < 5 * (0.75 * 0.25 / (8 * 20 * 40)) ** 0.5
    assert not torch.equal(kept[:, 0], kept[:, 1])
    assert memory.eval()._kept(torch.zeros(160, 70)).eq(1).all()


def test_mfn_reads_every_state_at_the_last_real_step() -> None:
    method, batch = fitted("mfn"), whole(some_split())
    with torch.inference_mode():
        states = method(batch).representations
        for clip in range(len(batch)):
            alone = {name: x[clip : clip + 1, : batch.lengths[name][clip]] for name, x in batch.features.items()}
            aligned, lengths = align(alone, {name: torch.tensor([x.shape[1]]) for name, x in alone.items()})
            rows = order(lengths, int(lengths))
            views = {name: method.fuse.views[name](x[0], rows) for name, x in aligned.items()}
            memory = method.fuse.memory(method.fuse.attention(torch.cat([cells for _, cells in views.values()], 1), rows), rows)
            for name, x in {**{name: hidden for name, (hidden, _) in views.items()}, "memory": memory}.items():
                torch.testing.assert_close(states[name][clip], x[-1], **CLOSE)


# The fusion graph

WIDTHS = {"text": 4, "audio": 2, "vision": 3}


def graph(modalities: tuple[str, ...] = MODALITIES, sigmoid: bool = False) -> FusionGraph:
    torch.manual_seed(0)
    return FusionGraph({name: WIDTHS[name] for name in modalities}, 5, sigmoid).double()


def states_of(modalities: tuple[str, ...]) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {name: torch.randn(6, WIDTHS[name], dtype=torch.float64) for name in modalities}


def fixed(fusion: FusionGraph, efficacies: Tensor) -> FusionGraph:
    """The graph with the same efficacies whatever it reads."""
    nn.init.zeros_(fusion.efficacy[2].weight)
    fusion.efficacy[2].bias.data.copy_(efficacies)
    return fusion


@pytest.mark.parametrize("modalities", SUBSETS, ids="+".join)
def test_graph_has_an_edge_from_every_proper_subset(modalities: tuple[str, ...]) -> None:
    out, efficacies = graph(modalities)(states_of(modalities))
    assert out.shape == (6, 5)
    assert efficacies.shape == (6, {1: 1, 2: 2 + 3, 3: 3 * 2 + 6 + 7}[len(modalities)])


def test_graph_is_its_sum_over_edges() -> None:
    """Each network as one matrix per incoming vertex, the efficacies as numbers."""
    fusion, states = graph(), states_of(MODALITIES)
    out, efficacies = fusion(states)
    edges = iter(efficacies.detach().numpy().T)
    order = [subset for size in (1, 2, 3) for subset in combinations(MODALITIES, size)]
    value = {(name,): x.numpy() for name, x in states.items()}
    for vertex in [*order[3:], None]:
        seen = order if vertex is None else [v for v in order if set(v) < set(vertex)]
        first, second = fusion.out if vertex is None else fusion.nodes["_".join(vertex)]
        weight, bias = (second.weight @ first.weight).detach().numpy(), (second(first.bias)).detach().numpy()
        parts = np.split(weight, np.cumsum([value[v].shape[1] for v in seen])[:-1], axis=1)
        total = bias + sum(next(edges)[:, None] * value[v] @ part.T for v, part in zip(seen, parts, strict=True))
        if vertex is None:
            np.testing.assert_allclose(out.detach().numpy(), total, rtol=0, atol=1e-12)
        else:
            value[vertex] = total
    assert next(edges, None) is None


def test_graph_hears_only_along_edges_with_efficacy() -> None:
    states = states_of(MODALITIES)
    silent = {**states, "audio": states["audio"] + 1, "vision": states["vision"] + 1}
    from_text = torch.zeros(19, dtype=torch.float64)
    from_text[12] = 1  # the first of the output's seven edges
    fusion = fixed(graph(), from_text)
    torch.testing.assert_close(fusion(silent)[0], fusion(states)[0], **EXACT)
    assert not torch.allclose(fusion({**states, "text": states["text"] + 1})[0], fusion(states)[0])
    muted = fixed(fusion, torch.zeros(19, dtype=torch.float64))
    torch.testing.assert_close(muted(states)[0], muted.out[1](muted.out[0].bias).expand(6, 5), **EXACT)


def test_sigmoid_efficacies_are_the_sigmoids_of_the_published_ones() -> None:
    states = states_of(MODALITIES)
    torch.testing.assert_close(graph(sigmoid=True)(states)[1], graph()(states)[1].sigmoid(), **EXACT)


def test_graph_mfn_as_published_leaves_larger_sets_as_they_start() -> None:
    method = build("graph_mfn", some_split(), train_nodes=False)
    frozen = {name: p.detach().clone() for name, p in method.named_parameters() if not p.requires_grad}
    assert {name.split(".")[2] for name in frozen} == {"text_audio", "text_vision", "audio_vision", "text_audio_vision"}
    for node in method.graph.nodes.values():
        assert all(torch.equal(p, frozen[f"graph.nodes.text_audio.1.{name}"]) for name, p in node[1].named_parameters())
    assert set(frozen) <= set(method.state_dict())
    optimiser = torch.optim.Adam(method.parameter_groups(method.Config().training)[0]["params"], lr=0.1)
    method(whole(some_split())).prediction.sum().backward()
    optimiser.step()
    assert all(torch.equal(method.get_parameter(name), p) for name, p in frozen.items())


def test_graph_mfn_shows_its_efficacies() -> None:
    method, batch = fitted("graph_mfn"), whole(some_split())
    with torch.inference_mode():
        assert method(batch).representations["efficacies"].shape == (len(batch), 19)


# Maximum mean discrepancy


def brute_mmd(x: np.ndarray, y: np.ndarray) -> float:
    def mean(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.mean([np.exp(-np.mean((p - q) ** 2) / len(p)) for p in a for q in b]))

    return mean(x, x) + mean(y, y) - 2 * mean(x, y)


@given(m=st.integers(1, 6), n=st.integers(1, 6), dim=st.integers(1, 5), shift=st.floats(-3, 3), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_mmd_is_the_mean_over_all_pairs(m: int, n: int, dim: int, shift: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(m, dim)), rng.normal(size=(n, dim)) + shift
    result = mmd(torch.from_numpy(x), torch.from_numpy(y)).item()
    assert result == pytest.approx(brute_mmd(x, y), abs=1e-12)
    assert result > -1e-12
    assert mmd(torch.from_numpy(x), torch.from_numpy(x.copy())).item() == pytest.approx(0, abs=1e-12)


def test_mmd_of_two_points_and_its_gradient() -> None:
    """2 - 2 exp(-d^2) for two numbers d apart; the gradient is finite where points coincide, and draws them together."""
    x, y = torch.tensor([[1.5]], dtype=torch.float64, requires_grad=True), torch.tensor([[0.5]], dtype=torch.float64)
    value = mmd(x, y)
    assert value.item() == pytest.approx(2 - 2 * np.exp(-1))
    value.backward()
    assert x.grad is not None and x.grad.item() == pytest.approx(4 * np.exp(-1))
    twins = torch.zeros(3, 2, requires_grad=True)
    mmd(twins, torch.ones(2, 2)).backward()
    assert twins.grad is not None and twins.grad.isfinite().all() and (twins.grad < 0).all()


# MFM


def test_decoder_feeds_its_last_state_back() -> None:
    torch.manual_seed(0)
    decoder = Decoder(4, 3).double()
    cell = nn.LSTMCell(4, 4).double()
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in decoder.lstm.state_dict().items()})
    start = torch.randn(3, 4, dtype=torch.float64)
    lengths = torch.tensor([2, 6, 4])
    rows = order(lengths, 6)
    rebuilt = at_places(rows, decoder(start, rows), 6)
    h, c = cell(start)
    for step in range(6):
        there = lengths > step
        torch.testing.assert_close(rebuilt[there, step], decoder.out(h)[there], **EXACT)
        h, c = cell(h, (h, c))


def test_decoder_teaches_both_of_its_matrices() -> None:
    torch.manual_seed(0)
    decoder, cell, start = Decoder(4, 3), nn.LSTMCell(4, 4), torch.randn(2, 4)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in decoder.lstm.state_dict().items()})
    decoder(start, order(torch.tensor([3, 3]), 3)).sum().backward()
    h, c = cell(start)
    total = decoder.out(h).sum()
    for _ in range(2):
        h, c = cell(h, (h, c))
        total = total + decoder.out(h).sum()
    total.backward()
    for name, parameter in cell.named_parameters():
        torch.testing.assert_close(decoder.lstm.get_parameter(f"{name}_l0").grad, parameter.grad, **CLOSE)


def test_reconstruction_is_a_mean_over_real_steps_then_clips() -> None:
    lengths = torch.tensor([2, 5, 1])
    x, rebuilt = ragged(lengths, 3, torch.float64, padding=2), torch.randn(3, 7, 3, dtype=torch.float64)
    errors = [((rebuilt[i, :n] - x[i, :n]) ** 2).numpy().mean() for i, n in enumerate(lengths.tolist())]
    rows = order(lengths, 7)
    assert reconstruction(rows.pack(rebuilt), x, lengths, rows).item() == pytest.approx(np.mean(errors), rel=1e-12)
    assert reconstruction(rows.pack(x), x, lengths, rows) == 0


def test_mfm_losses_are_their_definitions() -> None:
    method, batch = fitted("mfm"), whole(some_split())
    with torch.inference_mode():
        torch.manual_seed(4)
        output = method(batch)
        features, lengths = align(batch.features, batch.lengths)
        label, named = output.representations["factor_label"], output.representations
        for name in MODALITIES:
            rows = order(lengths, features[name].shape[1])
            rebuilt = at_places(rows, method.decode[name](torch.cat([label, named[f"factor_{name}"]], 1), rows), int(lengths.max()))
            errors = [((rebuilt[i, :n] - features[name][i, :n]) ** 2).mean() for i, n in enumerate(lengths.tolist())]
            assert output.losses[f"reconstruct_{name}"].item() == pytest.approx(float(np.mean(errors)), rel=1e-5)
        codes = [method.label_code(torch.cat(list(method.fuse(features, lengths).values()), 1))]
        codes += [method.code[name](method.read[name](features[name], lengths)) for name in MODALITIES]
        torch.manual_seed(4)
        expected = sum(brute_mmd(code.double().numpy(), torch.randn_like(code).double().numpy()) for code in codes)
    assert output.losses["mmd"].item() == pytest.approx(expected, abs=1e-5)


def test_mfm_loses_nothing_on_modalities_that_are_not_there() -> None:
    losses = build("mfm", some_split(modalities=("text", "vision")))(whole(some_split(modalities=("text", "vision")))).losses
    assert losses["reconstruct_audio"] == 0
    assert losses["reconstruct_text"] > 0 and losses["reconstruct_vision"] > 0 and losses["mmd"] > 0


def test_mfm_predicts_from_the_label_factor_alone() -> None:
    """The modalities' own factors reach the reconstructions, not the prediction."""
    method, batch = fitted("mfm"), whole(some_split())
    other = build("mfm", some_split(), seed=3).eval()
    own = ("read.", "code.", "factor.", "decode.")
    state = {key: value for key, value in method.state_dict().items() if not key.startswith(own)}
    missing, unexpected = other.load_state_dict(state, strict=False)
    assert missing and not unexpected and all(key.startswith(own) for key in missing)
    assert torch.equal(predict(other, batch), predict(method, batch))


def test_mfm_trains_at_the_rate_that_was_used() -> None:
    assert [MFM.Config.model_validate(MFM.presets[name]).training.learning_rate for name in ("mosi", "mosei")] == [1e-3, 1e-3]


# EF-LSTM and LF-DNN


def test_step_norm_is_batch_norm_over_steps_of_full_clips() -> None:
    torch.manual_seed(0)
    ours, theirs = StepNorm(5).double(), nn.BatchNorm1d(5).double()
    for norm in (ours, theirs):
        norm.load_state_dict({"weight": torch.arange(1.0, 6), "bias": torch.arange(5.0)}, strict=False)
    full = torch.full((4,), 5)
    for _ in range(3):
        x = torch.randn(4, 5, 7, dtype=torch.float64) * 3 + 1
        torch.testing.assert_close(ours(x, full), theirs(x), **EXACT)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean, **EXACT)
    torch.testing.assert_close(ours.running_var, theirs.running_var, **EXACT)
    torch.testing.assert_close(ours.eval()(x, full), theirs.eval()(x), **EXACT)


def test_step_norm_leaves_padding_out() -> None:
    torch.manual_seed(0)
    lengths = torch.tensor([2, 3, 1])
    x = ragged(lengths, 4, torch.float64) + 1
    x = x * (torch.arange(3) < lengths[:, None])[..., None]
    norm, longer = StepNorm(6).double(), StepNorm(6).double()
    result = norm(x, lengths)
    for step in range(3):
        there = x[lengths > step, step]
        expected = (there - there.mean()) / (there.var(correction=0) + 1e-5).sqrt()
        torch.testing.assert_close(result[lengths > step, step], expected, **EXACT)
        assert norm.running_mean[step].item() == pytest.approx(0.1 * there.mean().item())
        assert norm.running_var[step].item() == pytest.approx(0.9 + 0.1 * there.var().item())
    assert not norm.running_mean[3:].any() and norm.running_var[3:].eq(1).all()
    padded = longer(F.pad(x, (0, 0, 0, 2)), lengths)
    torch.testing.assert_close(padded[:, :3], result, **EXACT)
    torch.testing.assert_close(longer.running_var, norm.running_var, **EXACT)


def test_ef_lstm_averages_long_clips_down() -> None:
    """Each of four steps is the mean of two of eight frames; a clip of those four means gives the same."""
    split = random_split({"audio": [8, 8]}, {"audio": 3}, seed=0)
    ragged_audio = split.features["audio"]
    halves = replace(ragged_audio, values=ragged_audio.values.view(-1, 2, 3).mean(1), offsets=ragged_audio.offsets // 2)
    method = build("ef_lstm", split, steps=4).eval()
    assert method.norm.weight.shape == (4,)
    torch.testing.assert_close(predict(method, whole(split)), predict(method, whole(replace(split, features={"audio": halves}))), **CLOSE)


def test_ef_lstm_of_one_layer_drops_nothing_between_layers() -> None:
    assert build("ef_lstm", some_split(), layers=1).lstm.dropout == 0
    assert build("ef_lstm", some_split(), layers=2).lstm.dropout == 0.5


def test_lf_dnn_reads_each_modality_at_its_own_length() -> None:
    """A mean over frames does not change when every frame is there twice; the text LSTM's reading does."""
    split, method = some_split(), fitted("lf_dnn")
    doubled = {name: twice(x) for name, x in split.features.items()}
    same = replace(split, features={**doubled, "text": split.features["text"]})
    torch.testing.assert_close(predict(method, whole(same)), predict(method, whole(split)), **CLOSE)
    other = replace(split, features={**split.features, "text": doubled["text"]})
    assert not torch.allclose(predict(method, whole(other)), predict(method, whole(split)), atol=1e-3)


def twice(frames: Any) -> Any:
    return replace(frames, values=frames.values.repeat_interleave(2, dim=0), offsets=frames.offsets * 2)


@pytest.mark.parametrize("name", NAMES)
def test_every_modality_counts(name: str) -> None:
    method, split = fitted(name), some_split()
    for modality in LENGTHS:
        moved = replace(split.features[modality], values=split.features[modality].values + 1)
        changed = replace(split, features={**split.features, modality: moved})
        assert (predict(method, whole(changed)) - predict(method, whole(split))).abs().max() > 1e-5


def test_classes_get_logits() -> None:
    for name in NAMES:
        split = some_split("classification")
        assert build(name, split, "classification")(whole(split)).prediction.shape == (len(split), len(TASKS["classification"].classes))
