"""Self-MM: self-supervised multi-task learning with generated unimodal labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from harness.nn.dropout import Dropout
from harness.nn.subnets import TextSubNet
from harness.training import Batch, Inputs, LossWeights, Method, MethodConfig, Output, Split, Task, Training, register_method
from harness.training.by_modality import ByModality, Rate
from harness.training.objectives import task_objective
from harness.training.ranges import tunable

EPSILON = 1e-8
FUSED = "fused"


class Weights(LossWeights):
    """Weight of Self-MM's auxiliary loss."""

    unimodal: float = Field(1.0, ge=0, description="losses on the generated labels, summed over modalities")


class Branch(nn.Module):
    """x (B, width) -> prediction (B, outputs) and vector ReLU(W1 Drop(x)), (B, hidden)."""

    def __init__(self, width: int, hidden: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.inward = nn.Sequential(Dropout(dropout), nn.Linear(width, hidden), nn.ReLU())
        self.out = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        vector = self.inward(x)
        return self.out(vector), vector


class UnimodalLabels(nn.Module):
    """One label per training clip and modality, generated while training (Yu et al. 2021, unimodal label generation).

    All state is in buffers, sized by ``start``: what a resumed run loads is what the stopped one had. ``epochs`` counts
    a clip's training passes, ``label`` is its own label, ``target_<m>`` the generated one, ``vector_<m>`` its last
    vector of modality m or of the fusion.
    """

    epochs: Tensor
    label: Tensor

    def __init__(self, widths: Mapping[str, int], low: float, high: float) -> None:
        super().__init__()
        self.widths, self.low, self.high = dict(widths), low, high
        self.modalities = [name for name in widths if name != FUSED]
        self.start(torch.zeros(0))

    def start(self, labels: Tensor) -> None:
        """Forget everything; every generated label begins as its clip's own, ``labels`` (N,)."""
        self.register_buffer("epochs", torch.zeros_like(labels, dtype=torch.int64))
        self.register_buffer("label", labels.clone())
        for name in self.modalities:
            self.register_buffer(f"target_{name}", labels.clone())
        for name, width in self.widths.items():
            self.register_buffer(f"vector_{name}", labels.new_zeros(len(labels), width))

    def target(self, modality: str) -> Tensor:
        """The labels of one modality, (N,)."""
        return self.get_buffer(f"target_{modality}")

    @torch.no_grad()
    def update(self, position: Tensor, vectors: Mapping[str, Tensor]) -> None:
        """Generate labels of the clips at ``position`` (B,) from the old centres, then store their ``vectors`` (B, width).

        In a clip's first epoch the memory is still filling, and its labels stay.
        """
        epoch = self.epochs[position] + 1
        apart, known = self._distance(FUSED, self.label, vectors)
        for name in self.modalities:
            target = self.target(name)
            apart_here, known_here = self._distance(name, target, vectors)
            new = shifted(self.label[position], apart_here, apart, self.low, self.high)
            moved = momentum(target[position], new, epoch)
            target[position] = torch.where(known & known_here & (epoch > 1), moved, target[position])
        for name in self.widths:
            memory = self.get_buffer(f"vector_{name}")
            memory[position] = vectors[name].to(memory.dtype)
        self.epochs[position] = epoch

    def _distance(self, name: str, labels: Tensor, vectors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Relative distance of each vector of the batch, (B,), and whether clips of both signs give it a meaning, ()."""
        memory = self.get_buffer(f"vector_{name}")
        positive, negative = labels > 0, labels < 0
        distance = relative_distance(vectors[name].to(memory.dtype), centre(memory, positive), centre(memory, negative))
        return distance, positive.any() & negative.any()


def centre(vectors: Tensor, member: Tensor) -> Tensor:
    """Mean of the vectors (N, D) where ``member`` (N,) is true, (D,); zeros where none is."""
    chosen = member.to(vectors.dtype)
    total: Tensor = chosen @ vectors
    return total / chosen.sum().clamp(min=1)


def relative_distance(vectors: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """(||x - c-|| - ||x - c+||) / ||x - c+|| for x (B, D) and centres (D,): large near the positive centre."""
    to_positive: Tensor = torch.linalg.vector_norm(vectors - positive, dim=1)
    to_negative: Tensor = torch.linalg.vector_norm(vectors - negative, dim=1)
    return (to_negative - to_positive) / (to_positive + EPSILON)


def shifted(label: Tensor, apart: Tensor, apart_fused: Tensor, low: float, high: float) -> Tensor:
    """A clip's unimodal label from its own and both relative distances, all (B,): the mean of ratio and shift.

    The ratio has no limit as ``apart_fused`` goes to 0; the result is kept in [low, high].
    """
    ratio = apart / (apart_fused + EPSILON)
    return (0.5 * ratio * label + 0.5 * (label + apart - apart_fused)).clamp(low, high)


def momentum(old: Tensor, new: Tensor, epoch: Tensor) -> Tensor:
    """(n - 1) / (n + 1) old + 2 / (n + 1) new in epoch n: the mean of all labels so far, the n-th weighing n."""
    share = 2 / (epoch + 1).to(new.dtype)
    return (1 - share) * old + share * new


@register_method("self_mm")
class SelfMM(Method):
    """One head per modality, trained on labels that the method generates itself (Yu et al. 2021).

    Trainable parameters at ``mosi`` with 768/5/20: 159,332, as MMSA's without its text encoder. The presets are MMSA's.

    * Text arrives as token states. The paper fine-tunes BERT and takes its first token; ``text_token`` = "first" does
      that for states of such an encoder, the default is the mean over a clip's real tokens, which suits any frozen
      features.
    * The state that generates labels is part of the checkpoint; the authors lose it.
    * Positive centres are those of clips with labels above 0, as in the paper and MMSA. The authors' own code lacks a
      setting and counts neutral clips as positive.
    * Where the memory has no clip of one sign, labels stay as they are (published: NaN).
    * The ratio of distances can throw a label to the end of the range, when a clip's fused vector is as far from either
      centre: that is the paper's rule and is kept.
    * The gradients of a group of batches are averaged, the last group included; the published code sums them and drops an
      incomplete group. With Adam only the weight decay notices the difference.

    A clip's labels are first generated in its second epoch, after its losses of that epoch are taken: the unimodal
    losses, weighted by tanh |y_u - y_m|, and with them the gradients of the unimodal heads are zero in two epochs.

    With classes there is no sign, hence no label to generate: each head learns the clip's class, with weight 1.

    Representations: each modality's vector and ``fused``.
    """

    class Config(MethodConfig):
        audio_recurrent: PositiveInt = Field(16, description="width of the LSTM over audio")
        vision_recurrent: PositiveInt = Field(32, description="width of the LSTM over vision")
        audio_out: PositiveInt = Field(16, description="width of the audio vector that the branches read")
        vision_out: PositiveInt = Field(32, description="width of the vision vector that the branches read")
        text_token: Literal["mean", "first"] = Field("mean", description="what stands for a clip's text: mean of its tokens, or the first")
        hidden: ByModality[PositiveInt] = Field(
            ByModality[PositiveInt](text=32, audio=16, vision=32),
            description="width of each modality's branch",
            json_schema_extra=tunable(16, 128, log=True),
        )
        fused_hidden: PositiveInt = Field(
            128, description="width of the branch that reads all modalities", json_schema_extra=tunable(32, 256, log=True)
        )
        dropout: ByModality[Rate] = Field(
            ByModality[Rate](text=0.1, audio=0.1, vision=0.0), description="on each branch's input", json_schema_extra=tunable(0.0, 0.6)
        )
        fused_dropout: Rate = Field(
            0.0, description="on the input of the branch that reads all modalities", json_schema_extra=tunable(0.0, 0.6)
        )
        audio_learning_rate: float = Field(
            5e-3,
            gt=0,
            description="learning rate of the audio LSTM; training.learning_rate is the rest's",
            json_schema_extra=tunable(1e-4, 1e-2, log=True),
        )
        vision_learning_rate: float = Field(
            5e-3, gt=0, description="learning rate of the vision LSTM", json_schema_extra=tunable(1e-4, 1e-2, log=True)
        )
        audio_weight_decay: float = Field(
            1e-3,
            ge=0,
            description="weight decay of the audio LSTM; training.weight_decay is the rest's",
            json_schema_extra=tunable(1e-6, 1e-2, log=True),
        )
        vision_weight_decay: float = Field(
            1e-3, ge=0, description="weight decay of the vision LSTM", json_schema_extra=tunable(1e-6, 1e-2, log=True)
        )
        weights: Weights = Weights()
        training: Training = Training(batch_size=16, accumulate=4, learning_rate=1e-3, weight_decay=1e-3)

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "mosi": {},
        "mosei": {
            "dropout": {"text": 0.0, "audio": 0.0, "vision": 0.0},
            "fused_dropout": 0.1,
            "audio_learning_rate": 5e-3,
            "vision_learning_rate": 1e-4,
            "audio_weight_decay": 0.0,
            "vision_weight_decay": 0.0,
            "training": {"batch_size": 32, "accumulate": 4, "learning_rate": 1e-3, "weight_decay": 0.01},
        },
    }
    reference = "Yu et al. 2021, Learning Modality-Specific Representations with Self-Supervised Multi-Task Learning, AAAI"

    def __init__(self, inputs: Inputs, task: Task, config: Config) -> None:
        super().__init__(inputs, task, config)
        self.task, self.config = task, config
        self.objective = task_objective(config, task)
        recurrent = {"audio": config.audio_recurrent, "vision": config.vision_recurrent}
        out = {"audio": config.audio_out, "vision": config.vision_out}
        self.recurrent = nn.ModuleDict(
            {name: TextSubNet(dim, recurrent[name], out[name], dropout=0.0) for name, dim in inputs.dims.items() if name != "text"}
        )
        widths = {name: out.get(name, dim) for name, dim in inputs.dims.items()}
        self.branches = nn.ModuleDict(
            {name: Branch(width, config.hidden[name], task.outputs, config.dropout[name]) for name, width in widths.items()}
        )
        self.fuse = Branch(sum(widths.values()), config.fused_hidden, task.outputs, config.fused_dropout)
        hidden = {name: config.hidden[name] for name in widths}
        self.generated = UnimodalLabels(hidden | {FUSED: config.fused_hidden}, task.low, task.high) if task.kind == "regression" else None

    def fit(self, train: Split) -> None:
        """A label and a vector per clip of ``train`` and modality, on the device of the weights."""
        assert train.labels is not None
        if self.generated is not None:
            self.generated.start(train.labels.to(next(self.parameters()).device))

    def forward(self, batch: Batch) -> Output:
        read = {name: self._read(batch, name) for name in self.branches}
        y, fused = self.fuse(torch.cat(list(read.values()), dim=1))
        branches = {name: self.branches[name](x) for name, x in read.items()}
        vectors = {name: vector for name, (_, vector) in branches.items()} | {FUSED: fused}
        losses = {}
        if self.training and batch.labels is not None:
            predictions = {name: self._shaped(prediction) for name, (prediction, _) in branches.items()}
            losses = {"unimodal": self._unimodal(batch, batch.labels.to(y.device), predictions, vectors)}
        return Output(self._shaped(y), losses, vectors)

    def _shaped(self, y: Tensor) -> Tensor:
        return y.squeeze(1) if self.task.kind == "regression" else y

    def _read(self, batch: Batch, name: str) -> Tensor:
        """One vector per clip: LSTM for audio and vision, a token or the mean for text."""
        if name in self.recurrent:
            return self.recurrent[name](batch.features[name], batch.lengths[name])  # type: ignore[no-any-return]
        return batch.features[name][:, 0] if self.config.text_token == "first" else batch.mean(name)

    def _unimodal(self, batch: Batch, labels: Tensor, predictions: Mapping[str, Tensor], vectors: Mapping[str, Tensor]) -> Tensor:
        """Sum over modalities of the mean of tanh |y_u - y_m| |prediction - y_u|; then labels move on."""
        if self.generated is None:
            return _total(self.objective(y, labels) / len(batch) for y in predictions.values())
        if not len(self.generated.label):  # never fitted, as in a profile: this batch is all there is
            self.generated.start(labels)
        position = batch.position.to(labels.device)
        targets = {name: self.generated.target(name)[position] for name in predictions}
        loss = _total(((targets[name] - labels).abs().tanh() * (y - targets[name]).abs()).mean() for name, y in predictions.items())
        self.generated.update(position, vectors)
        return loss

    def parameter_groups(self, training: Training) -> list[dict[str, Any]]:
        config = self.config
        settings = {
            "audio": {"lr": config.audio_learning_rate, "weight_decay": config.audio_weight_decay},
            "vision": {"lr": config.vision_learning_rate, "weight_decay": config.vision_weight_decay},
        }
        others = [*self.branches.parameters(), *self.fuse.parameters()]
        return [{"params": others}] + [{"params": list(net.parameters()), **settings[name]} for name, net in self.recurrent.items()]


def _total(losses: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(losses)).sum()
