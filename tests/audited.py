"""Small sources for tests of the audit, and what a check said of them."""

from __future__ import annotations

from harness.analysis.audit import Result, published
from harness.analysis.audit.published import Source


def source(table: str = "", rest: str = "", data: str = "mosi") -> Source:
    """A source with one table."""
    whole = f'[[tables]]\nitem = "T1"\ndata = "{data}"\n{table}\n' if table else ""
    return published.parse("toy", f'title = "Toy"\n{whole}{rest}')


def found(result: Result) -> str:
    return " ".join(finding.text for finding in result.findings)


def remarked(result: Result) -> str:
    return " ".join(remark.text for remark in result.remarks)
