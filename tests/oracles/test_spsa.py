"""Two-sided differences: their error by the third derivative, weights untouched, no graph."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp

import fdfa
from tests.oracles.statistics import LIMIT, mean_deviation, variance_deviation
from tests.oracles.weight_space import data, directions, gradient, small, taken


def _error(step: float) -> tuple[Tensor, Tensor]:
    """How far c is from the slope, and what the third derivative says."""
    learner = fdfa.SPSA(small(), difference_step=step, seed=3)
    (z,) = directions(learner, 0)
    x, target = data()
    sizes = {name: p.shape for name, p in small().named_parameters()}

    def output(w: Tensor) -> Tensor:
        parts = w.split([shape.numel() for shape in sizes.values()])
        weights = {n: part.view(s) for part, (n, s) in zip(parts, sizes.items(), strict=True)}
        return functional_call(learner.model, weights, (x,))

    def along(function: Any) -> Any:
        return lambda w: jvp(function, (w,), (z,))[1]

    w = torch.cat([p.detach().flatten() for p in small().parameters()])
    y = output(w).requires_grad_()
    (e,) = torch.autograd.grad(nn.functional.cross_entropy(y, target), y)
    slope = (e * along(output)(w)).sum()
    third = (e * along(along(along(output)))(w)).sum()
    c = gradient(learner, (x, target)) @ z / z.square().sum()
    return c - slope, step**2 / 6 * third


def test_error_is_the_third_derivatives() -> None:
    for step in (1e-2, 1e-3):
        found, theory = _error(step)
        torch.testing.assert_close(found, theory, rtol=100 * step, atol=1e-12)
    assert (_error(1e-2)[0] / _error(1e-3)[0] / 100 - 1).abs() < 0.02  # one-sided it would be 10


@pytest.mark.slow
def test_mean_and_variance() -> None:
    for noise, sign in (("normal", 1), ("rademacher", -1)):
        found, g = taken("spsa", 600, noise=noise)
        assert mean_deviation(found, g) < LIMIT
        assert variance_deviation(found, g.square().sum() + sign * g.square()) < LIMIT
        assert mean_deviation(-found, g) > LIMIT


class _Watchful(nn.Module):
    """Sees which weights its passes run with, and may stop one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.body = small()
        self.seen: list[Tensor] = []
        self.stop_at = -1

    def forward(self, x: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        self.seen.append(self.body[0].weight.detach().clone())
        if len(self.seen) == self.stop_at:
            raise KeyboardInterrupt
        return self.body(x)


def test_weights_are_never_written_to() -> None:
    """Three passes with moved weights, moved back, and their own; bit for bit the same afterwards.

    Not even a version counter has moved: what else of the user's holds the weights goes on. And so
    if any of the passes is broken off.
    """
    model = _Watchful()
    learner = fdfa.SPSA(model)
    for stop_at in (-1, 1, 2, 3):
        model.seen, model.stop_at = [], stop_at
        parameters = list(model.parameters())
        before = [(p, p.data_ptr(), p._version, p.detach().clone()) for p in parameters]
        try:
            learner(data()[0])
        except KeyboardInterrupt:
            assert stop_at > 0
        for p, (same, place, version, value) in zip(model.parameters(), before, strict=True):
            assert p is same
            assert (p.data_ptr(), p._version) == (place, version)
            assert torch.equal(p, value)
    ahead, behind, itself = model.seen
    torch.testing.assert_close((ahead + behind) / 2, itself, rtol=0, atol=1e-12)
    assert (ahead != itself).all()
    assert torch.equal(itself, model.body[0].weight)


class _NoDerivative(torch.autograd.Function):
    """Neither a backward nor a forward derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.sin()


class _Opaque(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return _NoDerivative.apply(x)


def test_needs_no_derivative_and_no_graph() -> None:
    """Nothing is saved for backward but what the loss itself saves."""
    learner = fdfa.SPSA(nn.Sequential(nn.Linear(4, 50), _Opaque(), nn.Linear(50, 3)))
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
        y = learner(torch.randn(5, 4))
    assert not saved
    y.sum().backward()
    assert all(p.grad.any() for p in learner.parameters())
