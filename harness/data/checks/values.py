"""Values: what is not finite, never changes, is missing or lies at the wrong end."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from harness.data.checks.registry import Found, Severity, Subject, check, some

MANY = 0.01  # share from which a nuisance becomes a warning
PADDED = 0.1  # share of clips that begin with zeros from which padding is suspected: real clips do so now and then


@check("non-finite", cheap=False)
def non_finite(subject: Subject) -> Iterator[Found]:
    """No value is NaN or infinite; how many were, before import set them to 0."""
    for name, survey in subject.survey.items():
        clips = np.flatnonzero(survey.nonfinite)
        if len(clips):
            yield Found(
                "error",
                f"{name}: {survey.nonfinite.sum()} values are NaN or infinite, first in clip '{subject.ids[clips[0]]}'",
                "Training would fail on them. Import the data set again: import sets them to 0 and counts them.",
            )
    for name, card in subject.dataset.card.modalities.items():
        if card.nonfinite_replaced:
            share = card.nonfinite_replaced / (card.frames * card.dim)
            yield Found(
                _grade(share),
                f"{name}: {card.nonfinite_replaced} values ({share:.2%}) were NaN or infinite and were set to 0",
                "Usual for COVAREP (logarithms of 0). If it is much, extract the features anew.",
            )


@check("constant-features", cheap=False)
def constant_features(subject: Subject) -> Iterator[Found]:
    """Every feature takes more than one value."""
    for name, survey in subject.survey.items():
        constant = np.flatnonzero(survey.low == survey.high)
        if len(constant) == len(survey.low):
            yield Found(
                "error", f"{name}: every frame of every clip is the same", "There is nothing in it: extract it anew, or leave it out."
            )
        elif len(constant):
            yield Found(
                _grade(len(constant) / len(survey.low)),
                f"{name}: {len(constant)} of {len(survey.low)} features never change: {some([f'#{index}' for index in constant], 8)}",
                "Harmless in itself; the extractor may have failed on them. (The first is #0.)",
            )


@check("empty-clips", cheap=False)
def empty_clips(subject: Subject) -> Iterator[Found]:
    """No clip holds nothing but zeros in a modality."""
    for name, survey in subject.survey.items():
        empty = np.flatnonzero(survey.zero)
        if len(empty):
            none = subject.dataset.card.modalities[name].empty_clips
            yield Found(
                _grade(len(empty) / len(survey.zero)),
                f"{name}: {len(empty)} clips hold nothing but zeros ({none} had no frame): {some([subject.ids[row] for row in empty])}",
                "The extractor found no face, no voice or no word there. Methods see zeros; a method for missing modalities may use that.",
            )


@check("front-padding", cheap=False)
def front_padding(subject: Subject) -> Iterator[Found]:
    """Clips do not begin with frames of zeros: padding stands at the end or, here, nowhere."""
    for name, survey in subject.survey.items():
        padded = np.flatnonzero((survey.leading > 1) & ~survey.zero)
        if len(padded) >= PADDED * len(survey.leading):
            first = padded[0]
            yield Found(
                "warning",
                f"{name}: {len(padded)} of {len(survey.leading)} clips begin with frames of zeros, "
                f"such as '{subject.ids[first]}' with {survey.leading[first]} of {survey.lengths[first]}",
                "Padding at the front was taken for frames, and shifts modalities against each other. Cut it off before import.",
            )


@check("repeated-frames", cheap=False)
def repeated_frames(subject: Subject) -> Iterator[Found]:
    """Frames of a clip differ: one vector per clip is a sequence of length one, not many copies."""
    for name, survey in subject.survey.items():
        long = survey.lengths > 1
        frozen = survey.frozen & ~survey.zero
        if long.any() and frozen.sum() > long.sum() / 2:
            yield Found(
                "notice",
                f"{name}: in {frozen.sum()} of {long.sum()} clips all frames are equal",
                "It is one vector per clip, repeated. Give it once, as (clips, features): the same information, faster.",
            )


def _grade(share: float) -> Severity:
    return "warning" if share >= MANY else "notice"
