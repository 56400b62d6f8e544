"""The runs of a table: each a configuration as ``fdfa train`` takes it, with a name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from fdfa.errors import ConfigError, unknown_name
from fdfa.studies.records import from_json
from fdfa.studies.reproduce.declaration import RuleRow, TaskColumn, TrainingTable
from fdfa.studies.saved_options import with_typed_options
from fdfa.studies.setup import Machine, Records, TrainConfig
from fdfa.studies.task import Task
from fdfa.studies.train import spelled_out
from fdfa.studies.whole_numbers import check_whole
from fdfa.training import TrainingSettings

__all__ = ["PlannedRun", "TableSettings", "chosen_cells", "planned_runs"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableSettings:
    """Which part of a table of trainings is made, and by how many processes.

    Attributes:
        tasks: names of columns; default: all.
        rules: names of rows; default: all.
        epochs: of each run; default: as declared.
        seeds: runs of each cell; default: as declared.
        workers: processes that train at the same time, one thread each; default: as many as there
            are cores, on a GPU one.
        data_dir: folder with the data sets' files; default: $FDFA_DATA, then the cache, then a
            download.
        device: cpu, cuda, cuda:1, mps, or auto for the best that is there.
        retry_failed: make runs that failed once more.
        note: for whoever reads the report, such as where the data come from.

    Raises:
        ConfigError: if a number is out of range.

    Example:
        >>> TableSettings(seeds=3).tasks
        ()
    """

    tasks: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    epochs: int | None = None
    seeds: int | None = None
    workers: int | None = None
    data_dir: str | None = None
    device: str = "auto"
    retry_failed: bool = False
    note: str = ""

    def __post_init__(self) -> None:
        """Check every number; names are looked up in the study."""
        check_whole("epochs", self.epochs, least=1, optional=True)
        check_whole("seeds", self.seeds, least=1, most=10_000, optional=True)
        check_whole("workers", self.workers, least=1, most=1024, optional=True)


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """One run of a table.

    Attributes:
        column: what it learns.
        row: the rule.
        config: as `fdfa train` would be told.
    """

    column: TaskColumn
    row: RuleRow
    config: TrainConfig

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.column.name}-{self.row.name}-seed-{self.config.seed}"

    @property
    def title(self) -> str:
        """For the reader."""
        return f"{self.column.label}, {self.row.label}, seed {self.config.seed}"


def chosen_cells(table: TrainingTable, settings: TableSettings) -> list[tuple[TaskColumn, RuleRow]]:
    """The part of a table that was asked for.

    Args:
        table: as declared.
        settings: name columns and rows.

    Returns:
        Column and row of each cell, in the order of the table.

    Raises:
        ConfigError: if there is no such column or row, or no cell is left.
    """
    for kind, given, valid in (
        ("task", settings.tasks, [column.name for column in table.task]),
        ("rule", settings.rules, [row.name for row in table.rule]),
    ):
        for name in given:
            if name not in valid:
                raise ConfigError(f"{kind}s: {unknown_name(kind, name, valid)}")
    cells = [
        (column, row)
        for column, row in table.cells()
        if column.name in (settings.tasks or (column.name,))
        and row.name in (settings.rules or (row.name,))
    ]
    if not cells:
        raise ConfigError(
            f"none of the rules {', '.join(map(repr, settings.rules))} learns one of the tasks "
            f"{', '.join(map(repr, settings.tasks))} in this study. Name others, or leave one of "
            "both out."
        )
    return cells


def planned_runs(
    table: TrainingTable, settings: TableSettings, *, seeds: int, share: float = 1.0
) -> list[PlannedRun]:
    """Every run, the first seed of all cells first.

    Args:
        table: as declared.
        settings: which part of it, and where.
        seeds: of each cell.
        share: of the epochs that a budget has room for.

    Returns:
        The runs, each with every default of method and network in place.

    Raises:
        ConfigError: if a name or a value in the declaration is wrong; naming the cell.
    """
    cells = chosen_cells(table, settings)
    configs = [_config(table, column, row, settings, share) for column, row in cells]
    return [
        PlannedRun(*cell, dataclasses.replace(config, seed=seed))
        for seed in range(seeds)
        for cell, config in zip(cells, configs, strict=True)
        if cell[1].seeds is None or seed < cell[1].seeds
    ]


def _config(
    table: TrainingTable,
    column: TaskColumn,
    row: RuleRow,
    settings: TableSettings,
    share: float,
) -> TrainConfig:
    """What the runs of a cell have in common: the rule's words count before the task's."""
    where = f"run '{column.name}-{row.name}'"
    training = _over(table.training, column.training, row.training)
    if settings.epochs is not None:
        training["epochs"] = settings.epochs
    trained = from_json(TrainingSettings, training, where=f"{where}: training")
    epochs = max(1, int(share * trained.epochs + 1e-9))
    task = {field.name: getattr(column, field.name) for field in dataclasses.fields(Task)}
    task["model_options"] = _over(column.model_options, row.model_options)
    config = TrainConfig(
        task=Task(**{**task, "data_dir": settings.data_dir or column.data_dir}),
        training=dataclasses.replace(trained, epochs=epochs),
        records=Records(diagnose=table.diagnose),
        machine=Machine(threads=1, device=settings.device),
    )
    try:
        config = spelled_out(dataclasses.replace(config, method=row.method, options=row.options))
    except ConfigError as error:  # an unknown name: who refuses it does not know the file
        raise ConfigError(f"{where}: {error}") from error
    return with_typed_options(config, where=f"{where}: study")


def _over(*given: Mapping[str, Any]) -> dict[str, Any]:
    """The later ones count more."""
    return {name: value for each in given for name, value in each.items()}
