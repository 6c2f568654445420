"""Training settings: what a method publishes, and the named budgets that cap the effort."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from harness.training.ranges import tunable

Share = Annotated[float, Field(ge=0, lt=1)]
Unit = Annotated[float, Field(ge=0, le=1)]
TaskLoss = Literal["l1", "mse", "cross_entropy", "focal", "weighted_focal", "calibrated_focal", "fldw"]


class Settings(BaseModel):
    """Base of every configuration: immutable, unknown keys are errors, bounds are checked."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Training(Settings):
    """How one trial is trained. Defaults are those of the peers' shared loop; a method states its own."""

    batch_size: int = Field(32, ge=1, description="clips per batch", json_schema_extra=tunable(choices=(16, 32, 64, 128)))
    length_buckets: int = Field(1, ge=1, description="batches whose clips are sorted by length together; 1: fully random, as published")
    accumulate: int = Field(1, ge=1, description="batches per optimiser step; an incomplete last group is used, not dropped")
    accumulate_by_length: bool = Field(
        False, description="cut an optimiser step's clips into parts of like length: the same gradient; for methods that are separable"
    )
    optimiser: Literal["adam", "adamw", "adamax", "sgd"] = "adam"
    learning_rate: float = Field(1e-3, gt=0, json_schema_extra=tunable(1e-5, 1e-2, log=True))
    weight_decay: float = Field(0.0, ge=0, json_schema_extra=tunable(1e-6, 1e-2, log=True))
    momentum: float = Field(0.0, ge=0, lt=1, description="sgd only")
    clip_norm: float | None = Field(None, gt=0, description="largest norm of the gradient of all parameters")
    clip_value: float | None = Field(None, gt=0, description="largest absolute value of a gradient entry")
    schedule: Literal["constant", "plateau", "cosine", "milestones"] = "constant"
    plateau_factor: float = Field(0.1, gt=0, lt=1)
    plateau_patience: int = Field(10, ge=0, description="epochs without a better validation loss before the rate falls")
    warmup: float = Field(0.0, ge=0, le=1, description="cosine: share of all steps with a linearly rising rate")
    milestones: tuple[Annotated[int, Field(ge=1)], ...] = Field((), description="milestones: epochs after which the rate falls")
    milestone_factor: float = Field(0.1, gt=0, lt=1, description="milestones: what the rate is multiplied by at each")
    average: Share = Field(
        0.0,
        description="what a step leaves of a running mean of the weights, which then validates and predicts; 0: the last weights do",
        json_schema_extra=tunable(choices=(0.0, 0.99, 0.998)),
    )
    max_epochs: int = Field(200, ge=1)
    patience: int = Field(8, ge=1, description="epochs without a better validation loss before training stops")
    standardise: tuple[str, ...] = Field(
        ("audio", "vision"), description="modalities z-scored per feature with mean and deviation of the training split's frames"
    )
    longest: int | None = Field(
        None, ge=1, description="frames of sound and of vision's features that longer clips are averaged down to; unset: all, as published"
    )
    amp: bool = Field(False, description="bfloat16 autocast")
    compile: bool = Field(False, description="torch.compile the method")
    cuda_graphs: bool = Field(False, description="with compile, on a GPU: steps are recorded once and replayed whole, as CUDA graphs")
    device: Literal["cpu", "cuda"] = "cpu"

    @model_validator(mode="after")
    def _graphs_are_compiled_on_a_gpu(self) -> Training:
        if self.cuda_graphs and not (self.compile and self.device == "cuda"):
            raise ValueError("cuda_graphs = true needs compile = true and a GPU (--device cuda)")
        return self


class FocalLoss(Settings):
    """The focal losses that ``task_loss`` may name; see harness.nn.focal."""

    gamma: float = Field(2.0, ge=0, description="power of 1 - p; 0: cross-entropy, weighted where the loss weighs")
    calibration: Literal["entropy", "margin"] = Field("entropy", description="calibrated_focal: which reading of it")
    entropy_weight: float = Field(0.1, ge=0, description="calibrated_focal, entropy: weight of the prediction's entropy")
    class_weight: Literal["error", "share"] = Field("error", description="weighted_focal: 2 - accuracy of a class, or its share of errors")


class TextEncoder(Settings):
    """A pretrained text encoder that is trained with the method; the features that the data set stores for text are then not read."""

    path: str | None = Field(None, description="folder of a Hugging Face model, or 'minilm'; unset: the stored features, as they are")
    learning_rate: float = Field(
        5e-5, gt=0, description="of the encoder; training.learning_rate is the rest's", json_schema_extra=tunable(1e-6, 1e-4, log=True)
    )
    weight_decay: float = Field(0.0, ge=0, description="of the encoder")
    max_tokens: int = Field(50, ge=3, description="tokens per clip, start and end included; longer transcripts are cut")
    frozen_layers: int = Field(0, ge=0, description="layers that stay as they are, counted from the input")
    frozen_embeddings: bool = Field(False, description="whether token embeddings stay as they are")
    weights: str | None = Field(None, description="set by the harness: SHA-256 of the folder")
    transcripts: str | None = Field(None, description="set by the harness: SHA-256 of the clips' texts")


class Missing(Settings):
    """Frames that go missing at random (Zhang et al. 2024, LNLN, section 4.1); see harness.training.missing."""

    rate: Share = Field(0.0, description="probability that a test clip's frame is missing, the same in every modality")
    rates: tuple[Share, ...] = Field((), description="further rates at which the same trained model is tested")
    training: Literal["complete", "uniform"] = Field(
        "complete", description="uniform: half of the clips complete, the others at rates drawn from U(0, 1), drawn anew every epoch"
    )


class InputWeights(Settings):
    """A factor on each modality's input features, after standardisation (robustness protocol of MIKL, 3.4, and MKCC, 3.5)."""

    text: float = Field(1.0, ge=0)
    audio: float = Field(1.0, ge=0)
    vision: float = Field(1.0, ge=0)
    where: Literal["all", "test"] = Field("all", description="all: in training too; test: on test clips alone")
    sweep: tuple[Unit, ...] = Field((), description="the same trained model is tested at each audio weight a, vision at 1 - a, as well")


class Augmentation(Settings):
    """Random changes of films of pixels in training, the same for all frames of a clip; see harness.training.augmentation."""

    flip: Unit = Field(0.0, description="probability that a clip is mirrored, left to right")
    rotation: float = Field(0.0, ge=0, le=180, description="degrees: a clip is turned by an angle between -rotation and rotation")
    crop: Share = Field(0.0, description="share of its sides that a clip may lose: a random square of it is enlarged to the whole")

    @property
    def active(self) -> bool:
        return bool(self.flip or self.rotation or self.crop)


class Budget(Settings):
    """A cap on effort, named in every table. None leaves the published value."""

    name: str
    description: str
    max_epochs: int | None = None
    patience: int | None = None
    longest: int | None = None

    def apply(self, training: Training) -> Training:
        """``training`` with this budget's caps."""
        caps = {"max_epochs": self.max_epochs, "patience": self.patience, "longest": self.longest}
        capped = {key: min(getattr(training, key) or cap, cap) for key, cap in caps.items() if cap is not None}
        return training.model_copy(update=capped)


BUDGETS = {
    budget.name: budget
    for budget in (
        Budget(name="smoke", description="2 epochs: shows that everything runs; its numbers mean nothing", max_epochs=2, patience=2),
        Budget(name="quick", description="at most 16 epochs, 64 frames of sound or features per clip", max_epochs=16, longest=64),
        Budget(name="paper", description="the published number of epochs and patience"),
    )
}
