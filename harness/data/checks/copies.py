"""Copies: clips that are the same recording, and clips that cannot be as alike as they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from harness.data.checks.registry import Found, Subject, check, some

FEW = 5  # so many clips may share one content by accident, or 1 per cent of all if that is more
REMOVE = "Remove all but one of each from the file and import it again."


@check("duplicate-clips", cheap=False)
def duplicate_clips(subject: Subject) -> Iterator[Found]:
    """No two clips have the same content in every modality."""
    same = _same(subject)
    split, group, label = (subject.dataset.clips[column].to_numpy() for column in ("split", "group", "label"))
    leaking = [rows for rows in same if len(set(split[rows])) > 1]
    between = [rows for rows in same if len(set(split[rows])) == 1 and len(set(group[rows])) > 1]
    inside = [rows for rows in same if len(set(split[rows])) == 1 and len(set(group[rows])) == 1]
    torn = [rows for rows in same if len(set(label[rows])) > 1]
    if leaking:
        told = f"{len(leaking)} clips lie in more than one split under different ids: {_pairs(subject, leaking)}"
        yield Found("warning", told, f"The test part may hold clips that were trained on. {REMOVE}")
    if between:
        told = f"{len(between)} clips occur in more than one group: {_pairs(subject, between)}"
        yield Found("warning", told, f"Folds by group may train and test on the same clip. {REMOVE}")
    if inside:
        told = f"{len(inside)} clips occur more than once, within one group: {_pairs(subject, inside)}"
        yield Found("notice", told, "No fold by group parts them; they count double.")
    if torn:
        told = f"{len(torn)} clips occur with different labels: {_pairs(subject, torn)}"
        yield Found("warning", told, f"At most one of the labels can be right. {REMOVE}")


@check("identical-rows", cheap=False)
def identical_rows(subject: Subject) -> Iterator[Found]:
    """No content of a modality is shared by many clips, but for text of the same words."""
    limit = max(FEW, len(subject.ids) / 100)
    for name, survey in subject.survey.items():
        many = [rows for rows in survey.copies if len(rows) > limit and not survey.zero[rows[0]]]
        shared = [rows for rows in many if name != "text" or not _same_words(subject, rows)]
        if shared:
            most = [subject.ids[row] for row in max(shared, key=len)]
            yield Found(
                "warning",
                f"{name}: {sum(map(len, shared))} clips do not differ ({len(shared)} contents), most often {some(most)}",
                "A default that stands in where extraction failed? Extract these clips anew, or mark them as empty (zeros).",
            )


def _same(subject: Subject) -> list[list[int]]:
    """Rows of clips that agree in every modality and are not empty."""
    surveys = list(subject.survey.values())
    if not surveys:
        return []
    content = np.stack([survey.content() for survey in surveys], axis=1)
    empty = np.all([survey.zero for survey in surveys], axis=0)
    _, first, number, counts = np.unique(content, axis=0, return_index=True, return_inverse=True, return_counts=True)
    repeated = [kind for kind in np.flatnonzero(counts > 1) if not empty[first[kind]]]
    return sorted(np.flatnonzero(number == kind).tolist() for kind in repeated)


def _same_words(subject: Subject, rows: Sequence[int]) -> bool:
    words = {text.strip().lower() for text in subject.dataset.clips["text"].iloc[list(rows)]}
    return len(words) == 1 and words != {""}


def _pairs(subject: Subject, sets: Sequence[Sequence[int]]) -> str:
    return some([" = ".join(subject.ids[row] for row in rows[:3]) for rows in sets])
