"""Sign-symmetric feedback: the weights' signs, and magnitudes as each rule has them."""

from __future__ import annotations

import copy
import math

import pytest
import torch

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
