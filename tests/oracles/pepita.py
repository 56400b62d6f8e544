"""A small network, data, and what PEPITA makes of them; for the oracles of PEPITA."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fdfa

__all__ = ["CLASSES", "N", "assert_equal", "data", "learn", "network", "projection"]

N, INPUTS, CLASSES = 7, 5, 3


def network(dropout: float = 0.0, bias: bool = True) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Linear(INPUTS, 8, bias=bias), nn.Tanh(), nn.Dropout(dropout)),
        *(nn.Linear(8, 6, bias=bias), nn.ReLU(), nn.Dropout(dropout)),
        nn.Linear(6, CLASSES, bias=bias),
    ).double()


def data() -> tuple[Tensor, Tensor]:
    return torch.randn(N, INPUTS).double(), torch.randint(CLASSES, (N,))


def learn(
    learner: fdfa.Estimator,
    x: Tensor,
    target: Tensor,
    loss_function: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    scale: float = 1.0,
) -> dict[str, Tensor]:
    learner.zero_grad()
    (learner.criterion(loss_function)(learner(x), target) * scale).backward()
    return {
        name: parameter.grad.clone()
        for name, parameter in learner.model.named_parameters()
        if parameter.grad is not None
    }


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-14)


def projection(learner: fdfa.Estimator) -> Tensor:
    """F (m, K)."""
    weight: Tensor = learner.feedback["input"].weight
    return weight.T
