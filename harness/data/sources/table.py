"""The public label table: one row per clip with ``video_id``, ``clip_id``, ``text``, ``label`` and ``mode`` (the split).

It brings labels and transcripts; features come from a text encoder or from arrays beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from harness.data.catalogue import Facts
from harness.data.sources.layout import Layout, Opened, Raw, layouts

NEEDED = {"video_id", "clip_id", "label", "mode"}


@layouts.register("table")
class LabelTable(Layout):
    """One CSV file."""

    title = "CSV table with the columns video_id, clip_id, text, label, mode"

    def recognise(self, files: Sequence[Opened]) -> bool:
        return len(files) == 1 and isinstance(files[0].content, pd.DataFrame) and set(files[0].content.columns) >= NEEDED

    def read(self, files: Sequence[Opened], facts: Facts) -> Raw:
        table: pd.DataFrame = files[0].content
        clips = pd.DataFrame(
            {
                "id": table["video_id"] + "_" + table["clip_id"],
                "group": table["video_id"],
                "split": table["mode"],
                "label": table["label"],
                "text": table.get("text", ""),
            }
        )
        return Raw(clips, features={})
