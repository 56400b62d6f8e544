"""Curves of a table: how the rules learn, and how far their gradients are from the exact one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from fdfa.studies.diagnosis_curves import band_of, read_diagnoses
from fdfa.studies.reproduce.declaration import TrainingTable
from fdfa.studies.reproduce.pictures import Panel
from fdfa.studies.reproduce.planned_runs import PlannedRun
from fdfa.studies.reproduce.step_costs import Costs
from fdfa.studies.reproduce.table_findings import Cells
from fdfa.studies.run_folder import RunFolder
from fdfa.studies.runs import Run

__all__ = ["path_panels", "table_panels"]

_EVERY_EPOCH = 10  # has a number on its axis, if there are no more
Made = Sequence[tuple[PlannedRun, Run]]
Curves = Mapping[str, Sequence[tuple[float, float]]]


def table_panels(
    table: TrainingTable, made: Made, folder_of: Callable[[PlannedRun], RunFolder]
) -> list[Panel]:
    """A panel of accuracies a task, and one of angles where they were measured.

    Args:
        table: as declared.
        made: its runs.
        folder_of: where a run lies.

    Returns:
        The panels; a line is the mean over the seeds.
    """
    panels = []
    for column in table.task:
        mine = [(planned, run) for planned, run in made if planned.column.name == column.name]
        if lines := _means(table, mine, lambda _, run: _accuracies(run)):
            validated = any(epoch.validation for _, run in mine for epoch in run.epochs)
            part = "validation" if validated else "training"
            panels.append(_panel(column.label, "epoch", f"{part} accuracy (%)", lines))
        if lines := _means(table, mine, lambda planned, _: _angles(folder_of(planned))):
            axis = "angle of the first layer's gradient (°)"
            panels.append(_panel(column.label, "step", axis, lines))
    return panels


def path_panels(table: TrainingTable, cells: Cells, costs: Costs) -> list[Panel]:
    """What a longer backward path brings, and what it costs.

    Args:
        table: as declared.
        cells: its results.
        costs: of a step, by task and rule.

    Returns:
        For each task a panel of the score, with the spread over the seeds, and one of the times.
    """
    panels = []
    for column in table.task:
        scores, times = {}, {}
        for row in table.rule:
            cost = costs.get(column.name, {}).get(row.name)
            cell = cells.get((column.name, row.name))
            if cost is None or cell is None or cell.spread is None:
                continue
            x, mean, deviation = cost.weight_layers, cell.spread.mean, cell.spread.deviation or 0.0
            scores[row.label] = [(x, mean, mean - deviation, mean + deviation)]
            times[row.label] = [(x, cost.ratio, cost.ratio, cost.ratio)]
        ticks = sorted({point[0] for points in scores.values() for point in points})
        for axis, points in (
            (f"test {table.score} (%)", scores),
            ("time of a step, x backpropagation", times),
        ):
            if points:
                x_axis = "weight layers on the longest backward path"
                panels.append(
                    Panel(
                        column.label,
                        x_axis,
                        axis,
                        {},
                        points=points,
                        ticks=tuple(ticks),
                        legend_below=True,
                    )
                )
    return panels


def _panel(title: str, x: str, y: str, lines: Curves) -> Panel:
    longest = max(point[0] for line in lines.values() for point in line)
    ticks = tuple(range(1, int(longest) + 1)) if x == "epoch" and longest <= _EVERY_EPOCH else ()
    return Panel(title, x, y, lines, ticks=ticks, legend_below=True)


def _means(
    table: TrainingTable, made: Made, curve: Callable[[PlannedRun, Run], Mapping[int, float]]
) -> Curves:
    """Mean curve of each rule, as far as all its seeds go: one that failed is not left out."""
    lines = {}
    for row in table.rule:
        mine = [each for each in made if each[0].row.name == row.name]
        curves = [found for each in mine if (found := curve(*each)) or each[1].failure is not None]
        band = band_of(curves)
        points = [
            (step, value)
            for step, value in zip(band.steps, band.mean, strict=True)
            if math.isfinite(value) and all(step in each for each in curves)
        ]
        if points:
            lines[row.label] = points
    return lines


def _accuracies(run: Run) -> dict[int, float]:
    return {epoch.epoch: 100 * (epoch.validation or epoch.train).accuracy for epoch in run.epochs}


def _angles(folder: RunFolder) -> dict[int, float]:
    """Of the first layer, the farthest from the output."""
    found = read_diagnoses(folder)
    if found is None or not (names := found.names("parameters")):
        return {}
    return found.curve("parameters", names[0], lambda of: of.get("angle", math.nan))
