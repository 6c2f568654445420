"""The sentences of a table: title, caption, legend, and the notes that a reader needs to judge its numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import isnan

from harness.analysis.statistics import Comparison
from harness.data.catalogue import facts
from harness.data.schema import Card
from harness.experiments.papers import Row, TableSpec
from harness.experiments.schemes import Scheme
from harness.reporting.collect import Measured, Unit
from harness.reporting.compare import Family
from harness.reporting.environments import differences
from harness.reporting.layout import ABSENT, LOST, UNDEFINED
from harness.reporting.verdicts import source_lines, verdict_rule
from harness.training.contract import methods
from harness.training.settings import Budget

APART = "Published lines are of real data: they cannot be compared with the measured ones."


@dataclass(frozen=True)
class Note:
    """Items under one heading."""

    heading: str
    items: tuple[str, ...]


@dataclass(frozen=True)
class Told:
    """What all the sentences are made from: a table under one protocol, and under its other ones where it has several.

    ``others`` are those of the table's first protocol; each of them is among others and has none of its own.
    """

    spec: TableSpec
    card: Card
    budget: Budget
    measured: Mapping[str, Measured]
    family: Family
    resamples: int
    scheme: Scheme = field(default_factory=Scheme)
    others: tuple[Told, ...] = ()

    @cached_property
    def notes(self) -> list[Note]:
        """All notes that have something to say; every form of the table has them, so they are made once."""
        return _notes(self)

    @property
    def blocks(self) -> tuple[Told, ...]:
        """One per protocol."""
        return self, *self.others

    @property
    def among_others(self) -> bool:
        return len(self.spec.protocol) > 1

    @property
    def dataset(self) -> str:
        return self.card.dataset

    @property
    def seeds(self) -> list[int]:
        """All seeds of the plan, in its order."""
        return list(dict.fromkeys(unit.seed for block in self.blocks for row in block.measured.values() for unit in row.expected))


def title(told: Told) -> str:
    return f"{told.spec.title}: {told.card.title}{' (SIMULATED DATA)' if told.card.simulated else ''}"


def caption(told: Told) -> str:
    """What was measured on what, how, and what the marks claim."""
    return " ".join(part for part in (told.spec.caption, _setting(told), *_each(told, lambda block: [significance(block)])) if part)


def data_name(card: Card) -> str:
    """Name and nature of the data, as every format states it."""
    return f"{card.title} ({'SIMULATED data' if card.simulated else 'real data'}, {card.name})"


def legend(told: Told) -> str:
    """What the signs in the cells mean, said without markup."""
    differences = " Differences: means under one protocol minus means under another, percentages in points; no test is made of them."
    return f"{_signs(told.spec.prints_any(told.dataset))}{differences if told.others else ''}"


def _signs(printed: bool) -> str:
    if not printed:
        marks = "Best and second best are marked among lines with all runs finished."
        return f"{marks} {ABSENT}: not run; {UNDEFINED}: undefined for a run."
    cells = f"{ABSENT}: not printed or not run; {LOST}: lost, see notes; {UNDEFINED}: undefined for a run."
    marks = "Best and second best are marked among published lines and, apart from them, among measured lines with all runs finished."
    return f"{marks} {cells} † on published lines: the paper's own mark."


def _apart(told: Told) -> str:
    return f" {APART}" if told.card.simulated and told.spec.prints_any(told.dataset) else ""


def significance(told: Told) -> str:
    """The claim behind † on measured lines: test, adjustment, family; what was left out."""
    family, spec = told.family, told.spec
    if not family.tests:
        return "No tests: " + (family.why if family.reference is None else "there is no other measured row") + "."
    rows, size = len(family.rows), len(family.tests)
    return (
        f"† on measured lines: better than {family.reference}, {test_name(told)}, "
        f"Holm-adjusted p < {spec.alpha:g} in a family of {size} tests ({rows} rows × {len(spec.metrics)} metrics)."
    )


def test_name(told: Told) -> str:
    """The default test of the design, with what it resamples."""
    found = _usual(told)
    if found is None:
        return "not tested"
    clustered = f" clustered by {facts(told.dataset).groups_are} ({found.clusters})" if found.clusters else ""
    runs = "seeds" if told.scheme.kind == "official" else "runs"
    over = f" over {found.clips} clips{clustered}" + (f" and {found.seeds} {runs}" if found.seeds and found.seeds > 1 else "")
    draws = f", {told.resamples} resamples" if "bootstrap" in found.test else ""
    condition = f", conditional on {found.conditional_on}" if found.conditional_on else ""
    return f"{found.test}{over}{draws}{condition}"


def _usual(told: Told) -> Comparison | None:
    """The test that the caption names: one of those of most runs, of those that could be made where any could."""
    found = [test.main for test in told.family.tests if test.main]
    made = [main for main in found if not isnan(main.p)]
    return max(made or found, key=lambda main: main.seeds or 0, default=None)


def conditional_label(told: Told) -> str:
    """What the seeds-only test holds for, as printed beside it."""
    found = next((test.conditional for test in told.family.tests if test.conditional), None)
    if found is None:
        return ""
    if told.scheme.kind == "official":
        return f"{found.test} over seeds, conditional on {found.conditional_on}"
    return f"{found.test} over {runs_are(told.scheme)}s, which takes them for independent"


def runs_are(scheme: Scheme) -> str:
    """What another run would be: a seed on a fixed split, a repeat of all folds, a draw of a hold-out."""
    return {"official": "seed", "holdout": "draw"}.get(scheme.kind, "repeat")


def verdicts(told: Told) -> str:
    """What the verdicts claim, with the regions of practical equivalence."""
    return verdict_rule(told.spec.metrics, told.spec.alpha, told.card.task.high - told.card.task.low)


def _notes(told: Told) -> list[Note]:
    items = {
        "Data": _data(told),
        "Effort": _effort(told),
        "Reference": _each(told, _reference),
        "Incomplete rows": _each(told, _incomplete),
        "Incomplete pairs": _each(told, _pairs),
        "Environments": _each(told, lambda block: differences(block.measured.values())),
        "Tests (A: the row, B: the reference)": _each(told, _test_notes),
        f"Variance of the difference in {told.spec.label(told.spec.metrics[0])}, by source": _each(told, _sources),
        "Cited only": [f"{row.name}: {_why_cited(row)}." for row in told.spec.rows if row.name not in told.measured],
        "Lost cells": _lost(told),
        "Rows": [text for row in told.spec.rows if (text := _row(row))],
        "Findings": [finding.text for finding in told.spec.findings_on(told.dataset)],
        "Source": [text for text in (told.spec.citation, told.spec.source) if text],
    }
    return [Note(heading, tuple(found)) for heading, lines in items.items() if (found := [line for line in lines if line])]


def _each(told: Told, say: Callable[[Told], Iterable[str]]) -> Iterator[str]:
    """What ``say`` says of every protocol, with its name where there are several."""
    for block in told.blocks:
        yield from (f"{block.scheme.label}: {text}" if told.others and text else text for text in say(block))


# ---- caption


def _setting(told: Told) -> str:
    runs = f"seeds {_list(told.seeds)}" if told.seeds else "no runs"
    protocols = "; ".join(block.scheme.described for block in told.blocks)
    return (
        f"Measured on {data_name(told.card)}, {protocols}, budget '{told.budget.name}' ({told.budget.description}), {runs}; "
        f"mean ± sample standard deviation over n finished runs.{_apart(told)}"
    )


# ---- notes


def _data(told: Told) -> Iterator[str]:
    card = told.card
    if card.simulated:
        yield f"{data_name(card)}: no real clip entered the measured lines.{_apart(told)}"
    inputs = ", ".join(
        f"{name} {m.dim}-d ({m.shortest} to {m.longest} frames, mean {m.mean_length:.1f})" for name, m in card.modalities.items()
    )
    yield f"{data_name(card)}; inputs: {inputs}; read as {card.source.layout}; fingerprint {card.fingerprint[:16]}."
    groups = facts(told.dataset).groups_are
    yield "Clips: " + ", ".join(f"{name} {count} of {card.groups.get(name, 0)} {groups}s" for name, count in card.clips.items()) + "."
    best = ", ".join(f"{name} {value:.3f}" for name, value in card.best_possible.items())
    yield f"Best possible test score on this data: {best}." if best else ""
    yield from (f"{warning.rstrip('.')}." for warning in card.warnings)
    yield from (f"Check {found.check}: {found.message}." for found in card.findings if found.severity != "notice")


def _effort(told: Told) -> Iterator[str]:
    yield f"Budget '{told.budget.name}': {told.budget.description}."
    if told.seeds and tuple(told.seeds) != told.spec.seeds:
        yield f"Seeds {_list(told.seeds)}; the table's file asks for {_list(told.spec.seeds)}."
    searched = [f"{row.name} {row.trials}" for row in told.spec.rows if row.trials]
    yield f"Trials of a search for settings, by row: {_list(searched)}; every other measured row none." if searched else ""


def _reference(told: Told) -> Iterator[str]:
    if told.family.why and told.family.tests:
        yield f"{told.family.why[0].upper()}{told.family.why[1:]}."


def _sources(told: Told) -> Iterator[str]:
    return source_lines(told.family.sources, facts(told.dataset).groups_are, runs_are(told.scheme))


def _incomplete(told: Told) -> Iterator[str]:
    for row in told.measured.values():
        if row.faults:
            yield f"{row.name}: {row.finished} of {len(row.expected)} runs finished, no marks; {'; '.join(_reasons(row))}."


def _reasons(row: Measured) -> Iterator[str]:
    """The reasons, each with the runs it stopped."""
    by_reason: dict[str, list[Unit]] = {}
    for unit, reason in row.faults.items():
        by_reason.setdefault(reason.rstrip("."), []).append(unit)
    yield from (f"{_list(units)}: {reason}" for reason, units in by_reason.items())


def _pairs(told: Told) -> list[str]:
    lines = (
        f"{test.row} against {told.family.reference}: {test.pairs} of {test.expected} pairs of runs, no †"
        for test in told.family.tests
        if test.pairs < test.expected
    )
    return [f"{line}." for line in dict.fromkeys(lines)]


def _test_notes(told: Told) -> Iterator[str]:
    """What the tests say of themselves, and which were not made as the caption says; rows without any pair are told elsewhere."""
    yield from _said(told)
    usual, others, unmade, made = _usual(told), dict[str, list[str]](), dict[str, list[str]](), 0
    for test in told.family.tests:
        main, conditional, place = test.main, test.conditional, f"{test.row} {told.spec.label(test.metric)}"
        if main is None or conditional is None:
            continue
        if isnan(main.p):
            continue
        made += 1
        if usual is not None and _how(main) != _how(usual):
            others.setdefault(_how(main), []).append(place)
        if isnan(conditional.p):
            unmade.setdefault(conditional.note, []).append(place)
    yield from (f"Not as the caption says, but by {how}: {_list(places)}." for how, places in others.items())
    label = conditional_label(told).partition(",")[0]
    yield from (f"{label}, {why}: {'all of them' if len(places) == made else _list(places)}." for why, places in unmade.items())


def _how(test: Comparison) -> str:
    runs = f"{test.seeds} run{'' if test.seeds == 1 else 's'} of each" if test.seeds else ""
    return ", ".join(part for part in (test.test, runs, f"conditional on {test.conditional_on}" if test.conditional_on else "") if part)


def _said(told: Told) -> Iterator[str]:
    """The notes of the tests, once where all say the same."""
    said = {(test.row, test.metric): test.main.note.split("; ") for test in told.family.tests if test.main is not None}
    shared = [part for part in next(iter(said.values()), []) if part and len(said) > 1 and all(part in parts for parts in said.values())]
    yield from (f"All comparisons: {part}." for part in shared)
    for (row, metric), parts in said.items():
        rest = "; ".join(part for part in parts if part not in shared)
        if rest:
            yield f"{row}, {told.spec.label(metric)}: {rest}."


def _why_cited(row: Row) -> str:
    if row.method is None:
        return "the table names no method for it"
    return "not part of this run" if row.method in methods else f"no method called '{row.method}' is registered"


def _lost(told: Told) -> Iterator[str]:
    for hole in told.spec.holes_in(told.dataset):
        yield f"{_list(hole.rows)}, {_list(map(told.spec.label, hole.metrics))}: {hole.reason}; marks leave these cells out."


def _row(row: Row) -> str:
    settings = ", ".join(f"{key} = {value}" for key, value in row.config.items())
    parts = (
        row.citation,
        f"printed '{row.printed}'" if row.printed else "",
        row.notes,
        f"modalities {_list(row.modalities)}" if row.modalities else "",
        f"settings {settings}" if settings else "",
    )
    said = "; ".join(part for part in parts if part)
    return f"{row.name}: {said}." if said else ""


def _list(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))
