"""What a stream of independent draws says of an estimate: sums of inner products, and no more."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from fdfa.diagnostics.estimates import Statistic, average

__all__ = ["DrawSums", "Moments", "average_moments"]

nan = math.nan


@dataclasses.dataclass(frozen=True)
class Moments:
    """What the draws x of an estimate say against its exact value g; m their mean, R their number.

    With mu = E x, b = mu - g and S the covariance of x. Every :class:`Statistic` knows its own
    sampling variance.

    Attributes:
        size: components of g.
        exact_square: |g|^2.
        variance: tr S, without bias.
        squared_bias: |b|^2, without bias: |m - g|^2 - tr S / R. Negative at times, where noise
            hides it.
        squared_mean: |mu|^2, likewise.
        error: E |x - g|^2.
        cosine: E cos(x, g).
        angle: E of the angle between x and g, in degrees.
        norm_ratio: E |x| / |g|.
        cosine_of_mean: cos(mu, g); NaN where noise hides the mean.
    """

    size: int
    exact_square: float
    variance: Statistic
    squared_bias: Statistic
    squared_mean: Statistic
    error: Statistic
    cosine: Statistic
    angle: Statistic
    norm_ratio: Statistic
    cosine_of_mean: Statistic


def average_moments(batches: Sequence[Moments]) -> Moments:
    """The mean over batches of what was found for each.

    Args:
        batches: moments of the same tensor, each against the exact value of its own batch.

    Returns:
        Their mean; the errors are those that the draws leave, at these very batches.
    """
    values: dict[str, object] = {}
    for field in dataclasses.fields(Moments):
        parts = [getattr(moments, field.name) for moments in batches]
        if isinstance(parts[0], Statistic):
            values[field.name] = average(parts)
        else:
            values[field.name] = sum(parts) / len(parts) if field.name != "size" else parts[0]
    return Moments(**values)  # type: ignore[arg-type]


class _Stream:
    """Mean and variance of a stream of numbers, each with a weight (West 1979)."""

    def __init__(self) -> None:
        self.count, self.mean = 0, 0.0
        self._weight = self._squares = 0.0

    def add(self, value: float, weight: float = 1.0) -> None:
        self.count += 1
        self._weight += weight
        step = value - self.mean
        self.mean += step * weight / self._weight
        self._squares += weight * step * (value - self.mean)

    @property
    def variance(self) -> float:
        if self.count < 2:
            return nan
        return self._squares / self._weight * self.count / (self.count - 1)

    def statistic(self) -> Statistic:
        if not self.count:
            return Statistic(nan)
        return Statistic(self.mean, self.variance / self.count, self.count - 1)


class DrawSums:
    """Sums over draws and pairs of one vector's inner products.

    Args:
        exact_square: |g|^2.
    """

    def __init__(self, exact_square: float) -> None:
        self._exact_square = exact_square
        self._error = _Stream()
        self._cosine, self._angle, self._ratio = _Stream(), _Stream(), _Stream()
        self._squares = 0.0
        # of pairs with others before them
        self._noise, self._crossed = _Stream(), _Stream()
        self._at_mean, self._at_bias, self._across = _Stream(), _Stream(), _Stream()
        self._pairs, self._weight = 0, 0.0

    def take_draw(self, xx: float, xg: float, error: float) -> None:
        """Take in a draw.

        Args:
            xx: |x|^2.
            xg: x.g.
            error: |x - g|^2.
        """
        self._error.add(error)
        if self._exact_square > 0:
            self._ratio.add(math.sqrt(xx / self._exact_square))
            if xx > 0:  # a zero has no direction
                cosine = _clipped(xg / math.sqrt(xx) / math.sqrt(self._exact_square))
                self._cosine.add(cosine)
                self._angle.add(math.degrees(math.acos(cosine)))

    def take_pair(
        self,
        r: int,
        DD: float,
        ss: float,
        sD: float,
        Dm: float,
        Dg: float,
        mm: float,
        mg: float,
        crossed: float,
    ) -> None:
        """Take in a pair of draws (a, b), with D = a - b and s = (a + b) / 2 - m.

        Args:
            r: draws before it; m is their mean.
            DD: |D|^2.
            ss: |s|^2.
            sD: s.D.
            Dm: D.m.
            Dg: D.g.
            mm: |m|^2.
            mg: m.g.
            crossed: D.D', D' of the pair before.
        """
        self._squares += DD / 2 + ss * 2 * r / (r + 2)
        if r == 0:
            return
        self._pairs, self._weight = self._pairs + 1, self._weight + r
        self._crossed.add(crossed**2)
        for square in (ss + DD / 4 + sD, ss + DD / 4 - sD):
            self._noise.add(square * r / (r + 1), r)
        self._at_mean.add(Dm**2, r)
        self._at_bias.add((Dm - Dg) ** 2, r)
        # along the part of g that is square to m: what turns the mean
        self._across.add((Dg - (Dm * mg / mm if mm > 0 else 0.0)) ** 2, r)

    def moments(
        self, size: int, mm: float, bias_square: float, mg: float, left_over: float
    ) -> Moments:
        """What all draws say so far, m their mean.

        Args:
            size: components of g.
            mm: |m|^2.
            bias_square: |m - g|^2.
            mg: m.g.
            left_over: what a draw that waits for a second one adds to sum |x - m|^2.

        Returns:
            The moments.
        """
        R, G, error = self._error.count, self._exact_square, self._error.statistic()
        V = (self._squares + left_over) / (R - 1) if R > 1 else nan
        trace, noise, at_mean, at_bias, across = self._fourth_order(V)
        within = 2 * trace / (R * (R - 1)) if R > 1 else nan
        degrees = 2 * self._pairs - 1
        squared_mean = Statistic(mm - V / max(R, 1), 4 * at_mean / max(R, 1) + within, degrees)
        towards = Statistic(nan)
        if G > 0 and squared_mean.value > 0:
            q, t = squared_mean.value, mg / math.sqrt(G)
            spread = across / G / q / R + t * t * within / (4 * q**3)  # the delta method
            towards = Statistic(_clipped(t / math.sqrt(q)), spread, degrees)
        return Moments(
            size=size,
            exact_square=G,
            variance=Statistic(V, noise / max(R, 1) + within, degrees),
            squared_bias=Statistic(
                bias_square - V / max(R, 1), 4 * at_bias / max(R, 1) + within, degrees
            ),
            squared_mean=squared_mean,
            error=error,
            cosine=self._cosine.statistic(),
            angle=self._angle.statistic(),
            norm_ratio=self._ratio.statistic(),
            cosine_of_mean=towards,
        )

    def _fourth_order(self, V: float) -> tuple[float, float, float, float, float]:
        """Tr S^2, Var |x - mu|^2, mu'S mu, b'S b and h'S h with h the part of g square to mu."""
        if V == 0:  # the draws are all the same
            return (0.0,) * 5
        if not self._pairs:
            return (nan,) * 5
        trace = self._crossed.mean / 4
        surplus = trace * self._pairs / self._weight  # of the means' own errors
        at_mean = max(0.0, self._at_mean.mean / 2 - surplus)
        at_bias = max(0.0, self._at_bias.mean / 2 - surplus)
        return trace, self._noise.variance, at_mean, at_bias, self._across.mean / 2


def _clipped(cosine: float) -> float:
    return min(max(cosine, -1.0), 1.0)  # in this order NaN stays NaN
