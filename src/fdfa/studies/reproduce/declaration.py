"""A study is one TOML file: a table of trainings, or a measurement that a module makes."""

from __future__ import annotations

import dataclasses
import itertools
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from fdfa.errors import ConfigError, briefly, unknown_name
from fdfa.studies.records import from_json
from fdfa.studies.setup import Diagnose
from fdfa.studies.task import Task
from fdfa.studies.whole_numbers import check_whole

__all__ = [
    "BudgetStep",
    "CostsAsked",
    "DeclaredTarget",
    "Measurement",
    "PublishedNumber",
    "RuleRow",
    "TaskColumn",
    "TrainingTable",
    "read_declaration",
]

_NAME = re.compile(r"[a-z0-9]+([.-][a-z0-9]+)*")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskColumn(Task):
    """A column of a table: what is learned, and by which network.

    Attributes:
        name: in the names of the runs.
        label: above the column.
        training: settings of this task, over those of the study.

    Raises:
        ConfigError: if the name is none.

    Example:
        >>> TaskColumn(name="mnist", label="MNIST", data="mnist").validation is None
        True
    """

    name: str
    label: str
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the name, and what a task checks."""
        super().__post_init__()
        _check_name(self.name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RuleRow:
    """A row of a table: a method with its options.

    Attributes:
        name: in the names of the runs.
        label: before the row.
        method: as `fdfa methods` lists them.
        options: of the method.
        training: settings of this rule, over those of task and study.
        model_options: of this rule, over those of the task.
        tasks: names of the only ones that it learns; None for all.
        seeds: runs of each of its cells, where it is to have fewer than the others.

    Raises:
        ConfigError: if the name is none, or the seeds are.

    Example:
        >>> RuleRow(name="fdfa", label="FDFA", method="fdfa").tasks is None
        True
    """

    name: str
    label: str
    method: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    model_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    tasks: tuple[str, ...] | None = None
    seeds: int | None = None

    def __post_init__(self) -> None:
        """Check name and seeds; method and options are looked up when they are needed."""
        _check_name(self.name)
        check_whole("seeds", self.seeds, least=1, optional=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedNumber:
    """A number that stands in a paper, or that its authors' code printed.

    Attributes:
        rule: name of its row.
        task: name of its column.
        value: in percent, of the table's score.
        source: where it stands.
        tag: paper or code. What nobody has read there does not belong into a table.
        deviation: over its runs, if it stands there too.

    Example:
        >>> PublishedNumber(
        ...     rule="dfa", task="mnist", value=1.45, source="arXiv:1609.01596", tag="paper"
        ... ).deviation is None
        True
    """

    rule: str
    task: str
    value: float
    source: str
    tag: Literal["code", "paper"]
    deviation: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeclaredTarget:
    """How far one rule may lie behind another, on the means over the seeds.

    Attributes:
        rule: name of the row that is judged.
        against: name of the row beside which it is.
        task: name of the column.
        within: percentage points; or spread: the two standard deviations, as one.
        step_time: times backpropagation's, that a step may take; None for any.
        layers: that the longest backward path may have; None for any.

    Raises:
        ConfigError: if the points are negative.

    Example:
        >>> DeclaredTarget(rule="fdfa", against="bp", task="mnist", within=0.7).within
        0.7
    """

    rule: str
    against: str
    task: str
    within: float | Literal["spread"]
    step_time: float | None = None
    layers: int | None = None

    def __post_init__(self) -> None:
        """Check the points."""
        if not isinstance(self.within, str) and not self.within >= 0:
            raise ConfigError(
                f"within={self.within!r} is not possible. Give percentage points from 0, or spread."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CostsAsked:
    """That the time of a step is measured too, and the longest backward path.

    Attributes:
        rounds: in which every rule takes its turn, at least.

    Raises:
        ConfigError: if there are fewer than 10.

    Example:
        >>> CostsAsked().rounds
        20
    """

    rounds: int = 20

    def __post_init__(self) -> None:
        """Check the number."""
        check_whole("rounds", self.rounds, least=10)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingTable:
    """A study that trains every rule on every task, from several seeds.

    Attributes:
        summary: one line.
        source: the paper.
        seeds: runs of each cell.
        task: the columns.
        rule: the rows.
        score: what a cell shows: the accuracy on the test examples after the last epoch in percent,
            or the error.
        differences: from the published set-up, a sentence each.
        training: settings of all runs.
        diagnose: for curves of the angle to the exact gradient; None for none.
        published: numbers that stand beside ours.
        target: what is judged.
        costs: whether times of steps are measured too; None for no.

    Raises:
        ConfigError: if a name is unknown, or comes twice.
    """

    summary: str
    source: str
    seeds: int
    task: tuple[TaskColumn, ...]
    rule: tuple[RuleRow, ...]
    score: Literal["accuracy", "error"] = "accuracy"
    differences: tuple[str, ...] = ()
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    diagnose: Diagnose | None = None
    published: tuple[PublishedNumber, ...] = ()
    target: tuple[DeclaredTarget, ...] = ()
    costs: CostsAsked | None = None

    def __post_init__(self) -> None:
        """Check every name that stands for another part of the file."""
        check_whole("seeds", self.seeds, least=1, most=10_000)
        tasks, rules = [each.name for each in self.task], [each.name for each in self.rule]
        for what, names in (("task", tasks), ("rule", rules)):
            if not names:
                raise ConfigError(f"{what}: a table needs one at least. Add [[{what}]].")
            _once(what, names, "Give each a name of its own.")
        for row in self.rule:
            for task in row.tasks or ():
                _known(f"rule {row.name!r}: tasks", "task", task, tasks)
            if self.seeds_of(row) < (row.seeds or 0):
                raise ConfigError(
                    f"rule {row.name!r}: seeds={row.seeds} are more than the study's {self.seeds}, "
                    "which no rule exceeds. Raise those, and give the other rules fewer."
                )
        for part, entries in (("published", self.published), ("target", self.target)):
            for entry in entries:
                _known(part, "task", entry.task, tasks)
                _known(part, "rule", entry.rule, rules)
        for target in self.target:
            _known("target", "rule", target.against, rules)
            self._check_spread(target)
            costly = target.step_time is not None or target.layers is not None
            if costly and self.costs is None:
                raise ConfigError(
                    f"target: {target.rule!r} on {target.task!r} has a limit of step_time or "
                    "layers, and none is measured. Add [costs]."
                )
        cells = {(column.name, row.name) for column, row in self.cells()}
        for part, task, rule in (
            *(("published", entry.task, entry.rule) for entry in self.published),
            *(("target", entry.task, entry.rule) for entry in self.target),
            *(("target", entry.task, entry.against) for entry in self.target),
        ):
            if (task, rule) not in cells:
                raise ConfigError(
                    f"{part}: rule {rule!r} does not learn task {task!r}, and nothing would stand "
                    "there. Name another cell, or add the task to the rule's."
                )
        pairs = [f"{entry.task}, {entry.rule}" for entry in self.published]
        _once("published", pairs, "A cell has room for one: keep the nearest set-up's.")
        for first, second in itertools.combinations(self.cells(), 2):
            if f"{first[0].name}-{first[1].name}" == f"{second[0].name}-{second[1].name}":
                raise ConfigError(
                    f"runs of {first[1].name!r} on {first[0].name!r} and of {second[1].name!r} on "
                    f"{second[0].name!r} would have the same name. Give one of them another."
                )

    def _check_spread(self, target: DeclaredTarget) -> None:
        """One seed has none."""
        judged = [row for row in self.rule if row.name in (target.rule, target.against)]
        if target.within == "spread" and min(map(self.seeds_of, judged)) < 2:
            raise ConfigError(
                f"target: within='spread' for {target.rule!r} against {target.against!r}, one of "
                "which has a single seed and no spread. Give both two seeds at least, or "
                "percentage points."
            )

    def seeds_of(self, row: RuleRow) -> int:
        """Runs of each cell of a rule.

        Args:
            row: the rule.

        Returns:
            The study's number, or the rule's own where that is smaller.
        """
        return min(self.seeds, row.seeds or self.seeds)

    def cells(self) -> list[tuple[TaskColumn, RuleRow]]:
        """What is trained, task by task.

        Returns:
            Column and row of each cell.
        """
        return [
            (column, row)
            for column in self.task
            for row in self.rule
            if row.tasks is None or column.name in row.tasks
        ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BudgetStep:
    """Settings of a measurement, and how long they took.

    Attributes:
        minutes: that were measured.
        settings: of the measurement, where they are not its defaults.

    Example:
        >>> BudgetStep(minutes=3, settings={"seeds": 2}).minutes
        3
    """

    minutes: float
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """A study that a module of its own makes.

    Attributes:
        summary: one line.
        source: the paper.
        measured_by: module with ``measure(settings, units)``, whose settings are a record with the
            paper's as its defaults, and ``expectations``, ``grids`` and ``panels``.
        budget: smaller settings, from the quickest to the longest.
        differences: from the published set-up, a sentence each.
    """

    summary: str
    source: str
    measured_by: str
    budget: tuple[BudgetStep, ...] = ()
    differences: tuple[str, ...] = ()


def read_declaration(path: Path) -> TrainingTable | Measurement:
    """The study that a TOML file declares.

    Args:
        path: of the file.

    Returns:
        What stands in it.

    Raises:
        ConfigError: if it cannot be read, a key is unknown or missing, or a value is not of its
            type; naming file and place.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} cannot be read ({briefly(error)}). Name a TOML file that declares a study."
        ) from error
    if "measured_by" in content:
        return from_json(Measurement, content, where=str(path))
    return from_json(TrainingTable, content, where=str(path))


def _check_name(name: str) -> None:
    """Names are parts of paths."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"name {name!r} is not possible. Give small letters and digits, with hyphens or dots "
            "between."
        )


def _once(what: str, names: Sequence[str], remedy: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{what}: {name!r} stands there twice. {remedy}")


def _known(where: str, kind: str, name: str, valid: Iterable[str]) -> None:
    if name not in valid:
        raise ConfigError(f"{where}: {unknown_name(kind, name, list(valid))}")
