"""Ceilings, counts of executed work, timed trainings and the command ``bench``."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import some_split
from kit import TOY, call, stored, tiny_dataset, trial
from scipy import stats
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from harness.analysis import roofline
from harness.analysis.flops import Executed, Uncounted
from harness.analysis.roofline import Ceilings, Traffic, Work
from harness.commands import bench as command
from harness.data.splits import Fold, cut
from harness.experiments import benching
from harness.experiments.benching import BenchFailed, Cost, Figures, thinned, watch_training
from harness.experiments.environment import environment
from harness.experiments.trials import make_trial, resolve_config
from harness.reporting.benches import Bench, Place, Point, bench_document, bench_text, growth_text, power
from harness.reporting.figures.growth import growth
from harness.training import Inputs, loop, methods
from harness.training.settings import BUDGETS

SINGLE = 4  # bytes of a number


# ---- ceilings and work


def test_work_reaches_the_lower_of_the_two_roofs() -> None:
    top = Ceilings(flops=100.0, bandwidth=10.0, threads=1)
    assert top.reachable(Work(flops=50, bytes=10)) == 50  # 5 FLOPs per byte times 10 bytes per second
    assert top.reachable(Work(flops=200, bytes=10)) == 100
    assert (Work(6, 4).times(2.5), Work(6, 0).intensity) == (Work(15, 10), 0.0)


def test_ceilings_are_rates_of_the_best_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock by which the two calls of each kind take 3 and 2 seconds: FLOPs and bytes over the shorter time."""
    clock = iter(np.cumsum([0, 0, 3, 0, 0, 2, 9] * 2).tolist())
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(roofline, "SIDES", (8,))
    monkeypatch.setattr(roofline, "COPIED", 4096)
    threads = torch.get_num_threads()
    found = roofline.measure(threads=1, seconds=4)
    assert (found.flops, found.bandwidth) == (2 * 8**3 / 2, 2 * 4096 / 2)
    assert torch.get_num_threads() == threads


def test_a_real_machine_has_ceilings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "SIDES", (64, 128))
    monkeypatch.setattr(roofline, "COPIED", 1 << 16)
    found = roofline.measure(seconds=0.01)
    assert 1e7 < found.flops < 1e14 and 1e6 < found.bandwidth < 1e14


def moved(run: object) -> int:
    with Traffic() as traffic:
        run()  # type: ignore[operator]
    return traffic.bytes


def test_traffic_is_every_operand_and_result_once() -> None:
    a, b, out, row = torch.ones(3, 5), torch.ones(5, 7), torch.empty(3, 7), torch.ones(5)
    assert moved(lambda: a @ b) == SINGLE * (15 + 35 + 21)
    assert moved(lambda: torch.mm(a, b, out=out)) == SINGLE * (15 + 35 + 21)
    assert moved(lambda: a.add_(1)) == SINGLE * (15 + 15)
    assert moved(lambda: a * row.expand(3, 5)) == SINGLE * (15 + 5 + 15)  # what is repeated is there once
    assert moved(lambda: a.T.unsqueeze(0).reshape(15).view(3, 5)) == SINGLE * 30  # views move nothing; one of them is a copy
    assert moved(lambda: torch._foreach_add_([a, row], [a, row])) == SINGLE * 3 * (15 + 5)  # it changes lists and returns nothing
    assert moved(lambda: torch.empty(1000)) == 0


