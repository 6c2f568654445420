"""Found settings against the published ones on seeds that the search did not use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isnan

import numpy as np
from tabulate import tabulate

from harness.analysis.statistics import Comparison, Pair, compare, paired_t
from harness.data.schema import Card
from harness.experiments.records import Record, RecordStore
from harness.experiments.trials import Trial
from harness.reporting.layout import ABSENT, number, p_value
from harness.training.metrics import metrics

HEADS = ("clips", "metric", "published", "tuned", "difference", "95 % interval", "p", "test")


def confirmation(card: Card, plan: Mapping[str, Sequence[Trial]], store: RecordStore) -> str:
    """A table of both settings on validation and test clips, over the seeds that both finished; p is not adjusted.

    ``plan``: trials of the rows ``published`` and ``tuned`` on one split. Test clips are compared by the test of the design
    (which allows for other clips and seeds), validation by a paired t-test over seeds (which holds for these clips alone).
    """
    found = {row: {trial.identity.seed: store.get(trial.key) for trial in trials if trial.key in store} for row, trials in plan.items()}
    shared = [seed for seed in found["tuned"] if seed in found["published"]]
    if len(shared) < 2:
        return "Not confirmed: fewer than 2 seeds finished with both settings."
    tuned, published = ([found[row][seed] for seed in shared] for row in ("tuned", "published"))
    rows = [*_valid(card, tuned, published), *_test(card, tuned, published)]
    body = tabulate(rows, HEADS, tablefmt="simple", disable_numparse=True)
    seeds, planned = ", ".join(map(str, shared)), {trial.identity.seed for trials in plan.values() for trial in trials}
    lacking = f" INCOMPLETE: {len(shared)} of {len(planned)} pairs of runs, only these are compared." if len(shared) < len(planned) else ""
    head = f"Published and tuned settings on seeds {seeds}, which the search did not use (difference: tuned minus published).{lacking}"
    return f"{head.removesuffix('.')}:\n\n{body}"


def _valid(card: Card, tuned: Sequence[Record], published: Sequence[Record]) -> Iterator[tuple[str, ...]]:
    for name in card.metrics:
        a, b = ([record.valid[name] for record in side] for side in (tuned, published))
        if None not in (*a, *b):
            values_a, values_b = np.array(a, dtype=np.float64), np.array(b, dtype=np.float64)
            yield _row("valid", name, float(values_a.mean()), float(values_b.mean()), paired_t(values_a, values_b, metric=name))


def _test(card: Card, tuned: Sequence[Record], published: Sequence[Record]) -> Iterator[tuple[str, ...]]:
    a, b = (np.stack([record.predictions.arrays()[0] for record in side]) for side in (tuned, published))
    first = tuned[0].predictions
    clusters = None if len(set(first.groups)) == len(first.groups) else np.asarray(first.groups)
    pair = Pair(a, b, first.arrays()[1], clusters)
    chosen = [metrics[name] for name in card.metrics]
    for metric, outcome in zip(chosen, compare(chosen, pair, seed=0), strict=True):
        mean_a, mean_b = (float(np.mean([metric.score(values, first.arrays()[1]) for values in side])) for side in (a, b))
        yield _row("test", metric.name, mean_a, mean_b, outcome)


def _row(part: str, name: str, tuned: float, published: float, outcome: Comparison) -> tuple[str, ...]:
    metric = metrics[name]
    interval = ABSENT if isnan(outcome.low) else f"[{number(outcome.low, metric, sign=True)}, {number(outcome.high, metric, sign=True)}]"
    values = (number(published, metric), number(tuned, metric), number(outcome.difference, metric, sign=True))
    return (part, metric.label, *values, interval, p_value(outcome.p), outcome.test)
