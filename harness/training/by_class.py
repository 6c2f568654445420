"""Recall and F1 of one class, for tables that are printed class by class; classes are numbered as their task lists them.

They are ``recall_0`` to ``f1_9``. They stand beside harness.training.metrics, not in it: no training depends on them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from harness.training.metrics import Floats, Metric, Statistics, metrics

CLASSES = 10  # classes that have metrics of their own


def _outcomes(label: int) -> Statistics:
    """(hit, true, predicted), each 0 or 1, of the class ``label``."""
    cells = metrics["f1_macro"].statistics

    def outcomes(prediction: object, truth: object) -> Floats:
        table = cells(prediction, truth)  # type: ignore[arg-type]
        classes = round(table.shape[-1] ** 0.5)
        matrix = table.reshape(*table.shape[:-1], classes, classes)
        if label >= classes:  # predicted labels alone do not say how many classes there are
            return np.zeros((*table.shape[:-1], 3))
        return np.stack([matrix[..., label, label], matrix[..., label, :].sum(-1), matrix[..., :, label].sum(-1)], axis=-1)

    return outcomes


def _recall(sums: Floats) -> Floats:
    """Hits among the clips of the class; NaN where there are none."""
    return _ratio(sums[..., 0], sums[..., 1])


def _f1(sums: Floats) -> Floats:
    """NaN where the class neither occurs nor is predicted."""
    return _ratio(2 * sums[..., 0], sums[..., 1] + sums[..., 2])


def _ratio(above: Floats, below: Floats) -> Floats:
    ratio: Floats = above / np.where(below == 0, np.nan, below)
    return ratio


def _register(name: str, label: str, number: int, finish: Callable[[Floats], Floats]) -> None:
    metrics.register(f"{name}_{number}")(Metric(f"{name}_{number}", f"{label}, class {number}", True, True, 2, _outcomes(number), finish))


for _number in range(CLASSES):
    _register("recall", "Recall", _number, _recall)
    _register("f1", "F1", _number, _f1)

__all__ = ["metrics"]
