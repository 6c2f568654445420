"""A table of costs: printed numbers beside counted and measured ones, as Markdown, LaTeX, CSV, JSON and plain text."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from math import isnan
from pathlib import Path

from tabulate import tabulate

from harness.analysis.latency import NOISY, OURS
from harness.data.schema import Card
from harness.experiments.cost_tables import COLUMNS, CostRow, CostSpec
from harness.experiments.environment import Environment
from harness.files import write_atomic
from harness.reporting import latex, siunitx
from harness.reporting.collect import Measured
from harness.reporting.documents import FORMAT, written
from harness.reporting.layout import ABSENT, UNDEFINED, number
from harness.reporting.markdown import escape
from harness.reporting.texts import APART, data_name
from harness.training.metrics import Metric, metrics

CSV_COLUMNS = ("paper", "item", "dataset", "row", "kind", "column", "value", "spread", "unit", "n", "expected", "from", "refused")
UNITS = {"parameters": "parameters", "flops": "FLOPs", "latency": "s", "round": "s"}
COUNTED, TIMED, RECORDED = "counted", "measured here", "records"


@dataclass(frozen=True)
class Figure:
    """One number of a row. ``value``: parameters, FLOPs, seconds, or the metric as a fraction.

    ``spread``: interquartile range of a time, standard deviation of a score. ``refused``: why a time may not be shown.
    ``n`` of ``expected`` runs stand behind a score.
    """

    value: float
    source: str
    spread: float | None = None
    refused: str = ""
    n: int | None = None
    expected: int | None = None


@dataclass(frozen=True)
class Costs:
    """All that is known of one row here; ``notes`` say what a reader must know of it."""

    figures: Mapping[str, Figure] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class CostTable:
    """``card``: the data of scores and recorded epochs, None where none is at hand; ``environment``, ``threads``: of the times.

    ``measured``: the runs behind the scores, by row.
    """

    spec: CostSpec
    card: Card | None
    here: Mapping[str, Costs]
    environment: Environment | None
    threads: int
    measured: Mapping[str, Measured] = field(default_factory=dict)


@dataclass(frozen=True)
class Rendered:
    paths: tuple[Path, ...]
    console: str


def render(table: CostTable, out: Path) -> Rendered:
    """Write ``<paper>_<item>.md``, ``.tex``, ``.csv`` and ``.json`` to the folder ``out``, each whole or not at all."""
    contents = {"md": _markdown(table), "tex": _latex(table), "csv": _long_form(table), "json": _document(table)}
    stem = f"{table.spec.paper}_{table.spec.item}" + (f"_{table.card.name}".replace("@", "-") if table.card else "")
    paths = tuple(out / f"{stem}.{suffix}" for suffix in contents)
    for path, content in zip(paths, contents.values(), strict=True):
        write_atomic(path, content.encode())
    return Rendered(paths, _console(table))


# ---- cells


def heads(spec: CostSpec) -> list[str]:
    return ["Model", "Numbers", *(COLUMNS.get(column) or _head(metrics[column]) for column in spec.columns)]


def _head(metric: Metric) -> str:
    return f"{metric.label}{', %' if metric.percent else ''} {'↑' if metric.higher_is_better else '↓'}"


def lines(table: CostTable) -> Iterator[tuple[CostRow, str, list[str]]]:
    """Row, label, cells: each row's printed line, if it has one, then what is known here where a registered method stands for it."""
    for row in table.spec.rows:
        if row.published or row.name not in table.here:
            label = "published" if row.published else "not printed, not counted"
            yield row, label, [str(row.published.get(column, ABSENT)) for column in table.spec.columns]
        if row.name in table.here:
            yield row, "here", [cell(table.here[row.name].figures.get(column), column) for column in table.spec.columns]


def cell(figure: Figure | None, column: str) -> str:
    """A number as the table shows it, or the sign for why there is none."""
    if figure is None:
        return ABSENT
    if column in COLUMNS:
        return _COST_CELLS[column](figure)
    if isnan(figure.value):
        return UNDEFINED
    spread = "" if figure.spread is None else f" ± {number(figure.spread, metrics[column])}"
    return f"{number(figure.value, metrics[column])}{spread} (n = {figure.n}/{figure.expected})"


def _latency(figure: Figure) -> str:
    return _refusal(figure) or f"{1e3 * figure.value:.3g} (IQR {1e3 * (figure.spread or 0):.2g})"