def test_executed_counts_products_and_what_is_not_padding() -> None:
    lstm, lengths = nn.LSTM(6, 4, batch_first=True), torch.tensor([5, 2, 1])
    x = torch.ones(3, 5, 6)
    with Executed() as executed, torch.no_grad():
        lstm(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
    assert executed.flops == 2 * 8 * 4 * 4 * (6 + 4)  # eight real steps of four gates
    with Executed() as executed:
        nn.Linear(6, 4)(x).sum().backward()
    assert executed.flops == 2 * 2 * 15 * 6 * 4  # forward, and the weight's gradient


def test_executed_refuses_what_has_no_formula() -> None:
    with pytest.raises(Uncounted, match="fft"), Executed():
        torch.fft.fft(torch.ones(8))


# ---- trainings


def test_thinned_clips_are_spread_over_the_split() -> None:
    split = some_split()
    part = thinned(split, 3)
    places = [0, round((len(split) - 1) / 2), len(split) - 1]
    assert part.ids == tuple(split.ids[i] for i in places) and part.groups == tuple(split.groups[i] for i in places)
    assert torch.equal(part.rows, split.rows[places]) and split.labels is not None and part.labels is not None
    assert torch.equal(part.labels, split.labels[places])
    assert thinned(split, 0) is split and thinned(split, 100) is split
    assert thinned(split.without_labels(), 2).labels is None


class Recorder:
    """Whether it is open; how often it was opened."""

    def __init__(self) -> None:
        self.open, self.times = False, 0

    def __enter__(self) -> None:
        assert not self.open
        self.open, self.times = True, self.times + 1

    def __exit__(self, *_: object) -> None:
        assert self.open
        self.open = False


def test_the_watch_is_open_in_training_and_at_no_other_time(tmp_path: Path) -> None:
    dataset = tiny_dataset()
    one = trial(dataset, training__max_epochs=3)
    parts, kind = cut(dataset, Fold()), methods["toy"]
    config = kind.Config.model_validate(one.identity.config)
    method = loop.build(kind, Inputs({"text": 6, "audio": 3}), dataset.card.task, config, 1)
    recorder, seen = Recorder(), []
    watch_training(method, recorder)
    method.register_forward_pre_hook(lambda module, _: seen.append((module.training, recorder.open)))
    run = loop.train(method, parts["train"], parts["valid"], dataset.card.task, config, 1)
    loop.predict(method, parts["test"], config.training)
    assert len(run.history) == recorder.times == 3 and not recorder.open
    assert set(seen) == {(True, True), (False, False)}


def test_workers_time_trainings(tmp_path: Path) -> None:
    """The pause lies in training: 2 batches of 12 clips, .05 s each."""
    dataset = stored(tmp_path)
    pauses = {"pause": 0.05, "training__max_epochs": 2, "training__batch_size": 12}
    trials = [trial(dataset, seed=seed, **pauses) for seed in (1, 2)]
    alone, other = benching.run(benching.timings(trials, tmp_path, clips=24, look=True, plugin=TOY), workers=2)
    for figures in (alone, other):
        assert (len(figures.train), len(figures.whole), figures.clips, figures.of) == (2, 2, 24, 60)
        assert all(0.1 <= part < whole for part, whole in zip(figures.train, figures.whole, strict=True))
        assert figures.seconds == pytest.approx(np.median(figures.train) * 60 / 24)
        assert figures.parameters == 9 * 8 + 8 + 8 + 1 and 10 < figures.peak_mb < 10_000
    # forward: 9 x 8 and 8 x 1 for each of 60 clips; backward: the weights' gradients of both, the hidden layer's of the second
    assert alone.work is not None and alone.work.flops == 60 * 2 * (2 * 72 + 3 * 8)
    assert other.work is not None and other.work.flops == alone.work.flops
    assert other.work.bytes == pytest.approx(alone.work.bytes, rel=0.05)  # other batches have other padding
    assert alone.work.bytes > 60 * SINGLE * 9 * 3
    assert sum(cost.share for cost in alone.costs) == pytest.approx(1) and alone.costs[0].share == max(c.share for c in alone.costs)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "mosi@tiny"]  # no record, no checkpoint


def test_a_training_that_fails_is_named(tmp_path: Path) -> None:
    dataset = stored(tmp_path)
    with pytest.raises(BenchFailed, match="toy on mosi@tiny: RuntimeError: a fault in the method"):
        benching.run(benching.timings([trial(dataset, trouble="crash")], tmp_path, plugin=TOY), 1)
    config = resolve_config(methods["ridge"], "tiny", BUDGETS["paper"], "cpu", {})
    ridge = make_trial("ridge", dataset.card, config, seed=1, fold=Fold(), budget="paper")
    with pytest.raises(BenchFailed, match="ridge trains no parameters"):
        benching.run(benching.timings([ridge], tmp_path), 1)


# ---- the report

