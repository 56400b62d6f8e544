"""Trainings that cannot be saved, or not be gone on with: something is missing, or another."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

import fdfa
from fdfa.data import Examples
from fdfa.errors import CheckpointError
from fdfa.training import (
    Callback,
    Checkpoint,
    MetricsLog,
    Processes,
    StepResult,
    Trainer,
    TrainingSettings,
    capture,
    restore,
)
from tests.errors.provoke import Case, Here
from tests.training.networks import dense, points

__all__ = ["RESUME_CASES"]


class _Counter(Callback):
    """Has a state."""

    def state(self) -> Mapping[str, Any]:
        return {"count": 1}


class _Keep(Callback):
    """Keeps a copy of the checkpoint of a step."""

    def __init__(self) -> None:
        self.checkpoint: Checkpoint | None = None

    def step_finished(self, trainer: Trainer, result: StepResult) -> None:
        if result.step == 4:  # in the middle of the second epoch
            self.checkpoint = copy.deepcopy(capture(trainer))


HALF = TrainingSettings(epochs=3, batch_size=8)


def _kept(
    model: nn.Module | None = None, settings: TrainingSettings = HALF, *callbacks: Callback
) -> Checkpoint:
    keep = _Keep()
    model = dense() if model is None else model
    Trainer(model, settings, callbacks=[keep, *callbacks]).fit(points())
    assert keep.checkpoint is not None
    return keep.checkpoint


def _resumed(
    name: str,
    checkpoint: Callable[[], Checkpoint] = _kept,
    trainer: Callable[[], Trainer] = lambda: Trainer(dense(), HALF),
    *,
    then: Examples | None = None,
) -> Case:
    def run(here: Here) -> None:
        fresh = trainer()
        restore(fresh, checkpoint())
        if then is not None:
            fresh.fit(then)

    return Case(f"resume: {name}", CheckpointError, run)


def _of_two() -> Trainer:
    trainer = Trainer(dense(), HALF)
    trainer.processes = Processes(rank=0, count=2)
    return trainer


def _lacking(part: str, name: str) -> Checkpoint:
    whole = _kept(settings=SCALED)
    del getattr(whole, part)[name]
    return whole


def _without_scale() -> Checkpoint:
    whole = _kept(settings=SCALED)
    del whole.values["scaler"]["scale"]
    return whole


def _without(option: str) -> Checkpoint:
    whole = _kept()
    del whole.values["optimizer"]["groups"][0][option]
    return whole


def _with(change: Callable[[nn.Module], torch.optim.Optimizer]) -> Trainer:
    model = dense()
    return Trainer(model, HALF, optimizer=change(model))


def _shortened(here: Here) -> None:
    """The lines of an epoch are lost."""
    log = MetricsLog(here.folder)
    log.restore({"sizes": {"metrics.jsonl": 400}})
    Trainer(dense(), HALF, callbacks=[log]).fit(points())


SCALED = TrainingSettings(epochs=3, batch_size=8, precision="float16")
RESUMED = [
    _resumed("other examples", then=points(23)),
    _resumed("another number of processes", trainer=_of_two),
    _resumed("another method", trainer=lambda: Trainer(fdfa.DFA(dense()), HALF)),
    _resumed(
        "a tensor is missing",
        lambda: _lacking("state", "optimizer.0.exp_avg"),
        lambda: Trainer(dense(), SCALED),
    ),
    _resumed(
        "a value is missing", lambda: _lacking("values", "epoch"), lambda: Trainer(dense(), SCALED)
    ),
    _resumed("a part of the scaler is missing", _without_scale, lambda: Trainer(dense(), SCALED)),
    _resumed(
        "another kind of optimizer",
        trainer=lambda: _with(lambda model: torch.optim.SGD(model.parameters())),
    ),
    _resumed(
        "another option of the optimizer",
        trainer=lambda: _with(lambda model: torch.optim.Adam(model.parameters(), eps=1e-7)),
    ),
    _resumed(
        "another number of groups",
        trainer=lambda: _with(
            lambda model: torch.optim.Adam([{"params": [p]} for p in model.parameters()])
        ),
    ),
    _resumed("the learning rate is missing", lambda: _without("lr")),
    _resumed("an option of the optimizer is missing", lambda: _without("eps")),
    _resumed(
        "parameters in another order",
        trainer=lambda: _with(lambda model: torch.optim.Adam(list(model.parameters())[::-1])),
    ),
    _resumed(
        "other settings",
        trainer=lambda: Trainer(dense(), TrainingSettings(epochs=3, batch_size=9)),
    ),
    _resumed(
        "a larger model",
        trainer=lambda: Trainer(nn.Sequential(*dense(), nn.Linear(3, 3).double()), HALF),
    ),
    _resumed(
        "another model",
        lambda: _kept(nn.Sequential(*dense(), nn.BatchNorm1d(3, affine=False).double())),
    ),
    _resumed(
        "a callback that is new", trainer=lambda: Trainer(dense(), HALF, callbacks=[_Counter()])
    ),
    _resumed("a callback that is missing", lambda: _kept(None, HALF, _Counter())),
    Case("resume: lines are lost", CheckpointError, _shortened),
]


class _Remembering(nn.Linear):
    """Its state is no tensor."""

    def get_extra_state(self) -> Any:
        return {"seen": 3}

    def set_extra_state(self, state: Any) -> None:
        raise NotImplementedError


def _captured(name: str, model: nn.Module, optimizer: Any = None) -> Case:
    def run(here: Here) -> None:
        stepped = None if optimizer is None else optimizer(model.parameters())
        trainer = Trainer(model, HALF, optimizer=stepped)
        if isinstance(stepped, torch.optim.LBFGS):
            stepped.state[next(model.parameters())] = {"old_dirs": []}
        capture(trainer)

    return Case(f"save: {name}", CheckpointError, run)


SAVED = [
    _captured("a state of the model that is no tensor", nn.Sequential(_Remembering(4, 3))),
    _captured("a state of the optimizer that is no tensor", nn.Linear(4, 3), torch.optim.LBFGS),
    _captured(
        "a learning rate that is a tensor",
        nn.Linear(4, 3),
        lambda parameters: torch.optim.Adam(parameters, lr=torch.tensor(0.1)),
    ),
]

RESUME_CASES = [*RESUMED, *SAVED]
