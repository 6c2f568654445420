"""Logistic regression on clip statistics: the floor of classification.

Reference: scikit-learn's LogisticRegression (multinomial, L2). There is nothing open but ``strength``, scikit-learn's default.

It reads what the peers' networks must beat: with published folds of RAVDESS such statistics of sound and action units give .70.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor

from harness.errors import ConfigError
from harness.training import Batch, Inputs, Method, MethodConfig, Output, Picture, Split, Task, register_method
from harness.training.ranges import tunable


@register_method("logistic")
class Logistic(Method):
    """Multinomial logistic regression on mean and deviation over each clip's real frames, of all modalities; for classes only.

    Of pictures it is those of every pixel after they were averaged down to ``side`` x ``side``. Statistics are standardised with the
    training split's mean and deviation. Nothing is trained by gradient; coefficients are in
    double precision. A class that the training split lacks gets no probability. ConfigError for a task of intensities.
    """

    class Config(MethodConfig):
        strength: float = Field(1.0, gt=0, description="C: inverse of the penalty", json_schema_extra=tunable(1e-3, 1e2, log=True))
        side: PositiveInt = Field(16, description="pixels per side that larger pictures are averaged down to")
        iterations: PositiveInt = Field(1000, description="most iterations of the solver")

    reference = "Cox 1958, The Regression Analysis of Binary Sequences, JRSS B 20(2)"
    closed_form = True
    weight: Tensor
    bias: Tensor

    def __init__(self, inputs: Inputs, task: Task, config: Config) -> None:
        super().__init__(inputs, task, config)
        if task.kind != "classification":
            raise ConfigError("logistic predicts classes; this task has intensities", "Use ridge, the linear floor of intensities.")
        self.config = config
        self.readers = {name: _Reader(inputs.pictures.get(name), config.side) for name in inputs.dims}
        width = sum(reader.width(inputs.dims[name]) for name, reader in self.readers.items())
        self.register_buffer("weight", torch.zeros(task.outputs, 2 * width, dtype=torch.float64))
        self.register_buffer("bias", torch.zeros(task.outputs, dtype=torch.float64))

    def fit(self, train: Split) -> None:
        from sklearn.linear_model import LogisticRegression  # takes a second to import

        assert train.labels is not None
        x = torch.cat([_of_split(train, name, reader) for name, reader in self.readers.items()], dim=1)
        mean, deviation = x.mean(0), x.std(0, correction=0)
        # A spread of rounding noise is none: dividing by it would blow up values that training never saw.
        constant = deviation <= 1e-6 * x.abs().amax(0)
        x, mean, deviation = x.masked_fill(constant, 0.0), mean.masked_fill(constant, 0.0), deviation.masked_fill(constant, 1.0)
        present = train.labels.unique().tolist()
        self.weight.zero_()
        self.bias.fill_(-1e3).index_fill_(0, torch.tensor(present), 0.0)
        if len(present) > 1:
            model = LogisticRegression(C=self.config.strength, max_iter=self.config.iterations)
            model.fit(((x - mean) / deviation).numpy(), train.labels.numpy())
            coefficients, intercept = (torch.from_numpy(values) for values in (model.coef_, model.intercept_))
            if len(present) == 2:  # scikit-learn gives the second class's log-odds alone
                coefficients, intercept = (torch.cat([torch.zeros_like(values), values]) for values in (coefficients, intercept))
            self.weight[present] = coefficients / deviation
            self.bias[present] = intercept - self.weight[present] @ mean

    def forward(self, batch: Batch) -> Output:
        x = torch.cat([_of_batch(batch, name, reader) for name, reader in self.readers.items()], dim=1)
        dtype = next(iter(batch.features.values())).dtype
        return Output(F.linear(x.to(self.weight.dtype), self.weight, self.bias).to(dtype))


class _Reader:
    """Frames (..., dim) as they are; of pictures larger than ``side`` x ``side``, the means over so many areas."""

    def __init__(self, picture: Picture | None, side: int) -> None:
        self.picture = picture if picture is not None and picture.side > side else None
        self.side = side

    def width(self, dim: int) -> int:
        return dim if self.picture is None else self.side**2 * self.picture.channels

    def __call__(self, x: Tensor) -> Tensor:
        if self.picture is None:
            return x
        side, channels = self.picture.side, self.picture.channels
        areas = F.adaptive_avg_pool2d(x.reshape(-1, side, side, channels).permute(0, 3, 1, 2), self.side)
        return areas.flatten(1).view(*x.shape[:-1], -1)


def _of_split(split: Split, modality: str, reader: _Reader) -> Tensor:
    """Mean and deviation over each clip's frames, (N, 2 width) float64; clip by clip, since films fill the memory."""
    clips = (reader(split.features[modality].clip(row)).double() for row in split.rows.tolist())
    return torch.stack([torch.cat([clip.mean(0), clip.std(0, correction=0)]) for clip in clips])


def _of_batch(batch: Batch, modality: str, reader: _Reader) -> Tensor:
    """The same of padded clips, (B, 2 width)."""
    x, count = reader(batch.features[modality]).double(), batch.lengths[modality][:, None]
    mean = x.sum(1) / count
    squares = (x - mean[:, None]).square().masked_fill(~batch.mask(modality)[..., None], 0).sum(1)
    return torch.cat([mean, (squares / count).sqrt()], dim=1)
