"""A training that is cut and goes on elsewhere, compared with the one that was never cut.

What is compared is collected here from PyTorch itself, not through what the library saves.
"""

from __future__ import annotations

import dataclasses
import operator
import pathlib
import random
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch

from fdfa.training import (
    Callback,
    Checkpoint,
    EpochResult,
    ExampleSource,
    MetricsLog,
    StepResult,
    Trainer,
    capture,
    read_checkpoint,
    restore,
    write_checkpoint,
)

__all__ = [
    "Cuts",
    "Make",
    "assert_resumes",
    "assert_same_bits",
    "everything",
    "optimizer_tensors",
    "scramble",
    "through_the_disk",
]

Make = Callable[[int, Sequence[Callback]], Trainer]


def assert_same_bits(actual: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Equal to the last bit, type and shape included; NaN equals NaN. Names all that differ."""
    names = [*expected, *(actual.keys() - expected.keys())]
    different = [name for name in names if _bits(actual.get(name)) != _bits(expected.get(name))]
    assert not different, f"these differ: {', '.join(different)}"


def _bits(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    content = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return (value.dtype, value.shape, bytes(content.tolist()))


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What an optimiser remembers of each parameter, by the parameter's number in the groups."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return {
        f"{number}.{name}": value.clone() if isinstance(value, torch.Tensor) else repr(value)
        for number, parameter in enumerate(parameters)
        for name, value in optimizer.state.get(parameter, {}).items()
    }


def everything(trainer: Trainer) -> dict[str, Any]:
    """Copies of all that the next step depends on, and of what has been counted."""
    found: dict[str, Any] = {}
    for part, tensors in {
        "model": trainer.model.state_dict(),
        "learner": trainer.learner.state_dict(),
        "optimizer": optimizer_tensors(trainer.optimizer),
    }.items():
        found |= {
            f"{part}.{name}": value.clone() if isinstance(value, torch.Tensor) else value
            for name, value in tensors.items()
        }
    for number, group in enumerate(trainer.optimizer.param_groups):
        found[f"group{number}"] = repr({k: v for k, v in group.items() if k != "params"})
    found["torch"] = torch.get_rng_state()
    found["python"] = repr(random.getstate())
    if "numpy.random" in sys.modules:
        kind, words, *rest = sys.modules["numpy.random"].get_state()
        found["numpy"] = repr((kind, words.tolist(), rest))
    found["order"] = trainer.order_generator.get_state()
    found["augmentation"] = trainer.augmentation_generator.get_state()
    found["scaler"] = repr(trainer.learning.scaler.state_dict())
    progress = trainer.progress
    found["progress"] = repr((progress.epoch, progress.step, progress.in_epoch))
    if trainer.best is not None:
        found["best"] = repr((trainer.best.epoch, trainer.best.accuracy))
        found |= {f"best.{name}": value.clone() for name, value in trainer.best.state.items()}
    return found


def scramble(seed: int) -> None:
    """Put every global generator somewhere else."""
    torch.manual_seed(1000 + seed)
    random.seed(2000 + seed)
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed(3000 + seed)


def through_the_disk(trainer: Trainer, folder: pathlib.Path) -> Checkpoint:
    """A checkpoint as another process would read it; all processes do this together."""
    checkpoint = capture(trainer)
    if trainer.processes.first:
        write_checkpoint(folder, checkpoint)
    trainer.processes.from_first(None)  # nobody reads before it is written
    return read_checkpoint(folder)


class Cuts(Callback):
    """Keeps checkpoints, by ``"step 3"`` or ``"epoch 1"``: those of ``at``, or all of them."""

    def __init__(self, folder: pathlib.Path, at: Sequence[str] | None = None) -> None:
        self.folder = folder
        self.at = at
        self.kept: dict[str, Checkpoint] = {}

    def training_started(self, trainer: Trainer) -> None:
        self.keep(trainer, "step 0")

    def step_finished(self, trainer: Trainer, result: StepResult) -> None:
        self.keep(trainer, f"step {result.step}")

    def epoch_finished(self, trainer: Trainer, result: EpochResult) -> None:
        self.keep(trainer, f"epoch {result.epoch}")

    def keep(self, trainer: Trainer, cut: str) -> None:
        if self.at is None or cut in self.at:
            self.kept[cut] = through_the_disk(trainer, self.folder / cut.replace(" ", ""))


def without_seconds(results: Iterable[EpochResult]) -> list[EpochResult]:
    """Wall time never comes again."""
    return [dataclasses.replace(result, seconds=0.0) for result in results]


def assert_resumes(
    make: Make,
    train: ExampleSource,
    validation: ExampleSource | None,
    folder: pathlib.Path,
    *,
    at: Sequence[str] | None = None,
    checkpoints: pathlib.Path | None = None,
) -> dict[str, Checkpoint]:
    """Train once, cut everywhere, and go on from each cut: all must end as if never cut.

    Args:
        make: a trainer whose networks, learners and generators come from this seed.
        train: examples to learn from.
        validation: examples to measure on.
        folder: empty; each process of several has its own.
        at: the cuts to go on from; None for all.
        checkpoints: where they are written; all processes must see it.

    Returns:
        The checkpoints.
    """
    cuts, whole = Cuts(checkpoints or folder / "checkpoints", at), folder / "whole"
    whole.mkdir(parents=True)
    scramble(0)
    trainer = make(0, [MetricsLog(whole, every_steps=1), cuts])
    results = without_seconds(trainer.fit(train, validation))
    expected = everything(trainer)
    for number, (cut, checkpoint) in enumerate(cuts.kept.items(), 1):
        again = folder / cut.replace(" ", "")
        shutil.copytree(whole, again)  # as it is found after a crash: lines were written since
        scramble(number)
        resumed = make(number, [MetricsLog(again, every_steps=1)])
        scramble(-number)
        restore(resumed, checkpoint)
        left = without_seconds(resumed.fit(train, validation))
        try:
            kind, place = cut.split()
            number_of = operator.attrgetter("step" if kind == "step" else "epoch")
            # After the last step of an epoch the epoch itself is still to be finished.
            ends = [r for r in results if number_of(r) >= int(place) + (kind == "epoch")]
            assert left == ends, f"{left} are not {ends}"
            assert_same_bits(everything(resumed), expected)
            for name in ("metrics.jsonl", "steps.jsonl") if trainer.processes.first else ():
                assert (again / name).read_bytes() == (whole / name).read_bytes(), name
        except AssertionError as error:
            raise AssertionError(f"cut at {cut}: {error}") from None
    return cuts.kept
