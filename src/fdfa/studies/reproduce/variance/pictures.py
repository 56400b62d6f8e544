"""Tables and pictures of variances: theory as lines, what was measured as points."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fdfa.studies.reproduce.findings import Grid
from fdfa.studies.reproduce.pictures import Panel
from fdfa.studies.reproduce.variance.bands import band, bound, confidence, known, ratio
from fdfa.studies.reproduce.variance.settings import (
    INNOVATION,
    MOMENTUM,
    PROJECTION,
    RULES,
    GridPoint,
    VarianceSettings,
    decay_name,
    decaying,
    name_of,
)

__all__ = ["grids", "panels"]

Measured = Mapping[str, Any]
_HEADS = ("FG-W", "FG-A", "momentum", "innov.", "mean", "project.")  # the rules, in short
_ROUNDING = 1e-12  # of |g|^2: a bias of so little is none
_FLOOR = 1e-34  # of a decay: nothing but rounding below


@dataclasses.dataclass(frozen=True)
class _Axis:
    """Networks that differ in one size.

    Attributes:
        subject: data and kind of network.
        common: the other size, which they have in common.
        x: the size in words; depth counts hidden layers.
        places: by size.
    """

    subject: str
    common: str
    x: str
    places: Mapping[int, GridPoint]

    @property
    def title(self) -> str:
        return f"{self.subject}, {self.common}"

    def ticks(self) -> tuple[float, ...]:
        return tuple(float(size) for size in self.places)


def grids(settings: VarianceSettings, units: Measured) -> list[Grid]:
    """All variances, by width and by depth; FDFA's share of FG-A's, and its bias.

    Args:
        settings: of the reproduction.
        units: what was measured.

    Returns:
        The tables.
    """
    widths, depths = _by_width(settings), _by_depth(settings)
    found = [_grid(axis, units) for axes in zip(widths, depths, strict=True) for axis in axes]
    for axes in (widths, depths):
        common, first = axes[0].common, f"FDFA, momentum / FG-A; bound {bound(settings):.3g}"
        heads = (axes[0].x, *(f"{size:,}" for size in axes[0].places))
        shares = [_row(axis, lambda place: ratio(units, place, 0.5)[1]) for axis in axes]
        found.append(Grid(f"{common}: {first}", heads, shares))
        for rule in (MOMENTUM, INNOVATION):
            biases = [_row(axis, functools.partial(_bias, units, rule)) for axis in axes]
            title = f"{common}: squared bias of {rule} / |g|^2, in theory"
            found.append(Grid(title, heads, biases))
    return found


def _row(axis: _Axis, value: Callable[[GridPoint], float]) -> list[str]:
    return [axis.subject, *(f"{value(place):.2g}" for place in axis.places.values())]


def _bias(units: Measured, rule: str, place: GridPoint) -> float:
    bias: float = units[name_of(place, rule)]["squared bias"]
    return bias if bias > _ROUNDING else 0.0


def _by_width(settings: VarianceSettings) -> list[_Axis]:
    """One for each data set and kind of network."""
    axes = []
    for data in settings.data:
        for kind in settings.networks:
            places = {w: GridPoint(data, kind, w, settings.depth) for w in sorted(settings.widths)}
            first = next(iter(places.values()))
            axes.append(_Axis(first.subject, f"depth {settings.depth}", "width", places))
    return axes


def _by_depth(settings: VarianceSettings) -> list[_Axis]:
    axes = []
    for data in settings.data:
        for kind in settings.networks:
            places = {d: GridPoint(data, kind, settings.width, d) for d in sorted(settings.depths)}
            first = next(iter(places.values()))
            axes.append(_Axis(first.subject, f"width {settings.width}", "depth", places))
    return axes


def _grid(axis: _Axis, units: Measured) -> Grid:
    """A row a network."""
    rows = []
    for size, place in axis.places.items():
        found = [known(units[name_of(place, rule)]["variance"]["found"]) for rule in RULES]
        rows.append((f"{size:,}", *(f"{value:.3g}" for value in found)))
    return Grid(f"{axis.title}: variance / |g|^2", (axis.x, *_HEADS), rows)


def panels(settings: VarianceSettings, units: Measured) -> list[Panel]:
    """What a picture shows: variances, FDFA's share of FG-A's, the innovation's decay.

    Args:
        settings: of the reproduction.
        units: what was measured.

    Returns:
        The panels; theory as lines, what was measured as points with their bands.
    """
    sure = confidence(settings, units)
    widths, depths = _by_width(settings), _by_depth(settings)
    found = [
        _of_variances(axis, units, sure)
        for axes in zip(widths, depths, strict=True)
        for axis in axes
    ]
    found += [_of_ratios(axes, units, sure, settings) for axes in (widths, depths)]
    paths = {place.data: units[decay_name(place)] for place in decaying(settings)}
    return [*found, _of_decays(paths)] if paths else found


def _of_variances(axis: _Axis, units: Measured, sure: float) -> Panel:
    lines: dict[str, list[tuple[float, float]]] = {}
    points: dict[str, list[tuple[float, float, float, float]]] = {}
    for rule in RULES:
        name = f"{rule}, times P/k" if rule == PROJECTION else rule
        lines[name], points[name] = [], []
        for size, place in axis.places.items():
            unit = units[name_of(place, rule)]
            # so that it too has the gradient as its mean
            scale = unit["slope"]["expected"] ** -2 if rule == PROJECTION else 1.0
            variance = unit["variance"]
            low, high = band(variance, sure)
            lines[name].append((size, scale * variance["expected"]))
            found = scale * known(variance["found"])
            points[name].append((size, found, scale * low, scale * high))
    return Panel(
        axis.title,
        axis.x,
        "variance / |g|²",
        lines,
        log_x=True,
        log_y=True,
        ticks=axis.ticks(),
        points=points,
        legend_below=True,
    )


def _of_ratios(
    axes: Sequence[_Axis], units: Measured, sure: float, settings: VarianceSettings
) -> Panel:
    lines, points = {}, {}
    for axis in axes:
        shares = {size: ratio(units, place, sure) for size, place in axis.places.items()}
        lines[axis.subject] = [(size, share[0]) for size, share in shares.items()]
        points[axis.subject] = [(size, *share[1:]) for size, share in shares.items()]
    lines["bound, alpha / (2 - alpha)"] = [(size, bound(settings)) for size in axes[0].places]
    return Panel(
        f"{axes[0].common}: FDFA, momentum / FG-A, alpha = {settings.feedback_rate:g}",
        axes[0].x,
        "ratio of variances",
        lines,
        log_x=True,
        log_y=True,
        ticks=axes[0].ticks(),
        points=points,
        legend_below=True,
    )


def _of_decays(paths: Mapping[str, Sequence[Mapping[str, float]]]) -> Panel:
    lines, points = {}, {}
    for data, path in paths.items():
        lines[data] = [(point["probes"], point["expected"]) for point in path]
        measured = [(point["probes"], known(point["found"])) for point in path]
        points[data] = [(probes, found, found, found) for probes, found in measured]
    return Panel(
        f"{INNOVATION}, linear networks, at its fastest rate",
        "probes",
        "variance / |g|²",
        lines,
        log_y=True,
        points=points,
        floor=_FLOOR,
    )
