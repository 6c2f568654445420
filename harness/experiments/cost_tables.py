"""Tables of what models cost: ``reports/<paper>/<item>.toml`` with ``kind = "cost"``.

Columns are ``parameters`` (millions), ``flops`` (thousand millions, of one clip), ``latency`` (milliseconds), ``round`` (time
of a training epoch, printed ``27' 13"``) and names of metrics. Published numbers stand as the paper prints them.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from harness.data import catalogue
from harness.data.schema import Frozen
from harness.experiments import toml_lines
from harness.experiments.item_files import Items
from harness.experiments.papers import Finding
from harness.registry import suggest
from harness.training.metrics import metrics

COLUMNS = {"parameters": "Parameters, M", "flops": "FLOPs, G", "latency": "Latency, ms", "round": "Training epoch"}
ROUND = re.compile(r"(\d+)' ([0-5]\d)\"")

Modality = Literal["text", "audio", "vision"]


class Input(Frozen):
    """What a model is built and timed for: width of the features, frames per clip."""

    dim: PositiveInt
    frames: PositiveInt


class CostRow(Frozen):
    """One model; ``published``: column -> number as printed."""

    name: str = Field(min_length=1)
    printed: str = Field("", description="the name in the paper, where it differs")
    method: str | None = Field(None, description="the registered method; unset: cited only")
    config: dict[str, Any] = Field(default_factory=dict, description="settings of this row, dotted keys")
    modalities: tuple[Modality, ...] | None = Field(None, description="unset: all inputs of the table")
    citation: str = ""
    notes: str = ""
    published: dict[str, Decimal | str] = Field(default_factory=dict)

    def value(self, column: str) -> float | None:
        """The published number in millions, thousand millions, milliseconds, seconds (``round``) or as a fraction."""
        printed = self.published.get(column)
        if printed is None:
            return None
        if column == "round":
            found = ROUND.fullmatch(str(printed))
            assert found
            return 60.0 * int(found[1]) + int(found[2])
        return float(printed) / (100 if column in metrics and metrics[column].percent else 1)

    def number(self, column: str) -> Decimal:
        """The published number with its digits; KeyError where there is none, or none but a time."""
        printed = self.published[column]
        if not isinstance(printed, Decimal):
            raise KeyError(column)
        return printed


class CostSpec(Frozen):
    """A table of costs; ``paper`` and ``item`` come from the file's place."""

    paper: str
    item: str
    kind: Literal["cost"]
    title: str = Field(min_length=1)
    caption: str = ""
    citation: str = ""
    source: str = ""
    dataset: str
    columns: tuple[str, ...] = Field(min_length=1)
    inputs: dict[Modality, Input] = Field(min_length=1, description="what is counted and timed")
    clips: PositiveInt = Field(description="training clips of an epoch")
    seeds: tuple[int, ...] = Field((42, 1, 11, 111, 1111), min_length=1, description="runs whose records give scores and epochs' times")
    rows: tuple[CostRow, ...] = Field(min_length=1)
    findings: tuple[Finding, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.paper}/{self.item}"

    @property
    def scores(self) -> list[str]:
        """The columns that are metrics."""
        return [column for column in self.columns if column not in COLUMNS]

    def inputs_of(self, row: CostRow) -> dict[str, Input]:
        """What ``row`` reads, in the order of the table."""
        return {name: size for name, size in self.inputs.items() if row.modalities is None or name in row.modalities}

    @field_validator("columns")
    @classmethod
    def _known(cls, columns: tuple[str, ...]) -> tuple[str, ...]:
        known = [*COLUMNS, *metrics]
        for column in columns:
            if column not in known or columns.count(column) > 1:
                raise ValueError(f"'{column}' is no column, or stands there twice; {suggest(column, known)}")
        return columns

    @field_validator("dataset")
    @classmethod
    def _catalogued(cls, dataset: str) -> str:
        if dataset not in catalogue.known():
            raise ValueError(f"there is no such data set; {suggest(dataset, catalogue.known())}")
        return dataset

    @model_validator(mode="after")
    def _rows_fit(self) -> CostSpec:
        names = [row.name for row in self.rows]
        for row in self.rows:
            if names.count(row.name) > 1:
                raise ValueError(f"row '{row.name}' stands there twice")
            for column, printed in row.published.items():
                self._printed(row.name, column, printed)
            if missing := set(row.modalities or ()) - set(self.inputs):
                raise ValueError(f"row '{row.name}': no inputs for {', '.join(sorted(missing))}")
        return self

    def _printed(self, row: str, column: str, printed: Decimal | str) -> None:
        if column not in self.columns:
            raise ValueError(f"row '{row}': published.{column} is no column of this table; {suggest(column, self.columns)}")
        if column == "round":
            if not isinstance(printed, str) or not ROUND.fullmatch(printed):
                raise ValueError(f"row '{row}': published.round = {printed!r}: write minutes and seconds as printed, 27' 13\"")
        elif not isinstance(printed, Decimal) or not printed.is_finite() or printed < 0:
            raise ValueError(f"row '{row}': published.{column} = {printed!r} is no number as printed")
        elif column in metrics and metrics[column].percent and not (printed == 0 or 1 <= printed <= 100):
            raise ValueError(f"row '{row}': published.{column} = {printed}: write per cent as printed")


# ---- the files


def _keys(place: toml_lines.Place) -> list[str]:
    """The keys of the TOML table at ``place``."""
    kinds: dict[str, type[Frozen]] = {"rows": CostRow, "inputs": Input, "findings": Finding}
    kind = kinds[str(place[0])] if place else CostSpec
    return [name for name in kind.model_fields if name not in ("paper", "item")]


_files = Items("cost", CostSpec, _keys)
items, is_item, of, read = _files.items, _files.is_item, _files.of, _files.read
