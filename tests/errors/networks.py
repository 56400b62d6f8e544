"""Networks of a user's own, named as package.module:factory; each has one fault."""

from __future__ import annotations

import torch
from torch import Tensor, nn

number = 3
instance = nn.Linear(2, 2)


def narrow(classes: int) -> nn.Module:
    """One output too few."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes - 1))


def wrong_size() -> nn.Module:
    """For other inputs."""
    return nn.Linear(3, 10)


def nothing() -> None:
    """Returns none."""


def broken() -> nn.Module:
    """Fails."""
    raise KeyError("lost")


class Counting(nn.Module):
    """Cannot be differentiated, which shows only in a step."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh())
        self.last = nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.layers(x)
        if torch.is_grad_enabled():
            hidden = hidden.numpy()
        return self.last(hidden)


def shaped(classes: int, *, layer: type[nn.Module] = nn.Tanh) -> nn.Module:
    """Nothing is wrong with it; its option cannot be written on a command line."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), layer(), nn.Linear(8, classes))
