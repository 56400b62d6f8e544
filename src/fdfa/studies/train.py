"""One method on one task: train, measure, and keep a record."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fdfa.errors import ConfigError, FDFAError
from fdfa.studies.learners import make_learner
from fdfa.studies.options import resolved_options, seeded
from fdfa.studies.plots import write_learning_curves
from fdfa.studies.preparation import Prepared, prepared
from fdfa.studies.run_folder import RunFolder
from fdfa.studies.runs import Run, StudyObserver, perform
from fdfa.studies.setup import TrainConfig
from fdfa.studies.sinks import check_records
from fdfa.studies.task import resolved
from fdfa.studies.trial_step import rehearse
from fdfa.training import Processes

__all__ = ["TrainConfig", "TrainReport", "continue_training", "train"]


@dataclasses.dataclass(frozen=True)
class TrainReport:
    """What came of a training.

    Attributes:
        run: its epochs, the test, the angles to the exact gradient.
        parameters: number of the network's parameters.
        files: that were written.
        notes: what a reader should know besides.
    """

    run: Run
    parameters: int
    files: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    def report(self) -> dict[str, Any]:
        """The content of ``results.json``: everything but the epochs, which are in the metrics.

        Returns:
            Plain values that JSON can hold.
        """
        return {"parameters": self.parameters, "run": self.run.report()}


def train(
    config: TrainConfig,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    observer: StudyObserver | None = None,
    failures: type[Exception] = FDFAError,
) -> TrainReport:
    """Train one network by one method; look at the test examples once, at the end.

    Args:
        config: what to train.
        out: folder of the run: ``config.json``, ``metrics.jsonl``, checkpoints, the trained
            ``model.safetensors``, ``results.json`` and learning curves.
        overwrite: whether the files of an earlier run in it may be replaced.
        observer: is told of the progress.
        failures: what, when it is raised in a step, ends the run as failed and is not raised again.

    Returns:
        What came of it; a loss that was not finite is reported in ``run.failure``.

    Raises:
        ConfigError: if a name or a value in the configuration is wrong, or ``out`` is not empty.
        TrainingInterrupted: after Ctrl-C; ``continue_training`` goes on from there.

    Example:
        >>> from fdfa.training import TrainingSettings
        >>> config = TrainConfig(method="dfa", training=TrainingSettings(epochs=3))
        >>> train(config).run.test.accuracy > 0.8
        True
    """
    config = spelled_out(config)
    check_records(config.records, out)
    if out is not None:
        RunFolder.check(out, overwrite=overwrite)
    observer = observer or StudyObserver()
    with prepared(
        config.task,
        seed=config.seed,
        machine=config.machine,
        downloading=observer.downloading,
    ) as start:
        rehearse(config, _learner(config, start), start.data)
        config = dataclasses.replace(config, machine=start.machine)
        if out is None:
            return _trained(config, start, None, observer, failures)
        with _new_folder(out, overwrite=overwrite) as folder:
            if Processes.present().first:
                content = {"train": config, "environment": start.environment}
                folder.write_json("config.json", content)
            Processes.present().from_first(None)  # nobody reads in the folder before it is ready
            return _trained(config, start, folder, observer, failures)


@contextlib.contextmanager
def _new_folder(out: str | Path, *, overwrite: bool) -> Iterator[RunFolder]:
    """The first process makes the folder and holds it for all of them."""
    if Processes.present().first:
        with RunFolder.fresh(out, overwrite=overwrite) as folder:
            yield folder
    else:
        yield RunFolder(out)


def continue_training(
    folder: RunFolder,
    config: TrainConfig,
    *,
    environment: Mapping[str, Any],
    observer: StudyObserver | None = None,
    failures: type[Exception] = FDFAError,
) -> TrainReport:
    """Go on with a run at its last checkpoint, or from the start if it has none yet.

    Args:
        folder: of the run.
        config: that stands in it.
        environment: in which it was started.
        observer: is told of the progress.
        failures: what, when it is raised in a step, ends the run as failed and is not raised again.

    Returns:
        What came of it: bit for bit what it would have been without the interruption.

    Raises:
        ConfigError: if the data are not those of the run, or there are more or fewer processes.
        CheckpointError: if the checkpoint is damaged or lacks something.
        TrainingInterrupted: after Ctrl-C.
    """
    observer = observer or StudyObserver()
    with prepared(
        config.task,
        seed=config.seed,
        machine=config.machine,
        data_sha256=environment.get("data_sha256"),
        downloading=observer.downloading,
    ) as start:
        count = environment.get("processes", 1)
        if count != start.environment["processes"]:
            raise ConfigError(
                f"the run was started with {count} process(es), and there are "
                f"{start.environment['processes']} now. Resume it with as many: torchrun "
                f"--nproc-per-node {count} -m fdfa resume {folder.path}."
            )
        first = Processes.present().first
        with folder.held() if first else contextlib.nullcontext():
            return _trained(config, start, folder, observer, failures)


def spelled_out(config: TrainConfig) -> TrainConfig:
    """With every default of the method and the network in place.

    Args:
        config: as the user gave it.

    Returns:
        What belongs into ``config.json``.

    Raises:
        ConfigError: if a name in it is unknown.
    """
    options = resolved_options(config.method, config.options)
    return dataclasses.replace(config, task=resolved(config.task), options=options)


def _learner(config: TrainConfig, start: Prepared) -> Any:
    options = seeded(config.options, config.seed)
    return make_learner(config.method, start.network, start.data, options)


def _trained(
    config: TrainConfig,
    start: Prepared,
    folder: RunFolder | None,
    observer: StudyObserver,
    failures: type[Exception],
) -> TrainReport:
    run = perform(
        config,
        _learner(config, start),
        start.data,
        observer=observer,
        folder=folder,
        failures=failures,
    )
    report = TrainReport(run, sum(p.numel() for p in start.network.parameters()))
    if folder is None or not Processes.present().first:
        observer.run_finished(run)
        return report
    notes = write_learning_curves([run], folder, subject=f"{config.task.data}, {config.task.model}")
    folder.write_json("results.json", report.report())  # at last: it says that the run is finished
    observer.run_finished(run)
    return dataclasses.replace(report, notes=notes, files=tuple(folder.files))
