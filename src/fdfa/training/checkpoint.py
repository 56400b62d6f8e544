"""Checkpoints: all that a training needs to go on, in a folder that is whole or not there."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from fdfa.errors import CheckpointError, briefly
from fdfa.training.atomic import (
    Seal,
    make_folder,
    new_folder,
    remove_folder,
    remove_leftovers,
    write_file,
)
from fdfa.training.checkpoint_names import checkpoints_in, free_name, latest, step_of
from fdfa.training.contents import (
    check_tensors,
    tensor_bytes,
    tensors_from,
    value_bytes,
    values_from,
)
from fdfa.training.lock import NAME as LOCK
from fdfa.training.lock import run_lock
from fdfa.training.manifest import (
    MANIFEST,
    MODEL,
    STATE,
    VALUES,
    IntactError,
    manifest_bytes,
    read_manifest,
    read_sealed,
)

__all__ = ["Checkpoint", "read_checkpoint", "remove_checkpoints", "write_checkpoint"]

_REMEDIES = {
    errno.ENOSPC: "Free some space on the disk and resume.",
    errno.EDQUOT: "Your share of the disk is used up: free some space and resume.",
    errno.EACCES: "Make the folder writable and resume, or choose another.",
    errno.EPERM: "Make the folder writable and resume, or choose another.",
    errno.EROFS: "The disk is mounted read-only: choose a folder on another.",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Checkpoint:
    """All that a training needs to go on as if it had never stopped.

    Attributes:
        model: state dict of the plain model, which plain PyTorch loads without ``fdfa``.
        state: all other tensors: feedback, optimiser, generators (as uint8).
        values: all else, as JSON has it: dicts by strings, lists (a tuple comes back as one),
            strings, whole numbers, booleans, None, and floats, which come back exactly, also nan
            and inf.
        step: optimiser steps taken.

    Raises:
        ValueError: if the step is no whole number from 0.

    Example:
        >>> Checkpoint(model={}, state={}, values={"epoch": 3}, step=120).values["epoch"]
        3
    """

    model: dict[str, Tensor]
    state: dict[str, Tensor]
    values: dict[str, Any]
    step: int

    def __post_init__(self) -> None:
        """Check the step: it becomes the folder's name."""
        if isinstance(self.step, bool) or not isinstance(self.step, int) or self.step < 0:
            raise ValueError(f"step={self.step!r} is not possible. Give a whole number from 0.")


def write_checkpoint(folder: str | os.PathLike[str], checkpoint: Checkpoint) -> Path:
    """Write a checkpoint, then remove those before it.

    Whenever the process is killed or the power fails, the folder holds the checkpoint before, or
    this one, or both, whole. Each ``step-00000120`` in it holds ``model.safetensors``,
    ``state.safetensors``, ``values.json`` and ``manifest.json`` (the format's version, the step,
    length and SHA-256 of the other files). Tensors may be on any device, of any strides and of any
    type that safetensors knows; tied weights are written under each of their names.

    Args:
        folder: of the run's checkpoints; made if it is not there.
        checkpoint: what to write; its tensors must not change meanwhile.

    Returns:
        The folder of this checkpoint: ``step-00000120``, or ``step-00000120.2`` if there was one of
        this step.

    Raises:
        CheckpointError: if something in it cannot be written to a file, the disk is full or the
            folder not writable, another process is writing there, or a later checkpoint is there.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for step in (60, 120):
        ...         path = write_checkpoint(
        ...             folder, Checkpoint({"weight": torch.ones(2)}, {}, {"epoch": 3}, step)
        ...         )
        ...     os.listdir(folder), sorted(os.listdir(path))
        (['.lock', 'step-00000120'], ['manifest.json', 'model.safetensors', 'state.safetensors',
        'values.json'])
    """
    folder = Path(folder)
    values = value_bytes(checkpoint.values)
    check_tensors("model", checkpoint.model)
    check_tensors("state", checkpoint.state)
    with _disk_errors(folder, checkpoint.step), contextlib.ExitStack() as stack:
        make_folder(folder)
        # So whatever is half written here was left by a dead writer.
        stack.enter_context(run_lock(folder))
        remove_leftovers(folder)
        earlier = checkpoints_in(folder)
        path = folder / free_name(earlier, checkpoint.step)
        with new_folder(path) as hidden:
            seals = {
                MODEL: write_file(hidden / MODEL, tensor_bytes(checkpoint.model)),
                STATE: write_file(hidden / STATE, tensor_bytes(checkpoint.state)),
                VALUES: write_file(hidden / VALUES, [values]),
            }
            write_file(hidden / MANIFEST, [manifest_bytes(checkpoint.step, seals)])
        for old in earlier:
            remove_folder(old)
    return path


