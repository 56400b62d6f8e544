"""Small networks, autograd's gradients as one vector, and many draws of a rule's gradient."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import fdfa
from fdfa.engine.estimator import Estimator
from fdfa.engine.leaves import leaves_of


class Point(nn.Module):
    """A point in n dimensions, that is its own output: the sphere function's argument."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.x = nn.Parameter(x)

    def forward(self, _: Tensor) -> Tensor:
        return self.x[None]


def small() -> nn.Module:
    """Twelve weights in float64."""
    torch.default_generator.manual_seed(3)
    return nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2)).double()


def data(inputs: int = 2, classes: int = 2) -> tuple[Tensor, Tensor]:
    """One batch."""
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(5, inputs, generator=generator, dtype=torch.float64)
    return x, torch.randint(classes, (5,), generator=generator)


def flat(tensors: Mapping[str, Tensor] | list[Tensor]) -> Tensor:
    """All numbers in one vector."""
    values = tensors.values() if isinstance(tensors, Mapping) else tensors
    return torch.cat([tensor.flatten() for tensor in values])


def gradient(module: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """What one backward call leaves: of a learner its rule, of a plain model autograd."""
    module.zero_grad()
    cross_entropy(module(batch[0]), batch[1]).backward()
    return flat([p.grad for p in module.parameters() if p.grad is not None])


def directions(learner: Estimator, step: int) -> Tensor:
    """V (k, n), which the learner takes in this step."""
    leaves = leaves_of(learner.model)
    each = learner.directions(leaves, (learner.seed, step, 0)).each
    return torch.stack([flat([v.leaf(i) for i in range(len(leaves))]) for v in each])


def draws(method: str, steps: int, **options: object) -> tuple[Tensor, Tensor]:
    """A rule's gradients (steps, n) of one loss, and the true one (n,).

    From the directions that the learner takes and the slopes along them, without its passes: that a
    step's gradient is just this is tested by itself.
    """
    learner = fdfa.wrap(method, small(), seed=7, **options)
    g = gradient(small(), data())
    leaves = leaves_of(learner.model)
    found = []
    for step in range(steps):
        taken = learner.directions(leaves, (learner.seed, step, 0))
        V = torch.stack([flat([v.leaf(i) for i in range(len(leaves))]) for v in taken.each])
        found.append(V.T @ taken.weigh(V @ g))
    return torch.stack(found), g


def taken(method: str, steps: int, **options: object) -> tuple[Tensor, Tensor]:
    """As :func:`draws`, by that many forward and backward passes."""
    learner = fdfa.wrap(method, small(), seed=7, **options)
    found = torch.stack([gradient(learner, data()) for _ in range(steps)])
    return found, gradient(small(), data())
