"""ConvMixer on every frame, averaged over time: the film network that AMCM starts from.

Reference: Trockman, Kolter 2022, section 2; Shi et al. 2024, eq. 1 and 2.

Open, and read as: width 256, kernel 9, depth 4 (AMCM's figure 1), 16 frames, patches of 7 x 7 pixels, AMCM's training and random
changes of frames. AMCM's ablation (its table 3, first row) has ResNet-34 on sound beside it: that is ``amcm`` with
``mixer = "convmixer"``, ``fusion = "concatenation"`` and ``task_loss = "cross_entropy"``; this is the film alone.

Not reproduced: the published 768-wide network's ReLU in place of GELU.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field, PositiveInt, model_validator
from torch import nn

from harness.nn.adjacency import ConvMixerLayer, Patches, Sampling, resampled
from harness.training import Batch, Inputs, Method, MethodConfig, Output, Task, Training, register_method
from harness.training.audiovisual import LONG_TRAINING, SMALL_FACES, only, patched, presets, shaped


@register_method("convmixer_frames")
class ConvMixerFrames(Method):
    """ConvMixer on frames (Trockman, Kolter 2022): 391,688 parameters at ``ravdess`` with 112 x 112 colour frames.

    With width 1536, depth 20, kernel 9, patches of 7 x 7 and 1000 classes it has the published 51,625,960. Of the data's modalities it
    reads vision alone. A frame that is a vector of features is a single node, whatever ``grid`` says. Representation:
    ``vision``, the mean over nodes and frames.
    """

    class Config(MethodConfig):
        grid: PositiveInt = Field(16, description="patches per side of a frame")
        steps: PositiveInt = Field(16, description="frames that a film is brought to")
        sampling: Sampling = Field("mean", description="how: mean over as many equal parts, or their middle frame")
        width: PositiveInt = Field(256, description="channels h")
        depth: PositiveInt = Field(4, description="layers d")
        kernel: PositiveInt = Field(9, description="odd size k of the depthwise convolution")
        training: Training = Training(**LONG_TRAINING)

        @model_validator(mode="after")
        def _fits(self) -> ConvMixerFrames.Config:
            if self.kernel % 2 == 0:
                raise ValueError(f"kernel = {self.kernel} is even: a node would not be in the middle")
            return self

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = presets(SMALL_FACES)
    reference = "Trockman and Kolter 2022, Patches Are All You Need?, arXiv:2201.09792; Shi et al. 2024 (AMCM, eq. 1 and 2)"

    def __init__(self, inputs: Inputs, task: Task, config: Config) -> None:
        super().__init__(inputs, task, config)
        self.task, self.config = task, config
        only(inputs, "vision", "convmixer_frames")
        side, channels, grid = patched(inputs, "vision", config.grid)
        self.patches = Patches(side, channels, grid, config.width)
        self.layers = nn.Sequential(*(ConvMixerLayer(grid, config.width, config.kernel) for _ in range(config.depth)))
        self.out = nn.Linear(config.width, task.outputs)

    def forward(self, batch: Batch) -> Output:
        frames = resampled(batch.features["vision"], batch.lengths["vision"], self.config.steps, self.config.sampling)
        vector = self.layers(self.patches(frames)).mean((1, 2))
        return Output(shaped(self.out(vector), self.task), representations={"vision": vector})
