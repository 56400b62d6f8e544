"""Learning curves as a picture; matplotlib is imported only when one is drawn."""

from __future__ import annotations

import importlib.util
import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from fdfa.studies.run_folder import RunFolder
from fdfa.studies.runs import Run
from fdfa.training import Score

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "MARKERS", "STYLES", "learning_curves", "write_learning_curves"]

# The colours of Okabe & Ito, told apart by all kinds of colour vision; yellow is too light for a
# line. Line styles say the same once more, for a print in black and white.
COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
STYLES: tuple[str | tuple[int, tuple[float, ...]], ...] = (
    "solid",
    (0, (5, 2)),
    (0, (1, 1.4)),
    (0, (6, 2, 1, 2)),
    (0, (8, 2)),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

_LEGEND_INSIDE = 7
_LEGEND_COLUMNS = 5


def write_learning_curves(
    runs: Sequence[Run], folder: RunFolder, *, subject: str
) -> tuple[str, ...]:
    """Write ``learning_curves.png`` and ``.svg``.

    Args:
        runs: of any methods and seeds.
        folder: takes the files.
        subject: what was learned, for the title.

    Returns:
        Notes for the reader: why there is no picture, if there is none.
    """
    if importlib.util.find_spec("matplotlib") is None:
        return (
            "No picture of the learning curves: matplotlib is not installed. "
            "pip install 'fdfa[plots]' brings it.",
        )
    if not any(run.epochs for run in runs):
        return ("No picture of the learning curves: no epoch was finished.",)
    import matplotlib

    # Text stays text, and the same runs give the same bytes.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fdfa"}):
        figure = learning_curves(runs, subject=subject)
        for ending in ("png", "svg"):
            with folder.replacing(f"learning_curves.{ending}") as path:
                figure.savefig(path, dpi=150, metadata={"Date": None} if ending == "svg" else None)
    return ()


def learning_curves(runs: Sequence[Run], *, subject: str) -> Figure:
    """Validation accuracy and loss by epoch: a line a method, a band over its seeds.

    Args:
        runs: of any methods and seeds, with validation examples.
        subject: what was learned, for the title.

    Returns:
        A figure that no window shows.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, MaxNLocator, StrMethodFormatter

    runs = [run for run in runs if run.epochs]
    methods = list(dict.fromkeys(run.method for run in runs))
    # A legend of many lines stands below the picture, in rows.
    rows = math.ceil(len(methods) / _LEGEND_COLUMNS) if len(methods) > _LEGEND_INSIDE else 0
    figure = Figure(figsize=(9, 3.9 + 0.22 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    accuracy, loss = figure.subplots(1, 2)
    for number, method in enumerate(methods):
        mine = [run for run in runs if run.method == method]
        _draw(accuracy, number, method, mine, lambda score: 100 * score.accuracy)
        _draw(loss, number, method, mine, lambda score: score.loss)
    accuracy.set_ylabel("validation accuracy (%)")
    if rows:
        figure.legend(
            *accuracy.get_legend_handles_labels(),
            loc="outside lower center",
            ncols=_LEGEND_COLUMNS,
            frameon=False,
            handlelength=3,
        )
    else:
        accuracy.legend(frameon=False, loc="lower right", handlelength=3)
    loss.set_ylabel("validation loss (nats per example)")
    loss.set_yscale("log")
    loss.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    loss.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    loss.yaxis.set_minor_formatter("")
    for axes in (accuracy, loss):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    seeds = len({run.seed for run in runs})
    spread = f": mean of {seeds} seeds, bands from the lowest to the highest" if seeds > 1 else ""
    figure.suptitle(subject + spread, fontsize="medium")
    return figure


def _draw(
    axes: Axes,
    number: int,
    method: str,
    runs: Sequence[Run],
    value: Callable[[Score], float],
) -> None:
    """One method's mean and band, as far as any of its runs goes."""
    scores = [
        [result.validation for result in run.epochs if result.validation is not None]
        for run in runs
    ]
    columns = [
        [value(score) for score in at_epoch if score is not None]
        for at_epoch in itertools.zip_longest(*scores)
    ]
    epochs = range(1, len(columns) + 1)
    colour, style = COLOURS[number % len(COLOURS)], STYLES[number % len(STYLES)]
    axes.fill_between(
        epochs,
        [min(c) for c in columns],
        [max(c) for c in columns],
        color=colour,
        alpha=0.15,
        linewidth=0,
    )
    mean = [statistics.fmean(column) for column in columns]
    axes.plot(epochs, mean, color=colour, linestyle=style, linewidth=1.8, label=method)
