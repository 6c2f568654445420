"""The one exception that users see: what is wrong, where, what is allowed, what to do."""

from __future__ import annotations


class HarnessError(Exception):
    """A mistake or an outside fault that the user can act on; the command line prints it without a traceback.

    ``problem`` names the file, key and value; ``fix`` says what to do about it.
    """

    exit_code = 2

    def __init__(self, problem: str, fix: str = "") -> None:
        super().__init__(f"{problem}\n{fix}" if fix else problem)
        self.problem = problem
        self.fix = fix

    def __reduce__(self) -> tuple[type[HarnessError], tuple[str, str]]:
        return type(self), (self.problem, self.fix)


class DataError(HarnessError):
    """A data file, a stored data set or a label that cannot be used as it is."""


class ConfigError(HarnessError):
    """A setting, a method name or a table file that does not say something valid."""


class Stopped(HarnessError):
    """The user interrupted a run."""

    exit_code = 130
