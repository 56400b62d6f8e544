"""What a training measured, as lines of JSON that outlive whatever stops it."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fdfa.errors import CheckpointError
from fdfa.training.callbacks import Callback, EpochResult, StepResult, check_every_steps
from fdfa.training.trainer import Trainer

__all__ = ["METRICS", "STEPS", "TIMINGS", "MetricsLog", "read_lines"]

METRICS = "metrics.jsonl"
TIMINGS = "timings.jsonl"
STEPS = "steps.jsonl"


class MetricsLog(Callback):
    """Writes one line an epoch, and one every so many steps on demand.

    ``metrics.jsonl`` holds what comes again bit for bit when the training is repeated or resumed;
    wall times, which never do, stand in ``timings.jsonl``. A resumed training first takes back the
    lines that were written after its checkpoint. Only the first of several processes writes.

    Args:
        folder: where the files lie; it must be there.
        every_steps: a line of ``steps.jsonl`` after so many steps; None for none.

    Raises:
        ConfigError: if ``every_steps`` is no positive whole number.

    Example:
        >>> import tempfile, torch
        >>> from fdfa.data import Examples
        >>> from fdfa.training import TrainingSettings
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
        self.folder = Path(folder)
        self.every_steps = every_steps
        names = (METRICS, TIMINGS) if every_steps is None else (METRICS, TIMINGS, STEPS)
        self.sizes = dict.fromkeys(names, 0)

    def training_started(self, trainer: Trainer) -> None:
        """Cut the files to the length that they had at the checkpoint; to nothing in a new one.

        Args:
            trainer: what trains.

        Raises:
            CheckpointError: if a file is shorter than it was.
        """
        if not trainer.processes.first:
            return
        for name, size in self.sizes.items():
            path = self.folder / name
            held = path.stat().st_size if path.exists() else 0
            if held < size:
                raise CheckpointError(
                    f"{path} has {held} bytes, and had {size} when the checkpoint was written: "
                    "lines are lost. Put the file back, or start the run anew."
                )
        for name, size in self.sizes.items():
            with (self.folder / name).open("ab") as file:
                file.truncate(size)

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
            self._append(trainer, STEPS, line)

    def epoch_finished(self, trainer: Trainer, result: EpochResult) -> None:
        """Write a line.

        Args:
            trainer: what trains.
            result: what the epoch brought.
        """
        line = dataclasses.asdict(result)
        seconds = line.pop("seconds")
        self._append(trainer, METRICS, line)
        self._append(trainer, TIMINGS, {"epoch": result.epoch, "seconds": seconds})

    def state(self) -> Mapping[str, Any]:
        """How long the files are; what they hold is on the disk when this returns.

        Returns:
            Name to bytes.
        """
        for name in self.sizes:
            path = self.folder / name
            if path.exists():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        return {"sizes": dict(self.sizes)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Remember how long the files were.

        Args:
            state: from a checkpoint.
        """
        saved = state["sizes"]
        self.sizes = {name: saved.get(name, 0) for name in self.sizes}

    def _append(self, trainer: Trainer, name: str, line: Mapping[str, Any]) -> None:
        """A line in a single write."""
        if trainer.processes.first:
            content = (json.dumps(line, allow_nan=False) + "\n").encode()
            with (self.folder / name).open("ab") as file:
                file.write(content)  # at once when it is closed, and whole or an error
            self.sizes[name] += len(content)


def read_lines(path: str | os.PathLike[str]) -> tuple[list[dict[str, Any]], int]:
    r"""The lines of a file that may have been cut, or damaged, anywhere.

    Args:
        path: of a file with a JSON object on each line.

    Returns:
        The lines that can be read, and the number of those that cannot.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / METRICS
        ...     _ = path.write_text('{"epoch": 1}\n{"epo')
        ...     read_lines(path)
        ([{'epoch': 1}], 1)
    """
    lines, damaged = [], 0
    for text in Path(path).read_bytes().split(b"\n"):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            line = None
        if isinstance(line, dict):
            lines.append(line)
        else:
            damaged += 1
    return lines, damaged
