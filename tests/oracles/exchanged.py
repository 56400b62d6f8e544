"""What the tests of rules that replace the transpose share: networks, B, a product through B."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fdfa

RULES: dict[str, Mapping[str, Any]] = {
    "fa": {},
    "usf": {},
    "brsf": {},
    "frsf": {},
    "kolen-pollack": {"decay": 0.1},
    "ldfa": {"rank": 2, "decay": 0.1},
    "weight-mirror": {"mirror_rate": 0.3},
}
CLOSE = {"rtol": 1e-10, "atol": 1e-13}
each_rule = pytest.mark.parametrize("rule", RULES)


def wrap(rule: str, model: nn.Module, **options: Any) -> Any:
    return fdfa.wrap(rule, model, **{"seed": 5, **RULES[rule], **options})


def feedback(learner: Any, name: str) -> Tensor:
    """B of the next step, for one weight."""
    held = learner.feedback
    kept = held[name] if name in held.names() else None
    weight = learner.model.get_parameter(name).detach().clone()
    B: Tensor = learner.feedback_for(name, weight, kept, learner.steps).clone()
    return B


def network() -> nn.Sequential:
    layers = [nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)]
    return nn.Sequential(*layers).double()


class Recurrent(nn.Module):
    def __init__(self, kind: type) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 4)
        self.cell = kind(4, 5)
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.cell(self.embed(x).transpose(0, 1))
        y: Tensor = self.head(states[-1])
        return y


class Exchanged(torch.autograd.Function):
    """x W^T, whose error goes back through B."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, B: Tensor) -> Tensor:
        ctx.save_for_backward(x, B)
        return x @ W.T

    @staticmethod
    def backward(ctx: Any, e: Tensor) -> Any:
        x, B = ctx.saved_tensors
        return e @ B, e.flatten(0, -2).T @ x.flatten(0, -2), None
