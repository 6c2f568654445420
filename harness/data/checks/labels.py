"""Labels: their range, their histogram, and whether every part has every class."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.stats import chi2_contingency

from harness.data.checks.registry import Found, Subject, check, some
from harness.data.schema import Task
from harness.data.splits import strata

LIKE = 0.05  # splits of other sizes than this (relative) hold other clips: split-sizes says so, their labels are not compared
APART = 0.05  # total variation distance from the published histogram that is noticed
CHANCE = 1e-4  # and how improbable it must be by chance


@check("label-range", cheap=True)
def label_range(subject: Subject) -> Iterator[Found]:
    """Every label is a class, or an intensity within the scale."""
    task, labels = subject.dataset.card.task, subject.dataset.clips["label"].to_numpy(dtype=np.float64)
    wrong = np.flatnonzero(~_allowed(labels, task))
    if len(wrong):
        allowed = f"0 to {len(task.classes) - 1}" if task.kind == "classification" else f"{task.low:g} to {task.high:g}"
        yield Found(
            "error",
            f"clip '{subject.ids[wrong[0]]}' has the label {labels[wrong[0]]:g} ({len(wrong)} such clips)",
            f"Allowed: {allowed}. Mend the labels in the file and import it again.",
        )


def _allowed(labels: np.ndarray, task: Task) -> np.ndarray:
    if task.kind == "regression":
        return np.asarray((labels >= task.low) & (labels <= task.high))
    return np.isin(labels, np.arange(len(task.classes)))


@check("missing-class", cheap=True, scope="parts")
def missing_class(subject: Subject) -> Iterator[Found]:
    """Every part has clips of every class; intensities on a scale around 0: clips of both signs."""
    for part in subject.parts:
        missing = _missing(subject.dataset.clips["label"].to_numpy(dtype=np.float64)[subject.rows(part)], subject.dataset.card.task)
        if missing:
            why = "No method can learn what it never sees." if part == "train" else f"Scores of the {part} part leave these out."
            yield Found("warning", f"the {part} part has no clip labelled {some(missing)}", f"{why} Use fewer or stratified folds.")


def _missing(labels: np.ndarray, task: Task) -> list[str]:
    if task.kind == "classification":
        return [name for index, name in enumerate(task.classes) if not (labels == index).any()]
    signs = {"above 0": (labels > 0).any() or task.high <= 0, "below 0": (labels < 0).any() or task.low >= 0}
    return [name for name, there in signs.items() if not there]


@check("label-histogram", cheap=True, scope="published")
def label_histogram(subject: Subject) -> Iterator[Found]:
    """Labels are distributed over each split as published, up to chance."""
    task = subject.dataset.card.task
    for part, published in subject.facts.labels.items():
        rows = subject.rows(part)
        names = list(task.classes) if task.kind == "classification" else [str(value) for value in range(int(task.low), int(task.high) + 1)]
        wanted = np.array([published.get(name, 0) for name in names])
        if not len(rows) or abs(len(rows) - wanted.sum()) > LIKE * wanted.sum():
            continue
        first = 0 if task.kind == "classification" else int(task.low)
        bins = (strata(subject.dataset.clips["label"].iloc[rows], task) - first).clip(0, len(names) - 1)
        found = np.bincount(bins, minlength=len(names))
        if _apart(found, wanted):
            shares = [f"{name} {f / found.sum():.0%} ({w / wanted.sum():.0%})" for name, f, w in zip(names, found, wanted, strict=True)]
            yield Found(
                "warning",
                f"the labels of the {part} split are not distributed as published, given in brackets: {', '.join(shares)}",
                "Check that it is the right label column (intensities, not classes; no sign turned) and that these are the clips.",
            )


def _apart(found: np.ndarray, published: np.ndarray) -> bool:
    distance = np.abs(found / found.sum() - published / published.sum()).sum() / 2
    table = np.stack([found, published])
    return bool(distance > APART and chi2_contingency(table[:, table.any(0)]).pvalue < CHANCE)
