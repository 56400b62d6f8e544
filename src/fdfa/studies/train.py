"""One method on one task: train, measure, and keep a record."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fdfa.errors import ConfigError
from fdfa.methods import wrap
from fdfa.studies.json_values import plain
from fdfa.studies.options import resolved_options, seeded
from fdfa.studies.plots import write_learning_curves
from fdfa.studies.preparation import prepare
from fdfa.studies.runs import Run, StudyObserver, perform, rehearse
from fdfa.studies.task import Task, resolved
from fdfa.studies.threads import using_threads
from fdfa.training import TrainingSettings

__all__ = ["TrainConfig", "TrainReport", "train"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What is trained, and how.

    Attributes:
        method: name of the method, as `fdfa methods` lists it.
        options: of the method, as in feedback_rate=0.05 probe_every=4.
        seed: of the weights, the order of the examples and the method's own random numbers.
        threads: CPU threads; default: 1 for a network of under a million parameters, where more
            would only wait for each other, else torch's own choice.
        task: what is learned, and by which network.
        training: how it is trained.

    Raises:
        ConfigError: if a value is out of range.

    Example:
        >>> TrainConfig(method="fdfa", options={"feedback_rate": 0.05}).seed
        0
    """

    method: str = "fdfa"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seed: int = 0
    threads: int | None = None
    task: Task = dataclasses.field(default_factory=Task)
    training: TrainingSettings = dataclasses.field(default_factory=TrainingSettings)

    def __post_init__(self) -> None:
        """Check the seed."""
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise ConfigError(f"seed={self.seed!r} is not possible. Give a whole number from 0.")


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
        run = plain(self.run)
        run["epochs"] = len(run["epochs"])
        return {"parameters": self.parameters, "run": run}


def train(
    config: TrainConfig,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    observer: StudyObserver | None = None,
) -> TrainReport:
    """Train one network by one method; look at the test examples once, at the end.

    Args:
        config: what to train.
        out: folder for ``config.json``, ``metrics.jsonl``, ``results.json`` and learning curves.
        overwrite: whether the files of an earlier run in it may be replaced.
        observer: is told of the progress.

    Returns:
        What came of it; a loss that was not finite is reported in ``run.failure``.

    Raises:
        ConfigError: if a name or a value in the configuration is wrong, or ``out`` is not empty.

    Example:
        >>> config = TrainConfig(method="dfa", training=TrainingSettings(epochs=3))
        >>> train(config).run.test.accuracy > 0.8
        True
    """
    observer = observer or StudyObserver()
    options = resolved_options(config.method, config.options)
    config = dataclasses.replace(config, task=resolved(config.task), options=options)
    start = prepare(
        config.task, seed=config.seed, threads=config.threads, out=out, overwrite=overwrite
    )
    data, network = start.data, start.network
    config = dataclasses.replace(config, threads=start.threads)
    learner = wrap(config.method, network, **seeded(config.options, config.seed))
    rehearse(learner, data)
    folder = start.open_folder(train=config)
    with using_threads(start.threads):
        observer.run_started(config.method, config.seed)
        run = perform(
            learner, data, config.training, seed=config.seed, observer=observer, folder=folder
        )
        observer.run_finished(run)
    report = TrainReport(run, sum(p.numel() for p in network.parameters()))
    if folder is not None:
        folder.write_json("results.json", report.report())
        subject = f"{config.task.data}, {config.task.model}"
        notes = write_learning_curves([run], folder, subject=subject)
        report = dataclasses.replace(report, notes=notes, files=tuple(folder.files))
    return report
