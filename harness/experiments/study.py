"""The search itself: Optuna proposes, the executor evaluates, files remember.

Trials are proposed ``together`` at a time. A batch knows the results of the batches before it and nothing of its own, each
trial has a sampler with a seed of its own, and limits for giving up come from earlier batches too: so what is found depends
neither on the number of workers, nor on which of them is faster, nor on where an earlier call was interrupted.

``<folder>/journal.log`` is Optuna's journal, one entry per finished trial; ``<folder>/trials/`` holds a JSON file for each,
written when it ends. A trial that has its file is not run again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError

from harness import seeds
from harness.data.schema import Frozen
from harness.errors import ConfigError, HarnessError
from harness.experiments.events import InnerRun
from harness.experiments.search import Search, Settings, curve, limits
from harness.files import write_atomic
from harness.training.ranges import Range

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

RANDOM = 10  # trials before the sampler learns from results


class TrialRecord(Frozen):
    """One trial of a search. ``objective`` is None where it did not finish: ``message`` says why."""

    search: str
    number: int
    settings: Settings = Field(description="what was searched; trial 0: as published")
    outcome: Literal["finished", "pruned", "diverged", "failed"]
    objective: float | None = None
    runs: tuple[InnerRun, ...] = ()
    message: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Proposal:
    """Settings to be tried, and the limits at which they are given up."""

    number: int
    settings: Settings
    limits: tuple[float | None, ...]


Evaluate = Callable[[Sequence[Proposal], Callable[[TrialRecord], None]], None]
Protect = Callable[[Callable[[], None], str], None]


class TrialFiles:
    """``<folder>/trials/0007.json``; only one process writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, number: int) -> Path:
        return self.folder / "trials" / f"{number:04d}.json"

    def put(self, trial: TrialRecord) -> None:
        write_atomic(self.path(trial.number), (trial.model_dump_json(indent=1) + "\n").encode())

    def get(self, number: int) -> TrialRecord | None:
        """The stored trial, or None where there is none or it is damaged: it is then run again."""
        try:
            return TrialRecord.model_validate_json(self.path(number).read_bytes())
        except (OSError, ValidationError):
            return None


def conduct(search: Search, trials: int, folder: Path, evaluate: Evaluate, protect: Protect) -> list[TrialRecord]:
    """Bring the search to ``trials`` trials, in batches; those that are stored are taken as they are.

    ``protect`` wraps what is written. Raises HarnessError where the published settings and all others of the first batch fail.
    """
    study, files, found = open_study(search, folder), TrialFiles(folder), list[TrialRecord]()
    for start in range(0, trials, search.together):
        numbers = range(start, min(start + search.together, trials))
        proposals = propose(search, found, numbers)
        stored = {one.number: files.get(one.number) for one in proposals}
        fitting = {one.number: known for one in proposals if (known := stored[one.number]) and known.settings == one.settings}

        def keep(trial: TrialRecord, known: dict[int, TrialRecord] = fitting) -> None:
            protect(partial(files.put, trial), f"trial {trial.number}")
            known[trial.number] = trial

        missing = [one for one in proposals if one.number not in fitting]
        if missing:
            evaluate(missing, keep)
        found += [fitting[number] for number in numbers]
        _stop_where_all_fail(found)
        protect(partial(_mirror, study, search, list(found)), "the journal of the search")
    return found


def best(trials: Sequence[TrialRecord]) -> TrialRecord | None:
    """The finished trial with the lowest objective, the first of equals; None where none has finished."""
    finished = [trial for trial in trials if trial.objective is not None]
    return min(finished, key=lambda trial: (trial.objective, trial.number), default=None)


# ---- Optuna


