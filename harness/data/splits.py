"""Which clips train, validate and test: the protocols of the field, one small value each.

| protocol | what tests | what validates, if no share is stated | random |
|---|---|---|---|
| ``official`` | the clips that the data set marks ``test`` | those it marks ``valid`` | nothing |
| ``grouped`` | fold ``index`` of ``of``; whole groups are dealt to folds of like numbers of clips | the next fold | the deal |
| ``stratified`` | the same, clip by clip with equal label shares; clips of one group lie on several sides | the next fold | the deal |
| ``stratified-grouped`` | the same, whole groups with label shares as equal as they allow | the next fold | the deal |
| ``holdout`` | groups drawn at random, so many as ``groups`` says (16/4/4: train, validate, test) | so many as it says | the draw |
| ``consecutive`` | fold ``index`` of ``of``; runs of like numbers of groups in the order of their names | the next fold | nothing |
| ``published`` | fold ``index`` of the folds that the data set ships (column ``fold`` of its clips) | the next fold | nothing |

A group is what clips of one person or recording share: a video, an actor, a session (the data set's card says which). Only
``stratified`` lets one group train and test; its scores speak of people seen in training and are not comparable with others.
Labels are stratified by class; intensities by their nearest whole number. Numbers in names of groups count as numbers: six
``consecutive`` folds of 24 actors are actors 1-4, 5-8 and so on, as RAVDESS is often cut (Su et al. 2020).

With ``validation`` stated (a share of the training clips), the validation part is instead cut out of what would train: whole
groups drawn at random until their clips come nearest to the share; clip by clip and stratified under ``stratified``. The fold
that would have validated then trains. ``repeat`` names a new deal, draw or cut. Under ``official`` a share serves data sets
that ship no validation part.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from harness import seeds
from harness.data.schema import SPLITS, Dataset, Frozen, Split, Task
from harness.errors import ConfigError, DataError
from harness.registry import suggest

Protocol = Literal["official", "grouped", "stratified", "stratified-grouped", "holdout", "consecutive", "published"]
PROTOCOLS: tuple[str, ...] = get_args(Protocol)
DEALT = ("grouped", "stratified", "stratified-grouped")
NUMBERED = (*DEALT, "consecutive")  # those whose number of folds the data do not say
FIXED = ("official", "consecutive", "published")  # those with nothing random
FOLD = "fold"  # the column of the clips in which a data set ships its folds

Mask = NDArray[np.bool_]
Ints = NDArray[np.int64]


class Fold(Frozen):
    """One cut of a data set into training, validation and test part; the module's table says what each protocol means."""

    protocol: Protocol = "official"
    index: int = Field(0, ge=0)
    of: int = Field(1, ge=1)
    repeat: int = Field(0, ge=0)
    validation: float | None = Field(None, gt=0, lt=1, description="share of the training clips that validates instead")
    groups: tuple[int, int, int] | None = Field(None, description="holdout: numbers of groups that train, validate and test")

    def __str__(self) -> str:
        share = "" if self.validation is None else f", {self.validation:.3g} of training validates"
        return self._name() + share

    def _name(self) -> str:
        if self.protocol == "official":
            return "official split"
        if self.protocol == "holdout":
            return f"hold-out {self.repeat + 1} of {'/'.join(map(str, self.groups or ()))} groups"
        kind = "" if self.protocol == "grouped" else f"{self.protocol} "
        fold = f"{kind}fold {self.index + 1}/{self.of}"
        return fold if self.protocol in FIXED and not self.repeat else f"{fold}, repeat {self.repeat + 1}"


class Parts(dict[str, Split]):
    """The splits ``train``, ``valid`` and ``test`` of one fold."""

    @property
    def hash(self) -> str:
        """SHA-256 over which clip id has which role, whatever the order of the clips."""
        return hashlib.sha256(json.dumps([[role, sorted(self[role].ids)] for role in SPLITS]).encode()).hexdigest()


