"""Dead parameters: those that no gradient reaches, which a model carries and never trains.

Published models have them by the hundred thousand (a layer built and never called, a tensor detached by mistake). They
bend parameter counts and hide faults, so the training loop looks for them during the first optimiser steps.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

STEPS = 2  # a zero-initialised factor can hide what lies before it in the first step, not in the second


class GradientWatch:
    """Collects over backward passes which trainable parameters of ``method`` got a gradient.

    ``unreached``: names of those that got none at all. ``unmoved``: those and the ones whose gradient was zero throughout; a
    loss weight of 0 leads there too, so it is a matter for tests, not for a warning.
    """

    def __init__(self, method: nn.Module) -> None:
        self._left = {name: parameter for name, parameter in method.named_parameters() if parameter.requires_grad}
        self._still = dict(self._left)
        self.steps = 0

    def look(self) -> None:
        """To be called before an optimiser step; does nothing after the first ``STEPS`` of them."""
        if self.steps == STEPS:
            return
        self.steps += 1
        self._left = {name: parameter for name, parameter in self._left.items() if parameter.grad is None}
        self._still = {name: p for name, p in self._still.items() if p.grad is None or not bool(p.grad.any())}

    @property
    def unreached(self) -> tuple[str, ...]:
        return tuple(self._left)

    @property
    def unmoved(self) -> tuple[str, ...]:
        return tuple(self._still)


def warning(method: str, names: Sequence[str]) -> str:
    """What a user is told about the parameters ``names`` of the method called ``method``."""
    shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    found = f"no gradient reached {len(names)} parameter tensors in the first {STEPS} steps"
    return f"{method}: {found} ({shown}); are they meant to be trained?"
