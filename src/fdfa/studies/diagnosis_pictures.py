"""Pictures of diagnoses over the training: a panel a layer or tap, a line a rule, a band its seeds.

Everything that a colour says is said by a dash and a marker, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from fdfa.studies.diagnosis_curves import Band, Diagnoses, band_of
from fdfa.studies.plots import COLOURS, STYLES

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["MARKERS", "angle_picture", "error_picture", "evenly", "feedback_picture", "new_figure"]

MARKERS = ("o", "s", "^", "D", "v", "P", "X")

_MOST_PANELS = 12
_MOST_COLUMNS = 4
_MARKS = 8
_GREY = "0.4"

Rules = Mapping[str, Sequence[Diagnoses]]
Value = Callable[[Mapping[str, float]], float]


def angle_picture(rules: Rules, layers: Sequence[str], *, subject: str) -> Figure:
    """Angles to the true gradient over the training, layer by layer.

    Args:
        rules: diagnoses of the runs of each rule, one a seed.
        layers: parameters to show, from the input on.
        subject: what was learned, for the title.

    Returns:
        A figure that no window shows.
    """
    shown = evenly(layers, _MOST_PANELS)
    figure, panels = _grid(len(shown), rules)
    widest = 0.0
    for axes, layer in zip(panels, shown, strict=True):
        bands = _bands(rules, "parameters", layer, _value("angle"))
        widest = max([widest, *(h for band in bands.values() for h in band.high if h >= 0)])
        _draw(axes, bands, title=layer)
    _line_across(panels[0], 90, "90°: a random direction")
    for axes in panels:
        _line_across(axes, 90)
        obtuse = widest > 100
        axes.set_ylim(-4 if obtuse else -2.5, 184 if obtuse else 104)
        axes.set_yticks(range(0, 181, 45) if obtuse else range(0, 91, 30))
    figure.supylabel("angle to the true gradient (°)", fontsize="medium")
    _finish(figure, rules, subject, shown=shown, of=layers, what="layers")
    return figure


def feedback_picture(rules: Rules, *, subject: str) -> Figure | None:
    """Errors of the feedback maps over the training, tap by tap.

    Args:
        rules: diagnoses of the runs of each rule, one a seed.
        subject: what was learned, for the title.

    Returns:
        A figure; None where no rule has a feedback map.
    """
    _, taps = _with_taps(rules, "feedback_error")
    if not taps:
        return None
    shown = evenly(taps, _MOST_PANELS)
    figure, panels = _grid(len(shown), rules)
    for axes, tap in zip(panels, shown, strict=True):
        _draw(axes, _bands(rules, "taps", tap, _value("feedback_error")), title=tap)
        axes.set_yscale("log")
        _line_across(axes, 1)
    _line_across(panels[0], 1, "1: no feedback")
    _plain_numbers(panels[0])
    figure.supylabel("relative error of the feedback map", fontsize="medium")
    _finish(figure, rules, subject, shown=shown, of=taps, what="taps")
    return figure


def error_picture(rules: Rules, *, subject: str) -> Figure | None:
    """What the error of the credit is made of, over the training: a row a rule, a column a tap.

    Args:
        rules: diagnoses of the runs of each rule, one a seed.
        subject: what was learned, for the title.

    Returns:
        A figure; None where no rule has a feedback map.
    """
    rules, taps = _with_taps(rules, "spread")
    if not taps:
        return None
    shown = evenly(taps, _MOST_COLUMNS)
    figure = new_figure(max(1.2 + 2.8 * len(shown), 5.2), 1.5 + 2.0 * len(rules))
    panels = figure.subplots(len(rules), len(shown), squeeze=False, sharex=True, sharey=True)
    for row, (rule, runs) in zip(panels, rules.items(), strict=True):
        for axes, tap in zip(row, shown, strict=True):
            _tidy(axes)
            bands = {
                label: band_of([run.curve("taps", tap, share) for run in runs])
                for label, share in _PARTS.items()
            }
            _draw(axes, bands, title=f"{rule}, {tap}")
            _line_across(axes, 0)
    for axes in panels[-1]:
        axes.set_xlabel("optimiser steps")
    figure.supylabel("share of the credit's squared error (%)", fontsize="medium")
    _finish(figure, _PARTS, subject, shown=shown, of=taps, what="taps", seeds=rules)
    return figure


def new_figure(width: float, height: float) -> Figure:
    """An empty figure that no window shows.

    Args:
        width: in inches.
        height: in inches.

    Returns:
        The figure.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def evenly(names: Sequence[str], most: int) -> list[str]:
    """Some of the names, evenly over all: the first and the last are among them.

    Args:
        names: in order.
        most: how many at most, 2 or more.

    Returns:
        The names, in order.

    Example:
        >>> evenly(["a", "b", "c", "d", "e"], 3)
        ['a', 'c', 'e']
    """
    if len(names) <= most:
        return list(names)
    return [names[round(place * (len(names) - 1) / (most - 1))] for place in range(most)]


