"""docs/layers.md: its example runs as it stands, and its table names every file of layers."""

from __future__ import annotations

import re
from pathlib import Path

import harness.nn

TEXT = (Path(__file__).parents[1] / "docs" / "layers.md").read_text(encoding="utf-8")
# What other layers are made of, and networks of single methods.
INNER = {"subnets.py", "utterances.py"}


def test_the_example_runs_as_it_stands() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    values: dict[str, object] = {}
    exec(compile(code, "docs/layers.md", "exec"), values)
    shapes = {name: tuple(values[name].shape) for name in "yzh"}  # type: ignore[attr-defined]
    assert shapes == {"y": (8, 30, 32), "z": (8, 32, 30), "h": (8, 24)}


def test_every_file_of_layers_is_named() -> None:
    files = {path.name for path in Path(harness.nn.__path__[0]).glob("*.py")} - {"__init__.py"}
    assert set(re.findall(r"`(\w+\.py)`", TEXT)) == files - INNER