def _epoch(figure: Figure) -> str:
    seconds = figure.value
    shown = f"{seconds:.3g} s" if seconds < 60 else f"{int(seconds // 60)}' {int(seconds % 60):02d}\""
    return _refusal(figure) or f"{shown} ({figure.source})"


def _refusal(figure: Figure) -> str:
    return f"refused: {figure.refused}" if figure.refused else ""


_COST_CELLS: Mapping[str, Callable[[Figure], str]] = {
    "parameters": lambda figure: f"{figure.value / 1e6:.3f}",
    "flops": lambda figure: f"{figure.value / 1e9:.3f}",
    "latency": _latency,
    "round": _epoch,
}


# ---- sentences


def caption(table: CostTable) -> str:
    """The caption: what was counted for which inputs, and what the scores were measured on."""
    sizes = ", ".join(f"{name} {size.frames} x {size.dim}" for name, size in table.spec.inputs.items())
    counted = f"Parameters and FLOPs of an evaluation of one clip counted for inputs (frames x width) {sizes}, text encoders outside."
    return " ".join(part for part in (table.spec.caption, counted, _scored(table)) if part)


def _scored(table: CostTable) -> str:
    if table.card is None or not table.spec.scores:
        return ""
    apart = f" {APART}" if table.card.simulated else ""
    return f"Scores on {data_name(table.card)}, mean ± sample standard deviation over n finished runs.{apart}"


def notes(table: CostTable) -> list[tuple[str, tuple[str, ...]]]:
    """Heading and items of all that has something to say."""
    found = {
        "Counts": tuple(_counts(table)),
        "Times": tuple(_times(table)),
        "Rows": tuple(text for row in table.spec.rows for text in _row(table, row)),
        "Findings": tuple(finding.text for finding in table.spec.findings),
        "Source": tuple(text for text in (table.spec.citation, table.spec.source) if text),
    }
    return [(heading, items) for heading, items in found.items() if items]


def _counts(table: CostTable) -> Iterator[str]:
    if "flops" in table.spec.columns:
        yield "FLOPs: matrix products, convolutions, outer products; 1 MAC is 2 FLOPs, so half of each number where a paper counts MACs."
    exact = [
        f"{name} {int(costs.figures[column].value):,} {UNITS[column]}"
        for name, costs in table.here.items()
        for column in ("parameters", "flops")
        if column in costs.figures
    ]
    yield f"Exact counts: {'; '.join(exact)}." if exact else "No row is counted here."


def _times(table: CostTable) -> Iterator[str]:
    columns = {"latency", "round"} & set(table.spec.columns)
    sources = {figure.source for costs in table.here.values() for name, figure in costs.figures.items() if name in columns}
    if TIMED in sources and table.environment is not None:
        place = table.environment.processor if table.environment.device == "cpu" else table.environment.device
        yield (
            f"Measured on {place}, threads: {table.threads}; median over blocks of calls after warming up, refused where the interquartile "
            f"range (IQR) exceeds {NOISY:.0%} of the median, or this process had a processor for less than {OURS:.0%} of "
            "the time. Times of two machines are not comparable, nor with the published ones."
        )
    if "round" in columns:
        yield (
            f"Training epoch: '{RECORDED}': median over the epochs of recorded runs, validation included, on the data of these runs; "
            f"'{TIMED}': steps of {table.spec.clips} clips times the time of one step, without validation."
        )
    if columns and not sources:
        yield "No time was measured: `harness reproduce` measures, `harness report` shows what was measured and recorded."


def _row(table: CostTable, row: CostRow) -> Iterator[str]:
    settings = ", ".join(f"{key} = {value}" for key, value in row.config.items())
    why = "" if row.name in table.here else "published only: no registered method stands for it"
    parts = (row.citation, f"printed '{row.printed}'" if row.printed else "", row.notes, f"settings {settings}" if settings else "", why)
    inputs = f"inputs {', '.join(row.modalities)}" if row.modalities else ""
    said = "; ".join(part for part in (*parts, inputs, *(table.here[row.name].notes if row.name in table.here else ())) if part)
    if said:
        yield f"{row.name}: {said}."


# ---- formats


def _title(table: CostTable) -> str:
    return f"{table.spec.title}{' (SCORES: SIMULATED DATA)' if table.card and table.card.simulated and table.spec.scores else ''}"


def _body(table: CostTable, shown: Callable[[str], str]) -> list[list[str]]:
    """A row's name stands on its first line only."""
    return [
        [shown(row.name) if i == 0 else "", label, *map(shown, cells)]
        for _, block in groupby(lines(table), key=lambda line: line[0].name)
        for i, (row, label, cells) in enumerate(block)
    ]


