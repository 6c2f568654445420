"""Training: the contract that methods are written against, the loop, objectives, metrics, checkpoints."""

from harness.training.contract import (
    Batch,
    Inputs,
    LossWeights,
    Method,
    MethodConfig,
    Output,
    Picture,
    Split,
    Task,
    Training,
    methods,
    register_method,
)

__all__ = [
    "Batch",
    "Inputs",
    "LossWeights",
    "Method",
    "MethodConfig",
    "Output",
    "Picture",
    "Split",
    "Task",
    "Training",
    "methods",
    "register_method",
]
