"""A small generic registry: register by decorator, look up by name, suggest on a miss.

Plug-ins are found by entry point: an installed distribution names a module or a package under the
registry's group (``harness.methods``); every module of that package is imported once, on first look-up,
and registers what it defines. A new file in ``baselines/`` or ``methods/`` is therefore found as it is.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from importlib.metadata import entry_points
from types import ModuleType
from typing import Generic, TypeVar

from harness.errors import ConfigError

T = TypeVar("T")


def suggest(name: str, known: Iterable[str]) -> str:
    """A sentence for an error message: the nearest known name, then all of them."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"Did you mean '{near[0]}'? " if near else ""
    return f"{hint}Known: {', '.join(names) or 'none'}."


class Registry(Generic[T]):
    """Named things of one kind.

    Raises ``ConfigError`` on a second registration under a taken name and on an unknown name.
    """

    def __init__(self, kind: str, group: str | None = None) -> None:
        self.kind = kind
        self._group = group
        self._entries: dict[str, T] = {}
        self.broken: dict[str, str] = {}  # plug-in module -> why its import failed

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that files its argument under ``name``."""

        def add(entry: T) -> T:
            taken = self._entries.get(name)
            if taken is not None and _origin(taken) != _origin(entry):
                raise ConfigError(
                    f"two {self.kind}s are called '{name}': {_origin(taken)} and {_origin(entry)}",
                    "Rename one of them.",
                )
            self._entries[name] = entry
            return entry

        return add

    def __getitem__(self, name: str) -> T:
        self._load_plugins()
        if name not in self._entries:
            faults = "".join(f"\n{module} could not be imported: {why}" for module, why in self.broken.items())
            raise ConfigError(f"there is no {self.kind} called '{name}'", suggest(name, self._entries) + faults)
        return self._entries[name]

    def __contains__(self, name: str) -> bool:
        self._load_plugins()
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        self._load_plugins()
        return iter(sorted(self._entries))

    def _load_plugins(self) -> None:
        if self._group is None:
            return
        group, self._group = self._group, None
        for point in entry_points(group=group):
            self.broken |= import_tree(point.module)


def import_tree(name: str) -> dict[str, str]:
    """Import the module ``name`` and, if it is a package, every module directly inside it.

    Returns the modules that failed with the reason: one broken file must not hide all the others.
    """
    module, why = _try_import(name)
    if module is None:
        return {name: why}
    children = [f"{name}.{info.name}" for info in pkgutil.iter_modules(getattr(module, "__path__", []))]
    return {child: why for child in children for found, why in [_try_import(child)] if found is None}


def _try_import(name: str) -> tuple[ModuleType | None, str]:
    try:
        return importlib.import_module(name), ""
    except Exception as error:  # a plug-in may fail in any way; the reason is shown where it is missed
        return None, f"{type(error).__name__}: {error}"


def _origin(entry: object) -> str:
    return f"{getattr(entry, '__module__', '?')}.{getattr(entry, '__qualname__', repr(entry))}"
