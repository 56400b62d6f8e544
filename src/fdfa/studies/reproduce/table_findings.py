"""What the runs of a table come to: cells with their spread, beside what was published."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from fdfa.studies.reproduce.declaration import DeclaredTarget, PublishedNumber, TrainingTable
from fdfa.studies.reproduce.findings import Expectation, Grid
from fdfa.studies.reproduce.planned_runs import PlannedRun
from fdfa.studies.reproduce.step_costs import Costs
from fdfa.studies.results import Spread
from fdfa.studies.runs import Run

__all__ = [
    "Cell",
    "Cells",
    "cells_of",
    "grid_of",
    "run_units",
    "target_expectations",
    "validation_grid",
]


@dataclasses.dataclass(frozen=True)
class Cell:
    """The runs of a rule on a task.

    Attributes:
        values: of the finished runs, in percent.
        failed: runs that did not go to their end: there is no mean then.
    """

    values: tuple[float, ...]
    failed: int

    @property
    def spread(self) -> Spread | None:
        """Mean and deviation; None if a run failed."""
        return None if self.failed or not self.values else Spread.of(self.values)

    @property
    def words(self) -> str:
        """For a table.

        Example:
            >>> Cell((98.0, 99.0), 0).words
            '98.50 ± 0.71 (2)'
            >>> Cell((98.0, 99.0), 1).words
            '1 of 3 failed'
        """
        if (spread := self.spread) is None:
            return f"{self.failed} of {self.failed + len(self.values)} failed"
        deviation = "" if spread.deviation is None else f" ± {spread.deviation:.2f}"
        return f"{spread.mean:.2f}{deviation} ({len(self.values)})"


_TARGET = "the target of this study"
Cells = Mapping[tuple[str, str], Cell]


def value_of(run: Run, score: str) -> float | None:
    """What a run has to show, in percent; None if it failed."""
    if run.test is None:
        return None
    accuracy = 100 * run.test.accuracy
    return accuracy if score == "accuracy" else 100 - accuracy


def _validation(run: Run) -> float | None:
    """Accuracy on the validation examples after the last epoch, in percent; None without any."""
    last = run.epochs[-1].validation if run.epochs else None
    return None if run.failure is not None or last is None else 100 * last.accuracy


def run_units(
    table: TrainingTable, runs: Sequence[tuple[PlannedRun, Run]]
) -> dict[str, dict[str, Any]]:
    """Every run for ``results.json``.

    Args:
        table: says which score counts.
        runs: finished or failed.

    Returns:
        By the run's name: its value, and why it failed.
    """
    return {
        planned.name: {
            "task": planned.column.name,
            "rule": planned.row.name,
            "seed": run.seed,
            table.score: value_of(run, table.score),
            "validation": _validation(run),
            "failure": run.failure,
            "epochs": len(run.epochs),
            "seconds": sum(epoch.seconds for epoch in run.epochs),
        }
        for planned, run in runs
    }


def cells_of(
    table: TrainingTable, runs: Sequence[tuple[PlannedRun, Run]], *, validation: bool = False
) -> Cells:
    """The runs cell by cell.

    Args:
        table: says which score counts.
        runs: finished or failed.
        validation: the accuracy on the validation examples instead, of the tasks that have some.

    Returns:
        By task and rule.
    """
    values: dict[tuple[str, str], list[float | None]] = {}
    for planned, run in runs:
        if validation and planned.config.task.validation == 0:
            continue
        key = planned.column.name, planned.row.name
        value = _validation(run) if validation else value_of(run, table.score)
        values.setdefault(key, []).append(value)
    return {
        key: Cell(tuple(v for v in found if v is not None), found.count(None))
        for key, found in values.items()
    }


def grid_of(table: TrainingTable, cells: Cells, *, epochs: str, words: str = "") -> Grid:
    """The table: a row a rule, a column a task, another where numbers were published.

    Args:
        table: as declared.
        cells: that were made.
        epochs: of the runs, in words.
        words: how it was scaled down; none if it was not.

    Returns:
        It, with numbers in the papers' footnotes.
    """
    columns = [column for column in table.task if any(key[0] == column.name for key in cells)]
    rows = [row for row in table.rule if any(key[1] == row.name for key in cells)]
    published = {(entry.task, entry.rule): entry for entry in table.published}
    sources = sources_of(table, cells)
    beside = {task for task, _ in published}
    heads, body = [""], []
    for column in columns:
        heads += [column.label, "published"] if column.name in beside else [column.label]
    for row in rows:
        entries = [row.label]
        for column in columns:
            key = column.name, row.name
            entries.append(cells[key].words if key in cells else "")
            if column.name in beside:
                entries.append(_published(published.get(key), sources))
        body.append(entries)
    kind = "accuracy" if table.score == "accuracy" else "error"
    title = f"Test {kind} in % after {epochs}: mean ± standard deviation (runs)"
    title = f"{title}; {words}" if words else title
    return Grid(title, tuple(heads), tuple(tuple(entries) for entries in body))


def validation_grid(table: TrainingTable, cells: Cells) -> tuple[Grid, ...]:
    """What settings are chosen by: accuracies on validation examples, where there are some.

    Args:
        table: as declared.
        cells: of these accuracies.

    Returns:
        A table; none without such cells.
    """
    if not cells:
        return ()
    columns = [column for column in table.task if any(key[0] == column.name for key in cells)]
    rows = [row for row in table.rule if any(key[1] == row.name for key in cells)]
    body = [
        (
            row.label,
            *(cells[key].words if (key := (c.name, row.name)) in cells else "" for c in columns),
        )
        for row in rows
    ]
    title = "Validation accuracy in % after the last epoch, by which rules are chosen"
    return (Grid(title, ("", *(column.label for column in columns)), tuple(body)),)


def sources_of(table: TrainingTable, cells: Cells) -> list[str]:
    """Where the published numbers of the table stand.

    Args:
        table: as declared.
        cells: that were made.

    Returns:
        Each source once, as its footnote has it.
    """
    tasks, rules = {task for task, _ in cells}, {rule for _, rule in cells}
    shown = [entry for entry in table.published if entry.task in tasks and entry.rule in rules]
    return list(dict.fromkeys(map(_source, shown)))


def _source(entry: PublishedNumber) -> str:
    tags = {"paper": "in the paper", "code": "in its authors' code"}
    return f"{entry.source} ({tags[entry.tag]})"


def _published(entry: PublishedNumber | None, sources: Sequence[str]) -> str:
    """With its footnote; empty where nobody has read a number."""
    if entry is None:
        return ""
    mark = sources.index(_source(entry)) + 1
    deviation = "" if entry.deviation is None else f" ± {entry.deviation:g}"
    return f"{entry.value:g}{deviation} [{mark}]"


def target_expectations(
    table: TrainingTable, cells: Cells, costs: Costs, *, whole: bool
) -> tuple[Expectation, ...]:
    """How far rules lie behind others, beside how far they may.

    Args:
        table: has the targets.
        cells: that were made; a target on others is left out.
        costs: of a step, for targets that limit them.
        whole: whether epochs and seeds are as declared: else nothing is judged.

    Returns:
        Expectations of each target: percentage points, then what a step costs.
    """
    labels = {row.name: row.label for row in table.rule}
    tasks = {column.name: column.label for column in table.task}
    found = []
    for target in table.target:
        mine = cells.get((target.task, target.rule))
        other = cells.get((target.task, target.against))
        if mine is None or other is None:
            continue
        behind, most = _behind(table, target, mine, other)
        who = f"{tasks[target.task]}, {labels[target.rule]}"
        what = f"{who}: points behind {labels[target.against]}"
        why = "the seeds' spread" if target.within == "spread" else _TARGET
        found.append(Expectation(what, -math.inf, most, behind, whole, why))
        cost = costs.get(target.task, {}).get(target.rule)
        if cost is not None:
            found += [
                Expectation(f"{who}: {of}", -math.inf, limit, measured, whole, _TARGET)
                for of, limit, measured in (
                    ("time of a step, x backpropagation", target.step_time, cost.ratio),
                    ("layers of the longest backward path", target.layers, cost.weight_layers),
                )
                if limit is not None
            ]
    return tuple(found)


def _behind(
    table: TrainingTable, target: DeclaredTarget, mine: Cell, other: Cell
) -> tuple[float, float]:
    """How far, and how far at most; not a number where a run failed."""
    if mine.spread is None or other.spread is None:
        return math.nan, math.nan if isinstance(target.within, str) else target.within
    sign = 1 if table.score == "accuracy" else -1
    behind = sign * (other.spread.mean - mine.spread.mean)
    if not isinstance(target.within, str):
        return behind, target.within
    deviations = mine.spread.deviation, other.spread.deviation
    # A single seed has no spread; who asked for so few is not judged.
    return behind, math.hypot(*(math.nan if one is None else one for one in deviations))
