"""ResNet-34 on the MFCC picture: the sound network of AMCM by itself.

Reference: He et al. 2016 (the network); Shi et al. 2024, section 3 (its use; table 5's "ResNet" rows name no sizes).

Open, and read as: training is AMCM's (Adam, 1e-4, a tenth after every 30 of 120 epochs); a clip's vector is the mean over all that the
trunk leaves of time and coefficients.

Not reproduced: nothing of the kind is public.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field, PositiveInt
from torch import nn

from harness.errors import ConfigError
from harness.nn.masked import time_mean
from harness.nn.resnet import ResNet
from harness.training import Batch, Inputs, Method, MethodConfig, Output, Task, Training, register_method
from harness.training.audiovisual import LONG_TRAINING, Four, only, presets, shaped


@register_method("resnet34_mfcc")
class ResNetMfcc(Method):
    """ResNet-34 over sound as a picture, time by coefficients (He et al. 2016): 21,282,504 parameters at ``ravdess``, 21,278,400 of them
    in the trunk.

    Of the data's modalities it reads audio alone. Representation: ``audio``, (B, widths[3]).
    """

    class Config(MethodConfig):
        picture_channels: PositiveInt = Field(1, description="parts of equal width that a frame consists of; 3 with deltas")
        blocks: Four = Field((3, 4, 6, 3), description="residual blocks per stage")
        widths: Four = Field((64, 128, 256, 512), description="channels per stage")
        training: Training = Training(**LONG_TRAINING)

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = presets({})
    reference = "He et al. 2016, Deep Residual Learning for Image Recognition, CVPR; Shi et al. 2024 (AMCM's sound network)"

    def __init__(self, inputs: Inputs, task: Task, config: Config) -> None:
        super().__init__(inputs, task, config)
        self.task, self.channels = task, config.picture_channels
        dim = only(inputs, "audio", "resnet34_mfcc")
        if dim % self.channels:
            raise ConfigError(
                f"audio has {dim} features per frame, which picture_channels = {self.channels} does not divide",
                "Allowed: a divisor; 1 for MFCC alone, 3 with deltas and delta-deltas.",
            )
        self.trunk = ResNet(self.channels, config.blocks, config.widths)
        self.out = nn.Linear(config.widths[-1], task.outputs)

    def forward(self, batch: Batch) -> Output:
        x = batch.features["audio"]
        y, lengths = self.trunk(x.view(*x.shape[:2], self.channels, -1).transpose(1, 2), batch.lengths["audio"])
        vector = time_mean(y.mean(3), lengths)
        return Output(shaped(self.out(vector), self.task), representations={"audio": vector})
