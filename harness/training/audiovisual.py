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
from harness.training.settings import Training

Four = tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt]
Three = tuple[PositiveInt, PositiveInt, PositiveInt]
Steps = Annotated[int, Field(ge=POOL + 4)]

# Su et al. 2020 on RAVDESS: 70 epochs without early stopping; faces in ImageNet's colours (224 x 224 there), mirrored and cut to .8 of
# their area at the least, all frames of a clip alike.
TRAINING: dict[str, Any] = {"batch_size": 4, "learning_rate": 1e-3, "max_epochs": 70, "patience": 70}
FACES: dict[str, Any] = {
    "colours": "imagenet",
    "augmentation": {"flip": 0.5, "crop": 0.106},
    "training": TRAINING,
}

# Shi et al. 2024 (AMCM) and the systems beside it: 120 epochs, a tenth of the rate after 30, 60 and 90; faces (112 x 112), turned and cut.
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
    "augmentation": {"rotation": 10.0, "crop": 0.1},
    "training": LONG_TRAINING,
}


def presets(settings: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The same settings for every audio-visual set of acted emotions."""
    return dict.fromkeys(("enterface05", "ravdess", "ravdess_song"), settings)


class FilmConfig(MethodConfig):
    """Settings of a method that reads films.

    The data say what a frame is: a picture of pixels, or a vector of features (action units, embeddings), which is read as a
    picture of one pixel with so many channels.
    """

    steps: PositiveInt = Field(30, description="frames that a film is brought to")
    sampling: Sampling = Field("middle", description="how: the middle frame of as many equal parts, or the mean over each")
    colours: Colours = Field("none", description="of pixels; imagenet: minus that set's mean colour, over its deviation")

    def pictures(self, inputs: Inputs, name: str) -> Pictures:
        """Reads the frames of the modality ``name``."""
        picture = inputs.pictures.get(name)
        if picture is None:
            return Pictures(1, inputs.dims[name], self.steps, self.sampling)
        return Pictures(picture.side, picture.channels, self.steps, self.sampling, self.colours)


class ResNeXtConfig(FilmConfig):
    """Settings of a method with 3-D ResNeXt-50 on films."""

    blocks: Four = Field((3, 4, 6, 3), description="film: residual blocks per stage")
    widths: Four = Field((256, 512, 1024, 2048), description="film: channels per stage")
    stem: PositiveInt = Field(64, description="film: channels of the first convolution")
    groups: PositiveInt = Field(32, description="film: groups of the middle convolutions")
    training: Training = Training(**TRAINING)

    def film(self, inputs: Inputs, name: str, outputs: int) -> FilmStream:
        """The network of the modality ``name``."""
        return FilmStream(self.pictures(inputs, name), outputs, self.blocks, self.widths, self.stem, self.groups)


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
        return Streams({name: self._stream(inputs, name, task.outputs) for name in inputs.dims})

    def _stream(self, inputs: Inputs, name: str, outputs: int) -> Stream:
        return self.film(inputs, name, outputs) if self.networks[name] == "film" else self.sequence(name, inputs.dims[name], outputs)


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


def patched(inputs: Inputs, name: str, grid: int) -> tuple[int, int, int]:
    """Side, channels and patches per side of the frames of ``name``; a vector of features is one patch of one pixel.

    ConfigError where patches would not be of whole pixels.
    """
    picture = inputs.pictures.get(name)
    if picture is None:
        return 1, inputs.dims[name], 1
    if picture.side % grid:
        allowed = ", ".join(str(part) for part in range(1, picture.side + 1) if picture.side % part == 0)
        raise ConfigError(
            f"grid = {grid} does not divide {name}'s frames of {picture.side} x {picture.side} pixels: patches are of whole pixels",
            f"Set grid to one of {allowed}, or extract frames of another size: --set frames.size={grid * -(-picture.side // grid)}.",
        )
    return picture.side, picture.channels, grid


def only(inputs: Inputs, modality: str, method: str) -> int:
    """Width of the one modality that ``method`` reads; ConfigError where the data lacks it."""
    if modality in inputs.dims:
        return inputs.dims[modality]
    raise ConfigError(
        f"{method} reads {modality} alone; the data gives {', '.join(inputs.modalities)}", f"Choose modalities with {modality} among them."
    )
