"""Sign-symmetric feedback: the weights' signs, and magnitudes as each rule has them."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from tests.oracles.exchanged import (
    CLOSE,
    feedback,
    network,
    wrap,
)


def test_uniform_signs_are_backpropagation_where_all_magnitudes_are_s() -> None:
    model = network()
    with torch.no_grad():
        for layer in (model[2], model[4]):
            s = math.sqrt(2 / (layer.in_features + layer.out_features))
            layer.weight.copy_(layer.weight.sign() * s)
    plain = copy.deepcopy(model)
    x = torch.randn(7, 4).double()
    wrap("usf", model)(x).square().sum().backward()
    plain(x).square().sum().backward()
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, **CLOSE)


@pytest.mark.parametrize("rule", ["usf", "brsf", "frsf"])
def test_signs_are_the_weights(rule: str) -> None:
    """At every step; magnitudes are new in every step for brsf alone."""
    model = network()
    learner = wrap(rule, model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    learner(torch.randn(2, 4).double())
    magnitudes = []
    for _ in range(3):
        B = feedback(learner, "2.weight")
        assert torch.equal(B.sign(), model[2].weight.sign())
        magnitudes.append(B.abs())
        optimizer.zero_grad()
        learner(torch.randn(9, 4).double()).square().sum().backward()
        optimizer.step()
    same = torch.equal(magnitudes[0], magnitudes[1])
    assert same == (rule != "brsf")


def test_magnitudes_drawn_anew_are_uniform() -> None:
    """Each sixteenth of (0, bound) gets its share, neighbours and the four of a word unrelated."""
    model = nn.Sequential(nn.Linear(4, 200), nn.ReLU(), nn.Linear(200, 101))
    learner = wrap("brsf", model)
    learner(torch.randn(2, 4))
    M = feedback(learner, "2.weight").abs() / math.sqrt(6 / 301)
    n = M.numel()
    assert 0 < M.min() < 1e-3
    assert 0.999 < M.max() < 1
    shares = torch.histc(M, 16, 0, 1) / n
    assert ((shares - 1 / 16).abs() < 4.5 * math.sqrt(15 / 256 / n)).all()
    z = (M.flatten() - 0.5) * math.sqrt(12)
    for lag in range(1, 9):
        assert (z[lag:] * z[:-lag]).mean().abs() < 4.5 / math.sqrt(n)


def test_a_weight_of_zero_gets_no_feedback() -> None:
    model = network()
    with torch.no_grad():
        model[2].weight[0].zero_()
    for rule in ("usf", "brsf", "frsf"):
        learner = wrap(rule, model)
        learner(torch.randn(2, 4).double())
        B = feedback(learner, "2.weight")
        assert not B[0].any()
        assert B[1:].all()
