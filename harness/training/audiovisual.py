"""What methods on films and sound share: how frames are read, and the networks of each modality."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from harness.data.batches import Batch
from harness.data.schema import Task
from harness.errors import ConfigError
from harness.nn.adjacency import Sampling
from harness.nn.films import Colours, Pictures
from harness.nn.streams import POOL, FilmStream, SequenceStream, Stream, Streams
from harness.training.by_modality import ByModality, Rate
from harness.training.contract import Inputs, LossWeights, MethodConfig
from harness.training.objectives import task_objective
from harness.training.pixels import frame_channels
from harness.training.settings import Training

Four = tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt]
Three = tuple[PositiveInt, PositiveInt, PositiveInt]
Steps = Annotated[int, Field(ge=POOL + 4)]

# Su et al. 2020 on RAVDESS: 70 epochs without early stopping; faces of 224 x 224 in ImageNet's colours, mirrored and cut to .8 of
# their area at the least, all frames of a clip alike.
TRAINING: dict[str, Any] = {"batch_size": 4, "learning_rate": 1e-3, "max_epochs": 70, "patience": 70}
FACES: dict[str, Any] = {
    "frame_size": 224,
    "colours": "imagenet",
    "augmentation": {"flip": 0.5, "crop": 0.106},
    "training": TRAINING | {"standardise": ("audio",)},
}

# Shi et al. 2024 (AMCM) and the systems beside it: 120 epochs, a tenth of the rate after 30, 60 and 90; faces of 112 x 112, turned and cut.
LONG_TRAINING: dict[str, Any] = {
    "batch_size": 8,
    "learning_rate": 1e-4,
    "schedule": "milestones",
    "milestones": (30, 60, 90),
    "milestone_factor": 0.1,
    "max_epochs": 120,
    "patience": 120,
}
SMALL_FACES: dict[str, Any] = {
    "frame_size": 112,
    "augmentation": {"rotation": 10.0, "crop": 0.1},
    "training": LONG_TRAINING | {"standardise": ("audio",)},
}


def presets(settings: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The same settings for every audio-visual set of acted emotions."""
    return dict.fromkeys(("enterface05", "ravdess", "ravdess_song"), settings)


class FilmConfig(MethodConfig):
    """Settings of a method that reads films.

    With ``frame_size`` unset, a frame is a vector of features (action units, embeddings): a picture of one pixel.
    """

    frame_size: PositiveInt | None = Field(None, description="pixels per side of vision's frames, grey or colour; unset: features")
    steps: PositiveInt = Field(30, description="frames that a film is brought to")
    sampling: Sampling = Field("middle", description="how: the middle frame of as many equal parts, or the mean over each")
    colours: Colours = Field("none", description="imagenet: frames minus that set's mean colour, over its deviation")

    def pictures(self, name: str, dim: int) -> Pictures:
        """Reads the modality ``name`` with ``dim`` features per frame; ConfigError where these are not such frames."""
        size = self.frame_size if name == "vision" else None
        if size is None:
            return Pictures(1, dim, self.steps, self.sampling)
        return Pictures(size, frame_channels(name, dim, size), self.steps, self.sampling, self.colours)


class ResNeXtConfig(FilmConfig):
    """Settings of a method with 3-D ResNeXt-50 on films."""

    blocks: Four = Field((3, 4, 6, 3), description="film: residual blocks per stage")
    widths: Four = Field((256, 512, 1024, 2048), description="film: channels per stage")
    stem: PositiveInt = Field(64, description="film: channels of the first convolution")
    groups: PositiveInt = Field(32, description="film: groups of the middle convolutions")
    training: Training = Training(**TRAINING)

    def film(self, name: str, dim: int, outputs: int) -> FilmStream:
        """The network of the modality ``name`` with ``dim`` features per frame."""
        return FilmStream(self.pictures(name, dim), outputs, self.blocks, self.widths, self.stem, self.groups)


class SequenceConfig(MethodConfig):
    """Settings of a method with the 1-D CNN of Su et al. 2020 on sequences."""

    sequence_steps: ByModality[Steps] = Field(
        ByModality[Steps](text=50, audio=212, vision=212),
        description="frames that a sequence is cut to, from its middle, or filled up to with zeros",
    )
    channels: Three = Field((32, 32, 64), description="sequence: channels of the three convolutions")
    dropout: Rate = Field(0.2, description="sequence: after the second convolution")
    head_dropout: Rate = Field(0.4, description="sequence: before the last layer")
    training: Training = Training(**TRAINING)

    def sequence(self, name: str, dim: int, outputs: int) -> SequenceStream:
        """The network of the modality ``name`` with ``dim`` features per frame."""
        return SequenceStream(dim, self.sequence_steps[name], outputs, self.channels, self.dropout, self.head_dropout)


class StreamConfig(ResNeXtConfig, SequenceConfig):
    """Settings of a method with one of the two networks for every modality (Su et al. 2020)."""

    networks: ByModality[Literal["film", "sequence"]] = Field(
        ByModality[Literal["film", "sequence"]](text="sequence", audio="sequence", vision="film"),
        description="film: 3-D ResNeXt; sequence: 1-D CNN",
    )

    def streams(self, inputs: Inputs, task: Task) -> Streams:
        """A network for every modality."""
        return Streams({name: self._stream(name, dim, task.outputs) for name, dim in inputs.dims.items()})

    def _stream(self, name: str, dim: int, outputs: int) -> Stream:
        return self.film(name, dim, outputs) if self.networks[name] == "film" else self.sequence(name, dim, outputs)


class UnimodalWeights(LossWeights):
    """Weight of what each modality's own head is taught by."""

    unimodal: float = Field(1.0, ge=0, description="task losses of the modalities' own heads, summed")


class UnimodalLoss:
    """The task loss of several predictions of the same clips, summed over them, mean over clips.

    It is the loss that selects: of a loss with weights by epoch, the one without them.
    """

    def __init__(self, config: MethodConfig, task: Task) -> None:
        self.objective = task_objective(config, task)

    def __call__(self, batch: Batch, predictions: Iterable[Tensor]) -> Tensor:
        assert batch.labels is not None
        whole = torch.stack([self.objective(y.float(), batch.labels.to(y.device)) for y in predictions]).sum()
        return whole / len(batch)


def shaped(y: Tensor, task: Task) -> Tensor:
    """Outputs (B, outputs) as a prediction: (B,) intensities or (B, classes) logits."""
    return y.squeeze(1) if task.kind == "regression" else y


def only(inputs: Inputs, modality: str, method: str) -> int:
    """Width of the one modality that ``method`` reads; ConfigError where the data lacks it."""
    if modality in inputs.dims:
        return inputs.dims[modality]
    raise ConfigError(
        f"{method} reads {modality} alone; the data gives {', '.join(inputs.modalities)}", f"Choose modalities with {modality} among them."
    )
