"""What a registered method is, found by building it: its kind, the modalities it cannot do without, its size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from harness.data.schema import MODALITIES, Task
from harness.errors import ConfigError
from harness.training.contract import Inputs, Method, MethodConfig

WIDTHS = {"text": 768, "audio": 5, "vision": 20}  # CMU-MOSI as the field has it: BERT, selected COVAREP and FACET features
DATASET = "mosi"
TASKS = (Task(kind="regression", low=-3, high=3), Task(kind="classification", classes=tuple("abcdefgh")))
KINDS = {"baselines": "baseline", "methods": "proposed"}  # by package; anything else is the user's own


@dataclass(frozen=True)
class Description:
    """``parameters``: trainable, at the preset for MOSI with 768/5/20 inputs, of as many modalities as the method takes; of a method
    for classes, with eight of them.

    ``needs``: the smallest sets of modalities that it can be built for. Both are empty where it cannot be built: ``problem``
    says why.
    """

    name: str
    kind: str
    needs: tuple[tuple[str, ...], ...]
    parameters: int | None
    reference: str
    summary: str
    problem: str = ""

    @property
    def modalities(self) -> str:
        """In words: any, or the smallest sets that will do."""
        if len(self.needs) == len(MODALITIES) and all(len(subset) == 1 for subset in self.needs):
            return "any"
        return " or ".join("+".join(subset) for subset in self.needs) or "unknown"


def describe(name: str, method: type[Method]) -> Description:
    """The description of ``method``, registered under ``name``. Nothing is trained."""
    sizes, problem = _sizes(method, TASKS[0])
    if not sizes and not problem:
        sizes, problem = _sizes(method, TASKS[1])
    return Description(
        name=name,
        kind=KINDS.get(method.__module__.partition(".")[0], "own"),
        needs=tuple(subset for subset in sizes if not any(set(other) < set(subset) for other in sizes)),
        parameters=None if problem or not sizes else list(sizes.values())[-1],
        reference=method.reference,
        summary=(method.__doc__ or "").strip().partition("\n")[0],
        problem=problem,
    )


def _sizes(method: type[Method], task: Task) -> tuple[dict[tuple[str, ...], int], str]:
    """Trainable parameters by set of modalities, of the sets that will do, and why it could not go on."""
    sizes: dict[tuple[str, ...], int] = {}
    for subset in (subset for size in (1, 2, 3) for subset in combinations(MODALITIES, size)):
        if len(subset) < len(MODALITIES) and any(set(known) < set(subset) for known in sizes):
            continue  # more than a set that will do; the full set is built for its size
        try:
            sizes[subset] = _size(method, task, subset)
        except ConfigError:
            continue
        except Exception as error:  # a user's method may fail in any way
            return sizes, f"{type(error).__name__}: {error}"
    return sizes, ""


def _size(method: type[Method], task: Task, modalities: Sequence[str]) -> int:
    """Trainable parameters."""
    config: MethodConfig = method.Config.model_validate(dict(method.presets.get(DATASET, {})))
    with _Unfilled():
        built = method(Inputs({name: WIDTHS[name] for name in modalities}), task, config)
    return sum(parameter.numel() for parameter in built.parameters() if parameter.requires_grad)


class _Unfilled(TorchFunctionMode):
    """Leaves tensors as they are where random numbers would fill them: drawing is nearly all that building costs."""

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        if func in (torch.Tensor.uniform_, torch.Tensor.normal_) or getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else named["tensor"]
        return func(*args, **named)
