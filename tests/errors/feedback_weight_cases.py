"""Errors of rules that put other weights in the place of each layer's transpose."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import fdfa
from fdfa.errors import CheckpointError, UnsupportedModelError
from tests.engine.refused_models import mlp
from tests.engine.tap_case import noise
from tests.errors.provoke import Case, Here
from tests.errors.refused_option import refused_option

__all__ = ["FEEDBACK_WEIGHT_CASES"]


class _Kept(torch.autograd.Function):
    """A product that keeps its weight out of autograd's sight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor) -> Tensor:
        ctx.x, ctx.W = x.detach(), W.detach()
        return x @ W.T

    @staticmethod
    def backward(ctx: Any, e: Tensor) -> Any:
        return e @ ctx.W, e.T @ ctx.x


class _Chain(nn.Module):
    """Two layers, the second used as a function says."""

    def __init__(self, use: Callable[[Tensor, nn.Linear], Tensor]) -> None:
        super().__init__()
        self.first, self.layer, self.use = nn.Linear(4, 5), nn.Linear(5, 5), use

    def forward(self, x: Tensor) -> Tensor:
        return self.use(self.first(x).exp(), self.layer)


def _changed(x: Tensor, layer: nn.Linear) -> Tensor:
    y: Tensor = layer(x)
    x.mul_(2)
    return y


def _stepped_too_early(here: Here) -> None:
    model = mlp()
    loss = fdfa.wrap("usf", model)(noise(6, 4)).sum()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    loss.backward()


def _other_feedback(here: Here) -> None:
    learner = fdfa.wrap("fa", mlp())
    state = learner.state_dict()
    state["feedback.9/weight"] = torch.ones(3, 4)
    learner.load_state_dict(state)


def _as_a_function(x: Tensor, layer: nn.Linear) -> Tensor:
    return nn.functional.linear(x, layer.weight)


def _in_a_kernel(here: Here, method: str = "weight-mirror") -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.cell = nn.Linear(4, 5), nn.LSTM(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.cell(self.first(x))[0]
            return y

    fdfa.wrap(method, Recurrent())(torch.ones(2, 6, 4))


def _chained(use: Callable[[Tensor, nn.Linear], Tensor]) -> Callable[[Here], None]:
    return lambda here: fdfa.wrap("fa", _Chain(use))(torch.ones(6, 4)).sum().backward()


FEEDBACK_WEIGHT_CASES = [
    refused_option("fa", start="unifrom"),
    refused_option("brsf", redraw_every=0),
    refused_option("kolen-pollack", decay=1.0),
    refused_option("ldfa", rank=0),
    refused_option("ldfa", learn_q=1),
    refused_option("ldfa", decay=1.0),
    refused_option("ldfa", projection_rate=1.0),
    refused_option("weight-mirror", mirror_rate=0.0),
    refused_option("weight-mirror", mirror_every=0),
    refused_option("weight-mirror", growth_control=1),
    Case(
        "feedback for a weight that is masked",
        UnsupportedModelError,
        _chained(lambda x, layer: nn.functional.linear(x, layer.weight * torch.ones(5, 5))),
    ),
    Case(
        "feedback for a weight with a penalty",
        UnsupportedModelError,
        _chained(lambda x, layer: layer(x) + layer.weight.square().sum()),
    ),
    Case(
        "feedback for a weight that a function hides",
        UnsupportedModelError,
        _chained(lambda x, layer: _Kept.apply(x, layer.weight)),
    ),
    Case(
        "feedback within a checkpoint",
        UnsupportedModelError,
        _chained(lambda x, layer: checkpoint(layer, x, use_reentrant=False)),
    ),
    Case("feedback and an activation changed", RuntimeError, _chained(_changed)),
    Case("feedback and a weight changed", RuntimeError, _stepped_too_early),
    Case("feedback of another model", CheckpointError, _other_feedback),
    Case("a mirror in a kernel", UnsupportedModelError, _in_a_kernel),
    Case(
        "few dimensions in a kernel",
        UnsupportedModelError,
        functools.partial(_in_a_kernel, method="ldfa"),
    ),
    Case(
        "few dimensions and an error unheard",
        UnsupportedModelError,
        lambda here: fdfa.wrap("ldfa", _Chain(_as_a_function))(torch.ones(6, 4)),
    ),
    Case(
        "feedback for a frozen model",
        UnsupportedModelError,
        lambda here: fdfa.wrap("fa", mlp().requires_grad_(False))(noise(6, 4)),
    ),
]
