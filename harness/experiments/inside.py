"""What a trained model holds inside. Records keep predictions, not weights: the trial is trained again, to the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from harness.data.batches import in_order
from harness.data.schema import Dataset, Split
from harness.experiments.events import Finished, Listener
from harness.experiments.worker import Job, Session, opened
from harness.nn.kan import KANConv1d, KANConv2d, KANLinear
from harness.training import loop, missing
from harness.training.contract import Method, MethodConfig, methods

POINTS, EDGES = 101, 16  # of a learned function; functions shown per layer


@dataclass(frozen=True)
class Inside:
    """``representations``: the test clips' vectors by name, (N, D). ``maps``: adjacency matrices by name, (n, n) or (n, n, n, n).

    ``splines``: by layer, inputs (P,) and the learned functions of its edges with the largest weights, edge -> (P,).
    """

    representations: dict[str, NDArray[np.float64]]
    maps: dict[str, NDArray[np.float64]]
    splines: dict[str, tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]]


@dataclass(frozen=True)
class Look(Job):
    """A trial that is run to look at its model; ``found`` has one entry afterwards."""

    found: list[Inside] = field(default_factory=list)

    def run(self, report: Listener) -> Finished:
        session = _Looking(self, report)
        finished = session.finish()
        self.found.append(session.inside())
        return finished


@dataclass
class _Looking(Session):
    """A session that keeps its method."""

    method: Method | None = None

    def _train(self, method: Method, train: Split, valid: Split, dataset: Dataset, config: MethodConfig) -> loop.Run:
        self.method = method
        return super()._train(method, train, valid, dataset, config)

    def inside(self) -> Inside:
        assert self.method is not None
        config = methods[self.identity.method].Config.model_validate(self.identity.config)
        _, _, test = self._splits(opened(self.identity.dataset, self.job.data_root), config)
        seen = missing.at_rate(missing.weighted(test, config.input_weights), config.missing.rate, self.identity.seed)
        return Inside(representations(self.method, seen, config), maps(self.method, self.identity.modalities), dict(splines(self.method)))


def representations(method: Method, split: Split, config: MethodConfig) -> dict[str, NDArray[np.float64]]:
    """``Output.representations`` of all clips of ``split``, in its order: name -> (N, D)."""
    found: dict[str, NDArray[np.float64]] = {}
    method.eval()
    for batch in in_order(split.without_labels(), config.training.batch_size):
        with torch.inference_mode():
            output = method(batch.to(torch.device(config.training.device)))
        for name, values in output.representations.items():
            flat = values.flatten(1).double().cpu().numpy()
            found.setdefault(name, np.empty((len(split), flat.shape[1])))[batch.position.cpu().numpy()] = flat
    return found


def maps(method: Method, modalities: tuple[str, ...]) -> dict[str, NDArray[np.float64]]:
    """A method's adjacency matrices, layer by layer, where it has a function ``adjacency(modality)`` (as AMCM)."""
    found: dict[str, NDArray[np.float64]] = {}
    read = getattr(method, "adjacency", None)
    if read is None:
        return found
    for modality in modalities:
        try:
            layers = read(modality)
        except KeyError:  # this modality is read in another way
            continue
        for kind, matrices in layers.items():
            found |= {f"{kind}, layer {number}": matrix.double().numpy() for number, matrix in enumerate(matrices, start=1)}
    return found


def splines(method: Method) -> Iterator[tuple[str, tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]]]:
    """Every KAN layer's functions over its grid: spline and base together, of the edges with the largest coefficients."""
    for name, layer in method.named_modules():
        if not isinstance(layer, KANLinear | KANConv1d | KANConv2d):
            continue
        weight = layer.weight().detach().cpu().double()  # (out, count + 1, in, places of the kernel)
        x = torch.linspace(layer.spline.low, layer.spline.high, POINTS, dtype=torch.float64)
        bases = torch.cat([layer.spline.values(x), torch.nn.functional.silu(x)[None]])
        edges = weight.reshape(*weight.shape[:2], -1).movedim(1, -1).flatten(0, 1)  # (edges, count + 1)
        chosen = edges[:, :-1].norm(dim=1).argsort(descending=True, stable=True)[:EDGES]
        yield name, (x.numpy(), {f"edge {int(edge)}": (edges[edge] @ bases).numpy() for edge in chosen})
