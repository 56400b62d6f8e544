"""When a training writes its checkpoints."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import ClassVar

from fdfa.errors import ConfigError
from fdfa.training.callbacks import Callback, EpochResult, StepResult, check_every_steps
from fdfa.training.checkpoint import write_checkpoint
from fdfa.training.trainer import STEPS_BETWEEN_AGREEMENTS, Trainer
from fdfa.training.trainer_state import capture

__all__ = ["Checkpoints"]


class Checkpoints(Callback):
    """Writes a checkpoint now and then, at the end, and when the training is asked to stop.

    It is told after all other callbacks, so that a checkpoint knows what they have done. When it
    writes makes no difference to what is learned.

    Args:
        folder: of the checkpoints; made if it is not there. Each takes the place of the one before.
        seconds: between two of them; None to go by steps alone.
        steps: write one after every so many; None to go by time alone.

    Raises:
        ConfigError: if a number is not positive.

    Example:
        >>> import tempfile, torch
        >>> from fdfa.data import Examples
        >>> from fdfa.training import TrainingSettings, read_checkpoint, restore
        >>> examples = Examples(torch.eye(2).repeat(8, 1), torch.tensor([0, 1]).repeat(8))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     settings = TrainingSettings(epochs=3, batch_size=4)
        ...     first = Trainer(torch.nn.Linear(2, 2), settings, callbacks=[Checkpoints(folder)])
        ...     for _ in zip(range(2), first.epochs(examples)):
        ...         Checkpoints(folder).write(first)  # and now the power fails
        ...     second = Trainer(torch.nn.Linear(2, 2), settings)
        ...     restore(second, read_checkpoint(folder))
        >>> [result.epoch for result in second.fit(examples)]
        [3]
    """

    last: ClassVar[bool] = True

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        seconds: float | None = 60.0,
        steps: int | None = None,
    ) -> None:
        check_every_steps(steps, name="steps")
        if seconds is not None and not seconds > 0:
            raise ConfigError(f"seconds={seconds!r} is not possible. Give a positive number.")
        self.folder = Path(folder)
        self.seconds = seconds
        self.steps = steps
        self._written = time.monotonic()

    def write(self, trainer: Trainer) -> None:
        """Write one now; all processes of a group do it together.

        Args:
            trainer: what trains.
        """
        checkpoint = capture(trainer)
        if trainer.processes.first:
            write_checkpoint(self.folder, checkpoint)
        self._written = time.monotonic()

    def training_started(self, trainer: Trainer) -> None:
        """Start the clock.

        Args:
            trainer: what trains.
        """
        self._written = time.monotonic()

    def step_finished(self, trainer: Trainer, result: StepResult) -> None:
        """Write one if it is due.

        Args:
            trainer: what trains.
            result: what the step brought.
        """
        if self.steps is not None and result.step % self.steps == 0:
            self.write(trainer)
        elif trainer.processes.count == 1 or result.step % STEPS_BETWEEN_AGREEMENTS == 0:
            self._write_if_time(trainer)

    def epoch_finished(self, trainer: Trainer, result: EpochResult) -> None:
        """Write one if it is due.

        Args:
            trainer: what trains.
            result: what the epoch brought.
        """
        self._write_if_time(trainer)

    def training_interrupted(self, trainer: Trainer) -> None:
        """Write one.

        Args:
            trainer: what trains.
        """
        self.write(trainer)

    def training_finished(self, trainer: Trainer) -> None:
        """Write one.

        Args:
            trainer: what trains.
        """
        self.write(trainer)

    def _write_if_time(self, trainer: Trainer) -> None:
        if self.seconds is None:
            return
        due = time.monotonic() - self._written >= self.seconds
        if trainer.processes.from_first(due):
            self.write(trainer)