def folds(
    number: int = 0,
    repeats: int = 1,
    protocol: str = "",
    *,
    validation: float | None = None,
    groups: tuple[int, int, int] | None = None,
) -> list[Fold]:
    """All folds of a protocol, repeat by repeat; without a name ``grouped`` where ``number`` is given, else ``official``.

    ``number`` counts folds (0: none asked for), ``repeats`` new deals; ``holdout`` takes ``groups`` and one draw per
    repeat. ConfigError for combinations that mean nothing.
    """
    name = protocol or ("grouped" if number else "holdout" if groups else "official")
    if name not in PROTOCOLS:
        raise ConfigError(f"there is no protocol called '{name}'", suggest(name, PROTOCOLS))
    _check(name, number, repeats, validation, groups)
    common = {"protocol": name, "validation": validation, "groups": groups}
    return [Fold.model_validate({**common, "index": i, "of": number or 1, "repeat": r}) for r in range(repeats) for i in range(number or 1)]


def cut(dataset: Dataset, fold: Fold) -> Parts:
    """The three parts of ``fold``; DataError where the data set cannot give them."""
    test, valid = _HELD_OUT[fold.protocol](dataset, fold)
    if fold.validation is not None:
        valid = _carved(dataset, _trains(dataset, fold, test), fold)
    masks = {"train": _trains(dataset, fold, test) & ~valid, "valid": valid, "test": test}
    empty = [role for role, mask in masks.items() if not mask.any()]
    if empty:
        raise DataError(f"{dataset.card.name}: {fold} leaves no clips to {' and to '.join(map(_verb, empty))}", "Ask for fewer folds.")
    return Parts({role: dataset.rows(np.flatnonzero(mask).tolist()) for role, mask in masks.items()})


def published_folds(dataset: Dataset) -> int:
    """How many folds the data set ships; DataError where it ships none or leaves clips out."""
    return len(_published(dataset)[0])


def strata(labels: pd.Series, task: Task) -> Ints:
    """Stratum of each clip, (N,): its class, or its intensity rounded to a whole number (half to even) within the scale."""
    values = labels.to_numpy(dtype=np.float64)
    return (values if task.kind == "classification" else np.rint(values.clip(task.low, task.high))).astype(np.int64)


# ---- what is asked for


def _check(name: str, number: int, repeats: int, validation: float | None, groups: tuple[int, int, int] | None) -> None:
    least = 2 if validation is not None else 3
    if name in ("official", "holdout") and number:
        raise ConfigError(f"the protocol '{name}' has no folds, {number} were asked for", f"With folds: {', '.join(NUMBERED)}, published.")
    if name in NUMBERED and not number:
        raise ConfigError(f"the protocol '{name}' needs a number of folds", "Say, for instance, --folds 5.")
    if name not in ("official", "holdout") and number < least:
        raise ConfigError(f"{number} folds cannot be cut into training, validation and test", f"Ask for at least {least} folds.")
    if validation is not None and not 0 < validation < 1:
        raise ConfigError(f"--validation {validation:g} is no share of the training clips", "Give a number between 0 and 1, such as 0.15.")
    if repeats > 1 and name in FIXED and validation is None:
        raise ConfigError(f"the protocol '{name}' has nothing random to repeat", "Leave --repeats out, or run more seeds.")
    if (name == "holdout") != (groups is not None):
        raise ConfigError("the protocol 'holdout' and --groups belong together", "Say, for instance, --protocol holdout --groups 16/4/4.")
    if groups is not None and (min(groups) < 1 or validation is not None):
        raise ConfigError(
            f"--groups {'/'.join(map(str, groups))} must say how many groups train, validate and test, without --validation",
            "Give three numbers of at least 1, such as 16/4/4.",
        )


def _verb(role: str) -> str:
    return {"valid": "validate"}.get(role, role)


# ---- what tests and what validates: masks over the clips (N,)


def _official(dataset: Dataset, fold: Fold) -> tuple[Mask, Mask]:
    column = dataset.clips["split"].to_numpy()
    here = {name: bool((column == name).any()) for name in SPLITS}
    if fold.validation is not None and here["valid"]:
        raise DataError(
            f"{dataset.card.name} ships a validation part of its own, and a share of {fold.validation:g} was asked for",
            "Leave --validation out.",
        )
    missing = [name for name in SPLITS if not here[name] and not (name == "valid" and fold.validation)]
    if missing:
        share = " or state what share of training validates: --validation 0.15" if missing == ["valid"] else ""
        raise DataError(
            f"{dataset.card.name} has no clips in {', '.join(missing)}: the official split cannot be run",
            f"Run it by cross-validation instead: --folds 5{share}.",
        )
    return column == "test", column == "valid"


