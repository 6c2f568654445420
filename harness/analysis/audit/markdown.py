"""An audit as Markdown: per source what was checked, what does not fit, what is worth knowing, and apart from it what a reader noted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.analysis.audit import Audit
from harness.analysis.audit.results import Finding, Result

OPENING = """"Not attainable as stated" means that a printed number and what is stated beside it cannot both be right. A misprint, a
protocol told too briefly and a copied number look alike from here; nothing more is meant. Everything under "Computed" was computed
from the printed numbers; what a reader noticed stands apart."""
FAULTS = "Computed: does not fit"
FITS = "Computed: no finding (the numbers fit, or the protocol is an assumption)"
NOTES = "Curated notes: seen by a reader, not computed"


def text(audits: Sequence[Audit], between: Result) -> str:
    """The whole audit."""
    parts = ["# Audit of published numbers", _totals(audits), OPENING]
    parts += [part for audit in audits for part in _source(audit)]
    if between.remarks:
        parts += [f"## {between.check.capitalize()}", f"Computed; {between.power}.", _items(between.remarks)]
    return "\n\n".join(parts)


def _totals(audits: Sequence[Audit]) -> str:
    numbers, checked = sum(len(audit.source.cells) for audit in audits), sum(audit.cells_checked for audit in audits)
    comparisons = sum(result.count for audit in audits for result in audit.results)
    findings = sum(len(audit.findings) for audit in audits)
    tables = sum(len({table.item for table in audit.source.tables}) for audit in audits)
    plural = "s" if len(audits) != 1 else ""
    return (
        f"{numbers} printed numbers in {tables} tables of {len(audits)} source{plural}; {checked} of them entered at least one check "
        f"({comparisons} numbers compared, counting each once per check); {findings} findings."
    )


def _source(audit: Audit) -> list[str]:
    source = audit.source
    parts = [f"## {source.name}: {source.title}", source.citation, _table(audit.results)]
    parts += _section(FAULTS, [(result.check, finding) for result in audit.results for finding in result.findings])
    parts += _section(FITS, [(result.check, finding) for result in audit.results for finding in result.remarks])
    if source.notes:
        notes = [Finding(note.where, note.text) for note in source.notes]
        parts += [f"### {NOTES}", _items(notes)]
    return parts


def _table(results: Iterable[Result]) -> str:
    rows = [f"| {r.check} | {r.count} | {len(r.findings)} | {r.power} |" for r in results]
    return "\n".join(["| check | numbers checked | findings | power |", "|---|---:|---:|---|", *rows])


def _section(title: str, findings: Sequence[tuple[str, Finding]]) -> list[str]:
    lines = [f"{number}. **{finding.where}** ({check}): {finding.text}" for number, (check, finding) in enumerate(findings, start=1)]
    return [f"### {title}", "\n".join(lines)] if lines else []


def _items(findings: Iterable[Finding]) -> str:
    return "\n".join(f"- **{finding.where}**: {finding.text}" for finding in findings)
