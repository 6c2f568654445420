"""What `harness list methods` says of a method, against the method built in the ordinary way."""

from __future__ import annotations

from typing import Any

import pytest
from helpers import CLASSIFIERS, NAMES
from kit import TOY, call
from torch import nn

from harness.analysis.inventory import TASKS, WIDTHS, describe
from harness.commands import index
from harness.errors import ConfigError
from harness.experiments.plugins import load_file
from harness.training import Inputs, Method, MethodConfig, methods


class Picky(Method):
    """Needs sound, and one thing more."""

    reference = "none"

    def __init__(self, inputs: Inputs, task: Any, config: MethodConfig) -> None:
        super().__init__(inputs, task, config)
        for name in ("audio",):
            if name not in inputs.dims:
                raise ConfigError(f"picky needs {name}", "Add it.")
        if len(inputs.dims) < 2:
            raise ConfigError("picky needs text or vision beside audio", "Add one.")
        self.linear = nn.Linear(sum(inputs.dims.values()), 1)


class Faulty(Method):
    def __init__(self, inputs: Inputs, task: Any, config: MethodConfig) -> None:
        raise RuntimeError("a fault")


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_those_of_the_built_method(name: str) -> None:
    method = methods[name]
    described = describe(name, method)
    built = method(Inputs(WIDTHS), TASKS[name in CLASSIFIERS], method.Config.model_validate(dict(method.presets.get("mosi", {}))))
    assert described.parameters == sum(p.numel() for p in built.parameters() if p.requires_grad)
    assert described.kind in ("baseline", "proposed") and described.reference and described.modalities


def test_needs_are_found_by_trying() -> None:
    described = describe("picky", Picky)
    assert described.needs == (("text", "audio"), ("audio", "vision")) and described.modalities == "text+audio or audio+vision"
    assert (
        described.parameters == sum(WIDTHS.values()) + 1
        and described.kind == "own"
        and described.summary == "Needs sound, and one thing more."
    )


def test_a_faulty_method_spoils_only_its_own_line() -> None:
    described = describe("faulty", Faulty)
    assert described.parameters is None and described.modalities == "unknown" and "a fault" in described.problem


def test_the_list_shows_kind_modalities_size_and_reference(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "entries", lambda what: None)  # a method that came with no file of the project
    load_file(TOY)
    code, out, _ = call(capsys, "list", "methods")
    (line,) = [line for line in out.splitlines() if line.startswith("tfn ")]
    assert code == 0 and all(word in line for word in ("baseline", "any", "9,497,043", "Zadeh et al. 2017"))
    assert any(line.startswith("toy ") and " own " in line for line in out.splitlines())
    code, out, _ = call(capsys, "list", "methods", "--verbose")
    assert code == 0 and "--set missing.rate=0.0" in out and "presets: mosi, mosei" in out
