"""Checkpoints that cannot be written, or are missing, damaged, foreign or hostile."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fdfa.errors import CheckpointError
from fdfa.training import Checkpoint, latest, read_checkpoint, write_checkpoint
from fdfa.training.lock import run_lock
from tests.errors.provoke import Case, Here
from tests.training.checkpoint_cases import example, sealed

__all__ = ["CHECKPOINT_CASES"]


def _written(name: str, **parts: Any) -> Case:
    """What no file can hold."""
    whole = {"model": {}, "state": {}, "values": {}, "step": 1, **parts}
    return Case(
        f"write: {name}",
        CheckpointError,
        lambda here: write_checkpoint(here.folder, Checkpoint(**whole)),
    )


class _Elsewhere(Tensor):
    """Keeps its values in a way of its own."""

    @classmethod
    def __torch_dispatch__(
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return function(*args, **(kwargs or {}))


def _nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


WRITTEN = [
    Case("write: a step before the first", ValueError, lambda here: Checkpoint({}, {}, {}, -1)),
    _written("a name that the format keeps", model={"__metadata__": torch.ones(2)}),
    _written("a number among tensors", state={"count": 3}),
    _written("a sparse tensor", model={"weight": torch.eye(2).to_sparse()}),
    _written(
        "a type that the format lacks", state={"mean": torch.zeros(2, dtype=torch.complex128)}
    ),
    _written(
        "a tensor of another kind",
        model={"weight": torch.zeros(2).as_subclass(_Elsewhere)},
    ),
    _written("a tensor without data", model={"weight": torch.zeros(2, device="meta")}),
    _written("values that are a list", values=[1]),
    _written("a key that is a number", values={"seen": {3: "three"}}),
    _written("a tensor among values", values={"mean": torch.zeros(2)}),
    _written("a number that is too long", values={"seed": 10**5000}),
    _written("lists in lists in lists", values={"path": _nested(200)}),
]


def _disk(name: str, number: int) -> Case:
    """The disk refuses."""

    def run(here: Here) -> None:
        def fsync(descriptor: int) -> None:
            raise OSError(number, os.strerror(number))

        here.patch.setattr("os.fsync", fsync)
        write_checkpoint(here.folder / "checkpoints", example(3))

    return Case(f"write: {name}", CheckpointError, run)


def _into_a_file(here: Here) -> None:
    (here.folder / "taken").write_bytes(b"")
    with run_lock(here.folder / "taken"):
        pass


def _held(here: Here) -> None:
    with run_lock(here.folder), run_lock(here.folder):
        pass


def _held_by_nobody(here: Here) -> None:
    """The other process has not written its number yet."""
    with run_lock(here.folder):
        (here.folder / ".lock").write_bytes(b"")
        write_checkpoint(here.folder, example(3))


def _broken_lock(here: Here) -> None:
    def lock(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    here.patch.setattr("fdfa.training.lock._lock", lock)
    with run_lock(here.folder):
        pass


def _older(here: Here) -> None:
    write_checkpoint(here.folder, example(5))
    write_checkpoint(here.folder, example(3))


DISK = [
    _disk("no space", errno.ENOSPC),
    _disk("no share of the disk left", errno.EDQUOT),
    _disk("no permission", errno.EACCES),
    _disk("a read-only disk", errno.EROFS),
    _disk("a broken disk", errno.EIO),
    Case("lock: in a file", CheckpointError, _into_a_file),
    Case("lock: held", CheckpointError, _held),
    Case("lock: held by someone unknown", CheckpointError, _held_by_nobody),
    Case("lock: broken", CheckpointError, _broken_lock),
    Case("write: older than what is there", CheckpointError, _older),
]


def _read(name: str, damage: Callable[[Path], object]) -> Case:
    """A whole checkpoint, damaged."""

    def run(here: Here) -> None:
        damage(write_checkpoint(here.folder, example(3)))
        read_checkpoint(here.folder)

    return Case(f"read: {name}", CheckpointError, run)


def _changed(file: str, change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    def damage(path: Path) -> None:
        (path / file).write_bytes(change((path / file).read_bytes()))

    return damage


def _put(file: str, put: Callable[[Path], object]) -> Callable[[Path], object]:
    def damage(path: Path) -> None:
        (path / file).unlink()
        put(path / file)

    return damage


def _with_one_before(path: Path) -> None:
    """As after a crash between writing the new one and removing the old."""
    path.rename(path.with_name("step-00000007"))
    write_checkpoint(path.parent.parent / "other", example(3)).rename(path)


def _no_memory(here: Here) -> None:
    def read(path: Path, seal: object) -> bytes:
        raise MemoryError

    write_checkpoint(here.folder, example(3))
    here.patch.setattr("fdfa.training.checkpoint.read_sealed", read)
    read_checkpoint(here.folder)


def _in_a_file(here: Here) -> None:
    (here.folder / "taken").write_bytes(b"")
    latest(here.folder / "taken")


MANIFEST, MODEL, VALUES = "manifest.json", "model.safetensors", "values.json"
READ = [
    Case("read: nothing there", CheckpointError, lambda here: read_checkpoint(here.folder)),
    Case("read: in a file", CheckpointError, _in_a_file),
    Case("read: too large for the memory", CheckpointError, _no_memory),
    _read("a file is missing", lambda path: (path / VALUES).unlink()),
    _read("a folder in place of a file", _put(VALUES, Path.mkdir)),
    _read("a link in a circle", _put(VALUES, lambda path: path.symlink_to(path))),
    _read("a file is too long", _changed(MODEL, lambda raw: raw + b"x")),
    _read("a file is too short", _changed(MODEL, lambda raw: raw[:-1])),
    _read("a file of other bytes", _changed(MODEL, lambda raw: raw[:-1] + b"\xff")),
    _read(
        "a manifest of the future", _changed(MANIFEST, lambda raw: raw.replace(b": 1,", b": 2,"))
    ),
    _read("no manifest", _changed(MANIFEST, lambda raw: b"{}")),
    _read("another step", lambda path: path.rename(path.with_name("step-00000002"))),
    _read("another step, with one before it", _with_one_before),
    _read("no tensors, sealed", lambda path: sealed(path, MODEL, b"no tensors")),
    _read("no values, sealed", lambda path: sealed(path, VALUES, b"{")),
    _read("a list of values, sealed", lambda path: sealed(path, VALUES, b"[]")),
]

CHECKPOINT_CASES = [*WRITTEN, *DISK, *READ]
