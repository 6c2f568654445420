"""What a check is, and running them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from harness.data.catalogue import Facts
from harness.data.checks.survey import Survey, survey
from harness.data.schema import SPLITS, Dataset, Finding
from harness.data.splits import Fold, cut
from harness.registry import Registry

Severity = Literal["error", "warning", "notice"]
Scope = Literal["clips", "published", "parts"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "notice")


class Found(NamedTuple):
    """One thing that a check found: what, where (clip, modality, value), and what to do about it."""

    severity: Severity
    message: str
    remedy: str


@dataclass(frozen=True)
class Subject:
    """What checks look at. ``dataset.clips["split"]`` says who trains, validates and tests."""

    dataset: Dataset
    facts: Facts

    @cached_property
    def survey(self) -> dict[str, Survey]:
        """Each modality's values in figures. Reads every value once; only costly checks ask for it."""
        return {name: survey(ragged) for name, ragged in self.dataset.features.items()}

    @cached_property
    def ids(self) -> list[str]:
        return [str(clip) for clip in self.dataset.clips["id"]]

    def rows(self, part: str) -> np.ndarray:
        """Rows of the clips of one part, (n,)."""
        return np.flatnonzero(self.dataset.clips["split"].to_numpy() == part)

    @property
    def parts(self) -> list[str]:
        """The parts that have clips."""
        return [part for part in SPLITS if len(self.rows(part))]


Look = Callable[[Subject], Iterator[Found]]


@dataclass(frozen=True)
class Check:
    """A named look at a data set.

    ``cheap`` checks read the table of clips and lengths only. ``scope``: the clips as such; the split as compared with
    the published one; or the parts in use, whatever protocol made them.
    """

    name: str
    look: Look
    cheap: bool
    scope: Scope

    def __call__(self, subject: Subject) -> list[Finding]:
        """What this check finds."""
        return [Finding(check=self.name, **found._asdict()) for found in self.look(subject)]


checks: Registry[Check] = Registry("check")


def check(name: str, *, cheap: bool, scope: Scope = "clips") -> Callable[[Look], Look]:
    """Decorator that registers a generator of ``Found`` as the check ``name``."""

    def register(look: Look) -> Look:
        checks.register(name)(Check(name, look, cheap, scope))
        return look

    return register


def examine(dataset: Dataset, facts: Facts) -> tuple[Finding, ...]:
    """All that the checks find in ``dataset``, worst first. Reads every value once; where lengths are wrong, values are not read."""
    subject = Subject(dataset, facts)
    found = [one for check in _chosen(cheap=True) for one in check(subject)]
    if not any(one.check == "lengths" for one in found):
        found += [one for check in _chosen(cheap=False) for one in check(subject)]
    return _sorted(found)


def examined(dataset: Dataset, facts: Facts) -> Dataset:
    """``dataset`` with all that the checks find on its card."""
    return replace(dataset, card=dataset.card.model_copy(update={"findings": examine(dataset, facts)}))


def examine_folds(dataset: Dataset, facts: Facts, folds: Sequence[Fold]) -> tuple[Finding, ...]:
    """What is known before training on ``folds``: what the card says of the values, and what the cheap checks find now.

    What they find in the parts of several folds is told once, with the first of them. DataError where a fold cannot be cut.
    """
    subject = Subject(dataset, facts)
    stored = [one for one in dataset.card.findings if one.check not in {check.name for check in _chosen(cheap=True)}]
    official = any(fold.protocol == "official" for fold in folds)
    found = [
        one
        for check in _chosen(cheap=True)
        if check.scope == "clips" or (check.scope == "published" and official)
        for one in check(subject)
    ]
    seen: dict[tuple[str, str], Finding] = {}
    for fold in folds:
        parts = _as_parts(subject, fold)
        for one in (one for check in _chosen(cheap=True) if check.scope == "parts" for one in check(parts)):
            named = one if fold.protocol == "official" else one.model_copy(update={"message": f"{fold}: {one.message}"})
            seen.setdefault((one.check, one.severity), named)
    return _sorted([*stored, *found, *seen.values()])


def _chosen(*, cheap: bool) -> list[Check]:
    return [checks[name] for name in checks if checks[name].cheap == cheap]


def _as_parts(subject: Subject, fold: Fold) -> Subject:
    """The data set as if ``fold`` were the split it ships."""
    roles = np.full(len(subject.dataset), "", dtype=object)
    for role, split in cut(subject.dataset, fold).items():
        roles[split.rows.numpy()] = role
    return replace(subject, dataset=replace(subject.dataset, clips=subject.dataset.clips.assign(split=roles)))


def _sorted(found: Sequence[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(found, key=lambda one: SEVERITIES.index(one.severity)))


def some(names: Sequence[str], most: int = 3) -> str:
    """The first few of ``names``, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
