"""An audit of published numbers: is what a table prints arithmetically possible, and does it agree with itself?

Findings are arithmetic. "Not attainable as stated" means that the printed number and the stated protocol cannot both be right;
a misprint, a protocol described too briefly and a copied number all look alike from here. No finding says more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.analysis.audit import agreement, attainability, claims, halves, least_error, published, spreads
from harness.analysis.audit.published import Source
from harness.analysis.audit.results import Finding, Result

__all__ = ["CHECKS", "Audit", "Finding", "Result", "Source", "audit", "audit_all"]

CHECKS: tuple[Callable[[Source], Result], ...] = (
    attainability.check,
    halves.check_halves,
    halves.check_classes,
    least_error.check,
    spreads.check,
    spreads.check_significance,
    claims.check,
    claims.check_counts,
    agreement.check_same_system,
    agreement.check_ablations,
    agreement.check_identical_rows,
)


@dataclass(frozen=True)
class Audit:
    """All checks on one source."""

    source: Source
    results: tuple[Result, ...]

    @property
    def findings(self) -> list[Finding]:
        return [finding for result in self.results for finding in result.findings]

    @property
    def cells_checked(self) -> int:
        """Printed numbers that entered at least one check."""
        return len(frozenset().union(*(result.cells for result in self.results)))


def audit(source: Source) -> Audit:
    """Every check on ``source``; those that had nothing to look at are left out."""
    results = [check(source) for check in CHECKS]
    return Audit(source, tuple(result for result in results if result.count))


def audit_all(names: Sequence[str] = ()) -> tuple[list[Audit], Result]:
    """The audits of ``names`` (default: all sources), and what differs between them. ConfigError for an unknown name."""
    sources = [published.load(name) for name in names or published.names()]
    return [audit(source) for source in sources], agreement.check_between(sources)
