"""Where numbers can be watched while a training runs: TensorBoard, Weights & Biases, your own."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from fdfa.errors import ConfigError, briefly
from fdfa.training.callbacks import Callback, EpochResult, StepResult, check_every_steps
from fdfa.training.evaluation import Score
from fdfa.training.trainer import Trainer

__all__ = ["LogTo", "Sink", "TensorBoard", "WeightsAndBiases"]


class Sink(Protocol):
    """Takes numbers by name."""

    def open(self, step: int) -> None:
        """Before the first number.

        Args:
            step: steps that a resumed training has behind it; what was logged after it is void.
        """

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        """Take some numbers.

        Args:
            values: by name, such as ``"validation/accuracy"``.
            step: optimiser steps taken.
        """

    def close(self) -> None:
        """After the last number."""


class LogTo(Callback):
    """Sends what a training measures to a sink; only the first of several processes does.

    Args:
        sink: takes the numbers.
        every_steps: send the loss after so many steps; None for numbers after each epoch only.

    Raises:
        ConfigError: if ``every_steps`` is no positive whole number.

    Example:
        >>> class Printer:
        ...     def open(self, step): ...
        ...     def log(self, values, *, step):
        ...         print(step, sorted(values))
        ...
        ...     def close(self): ...
        >>> import torch
        >>> from fdfa.data import Examples
        >>> from fdfa.training import TrainingSettings
        >>> examples = Examples(torch.eye(2), torch.tensor([0, 1]))
        >>> settings = TrainingSettings(epochs=1)
        >>> trainer = Trainer(torch.nn.Linear(2, 2), settings, callbacks=[LogTo(Printer())])
        >>> _ = trainer.fit(examples)
        1 ['learning_rate', 'seconds', 'train/accuracy', 'train/loss']
    """

    def __init__(self, sink: Sink, *, every_steps: int | None = None) -> None:
        check_every_steps(every_steps)
        self.sink = sink
        self.every_steps = every_steps

    def training_started(self, trainer: Trainer) -> None:
        """Open the sink.

        Args:
            trainer: what trains.
        """
        if trainer.processes.first:
            self.sink.open(trainer.progress.step)

    def step_finished(self, trainer: Trainer, result: StepResult) -> None:
        """Send the loss if it is due.

        Args:
            trainer: what trains.
            result: what the step brought.
        """
        due = self.every_steps is not None and result.step % self.every_steps == 0
        if due and trainer.processes.first:
            values = {"step/loss": result.loss, "step/learning_rate": result.learning_rate}
            self.sink.log(values, step=result.step)

    def epoch_finished(self, trainer: Trainer, result: EpochResult) -> None:
        """Send the epoch's numbers.

        Args:
            trainer: what trains.
            result: what the epoch brought.
        """
        if trainer.processes.first:
            values = {"learning_rate": result.learning_rate, "seconds": result.seconds}
            values |= _numbers("train", result.train)
            if result.validation is not None:
                values |= _numbers("validation", result.validation)
            self.sink.log(values, step=result.step)

    def training_ended(self, trainer: Trainer) -> None:
        """Close the sink.

        Args:
            trainer: what trains.
        """
        if trainer.processes.first:
            self.sink.close()


class TensorBoard:
    """Writes event files for TensorBoard.

    Args:
        folder: where they lie.

    Raises:
        ConfigError: if tensorboard is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._module = self.check_installed()
        self.folder = Path(folder)
        self._writer: Any = None

    @staticmethod
    def check_installed() -> Any:
        """The module that writes event files.

        Returns:
            The module.

        Raises:
            ConfigError: if tensorboard is not installed.
        """
        return _imported("torch.utils.tensorboard", "tensorboard", "TensorBoard")

    def open(self, step: int) -> None:
        """Start an event file; what an earlier one holds after this step is hidden."""
        self._writer = self._module.SummaryWriter(self.folder, purge_step=step + 1)

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        """Write the numbers to the disk."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, global_step=step)
        self._writer.flush()

    def close(self) -> None:
        """End the event file."""
        self._writer.close()


class WeightsAndBiases:
    """Sends numbers to Weights & Biases; a resumed run goes on in its own record.

    Args:
        project: name of the project.
        name: of the run.
        folder: for its local files; the run's identity is kept there.
        config: shown beside the run.

    Raises:
        ConfigError: if wandb is not installed.
    """

    def __init__(
        self,
        *,
        project: str,
        name: str,
        folder: str | os.PathLike[str],
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self._module = self.check_installed()
        self.project = project
        self.name = name
        self.folder = Path(folder)
        self.config = dict(config or {})
        self._run: Any = None

    @staticmethod
    def check_installed() -> Any:
        """The package itself.

        Returns:
            The module.

        Raises:
            ConfigError: if wandb is not installed.
        """
        return _imported("wandb", "wandb", "Weights & Biases")

    def open(self, step: int) -> None:
        """Start the run, or go on with it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        identity = self.folder / "id"
        if step == 0 or not identity.exists():
            identity.write_text(self._module.util.generate_id() + "\n", encoding="utf-8")
        self._run = self._module.init(
            project=self.project,
            name=self.name,
            dir=self.folder,
            config=self.config,
            id=identity.read_text(encoding="utf-8").strip(),
            resume="allow",
        )

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        """Send the numbers."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """End the run."""
        self._run.finish()


def _numbers(part: str, score: Score) -> dict[str, float]:
    return {f"{part}/accuracy": score.accuracy, f"{part}/loss": score.loss}


def _imported(module: str, package: str, name: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"{name} needs the package {package}, which is not installed here ({briefly(error)}). "
            f"Run pip install 'fdfa[{package}]', or log without it."
        ) from error
