"""Pictures of reproductions: panels of lines and points."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fdfa.studies.plots import COLOURS, MARKERS, STYLES
from fdfa.studies.run_folder import RunFolder

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Panel", "write_panels"]


@dataclasses.dataclass(frozen=True)
class Panel:
    """One part of a picture.

    Attributes:
        title: above it.
        x: what its horizontal axis shows.
        y: what its vertical axis shows.
        lines: points of each line, by name.
        log_x: whether the horizontal axis is logarithmic; from 0 to 1 linear if a 0 is to be shown.
        log_y: whether the vertical axis is logarithmic.
        marks: positions to be marked on the horizontal axis.
        ticks: where the horizontal axis has numbers; none leaves that to matplotlib.
        floor: values below it are not shown; None shows all.
        points: by name, each with both ends of its error bar; those of a line have the line's name.
        legend_below: whether the names stand below the panel instead of in it.
    """

    title: str
    x: str
    y: str
    lines: Mapping[str, Sequence[Sequence[float]]]
    log_x: bool = False
    log_y: bool = False
    marks: tuple[float, ...] = ()
    ticks: tuple[float, ...] = ()
    floor: float | None = None
    points: Mapping[str, Sequence[tuple[float, float, float, float]]] = dataclasses.field(
        default_factory=dict
    )
    legend_below: bool = False


def write_panels(panels: Sequence[Panel], folder: RunFolder, *, title: str) -> tuple[str, ...]:
    """Write ``reproduction.png`` and ``.svg``.

    Args:
        panels: side by side, two in a row.
        folder: takes the files.
        title: of the picture.

    Returns:
        Notes for the reader: why there is no picture, if there is none.
    """
    if importlib.util.find_spec("matplotlib") is None:
        return ("No picture: matplotlib is not installed. pip install 'fdfa[plots]' brings it.",)
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    # Text stays text, and the same numbers give the same bytes.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fdfa"}):
        figure = Figure(figsize=(5.2 * columns, 3.9 * rows), layout="constrained")
        FigureCanvasAgg(figure)
        places = figure.subplots(rows, columns, squeeze=False).flatten()
        for axes in places[len(panels) :]:
            axes.set_axis_off()
        for axes, panel in zip(places, panels, strict=False):
            _draw(panel, axes)
        figure.suptitle(title, fontsize="medium")
        for ending in ("png", "svg"):
            with folder.replacing(f"reproduction.{ending}") as path:
                figure.savefig(path, dpi=150, metadata={"Date": None} if ending == "svg" else None)
    return ()


def _draw(panel: Panel, axes: Axes) -> None:
    """A panel in its place."""
    from matplotlib.lines import Line2D
    from matplotlib.ticker import NullLocator

    legend = []
    for number, name in enumerate(dict.fromkeys([*panel.lines, *panel.points])):
        line, points = panel.lines.get(name, ()), panel.points.get(name, ())
        colour = COLOURS[number % len(COLOURS)]
        solid: dict[str, Any] = {"linestyle": STYLES[number % len(STYLES)], "linewidth": 1.6}
        dots: dict[str, Any] = {"marker": MARKERS[number % len(MARKERS)], "markersize": 4.5}
        dots["markerfacecolor"] = "white"
        if line:
            axes.plot([p[0] for p in line], [p[1] for p in line], color=colour, **solid)
        if points:
            x, y, low, high = zip(*points, strict=True)
            bars = [
                [middle - end for middle, end in zip(y, low, strict=True)],
                [end - middle for middle, end in zip(y, high, strict=True)],
            ]
            axes.errorbar(x, y, bars, color=colour, linestyle="none", capsize=2, **dots)
        look = (solid if line else {"linestyle": "none"}) | (dots if points else {})
        legend.append(Line2D([], [], color=colour, label=name, **look))
    for mark in panel.marks:
        axes.axvline(mark, color="0.6", linewidth=0.8)
    axes.set(title=panel.title, xlabel=panel.x, ylabel=panel.y)
    shown = [point[0] for part in (panel.lines, panel.points) for p in part.values() for point in p]
    positive = all(x > 0 for x in shown)
    axes.set_xscale(("log" if positive else "symlog") if panel.log_x else "linear")
    if panel.ticks:
        axes.set_xticks(panel.ticks, [f"{tick:g}" for tick in panel.ticks])
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_yscale("log" if panel.log_y else "linear")
    if panel.floor is not None:
        axes.set_ylim(bottom=max(panel.floor, axes.get_ylim()[0]))
    below: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16), "ncols": 2}
    place = below if panel.legend_below else {}
    axes.legend(handles=legend, frameon=False, fontsize="small", handlelength=3, **place)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
