"""Directions in the space of all weights: kept, or drawn anew whenever they are asked for."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fdfa.engine.leaves import Leaf
from fdfa.engine.probes import draw_noise, generator_for

__all__ = [
    "Direction",
    "Directions",
    "DrawnDirection",
    "KeptDirection",
    "Recalled",
    "StackedDirections",
    "norm_of",
]


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

    def scaled(self, number: int, factor: float | Tensor) -> Tensor:
        """Its part for one leaf, times a number.

        Args:
            number: of the leaf.
            factor: a number, or a tensor of no dimensions.

        Returns:
            A tensor of the caller's own.
        """
        v = self.leaf(number)
        return v * (factor.to(v.device) if isinstance(factor, Tensor) else factor)


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
        leaves: that it has a part for.
        seeds: which it is a function of.

    Attributes:
        scale: a factor on all of it.
    """

    def __init__(self, noise: str, leaves: Sequence[Leaf], seeds: Sequence[int]) -> None:
        self.scale = 1.0
        self._noise, self._leaves, self._seeds = noise, leaves, seeds

    def leaf(self, number: int) -> Tensor:
        """Its part for one leaf."""
        return self._drawn(number, None if self.scale == 1.0 else self.scale)

    def scaled(self, number: int, factor: float | Tensor) -> Tensor:
        """Its part for one leaf, times a number, drawn as such."""
        if isinstance(factor, Tensor):
            factor = factor.to(self._leaves[number].device)
        return self._drawn(number, factor * self.scale)

    def _drawn(self, number: int, scale: float | Tensor | None) -> Tensor:
        leaf = self._leaves[number]
        wide = torch.promote_types(leaf.dtype, torch.float32)
        generator = generator_for(leaf.device, *self._seeds, leaf.number)
        drawn = draw_noise(self._noise, leaf.shape, wide, generator, scale)
        return leaf.at_rest(drawn.to(leaf.dtype))

    def kept(self) -> KeptDirection:
        """The same direction, drawn once and kept."""
        return KeptDirection([self.leaf(number) for number in range(len(self._leaves))])


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

    def weighted(self, number: int, factors: Tensor) -> Tensor:
        """The sum of this pass's directions, each times its factor, for one leaf.

        Args:
            number: of the leaf.
            factors: (k,), from ``weigh``.

        Returns:
            A tensor of the leaf's shape and dtype, the caller's own.
        """
        total, *others = (
            direction.scaled(number, factor)
            for factor, direction in zip(factors, self.each, strict=True)
        )
        for other in others:
            total += other
        return total


@dataclasses.dataclass(frozen=True)
class StackedDirections(Directions):
    """Directions that are kept side by side, so that their sum is one product.

    Attributes:
        stacks: all directions' parts for each leaf, (k, ...).
    """

    stacks: Sequence[Tensor] = ()

    @classmethod
    def of(cls, stacks: Sequence[Tensor], weigh: Callable[[Tensor], Tensor]) -> StackedDirections:
        """The directions in these stacks; ``weigh`` as in :class:`Directions`."""
        each = [_Row(stacks, number) for number in range(len(stacks[0]))]
        return cls(each, weigh, stacks=stacks)

    def weighted(self, number: int, factors: Tensor) -> Tensor:
        """The sum of all directions, each times its factor, for one leaf."""
        stack = self.stacks[number]
        return torch.mv(stack.flatten(1).T, factors.to(stack)).view(stack.shape[1:])


class _Row(Direction):
    """One of the directions in stacks."""

    def __init__(self, stacks: Sequence[Tensor], number: int) -> None:
        self._stacks, self._number = stacks, number

    def leaf(self, number: int) -> Tensor:
        # forward-mode AD would copy a part of a larger tensor, and fill the copy with zeros first
        return self._stacks[number][self._number].clone()


def norm_of(parts: Sequence[Tensor]) -> float:
    """The length of a direction over all leaves."""
    return math.sqrt(sum(part.double().square().sum().item() for part in parts))
