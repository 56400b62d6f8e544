"""Files of JSON lines that a training writes, and takes back what a resume makes void."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fdfa.errors import CheckpointError
from fdfa.training.callbacks import Callback
from fdfa.training.trainer import Trainer

__all__ = ["LineFiles", "read_lines"]


class LineFiles(Callback):
    """A callback that keeps files of lines, for others to derive from.

    Every checkpoint knows how long the files were, and a resumed training first takes back the
    lines that were written after it. Only the first of several processes writes.

    Args:
        folder: where the files lie; it must be there.
        names: of the files.

    Example:
        >>> class Losses(LineFiles):
        ...     def step_finished(self, trainer, result):
        ...         self.append(trainer, "losses.jsonl", {"loss": result.loss})
    """

    def __init__(self, folder: str | os.PathLike[str], names: Sequence[str]) -> None:
        self.folder = Path(folder)
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

    def append(self, trainer: Trainer, name: str, line: Mapping[str, Any]) -> None:
        """Add a line, in a single write.

        Args:
            trainer: what trains.
            name: of the file.
            line: values that JSON can hold.
        """
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
        ...     path = Path(folder) / "metrics.jsonl"
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
