"""The contract between a method and the harness: what a researcher writes against.

@register_method("mine")
class Mine(Method):
    class Config(MethodConfig):
        hidden: int = 128

    def __init__(self, inputs: Inputs, task: Task, config: Config) -> None: ...
    def forward(self, batch: Batch) -> Output: ...
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from pydantic import Field
from torch import Tensor, nn

from harness.data.batches import Batch
from harness.data.schema import Picture, Split, Task
from harness.registry import Registry
from harness.training.settings import Augmentation, FocalLoss, InputWeights, Missing, Settings, TaskLoss, TextEncoder, Training

__all__ = [
    "Batch",
    "Inputs",
    "LossWeights",
    "Method",
    "MethodConfig",
    "Output",
    "Picture",
    "Split",
    "Task",
    "Training",
    "methods",
    "register_method",
]


@dataclass(frozen=True)
class Inputs:
    """What a model is built for: feature width by modality, in the order text, audio, vision (any subset).

    ``pictures`` has the modalities whose frames are pixels in [0, 1]; frames of the others are vectors of features.
    """

    dims: Mapping[str, int]
    pictures: Mapping[str, Picture] = field(default_factory=dict)

    @classmethod
    def of(cls, split: Split) -> Inputs:
        """What the clips of ``split`` are."""
        pictures = {name: ragged.picture for name, ragged in split.features.items()}
        return cls(
            {name: ragged.dim for name, ragged in split.features.items()},
            {name: picture for name, picture in pictures.items() if picture is not None},
        )

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.dims)


@dataclass(frozen=True)
class Output:
    """What ``forward`` returns for B clips.

    ``prediction``: (B,) intensities, or (B, classes) logits. ``losses``: auxiliary terms by name, scalars, means
    over the batch; the loop weighs each with ``config.weights``. ``representations``: (B, D) tensors for figures.
    """

    prediction: Tensor
    losses: Mapping[str, Tensor] = field(default_factory=dict)
    representations: Mapping[str, Tensor] = field(default_factory=dict)


class LossWeights(Settings):
    """Weights of a method's auxiliary losses; a subclass has one non-negative field per name in ``Output.losses``."""


class MethodConfig(Settings):
    """Base of a method's configuration. Every field carries a description; unknown keys are errors."""

    task_loss: TaskLoss | None = Field(None, description="loss on the prediction; unset: l1 for intensities, cross_entropy for classes")
    focal: FocalLoss = FocalLoss()
    weights: LossWeights = LossWeights()
    training: Training = Training()
    text_encoder: TextEncoder = TextEncoder()
    missing: Missing = Missing()
    input_weights: InputWeights = InputWeights()
    augmentation: Augmentation = Augmentation()


class Method(nn.Module):
    """A model. Subclasses set ``Config`` and implement ``__init__`` and ``forward``; the rest has defaults.

    ``presets`` maps a data set's name to the configuration that was published for it (nested keys as in Config).
    ``separable``: a batch's loss is the mean of its clips' own losses, since nothing (batch statistics, a loss between
    clips) joins them; then a step's clips may be cut into parts at will (``training.accumulate_by_length``).
    ``closed_form``: nothing is trained by gradient; a budget then does not shorten clips.
    """

    Config: ClassVar[type[MethodConfig]] = MethodConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    reference: ClassVar[str] = ""
    closed_form: ClassVar[bool] = False
    separable: ClassVar[bool] = False

    def __init__(self, inputs: Inputs, task: Task, config: Any) -> None:
        super().__init__()

    def fit(self, train: Split) -> None:
        """Statistics from the training split (closed-form models, feature selection). Called once, before training."""

    def forward(self, batch: Batch) -> Output:
        raise NotImplementedError

    def parameter_groups(self, training: Training) -> list[dict[str, Any]]:
        """Parameter groups for the optimiser; override for learning rates or decays of their own."""
        return [{"params": [parameter for parameter in self.parameters() if parameter.requires_grad]}]


methods: Registry[type[Method]] = Registry("method", group="harness.methods")

M = TypeVar("M", bound=type[Method])


def register_method(name: str) -> Callable[[M], M]:
    """Class decorator that files a ``Method`` under ``name``."""

    def add(method: M) -> M:
        methods.register(name)(method)
        return method

    return add
