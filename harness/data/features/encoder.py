"""Token states of a frozen text encoder, the very ones that ``harness data import --text-encoder`` gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from harness.data import text
from harness.data.features.base import Collective, Gathered, Modality, Reads, extractors


@extractors.register("encoder")
class TextEncoder(Collective):
    """Last hidden states of a frozen Hugging Face model, one per token: any model's folder, or the packaged all-MiniLM-L6-v2.

    The transcripts are lower-cased; start and end tokens are kept. A clip without a transcript has these two alone.
    """

    name: ClassVar[str] = "encoder"
    modality: ClassVar[Modality] = "text"
    reads: ClassVar[Reads] = "text"
    libraries: ClassVar[tuple[str, ...]] = ("transformers", "torch")
    extra: ClassVar[str] = "text"

    model: str = Field(text.MINILM, description="minilm, or a folder with a Hugging Face model and its tokenizer")
    max_tokens: int = Field(50, ge=2, description="tokens per clip, start and end included; the rest is cut off")

    def gather(self, sources: Sequence[str], cache: Path) -> Gathered:
        return Gathered(text.encode(sources, text.find(self.model), cache, max_tokens=self.max_tokens))

    def shown(self) -> dict[str, Any]:
        return {**super().shown(), "model": text.find(self.model).name}
