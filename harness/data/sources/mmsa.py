"""The pickle of MMSA and Self-MM, which DMD, DLF, ALMT, LNLN, TETFN and others read too.

A dictionary of splits; each holds ``id`` (``video$_$clip``), ``regression_labels``, ``raw_text`` and, for each modality,
an array (clips, steps, features) padded with zeros at the end. How many steps of a clip are real is decided per split:

1. ``<modality>_lengths``, where the file has them.
2. Text: the attention mask (row 1 of ``text_bert``), where there is one of as many steps.
3. Audio and vision of as many steps as the text are aligned with it and share its length. If neither rule gave the
   text's length, text and all that is aligned with it share the longest length that rule 4 finds among them.
4. Up to the last step that is not all zeros.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from harness.data.catalogue import Facts
from harness.data.schema import MODALITIES, SPLITS
from harness.data.sources.layout import Layout, Opened, Raw, layouts, split_id, trailing_zeros_off
from harness.errors import DataError

LABELS = {"regression": "regression_labels", "classification": "classification_labels"}


@layouts.register("mmsa")
class Mmsa(Layout):
    """One pickle with any of the splits and any of the modalities."""

    title = "pickle of MMSA"

    def recognise(self, files: Sequence[Opened]) -> bool:
        if len(files) != 1 or not isinstance(files[0].content, dict):
            return False
        parts = [files[0].content.get(split) for split in SPLITS]
        return any(isinstance(part, dict) and "id" in part and any(key in part for key in LABELS.values()) for part in parts)

    def read(self, files: Sequence[Opened], facts: Facts) -> Raw:
        where, content = files[0].path.name, files[0].content
        parts = [_Part(f"{where}[{split}]", split, content[split]) for split in SPLITS if content.get(split) is not None]
        parts = [part for part in parts if part.count]
        if not parts:
            raise DataError(f"{where} holds no clips: each of its splits is empty", "Check that it is the right file.")
        _check_same_modalities(parts)
        cuts = [part.lengths() for part in parts]
        return Raw(
            clips=pd.concat([part.clips(LABELS[facts.task.kind]) for part in parts], ignore_index=True),
            features={
                m: [frames for part, (cut, _) in zip(parts, cuts, strict=True) for frames in _real(part.arrays[m], cut[m])]
                for m in parts[0].arrays
            },
            notes=_notes({part.split: rules for part, (_, rules) in zip(parts, cuts, strict=True)}),
        )


class _Part:
    """One split of the file, its arrays checked for form."""

    def __init__(self, where: str, split: str, content: Any) -> None:
        self.where, self.split = where, split
        if not isinstance(content, dict):
            raise DataError(f"{where} is a {type(content).__name__}", "Each split must be a dictionary of arrays.")
        self._content = content
        self.count = len(self._listed("id"))
        self.arrays = {m: self._array(m) for m in MODALITIES if content.get(m) is not None} if self.count else {}

    def clips(self, label_key: str) -> pd.DataFrame:
        """The table of clips."""
        ids, groups = zip(*(split_id(_text(identifier)) for identifier in self._column("id")), strict=True)
        labels = [_single(label) for label in self._column(label_key)]
        texts = [_text(text) for text in self._column("raw_text")] if "raw_text" in self._content else [""] * self.count
        return pd.DataFrame({"id": ids, "group": groups, "split": self.split, "label": pd.Series(labels, dtype=object), "text": texts})

    def lengths(self) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """Real steps per clip by modality, (clips,) each, and by which rule they were found."""
        found = {m: self._stated(m) for m in self.arrays if self._content.get(f"{m}_lengths") is not None}
        lengths = {m: np.minimum(stated, self.arrays[m].shape[1]) for m, stated in found.items()}
        above = {m: int((stated > lengths[m]).sum()) for m, stated in found.items()}
        rules = {m: f"as {m}_lengths says" + (f", {above[m]} above the array's steps cut to them" if above[m] else "") for m in found}
        mask = self._mask()
        if mask is not None and "text" in self.arrays and "text" not in lengths and mask.shape[1] == self.arrays["text"].shape[1]:
            lengths["text"], rules["text"] = _last(mask), "by the mask in text_bert"
        for names, rule, values in _undecided(self.arrays, lengths):
            lengths |= dict.fromkeys(names, values)
            rules |= dict.fromkeys(names, rule)
        return lengths, rules

    def _listed(self, key: str) -> Any:
        column = self._content.get(key)
        if not isinstance(column, list | tuple | np.ndarray) or (isinstance(column, np.ndarray) and not column.ndim):
            raise DataError(
                f"{self.where} has no list '{key}' with one entry per clip", f"Keys there: {', '.join(map(str, self._content))}."
            )
        return column

    def _column(self, key: str) -> Any:
        column = self._listed(key)
        if len(column) != self.count:
            raise DataError(f"{self.where}['{key}'] has {len(column)} entries, 'id' has {self.count}", "Both must list the same clips.")
        return column

    def _array(self, key: str) -> np.ndarray:
        """The modality as (clips, steps, features); (clips, features) is one step."""
        array = self._column(key)
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub" or array.ndim not in (2, 3):
            form = f"an array of type {array.dtype}, shape {array.shape}" if isinstance(array, np.ndarray) else f"a {type(array).__name__}"
            raise DataError(f"{self.where}['{key}'] is {form}", "An array of numbers (clips, steps, features) is needed.")
        return np.asarray(array if array.ndim == 3 else array[:, None, :])

    def _stated(self, modality: str) -> np.ndarray:
        key = f"{modality}_lengths"
        column = [_single(length) for length in self._column(key)]
        for identifier, length in zip(self._column("id"), column, strict=True):
            if not isinstance(length, int | float | np.integer | np.floating) or length < 0 or length != length // 1:
                raise DataError(
                    f"{self.where}['{key}'] of clip '{_text(identifier)}' is {length!r}",
                    f"Allowed: whole numbers from 0 to {self.arrays[modality].shape[1]}.",
                )
        return np.array(column, dtype=float)

    def _mask(self) -> np.ndarray | None:
        tokens = self._content.get("text_bert")
        usable = isinstance(tokens, np.ndarray) and tokens.dtype.kind in "fiub" and tokens.ndim == 3 and tokens.shape[1] == 3
        return np.asarray(self._column("text_bert")[:, 1] != 0) if usable else None


def _undecided(arrays: Mapping[str, np.ndarray], lengths: Mapping[str, np.ndarray]) -> Iterator[tuple[list[str], str, np.ndarray]]:
    """Rules 3 and 4 for the modalities that ``lengths`` lacks: which of them, by what rule, their lengths."""
    missing = [m for m in arrays if m not in lengths]
    aligned = [m for m in missing if "text" in arrays and arrays[m].shape[1] == arrays["text"].shape[1]]
    if "text" in lengths:
        yield aligned, "aligned with text", lengths["text"]
    elif aligned:
        rule = "trailing zeros off" + (f", the longest of {', '.join(aligned)}" if len(aligned) > 1 else "")
        yield aligned, rule, np.max([trailing_zeros_off(arrays[m]) for m in aligned], axis=0)
    for m in missing:
        if m not in aligned:
            yield [m], "trailing zeros off", trailing_zeros_off(arrays[m])


def _real(array: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    """Each clip's real steps, as views."""
    return [frames[:length] for frames, length in zip(array, lengths.astype(int).tolist(), strict=True)]


