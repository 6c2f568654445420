"""What ``list`` prints, looked up in the methods, tables and data sets themselves."""

from __future__ import annotations

from harness.analysis.inventory import Description, describe
from harness.data.catalogue import facts, known
from harness.experiments import cost_tables, figure_items, papers
from harness.experiments.trials import flatten
from harness.training.contract import Method, methods

Entries = list[list[str]]


def of_methods(verbose: bool = False) -> Entries:
    """A line for each method; ``verbose``: with its settings."""
    lines = [_line(describe(name, methods[name]), verbose) + (_settings(methods[name]) if verbose else "") for name in methods]
    return [[line] for line in (*lines, *(f"! {module} could not be imported: {why}" for module, why in methods.broken.items()))]


def of_tables(verbose: bool = False) -> Entries:
    """A line for each table and figure."""
    specs = [papers.load(*place) for place in papers.items()]
    lines = [(spec.name, str(spec.kind), f"{spec.title} ({', '.join(spec.datasets)}; {_protocols(spec)})") for spec in specs]
    costs = [spec for place in cost_tables.items() for spec in cost_tables.of("/".join(place))]
    lines += [(spec.name, "cost", f"{spec.title} ({spec.dataset})") for spec in costs]
    figures = [spec for place in figure_items.items() for spec in figure_items.of("/".join(place))]
    lines += [(spec.name, "figure", f"{spec.title} ({spec.row} of {', '.join(spec.tables)})") for spec in figures]
    return [[f"{name:10} {kind:10}  {said}"] for name, kind, said in sorted(lines)]


def of_datasets(verbose: bool = False) -> Entries:
    """Name, title, and what is said where nothing of it is stored."""
    return [[name, facts(name).title, "nothing; a simulated one stands in" if facts(name).simulated else "nothing"] for name in known()]


ENTRIES = {"methods": of_methods, "tables": of_tables, "datasets": of_datasets}


def _settings(method: type[Method]) -> str:
    settings = "".join(f"\n    --set {key}={value}" for key, value in flatten(method.Config().model_dump(mode="json")))
    return f"{settings}\n    presets: {', '.join(method.presets) or 'none'}"


def _protocols(spec: papers.TableSpec) -> str:
    return ", ".join(scheme.label for scheme in spec.protocol)


def _line(one: Description, verbose: bool) -> str:
    size = "?" if one.parameters is None else f"{one.parameters:,}"
    line = f"{one.name:16} {one.kind:8}  {one.modalities:14}  {size:>11}  {one.reference or one.summary}"
    more = [f"    {one.summary}"] if verbose else []
    return "\n".join([line, *more, *([f"    ! it could not be built: {one.problem}"] if one.problem else [])])
