"""Where the records of a table were made, said where it was not in one place: bits differ between versions and machines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from harness.experiments.environment import Environment
from harness.reporting.collect import Measured

MOST_NAMED = 6  # runs of the rarer value that are named


def differences(rows: Iterable[Measured]) -> Iterator[str]:
    """One line for each fact on the environment in which the runs of ``rows`` differ; nothing where all are alike.

    The commit is not such a fact: a record's key holds the code that can change its numbers.
    """
    known = [(row.name, unit, record.environment) for row in rows for unit, record in row.records.items()]
    if all(environment == known[0][2] for *_, environment in known):
        return
    values: dict[str, dict[str, list[str]]] = {}
    for name, unit, environment in known:
        for fact, value in _facts(environment):
            values.setdefault(fact, {}).setdefault(value, []).append(f"{name} {unit}")
    for fact, runs in values.items():
        if len(runs) > 1:
            yield f"{fact}: " + "; ".join(f"{value or 'not known'} in {_said(named)}" for value, named in sorted(runs.items(), key=_most))


def _most(entry: tuple[str, list[str]]) -> tuple[int, str]:
    return -len(entry[1]), entry[0]


def _said(runs: list[str]) -> str:
    count = f"{len(runs)} run{'s' if len(runs) > 1 else ''}"
    return f"{count} ({', '.join(runs)})" if len(runs) <= MOST_NAMED else count


def _facts(environment: Environment) -> Iterator[tuple[str, str]]:
    yield "python", environment.python
    yield from environment.packages.items()
    for name in ("machine", "processor", "instructions", "device"):
        yield name, str(getattr(environment, name))
