"""Noise, lag and spread on networks where each is known, by closed forms and by replicas.

Behind the tap the network is ``y = h (A + c D)^T``: c is -1 or +1 and comes with the sample, so
the Jacobian of a sample is A + c D, the mean one A. The test moves A by a fixed step.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fdfa
from fdfa.diagnostics import credit_errors, jacobians
from fdfa.diagnostics.jacobian_moments import measure_moments
from fdfa.diagnostics.jacobians import OpenTaps, open_learner
from fdfa.diagnostics.map_noise import probe_covariances
from tests.oracles.statistics import LIMIT, mean_deviation

K, UNITS, BATCH = 2, 3, 4


class Gated(nn.Module):
    """The first component of an input is c."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, UNITS)
        self.A = nn.Parameter(torch.randn(K, UNITS))
        self.D = nn.Parameter(torch.randn(K, UNITS))

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x[:, 1:])
        return h @ self.A.T + x[:, :1] * (h @ self.D.T)


def inputs(size: int) -> Tensor:
    x = torch.randn(size, 3, dtype=torch.float64)
    x[:, 0] = torch.randint(2, (size,)) * 2.0 - 1
    return x


def weighed(y: Tensor, e: Tensor) -> Tensor:
    """A loss whose output error is e."""
    return (y * e).sum()


def energy(rows: Tensor) -> float:
    return rows.square().sum().item()


class Measured:
    """What is found on 8 fresh samples, as energies, and what is so by hand."""

    def __init__(self, learner: fdfa.FDFA, *, probe_batch: int = BATCH) -> None:
        model, x, e = learner.model, inputs(8), torch.randn(8, K).double()
        found = credit_errors(learner, weighed, x, e, probe_batch=probe_batch)["first"]
        J = model.A + x[:, :1, None] * model.D
        whole = energy(torch.einsum("nk,nki->ni", e, J))
        self.B, self.e = learner.feedback["first"].weight, e
        self.noise, self.lag, self.spread = (
            part * whole for part in (found.noise, found.lag, found.spread)
        )
        parts = found.noise + found.lag + found.spread + found.interaction
        assert parts == pytest.approx(found.total, rel=1e-9)
        B = torch.einsum("nk,nki->ni", e, self.B - J)
        assert found.total * whole == pytest.approx(energy(B), rel=1e-9)

    def beside(self, mean: Tensor, lag: Tensor, D: Tensor) -> list[float]:
        """By how much each part is off, where the map has this mean that is so far from A."""
        e = self.e
        return [
            self.noise - energy(e @ (self.B - mean)),
            self.lag - energy(e @ lag),
            self.spread - energy(e @ D),
        ]


# It leaves the length of A as it is, to first order, and with it the noise.
STEP = torch.tensor([[0.0, 0.0, 0.15], [0.0, 0.0, -0.1]]).double()
LARGE = 32  # samples in a probe, so that the noise does not drown the lag


def drifting(a: float, *, count: int, **options: Any) -> Iterator[fdfa.FDFA]:
    """Time and again a learner whose A has moved by STEP for so long that only that counts."""
    model = Gated().double()
    learner = fdfa.FDFA(model, taps=["first"], feedback_rate=a, seed=5, **options)
    learner.plan(inputs(LARGE))
    there, B = model.A.detach().clone(), learner.feedback["first"].weight
    there[:, 2] = 0
    for _ in range(count):
        model.A.data.copy_(there - 12 * STEP)
        B.copy_(model.A.detach() - (1 - a) / a * STEP)
        for _ in range(12):
            model.A.data.add_(STEP)
            weighed(learner(inputs(LARGE)), torch.zeros(LARGE, K)).backward()
        yield learner


def check_drifting(count: int, update: str, noise: str) -> None:
    """The parts agree with the closed forms and with the map's own motion."""
    a, off, parts = 0.4, [], []
    behind = -(1 - a) / a * STEP
    for learner in drifting(a, count=count, feedback_update=update, noise=noise):
        now, model = Measured(learner, probe_batch=LARGE), learner.model
        off.append(now.beside(model.A + behind, behind, model.D))
        parts.append([now.noise, now.lag, now.spread])
    beside, energies = torch.tensor(off).double(), torch.tensor(parts).double()
    assert mean_deviation(beside, 0.0) < LIMIT
    # and would not if a part were missing, or the noise that of probes of half as many samples
    for wrong in range(3):
        assert mean_deviation((beside - energies)[:, wrong : wrong + 1], 0.0) > LIMIT
    assert mean_deviation((beside + energies)[:, :1], 0.0) > LIMIT


