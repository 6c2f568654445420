"""From a table's file and finished records to the rendered table: Markdown, LaTeX, CSV, JSON, console."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import isnan
from pathlib import Path

from harness.data.schema import Card
from harness.errors import ConfigError
from harness.experiments.papers import TableSpec
from harness.experiments.records import RecordStore
from harness.files import write_atomic
from harness.registry import suggest
from harness.reporting.blocks import Plan, plan_under, table_lines
from harness.reporting.collect import Known, collect
from harness.reporting.compare import Memory, compare_rows
from harness.reporting.documents import document
from harness.reporting.latex import latex
from harness.reporting.layout import Cell, Line
from harness.reporting.markdown import console, markdown
from harness.reporting.texts import Told
from harness.training.settings import Budget

CSV_COLUMNS = (
    *("paper", "item", "dataset", "data", "simulated", "budget", "protocol", "row", "kind", "numbers", "metric", "mean", "std"),
    *("n", "expected", "reference", "difference", "low", "high", "p", "p_adjusted", "p_conditional", "marks"),
    *("pairs", "pairs_expected", "verdict", "note"),
)


@dataclass(frozen=True)
class RenderedTable:
    """Where a table was written, its form for the console, and what all its forms are made from."""

    markdown: Path
    latex: Path
    csv: Path
    json: Path
    console: str
    told: Told
    lines: tuple[Line, ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        return self.markdown, self.latex, self.csv, self.json


def render(
    spec: TableSpec,
    card: Card,
    budget: Budget,
    plan: Plan,
    store: RecordStore,
    out: Path,
    *,
    resamples: int = 10_000,
    seed: int = 0,
    memory: Memory | None = None,
    known: Known | None = None,
) -> RenderedTable:
    """Render ``spec`` for the stored data of ``card`` from the records that ``plan`` (row name -> trials) has in ``store``.

    Writes ``<paper>_<item>_<card name>.md``, ``.tex`` and ``.csv`` to the folder ``out``, each whole or not at all. The
    same inputs give the same bytes, with or without a ``memory`` of earlier tests and scores ``known`` before. Numbers are
    recomputed from stored predictions; rows without records stay, empty.
    Raises ConfigError where the table has no such data set or a trial follows another protocol; OSError on a full disk.
    """
    _check(spec, card, plan)
    told = tell(spec, card, budget, plan, store, resamples=resamples, seed=seed, memory=memory, known=known)
    lines = table_lines(told)
    contents = {"md": markdown(told, lines), "tex": latex(told, lines), "csv": long_form(told, lines), "json": document(told, lines)}
    paths = {suffix: out / f"{stem(spec, card)}.{suffix}" for suffix in contents}
    for suffix, content in contents.items():
        write_atomic(paths[suffix], content.encode())
    return RenderedTable(paths["md"], paths["tex"], paths["csv"], paths["json"], console(told, lines), told, lines)


def tell(
    spec: TableSpec,
    card: Card,
    budget: Budget,
    plan: Plan,
    store: RecordStore,
    *,
    resamples: int = 10_000,
    seed: int = 0,
    memory: Memory | None = None,
    known: Known | None = None,
) -> Told:
    """What there is to tell of a table: the numbers of every row under every protocol, and the tests."""
    blocks, span = [], card.task.high - card.task.low
    for scheme in spec.protocol:
        measured = collect(spec.metrics, card, plan_under(plan, scheme), store, known)
        family = compare_rows(spec, measured, resamples=resamples, seed=seed, span=span, memory=memory)
        blocks.append(Told(spec, card, budget, measured, family, resamples, scheme))
    return replace(blocks[0], others=tuple(blocks[1:]))


def long_form(told: Told, lines: Sequence[Line]) -> str:
    """CSV, one line per row, kind and metric. Percentages are fractions (0.808); an empty mean is a hole."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_records(told, lines))
    return text.getvalue()


def _check(spec: TableSpec, card: Card, plan: Plan) -> None:
    if card.dataset not in spec.datasets:
        raise ConfigError(f"the table {spec.name} has no data set '{card.dataset}'", suggest(card.dataset, spec.datasets))
    cuts = {fold for scheme in spec.protocol for fold in scheme.cuts()}
    for row, trials in plan.items():
        for trial in trials:
            if trial.identity.fold not in cuts:
                raise ConfigError(
                    f"the table {spec.name} is one of {' and '.join(scheme.said for scheme in spec.protocol)}; "
                    f"row '{row}' was planned on {trial.identity.fold}",
                    "Plan it by the protocols of the table's file.",
                )


def stem(spec: TableSpec, card: Card) -> str:
    """The name of a table's files, without their ending."""
    return f"{spec.paper}_{spec.item}_{card.name}".replace("@", "-")


def _records(told: Told, lines: Sequence[Line]) -> Iterator[dict[str, object]]:
    blocks = {block.scheme.label: block for block in told.blocks}
    for line in lines:
        own = line.kind != "published"
        block = blocks.get(line.protocol, told)
        common = {
            "paper": told.spec.paper,
            "item": told.spec.item,
            "dataset": told.dataset,
            "data": told.card.name if own else "as published",
            "simulated": "SIMULATED" if own and told.card.simulated else "no",
            "budget": told.budget.name if own else "",
            "protocol": (line.protocol or told.scheme.label) if own else "",
            "row": line.row,
            "kind": line.kind,
            "numbers": line.label,
            "n": _plain(line.finished),
            "expected": _plain(line.expected),
        }
        for name, cell in zip(told.spec.metrics, line.cells, strict=True):
            tests = _tests(block, line.row, name) if line.kind == "measured" else {}
            yield {**common, "metric": name, "mean": _plain(cell.value), "std": _plain(cell.deviation), **tests, "marks": _marks(cell)}


def _tests(told: Told, row: str, metric: str) -> dict[str, object]:
    """The test of a cell; where none could be made, that it was not. ``note``: what it says of itself, or that a mean is undefined."""
    test = told.family.find(row, metric)
    undefined = "undefined for a run" if told.measured[row].undefined(metric) else ""
    if test is None:
        return {"note": undefined}
    head = {"reference": told.family.reference or "", "pairs": test.pairs, "pairs_expected": test.expected}
    said = {**head, "verdict": test.verdict(told.spec.alpha), "note": undefined or "no shared runs"}
    if test.main is None or test.conditional is None:
        return said
    main = test.main
    numbers = {"difference": main.difference, "low": main.low, "high": main.high, "p": main.p, "p_adjusted": test.adjusted}
    shown = {key: _plain(value) for key, value in {**numbers, "p_conditional": test.conditional.p}.items()}
    return {**said, **shown, "note": main.note or undefined}


def _plain(value: float | int | None) -> str:
    """Ten significant digits: the last bits depend on the machine's summation order."""
    return "" if value is None or isnan(value) else f"{value:.10g}"


def _marks(cell: Cell) -> str:
    return " ".join(mark for mark in (cell.mark, "dagger" if cell.dagger else "") if mark)
