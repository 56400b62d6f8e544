"""Checkpoints with everything that one can hold, of every method."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from fdfa.training import Callback, Checkpoint, StepResult, Trainer, TrainingSettings, capture
from tests.methods import NAMES, wrap_by_name
from tests.records.info import adam_on_maps
from tests.training.networks import busy, pictures

__all__ = ["FULL", "KINDS", "Counter", "Keep", "fresh", "full_checkpoint", "learner"]

# In the middle of the second epoch, with everything that a checkpoint can hold.
FULL: dict[str, Any] = {"epochs": 3, "batch_size": 5, "patience": 3, "precision": "float16"}


class Counter(Callback):
    """Has a state; counts steps."""

    def __init__(self) -> None:
        self.count = 0

    def step_finished(self, trainer: Trainer, result: StepResult) -> None:
        self.count += 1

    def state(self) -> Mapping[str, Any]:
        return {"count": self.count}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.count = state["count"]


class Keep(Callback):
    """Keeps a copy of the checkpoint of one step."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.checkpoint: Checkpoint | None = None

    def step_finished(self, trainer: Trainer, result: StepResult) -> None:
        if result.step == self.step:
            self.checkpoint = copy.deepcopy(capture(trainer))


def learner(kind: str, seed: int) -> nn.Module:
    if kind == "plain":
        return busy(seed)
    # The map's own optimiser: as much state as a method can have.
    options = {"feedback_update": adam_on_maps} if kind == "fdfa" else {}
    return wrap_by_name(kind, busy(seed), seed=seed, **options)


@functools.cache
def full_checkpoint(kind: str) -> Checkpoint:
    keep = Keep(7)
    torch.manual_seed(0)
    settings = TrainingSettings(**FULL)
    trainer = Trainer(learner(kind, 1), settings, callbacks=[Counter(), keep])
    trainer.fit(pictures(), pictures(12, augmented=False))
    assert keep.checkpoint is not None
    return keep.checkpoint


def fresh(kind: str) -> Trainer:
    return Trainer(learner(kind, 2), TrainingSettings(**FULL), seed=2, callbacks=[Counter()])


KINDS = ("plain", *NAMES)
