"""FLOPs against formulae written by hand, the guard, parameters that no gradient reaches, latency, and the command."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers import DIMS, REGRESSION, SMALL, TASKS, usual
from kit import call, job, stored, trial
from torch import Tensor, nn
from torch.utils.flop_counter import flop_registry, register_flop_formula

from harness.analysis import complexity, latency
from harness.analysis.complexity import synthetic_batch
from harness.analysis.flops import Count, Uncounted, count
from harness.analysis.latency import Latency
from harness.commands.profile import _comparable
from harness.experiments import worker
from harness.experiments.records import RecordStore
from harness.training import Batch, Inputs, Method, Output, methods

B, T, D, E, H, INNER = 3, 7, 5, 8, 6, 20


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


class SelfAttention(nn.Module):
    def __init__(self, need_weights: bool) -> None:
        super().__init__()
        self.attention, self.need_weights = nn.MultiheadAttention(E, 2, batch_first=True), need_weights

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=self.need_weights)[0]


def encoder(layers: int) -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(E, 2, INNER, batch_first=True), layers, enable_nested_tensor=False)


def sdpa(x: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(x, x, x)


def attention_macs(queries: int, keys: int, width: int) -> int:
    """Four projections, scores and mixing; keys and values of ``keys`` steps."""
    return 2 * queries * width**2 + 2 * keys * width**2 + 2 * queries * keys * width


def lstm_macs(width: int, hidden: int, layers: int = 1, directions: int = 1) -> int:
    """4 H (D + H) per step, layer and direction; upper layers read all directions of the layer below."""
    widths = [width] + [directions * hidden] * (layers - 1)
    return sum(directions * T * 4 * hidden * (below + hidden) for below in widths)


CASES: dict[str, tuple[Callable[[], nn.Module], list[tuple[int, ...]], int]] = {
    "linear": (lambda: nn.Linear(D, H), [(B, T, D)], B * T * D * H),
    "convolution": (lambda: nn.Conv1d(D, H, 3, padding=1), [(B, D, T)], B * T * 3 * D * H),
    "strided convolution": (lambda: nn.Conv1d(D, H, 3, stride=2), [(B, D, T)], B * 3 * 3 * D * H),
    "grouped convolution": (lambda: nn.Conv2d(4, 8, 3, groups=2, padding=1), [(B, 4, 5, 6)], B * 30 * 9 * 2 * 8),
    "lstm": (lambda: nn.LSTM(D, H, batch_first=True), [(B, T, D)], B * lstm_macs(D, H)),
    "lstm, 2 layers, both ways": (
        lambda: nn.LSTM(D, H, num_layers=2, bidirectional=True, batch_first=True),
        [(B, T, D)],
        B * lstm_macs(D, H, 2, 2),
    ),
    "gru": (lambda: nn.GRU(D, H, batch_first=True), [(B, T, D)], B * T * 3 * H * (D + H)),
    "attention": (lambda: SelfAttention(False), [(B, T, E)], B * (4 * T * E**2 + 2 * T**2 * E)),
    "attention with weights": (lambda: SelfAttention(True), [(B, T, E)], B * (4 * T * E**2 + 2 * T**2 * E)),
    "scaled dot product": (lambda: Function(sdpa), [(B, 2, T, E)], B * 2 * 2 * T**2 * E),
    "transformer": (lambda: encoder(2), [(B, T, E)], B * 2 * (4 * T * E**2 + 2 * T**2 * E + 2 * T * E * INNER)),
    "bilinear": (lambda: nn.Bilinear(D, E, H), [(B, D), (B, E)], B * D * E * H),
    "bmm outer product": (lambda: Function(lambda a, b: a[:, :, None] @ b[:, None, :]), [(B, D), (B, E)], B * D * E),
    "einsum outer product": (lambda: Function(lambda a, b: torch.einsum("bi,bj->bij", a, b)), [(B, D), (B, E)], B * D * E),
    "broadcast outer product": (lambda: Function(lambda a, b: a[:, :, None] * b[:, None, :]), [(B, D), (B, E)], B * D * E),
    "product as a broadcast sum": (lambda: Function(lambda a, b: (a[:, None] * b[None]).sum(2)), [(B, D), (T, D)], B * T * D),
    "einsum contraction": (lambda: Function(lambda a, b: torch.einsum("btd,dh->bth", a, b)), [(B, T, D), (D, H)], B * T * D * H),
    "matrix times vector": (lambda: Function(torch.mv), [(T, D), (D,)], T * D),
    "dot product": (lambda: Function(torch.dot), [(D,), (D,)], D),
    "distances": (lambda: Function(torch.cdist), [(T, D), (H, D)], T * H * D),
    "scaling is free": (lambda: Function(lambda a, b: torch.relu(a * b + a) / 2), [(B, T, D), (B, 1, D)], 0),
}


def evaluated(*shapes: tuple[int, ...], before: Callable[[Tensor], object] = lambda x: None) -> Callable[..., object]:
    def call(module: nn.Module, device: torch.device) -> object:
        inputs = [torch.ones(shape, device=device) for shape in shapes]
        before(inputs[0])
        with torch.no_grad():
            return module.eval()(*inputs)

    return call


def stepped(*shapes: tuple[int, ...], inputs_too: bool = True) -> Callable[..., object]:
    def call(module: nn.Module, device: torch.device) -> None:
        out = module.train()(*[torch.ones(shape, device=device, requires_grad=inputs_too) for shape in shapes])
        (out[0] if isinstance(out, tuple) else out).sum().backward()

    return call


@pytest.mark.parametrize("name", CASES)
def test_forward_counts_equal_the_formula(name: str) -> None:
    make, shapes, macs = CASES[name]
    counted = count(make(), evaluated(*shapes))
    assert (counted.macs, counted.flops, counted.device) == (macs, 2 * macs, "meta")


@pytest.mark.parametrize("name", CASES)
def test_the_fallback_on_the_cpu_counts_the_same(name: str) -> None:
    make, shapes, macs = CASES[name]
    counted = count(make(), evaluated(*shapes, before=lambda x: x.sum().item()))
    assert (counted.macs, counted.device) == (macs, "cpu")
    assert "item()" in counted.reason


@pytest.mark.parametrize("name", ["linear", "convolution", "attention", "attention with weights", "transformer", "bmm outer product"])
def test_a_step_is_three_forward_passes_where_every_factor_has_a_gradient(name: str) -> None:
    make, shapes, macs = CASES[name]
    assert count(make(), stepped(*shapes)).macs == 3 * macs


def test_a_step_without_what_is_not_needed() -> None:
    """No gradient of the inputs of the first layer; none of an LSTM's initial state, which saves 4 H H per layer and direction."""
    assert count(nn.Linear(D, H), stepped((B, D), inputs_too=False)).macs == 2 * B * D * H
    make, shapes, macs = CASES["lstm, 2 layers, both ways"]
    assert count(make(), stepped(*shapes)).macs == 3 * macs - B * 4 * H * H * 4


