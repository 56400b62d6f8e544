"""Functions to be minimised, as models whose only parameter is the point."""

from __future__ import annotations

import abc

import torch
from torch import Tensor, nn

__all__ = ["SURFACES", "Rosenbrock", "Sphere", "StyblinskiTang", "Surface"]


class Surface(nn.Module, abc.ABC):
    """A function f of n numbers; the model's output is f, for any input.

    Args:
        dimensions: n.

    Attributes:
        point: where the function is evaluated, float64; at the start of a descent.
    """

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        self.point = nn.Parameter(self.start(dimensions))

    @staticmethod
    def start(dimensions: int) -> Tensor:
        """Where a descent begins: the origin.

        Args:
            dimensions: n.

        Returns:
            n numbers.
        """
        return torch.zeros(dimensions, dtype=torch.float64)

    @staticmethod
    @abc.abstractmethod
    def value(x: Tensor) -> Tensor:
        """The function.

        Args:
            x: n numbers.

        Returns:
            A single one.
        """

    def forward(self, inputs: Tensor) -> Tensor:
        """The value at the point, as one output of one sample."""
        return self.value(self.point).reshape(1, 1)


class Sphere(Surface):
    """``f(x) = sum x_i^2``, from -1 everywhere; the minimum, 0, is the origin.

    Example:
        >>> Sphere(3)(torch.zeros(1)).item()
        3.0
    """

    @staticmethod
    def start(dimensions: int) -> Tensor:
        """-1 everywhere."""
        return -torch.ones(dimensions, dtype=torch.float64)

    @staticmethod
    def value(x: Tensor) -> Tensor:
        """The squared distance from the origin."""
        return (x**2).sum()


class Rosenbrock(Surface):
    """``f(x) = sum 100 (x_{i+1} - x_i^2)^2 + (1 - x_i)^2``, from (-1, 0, ..., 0).

    Along a narrow bent valley; the minimum, 0, is at 1 everywhere.

    Example:
        >>> Rosenbrock(3)(torch.zeros(1)).item()
        105.0
    """

    @staticmethod
    def start(dimensions: int) -> Tensor:
        """-1, and then 0 everywhere."""
        x = torch.zeros(dimensions, dtype=torch.float64)
        x[0] = -1
        return x

    @staticmethod
    def value(x: Tensor) -> Tensor:
        """How far off the valley, and how far from its end."""
        return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


class StyblinskiTang(Surface):
    """``f(x) = sum (x_i^4 - 16 x_i^2 + 5 x_i) / 2``, from the origin.

    Each number has a local minimum beside the global one, -39.16617 at -2.90353.

    Example:
        >>> StyblinskiTang(3)(torch.zeros(1)).item()
        0.0
    """

    @staticmethod
    def value(x: Tensor) -> Tensor:
        """A quartic with two valleys for each number."""
        return 0.5 * (x**4 - 16 * x**2 + 5 * x).sum()


SURFACES: dict[str, type[Surface]] = {
    "sphere": Sphere,
    "rosenbrock": Rosenbrock,
    "styblinski-tang": StyblinskiTang,
}
