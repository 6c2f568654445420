"""Graph-MFN: the memory fusion network with a dynamic fusion graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any, ClassVar

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from harness.nn.lstm import order
from harness.nn.memory import CellLSTM, GatedMemory, Hidden, TwoLayers, align, with_previous
from harness.training import Batch, Inputs, Method, MethodConfig, Output, Task, Training, register_method
from harness.training.by_modality import ByModality
from harness.training.ranges import each, tunable

INNER = 100  # first layer of every network in the graph: fixed in the published code


class FusionGraph(nn.Module):
    """Dynamic fusion graph: a vertex per non-empty set of modalities, fed by the vertices of all its proper subsets.

    A modality's vertex is its own state. A larger set's vertex is a network of the vertices below it, each weighed by
    the efficacy of that edge; one more network reads all vertices in the same way. The efficacies are a network of all
    states. No network in the graph has an activation (Zadeh et al. 2018 as published by the authors).
    """

    def __init__(self, widths: Mapping[str, int], inner: int, sigmoid: bool) -> None:
        super().__init__()
        self.sigmoid = sigmoid
        modalities = tuple(widths)
        self.vertices = [subset for size in range(1, len(widths) + 1) for subset in combinations(modalities, size)]
        size = {vertex: widths[vertex[0]] if len(vertex) == 1 else inner for vertex in self.vertices}
        self.below = {vertex: [v for v in self.vertices if set(v) < set(vertex)] for vertex in self.vertices if len(vertex) > 1}
        edges = len(self.vertices) + sum(map(len, self.below.values()))
        self.efficacy = nn.Sequential(nn.Linear(sum(widths.values()), INNER), nn.Linear(INNER, inner), nn.Linear(inner, edges))
        networks = {"_".join(vertex): _linear_pair(sum(size[v] for v in seen), inner) for vertex, seen in self.below.items()}
        self.nodes = nn.ModuleDict(networks)
        self.out = _linear_pair(sum(size.values()), inner)

    def freeze_nodes(self) -> None:
        """As published: the larger sets' networks start with equal last layers and are never trained."""
        last: list[nn.Linear] = [node[1] for node in self.nodes.values()]  # type: ignore[index]
        for layer in last:
            layer.load_state_dict(last[0].state_dict())
        self.nodes.requires_grad_(False)

    def forward(self, states: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """States (..., width) by modality -> the graph's output (..., inner) and the efficacies (..., edges).

        Edges are in the order of the vertices they enter, the output last, and of the vertices they leave.
        """
        efficacies = self.efficacy(torch.cat(list(states.values()), dim=-1))
        if self.sigmoid:
            efficacies = efficacies.sigmoid()
        edge = iter(efficacies.split(1, dim=-1))
        value: dict[tuple[str, ...], Tensor] = {(name,): x for name, x in states.items()}
        for vertex, seen in self.below.items():
            value[vertex] = self.nodes["_".join(vertex)](_weighed([value[v] for v in seen], edge))
        return self.out(_weighed([value[v] for v in self.vertices], edge)), efficacies


def _weighed(values: list[Tensor], efficacies: Iterator[Tensor]) -> Tensor:
    return torch.cat([next(efficacies) * x for x in values], dim=-1)


def _linear_pair(width: int, inner: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, INNER), nn.Linear(INNER, inner))


