"""Settings with one value per modality."""

from __future__ import annotations

from typing import Annotated, Generic, TypeVar

from pydantic import Field

from harness.training.settings import Settings

T = TypeVar("T")

Rate = Annotated[float, Field(ge=0, lt=1)]  # a dropout probability


class ByModality(Settings, Generic[T]):
    """One value per modality: ``widths["audio"]``. A modality that the data lacks leaves its value unused."""

    text: T
    audio: T
    vision: T

    def __getitem__(self, modality: str) -> T:
        return {"text": self.text, "audio": self.audio, "vision": self.vision}[modality]
