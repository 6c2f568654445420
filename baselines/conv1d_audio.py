"""1-D CNN on MFCC: the sound half of MSAF's comparisons (Su et al. 2020), MKCC's second row and the "CNN" of its table 4.

Reference: Su et al. 2020, section 4.2. There are no equations.

Open, and read as: training by cross-entropy, Adam at 1e-3, batches of 4, 70 epochs (the fused network's; the authors' code has no
unimodal recipe). Clips of another length than ``sequence_steps`` are cut around their middle or filled up with zeros: the authors
take 2.45 s after the first half second of 44.1 kHz, 212 frames of 13 MFCC.

Not reproduced: the best epoch chosen on the test fold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from harness.training import Batch, Inputs, Method, Output, Task, register_method
from harness.training.audiovisual import SequenceConfig, only, presets, shaped


@register_method("conv1d_audio")
class Conv1dAudio(Method):
    """Three convolutions over sound (Su et al. 2020): 34,024 parameters at ``ravdess`` with 13 MFCC, 212 frames.

    Of the data's modalities it reads audio alone. Representation: ``audio``, what the last layer reads.
    """

    class Config(SequenceConfig):
        """Those of the network."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = presets({})
    reference = "Su et al. 2020, MSAF: Multimodal Split Attention Fusion, arXiv:2012.07175"

    def __init__(self, inputs: Inputs, task: Task, config: Config) -> None:
        super().__init__(inputs, task, config)
        self.task = task
        self.stream = config.sequence("audio", only(inputs, "audio", "conv1d_audio"), task.outputs)

    def forward(self, batch: Batch) -> Output:
        y, vector = self.stream(batch.features["audio"], batch.lengths["audio"])
        return Output(shaped(y, self.task), representations={"audio": vector})
