"""A run in a folder of its own: finished ones are read, others gone on with or made."""

from __future__ import annotations

import contextlib
import dataclasses
import time

from fdfa.errors import CheckpointError
from fdfa.studies.resume import read_config
from fdfa.studies.run_folder import RunFolder
from fdfa.studies.runs import Run, StudyObserver, recall
from fdfa.studies.same_run import check_same_run
from fdfa.studies.setup import TrainConfig
from fdfa.studies.train import continue_training, train
from fdfa.training.lock import run_lock

__all__ = ["kept_run"]

_PATIENCE = 60.0  # seconds that a killed study's process may still write at its last checkpoint


def kept_run(folder: RunFolder, config: TrainConfig, *, observer: StudyObserver) -> Run:
    """The run of a folder: read if it is finished, else trained to its end.

    Whatever a step raises ends the run as failed, so that a study goes on with its others.

    Args:
        folder: of the run.
        config: of the run, with every default in place.
        observer: is told of the progress.

    Returns:
        The run.

    Raises:
        ConfigError: if another run lies there.
        CheckpointError: if another process trains there, or a checkpoint is damaged.
        TrainingInterrupted: after Ctrl-C, with a checkpoint written.
    """
    if folder.path.exists():
        _wait_until_free(folder)
    check_same_run(folder, config, study="study")
    if (finished := recall(folder)) is not None:
        return finished
    if folder.study() is None:
        return train(config, out=folder.path, observer=observer, failures=Exception).run
    begun, environment = read_config(folder.path)
    here = dataclasses.replace(begun.task, data_dir=config.task.data_dir)
    return continue_training(
        folder,
        dataclasses.replace(config, records=begun.records, task=here),
        environment=environment,
        observer=observer,
        failures=Exception,
    ).run


def _wait_until_free(folder: RunFolder) -> None:
    """Of a killed study a process may be about to end; who trains there on is complained of."""
    limit = time.monotonic() + _PATIENCE
    while time.monotonic() < limit:
        with contextlib.suppress(CheckpointError), run_lock(folder.path):
            return
        time.sleep(0.1)
