"""One training step as a user writes it, what it leaves, and how two results are compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

import fdfa
from fdfa.engine.estimator import Estimator

__all__ = [
    "added",
    "assert_close_to_rounding",
    "assert_same_bits",
    "backward",
    "copy_weights",
    "cross_entropy",
    "fresh_gradients",
    "gradients",
    "mean_square",
    "own_state",
    "snapshot",
    "summed",
    "train",
]

Batch = tuple[Tensor, Tensor]

# What a user writes once, beside the learner. For most rules it is the loss function itself; that
# of a rule which learns from the targets serves all: it tells the pass, and changes no loss.
_NEEDY = fdfa.DRTP(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)), seed=0)
cross_entropy = _NEEDY.criterion(F.cross_entropy)
_mean_square = _NEEDY.criterion(lambda output, _: (output.square() / output.numel()).sum())
_sum = _NEEDY.criterion(lambda output, _: output.sum())


def backward(module: nn.Module, data: Batch) -> Tensor:
    """Forward and backward on one batch; gradients add to what is there. Returns the loss."""
    x, target = data
    loss = cross_entropy(module(x), target)
    loss.backward()
    return loss.detach()


def summed(output: Tensor) -> Tensor:
    """The sum of an output as a loss, where any will do; all targets are of the first class."""
    return _sum(output, torch.zeros(len(output), *output.shape[2:], dtype=torch.int64))


def mean_square(output: Tensor) -> Tensor:
    """A loss of any output, whatever its shape; targets are ones, classes or values."""
    return _mean_square(output, torch.ones(len(output), *output.shape[2:], dtype=torch.int64))


def copy_weights(source: Estimator, target: Estimator) -> None:
    """Those of the model, and of its heads."""
    with torch.no_grad():
        for theirs, ours in zip(target.parameters(), source.parameters(), strict=True):
            theirs.copy_(ours)


def train(
    module: nn.Module, data: Iterable[Batch], optimizer: torch.optim.Optimizer | None = None
) -> list[Tensor]:
    """One optimiser step a batch, SGD with momentum by default. Returns the losses."""
    optimizer = optimizer or torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for each in data:
        optimizer.zero_grad()
        losses.append(backward(module, each))
        optimizer.step()
    return losses


def gradients(module: nn.Module) -> dict[str, Tensor]:
    """Copies of the gradients that are there, by the parameter's name."""
    model = module.model if isinstance(module, Estimator) else module
    return {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def fresh_gradients(module: nn.Module, data: Batch) -> dict[str, Tensor]:
    """The gradients of one batch alone."""
    module.zero_grad()
    backward(module, data)
    return gradients(module)


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    """Copies of everything that a state dict holds."""
    return {key: value.clone() for key, value in module.state_dict().items()}


def own_state(learner: Estimator) -> dict[str, Tensor]:
    """Copies of the tensors that the method itself keeps, beside parameters of model and heads."""
    return {
        key: value
        for key, value in snapshot(learner).items()
        if not key.startswith(("model.", "heads.")) and key != "_extra_state"
    }


def assert_same_bits(actual: Any, expected: Any) -> None:
    """Equal to the last bit, dtype and shape included; NaN equals NaN."""
    assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)


def assert_close_to_rounding(actual: Any, expected: Any) -> None:
    """Equal up to the rounding of float64."""
    assert_close(actual, expected, rtol=1e-10, atol=1e-13)


def added(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Sums, entry by entry."""
    assert first.keys() == second.keys()
    return {key: first[key] + second[key] for key in first}
