"""When checkpoints are written: by steps, by the clock, at the end, when stopped."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
import torch

import fdfa
from fdfa.errors import ConfigError
from fdfa.training import (
    Callback,
    Checkpoints,
    EpochResult,
    MetricsLog,
    StepResult,
    Trainer,
    TrainingInterrupted,
    TrainingSettings,
    read_checkpoint,
    read_lines,
    restore,
)
from tests.training.cuts import assert_same_bits, everything
from tests.training.networks import busy, dense, pictures, points

SETTINGS = TrainingSettings(epochs=2, batch_size=8)  # 3 steps an epoch


class Clock:
    """Time that passes only when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("time.monotonic", lambda: self.now)


class Tick(Callback):
    """So many seconds a step, and an epoch."""

    def __init__(self, clock: Clock, step: float, epoch: float = 0) -> None:
        self.clock, self.step, self.epoch = clock, step, epoch

    def step_finished(self, trainer: Trainer, result: StepResult) -> None:
        self.clock.now += self.step

    def epoch_finished(self, trainer: Trainer, result: EpochResult) -> None:
        self.clock.now += self.epoch


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps of the checkpoints, in order, instead of files."""
    steps: list[int] = []
    monkeypatch.setattr(
        "fdfa.training.saving.write_checkpoint",
        lambda folder, checkpoint: steps.append(checkpoint.step),
    )
    return steps


@pytest.mark.parametrize(
    ("steps", "expected"), [(1, [1, 2, 3, 4, 5, 6, 6]), (2, [2, 4, 6, 6]), (5, [5, 6]), (7, [6])]
)
def test_by_steps(steps: int, expected: list[int], written: list[int]) -> None:
    """And at the end in any case."""
    saving = Checkpoints("unused", steps=steps, seconds=None)
    Trainer(dense(), SETTINGS, callbacks=[saving]).fit(points())
    assert written == expected


def test_by_the_clock(written: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    saving = Checkpoints("unused", seconds=60)
    clock.now += 600  # between making and training: data were loaded, say
    Trainer(dense(), SETTINGS, callbacks=[Tick(clock, 25), saving]).fit(points())
    assert written == [3, 6, 6]


def test_the_clock_counts_also_what_is_no_step(
    written: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    saving = Checkpoints("unused", seconds=60)
    Trainer(dense(), SETTINGS, callbacks=[Tick(clock, 1, epoch=100), saving]).fit(points())
    assert written == [3, 6, 6]


def test_by_both(written: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """One by steps starts the clock anew."""
    clock = Clock(monkeypatch)
    saving = Checkpoints("unused", steps=2, seconds=60)
    Trainer(dense(), SETTINGS, callbacks=[Tick(clock, 40), saving]).fit(points())
    assert written == [2, 4, 6, 6]


def test_by_default_after_a_minute(written: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    callbacks = [Tick(clock, 30), Checkpoints("unused")]
    Trainer(dense(), SETTINGS, callbacks=callbacks).fit(points())
    assert written == [2, 4, 6, 6]


@pytest.mark.parametrize("name", ["seconds", "steps"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_a_number_that_is_not_positive_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"{name}={value!r}"):
        Checkpoints("unused", **{name: value})


@pytest.mark.parametrize("steps", [1.5, True])
def test_a_share_of_a_step_is_refused(steps: Any) -> None:
    with pytest.raises(ConfigError, match=rf"steps={steps!r}"):
        Checkpoints("unused", steps=steps)


class StopAt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def step_finished(self, trainer: Trainer, result: StepResult) -> None:
        trainer.stop_requested = result.step == self.step


@pytest.mark.parametrize("step", range(1, 7))
def test_stopped_and_resumed_from_the_folder(step: int, tmp_path: pathlib.Path) -> None:
    """As a program does it: no checkpoint was due, but the stop writes one."""

    def make(number: int, stop: int) -> Trainer:
        learner = fdfa.FDFA(busy(number), seed=number)
        callbacks = [StopAt(stop), Checkpoints(tmp_path, seconds=None)]
        return Trainer(learner, SETTINGS, seed=number, callbacks=callbacks)

    torch.manual_seed(0)
    whole = Trainer(fdfa.FDFA(busy(1), seed=1), SETTINGS, seed=1)
    torch.manual_seed(0)
    whole.fit(pictures())
    expected = everything(whole)
    first = make(1, step)
    torch.manual_seed(0)
    with pytest.raises(TrainingInterrupted):
        first.fit(pictures())
    assert read_checkpoint(tmp_path).step == step
    second = make(2, 0)
    torch.manual_seed(9)
    restore(second, read_checkpoint(tmp_path))
    second.fit(pictures())
    assert_same_bits(everything(second), expected)
    assert read_checkpoint(tmp_path).step == 6


def test_a_finished_training_that_is_resumed_has_nothing_to_do(tmp_path: pathlib.Path) -> None:
    settings = TrainingSettings(epochs=5, batch_size=8, patience=1, learning_rate=0.5)
    trainer = Trainer(dense(), settings, callbacks=[Checkpoints(tmp_path)])
    trainer.fit(points(), points(12))
    again = Trainer(dense(5), settings, callbacks=[Checkpoints(tmp_path)])
    restore(again, read_checkpoint(tmp_path))
    assert again.finished
    assert again.fit(points(), points(12)) == ()
    assert_same_bits(everything(again), everything(trainer))


def test_when_they_are_written_changes_nothing_that_is_learned(tmp_path: pathlib.Path) -> None:
    found = []
    for callbacks in ([], [Checkpoints(tmp_path, steps=1)]):
        trainer = Trainer(fdfa.FDFA(busy(), seed=1), SETTINGS, callbacks=callbacks)
        torch.manual_seed(0)
        trainer.fit(pictures(), pictures(12))
        found.append(everything(trainer))
    assert_same_bits(found[1], found[0])


def test_more_epochs_can_be_added_to_a_finished_training(tmp_path: pathlib.Path) -> None:
    """Where the rate does not depend on how long it is to go on."""
    longer = TrainingSettings(epochs=4, batch_size=8)
    whole = Trainer(busy(1), longer, seed=1)
    torch.manual_seed(0)
    whole.fit(pictures())
    expected = everything(whole)
    short = Trainer(busy(1), SETTINGS, seed=1, callbacks=[Checkpoints(tmp_path)])
    torch.manual_seed(0)
    short.fit(pictures())
    more = Trainer(busy(2), longer, seed=2)
    restore(more, read_checkpoint(tmp_path))
    assert [result.epoch for result in more.fit(pictures())] == [3, 4]
    assert_same_bits(everything(more), expected)


def test_a_checkpoint_knows_what_all_others_have_done(tmp_path: pathlib.Path) -> None:
    """Wherever it stands among the callbacks: else a line would be lost in a resume."""
    (tmp_path / "whole").mkdir()
    log = MetricsLog(tmp_path / "whole", every_steps=1)
    saving = Checkpoints(tmp_path / "checkpoints", seconds=None)
    with pytest.raises(TrainingInterrupted):
        Trainer(dense(), SETTINGS, callbacks=[saving, StopAt(5), log]).fit(points())
    assert read_checkpoint(tmp_path / "checkpoints").values["step"] == 5
    again = Trainer(dense(2), SETTINGS, callbacks=[MetricsLog(tmp_path / "whole", every_steps=1)])
    restore(again, read_checkpoint(tmp_path / "checkpoints"))
    again.fit(points())
    lines, damaged = read_lines(tmp_path / "whole" / "steps.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert damaged == 0
