"""Errors of credits that are relayed through blocks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import fdfa
from fdfa.errors import ConfigError, FDFAError, UnsupportedModelError
from tests.engine.refused_models import mlp
from tests.engine.tap_case import noise
from tests.errors.provoke import Case, Here
from tests.errors.refused_option import refused_option

__all__ = ["RELAY_CASES"]


class _Conditioned(nn.Module):
    """A second input enters between the taps."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return self.last(torch.tanh(self.second(torch.tanh(self.first(x))) + condition))


def _from_outside(here: Here) -> None:
    condition = torch.ones(6, 5, requires_grad=True)
    fdfa.FDFA(_Conditioned(), taps=["first", "second"], relay=1)(torch.ones(6, 4), condition)


def _freed(here: Here) -> None:
    y = fdfa.FDFA(mlp(), relay=1)(noise(6, 4))
    y.sum().backward()
    y.sum().backward()


RELAY_CASES = [
    refused_option("fdfa", relay=-1),
    refused_option("fdfa", first_block_every=0),
    refused_option("fdfa", shift_grid=0),
    Case(
        "shared shifts of active units",
        ConfigError,
        lambda here: fdfa.FDFA(mlp(), shift_grid=2, average_over="active"),
    ),
    Case(
        "a relay of unbiased credits",
        ConfigError,
        lambda here: fdfa.FDFA(mlp(), relay=1, credit="unbiased"),
    ),
    Case("a compiled relay", ConfigError, lambda here: fdfa.FDFA(mlp(), relay=1).compile()),
    Case(
        "a compiled pass whose first block rests",
        ConfigError,
        lambda here: fdfa.FDFA(mlp(), first_block_every=2).compile(),
    ),
    Case("a relay past what is outside", UnsupportedModelError, _from_outside),
    Case("a relay after its graph", FDFAError, _freed),
]
