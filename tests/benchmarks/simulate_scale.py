"""Ten thousand trials on 1 to 1,000 workers, simulated from measured times: python tests/benchmarks/simulate_scale.py RESULTS [...]

Trials take the times that RESULTS' finished trials took (``runtime.json``), drawn with replacement. One driver starts trials,
hears of epochs, stores records and mirrors them, one after another; its costs are options, measured by overheads.py. Workers die
at random (``--deaths`` a day for each) and their trial starts anew. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

WORKERS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


@dataclass(frozen=True)
class Costs:
    """Seconds. Of the driver, for each trial: to start it, to hear of one epoch, to store its record, to mirror it. Of a worker: begin."""

    start: float
    epoch: float
    store: float
    mirror: float
    begin: float

    def end(self, epochs: int) -> float:
        return epochs * self.epoch + self.store + self.mirror


@dataclass(frozen=True)
class Outcome:
    """``wall``: seconds; ``useful`` and ``driver``: shares of the workers' and of the driver's time; ``lost``: seconds of dead trials."""

    wall: float
    useful: float
    driver: float
    deaths: int
    lost: float


def simulate(times: Sequence[tuple[float, int]], workers: int, trials: int, costs: Costs, deaths_per_day: float, seed: int = 0) -> Outcome:
    """One campaign. ``times``: seconds and epochs of measured trials."""
    chance = random.Random(seed)
    waiting = [chance.choice(times) for _ in range(trials)]
    useful = sum(seconds for seconds, _ in waiting)
    rate = deaths_per_day / 86_400
    free, busy, deaths, lost, running = 0.0, 0.0, 0, 0.0, []  # the driver is free again at ``free``

    def serve(now: float, cost: float) -> float:
        nonlocal free, busy
        free, busy = max(now, free) + cost, busy + cost
        return free

    def launch(now: float) -> None:
        nonlocal deaths, lost
        seconds, epochs = waiting.pop()
        began = serve(now, costs.start)
        needed = costs.begin + seconds
        dies = chance.expovariate(rate) if rate else float("inf")
        if dies < needed:
            deaths, lost = deaths + 1, lost + dies
        heapq.heappush(running, (began + min(dies, needed), len(waiting), seconds, epochs, dies < needed))

    now = 0.0
    for _ in range(min(workers, trials)):
        launch(0.0)
    while running:
        now, _, seconds, epochs, died = heapq.heappop(running)
        if died:
            waiting.insert(0, (seconds, epochs))
        else:
            now = serve(now, costs.end(epochs))
        if waiting:
            launch(now)
    wall = max(now, free)
    return Outcome(wall, useful / (wall * workers), busy / wall, deaths, lost)


def measured(folders: Sequence[Path]) -> list[tuple[float, int]]:
    """Seconds and epochs of every finished trial."""
    files = [path for folder in folders for path in folder.glob("records/*/runtime.json")]
    contents = [json.loads(path.read_text()) for path in files]
    return [(float(one["seconds"]), len(one["epoch_seconds"])) for one in contents]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", nargs="+", type=Path)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--deaths", type=float, default=0.5, help="of a worker, a day")
    parser.add_argument("--start", type=float, required=True, help="ms of the driver to start a trial")
    parser.add_argument("--epoch", type=float, required=True, help="ms of the driver for an epoch's report")
    parser.add_argument("--store", type=float, required=True, help="ms of the driver for a record")
    parser.add_argument("--mirror", type=float, required=True, help="ms of the driver for MLflow; 0: no mirror")
    parser.add_argument("--begin", type=float, required=True, help="ms of a worker before its first epoch and after its last")
    options = parser.parse_args()
    times = measured(options.results)
    costs = Costs(*(getattr(options, name) / 1000 for name in ("start", "epoch", "store", "mirror", "begin")))
    mean = sum(seconds for seconds, _ in times) / len(times)
    epochs = sum(count for _, count in times) / len(times)
    per_trial = costs.start + costs.end(round(epochs))
    print(
        f"{len(times)} measured trials, {mean:.1f} s and {epochs:.1f} epochs on average; {1000 * per_trial:.0f} ms of the driver for one."
    )
    print(f"It can feed about {mean / per_trial:.0f} workers.\n")
    print("| workers | hours | workers' time that trains | driver busy | deaths | hours lost |\n|--:|--:|--:|--:|--:|--:|")
    for workers in WORKERS:
        one = simulate(times, workers, options.trials, costs, options.deaths)
        print(f"| {workers:,} | {one.wall / 3600:.2f} | {one.useful:.1%} | {one.driver:.1%} | {one.deaths} | {one.lost / 3600:.2f} |")


if __name__ == "__main__":
    main()
