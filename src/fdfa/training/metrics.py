"""What a training measured, as lines of JSON that outlive whatever stops it."""

from __future__ import annotations

import dataclasses
import os

from fdfa.training.callbacks import EpochResult, StepResult, check_every_steps
from fdfa.training.line_files import LineFiles
from fdfa.training.peak_memory import count_peak_anew, peak_memory
from fdfa.training.trainer import Trainer

__all__ = ["METRICS", "STEPS", "TIMINGS", "MetricsLog"]

METRICS = "metrics.jsonl"
TIMINGS = "timings.jsonl"
STEPS = "steps.jsonl"


class MetricsLog(LineFiles):
    """Writes one line an epoch, and one every so many steps on demand.

    ``metrics.jsonl`` holds what comes again bit for bit when the training is repeated or resumed;
    wall times and peak memory, which never do, stand in ``timings.jsonl``. A resumed training first
    takes back the lines that were written after its checkpoint. Only the first of several processes
    writes.

    Args:
        folder: where the files lie; it must be there.
        every_steps: a line of ``steps.jsonl`` after so many steps; None for none.

    Raises:
        ConfigError: if ``every_steps`` is no positive whole number.

    Example:
        >>> import tempfile, torch
        >>> from pathlib import Path
        >>> from fdfa.data import Examples
        >>> from fdfa.training import TrainingSettings, read_lines
        >>> examples = Examples(torch.eye(2), torch.tensor([0, 1]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     settings = TrainingSettings(epochs=2)
        ...     trainer = Trainer(torch.nn.Linear(2, 2), settings, callbacks=[MetricsLog(folder)])
        ...     _ = trainer.fit(examples)
        ...     lines, damaged = read_lines(Path(folder) / METRICS)
        >>> [line["epoch"] for line in lines], damaged
        ([1, 2], 0)
    """

    def __init__(self, folder: str | os.PathLike[str], *, every_steps: int | None = None) -> None:
        check_every_steps(every_steps)
        names = (METRICS, TIMINGS) if every_steps is None else (METRICS, TIMINGS, STEPS)
        super().__init__(folder, names)
        self.every_steps = every_steps

    def training_started(self, trainer: Trainer) -> None:
        """As the files of lines do; the peak of memory is counted from here.

        Args:
            trainer: what trains.
        """
        super().training_started(trainer)
        if trainer.processes.first:
            count_peak_anew(trainer.learning.device)

    def step_finished(self, trainer: Trainer, result: StepResult) -> None:
        """Write a line if one is due.

        Args:
            trainer: what trains.
            result: what the step brought.
        """
        if self.every_steps is not None and result.step % self.every_steps == 0:
            line = {
                "step": result.step,
                "epoch": result.epoch,
                "loss": result.loss,
                "learning_rate": result.learning_rate,
            }
            self.append(trainer, STEPS, line)

    def epoch_finished(self, trainer: Trainer, result: EpochResult) -> None:
        """Write a line.

        Args:
            trainer: what trains.
            result: what the epoch brought.
        """
        line = dataclasses.asdict(result)
        seconds = line.pop("seconds")
        self.append(trainer, METRICS, line)
        measured = {"seconds": seconds, "peak_memory": peak_memory(trainer.learning.device)}
        self.append(trainer, TIMINGS, {"epoch": result.epoch, **measured})
