"""Training settings: what a method publishes, and the named budgets that cap the effort."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """Base of every configuration: immutable, unknown keys are errors, bounds are checked."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Training(Settings):
    """How one trial is trained. Defaults are those of the peers' shared loop; a method states its own."""

    batch_size: int = Field(32, ge=1, description="clips per batch")
    length_buckets: int = Field(1, ge=1, description="batches whose clips are sorted by length together; 1: fully random, as published")
    accumulate: int = Field(1, ge=1, description="batches per optimiser step; an incomplete last group is used, not dropped")
    optimiser: Literal["adam", "adamw", "adamax", "sgd"] = "adam"
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    momentum: float = Field(0.0, ge=0, lt=1, description="sgd only")
    clip_norm: float | None = Field(None, gt=0, description="largest norm of the gradient of all parameters")
    clip_value: float | None = Field(None, gt=0, description="largest absolute value of a gradient entry")
    schedule: Literal["constant", "plateau", "cosine"] = "constant"
    plateau_factor: float = Field(0.1, gt=0, lt=1)
    plateau_patience: int = Field(10, ge=0, description="epochs without a better validation loss before the rate falls")
    warmup: float = Field(0.0, ge=0, le=1, description="cosine: share of all steps with a linearly rising rate")
    max_epochs: int = Field(200, ge=1)
    patience: int = Field(8, ge=1, description="epochs without a better validation loss before training stops")
    standardise: tuple[str, ...] = Field(
        ("audio", "vision"), description="modalities z-scored per feature with mean and deviation of the training split's frames"
    )
    amp: bool = Field(False, description="bfloat16 autocast")
    compile: bool = Field(False, description="torch.compile the method")
    device: Literal["cpu", "cuda"] = "cpu"


class Budget(Settings):
    """A cap on effort, named in every table. None leaves the published value."""

    name: str
    description: str
    max_epochs: int | None = None
    patience: int | None = None

    def apply(self, training: Training) -> Training:
        """``training`` with this budget's caps."""
        caps = {"max_epochs": self.max_epochs, "patience": self.patience}
        capped = {key: min(getattr(training, key), cap) for key, cap in caps.items() if cap is not None}
        return training.model_copy(update=capped)


BUDGETS = {
    budget.name: budget
    for budget in (
        Budget(name="smoke", description="2 epochs: shows that everything runs; its numbers mean nothing", max_epochs=2, patience=2),
        Budget(name="quick", description="at most 16 epochs, patience 4", max_epochs=16, patience=4),
        Budget(name="paper", description="the published number of epochs and patience"),
    )
}
