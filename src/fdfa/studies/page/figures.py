"""Charts as figures of plotly, which draws them in the reader's browser."""

from __future__ import annotations

import html
import importlib.util
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

from fdfa.errors import ConfigError
from fdfa.studies.page.curves import Chart, Curve, Point
from fdfa.studies.plots import COLOURS, STYLES

__all__ = ["check_plotly", "figure_of", "plotly_source"]

_MARKERS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "star")
_MOST_MARKED = 40  # points of a curve; more would run into one another
_MOST_COUNTED = 12  # epochs; of more, not each has its number
_WIDTH = 2


def check_plotly() -> None:
    """Refuse to begin without the library that draws.

    Raises:
        ConfigError: if plotly is not installed.
    """
    if importlib.util.find_spec("plotly") is None:
        raise ConfigError(
            "a report needs plotly, which draws its figures and is not installed. Install it: "
            "pip install 'fdfa[report]'."
        )


def plotly_source() -> str:
    """The JavaScript that draws, whole.

    Returns:
        For a script element of the page.
    """
    from plotly.offline import get_plotlyjs

    source: str = get_plotlyjs()
    return source


def figure_of(chart: Chart, names: Sequence[str]) -> dict[str, Any]:
    """A chart as the browser needs it; colours of text and ground are the page's affair.

    Args:
        chart: what is to be drawn.
        names: of the contestants.

    Returns:
        ``data`` and ``layout``; each trace's ``meta`` is the place of its contestant.
    """
    from plotly import graph_objects as go

    figure = go.Figure()
    for curve in chart.curves:
        band = _band(curve)
        if band["x"]:
            colour = COLOURS[curve.contestant % len(COLOURS)]
            figure.add_scatter(
                **band,
                mode="none",
                fill="toself",
                fillcolor=colour,
                opacity=0.15,
                hoverinfo="skip",
                showlegend=False,
                meta=curve.contestant,
            )
    for curve in chart.curves:  # lines lie above all bands
        figure.add_scatter(**_line(chart, curve, _as_it_is(names[curve.contestant])))
    figure.update_layout(
        template="none",
        margin={"l": 64, "r": 12, "t": 12, "b": 56},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        dragmode=False,  # a finger that moves over a figure moves the page
        hovermode="closest",
        showlegend=True,
        legend={
            "orientation": "h",
            "y": -0.22,
            "yanchor": "top",
            "x": 0,
            "maxheight": 10_000,  # pixels: the page makes room for all of it
            "itemclick": False,  # one switch a contestant, for all figures, above them
            "itemdoubleclick": False,
        },
    )
    figure.update_xaxes(title={"text": chart.x, "standoff": 6}, automargin=True, zeroline=False)
    figure.update_yaxes(title={"text": chart.y, "standoff": 6}, automargin=True, zeroline=False)
    if chart.named:
        # With room for half a name at either side: a margin that grew for it would move the legend.
        count = len({point.x for curve in chart.curves for point in curve.points})
        figure.update_xaxes(type="category", range=[-0.5, count - 0.5])
    elif chart.x == "epoch":
        last = max(float(point.x) for curve in chart.curves for point in curve.points)
        figure.update_xaxes(tickformat="d", dtick=1 if last <= _MOST_COUNTED else None)
    elif chart.x == "optimiser step":
        figure.update_xaxes(rangemode="tozero")
    if chart.logarithmic:
        figure.update_yaxes(type="log", tickformat="~g", nticks=6)  # 0.2 in full, not 2
    content: dict[str, Any] = json.loads(figure.to_json())
    return content


def _line(chart: Chart, curve: Curve, name: str) -> dict[str, Any]:
    place, points = curve.contestant, curve.points
    marked = len(points) <= _MOST_MARKED
    form = f".{chart.digits}f"
    return {
        "x": [_x(point) for point in points],
        "y": [point.mean if point.known else None for point in points],
        "name": name,
        "meta": place,
        "mode": "lines+markers" if marked else "lines",
        "line": {"color": COLOURS[place % len(COLOURS)], "dash": _dash(place), "width": _WIDTH},
        "marker": {"symbol": _MARKERS[place % len(_MARKERS)], "size": 6},
        "customdata": [_told(point, form) for point in points],
        "hovertemplate": (
            f"%{{fullData.name}}<br>{chart.x}: %{{x}}<br>%{{y:{form}}}%{{customdata}}"
            "<extra></extra>"
        ),
        "connectgaps": False,
    }


def _as_it_is(text: str) -> str:
    """Plotly reads HTML and templates in names: neither shall be found in this one."""
    return html.escape(text).replace("%{", "%&#123;")


def _x(point: Point) -> float | str:
    return _as_it_is(point.x) if isinstance(point.x, str) else point.x


def _told(point: Point, form: str) -> str:
    if len(point.values) < 2 or not point.known:
        return ""
    return f" ({point.lowest:{form}} to {point.highest:{form}}, n = {len(point.values)})"


def _band(curve: Curve) -> dict[str, list[Any]]:
    """Outlines from the lowest to the highest: one for each stretch without a gap."""
    x: list[Any] = []
    y: list[Any] = []
    for stretch in _stretches(curve.points):
        if any(len(point.values) > 1 for point in stretch):
            there = [_x(point) for point in stretch]
            x += [*there, *reversed(there), None]
            y += [point.highest for point in stretch]
            y += [*(point.lowest for point in reversed(stretch)), None]
    return {"x": x, "y": y}


def _stretches(points: Sequence[Point]) -> Iterator[list[Point]]:
    stretch: list[Point] = []
    for point in points:
        if math.isfinite(point.mean):
            stretch.append(point)
        elif stretch:
            yield stretch
            stretch = []
    if stretch:
        yield stretch


def _dash(contestant: int) -> str:
    """A line style of matplotlib, whose dashes are multiples of the width, as plotly writes it."""
    style = STYLES[contestant % len(STYLES)]
    if isinstance(style, str):
        return style
    return ",".join(f"{_WIDTH * part:g}px" for part in style[1])
