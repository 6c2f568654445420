"""Diagnosis ``best-on-test``: what a trial would have scored, had its epoch been chosen on the test split.

While the trial trains, a second copy of the method takes over its weights after every epoch and predicts the test split,
which has no labels there. Labels are read after the last prediction, when nothing is left to choose. The copy, and random
numbers that are put back, keep the trial's own numbers as they are without a diagnosis.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from harness.data.schema import Split
from harness.experiments.records import Diagnosis, Record, Scores
from harness.training import loop
from harness.training.contract import Method
from harness.training.settings import Training

BEST_ON_TEST = "best-on-test"


@dataclass
class Watch:
    """Test predictions by epoch. ``seen``: (N,) or (N, classes) for each epoch, None where they are not finite.

    ``twin`` makes the second copy, built and fitted as the trained one; ``test`` has no labels.
    """

    twin: Callable[[], Method]
    test: Split
    settings: Training
    seen: list[Tensor | None] = field(default_factory=list)
    _copy: Method | None = None

    def __post_init__(self) -> None:
        assert self.test.labels is None

    def look(self, method: Method) -> None:
        """Predict with the weights that ``method`` has now, which is read and not called."""
        with _randomness_put_back():
            if self._copy is None:
                self._copy = self.twin()
            self._copy.load_state_dict(method.state_dict())
            self.seen.append(self._predict(self._copy))

    def _predict(self, copy: Method) -> Tensor | None:
        try:
            return loop.predict(copy, self.test, self.settings)
        except loop.Diverged:  # an epoch that nobody chose may predict nonsense: it has no scores then
            return None


def conclude(record: Record, seen: Sequence[Tensor | None], score: Callable[[Tensor], Scores]) -> Diagnosis | str:
    """The diagnosis of a finished trial from its predictions by epoch, or why it cannot be trusted.

    The copy must have predicted at the chosen epoch, to the bit, what the record holds.
    """
    if seen:
        chosen = seen[record.best_epoch - 1]
        if chosen is None or chosen.tolist() != _as_lists(record.predictions.values):
            return "a copy with the same weights predicts otherwise: the method keeps something outside its state_dict, or draws at random"
    undefined: Scores = dict.fromkeys(record.test)
    epochs = tuple(undefined if values is None else score(values) for values in seen)
    return Diagnosis(key=record.key, predictions=record.predictions.fingerprint, chosen=record.best_epoch, epochs=epochs)


def unlike(stored: Record, again: Record) -> str:
    """Why ``again``, the same trial run once more, is not what was ``stored``; empty where it is, but for where it was run."""
    same = {"environment": stored.environment, "budget": stored.budget}
    if again.model_copy(update=same) == stored:
        return ""
    parts = [name for name in ("history", "best_epoch", "valid", "test", "predictions", "further") if _differ(stored, again, name)]
    then, now = (record.environment.model_dump(mode="json", exclude={"dirty"}) for record in (stored, again))
    places = [f"{name}: {then[name]!r} then, {now[name]!r} now" for name in then if then[name] != now[name]]
    return f"differs in {', '.join(parts) or 'what it says of itself'}" + (f" ({'; '.join(places)})" if places else "")


def _differ(stored: Record, again: Record, name: str) -> bool:
    return bool(getattr(stored, name) != getattr(again, name))


def _as_lists(values: Sequence[float] | Sequence[Sequence[float]]) -> list[object]:
    return [list(value) if isinstance(value, tuple) else value for value in values]


@contextmanager
def _randomness_put_back() -> Iterator[None]:
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=list(range(torch.cuda.device_count()))):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