def test_one_count_for_every_mode() -> None:
    """Fused kernels replace these modules in evaluation, and other counters then see nothing."""
    for name in ("lstm", "attention", "transformer"):
        make, shapes, macs = CASES[name]
        module = make()
        assert count(module, lambda m, d, shapes=shapes: m.train()(*[torch.ones(s, device=d) for s in shapes])).macs == macs
        assert count(module, evaluated(*shapes)).macs == macs


def test_the_module_and_random_streams_are_left_alone() -> None:
    module = nn.Sequential(nn.Linear(D, D), nn.BatchNorm1d(D), nn.Dropout(0.5))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    count(module, lambda m, d: m.train()(torch.ones(B, D, device=d)).sum().item())
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert torch.backends.mha.get_fastpath_enabled() and torch.backends.mkldnn.enabled


# ---- the guard


@torch.library.custom_op("mer_tests::product", mutates_args=())
def product(a: Tensor, b: Tensor) -> Tensor:
    return a @ b


@product.register_fake
def _(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty(a.shape[0], b.shape[1])


def test_an_operation_of_ones_own_is_refused_until_it_has_a_formula() -> None:
    module, call = Function(lambda a, b: product(a, b) + 1), evaluated((B, D), (D, H))
    with pytest.raises(Uncounted, match="mer_tests.product"):
        count(module, call)
    packet = torch.ops.mer_tests.product
    register_flop_formula(packet)(lambda a, b, *_, **__: 2 * a[0] * a[1] * b[1])
    try:
        assert count(module, call).macs == B * D * H
    finally:
        del flop_registry[packet]


@pytest.mark.parametrize("function", [torch.linalg.svdvals, lambda x: torch.fft.rfft(x).real, torch.linalg.inv, torch.linalg.matrix_exp])
def test_a_heavy_operation_without_a_formula_is_refused(function: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(Uncounted, match="no formula"):
        count(Function(function), lambda m, d: m(torch.eye(4, device=d)))


def test_a_fault_of_the_call_itself_is_shown() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        count(nn.Linear(D, H), evaluated((B, D + 1)))


# ---- methods


def forward(name: str, **settings: Any) -> Count:
    """The count of one clip of ``LENGTHS``."""
    dims, config = {m: DIMS[m] for m in LENGTHS}, methods[name].Config(**settings)
    return complexity.forward(methods[name](Inputs(dims), REGRESSION, config), synthetic_batch(dims, LENGTHS, 1, REGRESSION))


def cost(name: str, lengths: dict[str, int], batch: int = 1, kind: str = "regression", **settings: Any) -> complexity.Complexity:
    method_kind = methods[name]
    config = method_kind.Config(**settings)
    config = config.model_copy(update={"training": config.training.model_copy(update={"batch_size": batch})})
    dims = {modality: DIMS[modality] for modality in lengths}
    return complexity.measure(method_kind(Inputs(dims), TASKS[kind], config), TASKS[kind], config, dims, lengths)


LENGTHS = {"text": 4, "audio": 3, "vision": 5}
SMALLER: dict[str, dict[str, Any]] = SMALL | {"mult": {"layers": 1}}  # every operation of it at a third of the time


def utterance_macs(hidden: dict[str, int], text_out: int) -> int:
    """The networks of TFN and LMF: an LSTM over words, three linear layers for each of the others."""
    text = LENGTHS["text"] * 4 * hidden["text"] * (DIMS["text"] + hidden["text"]) + hidden["text"] * text_out
    return text + sum(DIMS[m] * hidden[m] + 2 * hidden[m] ** 2 for m in ("audio", "vision"))


def test_tfn_equals_the_formula_with_its_outer_product() -> None:
    hidden, out, post = {"text": 7, "audio": 4, "vision": 3}, 5, 6
    outer = (hidden["audio"] + 1) * (hidden["vision"] + 1) * (1 + out + 1)
    cells = (out + 1) * (hidden["audio"] + 1) * (hidden["vision"] + 1)
    counted = forward("tfn", hidden=hidden, text_out=out, post_fusion=post)
    assert counted.macs == utterance_macs(hidden, out) + outer + cells * post + post**2 + post
    assert counted.by_operation["aten.mul"] == 2 * outer
    assert counted.by_module["fuse"] == 2 * (outer + cells * post)
    assert counted.by_module["post_fusion"] == 2 * post**2


def test_lmf_equals_the_formula() -> None:
    hidden, out, rank = {"text": 7, "audio": 4, "vision": 3}, 5, 2
    factors = rank * (out + 1 + hidden["audio"] + 1 + hidden["vision"] + 1)
    assert forward("lmf", hidden=hidden, text_out=out, rank=rank).macs == utterance_macs(hidden, out) + factors


def test_mult_equals_the_formula() -> None:
    """The memories' top layers compute each clip's last step only; their keys and values are of all steps."""
    width, layers, names = 4, 3, list(LENGTHS)
    counted = forward("mult", width=width, heads=2, layers=layers, kernel={"text": 3, "audio": 3, "vision": 3}, positions=False)
    project = sum(LENGTHS[m] * 3 * DIMS[m] * width for m in names)
    feed = 8 * width**2
    cross = sum(
        layers * (attention_macs(LENGTHS[to], LENGTHS[source], width) + LENGTHS[to] * feed)
        for to in names
        for source in names
        if to != source
    )
    wide = 2 * width
    below = sum((layers - 1) * (attention_macs(LENGTHS[m], LENGTHS[m], wide) + LENGTHS[m] * 8 * wide**2) for m in names)
    top = sum(attention_macs(1, LENGTHS[m], wide) + 8 * wide**2 for m in names)
    fused = 3 * wide
    assert counted.macs == project + cross + below + top + 2 * fused**2 + fused


@pytest.mark.parametrize(("name", "kind"), [*((name, usual(name)) for name in methods), ("tfn", "classification")])
def test_every_method_is_counted_without_values(name: str, kind: str) -> None:
    measured = cost(name, {m: 2 for m in LENGTHS}, batch=3, kind=kind, **SMALLER.get(name, {}))
    assert measured.forward.device == "meta", measured.forward.reason
    assert measured.parameters.never_used == 0, measured.parameters.unused
    if measured.step:
        assert 2 * measured.forward.flops < measured.step.flops / measured.batch
    else:
        assert measured.parameters.trainable == 0


class Half(Method):
    """A layer without use, one that is frozen, and one tensor with two names."""

    def __init__(self, inputs: Inputs, task: Any, config: Any) -> None:
        super().__init__(inputs, task, config)
        self.text_encoder, self.dead, self.frozen, self.out = (nn.Linear(DIMS["text"], n) for n in (4, 9, 4, 1))
        self.first, self.second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.second.weight = self.first.weight
        self.out = nn.Linear(4, 1)
        self.frozen.requires_grad_(False)

    def forward(self, batch: Batch) -> Output:
        x = batch.mean("text")
        y = self.second(self.text_encoder(x) + self.frozen(x))
        return Output(self.out(y).squeeze(1), losses={"extra": y.square().mean()})


def test_parameters_are_told_apart() -> None:
    method = Half(Inputs({"text": DIMS["text"]}), REGRESSION, Half.Config())
    measured = complexity.measure(method, REGRESSION, Half.Config(), {"text": DIMS["text"]}, {"text": 2})
    parameters, layer = measured.parameters, DIMS["text"] * 4 + 4
    dead = DIMS["text"] * 9 + 9
    assert parameters.total == 2 * layer + dead + 16 + 5
    assert parameters.trainable == parameters.total - layer
    assert parameters.unused == {"dead.weight": DIMS["text"] * 9, "dead.bias": 9}
    assert parameters.never_used == dead
    assert measured.has_text_encoder
    assert measured.without_text_encoder() == (parameters.total - layer, measured.forward.flops - 2 * DIMS["text"] * 4)
    assert 4 * parameters.total < measured.weights_bytes < 4 * parameters.total + 10_000


def test_a_batch_of_the_lengths_that_were_asked_for() -> None:
    batch = synthetic_batch({"text": 3, "audio": 2}, {"text": 5, "audio": 9}, 4, TASKS["classification"])
    assert batch.features["audio"].shape == (4, 9, 2) and batch.mask("audio").all() and batch.labels is not None
    assert batch.labels.dtype == torch.int64 and len(batch) == 4


# ---- latency


def test_latency_is_measured_with_its_conditions() -> None:
    method = Half(Inputs({"text": DIMS["text"]}), REGRESSION, Half.Config())
    batch = synthetic_batch({"text": DIMS["text"]}, {"text": 2}, 8, REGRESSION)
    threads = torch.get_num_threads()
    timed = latency.measure(method, batch, threads=1, seconds=0.01)
    assert 0 < timed.median < 1 and timed.iqr >= 0 and timed.calls >= 1
    assert (timed.batch, timed.threads, timed.device, timed.peak_bytes) == (8, 1, "cpu", None)
    assert timed.per_clip == timed.median / 8
    assert torch.get_num_threads() == threads and not method.training


@pytest.mark.parametrize(
    ("found", "median", "rounds", "refusal"),
    [
        ([(9, 1.0, 0.05, 1.0)], 1.0, 1, ""),
        ([(9, 1.0, 0.5, 1.0), (9, 2.0, 0.1, 0.95)], 2.0, 2, ""),
        ([(9, 1.0, 0.5, 1.0), (9, 2.0, 0.4, 1.0), (9, 3.0, 0.9, 1.0)], 2.0, 3, "IQR 20% of median"),
        ([(9, 1.0, 0.0, 0.5), (9, 2.0, 0.05, 0.9)], 2.0, 2, ""),
        ([(9, 1.0, 0.0, 0.5), (9, 2.0, 0.0, 0.3), (9, 3.0, 2.7, 1.0)], 1.0, 3, "busy machine, 50% of the processor"),
    ],
)
def test_a_restless_or_busy_machine_is_asked_again_and_then_refused(
    monkeypatch: pytest.MonkeyPatch, found: list[tuple[int, float, float, float]], median: float, rounds: int, refusal: str
) -> None:
    times = iter(found)
    monkeypatch.setattr(latency, "_round", lambda *_: next(times))
    method = Half(Inputs({"text": DIMS["text"]}), REGRESSION, Half.Config())
    timed = latency.measure(method, synthetic_batch({"text": DIMS["text"]}, {"text": 2}, 1, REGRESSION))
    assert (timed.median, timed.rounds, timed.refusal, timed.noisy) == (median, rounds, refusal, bool(refusal))


def test_a_call_that_waits_is_steady_and_refused_all_the_same() -> None:
    """Sleeping stands for waiting on a busy machine: every call takes as long, and none of it is work."""
    timed = latency.time_calls(lambda: time.sleep(0.002), 1, torch.device("cpu"), seconds=0.02, warm_up=0)
    assert timed.share < 0.5 and timed.refusal.startswith("busy machine") and timed.rounds == latency.ROUNDS
    *_, share = latency._round(lambda: time.sleep(0.002), 1, 0.02, torch.device("cuda"))
    assert share == 1.0, "waiting for a GPU is no sign of a busy machine"


# ---- the command


def test_profile_prints_a_table_and_writes_all_figures(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = stored(place / "data")
    one = trial(dataset, training__max_epochs=2)
    done = worker.run_trial(job(one, place / "data", place), lambda event: None)
    RecordStore(place / "results" / "records").put(done.record, done.runtime)
    steady = Latency(1, 0.002, 0.0001, 100, 1, 1, "cpu")
    monkeypatch.setattr(latency, "measure", lambda *_: steady)
    code, out, err = call(capsys, "profile", "toy,tfn", "mosi@tiny", "--lengths", "text=4", "--json", "costs.json")
    assert code == 0, err
    assert "text 4, audio 5" in out and "| toy" in out and "| tfn" in out
    assert "2 (IQR 0.1)" in out and "Latency:" in out and "training figures from (records)" in out
    document = json.loads((place / "costs.json").read_text())
    figures = document["methods"]["toy"]
    assert document["simulated"] and figures["lengths"] == {"text": 4, "audio": 5}
    assert figures["training"]["records"] == 1 and figures["training"]["peak_memory_mb"] == done.runtime.peak_memory_mb
    assert figures["parameters"]["trainable"] == done.record.parameters
    assert figures["latency"][0]["median"] == 0.002 and figures["latency"][0]["noisy"] is False
    assert document["methods"]["tfn"]["training"] is None
    assert figures["forward"]["flops"] == 2 * figures["forward"]["macs"]


@pytest.mark.parametrize(("longest", "known"), [(None, True), (64, True), (5, True), (4, False)])
def test_records_of_shortened_clips_say_nothing_of_whole_ones(place: Path, longest: int | None, known: bool) -> None:
    """Clips have at most five frames."""
    whole, short = (trial(stored(place / "data"), training__longest=value).identity.config for value in (None, longest))
    assert (_comparable(whole, 5) == _comparable(short, 5)) is known


def test_profile_without_latency_and_with_a_refused_one(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(place / "data")
    code, out, _ = call(capsys, "profile", "majority,ridge", "mosi@tiny", "--no-latency", "--modalities", "text")
    assert code == 0 and "latency" not in out.lower() and "audio" not in out
    monkeypatch.setattr(latency, "measure", lambda *_: Latency(32, 0.002, 0.001, 100, 3, 1, "cpu"))
    code, out, _ = call(capsys, "profile", "ridge", "mosi@tiny")
    assert code == 0 and "refused: IQR 50% of median" in out and " 2 (IQR" not in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["profile", "tfm", "mosi@tiny"], ["tfm", "Did you mean 'tfn'"]),
        (["profile", "tfn", "mosi@tiny", "--lengths", "vision=5"], ["vision", "text"]),
        (["profile", "tfn", "mosi@tiny", "--lengths", "text=0"], ["text=0", "MODALITY=FRAMES"]),
        (["profile", "tfn", "mosi@tiny", "--lengths", "text"], ["text", "MODALITY=FRAMES"]),
        (["profile", "tfn", "mosi@tiny", "--set", "hidden"], ["hidden", "KEY=VALUE"]),
        (["profile", "tfn", "nowhere"], ["nowhere"]),
        (["profile", ",", "mosi@tiny"], ["no method", "tfn"]),
        (["profile", "ridge", "mosi@tiny", "--no-latency", "--json", "data/mosi@tiny"], ["data/mosi@tiny", "--json"]),
    ],
)
def test_a_mistake_is_named(place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: list[str]) -> None:
    stored(place / "data")
    code, _, err = call(capsys, *arguments)
    assert code == 2 and all(word in err for word in words), err


def test_counts_are_plain_values() -> None:
    """So that they can be written as JSON and compared."""
    counted = count(nn.Linear(D, H), evaluated((1, D)))
    assert counted == Count({"aten.addmm": 2 * D * H}, {}, "meta")
