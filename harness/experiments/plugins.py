"""Methods in a file of the user's own, outside any installed package."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from pathlib import Path

from harness.errors import ConfigError
from harness.training.contract import methods


def load_file(path: Path) -> str:
    """Import the method file ``path`` and return the name it registers.

    Raises ConfigError where the file is missing, fails to import, takes an installed method's name, or does not register exactly
    one method.
    """
    name = f"user_{path.stem}"
    if name not in sys.modules:
        list(methods)  # installed ones first: a name that is taken is refused here, as in workers, which inherit them
        _execute(path, name)
    found = [method for method in methods if methods[method].__module__ == name]
    if len(found) != 1:
        raise ConfigError(
            f"{path} registers {len(found)} methods ({', '.join(found) or 'none'})", "Decorate one class with @register_method."
        )
    return found[0]


def _execute(path: Path, name: str) -> None:
    spec = importlib.util.spec_from_file_location(name, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ConfigError(f"{path} is not a Python file", "Give the path of a .py file, or a name from `harness list methods`.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the user's own file may fail in any way
        del sys.modules[name]
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise ConfigError(
            f"{path} could not be imported: {type(error).__name__}: {error}", f"See {where.filename}:{where.lineno}."
        ) from None
