"""From a table in the making to what the page shows of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isnan

from harness.analysis.audit import Finding, audit_all, published
from harness.experiments.records import RecordStore, Runtime
from harness.experiments.runs import Finished
from harness.experiments.trials import Trial
from harness.reporting.blocks import plan_under
from harness.reporting.collect import Measured, Unit
from harness.reporting.layout import ABSENT, COMPARISON_HEADS, UNDEFINED, Cell, Kind, Line, build_lines, comparison_rows, header, number
from harness.reporting.page.document import AuditPart, CellPart, ColumnPart, EnvironmentPart, NotePart, RowPart, RunPart, Shown, TablePart
from harness.reporting.reproduction import Judged, judge_table, sentences, summarise
from harness.reporting.texts import Told, caption, conditional_label, legend, verdicts
from harness.training.metrics import metrics

KINDS: tuple[Kind, Kind] = ("published", "measured")
FINDINGS = "Findings"  # the note of harness.reporting.texts that the page shows on its own


@dataclass(frozen=True)
class Places:
    """Where the page's links lead: records, and MLflow's page of a trial's run by the trial's key (absent: none known)."""

    store: RecordStore
    runs: Mapping[str, str] = field(default_factory=dict)
    _runtimes: dict[str, Runtime | None] = field(default_factory=dict, init=False)

    def runtime(self, key: str) -> Runtime | None:
        """As the store's; each is read once."""
        if key not in self._runtimes:
            self._runtimes[key] = self.store.runtime(key)
        return self._runtimes[key]


def describe_all(told: Told, plan: Mapping[str, Sequence[Trial]], places: Places, files: Sequence[str] = ()) -> tuple[TablePart, ...]:
    """The page's parts for a table, one per protocol."""
    return tuple(describe(block, _lines(block), plan_under(plan, block.scheme), places, files) for block in alone(told))


def alone(told: Told) -> Iterator[Told]:
    """The table under each of its protocols, none of which knows of the others."""
    yield from (replace(block, others=()) if block.others else block for block in told.blocks)


def _lines(told: Told) -> tuple[Line, ...]:
    return build_lines(told.spec, told.dataset, told.measured, told.family)


def describe(
    told: Told, lines: Sequence[Line], plan: Mapping[str, Sequence[Trial]], places: Places, files: Sequence[str] = ()
) -> TablePart:
    """The page's part for the table ``told`` under its one protocol, with these ``lines``; ``describe_all`` is for several.

    ``files``: its other forms, below the results folder.
    """
    spec, card = told.spec, told.card
    judged = judge_table(spec, card, told.measured)
    rows = tuple(_rows(told, lines, plan, judged, places))
    said, several = told.notes, told.among_others
    return TablePart(
        paper=spec.paper,
        item=spec.item,
        title=f"{spec.title}, {told.scheme.label}" if several else spec.title,
        caption=caption(told),
        legend=legend(told),
        citation=spec.citation,
        dataset=card.dataset,
        data=card.name,
        data_title=card.title,
        simulated=card.simulated,
        protocol=told.scheme.label if several else "",
        block=1 + [scheme.label for scheme in spec.protocol].index(told.scheme.label),
        budget=told.budget.name,
        reference=told.family.reference or "",
        columns=tuple(_columns(told)),
        rows=rows,
        comparison_heads=COMPARISON_HEADS if told.family.tests else (),
        comparisons=tuple(comparison_rows(spec, told.family)),
        compared=_compared(told),
        notes=tuple(NotePart(heading=note.heading, items=note.items) for note in said if note.heading != FINDINGS),
        sentences=tuple(sentences(summarise(judged.values()))),
        findings=tuple(finding.text for finding in spec.findings_on(told.dataset)),
        environments=tuple(environments_of(told.measured)),
        fingerprint=card.fingerprint,
        latest=latest_of(told.measured, places),
        files=tuple(files),
    )


def _columns(told: Told) -> Iterator[ColumnPart]:
    for metric in (metrics[name] for name in told.spec.metrics):
        label = told.spec.label(metric.name)
        yield ColumnPart(name=metric.name, label=label, header=header(metric, label), higher_is_better=metric.higher_is_better)


def _compared(told: Told) -> str:
    if not told.family.tests:
        return ""
    return (
        f"Difference: row minus {told.family.reference}, percentages in points. p and Holm p: the test of the caption; "
        f"t-test p: {conditional_label(told)}, unadjusted. {verdicts(told)}"
    )


def describe_audit(paper: str) -> AuditPart | None:
    """The audit of the paper's printed numbers; None for a paper that is no source of it."""
    if paper not in published.names():
        return None
    found = audit_all([paper])[0][0]
    findings = tuple((result.check, _items(result.findings)) for result in found.results if result.findings)
    return AuditPart(
        printed=len(found.source.cells),
        checked=found.cells_checked,
        findings=findings,
        notes=tuple((n.where, n.text) for n in found.source.notes),
    )


def _items(findings: Iterable[Finding]) -> tuple[tuple[str, str], ...]:
    return tuple((finding.where, finding.text) for finding in findings)


# ---- rows


