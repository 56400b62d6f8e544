"""What is expected of multi-tangent forward gradients, and how what was found is shown."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Any

import torch

from fdfa.studies.reproduce.findings import Expectation, Grid
from fdfa.studies.reproduce.multi_tangent import (
    MEAN,
    NETWORK_RATES,
    ONE,
    PROJECTION,
    RATES,
    RULES,
    K,
    MultiTangentSettings,
    measure,
    name_of,
    on_network,
    seeds_of,
)
from fdfa.studies.reproduce.pictures import Panel

__all__ = ["expectations", "grids", "measure", "panels"]

# Mean and standard deviation over 40 seeds of the lowest value, from a simulation of the update
# equations that shares no code with this library; of styblinski-tang, for each dimension.
_SIMULATED = {
    ("rosenbrock", ONE): (53.8, 1.9),
    ("rosenbrock", MEAN): (10.6, 2.2),
    ("rosenbrock", PROJECTION): (2.3, 2.7),
    ("styblinski-tang", ONE): (-36.2, 0.6),
}
_MINIMUM = -39.16617  # of a dimension of styblinski-tang
_NETWORK_LOSSES = {3.0: 0.30, 6.0: 0.15, 9.0: 0.11}


def expectations(settings: MultiTangentSettings, units: Mapping[str, Any]) -> list[Expectation]:
    """What was published, or follows, beside what was found.

    Args:
        settings: of the reproduction.
        units: what was measured.

    Returns:
        The expectations, part by part.
    """
    found: list[Expectation] = []
    for part in settings.parts:
        if part == "digits":
            found += _of_network(settings, units)
        else:
            found += [_of_function(part, rule, settings, units) for rule in RULES]
            if part == "sphere" and settings.dimensions > K + 2:
                found.append(_contraction(settings, units))
    return found


def _values(
    part: str, rule: str, settings: MultiTangentSettings, units: Mapping[str, Any]
) -> list[float]:
    return [units[name_of(part, rule, seed)]["value"] for seed in seeds_of(settings, rule)]


def _of_function(
    part: str, rule: str, settings: MultiTangentSettings, units: Mapping[str, Any]
) -> Expectation:
    """The mean over the seeds of the lowest value, of styblinski-tang for each dimension."""
    scale = settings.dimensions if part == "styblinski-tang" else 1
    mean = statistics.fmean(_values(part, rule, settings, units)) / scale
    if (part, rule) in _SIMULATED:
        centre, deviation = _SIMULATED[part, rule]
        margin = 4 * deviation / math.sqrt(settings.seeds)
        # No value lies below the minimum, though few lie far above it.
        least, most = max(centre - margin, _least(part)), centre + margin
        why = "simulated without this library: 4 standard errors"
    elif part == "styblinski-tang":
        least, most, why = _MINIMUM - 1e-4, _MINIMUM + 5e-3, "the global minimum"
    else:
        least, most, why = 0.0, 1e-3 if rule == ONE else 1e-6, "the global minimum, 0"
    what = f"{part}{'/n' if scale > 1 else ''}, {rule}"
    return Expectation(what, least, most, mean, settings.published(part), why)


def _least(part: str) -> float:
    """The global minimum, for each dimension."""
    return _MINIMUM if part == "styblinski-tang" else 0.0


def _contraction(settings: MultiTangentSettings, units: Mapping[str, Any]) -> Expectation:
    """How fast the projection descends the sphere, beside the exact law of its angle."""
    # ln f falls by ln(1 - c s) a step: s, the squared cosine with the gradient, is Beta(a, b), and
    # c = 4 rate (1 - rate). To first order in 1 - c:
    # E ln(1 - c s) = psi(b) - psi(a + b) + (1 - c) E[s / (1 - s)].
    n, steps = settings.dimensions, settings.steps_of("sphere")
    a, b = torch.tensor(K / 2, dtype=torch.float64), torch.tensor((n - K) / 2).double()
    rate = RATES["sphere"][-1]
    tilt = (1 - 4 * rate * (1 - rate)) * a / (b - 1)
    step = (torch.digamma(b) - torch.digamma(a + b) + tilt).item()
    spread = (torch.polygamma(1, b) - torch.polygamma(1, a + b)).sqrt().item()
    values = _values("sphere", PROJECTION, settings, units)
    fallen = statistics.fmean(math.log(value / n) if value > 0 else -math.inf for value in values)
    margin = 4 * spread * math.sqrt(steps / settings.seeds)
    return Expectation(
        f"sphere, {PROJECTION}: ln of the share that is left",
        steps * step - margin,
        steps * step + margin,
        fallen,
        judged=True,
        why="the exact law of the projection: 4 standard errors",
    )


def _of_network(settings: MultiTangentSettings, units: Mapping[str, Any]) -> list[Expectation]:
    judged = settings.published("digits")
    losses = {
        (rule, rate): units[name_of("digits", rule, rate=rate)]["value"]
        for rule, rate in on_network()
    }
    found = [
        Expectation(
            f"digits, {PROJECTION}, rate {rate:g}: training loss",
            0.8 * loss,
            1.2 * loss,
            losses[PROJECTION, rate],
            judged,
            "simulated without this library, within 20 %",
        )
        for rate, loss in _NETWORK_LOSSES.items()
    ]
    for mean, projection in zip(NETWORK_RATES[MEAN], NETWORK_RATES[PROJECTION], strict=True):
        ratio = losses[MEAN, mean] / losses[PROJECTION, projection]
        what = f"digits, {MEAN} at rate {mean:.2g}, as a share of {PROJECTION} at {projection:g}"
        why = "for k << n the projection is the mean times n/k"
        found.append(Expectation(what, 0.85, 1.15, ratio, judged, why))
    best = min(losses[ONE, rate] for rate in NETWORK_RATES[ONE])
    many = min(losses[PROJECTION, rate] for rate in NETWORK_RATES[PROJECTION])
    why = "more tangents help"
    what = f"digits, {ONE} at its best, times {PROJECTION} at its best"
    return [*found, Expectation(what, 2.0, math.inf, best / many, judged, why)]


def grids(settings: MultiTangentSettings, units: Mapping[str, Any]) -> list[Grid]:
    """The lowest values of the functions, and the losses of the network.

    Args:
        settings: of the reproduction.
        units: what was measured.

    Returns:
        A table of each.
    """
    found = []
    functions = [part for part in settings.parts if part != "digits"]
    if functions:
        rows = [
            (
                rule,
                *(
                    f"{statistics.fmean(_values(part, rule, settings, units)):.6g}"
                    for part in functions
                ),
            )
            for rule in RULES
        ]
        title = f"Lowest value, mean over the seeds, {settings.dimensions} dimensions"
        found.append(Grid(title, ("", *functions), rows))
    if "digits" in settings.parts:
        losses = [
            (rule, f"{rate:.3g}", f"{units[name_of('digits', rule, rate=rate)]['value']:.3f}")
            for rule, rate in on_network()
        ]
        found.append(Grid("Digits, 64-32-10", ("", "rate", "training loss"), losses))
    return found


def panels(settings: MultiTangentSettings, units: Mapping[str, Any]) -> list[Panel]:
    """What a picture shows: the value on the way down, a panel for each part.

    Args:
        settings: of the reproduction.
        units: what was measured.

    Returns:
        The panels; of random rules the first seed.
    """
    found = []
    for part in settings.parts:
        if part == "digits":
            lines = {
                f"{rule}, rate {rate:.2g}": units[name_of(part, rule, rate=rate)]["path"]
                for rule, rate in on_network()
            }
            found.append(Panel("digits, 64-32-10", "step", "training loss", lines, log_y=True))
        else:
            lines = {rule: units[name_of(part, rule, 0)]["path"] for rule in RULES}
            title = f"{part}, {settings.dimensions} dimensions"
            below = part != "styblinski-tang"  # which has negative values
            found.append(
                Panel(
                    title,
                    "step",
                    "value",
                    lines,
                    log_x=True,
                    log_y=below,
                    floor=1e-20 if below else None,
                )
            )
    return found
