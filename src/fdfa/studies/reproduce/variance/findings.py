"""Whether measured variances lie on their theoretical lines."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from fdfa.studies.reproduce.findings import Expectation
from fdfa.studies.reproduce.variance.bands import (
    FALSE_ALARM,
    bound,
    confidence,
    known,
    largest,
    numbers,
    ratio,
    share_of_band,
)
from fdfa.studies.reproduce.variance.settings import (
    INNOVATION,
    RULES,
    GridPoint,
    VarianceSettings,
    decay_name,
    decaying,
    name_of,
    places,
)

__all__ = ["expectations"]

_GONE = 1e-24  # of |g|^2, in float64: a variance that has decayed to rounding
_STEEP = 1e-20  # above it a decay is free of rounding
_ON_LINE = (
    "of each rule the number farthest from exact theory, as a share of half its band; all bands"
    f" hold together with {1 - FALSE_ALARM:.1%}"
)
_BOUNDED = {
    "linear": "the largest share of FG-A's variance; bounded by Jensen's inequality",
    "relu": "with ReLUs the bound is no theorem, but what samples share is even less",
}


def expectations(settings: VarianceSettings, units: Mapping[str, Any]) -> list[Expectation]:
    """Each rule on its line, FDFA below its bound, and the innovation's noise gone.

    Args:
        settings: of the reproduction.
        units: what was measured.

    Returns:
        The expectations.
    """
    sure = confidence(settings, units)
    found = []
    for subject, group in itertools.groupby(places(settings), lambda place: place.subject):
        mine = list(group)
        for rule in RULES:
            shares = [
                share_of_band(number, sure)
                for place in mine
                for number in numbers(units[name_of(place, rule)])
            ]
            farthest = largest(shares)
            found.append(Expectation(f"{subject}, {rule}", 0.0, 1.0, farthest, True, _ON_LINE))
        bands = [ratio(units, place, sure) for place in mine]
        found.append(_bounded(subject, mine[0].kind, bands, bound(settings)))
    for place in decaying(settings):
        found += _decayed(place, units[decay_name(place)])
    return found


def _bounded(subject: str, kind: str, bands: Sequence[Sequence[float]], most: float) -> Expectation:
    """FDFA's share of FG-A's variance, on the network where its band begins highest."""
    highest = largest(low for _, _, low, _ in bands)
    nothing = (math.nan, math.nan, math.nan, math.nan)
    _, share, low, _ = next((band for band in bands if band[2] == highest), nothing)
    what = f"{subject}, FDFA / FG-A, share of bound"
    return Expectation(what, 0.0, share / low, share / most, True, _BOUNDED[kind])


def _decayed(place: GridPoint, path: Sequence[Mapping[str, float]]) -> list[Expectation]:
    """Geometric decay, until rounding is all that is left."""
    first, last = path[0], [point for point in path if point["expected"] > _STEEP][-1]
    found, expected = (
        math.log(last[key] / first[key]) if known(last[key]) > 0 < known(first[key]) else math.nan
        for key in ("found", "expected")
    )
    subject = f"{place.subject}, {INNOVATION}"
    why = "the exact rate at which the mean decays; single paths decay a little faster"
    gone = f"{subject}, after {path[-1]['probes']:,} probes"
    return [
        Expectation(f"{subject}, decay", 0.9, 1.2, found / expected, True, why),
        Expectation(gone, 0.0, _GONE, known(path[-1]["found"]), True, "rounding in float64"),
    ]
