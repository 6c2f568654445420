"""The command line: parses, calls, prints. Everything heavy is imported inside the command that needs it."""

from __future__ import annotations

import sys
from typing import Any

import typer

from harness.cli import looking, running, stores
from harness.errors import HarnessError

app = typer.Typer(
    help="Benchmark and reproducibility harness for multimodal emotion recognition.", no_args_is_help=True, add_completion=False
)
app.add_typer(running.app)
app.add_typer(looking.app)
app.add_typer(stores.data, name="data")
app.add_typer(stores.records, name="records")


def main(arguments: list[str] | None = None) -> Any:
    """Entry point: a user's mistake ends in a message and exit code 2, never in a traceback."""
    try:
        return app(arguments, standalone_mode=True)
    except HarnessError as error:
        typer.secho(f"error: {error.problem}", fg="red", err=True)
        if error.fix:
            typer.echo(error.fix, err=True)
        sys.exit(error.exit_code)
