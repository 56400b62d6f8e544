"""A joined batch in parts, one a rank, and a training step on one of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.contract.networks import batch
from tests.contract.steps import backward
from tests.methods import CASES, FAST_CASES

__all__ = ["BY_NAME", "EVEN", "FAST", "SLOW", "UNEVEN", "parts", "step_on"]

# samples of each rank, step by step; uneven only from a later step on, as at an epoch's end
EVEN = [(6, 6)] * 4
UNEVEN = [(6, 6), (6, 6), (6, 4), (6, 6), (2, 5)]
BY_NAME = {str(case): case for case in CASES}
FAST = tuple(str(case) for case in FAST_CASES if case.id == case.info.cases[0][0])
SLOW = tuple(str(case) for case in CASES if str(case) not in FAST)


def parts(number: int, sizes: tuple[int, ...]) -> list[tuple[Tensor, Tensor]]:
    """Each rank's part of one joined batch."""
    x, target = batch(number, size=sum(sizes))
    return list(zip(x.split(sizes), target.split(sizes), strict=True))


def step_on(
    module: nn.Module, optimizer: torch.optim.Optimizer, data: tuple[Tensor, Tensor]
) -> None:
    """One step on a rank's part."""
    optimizer.zero_grad()
    backward(module, data)
    optimizer.step()
