"""Direct feedback alignment: random starts, the two-layer closed form, and what makes it work."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fdfa
from tests.oracles.lessons import classify
from tests.oracles.statistics import LIMIT, cosine, deviation, variance_deviation

BOUNDS = {"kaiming-uniform": lambda units: math.sqrt(6 / units), "uniform": lambda n: n**-0.5}


def wide(seed: int, **options: str) -> fdfa.DFA:
    """Two taps of the same size, so that their maps could be confused; and a third."""
    model = nn.Sequential(
        *(nn.Linear(4, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU()),
        *(nn.Linear(200, 50), nn.ReLU(), nn.Linear(50, 40)),
    )
    learner = fdfa.DFA(model, seed=seed, **options)
    learner.plan(torch.randn(2, 4))
    assert learner.feedback.names() == ["1", "3", "5"]
    return learner


def maps(learner: fdfa.DFA) -> list[Tensor]:
    return [learner.feedback[tap].weight for tap in learner.feedback.names()]


@pytest.mark.parametrize("start", BOUNDS)
def test_starts_are_uniform_within_their_bound(start: str) -> None:
    learner = wide(0) if start == "kaiming-uniform" else wide(0, start=start)  # the default
    for B in maps(learner):
        bound = BOUNDS[start](B.shape[1])
        assert 0.998 * bound < B.abs().max() <= bound
        flat = B.flatten()[:, None].double()
        assert deviation(flat.mean(), 0, bound / math.sqrt(3 * len(flat))) < LIMIT
        assert variance_deviation(flat, bound**2 / 3) < LIMIT
        other = BOUNDS["uniform" if start == "kaiming-uniform" else "kaiming-uniform"]
        assert variance_deviation(flat, other(B.shape[1]) ** 2 / 3) > LIMIT


def test_maps_of_taps_and_seeds_are_independent() -> None:
    """The correlation of 8,000 pairs has a standard error of 1 / sqrt(8000); equal maps have 1."""
    first, second, _ = maps(wide(0))
    other_seed = maps(wide(1))[0]
    for a, b in ((first, second), (first, other_seed), (second, other_seed)):
        assert abs(cosine(a, b)) < LIMIT / a.numel() ** 0.5
    assert all(torch.equal(a, b) for a, b in zip(maps(wide(0)), maps(wide(0)), strict=True))


def test_two_layer_closed_form() -> None:
    """gW_1 = ((e B) * f'(a))^T x, with e from the definition of the loss and tanh by hand."""
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    x, target = torch.randn(9, 4).double(), torch.randint(3, (9,))
    learner = fdfa.DFA(model)
    y = classify(learner, x, target)
    e = (y.softmax(1) - F.one_hot(target, 3)) / 9
    h = torch.tanh(x @ model[0].weight.T + model[0].bias)
    delta = (e @ learner.feedback["1"].weight) * (1 - h**2)
    for ours, expected in (
        (model[0].weight.grad, delta.T @ x),
        (model[0].bias.grad, delta.sum(0)),
        (model[2].weight.grad, e.T @ h),
        (model[2].bias.grad, e.sum(0)),
    ):
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("method", [fdfa.DFA, fdfa.FDFA])
def test_maps_of_a_bfloat16_model_are_float32(method: type) -> None:
    """An average over thousands of lessons cannot be kept in eight bits."""
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).bfloat16()
    learner = method(model)
    classify(learner, torch.randn(9, 4).bfloat16(), torch.randint(3, (9,)))
    assert learner.feedback["1"].weight.dtype == torch.float32
    assert model[0].weight.grad.dtype == torch.bfloat16


def test_maps_never_move() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    learner = fdfa.DFA(model)
    optimizer = torch.optim.SGD(learner.parameters(), 0.1)
    learner.plan(torch.randn(8, 4))
    before = learner.feedback["1"].weight.clone()
    for _ in range(5):
        classify(learner, torch.randn(8, 4), torch.randint(3, (8,)))
        optimizer.step()
    assert torch.equal(before, learner.feedback["1"].weight)


def alignment(*, redraw: bool) -> list[float]:
    """Cosine of gW_1 with the true gradient over 400 steps; the map is fixed or new each step."""
    generator = torch.Generator().manual_seed(0)
    teacher = torch.randn(10, 4, generator=generator)
    model = nn.Sequential(nn.Linear(10, 30), nn.Tanh(), nn.Linear(30, 4))
    learner = fdfa.DFA(model, seed=11)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    cosines = []
    for _ in range(400):
        x = torch.randn(32, 10, generator=generator)
        exact = copy.deepcopy(model)
        exact.zero_grad()
        F.mse_loss(exact(x), x @ teacher).backward()
        optimizer.zero_grad()
        F.mse_loss(learner(x), x @ teacher).backward()
        cosines.append(cosine(model[0].weight.grad, exact[0].weight.grad))
        optimizer.step()
        if redraw:
            learner.feedback["1"].weight.uniform_(-0.4, 0.4, generator=generator)
    return cosines


def test_the_angle_to_the_true_gradient_falls_below_ninety_degrees() -> None:
    """The forward weights turn towards feedback that is fixed; towards a moving one they cannot."""
    fixed, moving = alignment(redraw=False), alignment(redraw=True)
    assert abs(sum(fixed[:5]) / 5) < 0.3
    assert min(fixed[-100:]) > 0.3
    assert abs(sum(moving[-100:]) / 100) < 0.15
