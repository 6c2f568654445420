"""Systems that really learn, from folds or hold-out draws of a labelled set: equal in law, or not."""

from __future__ import annotations

import numpy as np

from harness.analysis.pairs import UNTESTED, Pair


def learned(
    random: np.random.Generator,
    *,
    actors: int = 24,
    each: int = 60,
    classes: int = 8,
    width: int = 12,
    folds: int = 5,
    runs: int = 1,
    same_deal: bool = False,
    better: float = 0.0,
    actor: float = 0.4,
    signal: float = 0.45,
    share: float = 1.0,
) -> Pair:
    """Two ridge classifiers, each on features of its own, cross-validated with whole actors dealt to folds.

    Both see class means, half of their noise in common; swapping the two sets of features changes nothing in law, so
    the systems are equal unless ``better`` shrinks the noise of A. Every model trains on clips drawn with replacement,
    ``share`` times as many as it may see: runs differ by chance of training as well as, unless ``same_deal``, by their
    folds. Scores (runs, N, classes).
    """
    group = np.repeat(np.arange(actors), each)
    label = np.tile(np.arange(each) % classes, actors) if each > 1 else random.permutation(actors) % classes
    xa, xb = _features(random, group, label, width, classes, actor, signal, better)
    deals = [_deal(random, actors, folds)[group] for _ in range(1 if same_deal else runs)] * (runs if same_deal else 1)
    fold = np.stack(deals)
    a, b = (np.stack([_cross_validated(random, x, label, classes, deal, share) for deal in fold]) for x in (xa, xb))
    return Pair(a, b, label, group if each > 1 else None, folds=fold)


def drawn(random: np.random.Generator, *, draws: int = 10, actors: int = 24, held_out: int = 4, **world: float) -> Pair:
    """The same systems on ``draws`` random hold-outs of whole actors."""
    group, label = np.repeat(np.arange(actors), 60), np.tile(np.arange(60) % 8, actors)
    xa, xb = _features(random, group, label, 12, 8, world.get("actor", 0.4), 0.45, world.get("better", 0.0))
    fold = np.stack([np.where(random.permutation(actors) < held_out, 1, UNTESTED)[group] for _ in range(draws)])
    a, b = (np.stack([_cross_validated(random, x, label, 8, deal, 1.0) for deal in fold]) for x in (xa, xb))
    return Pair(a, b, label, group, folds=fold)


def _features(
    random: np.random.Generator, group: np.ndarray, label: np.ndarray, width: int, classes: int, actor: float, signal: float, better: float
) -> list[np.ndarray]:
    means = signal * random.normal(size=(classes, width))

    def noise() -> np.ndarray:
        return actor * random.normal(size=(group.max() + 1, width))[group] + random.normal(size=(len(group), width))

    common = noise()
    return [means[label] + scale * np.sqrt(0.5) * (common + noise()) for scale in (1 - better, 1.0)]


def _deal(random: np.random.Generator, actors: int, folds: int) -> np.ndarray:
    return random.permutation(np.arange(actors) % folds)


def _cross_validated(
    random: np.random.Generator, x: np.ndarray, label: np.ndarray, classes: int, fold: np.ndarray, share: float
) -> np.ndarray:
    """Scores of every clip by the model that did not train on its fold; 0 where untested."""
    design, target = np.column_stack([x, np.ones(len(x))]), np.eye(classes)[label]
    scores = np.zeros(target.shape)
    for name in np.unique(fold[fold != UNTESTED]):
        train = np.flatnonzero(fold != name)
        weight = np.bincount(random.choice(train, int(share * len(train))), minlength=len(x))[:, None]
        solved = np.linalg.solve(design.T @ (weight * design) + np.eye(design.shape[1]), design.T @ (weight * target))
        scores[fold == name] = design[fold == name] @ solved
    return scores
