"""How much better a run looks when its epoch is chosen by what it is judged on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan

from harness.training.metrics import metrics


@dataclass(frozen=True)
class Inflation:
    """One metric of one run on test, at three epochs.

    ``chosen``: validation's; ``best``: best on test by the selecting metric; ``own``: best on test by this very metric.
    Positive inflations flatter, whichever way the metric points. NaN where the metric is undefined at one of the two epochs.
    """

    metric: str
    chosen: float
    best: float
    own: float

    @property
    def inflation(self) -> float:
        """By choosing one epoch for all metrics; may be negative for any but the selecting metric."""
        return self._gain(self.best)

    @property
    def own_inflation(self) -> float:
        """By choosing an epoch for every metric by itself; never negative."""
        return self._gain(self.own)

    def _gain(self, value: float) -> float:
        gain = value - self.chosen
        return gain if metrics[self.metric].higher_is_better or gain == 0 else -gain


def best_epoch(values: Sequence[float], higher_is_better: bool) -> int:
    """The first epoch (from 1) with the best of ``values``; epochs without one (NaN) left out; 0 where there is none."""
    defined = [value for value in values if not isnan(value)]
    if not defined:
        return 0
    return list(values).index(max(defined) if higher_is_better else min(defined)) + 1


def inflations(scores: Mapping[str, Sequence[float]], chosen: int, selecting: str) -> list[Inflation]:
    """Of one run, for every metric: ``scores`` on test by epoch, (E,) each; ``chosen``: validation's epoch, from 1."""
    best = best_epoch(scores[selecting], metrics[selecting].higher_is_better)
    return [
        Inflation(
            name,
            chosen=_at(values, chosen),
            best=_at(values, best),
            own=_at(values, best_epoch(values, metrics[name].higher_is_better)),
        )
        for name, values in scores.items()
    ]


def _at(values: Sequence[float], epoch: int) -> float:
    return values[epoch - 1] if epoch else nan
