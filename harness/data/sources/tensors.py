"""PyTorch files from strangers, read without running what they ask for."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from harness.errors import DataError

LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"  # how files of PyTorch before 1.6 begin: a magic number


def is_tensors(path: Path, start: bytes) -> bool:
    """Whether the file ``path`` that begins with ``start`` was written by ``torch.save``."""
    if start.startswith(LEGACY):
        return True
    if not start.startswith(b"PK\x03\x04"):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/data.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError):
        return False


def load_tensors(path: Path) -> Any:
    """What ``torch.save`` wrote: tensors, containers, numbers and strings; anything else is a DataError.

    A dictionary of word numbers that makes one up for an unknown word (``defaultdict``, as MISA's) comes back without the rule.
    """
    import torch
    from torch.serialization import safe_globals

    try:
        with safe_globals([(_words, "collections.defaultdict"), *((_no_rule, name) for name in WORD_RULES)]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in the archive, the pickle or the tensor, each in its own way
        raise DataError(
            f"{path} cannot be read as a PyTorch file of tensors: {_reason(error)}",
            "It is damaged, or holds code. Write only tensors, numbers, strings and containers into it: torch.save(matrix, FILE).",
        ) from error


def _words(*_: Any) -> dict[Any, Any]:
    """Stands in for a defaultdict, which is filled after it was made."""
    return {}


def _no_rule(*_: Any) -> None:
    raise ValueError("the rule for unknown words is not run")


WORD_RULES = ("create_dataset.return_unk", "__main__.return_unk", "src.create_dataset.return_unk")


def _reason(error: Exception) -> str:
    """The sentence that matters of PyTorch's page-long one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "GLOBAL" in line or line.startswith(("Unsupported", "Can only"))]
    return (telling or lines or [type(error).__name__])[0][:200]
