"""Relative step times of learners whose time is known, on a clock made for the test."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import fdfa
from fdfa.studies import speed
from fdfa.studies.speed import step_times

BATCH = (torch.zeros(4, 2), torch.zeros(4, dtype=torch.long))


class Clock:
    """Moves by what learners take, and by more and more, as on a machine that fills up."""

    def __init__(self, slowing: float = 0.25) -> None:
        self.now = 0.0
        self.slowing = slowing
        self.steps: dict[str, int] = {}

    def take(self, name: str, seconds: float) -> None:
        self.steps[name] = self.steps.get(name, 0) + 1
        self.now += seconds * (1 + self.slowing * self.now)

    def perf_counter(self) -> float:
        return self.now


class Timed(nn.Module):
    """Takes its time in one step in ``every``."""

    def __init__(self, clock: Clock, name: str, seconds: float, every: int = 1) -> None:
        super().__init__()
        self.clock, self.name, self.seconds = clock, name, seconds
        self.probe = SimpleNamespace(every=every)
        self.steps = 0
        self.layer = nn.Linear(2, 2)

    def __deepcopy__(self, memo: object) -> Timed:
        return Timed(self.clock, self.name, self.seconds, self.probe.every)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        probing = self.steps % self.probe.every == 0
        self.clock.take(self.name, self.seconds if probing else 0.0)
        self.steps += 1
        return self.layer(x)


def test_ratios_on_a_machine_that_fills_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if learners are timed one after the other, or a probe in 16 is caught by luck."""
    clock = Clock()
    monkeypatch.setattr(speed, "time", clock)
    learners = {
        "reference": Timed(clock, "reference", 0.005),
        "double": Timed(clock, "double", 0.010),
        "seldom": Timed(clock, "seldom", 0.080, every=16),  # 5 ms a step
    }
    times = step_times(learners, *BATCH, reference="reference", rounds=12)
    assert clock.now > 1.2, "the machine should have become slower by 30 % at least"
    assert times["reference"].ratio == 1
    assert times["double"].ratio == pytest.approx(2, rel=0.05)
    assert times["seldom"].ratio == pytest.approx(1, rel=0.05)
    rounds = times["seldom"].rounds
    assert rounds >= 12
    warm_up = 3
    assert clock.steps == {
        "reference": rounds + warm_up,
        "double": rounds + warm_up,
        "seldom": 16 * (rounds + warm_up),
    }
    assert all(learner.steps == 0 for learner in learners.values())


@pytest.mark.parametrize(
    ("seconds", "rounds"), [(60.0, 10), (0.05, 20), (1e-6, 400)], ids=["slow", "middling", "fast"]
)
def test_more_rounds_where_they_cost_little(
    seconds: float, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(slowing=0.0)
    monkeypatch.setattr(speed, "time", clock)
    learner = Timed(clock, "only", seconds)
    times = step_times({"only": learner}, *BATCH, reference="only", rounds=1)
    assert times["only"].rounds == pytest.approx(rounds, abs=1)


@pytest.mark.parametrize(("learners", "rounds"), [(4, 25), (8, 25), (16, 25), (2, 50)])
def test_many_learners_get_as_many_rounds_as_few(
    learners: int, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten milliseconds a turn: a second holds 100 of them, for up to four learners."""
    clock = Clock(slowing=0.0)
    monkeypatch.setattr(speed, "time", clock)
    timed = {str(number): Timed(clock, str(number), 0.01) for number in range(learners)}
    times = step_times(timed, *BATCH, reference="0", rounds=1)
    assert times["0"].rounds == pytest.approx(rounds, abs=1)


def test_real_learners_are_left_as_they_are() -> None:
    learner = fdfa.FDFA(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)))
    reference = fdfa.Backpropagation(nn.Sequential(nn.Linear(2, 2)))
    times = step_times({"fdfa": learner, "bp": reference}, *BATCH, reference="bp", rounds=1)
    assert learner.steps == 0
    assert learner.feedback.names() == []
    assert all(parameter.grad is None for parameter in learner.parameters())
    assert times["fdfa"].seconds > times["bp"].seconds > 0