def propose(search: Search, found: Sequence[TrialRecord], numbers: Sequence[int]) -> list[Proposal]:
    """The settings of the trials ``numbers``, given what was found before them. The same arguments give the same proposals."""
    from optuna.samplers import TPESampler

    study = frozen_study(search, found)
    epochs = int(search.config["training"]["max_epochs"])
    limit = limits([curve(trial.runs, epochs) for trial in found if trial.outcome == "finished"], epochs, search.runs)
    proposals = []
    for number in numbers:
        # A sampler that is kept over a restart would draw the numbers of its first trials again.
        study.sampler = TPESampler(seed=seeds.derive(0, "tune", search.method, number) % 2**32, n_startup_trials=RANDOM)
        if number == 0:
            study.enqueue_trial(_clipped(search.published, search.space))
        asked = study.ask(_distributions(search.space))
        settings = search.published if number == 0 else {key: asked.params[key] for key in search.space}
        proposals.append(Proposal(number, settings, limit))
    return proposals


def frozen_study(search: Search, found: Sequence[TrialRecord]) -> Study:
    """A study in memory that holds these trials."""
    study = _study(None, search)
    study.add_trials([_frozen(trial, search) for trial in found])
    return study


def open_study(search: Search, folder: Path) -> Study:
    """The study in Optuna's journal below ``folder``; what a killed process left of a line or a lock is removed."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "journal.log"
    _mend(path)
    return _study(JournalStorage(JournalFileBackend(str(path), JournalFileOpenLock(str(path)))), search)


def need_optuna() -> None:
    """ConfigError where Optuna is not installed."""
    if find_spec("optuna") is None:
        raise ConfigError("optuna is not installed", "Install it: pip install 'mer-harness[tune]'.")


def _study(storage: Any, search: Search) -> Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    name = f"{search.method}-{search.dataset}-{search.key}"
    return optuna.create_study(storage=storage, study_name=name, direction="minimize", load_if_exists=True)


def _mend(path: Path) -> None:
    # The results folder has one writer at a time (Workspace.writing), so a lock that is there is a dead one's.
    for lock in path.parent.glob(f"{path.name}.lock*"):
        with suppress(OSError):
            lock.unlink()
    if path.exists():
        content = path.read_bytes()
        os.truncate(path, content.rfind(b"\n") + 1)


def _mirror(study: Study, search: Search, found: Sequence[TrialRecord]) -> None:
    """Append to the journal the trials that it lacks."""
    known = len(study.get_trials(deepcopy=False))
    study.add_trials([_frozen(trial, search) for trial in found[known:]])


def _frozen(trial: TrialRecord, search: Search) -> FrozenTrial:
    """The trial as Optuna knows it. One that diverged counts as given up at its start: its settings are bad, not unlucky."""
    from optuna.trial import TrialState, create_trial

    states = {"finished": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "diverged": TrialState.PRUNED, "failed": TrialState.FAIL}
    return create_trial(
        state=states[trial.outcome],
        value=trial.objective if trial.outcome == "finished" else None,
        params=_clipped(trial.settings, search.space),
        distributions=_distributions(search.space),
        intermediate_values=curve(trial.runs, int(search.config["training"]["max_epochs"])),
        user_attrs={"settings": trial.settings, "outcome": trial.outcome, "published": trial.number == 0},
    )


def _distributions(space: Mapping[str, Range]) -> dict[str, BaseDistribution]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    def one(range_: Range) -> BaseDistribution:
        if range_.choices:
            return CategoricalDistribution(range_.choices)
        if range_.whole:
            return IntDistribution(int(range_.low), int(range_.high), log=range_.log)
        return FloatDistribution(float(range_.low), float(range_.high), log=range_.log)

    return {key: one(range_) for key, range_ in space.items()}


def _clipped(settings: Settings, space: Mapping[str, Range]) -> Settings:
    """Settings inside their ranges: for the sampler, a published 0 on a log scale is the range's low end."""
    return {key: range_.nearest(settings[key]) for key, range_ in space.items()}


def _stop_where_all_fail(found: Sequence[TrialRecord]) -> None:
    if all(trial.outcome == "failed" for trial in found):
        raise HarnessError(
            f"all of the first {len(found)} trials failed; the published settings: {found[0].message}",
            "Mend the method or the settings, then type the command again with --restart.",
        )