FIGURES = Figures((2.0, 1.0, 3.0), (2.5, 1.5, 3.5), 50, 100, 700.0, 1234, Work(8_000_000_000, 4_000_000_000), (Cost("mm", 0.5, 20),))
BENCH = Bench("toy", "mosi@tiny", True, 16, 8, FIGURES, (replace(FIGURES, train=(3.0, 4.0), peak_mb=800.0), replace(FIGURES, train=(5.0,))))
PLACE = Place(environment("cpu"), Ceilings(20e9, 2e9, 1), load=0.2)


def cell(text: str, label: str) -> str:
    row = next(row for row in text.splitlines() if row.startswith(f"| {label} "))
    return row.split("|")[2].strip()


def test_shares_are_of_what_was_measured() -> None:
    """8 GFLOPs in 4 s are 2 GFLOP/s: a tenth of 20; 2 FLOPs per byte allow 4 GFLOP/s; 4 GB in 4 s are half of the copy's 2 GB/s."""
    text = bench_text([BENCH], PLACE)
    assert cell(text, "epoch, one worker (s)") == "4" and cell(text, "from, to") == "2, 6"
    assert cell(text, "clips per epoch") == "100, scaled from 50" and cell(text, "clips per optimiser step") == "16 x 8"
    assert cell(text, "epoch, 2 workers at a time (s)") == "8" and cell(text, "epochs per minute, all workers") == "15"
    assert cell(text, "share of the matrix product's") == "10%" and cell(text, "share of what its bytes allow") == "50%"
    assert cell(text, "share of the copy's") == "50%" and cell(text, "peak memory of a worker (MB)") == "800"
    assert "mm 50% (20 calls an epoch)" in text and "Simulated data" in text and "Other programs" not in text
    document = json.loads(json.dumps(bench_document([BENCH], [], PLACE)))
    assert document["methods"][0]["seconds"] == 8 and document["methods"][0]["alone"]["work"]["bytes"] == 4_000_000_000
    assert document["ceilings"] == {"flops": 20e9, "bandwidth": 2e9, "threads": 1}


def test_a_busy_machine_and_what_was_not_counted_are_said() -> None:
    uncounted = replace(FIGURES, work=None, uncounted="no formula for fft")
    text = bench_text([replace(BENCH, alone=uncounted)], replace(PLACE, load=3.0))
    assert "load average 3.0" in text and "toy: no FLOPs, no formula for fft" in text and "GFLOP/s |" not in text


def test_growth_is_a_power() -> None:
    assert power([1, 4, 16], [3, 48, 768]) == pytest.approx(2)
    x, y = [50.0, 200.0, 500.0], [1.0, 7.0, 13.0]
    assert power(x, y) == pytest.approx(stats.linregress(np.log(x), np.log(y)).slope)
    points = [Point("toy", n, None, n / 100, 500) for n in (1_000, 4_000)] + [Point("toy", 1_000, f, f**2 / 1e3, 600) for f in (50, 200)]
    by_clips, by_frames = growth_text(points).split("\n\n")
    assert "10 s, 500 MB" in by_clips and "| 1.00 " in by_clips and "4,000" in by_clips
    assert "40 s, 600 MB" in by_frames and "| 2.00 " in by_frames


def test_the_figure_holds_the_points() -> None:
    pytest.importorskip("matplotlib")
    curves = {"a": [(1000.0, 2.0), (4000.0, 8.0)], "b": [(1000.0, 1.0), (4000.0, 9.0)]}
    figure = growth({"clips": curves, "frames": {"a": [(50.0, 1.0), (200.0, 3.0)]}}, simulated=True)
    left, right = figure.axes
    assert {line.get_label(): list(zip(*line.get_data(), strict=True)) for line in left.lines} == curves
    assert len(right.lines) == 1 and left.get_xscale() == left.get_yscale() == "log"
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["a", "b"]


# ---- the command


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MER_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MER_RESULTS", str(tmp_path / "results"))
    monkeypatch.setattr(roofline, "measure", lambda: Ceilings(1e11, 1e10, 1))
    yield tmp_path


