"""The one training loop: early stopping on validation, every clip used, every epoch resumable.

Validation loss is the task loss alone, without weights that change from epoch to epoch, a mean over clips (not over
batches) computed without shuffling, so that selection is neither random nor dependent on the batch size. Randomness
comes from streams named by the epoch, so a run that stops after any epoch continues with the same bits.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from harness import seeds
from harness.data.batches import Batch, by_length, gather, in_order, shuffled
from harness.data.schema import Frozen, Split, Task
from harness.errors import ConfigError, HarnessError
from harness.nn.focal import EpochWeighted
from harness.training import missing, text_encoder
from harness.training.augmentation import augmented
from harness.training.contract import Inputs, Method, MethodConfig, Output
from harness.training.dead import GradientWatch
from harness.training.objectives import Objective, task_objective, training_objective
from harness.training.schedules import Schedule, make_optimiser
from harness.training.settings import Training

State = dict[str, Any]


class Diverged(HarnessError):
    """Training or prediction gave a loss that is not finite; the trial is recorded as failed."""


class Epoch(Frozen):
    """One epoch's figures, means over clips. ``losses``: the task loss and each auxiliary loss, unweighted."""

    epoch: int
    train_loss: float
    losses: dict[str, float]
    valid_loss: float
    learning_rate: float


