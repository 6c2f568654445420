"""Features too good to be true: a linear probe that beats the best published score.

THIS CHECK READS TEST LABELS. It judges a data set, not a method: nothing that it fits or learns reaches training, and no
method may be chosen by it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.data.checks.registry import Found, Subject, check
from harness.data.schema import SPLITS, Dataset, Task
from harness.data.splits import FOLD, Fold, Parts, cut, folds, published_folds
from harness.errors import HarnessError

Floats = NDArray[np.float64]

MARGIN = 2.0  # standard errors of the test score by which the probe must beat the bound
PERFECT = 0.99  # where nothing was published: no real features of people are linear to this degree
PENALTIES = 10.0 ** np.arange(-2, 6)


class Score(NamedTuple):
    """A score of the probe with its standard error over clips."""

    value: float
    error: float


@check("too-good-to-be-true", cheap=False)
def too_good_to_be_true(subject: Subject) -> Iterator[Found]:
    """A ridge regression on time means, fitted on training clips and scored on test clips, does not beat what was ever published.

    Bounds are the catalogue's best published scores; on simulated data the best possible ones. Where neither is known, an
    all but perfect probe is reported.
    """
    card = subject.dataset.card
    truth, guess, how = probe(subject)
    if not len(truth):
        return
    scores = _scores(truth, guess, card.task)
    bounds = {
        name: bound for name, bound in (card.best_possible if card.simulated else subject.facts.best_published).items() if name in scores
    }
    known = bool(bounds)
    source = ("the best possible" if card.simulated else "the best published") if known else "any plausible"
    bounds = bounds or {name: PERFECT for name in ("corr", "accuracy") if name in scores}
    beaten = [f"{name} {scores[name].value:.3f} ({bounds[name]:.3f})" for name in bounds if _beats(name, scores[name], bounds[name], known)]
    if beaten:
        yield Found(
            "warning",
            f"a linear probe on time means beats {source} score, given in brackets, {how}: {', '.join(beaten)}",
            "Labels have leaked into the features, most often by an extractor that was trained on test clips, or the test labels are not "
            "what they should be. Do not report results on these features; ask how they were made.",
        )


def probe(subject: Subject) -> tuple[Floats, Floats, str]:
    """Labels (n,), the probe's predictions (n,) or (n, classes) of the same test clips, and which split they are of."""
    cuts, how = _cuts(subject.dataset)
    if not cuts or not subject.survey:
        return np.empty(0), np.empty(0), how
    x = np.concatenate([survey.means for survey in subject.survey.values()], axis=1)
    y = subject.dataset.clips["label"].to_numpy(dtype=np.float64)
    targets = _targets(y, subject.dataset.card.task)
    found = [_fit(x, targets, parts) for parts in cuts]
    tested = np.concatenate([parts["test"].rows.numpy() for parts in cuts])
    return y[tested], np.concatenate(found), how


def _cuts(dataset: Dataset) -> tuple[list[Parts], str]:
    """The parts to probe on: the official split, else the published folds, else five folds by group; none if too small."""
    shipped = set(dataset.clips["split"])
    try:
        if shipped.issuperset(SPLITS):
            return [cut(dataset, Fold())], "on the official split"
        if FOLD in dataset.clips:
            return [cut(dataset, fold) for fold in folds(published_folds(dataset), protocol="published")], "in the published folds"
        return [cut(dataset, fold) for fold in folds(5)], "in five folds by group"
    except HarnessError:  # too few groups or clips for a test
        return [], ""


def _targets(y: Floats, task: Task) -> Floats:
    """Intensities (N, 1), or one column of -1 and 1 per class (N, classes)."""
    return y[:, None] if task.kind == "regression" else np.asarray(np.where(y[:, None] == np.arange(len(task.classes)), 1.0, -1.0))


def _fit(x: NDArray[np.float32], targets: Floats, parts: Parts) -> Floats:
    """Predictions for the test part; the penalty is that of the least squared error on the validation part."""
    train, valid, test = (parts[name].rows.numpy() for name in SPLITS)
    known = x[train].astype(np.float64)
    mean, spread = known.mean(0), known.std(0)
    spread[spread <= 1e-6 * np.abs(known).max(0)] = np.inf  # constant in training: no coefficient
    known = (known - mean) / spread
    values, vectors = np.linalg.eigh(known.T @ known)
    offset = targets[train].mean(0)
    projected = vectors.T @ (known.T @ (targets[train] - offset))
    weights = [vectors @ (projected / (values.clip(0) + penalty)[:, None]) for penalty in PENALTIES]
    errors = [np.square((x[valid] - mean) / spread @ weight + offset - targets[valid]).sum() for weight in weights]
    best: Floats = (x[test] - mean) / spread @ weights[int(np.argmin(errors))] + offset
    return best[:, 0] if targets.shape[1] == 1 else best


def _scores(truth: Floats, guess: Floats, task: Task) -> dict[str, Score]:
    """What can be scored, under the metrics' names in the tables; undefined scores are left out."""
    if task.kind == "classification":
        hit = guess.argmax(1) == truth
        recalls = [hit[truth == label].mean() for label in np.unique(truth)]
        error = _mean(hit).error
        return {
            "accuracy": _mean(hit),
            "uar": Score(float(np.mean(recalls)), error),
            "f1_weighted": Score(_weighted_f1(truth, guess.argmax(1)), error),
        }
    counted = truth != 0
    with np.errstate(invalid="ignore", divide="ignore"):
        corr = float(np.corrcoef(truth, guess)[0, 1]) if len(truth) > 2 else np.nan
    scores = {
        "mae": _mean(np.abs(truth - guess)),
        "corr": Score(corr, (1 - corr**2) / np.sqrt(len(truth))),
        "acc2_nonneg": _mean((truth >= 0) == (guess >= 0)),
        "acc2_nonzero": _mean((truth > 0)[counted] == (guess > 0)[counted]),
    }
    return {name: score for name, score in scores.items() if np.isfinite(score).all()}


def _weighted_f1(truth: Floats, label: NDArray[np.int64]) -> float:
    """F1 of each class, weighted by its true clips."""
    scores = [2 * ((truth == c) & (label == c)).sum() / ((truth == c).sum() + (label == c).sum()) for c in np.unique(truth)]
    return float(np.average(scores, weights=np.unique(truth, return_counts=True)[1]))


def _mean(values: NDArray[np.bool_] | Floats) -> Score:
    values = values.astype(np.float64)
    return Score(float(np.mean(values)), float(np.std(values) / np.sqrt(len(values)))) if len(values) else Score(np.nan, np.nan)


def _beats(name: str, score: Score, bound: float, known: bool) -> bool:
    if not known:
        return score.value > bound
    ahead = bound - score.value if name == "mae" else score.value - bound
    return ahead > MARGIN * score.error
