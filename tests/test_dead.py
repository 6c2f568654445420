"""The audit for dead parameters: what no gradient reaches is named once, and changes no number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from kit import call, stored
from torch import Tensor, nn

from harness.training.dead import STEPS, GradientWatch, warning

METHOD = '''
from torch import nn
from harness.training import Batch, Inputs, Method, MethodConfig, Output, Task, register_method


@register_method("halfdead")
class HalfDead(Method):
    """A layer that is built and never called."""

    def __init__(self, inputs: Inputs, task: Task, config: MethodConfig) -> None:
        super().__init__(inputs, task, config)
        self.out = nn.Linear(inputs.dims["text"], 1)
        self.forgotten = nn.Linear(3, 3)

    def forward(self, batch: Batch) -> Output:
        return Output(self.out(batch.mean("text")).squeeze(1))
'''


class Net(nn.Module):
    """``gate`` starts at zero and so hides ``inner`` in the first step; ``cut`` is detached, ``silent`` weighs nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.cut, self.silent, self.unused = (nn.Linear(2, 2, bias=False) for _ in range(4))
        self.gate = nn.Parameter(torch.zeros(2))
        self.fixed = nn.Parameter(torch.zeros(2), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return (self.gate * self.inner(x) + self.cut(x).detach() + 0 * self.silent(x)).sum()


def test_the_watch_tells_unreached_from_unmoved() -> None:
    torch.manual_seed(0)
    net = Net()
    watch, optimiser = GradientWatch(net), torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    unmoved = []
    for _ in range(STEPS):
        optimiser.zero_grad()
        net(torch.ones(3, 2)).backward()
        watch.look()
        optimiser.step()
        unmoved.append(set(watch.unmoved))
    assert unmoved == [{"inner.weight", "cut.weight", "silent.weight", "unused.weight"}, {"cut.weight", "silent.weight", "unused.weight"}]
    assert set(watch.unreached) == {"cut.weight", "unused.weight"}
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    watch.look()  # only the first steps are watched
    assert set(watch.unreached) == {"cut.weight", "unused.weight"}


def test_long_lists_are_cut() -> None:
    text = warning("mine", [f"layer.{i}" for i in range(9)])
    assert "mine: no gradient reached 9 " in text and "layer.5 and 3 more" in text and "layer.6" not in text


def test_a_users_method_is_told_once_and_runs_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(tmp_path / "data")
    monkeypatch.setenv("MER_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "halfdead.py").write_text(METHOD)
    code, out, _ = call(capsys, "run", "halfdead.py", "mosi@tiny", "--budget", "smoke", "--seeds", "3", "--inline")
    assert code == 0 and "3 trials run" in out
    assert out.count("halfdead: no gradient reached 2 parameter tensors") == 1 and "forgotten.weight, forgotten.bias" in out
    records: list[Any] = list(tmp_path.glob("results/records/*/record.json"))
    assert len(records) == 3 and not any("forgotten" in path.read_text() for path in records)