def _grid(table: CostTable, style: str, shown: Callable[[str], str]) -> str:
    names = [shown(head) for head in heads(table.spec)]
    align = ("left", "left", *["right"] * (len(names) - 2))
    return tabulate(_body(table, shown), names, tablefmt=style, disable_numparse=True, colalign=align)


def _markdown(table: CostTable) -> str:
    said = "\n".join(f"- **{escape(heading)}**\n" + "\n".join(f"  - {escape(item)}" for item in items) for heading, items in notes(table))
    head = [f"# {escape(_title(table))}", escape(caption(table)), _grid(table, "github", escape), escape(legend())]
    return "\n\n".join([*head, "## Notes", said]) + "\n"


def legend() -> str:
    """What the signs in the cells mean."""
    return f"{ABSENT}: not printed, or neither measured nor recorded here; {UNDEFINED}: undefined for a run."


def _console(table: CostTable) -> str:
    times = [item for heading, items in notes(table) if heading == "Times" for item in items]
    return "\n\n".join([_title(table), caption(table), _grid(table, "simple", str), legend(), *times])


def _latex(table: CostTable) -> str:
    told = list(lines(table))
    columns = list(zip(*(cells for *_, cells in told), strict=True))
    aligned = [all(siunitx.is_number(text) or text in (ABSENT, UNDEFINED) for text in column) for column in columns]
    blocks = [
        [[latex.escape(name) if i == 0 else "", label, *map(_latex_cell, cells, aligned)] for i, (_, label, cells) in enumerate(block)]
        for name, block in groupby(told, key=lambda line: line[0].name)
    ]
    return latex.fill(
        columns="ll" + "".join(siunitx.column(column) if one else "r" for column, one in zip(columns, aligned, strict=True)),
        title=latex.comment(_title(table)),
        caption=latex.escape(f"{_title(table)}. {caption(table)}"),
        label=f"{table.spec.paper}-{table.spec.item}",
        heads=[siunitx.text(latex.escape(head)) for head in heads(table.spec)],
        blocks=blocks,
        legend=latex.escape(legend()),
        comparisons=[],
        notes=[(latex.comment(heading), [latex.comment(item) for item in items]) for heading, items in notes(table)],
    )


def _latex_cell(text: str, aligned: bool) -> str:
    return text if siunitx.is_number(text) else siunitx.text(latex.escape(text)) if aligned else latex.escape(text)


def _document(table: CostTable) -> str:
    """JSON: what stands around the table, and the lines of the CSV as objects."""
    spec, card = table.spec, table.card
    head = {"format": FORMAT, "paper": spec.paper, "item": spec.item, "kind": spec.kind, "title": _title(table), "caption": caption(table)}
    of_data = {"dataset": spec.dataset, "data": card.name if card else None, "simulated": card.simulated if card else None}
    return written(
        {
            **head,
            "legend": legend(),
            "citation": spec.citation,
            "source": spec.source,
            **of_data,
            "columns": list(spec.columns),
            "lines": [dict(zip(CSV_COLUMNS[3:], map(str, values[3:]), strict=True)) for values in _records(table)],
            "notes": {heading: list(items) for heading, items in notes(table)},
        }
    )


def _long_form(table: CostTable) -> str:
    """CSV, one line per row, kind and column: counts as whole numbers, times in seconds, percentages as fractions."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    writer.writerows(_records(table))
    return text.getvalue()


def _records(table: CostTable) -> Iterator[Sequence[object]]:
    spec = table.spec
    data = table.card.name if table.card else ""
    for row in spec.rows:
        for column in spec.columns:
            unit = UNITS.get(column, "fraction" if column in metrics and metrics[column].percent else "")
            printed = row.value(column)
            scale = {"parameters": 1e6, "flops": 1e9, "latency": 1e-3}.get(column, 1.0)
            if row.published:
                yield spec.paper, spec.item, "as published", row.name, "published", column, _plain(printed, scale), "", unit, *[""] * 4
            figure = table.here[row.name].figures.get(column) if row.name in table.here else None
            if figure is not None:
                values = _plain(None if figure.refused else figure.value), _plain(figure.spread)
                counts = ("" if figure.n is None else figure.n, "" if figure.expected is None else figure.expected)
                refused = _refusal(figure)
                yield spec.paper, spec.item, data, row.name, "here", column, *values, unit, *counts, figure.source, refused


def _plain(value: float | None, scale: float = 1.0) -> str:
    return "" if value is None or isnan(value) else f"{value * scale:.10g}"
