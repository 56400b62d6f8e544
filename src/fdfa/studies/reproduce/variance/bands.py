"""How far a measured number may be from theory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fdfa.diagnostics.estimates import Statistic
from fdfa.studies.reproduce.variance.settings import (
    FGA,
    MOMENTUM,
    RULES,
    GridPoint,
    VarianceSettings,
    name_of,
    places,
)

__all__ = [
    "FALSE_ALARM",
    "band",
    "bound",
    "confidence",
    "known",
    "largest",
    "numbers",
    "ratio",
    "share_of_band",
]

FALSE_ALARM = 1e-3  # chance that any number of a study leaves its band though all is right
_ROUNDING = 1e-9  # in float32, of what is expected; of |g|^2 where that is zero


def numbers(unit: Mapping[str, Any]) -> Iterator[Mapping[str, float]]:
    """All that was measured of a rule on a network.

    Args:
        unit: of the rule and the network.

    Yields:
        Each number with its standard error, and what theory says.
    """
    yield unit["variance"]
    yield unit["slope"]
    yield from unit["layers"].values()


def confidence(settings: VarianceSettings, units: Mapping[str, Any]) -> float:
    """Of one band, such that all bands of the study hold together (Bonferroni).

    Args:
        settings: of the reproduction.
        units: what was measured.

    Returns:
        The share of such bands that hold their number.
    """
    measured = [units[name_of(place, rule)] for place in places(settings) for rule in RULES]
    return 1 - FALSE_ALARM / sum(1 for unit in measured for _ in numbers(unit))


def band(number: Mapping[str, float], confidence: float) -> tuple[float, float]:
    """Where the true value lies: Student's t on the logarithm.

    A square of few draws is far from normal, and its logarithm much less so.

    Args:
        number: with its standard error.
        confidence: of the band.

    Returns:
        Both ends.
    """
    error = known(number["error"])
    statistic = Statistic(known(number["found"]), error**2, int(number["degrees"]))
    found = statistic.estimate(confidence, "positive")
    return found.low, found.high


def share_of_band(number: Mapping[str, float], confidence: float) -> float:
    """How far a number is from theory, as a share of how far it may be, on the logarithm.

    Args:
        number: with its standard error.
        confidence: of the band.

    Returns:
        1 at the end of the band.

    Example:
        >>> number = {"found": 1.0, "expected": 1.2214, "error": 0.1, "degrees": 10**9}
        >>> round(share_of_band(number, 0.9545), 3)  # two standard errors
        1.0
    """
    found, expected = known(number["found"]), number["expected"]
    if not math.isfinite(found):
        return abs(found)
    if abs(found - expected) <= _ROUNDING * (expected or 1.0):
        return 0.0
    _, high = band(number, confidence)
    if expected == 0 or found == high:
        return math.inf
    if found > 0:
        return abs(math.log(expected / found)) / math.log(high / found)
    return (expected - found) / (high - found)


def known(value: float | None) -> float:
    """A number out of JSON, which has no NaN.

    Args:
        value: the number, or None.

    Returns:
        The number, or NaN.
    """
    return math.nan if value is None else value


def largest(values: Iterable[float]) -> float:
    """The largest; NaN if there is one, for it is never small.

    Args:
        values: at least one.

    Returns:
        One of them.
    """
    found = list(values)
    return math.nan if any(math.isnan(value) for value in found) else max(found)


def bound(settings: VarianceSettings) -> float:
    """Of FDFA's variance, as a share of FG-A's: alpha / (2 - alpha).

    Args:
        settings: of the reproduction.

    Returns:
        The share.
    """
    return settings.feedback_rate / (2 - settings.feedback_rate)


def ratio(
    units: Mapping[str, Any], place: GridPoint, confidence: float
) -> tuple[float, float, float, float]:
    """FDFA's variance as a share of FG-A's.

    Args:
        units: what was measured.
        place: where.
        confidence: of the band.

    Returns:
        The share in theory, the share that was found, and both ends of its band.
    """
    ours, theirs = (units[name_of(place, rule)]["variance"] for rule in (MOMENTUM, FGA))
    found = known(ours["found"]) / known(theirs["found"])
    relative = math.hypot(*(known(n["error"]) / known(n["found"]) for n in (ours, theirs)))
    degrees = min(ours["degrees"], theirs["degrees"])
    share = {"found": found, "error": relative * found, "degrees": degrees}
    return ours["expected"] / theirs["expected"], found, *band(share, confidence)