@register_method("graph_mfn")
class GraphMFN(Method):
    """MFN whose attention over cells is replaced by a graph of all sets of modalities (Zadeh et al. 2018).

    Each modality's state in the graph is a layer of its LSTM's hidden states at two successive steps; the graph's output
    feeds MFN's gated memory. Parameters at ``mosi`` with 768/5/20: 2,319,280, of which the peers register and train
    2,110,624 (see ``train_nodes``).

    Left open or said in two ways, and how it is read:

    * Efficacies are used as they come, as in the authors' code; ``sigmoid_efficacies`` squeezes them into (0, 1).
    * The gates of the memory read the graph's output and the memory, as in MFN's code.
    * The paper's data are word-aligned. Here audio and vision are averaged over each word's share of the clip's time;
      without text, the longest modality sets the steps.
    * With two modalities the graph has one larger set, with one it has none; the formulas are the same.

    The presets are MMSA's. Faults of the peers that are not reproduced: the networks of the four larger sets are trained
    (in the authors' code and in MMSA's they are missing from the optimiser and from the checkpoint, so a model that is
    loaded elsewhere computes something else); ``train_nodes = false`` leaves them as they start, but stores them. States
    are read at a clip's last real step, not at the end of the padding.

    Representations: each modality's last hidden state, ``memory``, and ``efficacies`` (B, edges) at the last step.
    """

    class Config(MethodConfig):
        hidden: ByModality[PositiveInt] = Field(
            ByModality[PositiveInt](text=256, audio=32, vision=256),
            description="width of each modality's LSTM",
            json_schema_extra=tunable(16, 256, log=True),
        )
        memory: PositiveInt = Field(300, description="width of the memory", json_schema_extra=tunable(64, 512, log=True))
        inner: PositiveInt = Field(
            64, description="width of the graph's larger sets and of its output", json_schema_extra=tunable(16, 128, log=True)
        )
        train_nodes: bool = Field(True, description="train the networks of the graph's larger sets; false: as published")
        sigmoid_efficacies: bool = Field(False, description="efficacies between 0 and 1; false: as published")
        candidate: Hidden = Field(
            Hidden(32, 0.0),
            description="hidden layer of what may be written (published as NN)",
            json_schema_extra=each(width=tunable(16, 256, log=True), dropout=tunable(0.0, 0.7)),
        )
        keep: Hidden = Field(
            Hidden(128, 0.5),
            description="hidden layer of the gate on the memory (gamma 1)",
            json_schema_extra=each(width=tunable(16, 256, log=True), dropout=tunable(0.0, 0.7)),
        )
        write: Hidden = Field(
            Hidden(64, 0.5),
            description="hidden layer of the gate on what is written (gamma 2)",
            json_schema_extra=each(width=tunable(16, 256, log=True), dropout=tunable(0.0, 0.7)),
        )
        output: Hidden = Field(
            Hidden(256, 0.0),
            description="hidden layer before the output",
            json_schema_extra=each(width=tunable(16, 256, log=True), dropout=tunable(0.0, 0.7)),
        )
        training: Training = Training(batch_size=32, learning_rate=2e-3, weight_decay=0.005)

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "mosi": {},
        "mosei": {
            "hidden": {"text": 64, "audio": 16, "vision": 64},
            "inner": 128,
            "candidate": {"width": 32, "dropout": 0.5},
            "keep": {"width": 64, "dropout": 0.0},
            "write": {"width": 256, "dropout": 0.7},
            "output": {"width": 128, "dropout": 0.7},
            "training": {"batch_size": 64, "learning_rate": 2e-3, "weight_decay": 0.001},
        },
    }
    reference = "Zadeh et al. 2018, Multimodal Language Analysis in the Wild: CMU-MOSEI and Interpretable Dynamic Fusion Graph, ACL"

    def __init__(self, inputs: Inputs, task: Task, config: Config) -> None:
        super().__init__(inputs, task, config)
        self.task = task
        widths = {name: config.hidden[name] for name in inputs.dims}
        self.views = nn.ModuleDict({name: CellLSTM(dim, widths[name]) for name, dim in inputs.dims.items()})
        self.state = nn.ModuleDict({name: nn.Linear(2 * width, width) for name, width in widths.items()})
        self.graph = FusionGraph(widths, config.inner, config.sigmoid_efficacies)
        if not config.train_nodes:
            self.graph.freeze_nodes()
        self.memory = GatedMemory(config.inner, config.memory, config.candidate, config.keep, config.write)
        self.out = TwoLayers(sum(widths.values()) + config.memory, config.output, task.outputs)

    def forward(self, batch: Batch) -> Output:
        features, lengths = align(batch.features, batch.lengths)
        rows = order(lengths, next(iter(features.values())).shape[1])
        hidden = {name: view(rows.pack(features[name]), rows)[0] for name, view in self.views.items()}
        seen, efficacies = self.graph({name: layer(with_previous(hidden[name], rows)).relu() for name, layer in self.state.items()})
        states = {name: rows.ends(x) for name, x in (hidden | {"memory": self.memory(seen, rows)}).items()}
        y = self.out(torch.cat(list(states.values()), dim=1))
        named = states | {"efficacies": rows.ends(efficacies)}
        return Output(y.squeeze(1) if self.task.kind == "regression" else y, representations=named)
