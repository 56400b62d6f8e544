"""Directions in the space of all weights: kept, or drawn anew whenever they are asked for."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fdfa.engine.probes import draw_noise, generator_for

__all__ = ["Direction", "Directions", "DrawnDirection", "KeptDirection", "Recalled", "norm_of"]


class Direction(abc.ABC):
    """A direction in the space of all leaves, taken leaf by leaf."""

    @abc.abstractmethod
    def leaf(self, number: int) -> Tensor:
        """Its part for one leaf.

        Args:
            number: of the leaf.

        Returns:
            A tensor of the leaf's shape and dtype, to be read only.
        """


class KeptDirection(Direction):
    """A direction that is kept until the backward pass.

    Args:
        parts: one tensor a leaf.
    """

    def __init__(self, parts: Sequence[Tensor]) -> None:
        self._parts = parts

    def leaf(self, number: int) -> Tensor:
        """Its part for one leaf."""
        return self._parts[number]


class DrawnDirection(Direction):
    """A direction of independent numbers, drawn anew whenever it is asked for.

    Args:
        noise: ``"normal"`` or ``"rademacher"``.
        leaves: of which it has the shapes, dtypes and devices; not kept.
        seeds: which it is a function of.

    Attributes:
        scale: a factor on all of it.
    """

    def __init__(self, noise: str, leaves: Sequence[Tensor], seeds: Sequence[int]) -> None:
        self.scale = 1.0
        self._noise, self._seeds = noise, seeds
        self._like = [(leaf.shape, leaf.dtype, leaf.device) for leaf in leaves]

    def leaf(self, number: int) -> Tensor:
        """Its part for one leaf."""
        shape, dtype, device = self._like[number]
        wide = torch.promote_types(dtype, torch.float32)
        generator = generator_for(device, *self._seeds, number)
        drawn = draw_noise(self._noise, shape, wide, generator)
        return (drawn if self.scale == 1.0 else drawn.mul_(self.scale)).to(dtype)

    def kept(self) -> KeptDirection:
        """The same direction, drawn once and kept."""
        return KeptDirection([self.leaf(number) for number in range(len(self._like))])


@dataclasses.dataclass(frozen=True)
class Recalled:
    """A direction of an earlier pass, and what it did to the output then.

    Attributes:
        direction: over the leaves.
        derivative: of that pass's output along it, (N, K).
        weight: of its part in the gradient.
    """

    direction: Direction
    derivative: Tensor
    weight: float


@dataclasses.dataclass(frozen=True)
class Directions:
    """What one forward pass perturbs, and what its derivatives are worth.

    Attributes:
        each: the directions.
        weigh: from ``c`` (k,), the loss's derivatives along them, float64, to the factors (k,) that
            the directions get in the gradient.
        recalled: directions of earlier passes, for which the gradient is ``weight (e . d) v``, e
            the error of this one; those of another output shape have no part in it.
    """

    each: Sequence[Direction]
    weigh: Callable[[Tensor], Tensor]
    recalled: Sequence[Recalled] = ()


def norm_of(parts: Sequence[Tensor]) -> float:
    """The length of a direction over all leaves."""
    return math.sqrt(sum(part.double().square().sum().item() for part in parts))