def test_bench_times_a_method_of_ones_own_and_writes_no_record(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored(place / "data")
    arguments = ["bench", str(TOY), "mosi@tiny", "--epochs", "2", "--workers", "2", "--set", "training.batch_size=20", "--json", "b.json"]
    code, out, err = call(capsys, *arguments)
    assert code == 0, err
    assert cell(out, "clips per optimiser step") == "20" and cell(out, "parameters") == "89"
    found = json.loads((place / "b.json").read_text())["methods"][0]
    assert len(found["alone"]["train"]) == 2 and len(found["together"]) == 2 and found["alone"]["work"]["flops"] > 0
    assert found["epochs_per_minute"] == pytest.approx(120 / found["seconds"])
    assert not (place / "results").exists()


def test_bench_grows_data_and_draws_it(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    stored(place / "data")
    seen = []

    def timed(self: object, name: str, card: object, root: Path, look: bool) -> Figures:
        seen.append((card.clips["train"], {m.shortest for m in card.modalities.values()}, {m.longest for m in card.modalities.values()}))  # type: ignore[attr-defined]
        return replace(FIGURES, train=(card.clips["train"] / 10,), clips=card.clips["train"], of=card.clips["train"])  # type: ignore[attr-defined]

    monkeypatch.setattr(command, "CLIPS", (20, 40))
    monkeypatch.setattr(command, "FRAMES", (3, 6))
    monkeypatch.setattr(command, "LONG_CLIPS", 8)
    monkeypatch.setattr(command._Timer, "alone", timed)
    monkeypatch.setattr(command._Timer, "bench", lambda *_: BENCH)
    code, out, err = call(capsys, "bench", "tfn", "mosi@tiny", "--growth", "--figures", "svg", "--json", "b.json")
    assert code == 0, err
    assert [clips for clips, _, _ in seen] == [20, 40, 8, 8] and seen[2][1:] == ({3}, {3}) and seen[3][1:] == ({6}, {6})
    points = json.loads((place / "b.json").read_text())["growth"]
    assert [(point["clips"], point["frames"]) for point in points] == [(20, None), (40, None), (20, 3), (20, 6)]
    assert [point["seconds"] for point in points] == pytest.approx([2, 4, 2, 2])  # of 8 clips .8 s, of 20 as many 2 s
    assert math.isclose(power([20, 40], [2, 4]), 1) and "| 1.00" in out
    assert "SIMULATED DATA" in (place / "results" / "figures" / "growth_mosi-tiny.svg").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bench", "tfm", "mosi@tiny"], ["tfm", "Did you mean 'tfn'"]),
        (["bench", ",", "mosi@tiny"], ["no method", "tfn"]),
        (["bench", "tfn", ","], ["no data set", "mosi"]),
        (["bench", "tfn", "nowhere"], ["nowhere"]),
        (["bench", "tfn", "mosi@tiny", "--set", "hidden"], ["hidden", "KEY=VALUE"]),
        (["bench", "tfn", "mosi@tiny", "--set", "hiden=3"], ["hiden", "hidden"]),
        (["bench", "tfn", "mosi@tiny", "--modalities", "smell"], ["smell", "text"]),
        (["bench", "nofile.py", "mosi@tiny"], ["nofile.py"]),
        (["bench", "tfn", "mosi@tiny", "--growth", "--figures", "gif"], ["gif", "svg"]),
        (["bench", "ridge", "mosi@tiny", "--workers", "1"], ["ridge", "no parameters", "another method"]),
    ],
)
def test_a_mistake_is_named(place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: list[str]) -> None:
    stored(place / "data")
    code, _, err = call(capsys, *arguments)
    assert code == 2 and all(word in err for word in words), err


def test_a_data_set_that_cannot_grow_and_a_file_that_cannot_be_written_are_named(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command._Timer, "bench", lambda *_: BENCH)
    stored(place / "data", name="sims@tiny")
    code, _, err = call(capsys, "bench", "tfn", "sims@tiny", "--growth")
    assert code == 2 and "no simulated form" in err
    code, _, err = call(capsys, "bench", "tfn", "sims@tiny", "--json", "data/sims@tiny")
    assert code == 2 and "data/sims@tiny" in err and "--json" in err
