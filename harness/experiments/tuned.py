"""Preset files: the settings that a search found, as people read them and as ``--tuned`` uses them.

``<results>/tuned/METHOD-DATASET.toml``; a search of fewer modalities than the data has names them too.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from harness.data.schema import Card, Frozen
from harness.data.splits import Fold
from harness.errors import ConfigError
from harness.experiments import code
from harness.experiments.papers import Row, TableSpec
from harness.experiments.search import Settings
from harness.experiments.trials import describe
from harness.files import write_atomic
from harness.training.contract import methods


class Found(Frozen):
    """What one search found. Objectives are means over runs of the lowest validation loss; ``published`` is trial 0's."""

    fold: Fold
    search: str = Field(description="key of the search, the name of its folder")
    trial: int
    objective: float
    published: float | None = Field(None, description="absent where the published settings did not finish")
    finished: int
    pruned: int
    failed: int
    settings: Settings


class Tuned(Frozen):
    """A preset file: one search, or one per fold of a cross-validation."""

    method: str
    dataset: str
    data: str = Field(description="fingerprint")
    modalities: tuple[str, ...]
    budget: str
    trials: int
    seeds: tuple[int, ...] = Field(description="of the search; a table's are others")
    inner_folds: int = 0
    commit: str = ""
    dirty: bool = False
    code: dict[str, str] = Field(default_factory=dict, description="the modules whose code the losses came from")
    fixed: tuple[str, ...] = Field((), description="settings that were stated, not searched, as --set takes them")
    found: tuple[Found, ...] = Field(min_length=1)

    def settings(self, fold: Fold) -> Settings:
        """Fixed and found settings for ``fold``; ConfigError where no search was made for it."""
        fixed = {key: json.loads(value) for key, _, value in (text.partition("=") for text in self.fixed)}
        for one in self.found:
            if one.fold == fold:
                return {**fixed, **one.settings}
        raise ConfigError(
            f"{self.method} was not tuned on {self.dataset} for the {fold}",
            f"Type `harness tune {self.method} {self.dataset}` with the same options for the split.",
        )

    def said(self) -> str:
        """How the settings came about, for the notes of a table."""
        pruned, inner = sum(one.pruned for one in self.found), f" in {self.inner_folds} inner folds" if self.inner_folds else ""
        return (
            f"settings found on validation by {self.trials} trials{' per fold' if len(self.found) > 1 else ''} ({pruned} given up early), "
            f"budget '{self.budget}', inner seeds {', '.join(map(str, self.seeds))}{inner}"
        )


def place(root: Path, method: str, card: Card, modalities: Sequence[str]) -> Path:
    """Where the preset file of a search lies below the results folder."""
    part = "" if len(modalities) == len(card.modalities) else "-" + "+".join(modalities)
    return root / "tuned" / f"{method}-{card.name}{part}.toml"


# ---- writing


def write(tuned: Tuned, path: Path) -> None:
    """Write the file whole. Raises OSError."""
    write_atomic(path, "\n".join(_lines(tuned)).encode() + b"\n")


def _lines(tuned: Tuned) -> Iterator[str]:
    content = tuned.model_dump(mode="json")
    found, modules = content.pop("found"), content.pop("code")
    yield f"# Settings found by `harness tune {tuned.method} {tuned.dataset}`."
    yield f"# Used by `harness run {tuned.method} {tuned.dataset} --tuned` and `harness reproduce ... --tuned`."
    yield ""
    yield from _pairs(content)
    for one in found:
        fold, settings = one.pop("fold"), one.pop("settings")
        yield from _table("[[found]]", one)
        yield from _table("[found.fold]", fold)
        yield from _table("[found.settings]", settings)
    yield from _table("[code]", modules)


def _table(head: str, values: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield head
    yield from _pairs(values)


def _pairs(values: Mapping[str, Any]) -> Iterator[str]:
    """TOML has no null: what is None is left out, and is None again where the field has that default."""
    for key, value in values.items():
        if value is not None:
            yield f"{json.dumps(key) if not key.isidentifier() else key} = {json.dumps(value)}"


# ---- reading


def read(path: Path) -> Tuned:
    """The preset file ``path``; ConfigError where it is not valid."""
    try:
        return Tuned.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", "Mend it, or tune again.") from None
    except ValidationError as error:
        raise ConfigError(f"{path} is not valid: {describe(error)}", "Mend it, or tune again.") from None


def find(root: Path, method: str, card: Card, modalities: Sequence[str]) -> tuple[Tuned | None, str]:
    """The preset for this method, data and modalities, else None; and what is to be said of it.

    A preset that was found on other data is not used. One found with code that has changed since is, and that is said.
    """
    path = place(root, method, card, modalities)
    if not path.exists():
        return None, f"{method} was not tuned on {card.name}: no {path.name}. Type `harness tune {method} {card.name}`"
    tuned = read(path)
    if tuned.data != card.fingerprint:
        return None, f"{path.name} was found on other data than what is stored as {card.name} now. Tune again"
    changed = code.differing(tuned.code, code.fingerprints(methods[method].__module__))
    return tuned, f"{path.name} was found before {', '.join(changed)} changed" if changed else ""


# ---- tables


def with_tuned_rows(spec: TableSpec, presets: Mapping[str, Tuned], fold: Fold) -> TableSpec:
    """``spec`` with a tuned row below every row whose name ``presets`` has."""
    rows: list[Row] = []
    for row in spec.rows:
        rows.append(row)
        if row.name in presets:
            tuned = presets[row.name]
            rows.append(
                Row(
                    name=f"{row.name}, tuned",
                    method=row.method,
                    config={**row.config, **tuned.settings(fold)},
                    modalities=row.modalities,
                    notes=tuned.said(),
                    trials=tuned.trials,
                )
            )
    return spec.model_copy(update={"rows": tuple(rows)})
