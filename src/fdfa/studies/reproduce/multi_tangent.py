"""Multi-tangent forward gradients on test functions, and on a small network.

Fluegel, Coquelin, Weiel, Streit & Goetz, IJCNN 2025, arXiv:2410.17764. Functions, starting points,
numbers of steps and learning rates are theirs, as is the early stop.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from fdfa.errors import ConfigError, unknown_name
from fdfa.studies.reproduce.descents import digits_descent, surface_descent
from fdfa.studies.reproduce.findings import Units
from fdfa.studies.reproduce.surfaces import SURFACES
from fdfa.studies.whole_numbers import check_whole

__all__ = [
    "MEAN",
    "NETWORK_RATES",
    "ONE",
    "PROJECTION",
    "RATES",
    "RULES",
    "K",
    "MultiTangentSettings",
    "measure",
    "name_of",
    "on_network",
    "seeds_of",
]

Part = Literal["sphere", "rosenbrock", "styblinski-tang", "digits"]
_PARTS: tuple[Part, ...] = ("sphere", "rosenbrock", "styblinski-tang", "digits")
K = 16
# The method and its options behind each name; k = 1 is the forward gradient.
RULES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "backpropagation": ("backpropagation", {}),
    "k = 1": ("fg-w", {}),
    f"mean of {K}": ("multi-tangent", {"count": K, "combine": "mean"}),
    f"projection on {K}": ("multi-tangent", {"count": K, "combine": "projection"}),
}
_BP, ONE, MEAN, PROJECTION = RULES
# As published for 64 dimensions, in the order of the rules.
RATES = {
    "sphere": (0.29, 0.0085, 0.083, 0.51),
    "rosenbrock": (1.1e-3, 8.6e-5, 3.9e-4, 1.8e-3),
    "styblinski-tang": (0.051, 5.4e-4, 9.6e-4, 4.2e-3),
}
_DIMENSIONS = 64
_STEPS = {"sphere": 1000, "rosenbrock": 25_000, "styblinski-tang": 1000, "digits": 1500}
_PATIENCE = 50
# 64-32-10 on pixels from 0 to 1. The mean's rates are the projection's times k/n.
_WEIGHTS = 64 * 32 + 32 + 32 * 10 + 10
NETWORK_RATES: Mapping[str, tuple[float, ...]] = {
    ONE: (0.003, 0.006, 0.01),
    MEAN: tuple(rate * K / _WEIGHTS for rate in (3.0, 6.0, 9.0)),
    PROJECTION: (3.0, 6.0, 9.0),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiTangentSettings:
    """What is minimised, and for how long.

    Attributes:
        parts: sphere, rosenbrock, styblinski-tang: functions; digits: a network of 2,410 weights.
        dimensions: of the functions; the learning rates are those for 64.
        steps: at most; default: 1000, of rosenbrock 25000, of digits 1500.
        seeds: descents by each random rule.

    Raises:
        ConfigError: if a part is unknown or a number out of range.

    Example:
        >>> MultiTangentSettings(parts=("sphere",)).dimensions
        64
    """

    parts: tuple[Part, ...] = _PARTS
    dimensions: int = _DIMENSIONS
    steps: int | None = None
    seeds: int = 5

    def __post_init__(self) -> None:
        """Check every value."""
        for part in self.parts:
            if part not in _PARTS:
                raise ConfigError(unknown_name("part", str(part), _PARTS))
        check_whole("dimensions", self.dimensions, least=2, most=1_000_000)
        check_whole("steps", self.steps, least=1, optional=True)
        check_whole("seeds", self.seeds, least=1, most=10_000)

    def steps_of(self, part: str) -> int:
        """How many at most.

        Args:
            part: of the reproduction.

        Returns:
            As published, or fewer.
        """
        return min(_STEPS[part], self.steps or _STEPS[part])

    def published(self, part: str) -> bool:
        """Whether a part is as it was published, so that published numbers hold for it.

        Args:
            part: of the reproduction.

        Returns:
            Whether neither dimensions nor steps are others.
        """
        same = part == "digits" or self.dimensions == _DIMENSIONS
        return same and self.steps_of(part) == _STEPS[part]


def measure(settings: MultiTangentSettings, units: Units) -> None:
    """Every descent by every rule.

    Args:
        settings: of the reproduction.
        units: keeps what is measured.
    """
    for part in settings.parts:
        if part == "digits":
            continue
        for (rule, (method, options)), rate in zip(RULES.items(), RATES[part], strict=True):
            for seed in seeds_of(settings, rule):
                units.get(
                    name_of(part, rule, seed),
                    functools.partial(
                        surface_descent,
                        SURFACES[part](settings.dimensions),
                        method,
                        {**options, "seed": seed},
                        rate=rate,
                        steps=settings.steps_of(part),
                        patience=_PATIENCE,
                    ),
                    lambda found: f"{found['value']:.6g} in {found['steps']:,} steps",
                )
    if "digits" in settings.parts:
        for rule, rate in on_network():
            method, options = RULES[rule]
            units.get(
                name_of("digits", rule, rate=rate),
                functools.partial(
                    digits_descent,
                    method,
                    {**options, "seed": 0},
                    rate=rate,
                    steps=settings.steps_of("digits"),
                ),
                lambda found: f"training loss {found['value']:.3f}",
            )


def seeds_of(settings: MultiTangentSettings, rule: str) -> Sequence[int]:
    """Seeds of the descents by a rule.

    Args:
        settings: of the reproduction.
        rule: its name.

    Returns:
        As many as were asked for; one where there is nothing random.
    """
    return range(1) if rule == _BP else range(settings.seeds)


def on_network() -> Iterator[tuple[str, float]]:
    """The trainings of the network.

    Yields:
        Name of the rule, and learning rate.
    """
    for rule, rates in NETWORK_RATES.items():
        yield from ((rule, rate) for rate in rates)


def name_of(part: str, rule: str, seed: int | None = None, *, rate: float | None = None) -> str:
    """What a unit of the reproduction is called.

    Args:
        part: of the reproduction.
        rule: its name.
        seed: of a descent on a function.
        rate: of a training of the network.

    Returns:
        The name.
    """
    how = f"seed {seed}" if rate is None else f"rate {rate:.4g}"
    return f"{part}, {rule}, {how}"
