"""The pickle of MulT (``mosi_data.pkl``, ``mosei_senti_data_noalign.pkl``, ``iemocap_data.pkl``).

A dictionary of splits; each holds ``vision``, ``audio`` and ``text`` (clips, steps, features), zeros in front of the first real
step, ``labels`` (clips, 1, 1), and sometimes ``id`` (clips, 3): video, start, end. A clip's id is these three joined.

IEMOCAP's labels are (clips, 4, 2): for each of neutral, happy, sad and angry, a score of "absent" and one of "present". A clip
whose scores say "present" for exactly one emotion has that class; the others have no class and are left out, with a notice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from harness.data.catalogue import Facts
from harness.data.schema import MODALITIES
from harness.data.sources.layout import Layout, Opened, Raw, as_text, class_number, count, layouts, single
from harness.data.sources.padding import unpad
from harness.data.sources.part import NUMBERS, Part, by_split, filled
from harness.errors import DataError

EMOTIONS = ("neutral", "happy", "sad", "angry")  # order of IEMOCAP's second axis
NO_IDS = "the file names no clips: they are numbered, each is a group of its own, and folds by group may put one speaker on two sides"


class PaddedPart(Part):
    """One split in which ``labels`` counts the clips."""

    counted_by = "labels"

    def identities(self) -> list[tuple[str, str]]:
        """Id and group of each clip; here MulT's rows of video, start and end, or numbers."""
        if self.content.get("id") is None:
            return [(f"{self.split}_{row}",) * 2 for row in range(self.count)]
        rows = [[as_text(field) for field in row] for row in self.column("id")]
        return [("_".join(row), row[0]) for row in rows]

    def labels(self, facts: Facts) -> list[Any]:
        """One label per clip, None where the file's scores name no single class."""
        column = self.column("labels")
        if isinstance(column, np.ndarray) and column.shape[1:] == (len(EMOTIONS), 2) and column.dtype.kind in NUMBERS:
            return self._emotions(column, facts)
        labels = [single(label) for label in column]
        many = next((number for number in map(count, labels) if number is not None), None)
        if many is not None:
            raise DataError(
                f"{self.where}['labels'] has {many} entries per clip",
                "Needed: one number per clip, (clips, 1, 1), or IEMOCAP's (clips, 4, 2).",
            )
        return labels

    def _emotions(self, scores: np.ndarray, facts: Facts) -> list[Any]:
        numbers = [class_number(emotion, facts.task) for emotion in EMOTIONS]
        if facts.task.kind == "regression" or any(isinstance(number, str) for number in numbers):
            raise DataError(
                f"{self.where}['labels'] scores {', '.join(EMOTIONS)}; {facts.title} has other labels", "Import it as iemocap4."
            )
        present = scores[:, :, 1] > scores[:, :, 0]
        return [numbers[row.argmax()] if row.sum() == 1 else None for row in present]


def padded_splits(files: Sequence[Opened]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Split -> key and content, of a pickle of MulT's kind; empty if ``files`` are none."""
    if len(files) != 1 or files[0].kind != "pickle" or not isinstance(files[0].content, dict):
        return {}
    return {
        split: (key, part)
        for split, (key, part) in by_split(files[0].content, files[0].path.name).items()
        if isinstance(part, dict) and "labels" in part and any(isinstance(part.get(m), np.ndarray | list | tuple) for m in MODALITIES)
    }


class PaddedLayout(Layout):
    """A pickle of padded arrays with ``labels``; what its ``id`` is tells MulT's from MultiBench's."""

    part: ClassVar[type[PaddedPart]] = PaddedPart

    def read(self, files: Sequence[Opened], facts: Facts) -> Raw:
        where = files[0].path.name
        parts = filled([self.part(f"{where}[{key}]", split, part) for split, (key, part) in padded_splits(files).items()], where)
        clips = pd.concat([_clips(part, facts) for part in parts], ignore_index=True)
        frames, notes = unpad([part.arrays for part in parts])
        kept = np.flatnonzero(clips["label"].notna())
        dropped = len(clips) - len(kept)
        return Raw(
            clips=clips.iloc[kept].reset_index(drop=True),
            features={modality: [clip[row] for row in kept] for modality, clip in frames.items()},
            notes=notes,
            notices=[
                *([NO_IDS] if any(part.content.get("id") is None for part in parts) else []),
                *([f"{dropped} clips are left out: the file scores none or several of {', '.join(EMOTIONS)}"] if dropped else []),
            ],
        )


def _clips(part: PaddedPart, facts: Facts) -> pd.DataFrame:
    ids, groups = zip(*part.identities(), strict=True)
    return pd.DataFrame({"id": ids, "group": groups, "split": part.split, "label": pd.Series(part.labels(facts), dtype=object)})


@layouts.register("mult")
class Mult(PaddedLayout):
    """One pickle whose ids are rows of video, start and end, or that has none."""

    title = "pickle of MulT"

    def recognise(self, files: Sequence[Opened]) -> bool:
        widths = {id_width(part) for _, part in padded_splits(files).values()}
        return bool(widths) and 1 not in widths


def id_width(part: Mapping[str, Any]) -> int:
    """Fields of a clip's id: 1 for a string or a number, 0 where there are no ids or no clips."""
    ids = part.get("id")
    if not count(ids):
        return 0
    fields = count(ids[0])  # type: ignore[index]
    return 1 if fields is None else fields
