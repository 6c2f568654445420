"""Run the command line and die by SIGKILL at a chosen moment: kill_driver.py MOMENT ARGUMENTS...

``trial``: when the second trial has reported its first epoch; ``between``: when two records are stored and before anything
else happens; ``writing``: when the second record's temporary file is written and not yet renamed.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from harness import cli
from harness.experiments import runner
from harness.experiments.events import EpochDone


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_in_trial() -> None:
    original, seen = runner._Clerk.__call__, set()

    def call(clerk: Any, event: Any) -> None:
        original(clerk, event)
        if isinstance(event, EpochDone):
            seen.add(event.key)
            if len(seen) == 2 and event.epoch >= 2:
                die()

    runner._Clerk.__call__ = call  # type: ignore[method-assign]


def kill_between_trials() -> None:
    original, stored = runner._Clerk._store, [0]

    def store(clerk: Any, event: Any) -> None:
        original(clerk, event)
        stored[0] += 1
        if stored[0] == 2:
            die()

    runner._Clerk._store = store  # type: ignore[method-assign]


def kill_while_writing() -> None:
    original, renamed = os.replace, [0]

    def replace(source: Any, target: Any) -> None:
        if str(target).endswith("record.json"):
            renamed[0] += 1
            if renamed[0] == 2:
                die()
        original(source, target)

    os.replace = replace  # type: ignore[assignment]


if __name__ == "__main__":
    {"trial": kill_in_trial, "between": kill_between_trials, "writing": kill_while_writing}[sys.argv[1]]()
    cli.main(sys.argv[2:])
