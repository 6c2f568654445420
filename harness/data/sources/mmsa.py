"""The pickle of MMSA and Self-MM, which DMD, DLF, ALMT, LNLN, TETFN and others read too.

A dictionary of splits; each holds ``id`` (``video$_$clip``), ``regression_labels``, ``raw_text`` and, for each modality,
an array (clips, steps, features) padded with zeros at the end. How many steps of a clip are real is decided per split:

1. ``<modality>_lengths``, where the file has them.
2. Text: the attention mask (row 1 of ``text_bert``), where there is one of as many steps.
3. Audio and vision of as many steps as the text are aligned with it and share its length. If neither rule gave the
   text's length, text and all that is aligned with it share the longest length that rule 4 finds among them.
4. Up to the last step that is not all zeros.

CH-SIMS adds ``regression_labels_T``, ``_A`` and ``_V``, what annotators of one modality alone saw; they are not used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from harness.data.catalogue import Facts
from harness.data.sources.layout import Layout, Opened, Raw, as_text, layouts, single, split_id
from harness.data.sources.padding import trailing_zeros_off
from harness.data.sources.part import NUMBERS, Part, by_split, filled
from harness.errors import DataError

LABELS = {"regression": "regression_labels", "classification": "classification_labels"}
OF_ONE_MODALITY = tuple(f"regression_labels_{letter}" for letter in "TAV")


@layouts.register("mmsa")
class Mmsa(Layout):
    """One pickle with any of the splits and any of the modalities."""

    title = "pickle of MMSA"

    def recognise(self, files: Sequence[Opened]) -> bool:
        if len(files) != 1 or not isinstance(files[0].content, dict):
            return False
        parts = by_split(files[0].content, files[0].path.name).values()
        return any(isinstance(part, dict) and "id" in part and any(key in part for key in LABELS.values()) for _, part in parts)

    def read(self, files: Sequence[Opened], facts: Facts) -> Raw:
        where, content = files[0].path.name, files[0].content
        found = by_split(content, where)
        parts = filled([_Part(f"{where}[{key}]", split, part) for split, (key, part) in found.items()], where)
        cuts = [part.lengths() for part in parts]
        unused = [key for key in OF_ONE_MODALITY if any(key in part.content for part in parts)]
        return Raw(
            clips=pd.concat([part.clips(LABELS[facts.task.kind]) for part in parts], ignore_index=True),
            features={
                m: [frames for part, (cut, _) in zip(parts, cuts, strict=True) for frames in _real(part.arrays[m], cut[m])]
                for m in parts[0].arrays
            },
            notes=_notes({part.split: rules for part, (_, rules) in zip(parts, cuts, strict=True)})
            | ({"labels not used": ", ".join(unused)} if unused else {}),
        )


class _Part(Part):
    def clips(self, label_key: str) -> pd.DataFrame:
        """The table of clips."""
        ids, groups = zip(*(split_id(as_text(identifier)) for identifier in self.column("id")), strict=True)
        labels = [single(label) for label in self.column(label_key)]
        texts = [as_text(text) for text in self.column("raw_text")] if "raw_text" in self.content else [""] * self.count
        return pd.DataFrame({"id": ids, "group": groups, "split": self.split, "label": pd.Series(labels, dtype=object), "text": texts})

    def lengths(self) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """Real steps per clip by modality, (clips,) each, and by which rule they were found."""
        found = {m: self._stated(m) for m in self.arrays if self.content.get(f"{m}_lengths") is not None}
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

    def _stated(self, modality: str) -> np.ndarray:
        key = f"{modality}_lengths"
        column = [single(length) for length in self.column(key)]
        for identifier, length in zip(self.column("id"), column, strict=True):
            if not isinstance(length, int | float | np.integer | np.floating) or length < 0 or length != length // 1:
                raise DataError(
                    f"{self.where}['{key}'] of clip '{as_text(identifier)}' is {length!r}",
                    f"Allowed: whole numbers from 0 to {self.arrays[modality].shape[1]}.",
                )
        return np.array(column, dtype=float)

    def _mask(self) -> np.ndarray | None:
        tokens = self.content.get("text_bert")
        usable = isinstance(tokens, np.ndarray) and tokens.dtype.kind in NUMBERS and tokens.ndim == 3 and tokens.shape[1] == 3
        return np.asarray(self.column("text_bert")[:, 1] != 0) if usable else None


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
