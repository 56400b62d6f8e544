"""The callback protocol: what a user's own code is told, and how its state survives."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from fdfa.errors import CheckpointError
from fdfa.training import (
    Callback,
    EpochResult,
    StepResult,
    Trainer,
    TrainingInterrupted,
    TrainingSettings,
    capture,
    restore,
)
from tests.training.cuts import Cuts, through_the_disk
from tests.training.networks import dense, points

SETTINGS = TrainingSettings(epochs=2, batch_size=8)  # 3 steps an epoch


class Average(Callback):
    """A running mean of the weights, as users keep one; its state is plain JSON."""

    def __init__(self) -> None:
        self.mean = 0.0
        self.events: list[str] = []

    def training_started(self, trainer: Trainer) -> None:
        self.events.append(f"started at {trainer.progress.step} with {self.mean:.6f}")

    def step_finished(self, trainer: Trainer, result: StepResult) -> None:
        weight = trainer.model.state_dict()["4.weight"]
        self.mean = 0.9 * self.mean + 0.1 * float(weight.mean())

    def state(self) -> Mapping[str, Any]:
        return {"mean": self.mean, "nested": {"list": [1, None, "text", 0.1]}}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.mean = state["mean"]
        assert state["nested"] == {"list": [1, None, "text", 0.1]}


def test_a_state_comes_back_before_the_training_starts(tmp_path: pathlib.Path) -> None:
    average, cuts = Average(), Cuts(tmp_path)
    Trainer(dense(), SETTINGS, callbacks=[average, cuts]).fit(points())
    for number in range(1, 7):
        again = Average()
        resumed = Trainer(dense(5), SETTINGS, callbacks=[again])
        restore(resumed, cuts.kept[f"step {number}"])
        at_cut = again.mean
        resumed.fit(points())
        assert again.mean == average.mean
        assert again.events == [f"started at {number} with {at_cut:.6f}"]


def test_callbacks_are_told_in_the_order_in_which_they_stand() -> None:
    heard: list[tuple[str, str]] = []

    class Named(Callback):
        def __init__(self, name: str) -> None:
            self.name = name

        def training_started(self, trainer: Trainer) -> None:
            heard.append((self.name, "started"))

        def step_finished(self, trainer: Trainer, result: StepResult) -> None:
            heard.append((self.name, f"step {result.step}"))

        def epoch_finished(self, trainer: Trainer, result: EpochResult) -> None:
            heard.append((self.name, f"epoch {result.epoch}"))

        def training_finished(self, trainer: Trainer) -> None:
            heard.append((self.name, "finished"))

    callbacks = [Named("a"), Named("b")]
    Trainer(dense(), TrainingSettings(epochs=1, batch_size=12), callbacks=callbacks).fit(points())
    events = ["started", "step 1", "step 2", "epoch 1", "finished"]
    assert heard == [(name, event) for event in events for name in ("a", "b")]


def test_the_trainer_is_what_the_results_say() -> None:
    class Compare(Callback):
        def step_finished(self, trainer: Trainer, result: StepResult) -> None:
            assert trainer.progress.step == result.step
            assert trainer.progress.epoch == result.epoch - 1
            assert trainer.progress.in_epoch
            assert trainer.optimizer.param_groups[0]["lr"] == result.learning_rate
            assert trainer.learner.training

        def epoch_finished(self, trainer: Trainer, result: EpochResult) -> None:
            assert trainer.progress.epoch == result.epoch
            assert not trainer.progress.in_epoch
            assert trainer.learner.training, "the validation has left it as it was"

    Trainer(dense(), SETTINGS, callbacks=[Compare()]).fit(points(), points(12))


def test_an_error_in_a_callback_is_the_users_to_see() -> None:
    class Fails(Callback):
        def step_finished(self, trainer: Trainer, result: StepResult) -> None:
            raise LookupError(f"at step {result.step}")

    trainer = Trainer(dense(), SETTINGS, callbacks=[Fails()])
    with pytest.raises(LookupError, match="at step 1"):
        trainer.fit(points())
    assert trainer.progress.step == 1


@pytest.mark.parametrize(
    "value", [torch.ones(2), {1: "one"}, {"set": {1}}, object()], ids=["tensor", "key", "set", "?"]
)
def test_a_state_that_json_would_change_is_refused_when_saved(
    value: Any, tmp_path: pathlib.Path
) -> None:
    class Odd(Callback):
        def state(self) -> Mapping[str, Any]:
            return {"value": value}

    with pytest.raises(CheckpointError, match=r"callbacks.*value"):
        through_the_disk(Trainer(dense(), SETTINGS, callbacks=[Odd()]), tmp_path)
    assert not list(tmp_path.glob("step-*"))


def test_callbacks_without_a_state_may_come_and_go(tmp_path: pathlib.Path) -> None:
    class Silent(Callback):
        pass

    for before, after in (([Silent()], []), ([], [Silent()])):
        trainer = Trainer(dense(), SETTINGS, callbacks=before)
        restore(Trainer(dense(5), SETTINGS, callbacks=after), capture(trainer))


def test_the_order_of_callbacks_of_different_kinds_does_not_matter() -> None:
    class Other(Average):
        pass

    first, second = Average(), Other()
    trainer = Trainer(dense(), SETTINGS, callbacks=[first, second])
    first.mean, second.mean = 1.0, 2.0
    checkpoint = capture(trainer)
    json.dumps(checkpoint.values)
    again, other = Average(), Other()
    restore(Trainer(dense(5), SETTINGS, callbacks=[other, again]), checkpoint)
    assert (again.mean, other.mean) == (1.0, 2.0)


def test_a_stop_is_obeyed_once_the_callbacks_have_been_told() -> None:
    heard: list[str] = []

    class Stop(Callback):
        def step_finished(self, trainer: Trainer, result: StepResult) -> None:
            trainer.stop_requested = True

    class After(Callback):
        def step_finished(self, trainer: Trainer, result: StepResult) -> None:
            heard.append("step")

        def training_interrupted(self, trainer: Trainer) -> None:
            heard.append("interrupted")

    with pytest.raises(TrainingInterrupted):
        Trainer(dense(), SETTINGS, callbacks=[Stop(), After()]).fit(points())
    assert heard == ["step", "interrupted"]
