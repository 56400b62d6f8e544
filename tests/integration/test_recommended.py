"""What we recommend: short backward paths, and options that the user may replace."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import fdfa
import fdfa.models
from fdfa.engine.relay_routes import longest_backward_path
from fdfa.errors import ConfigError


@pytest.mark.parametrize(
    ("network", "layers"), [("convolutional", 2), ("fully-connected", 1), ("lenet", 2)]
)
def test_no_error_travels_further_than_two_layers(network: str, layers: int) -> None:
    learner = fdfa.recommended(fdfa.models.build(network, image=(1, 28, 28), classes=10))
    plan = learner.plan(torch.ones(2, 1, 28, 28))
    assert longest_backward_path(plan, learner.relay).weight_layers == layers


def test_options_are_replaced() -> None:
    learner = fdfa.recommended(nn.Sequential(nn.Conv1d(1, 2, 3)), relay=2, feedback_rate=0.1)
    assert (learner.relay, learner.feedback_rate, learner.first_block_every) == (2, 0.1, 2)
    with pytest.raises(ConfigError, match="relay=-1"):
        fdfa.recommended(nn.Linear(2, 2), relay=-1)


@pytest.mark.parametrize("convolution", [nn.Conv2d(1, 4, 3, padding=1), nn.Identity()])
def test_it_learns(convolution: nn.Module) -> None:
    """The quadrant in which a picture is bright: not linear in pixels of either sign."""
    torch.manual_seed(0)
    x = torch.randn(256, 1, 8, 8)
    y = (x.abs()[:, 0, :4].mean((1, 2)) > x.abs()[:, 0, 4:].mean((1, 2))).long()
    model = nn.Sequential(
        *(convolution, nn.ReLU(), nn.Flatten(), nn.LazyLinear(64), nn.ReLU(), nn.Linear(64, 2))
    )
    model(x)
    learner = fdfa.recommended(model)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(learner(x), y)
        loss.backward()
        optimizer.step()
    assert (model(x).argmax(1) == y).float().mean() > 0.9