def _value(name: str) -> Value:
    return lambda values: values.get(name, math.nan)


def _share(*parts: str) -> Value:
    """Of parts of the error, in percent of all of it."""

    def share(values: Mapping[str, float]) -> float:
        total = values.get("total", math.nan)
        return 100 * sum(values.get(p, math.nan) for p in parts) / total if total else math.nan

    return share


_PARTS: Mapping[str, Value] = {
    "(a) noise": _share("noise"),
    "(b) lag": _share("lag"),
    "(c) spread": _share("spread"),
    "the rest": _share("projection", "coupling", "interaction"),
}


def _with_taps(rules: Rules, value: str) -> tuple[Rules, list[str]]:
    """The rules that have such a number of any tap, and these taps."""
    taps = {
        rule: [
            tap
            for tap in dict.fromkeys(tap for run in runs for tap in run.names("taps"))
            if band_of([run.curve("taps", tap, _value(value)) for run in runs]).drawable
        ]
        for rule, runs in rules.items()
    }
    every = list(dict.fromkeys(tap for found in taps.values() for tap in found))
    return {rule: runs for rule, runs in rules.items() if taps[rule]}, every


def _bands(rules: Rules, part: str, name: str, value: Value) -> dict[str, Band]:
    return {
        rule: band_of([run.curve(part, name, value) for run in runs])
        for rule, runs in rules.items()
    }


def _draw(axes: Axes, bands: Mapping[str, Band], *, title: str) -> None:
    """Lines with marks; from the lowest to the highest seed a band, where there are several.

    A line that has no point keeps its colour, so that a rule has the same one in every picture.
    """
    for number, (label, band) in enumerate(bands.items()):
        if not band.drawable:
            continue
        colour = COLOURS[number % len(COLOURS)]
        if band.seeds > 1:
            axes.fill_between(
                band.steps, band.low, band.high, color=colour, alpha=0.18, linewidth=0
            )
        # Marks start at other points in each line: what lies upon each other is told apart.
        apart = max(1, len(band.steps) // _MARKS)
        axes.plot(
            band.steps,
            band.mean,  # with a gap where it is no number
            color=colour,
            linestyle=STYLES[number % len(STYLES)],
            marker=MARKERS[number % len(MARKERS)],
            markersize=4,
            markevery=(number * apart // len(bands), apart),
            linewidth=1.6,
            label=label,
        )
    axes.set_title(title, fontsize="small")


def _grid(count: int, rules: Rules) -> tuple[Figure, list[Axes]]:
    """So many panels in rows of up to four, with room for the legend below."""
    columns = min(_MOST_COLUMNS, count)
    rows = math.ceil(count / columns)
    legend = 0.3 * math.ceil(len(rules) / _MOST_COLUMNS)
    figure = new_figure(max(1.0 + 2.7 * columns, 5.2), 1.2 + 2.2 * rows + legend)
    places = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flatten()
    for axes in places[count:]:
        axes.set_axis_off()
    for number, axes in enumerate(places[:count]):
        _tidy(axes)
        if number + columns >= count:  # nothing below
            axes.set_xlabel("optimiser steps")
            axes.tick_params(labelbottom=True)
    return figure, list(places[:count])


def _tidy(axes: Axes) -> None:
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _line_across(axes: Axes, y: float, text: str = "") -> None:
    axes.axhline(y, color=_GREY, linewidth=0.8, zorder=1)
    axes.annotate(
        text,
        (1, y),
        xycoords=("axes fraction", "data"),
        ha="right",
        va="bottom",
        fontsize="x-small",
        color=_GREY,
    )


def _plain_numbers(axes: Axes) -> None:
    """On a logarithmic axis, numbers as they are and not as powers of ten."""
    from matplotlib.ticker import AutoLocator, LogLocator, NullLocator, StrMethodFormatter

    low, high = axes.get_ylim()
    decades = high >= 10 * low  # less has too few powers of ten to be read by
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)) if decades else AutoLocator())
    if not decades:
        axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter("")


def _finish(
    figure: Figure,
    lines: Mapping[str, object],
    subject: str,
    *,
    shown: Sequence[str],
    of: Sequence[str],
    what: str,
    seeds: Rules | None = None,
) -> None:
    """Legend and title."""
    handles: dict[str, Artist] = {}
    for panel in figure.axes:
        for handle, name in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(name, handle)
    named = [name for name in lines if name in handles]
    figure.legend(
        [handles[name] for name in named],
        named,
        loc="outside lower center",
        ncols=min(_MOST_COLUMNS, len(named) or 1),
        frameon=False,
        handlelength=4,
    )
    rules: Rules = seeds or lines  # type: ignore[assignment]
    most = max(len(runs) for runs in rules.values())
    words = [subject]
    if most > 1:
        words.append(f"mean of {most} seeds, bands from the lowest to the highest")
    if len(shown) < len(of):
        words.append(f"{len(shown)} of {len(of)} {what}")
    figure.suptitle("; ".join(words), fontsize="medium")
