"""Kill a small grid at random moments, start it again, and count what is lost: python tests/faults/kills.py [--kills 100] [--seed 0]

A victim is the parent, a worker, the server that workers are forked from, or, by Ctrl-C, the whole group. Exit code 1 where
anything was lost, doubled, or differs from an undisturbed run in a single byte.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent))

from grid import Grid, faults, records, stamps  # noqa: E402

VICTIMS = {"worker": 5, "parent": 3, "ctrl-c": 1, "fork server": 1}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        grid = Grid(Path(folder))
        counts = attack(grid, options.kills, random.Random(options.seed))
    print(_said(counts))
    return int(any(count for name, count in counts.items() if not name.startswith(("killed", "grids", "trials"))))


def _said(counts: Counter[str]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in counts.items())


def attack(grid: Grid, kills: int, chance: random.Random) -> Counter[str]:
    """Grid after grid until ``kills`` processes were killed; counts of kills by victim and of faults by kind."""
    whole = grid.results()
    began = time.monotonic()
    grid.finish(whole)
    span, reference = time.monotonic() - began, records(whole)
    counts = Counter({"grids": 0, "trials": 0, **{f"killed: {victim}": 0 for victim in VICTIMS}}) + Counter()
    counts.update(faults(whole, reference))
    while (done := sum(count for name, count in counts.items() if name.startswith("killed"))) < kills:
        results = grid.results()
        counts.update(_one_grid(grid, results, kills - done, span, chance))
        counts.update(faults(results, reference))
        counts.update({"grids": 1, "trials": len(reference), "rewritten": 0, "tracebacks": 0, "wrong exit": 0})
        print(_said(counts), flush=True)
    return counts


def _one_grid(grid: Grid, results: Path, kills: int, span: float, chance: random.Random) -> Counter[str]:
    """Kill until all trials are done, at most ``kills`` times."""
    counts: Counter[str] = Counter()
    seen: dict[str, int] = {}
    while sum(counts[f"killed: {victim}"] for victim in VICTIMS) < kills:
        process = grid.start(results)
        _wait_for_work(process, chance, span)
        while process.poll() is None and sum(counts[f"killed: {victim}"] for victim in VICTIMS) < kills:
            victim = chance.choices(list(VICTIMS), list(VICTIMS.values()))[0]
            if _kill(process, victim, chance):
                counts[f"killed: {victim}"] += 1
            if victim in ("parent", "ctrl-c"):
                counts.update(_after(process, victim))
                break
            time.sleep(chance.uniform(0, 0.6))
        process.communicate()
        now = stamps(results)
        counts["rewritten"] += sum(now.get(key) != stamp for key, stamp in seen.items())
        seen = now
        if len(now) == grid.trials:
            break
    grid.finish(results)
    counts["rewritten"] += sum(stamps(results).get(key) != stamp for key, stamp in seen.items())
    return counts


def _wait_for_work(process: subprocess.Popen[str], chance: random.Random, span: float) -> None:
    """Until trials run, and then up to a second; once in ten times at any moment of the start."""
    if chance.random() < 0.1:
        time.sleep(chance.uniform(0, span))
        return
    assert process.stdout
    process.stdout.readline()
    if chance.random() < 0.5:
        process.stdout.readline()  # the first trial is done
    time.sleep(chance.uniform(0, 1.0))


def _kill(process: subprocess.Popen[str], victim: str, chance: random.Random) -> bool:
    """Send the signal; False where there is no such process at this moment."""
    if victim == "ctrl-c":
        os.killpg(process.pid, signal.SIGINT)
        return True
    try:
        family = {child: child.cmdline() for child in psutil.Process(process.pid).children()}
        servers = [child for child, line in family.items() if any("forkserver" in part for part in line)]
        workers = [worker for server in servers for worker in server.children()]
        choices = {"parent": [psutil.Process(process.pid)], "fork server": servers, "worker": workers}[victim]
        if not choices:
            return False
        chance.choice(choices).kill()
    except psutil.Error:
        return False
    return True


def _after(process: subprocess.Popen[str], victim: str) -> Counter[str]:
    _, err = process.communicate()
    expected = {"parent": (-signal.SIGKILL,), "ctrl-c": (130, 0)}[victim]  # 0: it had just ended
    wrong = process.returncode not in expected
    if wrong or "Traceback" in err:
        print(f"{victim}: exit code {process.returncode}\n{err}", file=sys.stderr)
    return Counter({"wrong exit": int(wrong), "tracebacks": int("Traceback" in err)})


if __name__ == "__main__":
    sys.exit(main())
