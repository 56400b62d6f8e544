"""Errors of rules that learn from the targets, or run the model again."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import fdfa
from fdfa.errors import ConfigError, FDFAError, ProbeError, UnsupportedModelError
from tests.engine.refused_models import mlp
from tests.engine.tap_case import noise
from tests.errors.provoke import Case, Here

__all__ = ["TARGET_CASES"]


def _targets(here: Here, targets: Tensor, told: Callable[[Tensor, Tensor], Tensor]) -> None:
    criterion = fdfa.DRTP(mlp()).criterion(told)
    criterion(fdfa.DRTP(mlp())(noise(6, 4)), targets).sum().backward()


class _Towers(nn.Module):
    """Two taps, neither behind the other."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = (nn.Sequential(nn.Linear(4, 5), nn.Tanh()) for _ in "ab")
        self.last = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.cat([self.a(x), self.b(x)], 1))


def _beside(here: Here) -> None:
    fdfa.IFA(_Towers().double(), taps=["a.1", "b.1"])(noise(6, 4)).sum().backward()


def _behind(here: Here) -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.MaxPool1d(2), nn.Linear(3, 5), nn.ReLU())
    fdfa.IFA(model.append(nn.Linear(5, 3)), taps=["2", "4"])(torch.ones(6, 4)).sum().backward()


class _Squared(torch.autograd.Function):
    """A product that no function of torch shows."""

    @staticmethod
    def forward(ctx: object, x: Tensor, W: Tensor) -> Tensor:
        return x @ W

    @staticmethod
    def backward(ctx: object, e: Tensor) -> tuple[Tensor, None]:
        return e, None


class _Uses(nn.Module):
    """A layer, what a function makes of its output and another layer, and a read-out."""

    def __init__(self, use: Callable[[Tensor, nn.Linear], Tensor]) -> None:
        super().__init__()
        self.first, self.inner, self.last = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 3)
        self.use = use

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(torch.tanh(self.use(self.first(x), self.inner)))
        return y


def _learn(model: nn.Module, x: Tensor, told: Callable[[Tensor, Tensor], Tensor]) -> fdfa.Estimator:
    learner = fdfa.wrap("pepita", model)
    targets = torch.zeros(len(x), dtype=torch.int64)
    learner.criterion(told)(learner(x), targets).sum().backward()
    return learner


def _used(use: Callable[[Tensor, nn.Linear], Tensor]) -> Callable[[Here], object]:
    return lambda here: _learn(_Uses(use), torch.ones(6, 4), F.cross_entropy)


def _inner_gradient(x: Tensor, layer: nn.Linear) -> Tensor:
    y: Tensor = layer(x)
    return y + torch.autograd.grad(y.sum(), x, create_graph=True)[0]


def _between(here: Here) -> None:
    learner = fdfa.wrap("pepita", mlp())
    targets = torch.zeros(6, dtype=torch.int64)
    learner.criterion(F.cross_entropy)(learner(noise(6, 4)) / 2, targets).backward()


def _a_loss_beside(here: Here) -> None:
    learner = fdfa.wrap("pepita", mlp())
    y = learner(noise(6, 4))
    loss = learner.criterion(F.cross_entropy)(y, torch.zeros(6, dtype=torch.int64))
    (loss + y.square().sum()).backward()


def _stepped_too_early(here: Here) -> None:
    learner = fdfa.wrap("pepita", mlp())
    targets = torch.zeros(6, dtype=torch.int64)
    loss = learner.criterion(F.cross_entropy)(learner(noise(6, 4)), targets)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.mul_(2)
    loss.backward()


class _Fickle(nn.Module):
    """Uses one layer in every pass but the first."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        y: Tensor = self.layers[2](self.layers[self.passes > 1](x).tanh())
        return y


def _another_size(here: Here) -> None:
    model = nn.Sequential(nn.Conv1d(2, 3, 1), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    learner = _learn(model, torch.ones(6, 2, 5), F.cross_entropy)
    learner(torch.ones(6, 2, 7))


class _Two(nn.Module):
    """Adds what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        y: Tensor = self.layer(x + z)
        return y


TARGET_CASES = [
    Case("a g of another shape", ConfigError, lambda here: fdfa.ADFA(mlp(), g=torch.sum)),
    Case("an unknown g", ConfigError, lambda here: fdfa.ADFA(mlp(), g="cosine")),
    Case("an unknown start of adfa", ConfigError, lambda here: fdfa.ADFA(mlp(), start="zero")),
    Case("an unknown start of drtp", ConfigError, lambda here: fdfa.DRTP(mlp(), start="zero")),
    Case("an unknown start of ifa", ConfigError, lambda here: fdfa.IFA(mlp(), start="zero")),
    Case("a credit that does not arrive", ProbeError, _beside),
    Case("a tap behind an activation and a pooling", ProbeError, _behind),
    Case(
        "a loss that tells no targets",
        FDFAError,
        lambda here: fdfa.DRTP(mlp())(noise(6, 4)).sum().backward(),
    ),
    Case(
        "targets that fit no output",
        FDFAError,
        lambda here: _targets(here, torch.zeros(5, dtype=torch.int64), lambda y, _: y.sum()),
    ),
    Case(
        "a loss of no known shape",
        FDFAError,
        lambda here: _targets(here, torch.zeros(6, dtype=torch.int64), lambda y, _: y.sum(0)[:2]),
    ),
    Case(
        "a projection of no size",
        ConfigError,
        lambda here: fdfa.wrap("pepita", mlp(), projection_scale=-1.0),
    ),
    Case(
        "two passes in half precision",
        ProbeError,
        lambda here: fdfa.wrap("pepita", mlp().bfloat16())(torch.ones(6, 4).bfloat16()),
    ),
    Case("an input of another size", UnsupportedModelError, _another_size),
    Case(
        "two inputs that could be moved",
        UnsupportedModelError,
        lambda here: fdfa.wrap("pepita", _Two())(torch.ones(6, 4), torch.zeros(6, 4)),
    ),
    Case("something between output and loss", FDFAError, _between),
    Case("a loss beside the criterion", FDFAError, _a_loss_beside),
    Case("a weight changed between two passes", RuntimeError, _stepped_too_early),
    Case(
        "a loss a sample of a layer without samples",
        UnsupportedModelError,
        lambda here: _learn(
            nn.Sequential(nn.Flatten(0, 1), nn.Linear(4, 5), nn.Tanh(), nn.Unflatten(0, (6, 2)))
            .append(nn.Flatten())
            .append(nn.Linear(10, 3)),
            torch.ones(6, 2, 4),
            lambda y, t: F.cross_entropy(y, t, reduction="none"),
        ),
    ),
    Case(
        "a loss of no known shape, twice",
        FDFAError,
        lambda here: _learn(mlp(), noise(6, 4), lambda y, _: y.sum(0)[:2]),
    ),
    Case(
        "a layer with no rule",
        UnsupportedModelError,
        _used(lambda x, layer: torch.cdist(x, layer.weight)),
    ),
    Case(
        "a layer that nobody sees",
        UnsupportedModelError,
        _used(lambda x, layer: _Squared.apply(x, layer.weight)),
    ),
    Case(
        "a layer in a checkpoint",
        UnsupportedModelError,
        _used(lambda x, layer: checkpoint(layer, x, use_reentrant=False)),
    ),
    Case("a gradient within the model", UnsupportedModelError, _used(_inner_gradient)),
    Case(
        "another layer in each pass",
        UnsupportedModelError,
        lambda here: _learn(_Fickle(), torch.ones(6, 4), F.cross_entropy),
    ),
]
