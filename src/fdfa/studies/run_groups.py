"""Runs of the same rule, told apart by nothing but their seeds; and what runs must share."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fdfa.errors import ConfigError
from fdfa.studies.json_values import plain
from fdfa.studies.resume import read_config
from fdfa.studies.run_folder import RunFolder
from fdfa.studies.setup import TrainConfig

__all__ = ["StoredRun", "rules_of", "stored_runs"]


@dataclasses.dataclass(frozen=True)
class StoredRun:
    """A run that lies in a folder.

    Attributes:
        folder: of the run.
        config: what was trained.
        data_sha256: checksum of its data; None if its configuration was written by hand.
        named: whether the user named it, and not the comparison that it is part of.
    """

    folder: RunFolder
    config: TrainConfig
    data_sha256: str | None
    named: bool


def stored_runs(paths: Sequence[str | Path]) -> tuple[StoredRun, ...]:
    """The runs in some folders: of a training the one, of a comparison all of its runs.

    Args:
        paths: folders, or their config.json.

    Returns:
        The runs, each once.

    Raises:
        ConfigError: if a folder holds no run, or the runs learned different data.
    """
    found: dict[Path, StoredRun] = {}
    for path in paths:
        config, environment = read_config(path)
        folder = RunFolder(path if Path(path).is_dir() else Path(path).parent)
        if isinstance(config, TrainConfig):
            run = StoredRun(folder, config, environment.get("data_sha256"), named=True)
            found.setdefault(folder.path.resolve(), run)
            continue
        inside = folder.runs()
        if not inside:
            raise ConfigError(
                f"run: comparison '{folder.path}' has no runs yet: go on with it (fdfa resume "
                f"{folder.path})."
            )
        for own in inside:
            its, around = read_config(own.path)
            if isinstance(its, TrainConfig):
                run = StoredRun(own, its, around.get("data_sha256"), named=False)
                found.setdefault(own.path.resolve(), run)
    runs = tuple(found.values())
    _check_same_data(runs)
    return runs


def rules_of(runs: Sequence[StoredRun]) -> dict[str, tuple[StoredRun, ...]]:
    """Runs that differ in their seeds alone, together.

    Args:
        runs: any.

    Returns:
        By the method's name; where several would have the same, by that and the folder's name.
    """
    groups: dict[str, list[StoredRun]] = {}
    for run in runs:
        groups.setdefault(repr(_but_for_the_seed(run.config)), []).append(run)
    methods = [group[0].config.method for group in groups.values()]
    rules = {}
    for group in groups.values():
        label = method = group[0].config.method
        if methods.count(method) > 1:
            label = f"{method} ({group[0].folder.path.resolve().name})"
            if label in rules:  # folders of the same name in different places
                label = f"{method} ({group[0].folder.path})"
        rules[label] = tuple(sorted(group, key=lambda run: run.config.seed))
    return rules


def _but_for_the_seed(config: TrainConfig) -> Any:
    content = plain(config)
    return [content[name] for name in ("method", "options", "task", "training")]


def _check_same_data(runs: Sequence[StoredRun]) -> None:
    first = runs[0]
    for run in runs[1:]:
        if (run.config.task.data, run.data_sha256) != (first.config.task.data, first.data_sha256):
            raise ConfigError(
                f"runs on different data: '{first.folder.path}' learned {_data(first)}, and "
                f"'{run.folder.path}' {_data(run)}. Name runs on the same data."
            )


def _data(run: StoredRun) -> str:
    known = "of unknown checksum" if run.data_sha256 is None else f"SHA-256 {run.data_sha256[:12]}"
    return f"{run.config.task.data} ({known})"
