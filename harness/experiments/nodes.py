"""What a node of a cluster needs of the driver's files: data sets and a user's method, written there once, named by content."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import ConfigError
from harness.experiments import code
from harness.experiments.plugins import load_file
from harness.experiments.worker import Job
from harness.training.contract import methods

Put = Callable[[np.ndarray], Any]
Get = Callable[[Any], np.ndarray]


@dataclass(frozen=True)
class Parcel:
    """Files by their path inside a folder. ``contents`` are references to their bytes, or the bytes themselves: uint8 arrays."""

    digest: str
    contents: Mapping[str, Any]


def node_folder() -> Path:
    """Where a node keeps data and checkpoints: ``$MER_NODE``, else a folder of the user's among the temporary files."""
    return Path(os.environ.get("MER_NODE") or Path(tempfile.gettempdir()) / f"mer-harness-{os.getuid()}")


def pack(files: Mapping[str, Path], put: Put) -> Parcel:
    """The files as a parcel; ``put`` hands their bytes over to the cluster and returns a reference."""
    digest, contents = hashlib.sha256(), {}
    for name, path in sorted(files.items()):
        content = np.memmap(path, np.uint8, mode="r") if path.stat().st_size else np.empty(0, np.uint8)
        digest.update(f"{name} {len(content)} ".encode())
        digest.update(content.data)
        contents[name] = put(content)
    return Parcel(digest.hexdigest()[:20], contents)


def pack_dataset(name: str, root: Path, put: Put) -> Parcel:
    """The stored data set ``name``, ready to be opened where it is unpacked."""
    return pack({f"{name}/{path.name}": path for path in (root / name).iterdir() if path.is_file()}, put)


def unpack(parcel: Parcel, root: Path, get: Get) -> Path:
    """The folder below ``root`` that holds the parcel's files. The first of a node's tasks writes it, whole or not at all."""
    folder = root / parcel.digest
    if folder.exists():
        return folder
    root.mkdir(parents=True, exist_ok=True)
    with open(root / f".{parcel.digest}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            fresh = root / f".{parcel.digest}.new"
            shutil.rmtree(fresh, ignore_errors=True)  # what a killed task left
            for name, content in parcel.contents.items():
                (fresh / name).parent.mkdir(parents=True, exist_ok=True)
                get(content).tofile(fresh / name)
            os.replace(fresh, folder)
    return folder


def at_home(job: Job, data: Parcel, plugin: Parcel | None, get: Get) -> Job:
    """``job`` with paths of this node. ConfigError where the code here is not the code that the trial's key names."""
    root = node_folder()
    script = unpack(plugin, root / "methods", get) / job.plugin.name if plugin and job.plugin else None
    local = replace(job, data_root=unpack(data, root / "data", get), plugin=script, checkpoint=root / "checkpoints" / job.checkpoint.name)
    if script:
        load_file(script)
    wanted = job.trial.identity
    changed = code.differing(code.fingerprints(methods[wanted.method].__module__), wanted.code)
    if changed:
        raise ConfigError(f"this node has other code than the driver: {', '.join(changed)}", "Install the same version on every node.")
    return local
