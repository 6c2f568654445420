"""The fingerprint of the code that can change a number: a method's modules and the engine's.

A module counts by its syntax tree without docstrings, so that comments, docstrings and layout may change freely. So may
the ranges in which settings are searched (``json_schema_extra`` of a field): they lead to values, which a key holds itself.
Which modules count follows from the imports: all first-party modules that the roots reach.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

# What turns stored features and a method into predictions. Importers are absent: the data's fingerprint speaks for them.
ENGINE = ("harness.training.loop", "harness.training.metrics", "harness.data.splits", "harness.data.transforms")
# Reached by imports, but no number passes through them.
SILENT = frozenset(
    {
        *("harness", "harness.errors", "harness.files", "harness.registry"),
        *("harness.data.pages", "harness.training.dead", "harness.training.ranges"),
    }
)
RANGES, RANGE = "harness.training.ranges", "json_schema_extra"  # where notes on ranges come from, and the argument they are


def fingerprints(*roots: str) -> dict[str, str]:
    """Module name -> hash, for ``roots``, the engine, and every module of their packages that these import."""
    packages = {root.partition(".")[0] for root in (*roots, "harness")}
    found: dict[str, str] = {}
    waiting = [*roots, *ENGINE]
    while waiting:
        module = waiting.pop()
        if module in found or module in SILENT or module.partition(".")[0] not in packages:
            continue
        path = _source(module)
        if path is None:
            continue
        found[module], imported = _read(path, module)
        waiting.extend(imported)
    return dict(sorted(found.items()))


def of_file(path: Path, module: str) -> str:
    """The hash of one module's file as it is now; empty where it cannot be read or is no Python."""
    try:
        return _read(path, module)[0]
    except (OSError, SyntaxError, ValueError):
        return ""


def _source(module: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):  # a name imported from a module, not a module
        return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def _read(path: Path, module: str) -> tuple[str, tuple[str, ...]]:
    return _parse(path.read_bytes(), module, path.name == "__init__.py")


@lru_cache(maxsize=512)
def _parse(source: bytes, module: str, is_package: bool) -> tuple[str, tuple[str, ...]]:
    tree = ast.parse(source)
    package = module if is_package else module.rpartition(".")[0]
    digest = hashlib.sha256(repr(_shape(tree)).encode()).hexdigest()[:16]
    return digest, tuple(_imports(tree, package))


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package) if node.level else node.module or ""
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _shape(node: object) -> object:
    """The tree as nested tuples. Empty fields are left out, so that newer Python versions agree with older ones."""
    if isinstance(node, ast.AST):
        bare = _without_ranges(_without_docstring(node))
        fields = ((name, _shape(value)) for name, value in ast.iter_fields(bare) if name != "type_ignores")
        return type(node).__name__, tuple((name, value) for name, value in fields if value not in (None, ()))
    if isinstance(node, list):
        return tuple(_shape(item) for item in node)
    return node if node is None or isinstance(node, str | bytes | int | float | complex | bool) else repr(node)


def _without_docstring(node: ast.AST) -> ast.AST:
    if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or ast.get_docstring(node) is None:
        return node
    fields: dict[str, object] = {**dict(ast.iter_fields(node)), "body": node.body[1:]}
    return type(node)(**fields)  # type: ignore[arg-type]


def _without_ranges(node: ast.AST) -> ast.AST:
    """A call without its note on a range; a block without the import of what writes such notes."""
    if isinstance(node, ast.Call):
        return ast.Call(node.func, node.args, [keyword for keyword in node.keywords if keyword.arg != RANGE])
    if isinstance(node, ast.Module):
        return ast.Module([one for one in node.body if not (isinstance(one, ast.ImportFrom) and one.module == RANGES)], node.type_ignores)
    return node


def differing(before: dict[str, str], now: dict[str, str]) -> Iterable[str]:
    """Modules whose hash differs or that only one side has, sorted."""
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
