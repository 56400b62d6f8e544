"""PEPITA in layers of all kinds: convolutions, a residual block, functions, writes in place."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fdfa
from fdfa.errors import UnsupportedModelError
from tests.oracles.pepita import CLASSES, N, assert_equal, data, learn, network, projection


def test_convolutions_take_the_mean_over_positions() -> None:
    """By loops over samples and positions, batch norm between, a stride and padding."""
    model = nn.Sequential(
        *(nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()),
        nn.Linear(4 * 9, CLASSES),
    ).double()
    x, target = torch.randn(N, 2, 6, 6).double(), torch.randint(CLASSES, (N,))
    learner = fdfa.wrap("pepita", model)
    found = learn(learner, x, target)
    y = model(x)
    e = y.detach().softmax(1) - F.one_hot(target, CLASSES)
    moved = x + (e @ projection(learner).T).view(x.shape)
    h, h_moved = (model[:3](each).detach() for each in (x, moved))
    z_moved = model[0](moved).detach()
    delta = h - h_moved
    padded = F.pad(moved, (1, 1, 1, 1))
    expected = {name: torch.zeros_like(found[name]) for name in found}
    centred = z_moved - z_moved.mean((0, 2, 3), keepdim=True)
    normal = centred / (z_moved.var((0, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
    for n in range(N):
        for i in range(3):
            for j in range(3):
                patch = padded[n, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
                credit = delta[n, :, i, j] / (9 * N)
                expected["0.weight"] += credit[:, None, None, None] * patch
                expected["0.bias"] += credit
                expected["1.weight"] += credit * normal[n, :, i, j]
                expected["1.bias"] += credit
    y_moved = model(moved).detach()
    last = (y_moved.softmax(1) - F.one_hot(target, CLASSES)) / N
    expected["4.weight"] = last.T @ h_moved.flatten(1)
    expected["4.bias"] = last.sum(0)
    assert_equal(found, expected)


class _Written(nn.Module):
    """The same network as ``network()``, by functions, a product and a sum, and in place."""

    def __init__(self, model: nn.Sequential) -> None:
        super().__init__()
        self.W1 = nn.Parameter(model[0].weight.detach().T.clone())
        self.b1 = nn.Parameter(model[0].bias.detach().clone())
        self.second, self.third = copy.deepcopy(model[3]), copy.deepcopy(model[6])

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(x @ self.W1 + self.b1)
        h = F.relu(F.linear(h, self.second.weight, self.second.bias), inplace=True)
        y: Tensor = self.third(h.mul_(1.0))
        return y


def test_how_a_layer_is_written_makes_no_difference() -> None:
    model, (x, target) = network(), data()
    expected = learn(fdfa.wrap("pepita", model, seed=3), x, target)
    written = _Written(model)
    found = learn(fdfa.wrap("pepita", written, seed=3), x, target)
    torch.testing.assert_close(found["W1"].T, expected["0.weight"])
    torch.testing.assert_close(found["b1"], expected["0.bias"])
    for kind in ("weight", "bias"):
        torch.testing.assert_close(found[f"second.{kind}"], expected[f"3.{kind}"])
        torch.testing.assert_close(found[f"third.{kind}"], expected[f"6.{kind}"])


def test_a_parametrised_weight_learns_through_its_parametrisation() -> None:
    """By the chain rule from what the plain weight would learn."""
    model, (x, target) = network(), data()
    expected = learn(fdfa.wrap("pepita", model, seed=3), x, target)["3.weight"]
    other = copy.deepcopy(model)
    W = other[3].weight.detach().clone()
    nn.utils.parametrizations.weight_norm(other[3])
    learn(fdfa.wrap("pepita", other, seed=3), x, target)
    g = W.norm(dim=1, keepdim=True)
    v = W
    along = (expected * v).sum(1, keepdim=True) / g
    parts = other[3].parametrizations.weight
    torch.testing.assert_close(parts.original0.grad, along)
    torch.testing.assert_close(parts.original1.grad, expected - along * v / g)


def test_an_activation_that_is_overwritten_later() -> None:
    """In place, by the model, after it has been read: the difference is of what it was."""
    model, (x, target) = network(), data()
    expected = learn(fdfa.wrap("pepita", model, seed=3), x, target)

    def overwrite(_: nn.Module, __: tuple[Tensor], h: Tensor) -> Tensor:
        read = h.clone()
        h.zero_()
        return read

    model[1].register_forward_hook(overwrite)
    found = learn(fdfa.wrap("pepita", model, seed=3), x, target)
    assert_equal(found, expected)


class _Residual(nn.Module):
    """A block with a skip, then a read-out: the skip carries no gradient around a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner, self.last = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x))
        return self.last(torch.relu(h + self.inner(h)))


def test_a_residual_block() -> None:
    """The activation behind the sum is the inner layer's."""
    model, (x, target) = _Residual().double(), data()
    learner = fdfa.wrap("pepita", model)
    found = learn(learner, x, target)
    e = model(x).detach().softmax(1) - F.one_hot(target, CLASSES)
    moved = x + e @ projection(learner).T

    def activations(x: Tensor) -> tuple[Tensor, Tensor]:
        h = model.first(x).detach().clamp(min=0)
        return h, (h + model.inner(h).detach()).clamp(min=0)

    (h1, h2), (h1_moved, h2_moved) = activations(x), activations(moved)
    torch.testing.assert_close(found["first.weight"], (h1 - h1_moved).T @ moved / N)
    torch.testing.assert_close(found["inner.weight"], (h2 - h2_moved).T @ h1_moved / N)
    last = (model.last(h2_moved).detach().softmax(1) - F.one_hot(target, CLASSES)) / N
    torch.testing.assert_close(found["last.weight"], last.T @ h2_moved)


class _Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.last = nn.LSTM(5, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.cell(x)[0][:, -1])


def test_a_layer_for_which_the_rule_is_not_defined_is_named() -> None:
    learner = fdfa.wrap("pepita", _Recurrent())
    with pytest.raises(UnsupportedModelError, match=r"'cell\.weight_ih_l0' is a parameter of lstm"):
        learner(torch.randn(4, 6, 5))
