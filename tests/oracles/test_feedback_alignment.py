"""Feedback alignment: how its feedback starts, and through a parametrised weight."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from tests.oracles.exchanged import (
    CLOSE,
    Exchanged,
    network,
    wrap,
)


def test_starts_are_uniform_within_their_bound() -> None:
    for start, bound in (
        ("uniform", 200**-0.5),
        ("kaiming-uniform", math.sqrt(6 / 200)),
        ("xavier-uniform", math.sqrt(6 / 300)),
    ):
        model = nn.Sequential(nn.Linear(4, 200), nn.ReLU(), nn.Linear(200, 100))
        learner = wrap("fa", model, start=start)
        learner(torch.randn(2, 4))
        B = learner.feedback["2.weight"]
        assert 0.998 * bound < B.abs().max() <= bound
        assert abs(B.mean()) < 4 * bound / math.sqrt(3 * B.numel())


def test_parametrised_weight_is_exchanged_whole() -> None:
    """FA through weight norm: the effective weight's product is exchanged, its own gradient not."""
    model = network()
    nn.utils.parametrizations.weight_norm(model[2])
    learner = wrap("fa", model)
    x = torch.randn(7, 4).double()
    for _ in range(2):
        model.zero_grad()
        learner(x).square().sum().backward()
    assert learner.feedback.names() == ["2.weight", "4.weight"]
    twin = copy.deepcopy(model)
    twin.zero_grad()
    h1 = torch.tanh(twin[0](x))
    h2 = torch.tanh(
        Exchanged.apply(h1, twin[2].weight, learner.feedback["2.weight"]) + twin[2].bias
    )
    y = Exchanged.apply(h2, twin[4].weight, learner.feedback["4.weight"]) + twin[4].bias
    y.square().sum().backward()
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, **CLOSE)
