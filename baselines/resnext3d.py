"""3-D ResNeXt-50 on frames: the film half of MSAF's comparisons (Su et al. 2020), MKCC's first row.

Reference: Hara et al. 2018 (the network), Su et al. 2020, section 4.2 (its use on RAVDESS). There are no equations.

Open, and read as: training from scratch by cross-entropy, Adam at 1e-3 (the authors' code has no unimodal recipe; Kinetics weights
are not at hand); 70 epochs in batches of 4, which are those of the fused network.

Not reproduced from the authors' code: frames in the order blue, green, red that are normalised as red, green, blue; pictures squeezed
before the face is cut out; crops drawn anew for every frame; the best epoch chosen on the test fold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from harness.training import Batch, Inputs, Method, Output, Task, register_method
from harness.training.audiovisual import FACES, ResNeXtConfig, only, presets, shaped


@register_method("resnext3d")
class ResNeXt(Method):
    """3-D ResNeXt-50 on films (Hara et al. 2018): 25,882,056 parameters at ``ravdess`` with 224 x 224 colour frames.

    Of the data's modalities it reads vision alone. Where its frames are vectors of features, convolutions run over time.
    Representation: ``vision``, the trunk's mean (B, widths[3]).
    """

    class Config(ResNeXtConfig):
        """Those of the network."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = presets(FACES)
    reference = "Hara et al. 2018, Can Spatiotemporal 3D CNNs Retrace the History of 2D CNNs and ImageNet?, CVPR; Su et al. 2020"

    def __init__(self, inputs: Inputs, task: Task, config: Config) -> None:
        super().__init__(inputs, task, config)
        self.task = task
        only(inputs, "vision", "resnext3d")
        self.stream = config.film(inputs, "vision", task.outputs)

    def forward(self, batch: Batch) -> Output:
        y, vector = self.stream(batch.features["vision"], batch.lengths["vision"])
        return Output(shaped(y, self.task), representations={"vision": vector})
