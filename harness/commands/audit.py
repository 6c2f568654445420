"""``audit``: published numbers checked by arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from harness.analysis.audit import audit_all
from harness.analysis.audit.markdown import text


def audit(papers: Sequence[str]) -> None:
    """Print the audit of ``papers`` (none: of all) as Markdown."""
    typer.echo(text(*audit_all(papers)))