def _check_same_modalities(parts: Sequence[_Part]) -> None:
    for part in parts[1:]:
        if set(part.arrays) != set(parts[0].arrays):
            has = [f"{p.where} has {', '.join(p.arrays) or 'none'}" for p in (parts[0], part)]
            raise DataError(f"the splits have different modalities: {', '.join(has)}", "Every split must have the same.")


def _notes(rules: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """How lengths were found, from split -> modality -> rule: one line per modality, more where the splits differ."""
    notes: dict[str, str] = {}
    for modality in next(iter(rules.values())):
        by_split = {split: found[modality] for split, found in rules.items()}
        if len(set(by_split.values())) == 1:
            notes[f"{modality} lengths"] = next(iter(by_split.values()))
        else:
            notes |= {f"{modality} lengths, {split}": rule for split, rule in by_split.items()}
    return notes


def _last(mask: np.ndarray) -> np.ndarray:
    """Position after the last true entry of each row, (clips, steps) -> (clips,)."""
    return np.asarray((mask * np.arange(1, mask.shape[1] + 1)).max(axis=1))


def _single(value: Any) -> Any:
    """The one entry of a list or array of length 1; anything else as it is."""
    while isinstance(value, list | tuple | np.ndarray) and np.shape(value)[:1] == (1,):
        value = value[0]
    return value


def _text(value: Any) -> str:
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)
