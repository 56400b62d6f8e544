"""How feedback maps learn: the exponential average, optimisers and the innovation rule."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import fdfa
from tests.oracles.lessons import classify, frozen_step
from tests.oracles.statistics import LIMIT, deviation, mean_deviation, variance_deviation


def linear_readout(units: int, outputs: int) -> nn.Sequential:
    """Its Jacobian behind the tap is W_out for every sample."""
    return nn.Sequential(nn.Linear(3, units), nn.Linear(units, outputs)).double()


def test_the_average_approaches_the_jacobian_as_one_minus_a_power() -> None:
    """E B = (1 - (1 - a)^t) J after t steps from zero, over 500 runs of 4 steps."""
    rate, steps, runs = 0.3, 4, 500
    model = linear_readout(4, 2)
    J = model[1].weight.detach()
    learner = fdfa.FDFA(model, taps=["0"], feedback_rate=rate)
    x = torch.randn(8, 3).double()
    ends = []
    for _ in range(runs):
        for _ in range(steps):
            frozen_step(learner, x)
        ends.append(learner.feedback["0"].weight.clone())
        learner.feedback["0"].weight.zero_()
    ends = torch.stack(ends)
    assert mean_deviation(ends, (1 - (1 - rate) ** steps) * J) < LIMIT
    assert mean_deviation(ends, (1 - (1 - rate) ** (steps + 1)) * J) > LIMIT  # one lesson missed
    assert mean_deviation(ends, J) > LIMIT


@pytest.mark.slow
@pytest.mark.parametrize(("noise", "kurtosis"), [("normal", 3), ("rademacher", 1)])
def test_the_average_settles_at_the_stationary_variance(noise: str, kurtosis: int) -> None:
    """Var B -> a / (2 - a) Var Jhat, from every sixth step of one run (correlation .5^6)."""
    rate, samples = 0.5, 4
    model = linear_readout(4, 2)
    J = model[1].weight.detach()
    learner = fdfa.FDFA(model, taps=["0"], feedback_rate=rate, noise=noise)
    x = torch.randn(samples, 3).double()
    frozen_step(learner, x)
    learner.feedback["0"].weight.copy_(J)
    kept = []
    for step in range(6000):
        frozen_step(learner, x)
        if step % 6 == 5:
            kept.append(learner.feedback["0"].weight.clone())
    kept = torch.stack(kept)
    single = (J.square().sum(1, keepdim=True) + (kurtosis - 2) * J.square()) / samples
    assert mean_deviation(kept, J) < LIMIT
    assert variance_deviation(kept, rate / (2 - rate) * single) < LIMIT
    assert variance_deviation(kept, rate**2 * single) > LIMIT  # a single lesson's share
    assert variance_deviation(kept, rate / (2 - rate) * single * samples) > LIMIT  # no 1/N


def test_the_last_map_becomes_the_readout_of_a_curved_network() -> None:
    """Also with the cross-talk of a lower tap; a large batch makes the mean tight."""
    model = nn.Sequential(
        nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2)
    ).double()
    W = model[4].weight.detach()
    learner = fdfa.FDFA(model, feedback_rate=1.0)
    x = torch.randn(40_000, 3).double()
    frozen_step(learner, x)
    B = learner.feedback["3"].weight
    assert B.shape == (2, 4)
    error = (
        3 * W.square().sum(1, keepdim=True) / len(x)
    ).sqrt()  # lower tap: at most twice as loud
    assert deviation(B, W, error) < LIMIT
    assert deviation(-B, W, error) > LIMIT


def train_beside(
    update: Callable, other: Callable | str, rate: float, steps: int
) -> tuple[fdfa.FDFA, fdfa.FDFA]:
    """Two learners with the same start, seed and batches, whose weights train too."""
    model = nn.Sequential(
        nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)
    ).double()
    learners = [
        fdfa.FDFA(copy.deepcopy(model), feedback_rate=rate, feedback_update=rule, seed=2)
        for rule in (update, other)
    ]
    optimizers = [torch.optim.Adam(learner.parameters(), 1e-2) for learner in learners]
    for _ in range(steps):
        x, target = torch.randn(8, 3).double(), torch.randint(3, (8,))
        for learner, optimizer in zip(learners, optimizers, strict=True):
            optimizer.zero_grad()
            classify(learner, x, target)
            optimizer.step()
    return learners[0], learners[1]


def test_sgd_on_the_maps_is_the_average() -> None:
    rate = 0.05
    by_sgd, by_average = train_beside(
        lambda maps: torch.optim.SGD(maps, lr=rate), "momentum", rate, steps=60
    )
    for ours, theirs in zip(by_sgd.parameters(), by_average.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    for tap in by_sgd.feedback.names():
        torch.testing.assert_close(
            by_sgd.feedback[tap].weight, by_average.feedback[tap].weight, rtol=1e-10, atol=1e-12
        )


@pytest.mark.parametrize("named", [True, False], ids=["adam", "factory"])
def test_adam_on_the_maps_is_adam_by_hand_on_b_minus_the_lesson(named: bool) -> None:
    lr, beta1, beta2, eps = 3e-2, 0.9, 0.999, 1e-8
    model = linear_readout(4, 2)
    update = {"feedback_update": "adam", "feedback_rate": lr}
    if not named:
        update = {"feedback_update": lambda maps: torch.optim.Adam(maps, lr=lr)}
    learner = fdfa.FDFA(model, taps=["0"], **update, seed=4)
    # The same probes at rate 1 leave each step's d^T p / N in the twin's map.
    twin = fdfa.FDFA(copy.deepcopy(model), taps=["0"], feedback_rate=1.0, seed=4)
    B = torch.zeros(2, 4).double()
    m, v = torch.zeros_like(B), torch.zeros_like(B)
    for t in range(1, 31):
        x = torch.randn(6, 3).double()
        frozen_step(learner, x)
        frozen_step(twin, x)
        gradient = B - twin.feedback["0"].weight
        m = beta1 * m + (1 - beta1) * gradient
        v = beta2 * v + (1 - beta2) * gradient**2
        B = B - lr * (m / (1 - beta1**t)) / ((v / (1 - beta2**t)).sqrt() + eps)
        torch.testing.assert_close(learner.feedback["0"].weight, B, rtol=1e-9, atol=1e-12)


def innovation_errors(rate: float, steps: int, units: int = 30, samples: int = 16) -> Tensor:
    """|B - J|^2 after each step with frozen weights and one tap."""
    model = linear_readout(units, 3)
    J = model[1].weight.detach()
    learner = fdfa.FDFA(model, taps=["0"], feedback_update="innovation", feedback_rate=rate)
    x = torch.randn(samples, 3).double()
    learner.plan(x)
    errors = [J.square().sum()]
    for _ in range(steps):
        frozen_step(learner, x)
        errors.append((learner.feedback["0"].weight - J).square().sum())
    return torch.stack(errors)


@pytest.mark.parametrize("rate", [0.1, 16 / 47, 0.5])
def test_innovation_decays_at_the_rate_of_the_closed_form(rate: float) -> None:
    """|B - J|^2 shrinks by 1 - 2a + a^2 (1 + (n + 1) / N) a step; here n = 30 and N = 16."""
    errors = innovation_errors(rate, 150)
    ratios = errors[1:] / errors[:-1]
    expected = 1 - 2 * rate + rate**2 * (1 + 31 / 16)
    error = (ratios.std() / len(ratios) ** 0.5).item()
    assert deviation(ratios.mean(), expected, error) < LIMIT
    assert deviation(ratios.mean(), 1 - 2 * rate + rate**2, error) > LIMIT  # noise forgotten
    assert errors[-1] < errors[0] * (expected + 0.1) ** 150 * 10


def test_innovation_is_exact_where_the_average_stays_noisy() -> None:
    assert innovation_errors(16 / 47, 150)[-1] < 1e-16
    model = linear_readout(30, 3)
    learner = fdfa.FDFA(model, taps=["0"], feedback_rate=16 / 47)
    for _ in range(150):
        frozen_step(learner, torch.randn(16, 3).double())
    J = model[1].weight.detach()
    relative = ((learner.feedback["0"].weight - J).norm() / J.norm()).item()
    floor = (16 / 47 / (2 - 16 / 47) * 31 / 16) ** 0.5
    assert 0.5 * floor < relative < 2 * floor


def test_innovation_is_stable_up_to_the_bound_only() -> None:
    """The bound is a < 2N / (N + n + 1) = 32/47 for n = 30, N = 16."""
    assert innovation_errors(0.75 * 32 / 47, 100)[-1] < 1e-3
    assert innovation_errors(1.0, 100)[-1] > 1e3


def test_innovation_sees_what_all_taps_together_foretell() -> None:
    """Two taps before a linear rest: both maps become exact, so each tap's noise was foreseen."""
    model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 4), nn.Linear(4, 2)).double()
    learner = fdfa.FDFA(model, taps=["0", "1"], feedback_update="innovation", feedback_rate=0.6)
    for _ in range(200):
        frozen_step(learner, torch.randn(16, 3).double())
    W2, W3 = model[1].weight.detach(), model[2].weight.detach()
    torch.testing.assert_close(learner.feedback["1"].weight, W3, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(learner.feedback["0"].weight, W3 @ W2, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("update", ["momentum", "innovation", "adam"])
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_derivative_that_is_not_finite_teaches_nothing(update: str, poison: float) -> None:
    """One bad batch must not stay in the map for ever; the next good one teaches again."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2), nn.Tanh()).double()
    learner = fdfa.FDFA(model, taps=["0"], feedback_update=update)
    frozen_step(learner, torch.randn(8, 3).double())
    before = learner.feedback["0"].weight.clone()
    bad = torch.randn(8, 3).double()
    bad[2, 1] = poison
    frozen_step(learner, bad)
    assert torch.equal(learner.feedback["0"].weight, before)
    frozen_step(learner, torch.randn(8, 3).double())
    assert learner.feedback["0"].weight.isfinite().all()
    assert not torch.equal(learner.feedback["0"].weight, before)
