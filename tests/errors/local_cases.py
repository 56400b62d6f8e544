"""Errors about local heads, and about losses that cannot be repeated for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fdfa
from fdfa.errors import ConfigError, FDFAError, ProbeError, UnsupportedModelError
from tests.engine.refused_models import Quirk, Switched, mlp
from tests.engine.tap_case import noise
from tests.errors.provoke import Case, Here

__all__ = ["LOCAL_CASES"]


class _Offering(nn.Sequential):
    """A model that says itself where its heads hang."""

    def local_heads(self) -> dict[str, nn.Module]:
        return {"1": nn.Linear(5, 3).double()}


def _heads(head: Callable[..., Any] | None = None, **options: Any) -> fdfa.LocalHeads:
    return fdfa.LocalHeads(mlp(), noise(6, 4), head=head, **options)


class _NoDerivative(nn.Linear):
    """Its result has no tangent."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.detach(), self.weight, self.bias)


def _quirk(shape: tuple[int, ...], outputs: tuple[int, ...]) -> nn.Module:
    return nn.Sequential(nn.Linear(*shape, *outputs), Quirk())


def _learner(method: str, head: Callable[..., Any] | None = None) -> fdfa.Estimator:
    return fdfa.wrap(method, _heads(head), seed=1)


def _changed_output(here: Here) -> None:
    learner = _learner("l-bp")
    criterion = learner.criterion(F.cross_entropy)
    output = learner(noise(6, 4)).log_softmax(1)
    criterion(output, torch.zeros(len(output), dtype=torch.int64)).backward()


def _another_size(here: Here) -> None:
    model = nn.Sequential(
        nn.Conv1d(1, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Conv1d(2, 3, 1), nn.Flatten()
    )
    learner = fdfa.wrap("l-bp", fdfa.LocalHeads(model, torch.ones(2, 1, 8), taps=["1"]))
    learner(torch.ones(2, 1, 9))


def _a_head_that_changed(here: Here) -> None:
    learner = _learner("l-bp")
    learner.heads[0].outputs = (1, 3)
    learner(noise(6, 4))


def _never_called(here: Here) -> None:
    model = Switched("skipped layer")
    learner = fdfa.wrap("l-bp", fdfa.LocalHeads(model, torch.ones(6, 4).double()))
    learner(-torch.ones(5, 4).double())


LOCAL_CASES = [
    Case(
        "local losses without heads",
        UnsupportedModelError,
        lambda here: fdfa.wrap("l-bp", mlp()),
    ),
    Case(
        "heads where the model says others",
        ConfigError,
        lambda here: fdfa.LocalHeads(_Offering(*mlp()), noise(6, 4), depth=2),
    ),
    Case("a head that is no module", TypeError, lambda here: _heads(lambda shape, outputs: 3)),
    Case(
        "a head unlike the output",
        UnsupportedModelError,
        lambda here: _heads(lambda shape, outputs: nn.Linear(shape[0], 5)),
    ),
    Case("a head that came to be unlike the output", UnsupportedModelError, _a_head_that_changed),
    Case("a head for another size", UnsupportedModelError, _another_size),
    Case("a head whose tap is never called", UnsupportedModelError, _never_called),
    Case("a local loss of a changed output", FDFAError, _changed_output),
    Case(
        "a head that drops tangents",
        ProbeError,
        lambda here: _learner("lg-fg-a", lambda s, o: _NoDerivative(s[0], o[0]))(noise(6, 4)),
    ),
    Case(
        "a head without a forward derivative",
        ProbeError,
        lambda here: _learner("lg-fg-a", _quirk)(noise(6, 4)),
    ),
]
