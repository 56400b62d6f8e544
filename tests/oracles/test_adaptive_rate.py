"""Rates that maps measure for themselves, and maps that are corrected for their start at zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fdfa
from fdfa.engine.adaptive_rate import adapted_rate
from fdfa.engine.feedback import DirectFeedbackMap
from fdfa.engine.lessons import Correlation
from tests.oracles.lessons import Observed, frozen_step

K, UNITS = 4, 500


def steadily(delta: float, J: Tensor) -> Callable[[], Tensor]:
    """Always the same way, by delta an entry."""
    way = torch.randn_like(J).sign() * delta
    return lambda: way


def at_random(delta: float, J: Tensor) -> Callable[[], Tensor]:
    return lambda: torch.randn_like(J) * delta


def error_on_drift(drift: Callable[[], Tensor], J: Tensor, s2: float, lessons: int) -> float:
    """|B - J|^2 an entry, once the map has settled; every lesson in halves of 3 and 5 samples."""
    J, feedback = J.clone(), DirectFeedbackMap(outputs=K, units=UNITS, dtype=J.dtype)
    B, errors = feedback.weight, []
    sizes = [torch.full((UNITS,), float(n)).double() for n in (3, 5)]
    for lesson in range(lessons):
        J += drift()
        parts = [J + torch.randn_like(J) * (s2 * 8 / n[0]) ** 0.5 for n in sizes]
        mean = (3 * parts[0] + 5 * parts[1]) / 8
        told = Correlation(None, mean, None, tuple(zip(parts, sizes, strict=True)))
        B += adapted_rate(feedback, told, innovation=False) * (mean - B)
        if lesson >= lessons // 2:
            errors.append((B - J).square().mean().item())
    return sum(errors) / len(errors)


RATES = torch.logspace(-3, -0.01, 400).double()
BEST: dict[str, Any] = {
    # noise, and what a map lags behind, or what is new in each lesson
    "steadily": lambda s2, d: RATES / (2 - RATES) * s2 + ((1 - RATES) / RATES * d) ** 2,
    "at-random": lambda s2, d: (RATES * s2 + (1 - RATES) ** 2 / RATES * d**2) / (2 - RATES),
}


@pytest.mark.parametrize("s2", [1.0, pytest.param(30.0, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("kind", "moves"), [("steadily", steadily), ("at-random", at_random)])
def test_error_is_nearly_that_of_the_best_constant_rate(kind: str, moves: Any, s2: float) -> None:
    """Closed forms of what is best; at four times as much, or as little, they say far more."""
    J = torch.randn(K, UNITS).double()
    delta = 3e-3 if kind == "steadily" else 2e-2
    errors = BEST[kind](s2, delta)
    best, rate = errors.min().item(), RATES[errors.argmin()].item()
    found = error_on_drift(moves(delta, J), J, s2, 2000 if s2 == 1 else 5000)
    assert 0.9 * best < found < 1.2 * best
    for other in (rate * 4, rate / 4):
        assert errors[(RATES - other).abs().argmin()] > 1.2 * best


def test_the_steady_gain_of_the_docstring() -> None:
    """``a^3 = 2 delta^2 / s2``."""
    delta, s2, J = 1e-2, 1.0, torch.randn(K, UNITS).double()
    feedback = DirectFeedbackMap(outputs=K, units=UNITS, dtype=J.dtype)
    drift, n, gains = steadily(delta, J), torch.full((UNITS,), 4.0).double(), []
    for lesson in range(1500):
        J += drift()
        parts = [J + torch.randn_like(J) * (2 * s2) ** 0.5 for _ in range(2)]
        told = Correlation(None, sum(parts) / 2, None, tuple((part, n) for part in parts))
        gain = adapted_rate(feedback, told, innovation=False)
        feedback.weight.lerp_(told.mean, gain)
        if lesson >= 500:
            gains.append(gain.item())
    assert sum(gains) / len(gains) == pytest.approx((2 * delta**2 / s2) ** (1 / 3), rel=0.1)


@pytest.mark.parametrize("update", ["momentum", "innovation"])
def test_halves_of_a_batch_are_what_is_measured(update: str) -> None:
    """By hand from the perturbations of two lessons; seven samples make three and four."""
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    learner = Observed(model, taps=["1"], feedback_rate="adaptive", feedback_update=update)
    B, error, noise, gain = torch.zeros(2, 5).double(), 0.0, 0.0, 0.0
    for lesson in range(1, 6):
        frozen_step(learner, torch.randn(7, 3).double())
        d, (p,) = learner.d, learner.p
        seen = d - p @ B.T if update == "innovation" else d
        v = [
            sum(torch.outer(seen[n], p[n]) for n in rows) / len(rows)
            for rows in (range(3), range(3, 7))
        ]
        whole = (3 * v[0] + 4 * v[1]) / 7
        if update == "momentum":
            v, whole = [each - B for each in v], whole - B
        share = max(1 / lesson, gain / 4)
        error += share * ((v[0] * v[1]).mean().item() - error)
        noise += share * ((v[0] - v[1]).square().mean().item() * 12 / 49 - noise)
        gain = max(max(error, 0.0) / (max(error, 0.0) + noise), 1e-4)
        B = B + gain * whole
        torch.testing.assert_close(learner.feedback["1"].weight, B, rtol=1e-9, atol=1e-12)


def test_innovation_takes_its_fastest_rate() -> None:
    """``N / (N + n + 1)``, whatever the error: with frozen weights the map becomes exact."""
    model = nn.Sequential(nn.Linear(3, 15), nn.Tanh(), nn.Linear(15, 60)).double()
    learner = fdfa.FDFA(model, taps=["1"], feedback_rate="adaptive", feedback_update="innovation")
    for _ in range(150):
        frozen_step(learner, torch.randn(16, 3).double())
    B, J = learner.feedback["1"].weight, model[2].weight.detach()
    assert (B - J).norm() < 1e-6 * J.norm()


def test_a_single_sample_has_no_halves() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    learner = Observed(model, taps=["1"], feedback_rate="adaptive")
    frozen_step(learner, torch.randn(1, 3).double())
    torch.testing.assert_close(
        learner.feedback["1"].weight, 0.01 * torch.outer(learner.d[0], learner.p[0][0])
    )


@pytest.mark.parametrize("update", ["momentum", "innovation"])
def test_bias_correction_divides_by_what_is_learned(update: str) -> None:
    """1 - (1 - a)^t, t the lessons before: not the steps, of which every second one teaches."""
    a = 0.1
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2), nn.Tanh()).double()
    learner = fdfa.FDFA(
        model,
        taps=["1"],
        feedback_rate=a,
        feedback_update=update,
        bias_correction=True,
        probe_every=2,
    )
    credits: list[Tensor] = []
    e: list[Tensor] = []
    learner.on_credit = lambda tap, g: credits.append(g.clone())
    lessons = 0
    for step in range(9):
        x = torch.randn(6, 3).double()
        if step == 4:
            x[2, 1] = torch.nan  # teaches nothing
        learner.plan(x)
        B = learner.feedback["1"].weight.clone()
        y = learner(x)
        y.register_hook(e.append)
        y.sum().backward()
        learner.zero_grad()
        if not lessons:
            assert not credits[-1].any()
        elif step != 4:
            expected = e[-1] @ B / (1 - (1 - a) ** lessons)
            torch.testing.assert_close(credits[-1], expected, rtol=1e-10, atol=1e-12)
        lessons += step % 2 == 0 and step != 4


def test_bias_is_corrected_unit_by_unit_where_only_active_ones_learn() -> None:
    a = 0.25
    model = nn.Sequential(nn.Linear(3, 9), nn.ReLU(), nn.Linear(9, 2)).double()
    learner = fdfa.FDFA(
        model, taps=["1"], feedback_rate=a, average_over="active", bias_correction=True
    )
    times = torch.zeros(9)
    for _ in range(6):
        x = torch.randn(2, 3).double()
        frozen_step(learner, x)
        times += (model[:2](x) != 0).any(0)
    assert len(times.unique()) > 2
    expected = (1 - (1 - a) ** times).double()
    torch.testing.assert_close(learner.feedback["1"].learned, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"average_over": "active"}, {"shift_grid": 1}])
def test_the_map_that_is_compared_is_the_corrected_one(options: dict[str, Any]) -> None:
    model = nn.Sequential(
        *(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3)),
    ).double()
    learner = fdfa.FDFA(model, taps=["1"], feedback_rate=0.1, bias_correction=True, **options)
    credits: list[Tensor] = []
    x = torch.randn(5, 1, 2, 3).double()
    for _ in range(4):
        learner.on_credit = lambda tap, g: credits.append(g.clone())
        plan = learner.plan(x)
        B = learner.whole_map(plan, plan.taps[0]).clone()
        learner(x).square().sum().backward()
    torch.testing.assert_close(credits[-1].flatten(1), 2 * model(x).detach() @ B)


@pytest.mark.parametrize("update", ["adam", lambda maps: torch.optim.SGD(maps, lr=0.1)])
def test_an_optimiser_takes_over_maps_that_measured_their_rate(update: Any) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    before = fdfa.FDFA(model, feedback_rate="adaptive")
    frozen_step(before, torch.randn(6, 3))
    after = fdfa.FDFA(model, feedback_update=update, feedback_rate=0.1)
    after.load_state_dict(before.state_dict())
    weight = after.feedback["1"].weight.clone()
    frozen_step(after, torch.randn(6, 3))
    assert not torch.equal(after.feedback["1"].weight, weight)


def test_maps_that_had_no_lesson_yet_load_into_a_learner_that_counts() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    before, after = (fdfa.FDFA(model, bias_correction=True) for _ in range(2))
    before.plan(torch.ones(2, 3))
    after.load_state_dict(before.state_dict())
    assert after.feedback.names() == ["1"]
