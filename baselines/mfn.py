"""MFN: the memory fusion network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field, PositiveInt

from harness.nn.memory import Hidden, MemoryFusion, TwoLayers, align
from harness.training import Batch, Inputs, Method, MethodConfig, Output, Task, Training, register_method
from harness.training.by_modality import ByModality
from harness.training.ranges import each, tunable


@register_method("mfn")
class MFN(Method):
    """One LSTM per modality; attention over how their cells change feeds a gated memory (Zadeh et al. 2018).

    System of LSTMs, delta-memory attention and multi-view gated memory are the paper's; the output reads the LSTMs'
    last hidden states and the memory. Parameters at ``mosi`` with 768/5/20: 2,172,657.

    Left open, and how it is read:

    * The memory's gates read the attended cells and the memory, as in the authors' code.
    * The paper's data are word-aligned. Here audio and vision are averaged over each word's share of the clip's time;
      without text, the longest modality sets the steps.
    * The presets are MMSA's. The authors' search left two trained models, one for each of the numbers that the paper
      prints; their batch sizes and learning rates are not known.

    Faults of the peers that are not reproduced: audio and vision vary in time (MMSA feeds this model their mean over
    padded time, repeated at every step); states are read at a clip's last real step, not at the end of the padding;
    every epoch has an order of its own and its last batch (the authors shuffle once and drop the incomplete batch);
    nothing is chosen on test scores.

    Representations: each modality's last hidden state and ``memory``.
    """

    class Config(MethodConfig):
        hidden: ByModality[PositiveInt] = Field(
            ByModality[PositiveInt](text=256, audio=32, vision=256),
            description="width of each modality's LSTM",
            json_schema_extra=tunable(16, 256, log=True),
        )
        memory: PositiveInt = Field(400, description="width of the memory", json_schema_extra=tunable(64, 512, log=True))
        attention: Hidden = Field(
            Hidden(32, 0.2),
            description="hidden layer of the attention over cells (published as NN1)",
            json_schema_extra=each(width=tunable(16, 256, log=True), dropout=tunable(0.0, 0.7)),
        )
        candidate: Hidden = Field(
            Hidden(64, 0.0),
            description="hidden layer of what may be written (NN2)",
            json_schema_extra=each(width=tunable(16, 256, log=True), dropout=tunable(0.0, 0.7)),
        )
        keep: Hidden = Field(
            Hidden(256, 0.7),
            description="hidden layer of the gate on the memory (gamma 1)",
            json_schema_extra=each(width=tunable(16, 256, log=True), dropout=tunable(0.0, 0.7)),
        )
        write: Hidden = Field(
            Hidden(32, 0.5),
            description="hidden layer of the gate on what is written (gamma 2)",
            json_schema_extra=each(width=tunable(16, 256, log=True), dropout=tunable(0.0, 0.7)),
        )
        output: Hidden = Field(
            Hidden(128, 0.0),
            description="hidden layer before the output",
            json_schema_extra=each(width=tunable(16, 256, log=True), dropout=tunable(0.0, 0.7)),
        )
        training: Training = Training(batch_size=128, learning_rate=2e-3)

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "mosi": {},
        "mosei": {
            "hidden": {"text": 128, "audio": 32, "vision": 128},
            "memory": 128,
            "attention": {"width": 128, "dropout": 0.2},
            "candidate": {"width": 128, "dropout": 0.5},
            "keep": {"width": 256, "dropout": 0.7},
            "write": {"width": 256, "dropout": 0.0},
            "output": {"width": 128, "dropout": 0.5},
            "training": {"batch_size": 64, "learning_rate": 5e-4, "weight_decay": 1e-4},
        },
    }
    reference = "Zadeh et al. 2018, Memory Fusion Network for Multi-view Sequential Learning, AAAI"

    def __init__(self, inputs: Inputs, task: Task, config: Config) -> None:
        super().__init__(inputs, task, config)
        self.task = task
        self.fuse = MemoryFusion(
            inputs.dims,
            config.hidden.model_dump(),
            config.memory,
            attention=config.attention,
            candidate=config.candidate,
            keep=config.keep,
            write=config.write,
        )
        self.out = TwoLayers(self.fuse.width, config.output, task.outputs)

    def forward(self, batch: Batch) -> Output:
        states = self.fuse(*align(batch.features, batch.lengths))
        y = self.out(torch.cat(list(states.values()), dim=1))
        return Output(y.squeeze(1) if self.task.kind == "regression" else y, representations=states)
