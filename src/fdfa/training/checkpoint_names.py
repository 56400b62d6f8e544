"""What the checkpoints of a run are called, and so which is the newest."""

from __future__ import annotations

import os
import re
from pathlib import Path

from fdfa.errors import CheckpointError, briefly

__all__ = ["checkpoints_in", "free_name", "latest", "step_of"]

# The second number: written again at the same step, after the training was resumed there.
_NAME = re.compile(r"step-(\d{8,})(?:\.(\d+))?")


def latest(folder: str | os.PathLike[str]) -> Path | None:
    """The newest checkpoint, by its name alone.

    Args:
        folder: of the run's checkpoints; need not exist.

    Returns:
        Its folder, or None if there is none.

    Raises:
        CheckpointError: if the folder cannot be listed.

    Example:
        >>> print(latest("no/such/folder"))
        None
    """
    try:
        found = checkpoints_in(Path(folder))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(
            f"'{folder}' cannot be searched for checkpoints: {briefly(error)}. Name a folder "
            "that you may read."
        ) from error
    return found[-1] if found else None


def checkpoints_in(folder: Path) -> list[Path]:
    """All checkpoints of a folder.

    Args:
        folder: of the run's checkpoints.

    Returns:
        Their folders, the newest last.
    """
    with os.scandir(folder) as entries:
        found = [
            (int(match[1]), int(match[2] or 1), folder / entry.name)
            for entry in entries
            if (match := _NAME.fullmatch(entry.name)) and entry.is_dir()
        ]
    return [path for _, _, path in sorted(found)]


def step_of(path: Path) -> int:
    """The step in a checkpoint's name.

    Args:
        path: folder of the checkpoint.

    Returns:
        The number of optimiser steps taken.
    """
    return int(path.name.removeprefix("step-").partition(".")[0])


def free_name(earlier: list[Path], step: int) -> str:
    """The name of the checkpoint to write: newer than all others.

    Args:
        earlier: folders of the others, the newest last.
        step: at which it is written.

    Returns:
        The name of its folder.

    Raises:
        CheckpointError: if one of a later step is there.
    """
    name = f"step-{step:08d}"
    if not earlier or step_of(earlier[-1]) < step:
        return name
    newest = earlier[-1]
    if step_of(newest) > step:
        raise CheckpointError(
            f"the checkpoint of step {step} would be older than '{newest}': that one is of another "
            "training. Remove it, or choose another folder."
        )
    # Beside the one of the same step, so that there is no moment without one.
    return f"{name}.{int(newest.suffix[1:] or 1) + 1}"
