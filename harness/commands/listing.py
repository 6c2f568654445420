"""``list``: methods, data sets, tables."""

from __future__ import annotations

from rich.console import Console

from harness.commands import data
from harness.errors import ConfigError
from harness.experiments import papers
from harness.experiments.trials import flatten
from harness.registry import suggest
from harness.training.contract import Method, methods


def list_things(what: str, verbose: bool) -> None:
    """Print what there is of one kind."""
    kinds = {"methods": _methods, "datasets": lambda verbose: data.listing(), "tables": _tables}
    if what not in kinds:
        raise ConfigError(f"`list {what}` is not known", suggest(what, kinds))
    kinds[what](verbose)


def _methods(verbose: bool) -> None:
    console = Console()
    for name in methods:
        method = methods[name]
        console.print(f"{name:12} {_first_line(method)}", highlight=False, markup=False, soft_wrap=True)
        if verbose:
            _settings(method, console)
    for module, why in methods.broken.items():
        console.print(f"! {module} could not be imported: {why}", style="yellow", highlight=False, markup=False, soft_wrap=True)


def _settings(method: type[Method], console: Console) -> None:
    for key, value in flatten(method.Config().model_dump(mode="json")):
        console.print(f"    --set {key}={value}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"    presets: {', '.join(method.presets) or 'none'}", highlight=False, soft_wrap=True)


def _tables(verbose: bool) -> None:
    for spec in (papers.load(*place) for place in papers.items()):
        Console().print(f"{spec.name:12} {spec.title} ({', '.join(spec.datasets)})", highlight=False, markup=False, soft_wrap=True)


def _first_line(method: type[Method]) -> str:
    return (method.__doc__ or "").strip().partition("\n")[0]
