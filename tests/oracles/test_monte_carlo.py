"""Expectation and variance of d^T p, over 40,000 probes taken in one forward pass.

All samples of the batch are the same, so that each is one more probe of the same Jacobian.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import fdfa
from tests.oracles.lessons import Observed, frozen_step
from tests.oracles.perturbed import explicit_jacobians
from tests.oracles.statistics import LIMIT, deviation, variance_deviation

PROBES = 40_000
KURTOSIS = {"normal": 3.0, "rademacher": 1.0}


def curved() -> tuple[nn.Module, list[str]]:
    """Two taps with a layer norm, a ReLU and a tanh behind them."""
    return nn.Sequential(
        nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3), nn.LayerNorm(3), nn.ReLU(), nn.Linear(3, 2)
    ), ["1", "4"]


def wide_output() -> tuple[nn.Module, list[str]]:
    """One narrow tap: here J^2 is a large part of S, so the kurtosis term shows."""
    return nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 3), nn.Tanh()), ["0"]


NETWORKS = {"curved": curved, "wide output": wide_output}


def observed(
    network: Callable[[], tuple[nn.Module, list[str]]], noise: str
) -> tuple[Observed, list[Tensor], list[str]]:
    """A learner after one step at rate 1, and the exact Jacobians (K, |h_l|)."""
    model, taps = network()
    model = model.double()
    x = torch.randn(1, 3).double()
    jacobians = [J[0, :, 0] for J in explicit_jacobians(model, taps, x)]
    learner = Observed(model, taps=taps, feedback_rate=1.0, noise=noise, seed=7)
    frozen_step(learner, x.expand(PROBES, 3))
    return learner, jacobians, taps


def theory(jacobians: list[Tensor], index: int, kurtosis: float) -> Tensor:
    """Variance of one probe's d_k p_i: S_k, the cross-talk of all taps, and the kurtosis term."""
    S = sum(J.square().sum(1, keepdim=True) for J in jacobians)  # (K, 1)
    return S + (kurtosis - 2) * jacobians[index].square()


@pytest.mark.parametrize("noise", KURTOSIS)
@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_the_mean_is_the_jacobian(network: Callable, noise: str) -> None:
    learner, jacobians, taps = observed(network, noise)
    for i, (tap, J) in enumerate(zip(taps, jacobians, strict=True)):
        B = learner.feedback[tap].weight
        error = (theory(jacobians, i, KURTOSIS[noise]) / PROBES).sqrt()
        assert deviation(B, J, error) < LIMIT
        # Wrong estimators that the same check must refuse.
        assert deviation(-B, J, error) > LIMIT
        assert deviation(B * PROBES, J, error) > LIMIT  # no 1/N
        assert deviation(B * 1.1, J, error) > LIMIT  # a scale of the noise left in
        if len(taps) == 2:
            other = learner.p[1 - i][:, [0]]
            assert deviation((learner.d.T @ other / PROBES)[:, 0], J[:, 0], error[:, 0]) > LIMIT


@pytest.mark.parametrize("noise", KURTOSIS)
@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_the_variance_is_the_closed_form(network: Callable, noise: str) -> None:
    learner, jacobians, taps = observed(network, noise)
    for i, p in enumerate(learner.p):
        products = learner.d[:, :, None] * p[:, None, :]  # (N, K, |h|), one probe a row
        assert (
            deviation(products.mean(0), learner.feedback[taps[i]].weight, 1e-12) < 1
        )  # these are the products that were learned from
        assert variance_deviation(products, theory(jacobians, i, KURTOSIS[noise])) < LIMIT
        # Wrong formulas that the same check must refuse: the other noise, and no cross-talk.
        other = theory(jacobians, i, 4 - KURTOSIS[noise])
        assert variance_deviation(products, other) > LIMIT
        if len(taps) == 2:
            alone = theory([jacobians[i]], 0, KURTOSIS[noise])
            assert variance_deviation(products, alone) > LIMIT


@pytest.mark.parametrize("noise", KURTOSIS)
def test_the_total_error_of_one_probe_follows_the_closed_form(noise: str) -> None:
    """E|Jhat - J|^2 = (n_l sum_m |J_m|^2 + (kap - 2) |J_l|^2) / N, over 600 small batches."""
    model, taps = curved()
    model = model.double()
    x = torch.randn(1, 3).double()
    jacobians = [J[0, :, 0] for J in explicit_jacobians(model, taps, x)]
    learner = fdfa.FDFA(model, taps=taps, feedback_rate=1.0, noise=noise)
    errors = []
    for _ in range(600):
        frozen_step(learner, x.expand(5, 3))
        errors.append(
            [
                (learner.feedback[tap].weight - J).square().sum()
                for tap, J in zip(taps, jacobians, strict=True)
            ]
        )
    measured = torch.tensor(errors)
    expected = torch.stack(
        [theory(jacobians, i, KURTOSIS[noise]).sum() / 5 for i in range(len(taps))]
    )
    error = measured.std(0) / len(measured) ** 0.5
    assert deviation(measured.mean(0), expected, error) < LIMIT
    assert deviation(measured.mean(0), expected * 5 / 4, error) > LIMIT  # N - 1 for N


@pytest.mark.slow
def test_a_batch_in_train_mode_batch_norm_teaches_the_own_sample_block() -> None:
    """Batch norm couples samples, yet E[d_n^T p_n] = dy_n/dh_n; the mean over n is learned."""
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2)).double()
    x = torch.randn(4, 3).double()
    (J,) = explicit_jacobians(model, ["0"], x)  # (N, K, N, |h|)
    own = torch.stack([J[n, :, n] for n in range(4)]).mean(0)
    with_cross_terms = J.sum(2).mean(0)
    learner = fdfa.FDFA(model, taps=["0"], feedback_rate=1.0)
    draws = []
    for _ in range(3000):
        frozen_step(learner, x)
        draws.append(learner.feedback["0"].weight.clone())
    draws = torch.stack(draws)
    error = draws.std(0) / len(draws) ** 0.5
    assert deviation(draws.mean(0), own, error) < LIMIT
    assert deviation(draws.mean(0), with_cross_terms, error) > LIMIT
