"""What a record says about where it was made: versions, hardware, threads, commit; never a host name or a path."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from harness.data.schema import Frozen

PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "pandas", "mer-harness")


class Environment(Frozen):
    """The environment of one trial."""

    python: str
    packages: dict[str, str]
    machine: str
    processor: str
    instructions: str
    cores: int
    threads: int
    device: str
    commit: str
    dirty: bool


def environment(device: str) -> Environment:
    """The environment of this process."""
    commit, dirty = _commit()
    return Environment(
        python=platform.python_version(),
        packages={name: _version(name) for name in PACKAGES},
        machine=f"{platform.system()} {platform.machine()}",
        processor=_processor(),
        instructions=torch.backends.cpu.get_cpu_capability(),
        cores=os.cpu_count() or 0,
        threads=torch.get_num_threads(),
        device=torch.cuda.get_device_name() if device == "cuda" else "cpu",
        commit=commit,
        dirty=dirty,
    )


@cache
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


@cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())


@cache
def _commit() -> tuple[str, bool]:
    """The project's commit and whether tracked files differ from it; empty outside a checkout."""
    folder = Path(__file__).parents[2]
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return commit, bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return "", False


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
