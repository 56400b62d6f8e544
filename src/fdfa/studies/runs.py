"""One run: one method, one seed, one network trained from its first to its last epoch."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from fdfa.data.dataset import Dataset
from fdfa.diagnostics import alignment
from fdfa.engine.estimator import Estimator
from fdfa.engine.random_state import random_state_of
from fdfa.errors import CheckpointError, ConfigError, DataError, FDFAError, briefly
from fdfa.studies.diagnosis_log import DIAGNOSIS, DiagnosisLog, watch_over
from fdfa.studies.json_values import plain
from fdfa.studies.records import from_json
from fdfa.studies.run_folder import RunFolder
from fdfa.studies.scoring import score_on
from fdfa.studies.setup import TrainConfig
from fdfa.studies.sinks import make_sink
from fdfa.studies.stopping import stopping_gently
from fdfa.training import (
    Callback,
    Checkpoints,
    EpochResult,
    LogTo,
    MetricsLog,
    Processes,
    Score,
    Trainer,
    latest,
    read_checkpoint,
    read_lines,
    restore,
)
from fdfa.training.atomic import write_file
from fdfa.training.contents import check_tensors, tensor_bytes
from fdfa.training.metrics import METRICS, STEPS, TIMINGS

__all__ = ["Run", "StudyObserver", "perform", "recall", "result_of", "weight_matrices"]

# Enough for a steady cosine, few enough to cost nothing beside an epoch.
_ALIGNMENT_EXAMPLES = 256


@dataclasses.dataclass(frozen=True)
class Run:
    """What came of one run.

    Attributes:
        method: its name.
        seed: of the weights, the order of the examples and the method's own random numbers.
        epochs: the results of the epochs that were finished.
        test: on the test examples, which are looked at once, after the last epoch; None if failed.
        alignment: cosine of each parameter's gradient with the exact one after the training, on a
            fixed batch of validation examples (``fdfa.diagnostics.alignment``).
        cosine: mean of these over the weight matrices.
        failure: why the run stopped early; None if it did not.
    """

    method: str
    seed: int
    epochs: tuple[EpochResult, ...]
    test: Score | None
    alignment: Mapping[str, float]
    cosine: float
    failure: str | None = None

    def report(self) -> dict[str, Any]:
        """What ``results.json`` holds of it: the number of epochs, which are in the metrics.

        Returns:
            Plain values that JSON can hold.
        """
        content: dict[str, Any] = plain(self)
        return {**content, "epochs": len(self.epochs)}


class StudyObserver(Callback):
    """Is told how a study goes. Every method does nothing until a subclass overrides it."""

    def downloading(self, file: str, done: int, total: int) -> None:
        """While a data set is downloaded.

        Args:
            file: its name.
            done: bytes that are there.
            total: bytes that it has.
        """

    def measuring_costs(self) -> None:
        """When time and memory of a step are measured."""

    def runs_planned(self, count: int) -> None:
        """When it is known how many runs there will be.

        Args:
            count: of all methods and seeds.
        """

    def run_started(self, method: str, seed: int) -> None:
        """Before the first epoch of a run.

        Args:
            method: its name.
            seed: its seed.
        """

    def run_finished(self, run: Run) -> None:
        """After a run.

        Args:
            run: what came of it.
        """


def perform(
    config: TrainConfig,
    learner: Estimator,
    data: Dataset,
    *,
    observer: StudyObserver,
    folder: RunFolder | None,
    failures: type[Exception] = FDFAError,
) -> Run:
    """Train a learner, then look at the test examples once.

    Where the folder has a checkpoint, the training goes on there. A loss that is not finite, or a
    model that the method cannot serve, ends the run and not the study: see ``Run.failure``.

    Args:
        config: what the run is.
        learner: freshly wrapped, on the device.
        data: what is learned.
        observer: is told of the progress; that it is finished it hears from the caller, who keeps
            the result.
        folder: of the run; None keeps nothing.
        failures: what ends the run and not the study.

    Returns:
        The run.

    Raises:
        TrainingInterrupted: after Ctrl-C, with a checkpoint written.
        CheckpointError: if a checkpoint cannot be written or read.
        ConfigError: if the training settings do not fit the data.
        DataError: if examples that are read while they are learned are damaged.
        OSError: if a record cannot be written.
    """
    observer.run_started(config.method, config.seed)
    callbacks: list[Callback] = [observer]
    if folder is not None:
        callbacks += _records(config, folder, learner, data)
    epochs: list[EpochResult] = []
    # Dropout draws the same masks whatever the method, and not the same in all processes.
    with random_state_of(config.seed + 1_000_003 * Processes.present().rank):
        trainer = Trainer(learner, config.training, seed=config.seed, callbacks=callbacks)
        if folder is not None and latest(folder.checkpoints) is not None:
            restore(trainer, read_checkpoint(folder.checkpoints))
            epochs += _epochs_before(folder, trainer.progress.epoch)
        try:
            with stopping_gently(trainer):
                for result in trainer.epochs(data.train, data.validation):
                    epochs.append(result)
            run = _measured(config, learner, data, epochs)
        except (CheckpointError, ConfigError, DataError, OSError):
            raise  # not the method's fault: the run can go on when it is mended
        except failures as error:
            text = str(error) if isinstance(error, FDFAError) else briefly(error, named=True)
            run = Run(config.method, config.seed, tuple(epochs), None, {}, math.nan, text)
    if folder is not None and trainer.processes.first:
        if run.failure is None:
            _write_model(folder, learner.model)
        folder.note("config.json", METRICS, TIMINGS, STEPS, DIAGNOSIS)
    return run


def recall(folder: RunFolder) -> Run | None:
    """What an earlier process wrote down of a run.

    Args:
        folder: of the run.

    Returns:
        The run; None if it is not finished.

    Raises:
        ConfigError: if ``results.json`` is damaged.
    """
    run = result_of(folder)
    if run is None:
        return None
    return dataclasses.replace(run, epochs=tuple(_epochs_before(folder, math.inf)))


def result_of(folder: RunFolder) -> Run | None:
    """What ``results.json`` holds of a run.

    Args:
        folder: of the run.

    Returns:
        The run without its epochs; None if it is not finished.

    Raises:
        ConfigError: if the file is damaged.
    """
    content = folder.read_json("results.json")
    if content is None:
        return None
    where = str(folder.path / "results.json")
    parts = content if isinstance(content, dict) else {}
    if not (isinstance(parts.get("run"), dict) and isinstance(parts.get("parameters"), int)):
        raise ConfigError(f"{where} is not what a run writes. Remove it and resume the run.")
    return from_json(Run, {**content["run"], "epochs": []}, where=where)


def _records(
    config: TrainConfig, folder: RunFolder, learner: Estimator, data: Dataset
) -> list[Callback]:
    """What keeps a record; checkpoints stand last, so that they know what the others did."""
    records = config.records
    sinks = [make_sink(name, config, folder) for name in records.log]
    callbacks: list[Callback] = [
        MetricsLog(folder.path, every_steps=records.log_steps),
        *(LogTo(sink, every_steps=records.log_steps) for sink in sinks),
    ]
    if records.diagnose is not None:
        watch = watch_over(config, learner, data, records.diagnose)
        callbacks.append(DiagnosisLog(folder.path, watch, sinks=sinks))
    checkpoints = Checkpoints(
        folder.checkpoints,
        seconds=records.checkpoint_seconds,
        steps=records.checkpoint_steps,
    )
    return [*callbacks, checkpoints]


def _epochs_before(folder: RunFolder, last: float) -> list[EpochResult]:
    """Results of the epochs up to one, from the lines that were written of them."""
    path = folder.path / METRICS
    if not path.exists():
        return []
    seconds = {}
    if (folder.path / TIMINGS).exists():
        seconds = {
            line["epoch"]: line.get("seconds")
            for line in read_lines(folder.path / TIMINGS)[0]
            if isinstance(line.get("epoch"), int) and isinstance(line.get("seconds"), float)
        }
    return [
        from_json(EpochResult, {**line, "seconds": seconds.get(line["epoch"])}, where=str(path))
        for line in read_lines(path)[0]
        if isinstance(line.get("epoch"), int) and line["epoch"] <= last
    ]


def _measured(
    config: TrainConfig, learner: Estimator, data: Dataset, epochs: Sequence[EpochResult]
) -> Run:
    """The angles to the exact gradient, and the one look at the test examples."""
    looked_at = data.validation if len(data.validation) else data.train
    batch = _on_device_of(learner, *looked_at.first(_ALIGNMENT_EXAMPLES))
    settings = config.training
    cosines = alignment(learner, settings.loss_function, *batch)
    return Run(
        method=config.method,
        seed=config.seed,
        epochs=tuple(epochs),
        test=score_on(
            learner,
            data,
            part="test",
            batch_size=settings.evaluation_batch_size,
            loss_function=settings.loss_function,
        ),
        alignment=cosines,
        cosine=_mean_over_matrices(cosines, learner.model),
    )


def _on_device_of(learner: Estimator, *tensors: Tensor) -> tuple[Tensor, ...]:
    device = next(learner.parameters()).device
    return tuple(tensor.to(device) for tensor in tensors)


def _write_model(folder: RunFolder, model: nn.Module) -> None:
    """The trained weights, for plain PyTorch to load without ``fdfa``."""
    weights = model.state_dict()
    check_tensors("model", weights)
    with folder.replacing("model.safetensors") as path:
        write_file(path, tensor_bytes(weights))


def weight_matrices(model: nn.Module) -> tuple[str, ...]:
    """The trained parameters whose angles to the exact gradient say something, layer by layer.

    Args:
        model: any.

    Returns:
        Their names: without vectors, since a bias before batch norm has no gradient but rounding
        noise.

    Example:
        >>> weight_matrices(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)))
        ('0.weight', '2.weight')
    """
    return tuple(n for n, p in model.named_parameters() if p.requires_grad and p.dim() > 1)


def _mean_over_matrices(cosines: Mapping[str, float], model: nn.Module) -> float:
    matrices = [cosines[name] for name in weight_matrices(model) if name in cosines]
    return statistics.fmean(matrices) if matrices else math.nan
