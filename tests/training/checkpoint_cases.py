"""Checkpoints to write, and what it means that one is the same as another: to the last bit."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fdfa.errors import CheckpointError
from fdfa.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from fdfa.training.checkpoint_names import latest

__all__ = [
    "FILES",
    "STEP",
    "assert_same",
    "bits",
    "complaint",
    "content",
    "example",
    "example_step",
    "found",
    "new",
    "prepared",
    "sealed",
]

FILES = ("manifest.json", "model.safetensors", "state.safetensors", "values.json")
STEP = 1  # equal to True, which a sloppy comparison would let pass
SIZES = {"before": 5, "after": 9}  # tell two checkpoints of the same step apart
_WHOLE_NUMBERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def example(step: int, *, size: int = 5) -> Checkpoint:
    """A small checkpoint, each number of which depends on the step."""
    return Checkpoint(
        model={
            "0.weight": torch.arange(size, dtype=torch.float32) + step,
            "0.running_mean": torch.full((2,), step, dtype=torch.float64),
        },
        state={
            "generator": torch.tensor([step % 251, 7, 8], dtype=torch.uint8),
            "moment": torch.full((3,), -step, dtype=torch.bfloat16),
        },
        values={"step again": step, "losses": [step / 3, float("inf")]},
        step=step,
    )


def example_step(folder: Path) -> int:
    """The step of the example in a folder, every part of which must be of that step."""
    found = read_checkpoint(folder)
    assert_same(found, example(found.step, size=len(found.model["0.weight"])))
    return found.step


def assert_same(found: Checkpoint, expected: Checkpoint) -> None:
    """Equal to the last bit."""
    assert content(found) == content(expected)


def content(checkpoint: Checkpoint) -> dict[str, Any]:
    """A checkpoint as plain values that compare equal only if all bits are."""
    return {
        "model": {name: _key(tensor) for name, tensor in checkpoint.model.items()},
        "state": {name: _key(tensor) for name, tensor in checkpoint.state.items()},
        "values": _exactly(checkpoint.values),
        "step": checkpoint.step,
    }


def bits(tensor: Tensor) -> Tensor:
    """The elements as whole numbers: a NaN equals only a NaN of the same bits."""
    return tensor.detach().view(_WHOLE_NUMBERS[tensor.itemsize])


def _key(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.dtype, tuple(tensor.shape), bits(tensor).flatten().tolist()


def _exactly(value: Any) -> Any:
    """Types and bits of floats included; tuples count as lists."""
    if isinstance(value, dict):
        return [(key, _exactly(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple)):
        return [_exactly(item) for item in value]
    if isinstance(value, float):
        return "nan" if value != value else struct.pack("<d", value)
    return type(value), value


def sealed(folder: Path, name: str, raw: bytes) -> None:
    """Put a file of one's own into a checkpoint, and make its manifest fit, as an attacker would.

    Written from the description of the format, not by the library.
    """
    (folder / name).write_bytes(raw)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


def complaint(path: Path) -> str:
    """How reading it fails: with our error, which names the folder and the remedy."""
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path.parent)
    text = str(caught.value)
    assert text.startswith(f"checkpoint '{path}': ")
    # What may be whole is not to be removed.
    ends = ("remove that folder to start anew.", "version that wrote it.", "readable, and resume.")
    assert text.endswith(ends)
    return text


def prepared(folder: Path, before: int | None) -> Path:
    """A folder of checkpoints with one in it, and what a killed writer left."""
    if before is not None:
        write_checkpoint(folder, example(before, size=SIZES["before"]))
        (folder / ".writing-step-00000059-0a1b2c3d").mkdir()
        (folder / ".writing-step-00000059-0a1b2c3d" / "model.safetensors").write_text("half")
    return folder


def new(folder: Path, step: int) -> None:
    write_checkpoint(folder, example(step, size=SIZES["after"]))


def found(folder: Path) -> str:
    """Which of the two the reader finds, verified in every bit; "none" if there is none."""
    if latest(folder) is None:
        with pytest.raises(CheckpointError, match="holds no checkpoint"):
            read_checkpoint(folder)
        return "none"
    example_step(folder)
    size = len(read_checkpoint(folder).model["0.weight"])
    return next(name for name, number in SIZES.items() if number == size)
