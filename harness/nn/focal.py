"""Focal losses of classification: those that AMCM's table 2 compares, from logits, finite and smooth for every gamma >= 0.

Each takes logits (B, C) of at least two classes and labels (B,) int64, and gives the mean over the batch, its sum, or
(B,) losses, as ``reduction`` says. ``gamma`` = 0 and weights of 1 are cross-entropy. Two of them weigh clips by the
confusion matrix of the epoch before, which they count themselves:

    loss = DynamicFocal(classes=8)
    for epoch in range(epochs):
        for x, label in batches:
            loss(model(x), label).backward()
            ...
        loss.end_epoch()
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Reduction = Literal["mean", "sum", "none"]
Calibration = Literal["entropy", "margin"]
ClassWeight = Literal["error", "share"]


def focal(logits: Tensor, label: Tensor, gamma: float = 2.0, reduction: Reduction = "mean") -> Tensor:
    """-(1 - p)^gamma log p, p the probability of the label (Lin et al. 2017; AMCM, eq. 16).

    1 - p is the sum of the other probabilities, kept as its logarithm: 1 - p itself is 0 for a sure prediction, and there
    (1 - p)^gamma has no derivative in floating point if gamma < 1.
    """
    log_p, others = _split(logits.log_softmax(1), label)
    return _reduced(-(gamma * others.logsumexp(1)).exp() * log_p, reduction)


def calibrated_focal(
    logits: Tensor,
    label: Tensor,
    gamma: float = 2.0,
    form: Calibration = "entropy",
    weight: float = 0.1,
    reduction: Reduction = "mean",
) -> Tensor:
    """Readings of the calibrated focal loss (Bai et al. 2022), whose formula AMCM cites and does not print.

    ``form`` "entropy": the focal loss plus ``weight`` times the entropy of the predicted distribution, after AMCM's words
    (a term that asks for the right distribution with a lower entropy). "margin": -(1 - p + q)^gamma log p, q the largest
    probability of another class, so that a clip is hard by its margin; ``weight`` has no part in it.
    """
    log_all = logits.log_softmax(1)
    log_p, others = _split(log_all, label)
    if form == "entropy":
        entropy = -(log_all.exp() * log_all).sum(1)
        return _reduced(-(gamma * others.logsumexp(1)).exp() * log_p + weight * entropy, reduction)
    hardness = torch.logaddexp(others.logsumexp(1), others.amax(1))
    return _reduced(-(gamma * hardness).exp() * log_p, reduction)


def error_weights(confusion: Tensor, label: Tensor, predicted: Tensor) -> Tensor:
    """AMCM, eq. 18: 1 for a clip that is predicted right, else 1 + the share of its mistake among its class's errors.

    ``confusion`` (C, C) counts, row: label, column: prediction; ``label`` and ``predicted`` (B,) int64 -> (B,) float32. Where
    the class had no error, or no count at all, the share 0 / 0 is read as 0: the weight is 1.
    """
    wrong = confusion.clone().fill_diagonal_(0)
    share = wrong / wrong.sum(1, keepdim=True).clamp_min(1)
    return 1 + share[label, predicted]


def class_weights(confusion: Tensor, form: ClassWeight = "error") -> Tensor:
    """Weights of the weighted focal loss from each class's accuracy in ``confusion`` (C, C): (C,) float32.

    AMCM says of Li et al. (2022) only that the weights follow the accuracy of each class, and that a class of low accuracy
    gets more. ``form`` "error": 1 + (1 - accuracy), the range of eq. 18. "share": C (1 - accuracy) / sum of (1 - accuracy),
    which gives a class without errors no weight at all. A class without counts has no error; without any error all are 1.
    """
    total = confusion.sum(1)
    error = (total - confusion.diagonal()) / total.clamp_min(1)
    if form == "error":
        return 1 + error
    whole = error.sum()
    return torch.where(whole > 0, len(error) * error / whole, 1.0)


class EpochWeighted(nn.Module):
    """A focal loss whose weights come from the training predictions of the epoch before.

    Counts every prediction (argmax) that it is given in training mode; ``end_epoch`` makes these counts the ones that weigh,
    and starts anew. In the first epoch all weights are 1. In evaluation mode nothing is counted and weights are 1, so that
    values of different epochs can be compared. ``previous`` and ``counted`` (C, C) int64 are buffers: a stored state goes on
    with the same weights. No gradient passes through a weight.
    """

    previous: Tensor
    counted: Tensor

    def __init__(self, classes: int, gamma: float = 2.0, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.gamma, self.reduction = gamma, reduction
        self.register_buffer("previous", torch.zeros(classes, classes, dtype=torch.int64))
        self.register_buffer("counted", torch.zeros(classes, classes, dtype=torch.int64))

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """logits (B, C), label (B,) -> the reduced loss; (B,) with ``reduction`` "none"."""
        losses = focal(logits, label, self.gamma, "none")
        if self.training:
            predicted = logits.detach().argmax(1)
            self._count(label, predicted)
            losses = self.weights(label, predicted).to(losses.dtype) * losses
        return _reduced(losses, self.reduction)

    def weights(self, label: Tensor, predicted: Tensor) -> Tensor:
        """The weight of each clip, (B,), from ``previous``."""
        raise NotImplementedError

    def end_epoch(self) -> None:
        """Weigh by what was counted since the last call, and count anew."""
        self.previous.copy_(self.counted)
        self.counted.zero_()

    def _count(self, label: Tensor, predicted: Tensor) -> None:
        cell = label * len(self.counted) + predicted
        self.counted.view(-1).index_add_(0, cell, torch.ones_like(cell))


class WeightedFocal(EpochWeighted):
    """Weighted focal loss: each class has the weight ``class_weights`` (Li et al. 2022, as AMCM's section 4.3 speaks of it)."""

    def __init__(self, classes: int, gamma: float = 2.0, form: ClassWeight = "error", reduction: Reduction = "mean") -> None:
        super().__init__(classes, gamma, reduction)
        self.form = form

    def weights(self, label: Tensor, predicted: Tensor) -> Tensor:
        return class_weights(self.previous, self.form)[label]


class DynamicFocal(EpochWeighted):
    """FLDW, focal loss with dynamic weight (AMCM, eq. 17 and 18): weights are ``error_weights``."""

    def weights(self, label: Tensor, predicted: Tensor) -> Tensor:
        return error_weights(self.previous, label, predicted)


def _split(log_all: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """The label's log-probability (B,), and all of them with -inf in its place, (B, C)."""
    place = label[:, None]
    return log_all.gather(1, place).squeeze(1), log_all.scatter(1, place, float("-inf"))


def _reduced(losses: Tensor, reduction: Reduction) -> Tensor:
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" else losses.mean()
