"""What a method costs: parameters, FLOPs of a forward pass and of a training step, size of its weights.

FLOPs and parameters are exact and belong to the method (``flops.py``). Times belong to a machine (``latency.py``).
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from harness import seeds
from harness.analysis.flops import Count, count
from harness.data.batches import Batch
from harness.data.schema import Task
from harness.training.contract import Method, MethodConfig
from harness.training.objectives import task_objective

TEXT_ENCODER = "text_encoder"  # a child module of this name is counted apart: a pretrained encoder dwarfs the rest


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters; a shared tensor counts once. ``unused``: trainable tensors without a gradient after a training step."""

    total: int
    trainable: int
    unused: Mapping[str, int]

    @property
    def never_used(self) -> int:
        """Trainable parameters that no training step changes."""
        return sum(self.unused.values())


@dataclass(frozen=True)
class Complexity:
    """What a method costs on clips of ``lengths`` frames.

    ``forward``: evaluation of one clip. ``step``: forward and backward pass of a training batch of ``batch`` clips, without the
    optimiser; None where nothing is trained. ``by_child``: parameters by child module. ``weights_bytes``: the saved state.
    """

    lengths: Mapping[str, int]
    parameters: Parameters
    by_child: Mapping[str, int]
    forward: Count
    step: Count | None
    batch: int
    weights_bytes: int

    @property
    def has_text_encoder(self) -> bool:
        return TEXT_ENCODER in self.by_child

    def without_text_encoder(self) -> tuple[int, int]:
        """Parameters, and FLOPs of the forward pass, without the child ``TEXT_ENCODER``."""
        encoder = self.forward.by_module.get(TEXT_ENCODER, 0)
        return self.parameters.total - self.by_child.get(TEXT_ENCODER, 0), self.forward.flops - encoder


def synthetic_batch(dims: Mapping[str, int], lengths: Mapping[str, int], size: int, task: Task) -> Batch:
    """``size`` clips of normal frames, every clip ``lengths[m]`` frames long in modality m, with labels 0."""
    rng = torch.Generator().manual_seed(seeds.derive(0, "synthetic batch"))
    dtype = torch.int64 if task.kind == "classification" else torch.float32
    return Batch(
        features={name: torch.randn(size, lengths[name], dim, generator=rng) for name, dim in dims.items()},
        lengths={name: torch.full((size,), lengths[name]) for name in dims},
        labels=torch.zeros(size, dtype=dtype),
        position=torch.arange(size),
    )


def measure(method: Method, task: Task, config: MethodConfig, dims: Mapping[str, int], lengths: Mapping[str, int]) -> Complexity:
    """The complexity of a built and fitted method; see ``Complexity``. Raises Uncounted (``flops.py``)."""
    batch = config.training.batch_size
    step, unused = training_step(method, task, config, synthetic_batch(dims, lengths, batch, task))
    return Complexity(
        lengths=dict(lengths),
        parameters=Parameters(_size(method.parameters()), _size(p for p in method.parameters() if p.requires_grad), unused),
        by_child={name: _size(child.parameters()) for name, child in method.named_children()},
        forward=forward(method, synthetic_batch(dims, lengths, 1, task)),
        step=step,
        batch=batch,
        weights_bytes=weights_bytes(method),
    )


def forward(method: nn.Module, batch: Batch) -> Count:
    """FLOPs of an evaluation of ``batch``."""

    def call(module: nn.Module, device: torch.device) -> None:
        module.eval().requires_grad_(False)  # a copy; the counter trips over views of parameters that want a gradient
        with torch.no_grad():
            module(batch.to(device))

    return count(method, call)


def training_step(method: Method, task: Task, config: MethodConfig, batch: Batch) -> tuple[Count | None, dict[str, int]]:
    """FLOPs of a forward and a backward pass on ``batch``, and the trainable tensors (name -> size) that got no gradient.

    The loss is the task's plus the method's auxiliary ones, as in training; their weights change no FLOPs.
    """
    names = {name: parameter.numel() for name, parameter in method.named_parameters() if parameter.requires_grad}
    if not names:
        return None, {}
    objective, reached = task_objective(config, task), set[str]()

    def call(module: nn.Module, device: torch.device) -> None:
        module.train()
        moved = batch.to(device)
        output = module(moved)
        assert moved.labels is not None
        loss: Tensor = sum(output.losses.values(), objective(output.prediction.float(), moved.labels))
        loss.backward()  # type: ignore[no-untyped-call]
        reached.update(name for name, parameter in module.named_parameters(remove_duplicate=False) if parameter.grad is not None)

    counted = replace(count(method, call), by_module={})  # a backward pass has no reliable place in the tree of modules
    shared = _shared(method)
    return counted, {name: size for name, size in names.items() if not reached & shared[name]}


def _shared(method: nn.Module) -> dict[str, set[str]]:
    """Name of a parameter -> all names of the same tensor: copies to another device lose the sharing."""
    by_tensor: dict[int, set[str]] = {}
    for name, parameter in method.named_parameters(remove_duplicate=False):
        by_tensor.setdefault(id(parameter), set()).add(name)
    return {name: names for names in by_tensor.values() for name in names}


def weights_bytes(method: nn.Module) -> int:
    """Size of the saved state (parameters and buffers, without the optimiser)."""
    buffer = io.BytesIO()
    torch.save(method.state_dict(), buffer)
    return buffer.getbuffer().nbytes


def _size(parameters: object) -> int:
    return sum(parameter.numel() for parameter in parameters)  # type: ignore[attr-defined]