def test_parts_of_a_map_that_follows_moving_weights() -> None:
    check_drifting(60, "momentum", "rademacher")


@pytest.mark.slow
@pytest.mark.parametrize("noise", ["normal", "rademacher"])
@pytest.mark.parametrize("update", ["momentum", "innovation"])
def test_parts_for_every_update_and_noise(update: str, noise: str) -> None:
    check_drifting(500, update, noise)


def replicas(count: int, steps: int, model: nn.Module, **options: Any) -> Iterator[fdfa.FDFA]:
    """Learners that differ in their probes and batches, after so many steps on fixed weights."""
    for seed in range(count):
        learner = fdfa.FDFA(model, seed=seed, **options)
        for _ in range(steps):
            weighed(learner(inputs(BATCH)), torch.zeros(BATCH, K)).backward()
        yield learner


@pytest.mark.slow
@pytest.mark.parametrize("noise", ["normal", "rademacher"])
def test_parts_of_the_first_probes(noise: str) -> None:
    """Three steps with two probes: the map is at ``1 - (1 - a)^2`` of its mean."""
    a, model, seen = 0.4, Gated().double(), []
    for learner in replicas(
        100, 3, model, taps=["first"], feedback_rate=a, noise=noise, probe_every=2
    ):
        mean = (1 - (1 - a) ** 2) * model.A
        seen.append(Measured(learner).beside(mean, mean - model.A, model.D))
    assert mean_deviation(torch.tensor(seen).double(), 0.0) < LIMIT


@pytest.mark.slow
def test_noise_is_shared_with_other_taps_and_projected() -> None:
    """Two taps, one of which is a wide one; three outputs on two dimensions; fixed batch."""
    model = nn.Sequential(nn.Linear(3, 6), nn.Linear(6, 2), nn.Linear(2, 3)).double()
    x, e = torch.randn(BATCH, 3).double(), torch.randn(BATCH, 3).double()
    W2, W3 = model[1].weight, model[2].weight
    means = {"0": W3 @ W2, "1": W3}
    seen = []
    for seed in range(120):
        learner = fdfa.FDFA(model, taps=["0", "1"], feedback_rate=0.5, seed=seed, rank=2)
        learner.plan(x)
        torch.manual_seed(0)  # one projection for all
        P = torch.linalg.qr(torch.randn(3, 2).double())[0].T
        learner.projection.weight.copy_(P)
        weighed(learner(x), e).backward()
        found = credit_errors(learner, weighed, x, e)
        row = []
        for tap, mean in means.items():
            z = e @ P.T
            moved = energy(z @ (learner.feedback[tap].weight - 0.5 * P @ mean))
            row.append(found[tap].noise * energy(e @ mean) - moved)
        seen.append(row)
    assert mean_deviation(torch.tensor(seen).double(), 0.0) < LIMIT


@pytest.mark.slow
def test_noise_where_samples_meet() -> None:
    """Batch norm: what other samples' perturbations do to an output is noise too."""
    model = nn.Sequential(
        nn.Linear(2, 8), nn.Linear(8, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2)
    ).double()
    x, e = torch.randn(BATCH, 2).double(), torch.randn(BATCH, 2).double()
    mean = jacobians(fdfa.FDFA(model, taps=["0"]), x)["0"].mean(0)
    moved = []
    for seed in range(200):
        learner = fdfa.FDFA(model, taps=["0"], feedback_rate=1.0, seed=seed)
        weighed(learner(x), e).backward()
        moved.append(energy(e @ (learner.feedback["0"].weight - mean)))
    with open_learner(learner, x) as opened:
        (moments,) = measure_moments(OpenTaps(opened.run, 1, None), e, exact=True)
    (found,) = probe_covariances([moments], [8], noise="normal", batch=BATCH)
    found = found - moments.covariance / BATCH  # the batch is always the same here
    # what is said to be left out: two samples' effects on each other
    W = torch.autograd.functional.jacobian(model[1:], model[0](x))  # (N, K, N, |h|)
    pairs = torch.einsum("nkmi,mjni->kj", W, W) - torch.einsum("nkni,njni->kj", W, W)
    assert pairs.abs().max() < found.abs().max() * BATCH**2 / 8
    expected = (e.T @ e * (found + pairs / BATCH**2)).sum().item()
    assert mean_deviation(torch.tensor(moved).double(), expected) < LIMIT
