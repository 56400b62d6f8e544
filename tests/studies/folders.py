"""Two folders of one run, compared in all that must come again bit for bit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fdfa.training import Checkpoint, read_checkpoint

__all__ = ["assert_same_comparisons", "assert_same_runs", "bits", "runs_of"]

# All that a run leaves behind but for wall times and the environment.
FILES = ("model.safetensors", "metrics.jsonl", "steps.jsonl", "results.json")
PICTURES = ("learning_curves.png", "learning_curves.svg")


def bits(folder: Path) -> dict[str, Any]:
    """Everything that an interruption may not change, by name."""
    found = {name: _file(folder / name) for name in (*FILES, *PICTURES)}
    found["config.json"] = json.loads((folder / "config.json").read_text())["train"]
    return {**found, **_checkpoint(read_checkpoint(folder / "checkpoints"))}


def assert_same_runs(actual: Path, expected: Path) -> None:
    """Equal to the last bit: the trained network, the measurements, the last checkpoint."""
    _assert_equal(bits(actual), bits(expected), actual, ignoring=_pictures(actual, expected))
    for folder in (actual, expected):
        hidden = [path.name for path in folder.rglob(".*") if path.name != ".lock"]
        assert not hidden, f"left in {folder}: {hidden}"
        assert len(list((folder / "checkpoints").glob("step-*"))) == 1


def assert_same_comparisons(actual: Path, expected: Path) -> None:
    """Equal in every run, and in what was made of them; the time of a step never comes again."""
    assert runs_of(actual) == runs_of(expected)
    for name in runs_of(expected):
        assert_same_runs(actual / "runs" / name, expected / "runs" / name)
    _assert_equal(_summary(actual), _summary(expected), actual)


def runs_of(comparison: Path) -> list[str]:
    """Names of the runs of a comparison."""
    return sorted(path.name for path in (comparison / "runs").iterdir())


def _assert_equal(
    actual: Mapping[str, Any],
    expected: Mapping[str, Any],
    where: Path,
    ignoring: set[str] = frozenset(),
) -> None:
    names = {*actual, *expected} - ignoring
    different = sorted(name for name in names if actual.get(name) != expected.get(name))
    assert not different, f"{where}: these differ: {', '.join(different)}"


def _pictures(*folders: Path) -> set[str]:
    """A single run of a comparison has none."""
    alone = all((folder / PICTURES[0]).exists() for folder in folders)
    return set() if alone else set(PICTURES)


def _file(path: Path) -> str | None:
    """A short word for its content, so that a failure can be read."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def _checkpoint(checkpoint: Checkpoint) -> dict[str, Any]:
    values = dict(checkpoint.values)
    # An observer keeps nothing, and need not be the same.
    callbacks = [entry for entry in values.pop("callbacks") if entry["state"]]
    for entry in callbacks:
        entry["state"].get("sizes", {}).pop(
            "timings.jsonl", None
        )  # seconds have more or fewer digits
    tensors = {**checkpoint.model, **checkpoint.state}
    # Of numpy nobody here draws, and whether torch has imported it differs from process to process.
    tensors.pop("process0.numpy", None)
    return {
        "checkpoint step": checkpoint.step,
        "checkpoint callbacks": repr(callbacks),
        **{f"checkpoint {name}": repr(value) for name, value in values.items()},
        **{f"checkpoint {name}": _bits(value) for name, value in tensors.items()},
    }


def _bits(tensor: torch.Tensor) -> tuple[Any, ...]:
    content = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    return tensor.dtype, tensor.shape, hashlib.sha256(bytes(content.tolist())).hexdigest()


def _summary(comparison: Path) -> dict[str, Any]:
    found = json.loads((comparison / "results.json").read_text())
    for summary in found["summaries"]:
        del summary["step_time"], summary["step_memory"]
    config = json.loads((comparison / "config.json").read_text())["compare"]
    return {**found, "config": config, **{name: _file(comparison / name) for name in PICTURES}}
