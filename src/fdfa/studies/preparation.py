"""What every study does before it starts: the data, the network, the threads, the run folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from torch import nn

from fdfa.data.dataset import Dataset
from fdfa.studies.environment import environment
from fdfa.studies.run_folder import RunFolder
from fdfa.studies.task import Task, build_network, load_data
from fdfa.studies.threads import suitable_threads

__all__ = ["Prepared", "prepare"]


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A study that may start.

    Attributes:
        data: what is learned.
        network: with the weights of the first seed.
        threads: that suit it.
        out: the folder for the study's files; None where none are kept.
        overwrite: whether the files of an earlier run in it may be replaced.
    """

    data: Dataset
    network: nn.Module
    threads: int
    out: str | Path | None
    overwrite: bool

    def open_folder(self, **config: Any) -> RunFolder | None:
        """Make the folder, or clear it of an earlier run, and write ``config.json``.

        Args:
            **config: the configuration, under the name of the study.

        Returns:
            The folder; None where no files are kept.
        """
        if self.out is None:
            return None
        folder = RunFolder(self.out, overwrite=self.overwrite)
        folder.write_json("config.json", {**config, "environment": environment(self.data)})
        return folder


def prepare(
    task: Task,
    *,
    seed: int,
    threads: int | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
) -> Prepared:
    """Find whatever is wrong with a study that can be found before it starts; write nothing.

    Args:
        task: what is learned, and by which network.
        seed: of the network's weights.
        threads: that the user asked for; None for what suits the network.
        out: folder for the study's files.
        overwrite: whether the files of an earlier run in it may be replaced.

    Returns:
        Everything that the study needs.

    Raises:
        ConfigError: if a name or a value in the task is wrong, or ``out`` is not empty.

    Example:
        >>> prepare(Task(model_options={"width": 8}), seed=0).threads
        1
    """
    data = load_data(task)
    if out is not None:
        RunFolder.check(out, overwrite=overwrite)
    network = build_network(task, data, seed=seed)
    return Prepared(data, network, suitable_threads(threads, network), out, overwrite)
