"""``list``: methods, data sets, tables."""

from __future__ import annotations

from rich.console import Console

from harness.analysis.inventory import Description, describe
from harness.commands import data
from harness.errors import ConfigError
from harness.experiments import cost_tables, papers
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
    console.print("kind, modalities that will do, trainable parameters at MOSI's preset and 768/5/20 inputs, reference", style="dim")
    for name in methods:
        console.print(_line(describe(name, methods[name]), verbose), highlight=False, markup=False, soft_wrap=True)
        if verbose:
            _settings(methods[name], console)
    for module, why in methods.broken.items():
        console.print(f"! {module} could not be imported: {why}", style="yellow", highlight=False, markup=False, soft_wrap=True)


def _settings(method: type[Method], console: Console) -> None:
    for key, value in flatten(method.Config().model_dump(mode="json")):
        console.print(f"    --set {key}={value}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"    presets: {', '.join(method.presets) or 'none'}", highlight=False, soft_wrap=True)


def _tables(verbose: bool) -> None:
    specs = map(_load, papers.items())
    lines = [(spec.name, str(spec.kind), f"{spec.title} ({', '.join(spec.datasets)}; {_protocols(spec)})") for spec in specs]
    costs = [spec for place in cost_tables.items() for spec in cost_tables.of("/".join(place))]
    lines += [(spec.name, "cost", f"{spec.title} ({spec.dataset})") for spec in costs]
    for name, kind, said in sorted(lines):
        Console().print(f"{name:10} {kind:10}  {said}", highlight=False, markup=False, soft_wrap=True)


def _load(place: tuple[str, str]) -> papers.TableSpec:
    return papers.load(*place)


def _protocols(spec: papers.TableSpec) -> str:
    return ", ".join(scheme.label for scheme in spec.protocol)


def _line(one: Description, verbose: bool) -> str:
    size = "?" if one.parameters is None else f"{one.parameters:,}"
    line = f"{one.name:16} {one.kind:8}  {one.modalities:14}  {size:>11}  {one.reference or one.summary}"
    more = [f"    {one.summary}"] if verbose else []
    return "\n".join([line, *more, *([f"    ! it could not be built: {one.problem}"] if one.problem else [])])
