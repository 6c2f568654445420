"""Files of ``reports/``, read: as TOML with printed digits, and as items of one kind."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from harness.errors import ConfigError
from harness.experiments import toml_lines
from harness.experiments.table_files import Kind, files

Spec = TypeVar("Spec", bound=BaseModel)


def parsed(path: Path) -> tuple[str, dict[str, Any]]:
    """The text of a file and what it says, numbers with their printed digits; ConfigError where it is no TOML."""
    try:
        text = path.read_text(encoding="utf-8")
        return text, tomllib.loads(text, parse_float=Decimal)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", "Mend it, or remove it.") from None


@dataclass(frozen=True)
class Items(Generic[Spec]):
    """The files of one kind, each one a ``model``; ``keys``: those of the TOML table at a place of such a file."""

    kind: Kind
    model: type[Spec]
    keys: Callable[[toml_lines.Place], Sequence[str]]

    def items(self) -> list[tuple[str, str]]:
        """(paper, item) of every one, sorted."""
        return list(files(self.kind))

    def is_item(self, target: str) -> bool:
        """Whether ``target`` is one of them: ``iidaf/t9``."""
        return tuple(target.split("/")) in self.items()

    def of(self, target: str) -> list[Spec]:
        """Those that ``target``, an item or a paper, names; none for anything else."""
        return [self.read(path) for (paper, item), path in files(self.kind).items() if target in (paper, f"{paper}/{item}")]

    def read(self, path: Path) -> Spec:
        """The one in the file ``path``; ConfigError naming file, line, key and value where it is not valid."""
        text, content = parsed(path)
        try:
            return self.model.model_validate({**content, "paper": path.parent.name, "item": path.stem})
        except ValidationError as error:
            known = f"Keys of a file of this kind ({self.kind}): {', '.join(self.keys(()))}."
            raise ConfigError(toml_lines.faults(path, text, error, self.keys), known) from None
