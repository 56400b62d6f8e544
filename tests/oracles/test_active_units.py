"""Maps over active units alone, against explicit Jacobians of a network with ReLUs."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fdfa
from tests.oracles.lessons import Observed, frozen_step
from tests.oracles.perturbed import explicit_jacobians
from tests.oracles.statistics import LIMIT, mean_deviation

TAPS = ["1", "3"]


def network(silent: bool = False) -> nn.Module:
    """Two hidden layers of ReLUs; with ``silent`` units that no input wakes."""
    model = nn.Sequential(
        *(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2), nn.Tanh())
    ).double()
    if silent:
        model[0].bias.data[2] = model[2].bias.data[4] = -100.0
    return model


def activations(model: nn.Module, x: Tensor) -> list[Tensor]:
    first = model[:2](x)
    return [first.detach(), model[2:4](first).detach()]


def own_jacobians(model: nn.Module, x: Tensor) -> list[Tensor]:
    """(N, K, |h|) at each tap: what lies across samples is zero here."""
    return [torch.einsum("nknh->nkh", J) for J in explicit_jacobians(model, TAPS, x)]


def over_active(jacobians: Tensor, h: Tensor) -> Tensor:
    """The mean Jacobian, in each column over the samples with an active unit; naively."""
    columns = []
    for unit in range(h.shape[1]):
        active = [n for n in range(len(h)) if h[n, unit] != 0]
        columns.append(jacobians[active, :, unit].sum(0) / max(len(active), 1))
    return torch.stack(columns, 1)


@pytest.mark.parametrize("noise", ["normal", "rademacher"])
def test_the_mean_map_is_the_jacobian_given_an_active_unit(noise: str) -> None:
    """Not the mean Jacobian of all samples, and not one that counts those with a resting unit."""
    model, x = network(), 2 * torch.randn(7, 3).double()
    from_all = []
    learner = fdfa.FDFA(model, taps=TAPS, feedback_rate=1.0, average_over="active", noise=noise)
    draws: dict[str, list[Tensor]] = {tap: [] for tap in TAPS}
    for _ in range(150):
        frozen_step(learner, x.repeat(40, 1))  # as many probes at once
        for tap in TAPS:
            draws[tap].append(learner.feedback[tap].weight.clone())
    for tap, J, h in zip(TAPS, own_jacobians(model, x), activations(model, x), strict=True):
        seen = (h != 0).any(0)
        assert ((h == 0).any(0) & seen).any()
        drawn = torch.stack(draws[tap])[:, :, seen]
        assert mean_deviation(drawn, over_active(J, h)[:, seen]) < LIMIT
        assert mean_deviation(drawn, (J * (h != 0)[:, None]).mean(0)[:, seen]) > LIMIT
        from_all.append(mean_deviation(drawn, J.mean(0)[:, seen]))
    assert max(from_all) > LIMIT


@pytest.mark.parametrize("probe", ["forward-ad", "finite-difference"])
def test_a_lesson_divides_by_the_samples_of_each_unit(probe: str) -> None:
    model, x = network(), torch.randn(7, 3).double()
    learner = Observed(model, taps=TAPS, feedback_rate=1.0, average_over="active", probe=probe)
    frozen_step(learner, x)
    for tap, p, h in zip(TAPS, learner.p, activations(model, x), strict=True):
        assert torch.equal(p != 0, h != 0)
        times = (h != 0).sum(0).clamp(min=1)
        expected = sum(torch.outer(d, q) for d, q in zip(learner.d, p, strict=True)) / times
        torch.testing.assert_close(learner.feedback[tap].weight, expected)


UPDATES: dict[str, dict[str, Any]] = {
    "momentum": {"feedback_rate": 0.3},
    "innovation": {"feedback_update": "innovation", "feedback_rate": 0.1},
    "adam": {"feedback_update": "adam", "feedback_rate": 0.1},
}


@pytest.mark.parametrize("update", UPDATES)
def test_columns_of_units_that_rest_keep_their_values(update: str) -> None:
    """Also where the optimiser still moves, from when the unit was active."""
    learner = fdfa.FDFA(network(), taps=TAPS, average_over="active", **UPDATES[update])
    frozen_step(learner, torch.randn(9, 3).double())
    learner.model.load_state_dict(network(silent=True).state_dict())
    before = copy.deepcopy(learner.feedback)
    frozen_step(learner, torch.randn(9, 3).double())
    for tap, unit in (("1", 2), ("3", 4)):
        old, new = before[tap].weight, learner.feedback[tap].weight
        assert torch.equal(new[:, unit], old[:, unit])
        assert not torch.equal(new, old)


def test_innovation_becomes_exact_where_the_rest_is_linear() -> None:
    """One tap before a linear read-out: the same Jacobian in all samples, active or not."""
    model = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2)).double()
    learner = fdfa.FDFA(
        model,
        taps=["1"],
        average_over="active",
        feedback_update="innovation",
        feedback_rate=0.4,
    )
    for _ in range(300):
        frozen_step(learner, torch.randn(32, 3).double())
    torch.testing.assert_close(
        learner.feedback["1"].weight, model[2].weight.detach(), rtol=1e-8, atol=1e-8
    )
