"""Augmented direct feedback alignment: the closed form, and DFA where g is the derivative."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fdfa
from tests.oracles.lessons import classify


def gradients(model: nn.Module) -> list[Tensor]:
    return [parameter.grad.clone() for parameter in model.parameters()]


def assert_equal(found: list[Tensor], expected: list[Tensor]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-14)


def dense(activation: Callable[[], nn.Module]) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Linear(4, 6), activation(), nn.Linear(6, 5), activation(), nn.Linear(5, 3))
    ).double()


def convolutional(activation: Callable[[], nn.Module]) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), activation(), nn.AvgPool2d(2)),
        *(nn.Conv2d(4, 5, 2), activation(), nn.Flatten(), nn.Linear(20, 3)),
    ).double()


GS: dict[str, Callable[[Tensor], Tensor]] = {
    "cos": lambda a: (torch.exp(1j * a)).real,
    "sin": lambda a: (torch.exp(1j * a)).imag,
    "one": lambda a: a * 0 + 1,
    "tanh-derivative": lambda a: 4 / (a.exp() + (-a).exp()) ** 2,
    "sigmoid": lambda a: 1 / (1 + (-a).exp()),
    "tanh": lambda a: 2 / (1 + (-2 * a).exp()) - 1,
    "identity": lambda a: a,
}


@pytest.mark.parametrize("g", GS)
def test_closed_form(g: str) -> None:
    """gW_l = ((e B_l) * g(a_l))^T h_{l-1}, whatever the activation is."""
    model = dense(nn.Sigmoid)
    x, target = torch.randn(9, 4).double(), torch.randint(3, (9,))
    learner = fdfa.ADFA(model, g=g)
    y = classify(learner, x, target).detach()
    e = y.softmax(1)
    e[torch.arange(9), target] -= 1
    e /= 9
    W1, b1, W2, b2, _, _ = (p.detach() for p in model.parameters())
    a1 = x @ W1.T + b1
    h1 = 1 / (1 + (-a1).exp())
    a2 = h1 @ W2.T + b2
    h2 = 1 / (1 + (-a2).exp())
    delta1 = (e @ learner.feedback["1"].weight) * GS[g](a1)
    delta2 = (e @ learner.feedback["3"].weight) * GS[g](a2)
    expected = [delta1.T @ x, delta1.sum(0), delta2.T @ h1, delta2.sum(0), e.T @ h2, e.sum(0)]
    assert_equal(gradients(model), expected)


DERIVATIVES: dict[str, tuple[Callable[[], nn.Module], Callable[[Tensor], Tensor]]] = {
    "tanh": (nn.Tanh, lambda a: 1 / a.cosh() ** 2),
    "relu": (nn.ReLU, lambda a: (a > 0).double()),
    "relu in place": (lambda: nn.ReLU(inplace=True), lambda a: (a > 0).double()),
    "leaky relu": (lambda: nn.LeakyReLU(0.2), lambda a: 0.2 + 0.8 * (a > 0).double()),
    "softplus": (nn.Softplus, lambda a: 1 / (1 + (-a).exp())),
    "silu": (nn.SiLU, lambda a: a.sigmoid() * (1 + a * (1 - a.sigmoid()))),
}


@pytest.mark.parametrize("activation", DERIVATIVES)
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("network", ["dense", "convolutional"])
def test_with_the_derivative_it_is_dfa(activation: str, depth: int, network: str) -> None:
    """Through pooling and batch norm, in blocks of one layer and of two."""
    make, derivative = DERIVATIVES[activation]
    if network == "dense":
        x = torch.randn(9, 4).double()
        model = nn.Sequential(*dense(make)[:4], nn.Linear(5, 5).double(), make(), dense(make)[4])
    else:
        x, model = torch.randn(9, 2, 9, 9).double(), convolutional(make)
    target = torch.randint(3, (9,))
    ours = fdfa.ADFA(model, g=derivative, depth=depth, seed=3)
    dfa = fdfa.DFA(copy.deepcopy(model), depth=depth, seed=3)
    for learner in (ours, dfa):
        classify(learner, x, target)
    assert ours.feedback.names() == dfa.feedback.names()
    assert_equal(gradients(ours.model), gradients(dfa.model))
    wrong = fdfa.ADFA(copy.deepcopy(model), g="cos", depth=depth, seed=3)
    wrong.zero_grad()
    classify(wrong, x, target)
    assert not torch.allclose(gradients(wrong.model)[0], gradients(dfa.model)[0], rtol=0.01)


def test_an_activation_behind_the_last_tap_keeps_its_derivative() -> None:
    """The output's own block is exact."""
    model = nn.Sequential(*dense(nn.Tanh), nn.Tanh())
    plain = copy.deepcopy(model)
    x, target = torch.randn(9, 4).double(), torch.randint(3, (9,))
    for module in (fdfa.ADFA(model), plain):
        classify(module, x, target)
    assert_equal(gradients(model)[4:], gradients(plain)[4:])


