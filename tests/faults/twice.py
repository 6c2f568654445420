"""Start one command several times at once on one results folder, and count: python tests/faults/twice.py [--commands 3]

One of them runs; the others must say whose folder it is, by process, or find all trials done. Exit code 1 otherwise, and where
anything is lost or doubled.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from grid import Grid, faults, records  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commands", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts = compete(Grid(Path(folder)), options.commands)
    print(", ".join(f"{name}: {count}" for name, count in counts.items()))
    return int(any(count for name, count in counts.items() if name not in ("ran", "refused")))


def compete(grid: Grid, commands: int) -> Counter[str]:
    """Counts of what became of the commands, and of faults by kind."""
    results, counts = grid.results(), Counter({"ran": 0, "refused": 0})
    processes = [grid.start(results) for _ in range(commands)]
    pids = {process.pid for process in processes}
    for process in processes:
        out, err = process.communicate()
        named = re.search(r"another harness process \(pid (\d+) on ", err)
        if process.returncode == 0:
            counts["ran"] += 1
        elif process.returncode == 2 and named and int(named.group(1)) in pids - {process.pid}:
            counts["refused"] += 1
        else:
            counts["neither"] += 1
            print(out, err, file=sys.stderr)
    counts["no command ran"] = int(not counts["ran"])
    whole = grid.results()
    grid.finish(whole)
    counts.update(faults(results, records(whole)))
    return counts


if __name__ == "__main__":
    sys.exit(main())