@dataclass
class Run:
    """All that changes while one method trains; ``state`` and ``restore`` are what a checkpoint holds.

    ``objective`` is the loss that trains; ``selection`` is the one on validation, the same in every epoch. ``average``: the method once
    more, with a running mean of its weights (Polyak and Juditsky 1992), where the settings ask for one.
    """

    method: Method
    config: MethodConfig
    objective: Objective
    selection: Objective
    optimiser: torch.optim.Optimizer
    schedule: Schedule
    seed: int
    average: AveragedModel | None = None
    history: list[Epoch] = field(default_factory=list)
    best_loss: float = math.inf
    best_epoch: int = 0
    best_state: State = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.watch = GradientWatch(self.method)

    @property
    def settings(self) -> Training:
        return self.config.training

    @property
    def device(self) -> torch.device:
        return torch.device(self.settings.device)

    @property
    def judged(self) -> Method:
        """What validates and predicts."""
        return self.method if self.average is None else cast(Method, self.average.module)

    @property
    def finished(self) -> bool:
        done = len(self.history)
        return done >= self.settings.max_epochs or done - self.best_epoch >= self.settings.patience

    def state(self) -> State:
        """Tensors and plain values only, so that it loads with ``weights_only``."""
        return {
            "method": self.method.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state(),
            "objective": self.objective.state_dict() if isinstance(self.objective, nn.Module) else {},
            "average": {} if self.average is None else self.average.state_dict(),
            "history": [epoch.model_dump() for epoch in self.history],
            "best": {"loss": self.best_loss, "epoch": self.best_epoch, "state": self.best_state},
        }

    def restore(self, state: State) -> None:
        """Continue where ``state`` was taken."""
        self.method.load_state_dict(state["method"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.restore(state["schedule"])
        if isinstance(self.objective, nn.Module):
            self.objective.load_state_dict(state["objective"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.history = [Epoch(**epoch) for epoch in state["history"]]
        best = state["best"]
        self.best_loss, self.best_epoch, self.best_state = best["loss"], best["epoch"], best["state"]


def build(kind: type[Method], inputs: Inputs, task: Task, config: MethodConfig, seed: int) -> Method:
    """A method with weights from the stream (seed, "init"), behind its text encoder if ``config`` names one.

    Raises ConfigError for ``accumulate_by_length`` with a method that is not ``separable``.
    """
    encoder = text_encoder.load(config.text_encoder) if config.text_encoder.path else None
    if encoder is not None:
        inputs = replace(inputs, dims={**inputs.dims, "text": text_encoder.width(encoder)})
    torch.manual_seed(seeds.derive(seed, "init"))  # after the encoder, which draws numbers while it loads
    method = kind(inputs, task, config)
    if config.training.accumulate_by_length and not kind.separable:
        raise ConfigError(
            f"training.accumulate_by_length = true: {kind.__name__} does not declare that no loss or statistic joins clips of a batch",
            "Leave it false; or, if that holds for your method, write 'separable = True' in its class.",
        )
    whole = method if encoder is None else text_encoder.WithTextEncoder(method, encoder, config.text_encoder)
    return whole.to(config.training.device)


def train(
    method: Method,
    train: Split,
    valid: Split,
    task: Task,
    config: MethodConfig,
    seed: int,
    *,
    resume: State | None = None,
    after_epoch: Callable[[Run], None] = lambda run: None,
) -> Run:
    """Fit ``method`` on ``train``, keep the weights of the epoch with the lowest loss on ``valid``.

    A method without trainable parameters is fitted and not trained. Raises Diverged when a loss is not finite,
    ConfigError when the method returns an auxiliary loss that its config has no weight for.
    """
    method.fit(missing.for_training(train, config.missing, seed, 0))
    if not any(parameter.requires_grad for parameter in method.parameters()):
        return Run(method, config, *_objectives(config, task), *_nothing_to_optimise(config), seed)
    steps = math.ceil(len(_batches(train, config.training, seed, 0)) / config.training.accumulate)
    optimiser = make_optimiser(method, config.training)
    schedule = Schedule(optimiser, config.training, steps)
    run = Run(method, config, *_objectives(config, task), optimiser, schedule, seed, _average(method, config.training))
    if resume is not None:
        run.restore(resume)
    forward = _compiled(method, config.training)
    while not run.finished:
        _one_epoch(run, forward, train, valid)
        after_epoch(run)
    method.load_state_dict(run.best_state)
    return run


def _average(method: Method, settings: Training) -> AveragedModel | None:
    """Buffers, such as a batch norm's statistics, are the method's own."""
    mean = get_ema_multi_avg_fn(settings.average)  # type: ignore[no-untyped-call]
    return AveragedModel(method, multi_avg_fn=mean) if settings.average else None


def _compiled(method: Method, settings: Training) -> Callable[[Batch], Output]:
    if not settings.compile:
        return method
    compiled: Callable[[Batch], Output] = torch.compile(method, mode="reduce-overhead" if settings.cuda_graphs else "default")
    return compiled


def predict(method: Method, split: Split, settings: Training) -> Tensor:
    """Predictions for every clip of ``split``, in its order, on the CPU: (N,) or (N, classes) float32.

    Raises Diverged when a prediction is not finite.
    """
    parts = [(batch.position, output.prediction.float().cpu()) for batch, output in _evaluate(method, split.without_labels(), settings)]
    positions, predictions = (torch.cat(column) for column in zip(*parts, strict=True))
    ordered = predictions[positions.cpu().argsort()]
    if not ordered.isfinite().all():
        raise Diverged(f"{int((~ordered.isfinite()).sum())} predictions are not finite", "Lower the learning rate or clip gradients.")
    return ordered


def _objectives(config: MethodConfig, task: Task) -> tuple[Objective, Objective]:
    """The loss that trains, on the device, and the one that selects."""
    objective = training_objective(config, task)
    return objective.to(config.training.device) if isinstance(objective, nn.Module) else objective, task_objective(config, task)


def _nothing_to_optimise(config: MethodConfig) -> tuple[torch.optim.Optimizer, Schedule]:
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(0))], lr=config.training.learning_rate)
    return optimiser, Schedule(optimiser, config.training, 1)


def _one_epoch(run: Run, forward: Callable[[Batch], Output], train: Split, valid: Split) -> None:
    number = len(run.history) + 1
    rate = run.optimiser.param_groups[0]["lr"]
    train_loss, losses = _train_epoch(run, forward, missing.for_training(train, run.config.missing, run.seed, number), number)
    valid_loss = _validation_loss(run, forward if run.average is None else run.judged, valid)
    for name, value in {"training": train_loss, "validation": valid_loss}.items():
        if not math.isfinite(value):
            raise Diverged(f"{name} loss is {value} in epoch {number}", "Lower the learning rate, clip gradients, or check the features.")
    if valid_loss < run.best_loss:
        run.best_loss, run.best_epoch = valid_loss, number
        run.best_state = copy.deepcopy(run.judged.state_dict())
    run.history.append(Epoch(epoch=number, train_loss=train_loss, losses=losses, valid_loss=valid_loss, learning_rate=rate))
    run.schedule.after_epoch(valid_loss)
    if isinstance(run.objective, EpochWeighted):
        run.objective.end_epoch()


def _train_epoch(run: Run, forward: Callable[[Batch], Output], train: Split, number: int) -> tuple[float, dict[str, float]]:
    torch.manual_seed(seeds.derive(run.seed, "dropout", number))
    run.method.train()
    totals = _Totals()
    for group in _groups(train, run.settings, _batches(train, run.settings, run.seed, number)):
        run.optimiser.zero_grad(set_to_none=True)
        clips = sum(len(positions) for positions in group)
        for positions in group:
            batch = augmented(gather(train, positions), train, run.config, run.seed, number).to(run.device)
            loss, terms = _losses(run, forward, batch)
            (loss * (len(batch) / clips)).backward()  # type: ignore[no-untyped-call]
            totals.add(len(batch), {"total": loss, **terms})
        run.watch.look()
        _clip(run.method, run.settings)
        run.optimiser.step()
        if run.average is not None:
            run.average.update_parameters(run.method)
        run.schedule.after_step()
    means = totals.means()
    return means.pop("total"), means


def _losses(run: Run, forward: Callable[[Batch], Output], batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted total and its unweighted terms."""
    assert batch.labels is not None
    with _autocast(run.settings):
        output = forward(batch)
    task = run.objective(output.prediction.float(), batch.labels) / len(batch)
    weights = run.config.weights.model_dump()
    unknown = set(output.losses) - set(weights)
    if unknown:
        raise ConfigError(f"{type(run.method).__name__} returns losses without a weight: {sorted(unknown)}", "Add them to Config.weights.")
    total = task + sum((weights[name] * loss for name, loss in output.losses.items()), torch.zeros_like(task))
    return total, {"task": task, **output.losses}


def _validation_loss(run: Run, forward: Callable[[Batch], Output], valid: Split) -> float:
    run.method.eval()
    total = 0.0
    for batch, output in _evaluate(run.judged, valid, run.settings, forward):
        assert batch.labels is not None
        total += run.selection(output.prediction.float(), batch.labels).item()
    return total / len(valid)


def _evaluate(
    method: Method, split: Split, settings: Training, forward: Callable[[Batch], Output] | None = None
) -> Iterator[tuple[Batch, Output]]:
    method.eval()
    for batch in in_order(split, settings.batch_size):
        batch = batch.to(torch.device(settings.device))
        with torch.inference_mode(), _autocast(settings):
            output = (method if forward is None else forward)(batch)
        yield batch, output


def _autocast(settings: Training) -> AbstractContextManager[Any]:
    return torch.autocast(settings.device, dtype=torch.bfloat16, enabled=settings.amp)


def _clip(method: Method, settings: Training) -> None:
    if settings.clip_norm is not None:
        nn.utils.clip_grad_norm_(method.parameters(), settings.clip_norm)
    if settings.clip_value is not None:
        nn.utils.clip_grad_value_(method.parameters(), settings.clip_value)


def _batches(train: Split, settings: Training, seed: int, epoch: int) -> list[Tensor]:
    return shuffled(train, settings.batch_size, seed, epoch, settings.length_buckets)


def _groups(train: Split, settings: Training, batches: list[Tensor]) -> list[list[Tensor]]:
    """Batches that share one optimiser step; the last group may be smaller and is kept."""
    groups = [batches[i : i + settings.accumulate] for i in range(0, len(batches), settings.accumulate)]
    if not settings.accumulate_by_length:
        return groups
    return [by_length(train, torch.cat(group), settings.batch_size) for group in groups]


class _Totals:
    """Sums over clips by name, kept on the device so that no step waits for a transfer."""

    def __init__(self) -> None:
        self.clips = 0
        self.sums: dict[str, Tensor] = {}

    def add(self, clips: int, means: dict[str, Tensor]) -> None:
        self.clips += clips
        for name, mean in means.items():
            value = mean.detach() * clips
            self.sums[name] = self.sums[name] + value if name in self.sums else value

    def means(self) -> dict[str, float]:
        return {name: float(total) / self.clips for name, total in self.sums.items()}
