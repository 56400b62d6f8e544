"""Bias and variance of a gradient estimate from a stream of independent draws.

Nothing here grows with the number of draws: beside sums of inner products, a tensor keeps its exact
value, the mean, one draw and one difference.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from fdfa.diagnostics.moments import DrawSums, Moments

__all__ = ["ComponentMoments", "GradientMoments"]

_IN_CACHE = 2**14


@dataclasses.dataclass(frozen=True)
class ComponentMoments:
    """The same for every component: tensors of g's shape, in float64.

    Attributes:
        bias: m - g.
        bias_error: the square of its standard error.
        variance: of one draw.
        variance_error: the square of its standard error.
        draws: behind all of them.
    """

    bias: Tensor
    bias_error: Tensor
    variance: Tensor
    variance_error: Tensor
    draws: int

    def plus(self, other: ComponentMoments) -> ComponentMoments:
        """The sums of both, for a mean over batches.

        Args:
            other: of another batch, independent of this one.

        Returns:
            Sum by sum.
        """
        fields = (field.name for field in dataclasses.fields(self))
        return ComponentMoments(**{key: getattr(self, key) + getattr(other, key) for key in fields})


class GradientMoments:
    """Streaming statistics of independent draws of an estimate, in one tensor or several.

    What is said of all tensors as one vector is kept beside what is said of each. A standard error
    needs moments of the fourth order. Without a matrix of covariances they come from pairs of draws
    (a, b): with D = a - b, two successive pairs give E (D . D')^2 = 4 tr S^2, and a pair with the
    mean m of all draws before it E (D . (m - g))^2 = 2 b'Sb + 2 tr S^2 / r; the variance of
    |x - mu|^2 comes from |x - m|^2. What m's own error of S / r adds counts for less with weights
    r. Then, as for every U-statistic of pairs,

        Var(variance)     = Var |x - mu|^2 / R + 2 tr S^2 / (R (R - 1))
        Var(squared bias) = 4 b'Sb / R + 2 tr S^2 / (R (R - 1))

    Args:
        exact: the exact value of each tensor, by name.
        components: keep what :meth:`component_moments` needs too: four more tensors.

    Attributes:
        draws: taken in.
        non_finite: left out, because a component was NaN or infinite.

    Example:
        >>> g = torch.tensor([3.0, 4.0])
        >>> moments = GradientMoments({"weight": g})
        >>> generator = torch.Generator().manual_seed(0)
        >>> for _ in range(4000):  # the forward gradient (v . g) v has the variance (2 + 1) |g|^2
        ...     v = torch.randn(2, generator=generator)
        ...     taken = moments.add({"weight": (v @ g) * v})
        >>> print(moments.of("weight").variance.estimate(confidence=0.95))
        75.75 [68.73, 82.77]
    """

    def __init__(self, exact: Mapping[str, Tensor], *, components: bool = False) -> None:
        self.draws = 0
        self.non_finite = 0
        self._vectors = {name: _Vector(g, components) for name, g in exact.items()}
        self._sums = {name: DrawSums(vector.square) for name, vector in self._vectors.items()}
        self._whole = DrawSums(sum(vector.square for vector in self._vectors.values()))

    @property
    def names(self) -> list[str]:
        """Of the tensors."""
        return list(self._vectors)

    def add(self, draw: Mapping[str, Tensor]) -> bool:
        """Take in one draw.

        Args:
            draw: of every tensor, by name.

        Returns:
            Whether it was taken: a draw with a NaN or an infinity anywhere is counted in
            ``non_finite`` and left out.
        """
        if not all(_finite(draw[name]) for name in self._vectors):
            self.non_finite += 1
            return False
        self.draws += 1
        found = {name: vector.take(draw[name]) for name, vector in self._vectors.items()}
        pieces = [(self._sums[name], products) for name, products in found.items()]
        if found:
            together = [math.fsum(values) for values in zip(*found.values(), strict=True)]
            pieces.append((self._whole, together))
        for sums, products in pieces:
            sums.take_draw(*products[:3])
            if len(products) > 3:
                sums.take_pair(self.draws - 2, *products[3:])
        return True

    def of(self, name: str) -> Moments:
        """What the draws of one tensor say.

        Args:
            name: of the tensor.

        Returns:
            Its moments.
        """
        vector = self._vectors[name]
        return self._sums[name].moments(vector.size, *vector.close())

    def whole(self) -> Moments:
        """What the draws say of all tensors as one vector.

        Returns:
            Its moments.
        """
        closed = [vector.close() for vector in self._vectors.values()]
        size = sum(vector.size for vector in self._vectors.values())
        return self._whole.moments(size, *(math.fsum(part) for part in zip(*closed, strict=True)))

    def component_moments(self, name: str) -> ComponentMoments:
        """Bias and variance of every component of one tensor.

        Args:
            name: of the tensor.

        Returns:
            Its components' moments.

        Raises:
            ValueError: if the components were not kept.
        """
        return self._vectors[name].component_moments()


class _Vector:
    """One tensor, flat: what its draws leave, pair by pair."""

    def __init__(self, exact: Tensor, components: bool) -> None:
        self._shape = exact.shape
        self._exact = _flat(exact.detach().clone())
        self.size = exact.numel()
        self.square = self._exact.double().square().sum().item()
        self._mean = torch.zeros_like(self._exact, dtype=torch.float64)  # of all whole pairs
        self._pairs = 0
        self._half = False  # whether a draw waits for the second one of its pair
        self._waiting = torch.zeros_like(self._exact)  # that draw
        self._difference = torch.zeros_like(self._exact)  # of the pair before
        self._components = _Components(self._mean) if components else None
        # on a CPU in pieces that stay in its cache: each is read many times
        step = _IN_CACHE if self._exact.device.type == "cpu" else max(self.size, 1)
        self._pieces = [slice(k, k + step) for k in range(0, max(self.size, 1), step)]

    def take(self, draw: Tensor) -> list[float]:
        """x.x, x.g, |x-g|^2; of a whole pair also what :meth:`DrawSums.take_pair` asks for."""
        flat = _flat(draw.detach())
        if self._components is not None:
            self._components.draws += 1
        self._pairs += self._half
        products = [self._take(flat[piece].double(), piece) for piece in self._pieces]
        self._half = not self._half
        return torch.stack(products).sum(0).tolist()

    def _take(self, x: Tensor, piece: slice) -> Tensor:
        g, m, waiting = self._exact[piece].double(), self._mean[piece], self._waiting[piece]
        products = [x.dot(x), x.dot(g), (x - g).square().sum()]
        if self._components is not None:
            self._components.take(x, piece)
        if not self._half:
            waiting.copy_(x)
            return torch.stack(products)
        first, difference = waiting.double(), self._difference[piece]
        D, s = first - x, (first + x) / 2 - m
        products += [D.dot(D), s.dot(s), s.dot(D), D.dot(m), D.dot(g), m.dot(m), m.dot(g)]
        products.append(D.dot(difference.double()))
        difference.copy_(D)
        m.add_(s, alpha=1 / self._pairs)
        return torch.stack(products)

    def close(self) -> tuple[float, float, float, float]:
        """|m|^2, |m-g|^2, m.g and what a draw without a partner adds to the squares, as of now."""
        m, g, left_over = self._mean, self._exact.double(), torch.zeros(())
        if self._half:
            step, r = self._waiting.double() - m, 2 * self._pairs
            m, left_over = m + step / (r + 1), step.square().sum() * (r / (r + 1))
        a, b, c = torch.stack([m.dot(m), (m - g).square().sum(), m.dot(g)]).tolist()
        return a, b, c, left_over.item()

    def component_moments(self) -> ComponentMoments:
        if self._components is None:
            raise ValueError(
                "the single components were not kept, which takes four more tensors of each size."
                " Pass components=True."
            )
        return self._components.moments(self._exact.double(), self._shape)


class _Components:
    """Mean and sums of central powers of every component, draw by draw (Pébay 2008)."""

    def __init__(self, like: Tensor) -> None:
        self.draws = 0
        self._mean, self._second, self._third, self._fourth = (
            torch.zeros_like(like) for _ in range(4)
        )

    def take(self, x: Tensor, piece: slice) -> None:
        n = self.draws
        mean, M2, M3, M4 = (
            sums[piece] for sums in (self._mean, self._second, self._third, self._fourth)
        )
        step = x - mean
        a = step / n
        square = a.square()
        second = step.mul_(a).mul_(n - 1)
        M4.add_(second * square, alpha=n * n - 3 * n + 3).addcmul_(square, M2, value=6)
        M4.addcmul_(a, M3, value=-4)
        M3.addcmul_(second, a, value=n - 2).addcmul_(a, M2, value=-3)
        M2 += second
        mean += a

    def moments(self, exact: Tensor, shape: torch.Size) -> ComponentMoments:
        n = self.draws
        variance = self._second / (n - 1) if n > 1 else self._second * math.nan
        fourth = self._fourth / max(n, 1)
        error = (fourth - variance.square() * ((n - 3) / max(n - 1, 1))) / max(n, 1)
        return ComponentMoments(
            bias=(self._mean * (1 if n else math.nan) - exact).view(shape),
            bias_error=(variance / max(n, 1)).view(shape),
            variance=variance.view(shape),
            variance_error=error.clamp(min=0).view(shape),
            draws=n,
        )


def _finite(tensor: Tensor) -> bool:
    """Whether every component is; nothing that is not can hide in a sum that is."""
    return bool(torch.isfinite(tensor.sum())) or bool(torch.isfinite(tensor).all())


def _flat(tensor: Tensor) -> Tensor:
    """As a vector, where float64 exists."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).flatten()
