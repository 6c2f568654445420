"""Lengths, ids, groups and sizes: what the table of clips and the offsets tell."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from harness.data.checks.registry import Found, Subject, check, some
from harness.data.schema import SPLITS, Ragged


@check("lengths", cheap=True)
def lengths(subject: Subject) -> Iterator[Found]:
    """Every clip has at least one frame, inside its modality's array, and the frames are used up."""
    for name, ragged in subject.dataset.features.items():
        fault = _fault(ragged, subject.ids)
        if fault:
            yield Found("error", f"{name}: {fault}", "Import the data set again; if it stays, the importer is at fault: report it.")


def _fault(ragged: Ragged, ids: list[str]) -> str:
    offsets, frames = ragged.offsets.numpy(), len(ragged.values)
    if offsets.shape != (len(ids) + 1,):
        return f"{len(offsets)} offsets for {len(ids)} clips"
    beyond = np.flatnonzero((offsets[1:] > frames) | (offsets[:-1] < 0))
    if len(beyond):
        return f"clip '{ids[beyond[0]]}' ends at frame {offsets[beyond[0] + 1]} of {frames} ({len(beyond)} such clips)"
    empty = np.flatnonzero(np.diff(offsets) < 1)
    if len(empty):
        return f"clip '{ids[empty[0]]}' has {np.diff(offsets)[empty[0]]} frames ({len(empty)} such clips)"
    if offsets[0] != 0 or offsets[-1] != frames:
        return f"{offsets[0] + frames - offsets[-1]} of {frames} frames belong to no clip"
    return ""


@check("shared-ids", cheap=True)
def shared_ids(subject: Subject) -> Iterator[Found]:
    """No clip id occurs twice, within a split or between splits."""
    clips = subject.dataset.clips
    repeated = clips[clips["id"].duplicated(keep=False)]
    if len(repeated):
        clip = repeated["id"].iloc[0]
        places = ", ".join(repeated.loc[repeated["id"] == clip, "split"])
        yield Found(
            "error",
            f"{repeated['id'].nunique()} ids occur more than once, such as '{clip}' in {places}",
            "Give every clip one id and one split.",
        )


@check("shared-groups", cheap=True, scope="parts")
def shared_groups(subject: Subject) -> Iterator[Found]:
    """No group (video, actor) has clips in more than one part."""
    clips = subject.dataset.clips
    places = clips.groupby("group")["split"].nunique()
    shared = [str(group) for group in places.index[places > 1]]
    if shared:
        yield Found(
            "warning",
            f"{len(shared)} {subject.facts.groups_are}s have clips in more than one part: {some(shared)}",
            "Test clips show people or recordings that were trained on: scores are too high. Deal by group: --folds 5 --protocol grouped.",
        )


@check("split-sizes", cheap=True, scope="published")
def split_sizes(subject: Subject) -> Iterator[Found]:
    """There are as many clips as the catalogue counts, in every split and in all."""
    facts = subject.facts
    counts = {part: len(subject.rows(part)) for part in subject.parts}
    empty = [split for split in SPLITS if split not in counts]
    if empty:
        told = f"no clips in {' and '.join(empty)}: for cross-validation only"
        yield Found("warning" if facts.splits else "notice", told, "Run it with folds: --folds 5.")
    different = [f"{split} {counts[split]} ({size})" for split, size in facts.splits.items() if counts.get(split, size) != size]
    if different:
        whose = next((f"; they are those of {who}" for who, sizes in facts.other_splits.items() if counts == sizes), "")
        yield Found(
            "warning",
            f"split sizes differ from the official ones, given in brackets: {', '.join(different)}{whose}",
            "Scores are not those of the official split; compare only with runs on the same clips, or get the complete files.",
        )
    if facts.clips and len(subject.dataset) != facts.clips:
        yield Found(
            "warning", f"{len(subject.dataset)} clips, published are {facts.clips}", "Files are missing, or more than one version is mixed."
        )