def _holdout(dataset: Dataset, fold: Fold) -> tuple[Mask, Mask]:
    assert fold.groups is not None
    names, group = _groups(dataset)
    train, valid, test = fold.groups
    if train + valid + test != len(names):
        raise DataError(
            f"{dataset.card.name} has {len(names)} groups, {train}/{valid}/{test} makes {train + valid + test}",
            f"Give three numbers whose sum is {len(names)}.",
        )
    order = seeds.generator(fold.repeat, "holdout", *fold.groups).permutation(len(names))
    return np.isin(group, order[:test]), np.isin(group, order[test : test + valid])


def _folded(place: Callable[[Dataset, Fold], Ints]) -> Callable[[Dataset, Fold], tuple[Mask, Mask]]:
    """Masks from ``place``, the fold of each clip: fold ``index`` tests, the next one validates."""

    def held_out(dataset: Dataset, fold: Fold) -> tuple[Mask, Mask]:
        where = place(dataset, fold)
        return where == fold.index, where == (fold.index + 1) % fold.of

    return held_out


def _grouped(dataset: Dataset, fold: Fold) -> Ints:
    names, group = _enough_groups(dataset, fold)
    return _deal(np.bincount(group, minlength=len(names)), fold)[group]


def _stratified(dataset: Dataset, fold: Fold) -> Ints:
    if len(dataset) < fold.of:
        raise DataError(
            f"{dataset.card.name} has {len(dataset)} clips, too few for {fold.of} folds", f"Ask for at most {len(dataset)} folds."
        )
    order = _by_stratum(dataset, seeds.generator(fold.repeat, "folds", fold.of, fold.protocol))
    where = np.empty(len(dataset), dtype=np.int64)
    where[order] = np.arange(len(dataset)) % fold.of
    return where


def _stratified_grouped(dataset: Dataset, fold: Fold) -> Ints:
    from sklearn.model_selection import StratifiedGroupKFold  # takes a second to import

    _, group = _enough_groups(dataset, fold)
    stratum = strata(dataset.clips["label"], dataset.card.task)
    if np.unique(stratum, return_counts=True)[1].max() < fold.of:
        raise DataError(f"{dataset.card.name} has no label with as many clips as there are folds, {fold.of}", "Ask for fewer folds.")
    dealer = StratifiedGroupKFold(fold.of, shuffle=True, random_state=seeds.derive(fold.repeat, "folds", fold.of, fold.protocol) % 2**32)
    where = np.empty(len(dataset), dtype=np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a rare label cannot be in every fold; the check missing-class says so
        for number, (_, rows) in enumerate(dealer.split(group, stratum, group)):
            where[rows] = number
    return where


def _consecutive(dataset: Dataset, fold: Fold) -> Ints:
    names, group = _enough_groups(dataset, fold)
    order = sorted(range(len(names)), key=lambda index: _numbered(str(names[index])))
    place = np.empty(len(names), dtype=np.int64)
    place[order] = np.arange(len(names)) * fold.of // len(names)
    return place[group]


def _shipped(dataset: Dataset, fold: Fold) -> Ints:
    names, where = _published(dataset)
    if fold.of != len(names):
        raise DataError(
            f"{dataset.card.name} ships {len(names)} folds, {fold.of} were asked for", f"Say --folds {len(names)}, or leave it out."
        )
    return where


_HELD_OUT: dict[str, Callable[[Dataset, Fold], tuple[Mask, Mask]]] = {
    "official": _official,
    "holdout": _holdout,
    "grouped": _folded(_grouped),
    "stratified": _folded(_stratified),
    "stratified-grouped": _folded(_stratified_grouped),
    "consecutive": _folded(_consecutive),
    "published": _folded(_shipped),
}


# ---- parts of the above


def _groups(dataset: Dataset) -> tuple[NDArray[np.str_], Ints]:
    """Names of the groups, sorted, and each clip's group as an index into them, (N,)."""
    names, group = np.unique(dataset.clips["group"].to_numpy().astype(str), return_inverse=True)
    return names, group


def _enough_groups(dataset: Dataset, fold: Fold) -> tuple[NDArray[np.str_], Ints]:
    names, group = _groups(dataset)
    if len(names) < fold.of:
        raise DataError(f"{dataset.card.name} has {len(names)} groups, too few for {fold.of} folds", f"Ask for at most {len(names)} folds.")
    return names, group


def _numbered(name: str) -> tuple[tuple[str, int], ...]:
    """A key to sort names by, in which numbers count as numbers: 2, 10; s2, s10; 01, 02."""
    parts = re.split(r"([0-9]+)", name)
    return tuple((text, int(number or -1)) for text, number in zip(parts[::2], [*parts[1::2], ""], strict=True))


def _deal(sizes: Ints, fold: Fold) -> Ints:
    """Fold of each group: in random order, each to the fold with the fewest clips so far."""
    order = seeds.generator(fold.repeat, "folds", fold.of).permutation(len(sizes))
    load, place = np.zeros(fold.of), np.zeros(len(sizes), dtype=np.int64)
    for group in order:
        place[group] = load.argmin()
        load[place[group]] += sizes[group]
    return place


def _published(dataset: Dataset) -> tuple[list[str], Ints]:
    """The shipped folds' names, in the order of their numbers, and each clip's fold as an index into them, (N,)."""
    column = dataset.clips.get(FOLD)
    if column is None:
        raise DataError(f"{dataset.card.name} ships no folds", "Deal some: --folds 5 --protocol grouped.")
    named = column.fillna("").astype(str).to_numpy()
    lacking = np.flatnonzero(named == "")
    if len(lacking):
        clip = dataset.clips["id"].iloc[lacking[0]]
        raise DataError(f"{dataset.card.name}: {len(lacking)} clips are in no fold, the first is '{clip}'", "Give every clip a fold.")
    names = sorted(set(named.tolist()), key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0, name))
    place = {name: number for number, name in enumerate(names)}
    return names, np.array([place[name] for name in named], dtype=np.int64)


