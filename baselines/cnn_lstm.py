"""CNN, LSTM and concatenation: the row that AMCM's tables 4 and 5 have three times, as one network.

Reference: Middya et al. 2022 and Ma et al. 2019 as AMCM names their core ("CNN + LSTM + concatenation of features"). None of their
sizes stands in AMCM, and no code is public: a reading, no reproduction of either.

Open, and read as: films: four blocks of 3 x 3 convolution with stride 2, batch norm and ReLU on every frame, mean over the picture, LSTM
over frames; sound and text: two blocks of convolution 5 over time, batch norm, ReLU and maximum over 4 (of text: none), LSTM; the
last states side by side, dropout .5, a linear layer. Adam at 1e-3, batches of 16, at most 100 epochs, 20 without a better
validation loss; AMCM's random changes of frames.

Not reproduced: nothing of the kind is public.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from harness.nn.dropout import Dropout
from harness.nn.films import Pictures
from harness.nn.masked import MaskedBatchNorm, max_pool
from harness.nn.recurrent import LastLSTM
from harness.training import Batch, Inputs, Method, Output, Task, Training, register_method
from harness.training.audiovisual import FilmConfig, Four, presets, shaped
from harness.training.by_modality import ByModality, Rate

TRAINING: dict[str, Any] = {"batch_size": 16, "learning_rate": 1e-3, "max_epochs": 100, "patience": 20}
PAPER: dict[str, Any] = {
    "augmentation": {"rotation": 10.0, "crop": 0.1},
    "training": TRAINING,
}


class FrameLSTM(nn.Module):
    """x (B, T, D), lengths (B,) -> (B, hidden): convolutions on every frame, LSTM over frames."""

    def __init__(self, pictures: Pictures, channels: Four, hidden: int) -> None:
        super().__init__()
        self.pictures = pictures
        kernel, stride = (3, 2) if pictures.size > 1 else (1, 1)
        layers: list[nn.Module] = []
        for before, after in zip((pictures.channels, *channels), channels, strict=False):
            layers += [nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.frames = nn.Sequential(*layers)
        self.lstm = nn.LSTM(channels[-1], hidden, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        pictures = self.pictures(x, lengths).transpose(1, 2)
        vectors = self.frames(pictures.flatten(0, 1)).mean((2, 3)).view(*pictures.shape[:2], -1)
        return self.lstm(vectors)[0][:, -1]  # type: ignore[no-any-return]


class SoundLSTM(nn.Module):
    """x (B, T, D), zero at padding, lengths (B,) -> (B, hidden): convolutions and maxima over time, LSTM read at the last real step."""

    def __init__(self, dim: int, channels: tuple[int, int], pool: int, hidden: int) -> None:
        super().__init__()
        self.pool = pool
        self.convolutions = nn.ModuleList(
            nn.Conv1d(before, after, 5, padding=2, bias=False) for before, after in ((dim, channels[0]), channels)
        )
        self.norms = nn.ModuleList(MaskedBatchNorm(width) for width in channels)
        self.lstm = LastLSTM(channels[1], hidden)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        y = x.transpose(1, 2)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            y, lengths = max_pool(F.relu(norm(convolution(y), lengths)), lengths, self.pool)
        return self.lstm(y.transpose(1, 2), lengths)  # type: ignore[no-any-return]


@register_method("cnn_lstm")
class CnnLstm(Method):
    """A CNN and an LSTM per modality, last states concatenated (a reading of AMCM's "CNN + LSTM + concatenation").

    Parameters at ``ravdess`` with 112 x 112 colour frames and 40 MFCC: 774,824. Where a frame is a vector of features, its
    convolutions are linear layers. Representations: each modality's state, and ``fused``.
    """

    class Config(FilmConfig):
        networks: ByModality[Literal["film", "sequence"]] = Field(
            ByModality[Literal["film", "sequence"]](text="sequence", audio="sequence", vision="film"),
            description="film: convolutions on frames; sequence: over time",
        )
        steps: PositiveInt = Field(16, description="frames that a film is brought to")
        film: Four = Field((32, 64, 128, 256), description="film: channels of the four blocks")
        sound: tuple[PositiveInt, PositiveInt] = Field((64, 128), description="sequence: channels of the two blocks")
        pool: ByModality[PositiveInt] = Field(
            ByModality[PositiveInt](text=1, audio=4, vision=4), description="sequence: frames per maximum after each block"
        )
        hidden: PositiveInt = Field(128, description="width of the LSTMs")
        dropout: Rate = Field(0.5, description="on the concatenated states")
        training: Training = Training(**TRAINING)

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = presets(PAPER)
    reference = "Ma et al. 2019, ICME; Middya et al. 2022, Knowledge-Based Systems 244; as AMCM's tables 4 and 5 name their core"

    def __init__(self, inputs: Inputs, task: Task, config: Config) -> None:
        super().__init__(inputs, task, config)
        self.task = task
        self.streams = nn.ModuleDict({name: _stream(inputs, name, config) for name in inputs.dims})
        self.drop = Dropout(config.dropout)
        self.out = nn.Linear(config.hidden * len(self.streams), task.outputs)

    def forward(self, batch: Batch) -> Output:
        states = {name: stream(batch.features[name], batch.lengths[name]) for name, stream in self.streams.items()}
        fused = torch.cat(list(states.values()), dim=1)
        return Output(shaped(self.out(self.drop(fused)), self.task), representations=states | {"fused": fused})


def _stream(inputs: Inputs, name: str, config: CnnLstm.Config) -> nn.Module:
    if config.networks[name] == "film":
        return FrameLSTM(config.pictures(inputs, name), config.film, config.hidden)
    return SoundLSTM(inputs.dims[name], config.sound, config.pool[name], config.hidden)