def read_checkpoint(folder: str | os.PathLike[str]) -> Checkpoint:
    """Read the newest checkpoint; every byte of it is verified before anything is handed out.

    A damaged one is an error, not a reason to take the one before silently. A training may go on in
    the folder meanwhile. Beside the tensors, one file's bytes are held in memory at a time.

    Args:
        folder: of the run's checkpoints.

    Returns:
        The checkpoint, its tensors on the CPU.

    Raises:
        CheckpointError: if there is none, or the newest is damaged, cannot be read, or has a format
            that this version does not know.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = write_checkpoint(folder, Checkpoint({"weight": torch.ones(2)}, {}, {}, 120))
        ...     read_checkpoint(folder)
        Checkpoint(model={'weight': tensor([1., 1.])}, state={}, values={}, step=120)
    """
    folder = Path(folder)
    path = latest(folder)
    while path is not None:
        try:
            return _read(path)
        except CheckpointError:
            # The training may have removed it under our eyes, for a newer one.
            before, path = path, latest(folder)
            if path == before:
                raise
    raise CheckpointError(
        f"'{folder}' holds no checkpoint: no training has written one there. Check the path, or "
        "start anew."
    )


def remove_checkpoints(folder: Path) -> None:
    """Remove all checkpoints of a run, and their folder if nothing else is in it.

    Args:
        folder: of the run's checkpoints; need not exist.

    Raises:
        CheckpointError: if another process is writing there.
    """
    if not folder.is_dir() or folder.is_symlink():
        return
    with run_lock(folder):
        remove_leftovers(folder)
        for path in checkpoints_in(folder):
            remove_folder(path)
    if os.listdir(folder) == [LOCK]:
        (folder / LOCK).unlink()
        folder.rmdir()


def _read(path: Path) -> Checkpoint:
    """One checkpoint, verified."""
    try:
        seals = read_manifest(path, step_of(path))
        return Checkpoint(
            model=_content(path / MODEL, seals[MODEL], tensors_from),
            state=_content(path / STATE, seals[STATE], tensors_from),
            values=_content(path / VALUES, seals[VALUES], values_from),
            step=step_of(path),
        )
    except MemoryError as error:
        raise CheckpointError(
            f"checkpoint '{path}' does not fit into memory. Free some."
        ) from error
    except IntactError as error:
        raise CheckpointError(f"checkpoint '{path}': {error}") from error
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint '{path}': {error}. {_way_out(path)}") from error


def _content(path: Path, seal: Seal, parse: Callable[[bytes], dict[str, Any]]) -> dict[str, Any]:
    """What one file holds; its bytes are free again when the next is read."""
    try:
        return parse(read_sealed(path, seal))
    except ValueError as error:
        raise CheckpointError(f"{path.name} is {error}") from error


def _way_out(path: Path) -> str:
    """What to do about a damaged checkpoint."""
    earlier: list[Path] = []
    with contextlib.suppress(OSError):
        earlier = [other for other in checkpoints_in(path.parent) if other != path]
    if earlier:
        return f"Remove that folder to go on from '{earlier[-1].name}'."
    return "There is none before it: remove that folder to start anew."


@contextlib.contextmanager
def _disk_errors(folder: Path, step: int) -> Iterator[None]:
    """Says what to do when the disk does not do what it is told."""
    try:
        yield
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "Check the disk, and resume.")
        raise CheckpointError(
            f"the checkpoint of step {step} could not be written to '{folder}': "
            f"{briefly(error)}. "
            f"The one before it, if any, is whole. {remedy}"
        ) from error