def _trains(dataset: Dataset, fold: Fold, test: Mask) -> Mask:
    return (dataset.clips["split"] == "train").to_numpy() if fold.protocol == "official" else ~test


def _carved(dataset: Dataset, pool: Mask, fold: Fold) -> Mask:
    """The clips of ``pool`` that validate."""
    rng = seeds.generator(fold.repeat, "validation", fold.protocol, fold.of, fold.index)
    count = int(pool.sum())
    wanted = min(max((fold.validation or 0) * count, 1), count - 1)  # at least one clip on either side
    return _carve_clips(dataset, pool, wanted, rng) if fold.protocol == "stratified" else _carve_groups(dataset, pool, wanted, rng)


def _carve_groups(dataset: Dataset, pool: Mask, wanted: float, rng: np.random.Generator) -> Mask:
    names, group = _groups(dataset)
    sizes = np.bincount(group[pool], minlength=len(names))
    present = np.flatnonzero(sizes)
    if len(present) < 2:
        raise DataError(f"{dataset.card.name}: the training part has a single group, of which none can be spared to validate", "")
    chosen: list[int] = []
    for one in rng.permutation(present):
        total = sizes[chosen].sum()
        if abs(total + sizes[one] - wanted) < abs(total - wanted) and len(chosen) < len(present) - 1:
            chosen.append(int(one))
    return pool & np.isin(group, chosen or [int(present[sizes[present].argmin()])])


def _carve_clips(dataset: Dataset, pool: Mask, wanted: float, rng: np.random.Generator) -> Mask:
    order = _by_stratum(dataset, rng)
    order = order[pool[order]]
    steps = np.floor(np.arange(len(order) + 1) * (wanted / len(order)) + rng.random())
    valid = np.zeros(len(pool), dtype=bool)
    valid[order[np.diff(steps) > 0]] = True
    return valid


def _by_stratum(dataset: Dataset, rng: np.random.Generator) -> Ints:
    """All clips, stratum after stratum, in random order within each: (N,)."""
    order = rng.permutation(len(dataset))
    return order[np.argsort(strata(dataset.clips["label"], dataset.card.task)[order], kind="stable")]
