"""The linear floor."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from harness.training import Batch, Inputs, Method, MethodConfig, Output, Split, Task, register_method


@register_method("ridge")
class Ridge(Method):
    """Ridge regression on time-averaged features of all modalities: a floor that stands in every table.

    Features are averaged over real frames, concatenated and standardised with the training split's mean and
    deviation. The penalty is that of the least leave-one-out error on the training split (scikit-learn's RidgeCV).
    Classes are regressed one against the rest on targets of -1 and 1 (scikit-learn's RidgeClassifierCV): logits rank
    classes and are not calibrated. Nothing is trained by gradient; coefficients are in double precision.
    """

    class Config(MethodConfig):
        penalties: tuple[Annotated[float, Field(gt=0)], ...] = Field(
            tuple(10.0 ** (power / 2) for power in range(-4, 13)),
            min_length=1,
            description="penalties tried (alpha), on standardised features",
        )

    reference = "Hoerl and Kennard 1970, Ridge Regression, Technometrics 12(1)"
    closed_form = True
    weight: Tensor
    bias: Tensor

    def __init__(self, inputs: Inputs, task: Task, config: Config) -> None:
        super().__init__(inputs, task, config)
        self.task, self.config, self.modalities = task, config, inputs.modalities
        self.register_buffer("weight", torch.zeros(task.outputs, sum(inputs.dims.values()), dtype=torch.float64))
        self.register_buffer("bias", torch.zeros(task.outputs, dtype=torch.float64))

    def fit(self, train: Split) -> None:
        from sklearn.linear_model import RidgeCV  # takes a second to import

        x = torch.cat([train.means(name) for name in self.modalities], dim=1).double()
        mean, deviation = x.mean(0), x.std(0, correction=0)
        # A spread of rounding noise is none: dividing by it would blow up values that training never saw.
        constant = deviation <= 1e-6 * x.abs().amax(0)
        x, deviation = x.masked_fill(constant, 0.0), deviation.masked_fill(constant, 1.0)
        mean = mean.masked_fill(constant, 0.0)
        model = RidgeCV(alphas=self.config.penalties).fit(((x - mean) / deviation).numpy(), self._targets(train).numpy())
        self.weight.copy_(torch.from_numpy(model.coef_).view_as(self.weight) / deviation)
        self.bias.copy_(torch.as_tensor(model.intercept_) - self.weight @ mean)

    def _targets(self, train: Split) -> Tensor:
        assert train.labels is not None
        if self.task.kind == "regression":
            return train.labels.double()
        return F.one_hot(train.labels, self.task.outputs).double() * 2 - 1

    def forward(self, batch: Batch) -> Output:
        x = torch.cat([batch.mean(name) for name in self.modalities], dim=1)
        y = F.linear(x.to(self.weight.dtype), self.weight, self.bias).to(x.dtype)
        return Output(y.squeeze(1) if self.task.kind == "regression" else y)
