"""How a worker process holds on to memory that its trial uses over and over, and how much it held at most."""

from __future__ import annotations

import ctypes
import re
import resource
import sys
from contextlib import suppress
from pathlib import Path

OWN = Path("/proc/self")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # parameters of glibc's mallopt
BLOCK, HELD = 1 << 30, (1 << 31) - 1  # bytes


def keep_freed_memory() -> None:
    """Let the C library keep freed blocks of up to a gibibyte for the next allocation.

    By default glibc returns large blocks to the system at once, and every optimiser step begins with page faults for the same
    gradients as the step before: TFN's epoch, whose gradients are 38 MB, takes a fifth longer. Nothing where there is no mallopt.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_THRESHOLD, BLOCK)
        library.mallopt(M_TRIM_THRESHOLD, HELD)


def forget_peak() -> bool:
    """Let ``peak_mb`` count from here on. False where the system cannot (only Linux can): it then counts from the process's start."""
    with suppress(OSError):
        (OWN / "clear_refs").write_text("5")
        return True
    return False


def peak_mb() -> float:
    """The largest resident memory since ``forget_peak``, in MB of 2^20 bytes; pages shared with other processes count as well."""
    with suppress(OSError):
        found = re.search(r"^VmHWM:\s+(\d+) kB$", (OWN / "status").read_text(), re.MULTILINE)
        if found:
            return int(found[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def resident_mb() -> float:
    """The resident memory of this moment; the peak where the system does not say."""
    with suppress(OSError):
        return int((OWN / "statm").read_text().split()[1]) * resource.getpagesize() / 2**20
    return peak_mb()
