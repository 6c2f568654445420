"""The protocols of a table, as its file states them."""

from __future__ import annotations

from pydantic import Field

from harness.data.schema import Frozen
from harness.data.splits import Fold, Protocol, folds


class Scheme(Frozen):
    """One way to cut the clips into training, validation and test parts; harness.data.splits says what the kinds mean."""

    kind: Protocol = "official"
    name: str = Field("", description="a few words that tell it from the table's other ones; unset: what it is")
    folds: int = Field(0, ge=0, description="number of folds; 0: the kind has none")
    repeats: int = Field(1, ge=1, description="deals of the folds, or draws of a hold-out")
    groups: tuple[int, int, int] | None = Field(None, description="holdout: groups that train, validate and test")
    validation: float | None = Field(None, gt=0, lt=1, description="share of the training clips that validates")

    @property
    def said(self) -> str:
        """What it is, in words: ``official split``, ``5 stratified folds, 0.1 of training validates``."""
        if self.kind == "official":
            return "official split" + self._share
        if self.kind == "holdout":
            return f"{self.repeats} draws of {'/'.join(map(str, self.groups or ()))} groups"
        dealt = f", dealt {self.repeats} times" if self.repeats > 1 else ""
        return f"{self.folds} {self.kind} folds{dealt}{self._share}"

    @property
    def label(self) -> str:
        """How lines of the table name it."""
        return self.name or self.said

    @property
    def described(self) -> str:
        """Its name, and what it is."""
        return f"{self.name} ({self.said})" if self.name else self.said

    def cuts(self) -> list[Fold]:
        """Every cut of the data; ConfigError where the keys do not fit together."""
        return folds(self.folds, self.repeats, self.kind, validation=self.validation, groups=self.groups)

    @property
    def _share(self) -> str:
        return "" if self.validation is None else f", {self.validation:.3g} of training validates"
