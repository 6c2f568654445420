"""Running means of weights, optimisers without the compiler's wrappers, and what is compiled how."""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import Any

import pytest
import torch
from kit import TOY, tiny_dataset
from pydantic import ValidationError
from torch import Tensor, nn

from harness.data.schema import Task
from harness.data.splits import Fold, cut
from harness.errors import ConfigError
from harness.experiments.plugins import load_file
from harness.experiments.trials import resolve_config
from harness.training import Batch, Inputs, Method, MethodConfig, Output, Training
from harness.training.contract import methods
from harness.training.loop import Run, build, predict, train
from harness.training.schedules import eager, make_optimiser
from harness.training.settings import BUDGETS

load_file(TOY)
TASK, INPUTS = Task(kind="regression", low=-3, high=3), Inputs({"text": 6, "audio": 3})


@pytest.fixture(scope="module")
def parts() -> Any:
    return cut(tiny_dataset(), Fold())


class Noting(Method):
    """A linear model behind a batch norm that notes its weights before every step."""

    def __init__(self, inputs: Inputs, task: Task, config: MethodConfig) -> None:
        super().__init__(inputs, task, config)
        self.norm = nn.BatchNorm1d(inputs.dims["text"])
        self.linear = nn.Linear(inputs.dims["text"], 1)
        self.noted: list[Tensor] = []

    def forward(self, batch: Batch) -> Output:
        if self.training:
            self.noted.append(self.linear.weight.detach().clone())
        return Output(self.linear(self.norm(batch.mean("text"))).squeeze(1))


def fit(parts: Any, kind: Any = None, resume: Any = None, after: Any = lambda run: None, **settings: Any) -> Run:
    training = Training(**{"batch_size": 16, "max_epochs": 5, "patience": 5, "learning_rate": 0.02, **settings})
    kind = kind or methods["toy"]
    config = kind.Config(training=training)
    return train(build(kind, INPUTS, TASK, config, 1), parts["train"], parts["valid"], TASK, config, 1, resume=resume, after_epoch=after)


# ---- the mean of weights


def test_the_mean_leaves_its_share_of_every_step(parts: Any) -> None:
    means: list[Tensor] = []
    run = fit(parts, Noting, average=0.8, after=lambda run: means.append(run.judged.linear.weight.detach().double().clone()))
    last = {name: value.clone() for name, value in run.best_state.items()}
    assert run.average is not None and torch.equal(run.method.linear.weight, last["linear.weight"])  # train ends with the best mean
    steps = len(run.method.noted) // 5
    weights = [w.double() for w in run.method.noted[1:]]  # after each step but the last
    mean, expected = weights[0], [weights[0]]
    for weight in weights[1:]:
        mean = 0.8 * mean + 0.2 * weight
        expected.append(mean)
    for epoch in range(4):
        torch.testing.assert_close(means[epoch], expected[steps * (epoch + 1) - 1], rtol=0, atol=1e-6)


def test_the_mean_validates_and_predicts_and_leaves_training_as_it_is(parts: Any) -> None:
    plain, run = fit(parts), fit(parts, average=0.9)
    assert [epoch.train_loss for epoch in run.history] == [epoch.train_loss for epoch in plain.history]
    assert [epoch.valid_loss for epoch in run.history] != [epoch.valid_loss for epoch in plain.history]
    values = predict(run.method, parts["valid"], run.settings)
    lowest = min(epoch.valid_loss for epoch in run.history)
    assert float((values - parts["valid"].labels).abs().mean()) == pytest.approx(lowest, abs=1e-6)


def test_a_mean_that_keeps_nothing_is_the_last_weights(parts: Any) -> None:
    plain, run = fit(parts), fit(parts, average=1e-9)
    assert plain.average is None and plain.judged is plain.method
    assert [e.valid_loss for e in run.history] == pytest.approx([e.valid_loss for e in plain.history], abs=1e-6)


def test_statistics_are_not_averaged(parts: Any) -> None:
    pairs: list[tuple[Tensor, Tensor]] = []
    fit(
        parts,
        Noting,
        average=0.99,
        after=lambda run: pairs.append((run.judged.norm.running_mean.clone(), run.method.norm.running_mean.clone())),
    )
    assert pairs and all(torch.equal(mean, own) for mean, own in pairs)
    assert not torch.equal(pairs[0][0], pairs[-1][0])


@pytest.mark.parametrize("stop", [1, 3])
def test_a_run_with_a_mean_resumes_with_the_same_bits(parts: Any, stop: int) -> None:
    states: list[Any] = []

    def keep(run: Run) -> None:
        if len(run.history) == stop:
            states.append(copy.deepcopy(run.state()))

    whole = fit(parts, average=0.9, after=keep)
    resumed = fit(parts, average=0.9, resume=states[0])
    assert whole.history == resumed.history
    assert all(torch.equal(a, b) for a, b in zip(whole.method.parameters(), resumed.method.parameters(), strict=True))


