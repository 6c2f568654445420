"""A plain table of transcripts and labels: ``id``, ``split``, ``label``, and ``text`` or ``punchline`` (``context`` before it).

It brings labels and transcripts; features come from a text encoder or from arrays beside it. Of a table with a punchline, the
text is the parts that the data set's file names in ``parts``, else the punchline.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from harness.data.catalogue import Facts
from harness.data.sources.layout import Layout, Opened, Raw, class_number, layouts, split_id, split_name
from harness.data.sources.manifest import OWN
from harness.errors import DataError


@layouts.register("transcripts")
class Transcripts(Layout):
    """One CSV file."""

    title = "CSV table with the columns id, split, label, and text or punchline"

    def recognise(self, files: Sequence[Opened]) -> bool:
        if len(files) != 1 or files[0].kind != "table":
            return False
        columns = set(files[0].content.columns)
        return columns >= {"id", "split", "label"} and bool(columns & {"text", "punchline"}) and not columns & set(OWN)

    def read(self, files: Sequence[Opened], facts: Facts) -> Raw:
        table: pd.DataFrame = files[0].content
        ids = [split_id(clip) for clip in table["id"]]
        told = [part for part in facts.parts if part in table] or ["punchline"]
        parts = told if "punchline" in table else ["text"]
        if not len(table):
            raise DataError(f"{files[0].path.name} holds no clips", "Check that it is the right file.")
        clips = pd.DataFrame(
            {
                "id": [clip for clip, _ in ids],
                "group": [group for _, group in ids],
                "split": table["split"].map(split_name),
                "label": pd.Series([class_number(label, facts.task) for label in table["label"]], dtype=object),
                "text": [" ".join(row).strip() for row in zip(*(table[part] for part in parts), strict=True)],
            }
        )
        alone = clips["group"].nunique() == len(clips)
        return Raw(clips, {}, {"text from": " and ".join(parts)}, ["no two clips share a group: folds by group may leak"] if alone else [])
