"""Numbers that were estimated from random draws, and how far they may be off."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Literal

__all__ = ["Estimate", "Statistic", "average", "quantile"]

Scale = Literal["plain", "positive"]


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A number with its confidence interval.

    Attributes:
        value: the estimate.
        low: lower end of the interval.
        high: upper end of the interval.
        standard_error: of the value. NaN, as both ends are, where there were too few draws to tell:
            no spread is invented.
    """

    value: float
    low: float
    high: float
    standard_error: float

    def __str__(self) -> str:
        """The value, and the interval where there is one: ``0.31 [0.29, 0.33]``."""
        ends = f" [{self.low:.4g}, {self.high:.4g}]" if self.low < self.high else ""
        return f"{self.value:.4g}{ends}"


@dataclasses.dataclass(frozen=True)
class Statistic:
    """A number worked out from draws, and the variance of that number itself.

    Attributes:
        value: the estimate.
        variance: of the estimate: the square of its standard error.
        degrees: of freedom behind ``variance``.
    """

    value: float
    variance: float = math.nan
    degrees: int = 0

    def estimate(
        self,
        confidence: float,
        scale: Scale = "plain",
        *,
        bounds: tuple[float, float] = (-math.inf, math.inf),
    ) -> Estimate:
        """The number with its interval: Student's t times the standard error, to both sides.

        Args:
            confidence: the share of such intervals that hold the true value.
            scale: ``"positive"`` takes the interval on the logarithm, for what cannot be negative.
            bounds: between which the number lies by its nature, and so the interval.

        Returns:
            The estimate.
        """
        error = math.sqrt(self.variance) if self.variance >= 0 else math.nan
        if error == 0:
            return Estimate(self.value, self.value, self.value, 0.0)
        reach = quantile(confidence, self.degrees) * error
        if scale == "positive" and self.value > 0:
            factor = math.exp(min(reach / self.value, 700.0))
            return Estimate(self.value, self.value / factor, self.value * factor, error)
        low, high = self.value - reach, self.value + reach
        if math.isfinite(reach):
            low, high = max(low, bounds[0]), min(high, bounds[1])
        return Estimate(self.value, low, high, error)


def average(statistics: Sequence[Statistic]) -> Statistic:
    """The mean of independent statistics, such as the same one of several batches.

    Args:
        statistics: at least one.

    Returns:
        Their mean, with the variance that its parts leave it.

    Example:
        >>> average([Statistic(1.0, 0.04, 9), Statistic(3.0, 0.12, 9)])
        Statistic(value=2.0, variance=0.04, degrees=18)
    """
    count = len(statistics)
    return Statistic(
        sum(part.value for part in statistics) / count,
        sum(part.variance for part in statistics) / count**2,
        sum(part.degrees for part in statistics),
    )


def quantile(confidence: float, degrees: int) -> float:
    """Student's t: how many standard errors an interval reaches to each side.

    Exact for one and two degrees of freedom; from three on, the expansion around the normal
    distribution (Abramowitz & Stegun, 26.7.5) to its fourth term, right to 0.3 % at 95 %.

    Args:
        confidence: between 0 and 1.
        degrees: of freedom; 0 gives NaN.

    Returns:
        The quantile.

    Example:
        >>> [round(quantile(0.95, degrees), 2) for degrees in (1, 2, 3, 9, 10_000)]
        [12.71, 4.3, 3.18, 2.26, 1.96]
    """
    if degrees < 1:
        return math.nan
    if degrees == 1:
        return math.tan(math.pi * confidence / 2)
    if degrees == 2:
        return confidence * math.sqrt(2 / (1 - confidence**2))
    z, v = NormalDist().inv_cdf((1 + confidence) / 2), degrees
    return (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * v**4)
    )