# ---- optimisers


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (torch.optim.Adam, {"weight_decay": 0.01, "fused": True}),
        (torch.optim.AdamW, {"weight_decay": 0.01}),
        (torch.optim.Adamax, {}),
        (torch.optim.SGD, {"momentum": 0.9}),
    ],
)
def test_an_optimiser_without_wrappers_steps_as_pytorchs_own(kind: Any, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    ours, theirs = (nn.Linear(4, 3) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    optimisers = [make([*model.parameters()], lr=0.1, **options) for make, model in ((eager(kind), ours), (kind, theirs))]
    for step in range(6):
        x = torch.randn(8, 4)
        for model, optimiser in zip((ours, theirs), optimisers, strict=True):
            optimiser.zero_grad(set_to_none=True)
            assert all(parameter.grad is None for parameter in model.parameters())
            model(x).square().mean().backward()
            optimiser.step()
            assert torch.is_grad_enabled()
        if step == 2:
            optimisers[0].load_state_dict(copy.deepcopy(optimisers[0].state_dict()))
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b) and a.grad is not None
    mine, other = (optimiser.state_dict() for optimiser in optimisers)
    assert mine["param_groups"] == other["param_groups"] and mine["state"].keys() == other["state"].keys()


@pytest.mark.parametrize(("name", "kind"), [("adam", "Adam"), ("adamw", "AdamW"), ("adamax", "Adamax"), ("sgd", "SGD")])
def test_the_optimiser_that_is_named_has_the_settings_that_are_stated(name: Any, kind: str) -> None:
    settings = Training(optimiser=name, learning_rate=0.3, weight_decay=0.02, momentum=0.7)
    made = make_optimiser(build(methods["toy"], INPUTS, TASK, methods["toy"].Config(training=settings), 1), settings)
    assert isinstance(made, getattr(torch.optim, kind)) and type(made).__name__ == kind
    for group in made.param_groups:
        assert (group["lr"], group["weight_decay"]) == (0.3, 0.02) and group.get("momentum", 0.7) == 0.7
        assert group.get("fused", True) or name in ("sgd", "adamax")


TRAINS = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from kit import job, stored, trial
from harness.experiments.worker import run_trial
place = Path(sys.argv[2])
run_trial(job(trial(stored(place)), place, place), lambda event: None)
print(*sorted(name for name in sys.modules if name in ("torch._dynamo", "sklearn", "matplotlib", "mlflow", "optuna", "transformers")))
"""


def test_a_trial_loads_neither_a_compiler_nor_a_drawing_library(tmp_path: Any) -> None:
    """Each of them costs every worker tens of megabytes; checkpoints are written here after every epoch."""
    out = subprocess.run([sys.executable, "-c", TRAINS, str(TOY.parent), str(tmp_path)], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == ""


# ---- compiling


@pytest.mark.parametrize("settings", [{}, {"compile": True}, {"device": "cuda"}])
def test_graphs_are_refused_without_what_they_need(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="needs compile = true and a GPU"):
        Training(cuda_graphs=True, **settings)
    assert Training(cuda_graphs=True, compile=True, device="cuda").cuda_graphs


def test_settings_that_do_not_go_together_are_named_without_all_others() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_config(methods["toy"], "tiny", BUDGETS["quick"], "cpu", {"training.cuda_graphs": True})
    assert "training: cuda_graphs = true needs compile = true and a GPU" in str(caught.value) and "batch_size" not in str(caught.value)
    with pytest.raises(ConfigError, match="training.average = 1.5: Input should be less than 1"):
        resolve_config(methods["toy"], "tiny", BUDGETS["quick"], "cpu", {"training.average": 1.5})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
def test_graphs_learn_the_same(parts: Any) -> None:
    plain, graphs = (fit(parts, compile=True, device="cuda", cuda_graphs=graphs) for graphs in (False, True))
    assert graphs.history[-1].valid_loss == pytest.approx(plain.history[-1].valid_loss, rel=1e-3)


@pytest.mark.parametrize("graphs", [False, True])
def test_what_is_compiled_is_told_whether_to_use_graphs(monkeypatch: pytest.MonkeyPatch, graphs: bool) -> None:
    from harness.training import loop

    modes: list[str] = []
    monkeypatch.setattr(torch, "compile", lambda method, mode: modes.append(mode) or method)
    method = build(methods["toy"], INPUTS, TASK, methods["toy"].Config(), 1)
    assert loop._compiled(method, Training(compile=True, device="cuda", cuda_graphs=graphs)) is method
    assert loop._compiled(method, Training()) is method
    assert modes == ["reduce-overhead" if graphs else "default"]
