"""A CSV manifest: one's own data, one row per clip.

| column | what it is |
|---|---|
| ``id`` | unique name of the clip |
| ``label`` | a number, or the name of a class |
| ``group`` | who or what clips share (speaker, video): clips of one group stay together |
| ``split`` | ``train``, ``valid`` (``dev``, ``val``) or ``test``; without the column there is no official split |
| ``fold`` | name of the clip's fold, if folds were published |
| ``text`` | transcript |
| ``audio``, ``video`` | media file |
| ``text_features``, ``audio_features``, ``vision_features`` | .npy or .csv file with the clip's frames |

``id`` and ``label`` must be there, and any of the rest. Paths are relative to the manifest. An empty cell means: this clip has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from harness.data.catalogue import Facts
from harness.data.schema import MODALITIES
from harness.data.sources.featurefiles import read_frames
from harness.data.sources.layout import Layout, Opened, Raw, class_number, layouts, split_name
from harness.errors import DataError

FEATURES = {f"{modality}_features": modality for modality in MODALITIES}
MEDIA = ("audio", "video")
OWN = ("group", "fold", *MEDIA, *FEATURES)  # what tells a manifest from a plain table of transcripts
COLUMNS = ("id", "label", "split", "text", *OWN)
NO_GROUPS = "the manifest has no column 'group': folds by group may put clips of one speaker on two sides"


@layouts.register("manifest")
class Manifest(Layout):
    """One CSV file."""

    title = f"CSV manifest with the columns id, label and any of split, text, {', '.join(OWN)}"

    def recognise(self, files: Sequence[Opened]) -> bool:
        if len(files) != 1 or files[0].kind != "table":
            return False
        columns = set(files[0].content.columns)
        return columns >= {"id", "label"} and bool(columns & set(OWN))

    def read(self, files: Sequence[Opened], facts: Facts) -> Raw:
        path, table = files[0].path, files[0].content
        folder = path.parent
        media = [kind for kind in MEDIA if kind in table]
        _check_files(path, table, [*media, *(column for column in FEATURES if column in table)])
        unused = [column for column in table.columns if column not in COLUMNS]
        return Raw(
            clips=_clips(table, facts).assign(**{kind: table[kind] for kind in media}),
            features={m: _features(folder, table[column]) for column, m in FEATURES.items() if column in table},
            notes={"columns not used": ", ".join(unused)} if unused else {},
            notices=[] if "group" in table else [NO_GROUPS],
            media_root=folder.resolve() if media else None,
        )


def _clips(table: pd.DataFrame, facts: Facts) -> pd.DataFrame:
    clips = pd.DataFrame(
        {
            "id": table["id"],
            "group": table.get("group", table["id"]),
            "split": table["split"].map(split_name) if "split" in table else "train",
            "label": pd.Series([class_number(label, facts.task) for label in table["label"]], dtype=object),
            "text": table.get("text", ""),
        }
    )
    return clips.assign(fold=table["fold"]) if "fold" in table else clips


def _check_files(manifest: Path, table: pd.DataFrame, columns: Sequence[str]) -> None:
    """DataError naming the first file that is not there."""
    for column in columns:
        gone = [row for row, path in enumerate(table[column]) if path and not (manifest.parent / path).is_file()]
        if gone:
            clip, path = table["id"].iloc[gone[0]], table[column].iloc[gone[0]]
            raise DataError(
                f"{manifest}: {column} of clip '{clip}' is '{path}', which is not there ({len(gone)} such)",
                "Paths are relative to the manifest's folder. Leave a cell empty where a clip has no file.",
            )


def _features(folder: Path, column: pd.Series) -> list[np.ndarray]:
    frames = [read_frames(folder / path) if path else None for path in column]
    width = next((part.shape[1] for part in frames if part is not None), 0)
    return [np.zeros((0, width)) if part is None else part for part in frames]