def test_g_and_minus_g_are_the_same_rule_but_for_the_maps_sign() -> None:
    """So they are equivalent in law: a map is as likely as its negative."""
    x, target = torch.randn(9, 4).double(), torch.randint(3, (9,))
    model = dense(nn.Tanh)
    ours, mirrored = fdfa.ADFA(model), fdfa.ADFA(copy.deepcopy(model), g=lambda a: -a.cos())
    for learner in (ours, mirrored):
        learner.plan(x)
    for here, there in zip(ours.feedback.buffers(), mirrored.feedback.buffers(), strict=True):
        there.copy_(-here)
    for learner in (ours, mirrored):
        classify(learner, x, target)
    for one, other in zip(gradients(ours.model), gradients(mirrored.model), strict=True):
        assert torch.equal(one, other)
    drawn = []
    for seed in range(400):
        learner = fdfa.ADFA(dense(nn.Tanh), seed=seed)
        learner.plan(x)
        drawn.append(torch.cat([B.flatten() for B in learner.feedback.buffers()]))
    maps = torch.cat(drawn)
    for power in (1, 3):  # odd moments vanish
        moment = maps**power
        assert moment.mean().abs() < 4 * moment.std() / len(maps) ** 0.5


@pytest.mark.parametrize("g", ["sin", "tanh", "identity"])
def test_an_odd_g_is_blind_to_an_odd_target(g: str) -> None:
    """Data symmetric about 0, an odd network, odd targets: e is odd in x, f' even, g odd.

    So hidden gradients cancel, each sample's with its mirror image's; with g = f', or any even g,
    they add up. It is the extreme of no correlation between g and f' over the data.
    """
    layers = [nn.Linear(4, 6, bias=False), nn.Tanh(), nn.Linear(6, 5, bias=False), nn.Tanh()]
    model = nn.Sequential(*layers, nn.Linear(5, 3, bias=False)).double()
    x = torch.randn(20, 4).double()
    x = torch.cat([x, -x])
    target = x @ torch.randn(4, 3).double()

    def hidden(g: str) -> list[Tensor]:
        learner = fdfa.ADFA(copy.deepcopy(model), g=g, seed=1)
        (learner(x) - target).square().mean().backward()
        return gradients(learner.model)[:-1]

    for odd, even in zip(hidden(g), hidden("cos"), strict=True):
        assert odd.abs().max() < 1e-14
        assert even.abs().max() > 1e-3
    learner = fdfa.ADFA(copy.deepcopy(model), g=g, seed=1)
    (learner(x[:20]) - target[:20]).square().mean().backward()  # one half alone does not cancel
    assert gradients(learner.model)[0].abs().max() > 1e-4


@pytest.mark.slow
def test_an_odd_g_destroys_features() -> None:
    """Hidden layers that learn by it serve worse than untrained ones; by cos better."""
    torch.manual_seed(3)
    centres = 1.2 * torch.randn(30, 20)

    def points(count: int) -> tuple[Tensor, Tensor]:
        which = torch.randint(30, (count,))
        return centres[which] + torch.randn(count, 20), which % 10

    (x, target), (fresh_x, fresh) = points(1500), points(1500)

    def accuracy(method: str, trained: bool = True, **options: Any) -> float:
        torch.manual_seed(0)
        layers = [nn.Linear(20, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh()]
        model = nn.Sequential(*layers, nn.Linear(64, 10))
        learner = fdfa.wrap(method, model, seed=0, **options)
        learns = learner.parameters() if trained else model[4].parameters()
        optimizer = torch.optim.SGD(learns, lr=0.05, momentum=0.9)
        for _ in range(30):
            for rows in torch.randperm(1500).split(50):
                optimizer.zero_grad()
                classify(learner, x[rows], target[rows])
                optimizer.step()
        return (model(fresh_x).argmax(1) == fresh).float().mean().item()

    frozen = accuracy("dfa", trained=False)
    assert accuracy("adfa", g="tanh") < frozen - 0.05
    assert accuracy("adfa", g="cos") > frozen + 0.05