def _rows(
    told: Told, lines: Sequence[Line], plan: Mapping[str, Sequence[Trial]], judged: Mapping[tuple[str, str], Judged], places: Places
) -> Iterator[RowPart]:
    """One part for each model, in the order of the table."""
    tests = _tests(told)
    for name in dict.fromkeys(line.row for line in lines):
        by_kind = {line.kind: line for line in lines if line.row == name}
        own, printed = told.measured.get(name), by_kind.get("published")
        yield RowPart(
            name=name,
            floor=name in told.spec.floors,
            published="" if printed is None else printed.label.partition("published, ")[2],
            reference=name == told.family.reference,
            finished=own.finished if own else None,
            expected=len(own.expected) if own else None,
            parameters=_parameters(own),
            about=_about(told, name),
            cells=tuple(
                _cell(by_kind, place, metric, judged.get((name, metric)), tests.get((name, metric), ""))
                for place, metric in enumerate(told.spec.metrics)
            ),
            runs=tuple(runs_of(own, told.spec.metrics, plan.get(name, ()), places)) if own else (),
        )


def _about(told: Told, name: str) -> str:
    row = told.spec.row(name)
    if row is None:
        return ""
    settings = ", ".join(f"{key} = {value}" for key, value in row.config.items())
    parts = (row.citation, f"printed '{row.printed}'" if row.printed else "", row.notes, settings, " + ".join(row.modalities or ()))
    return "; ".join(part for part in parts if part)


def _parameters(own: Measured | None) -> int | None:
    return next((record.parameters for record in own.records.values()), None) if own else None


def _cell(lines: Mapping[Kind, Line], place: int, name: str, found: Judged | None, test: str) -> CellPart:
    printed, own = (lines[kind].cells[place] if kind in lines else None for kind in KINDS)
    gap = None if found is None or isnan(found.difference) else found.difference
    return CellPart(
        published=_shown(printed),
        measured=_shown(own),
        difference="" if gap is None else number(gap, metrics[name], sign=True),
        gap=gap,
        outcome=found.outcome if found else "",
        reason=found.reason if found else "",
        test=test,
    )


def _shown(cell: Cell | None) -> Shown | None:
    if cell is None:
        return None
    return Shown(text=cell.text, spread=cell.spread, mark=cell.mark, dagger=cell.dagger, value=cell.value)


def _tests(told: Told) -> dict[tuple[str, str], str]:
    """(row, metric) -> the test in words."""
    return {
        (test.row, test.metric): _test(told, row)
        for test, row in zip(told.family.tests, comparison_rows(told.spec, told.family), strict=True)
    }


def _test(told: Told, row: Sequence[str]) -> str:
    head = dict(zip(COMPARISON_HEADS, row, strict=True))
    said = f"{head['Verdict']} against {told.family.reference}"
    if head["Difference"] == ABSENT:
        return said
    return f"{said}: difference {head['Difference']}, 95 % {head['95 % interval']}, Holm p {head['Holm p']}"


# ---- runs


def runs_of(own: Measured, names: Sequence[str], trials: Sequence[Trial], places: Places) -> Iterator[RunPart]:
    """Every planned run of one row; the values of a finished one in the order of the metrics ``names``."""
    for trial in trials:
        unit = Unit(trial.identity.seed, trial.identity.fold)
        record, link = own.records.get(unit), places.runs.get(trial.key, "")
        if record is None:
            failed = (places.store.folder(trial.key) / "failure.json").exists()
            yield RunPart(key=trial.key, unit=str(unit), state="failed" if failed else "not run", fault=own.faults.get(unit, ""))
        else:
            yield _finished(record, unit, own, names, places.runtime(trial.key), link)


def _finished(record: Finished, unit: Unit, own: Measured, names: Sequence[str], runtime: Runtime | None, link: str) -> RunPart:
    values = ((name, own.values[name][unit]) for name in names)
    return RunPart(
        key=record.key,
        unit=str(unit),
        state="finished",
        values=tuple(UNDEFINED if isnan(value) else number(value, metrics[name]) for name, value in values),
        best_epoch=record.best_epoch,
        epochs=len(record.history),
        seconds=runtime.seconds if runtime else None,
        mlflow=link,
    )


def environments_of(measured: Mapping[str, Measured]) -> Iterator[EnvironmentPart]:
    """Each environment once, the one of most records first."""
    counts = Counter(tuple(_facts(record).items()) for row in measured.values() for record in row.records.values())
    for facts, count in counts.most_common():
        yield EnvironmentPart(facts=dict(facts), records=count)


def latest_of(measured: Mapping[str, Measured], places: Places) -> str:
    """When the last of these runs ended; empty where that is not known."""
    runtimes = (places.runtime(record.key) for row in measured.values() for record in row.records.values())
    return max((runtime.finished for runtime in runtimes if runtime), default="")


def _facts(record: Finished) -> dict[str, str]:
    here = record.environment
    commit = f"{here.commit[:12]}{' with changes that are not committed' if here.dirty else ''}" if here.commit else "not from a checkout"
    return {
        "commit": commit,
        "Python": here.python,
        **here.packages,
        "machine": f"{here.machine}, {here.processor} ({here.instructions})",
        "cores, threads": f"{here.cores}, {here.threads}",
        "device": here.device,
    }
