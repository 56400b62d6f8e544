"""Direct random target projection: the closed form, and what it must not depend on."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fdfa


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Sigmoid(), nn.Linear(5, 3)
    ).double()


def data() -> tuple[Tensor, Tensor]:
    return torch.randn(9, 4).double(), torch.randint(3, (9,))


def learn(learner: fdfa.DRTP, x: Tensor, target: Tensor, scale: float = 1.0) -> list[Tensor]:
    learner.zero_grad()
    criterion = learner.criterion(F.cross_entropy)
    (criterion(learner(x), target) * scale).backward()
    return [parameter.grad.clone() for parameter in learner.parameters()]


def naive(model: nn.Sequential, maps: list[Tensor], x: Tensor, target: Tensor) -> list[Tensor]:
    """Sample by sample, derivatives by hand."""
    (W1, b1, W2, b2, W3, b3) = (p.detach() for p in model.parameters())
    grads = [torch.zeros_like(p) for p in (W1, b1, W2, b2, W3, b3)]
    N = len(x)
    for n in range(N):
        h1 = torch.tanh(W1 @ x[n] + b1)
        h2 = 1 / (1 + torch.exp(-(W2 @ h1 + b2)))
        y = W3 @ h2 + b3
        p = y.exp() / y.exp().sum()
        e = p.clone()
        e[target[n]] -= 1
        delta1 = maps[0][target[n]] * (1 - h1**2)  # a row: t is one-hot
        delta2 = maps[1][target[n]] * h2 * (1 - h2)
        for i, (delta, before) in enumerate(((delta1, x[n]), (delta2, h1), (e, h2))):
            grads[2 * i] += torch.outer(delta, before) / N
            grads[2 * i + 1] += delta / N
    return grads


@pytest.fixture(autouse=True, params=[True, False], ids=["all at once", "one by one"])
def _credits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fdfa.engine.credit._AT_ONCE", 2**40 if request.param else 0)


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_equals_the_naive_loop(scale: float) -> None:
    model, (x, target) = network(), data()
    learner = fdfa.DRTP(model)
    found = learn(learner, x, target, scale)
    maps = [learner.feedback[tap].weight for tap in ("1", "3")]
    for ours, expected in zip(found, naive(model, maps, x, target), strict=True):
        torch.testing.assert_close(ours, scale * expected, rtol=1e-10, atol=1e-14)


def test_hidden_gradients_know_neither_the_output_nor_later_weights() -> None:
    """To the last bit: DFA's do, with the same maps."""
    model, (x, target) = network(), data()
    first, dfa = fdfa.DRTP(model, seed=1), fdfa.DFA(copy.deepcopy(model), seed=1)
    before, dfa_before = learn(first, x, target), learn(dfa, x, target)
    for changed in (model, dfa.model):
        with torch.no_grad():
            for parameter in changed[4].parameters():
                parameter.add_(torch.randn_like(parameter))
    after, dfa_after = learn(first, x, target), learn(dfa, x, target)
    for ours, other in zip(before[:4], after[:4], strict=True):
        assert torch.equal(ours, other)
    assert not torch.equal(before[4], after[4])
    assert not torch.allclose(dfa_before[0], dfa_after[0])
    with torch.no_grad():
        model[2].weight.mul_(2)
    assert torch.equal(learn(first, x, target)[0], before[0])


def test_dense_outputs_and_positions() -> None:
    """(N, T, K) with two sample dimensions is N T samples; (N, K, T) sums over the positions."""
    x, target = torch.randn(4, 7, 5).double(), torch.randint(3, (4, 7))
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    learner = fdfa.DRTP(model, sample_dims=2)
    loss = learner.criterion(lambda y, t: F.cross_entropy(y.flatten(0, 1), t.flatten()))
    loss(learner(x), target).backward()
    flat = fdfa.DRTP(copy.deepcopy(model))
    flat.plan(x.flatten(0, 1))
    flat.feedback["1"].weight.copy_(learner.feedback["1"].weight)
    expected = learn(flat, x.flatten(0, 1), target.flatten())
    for parameter, other in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, other, rtol=1e-10, atol=1e-14)

    class Last(nn.Module):
        def forward(self, y: Tensor) -> Tensor:
            return y.transpose(1, 2)

    body = nn.Sequential(*copy.deepcopy(model), Last())
    learner = fdfa.DRTP(body)
    learner.criterion(F.cross_entropy)(learner(x), target).backward()
    t = F.one_hot(target, 3).double().transpose(1, 2).flatten(1) / target.numel()  # (N, K T)
    g = (t @ learner.feedback["1"].weight).view(4, 7, 6)
    h = torch.tanh(x @ body[0].weight.T + body[0].bias)
    delta = g * (1 - h**2)
    expected_weight = torch.einsum("nti,ntj->ij", delta, x)
    torch.testing.assert_close(body[0].weight.grad, expected_weight, rtol=1e-10, atol=1e-14)
    body.zero_grad()
    learner.criterion(F.cross_entropy)(learner(x), F.one_hot(target, 3).double().mT).backward()
    torch.testing.assert_close(body[0].weight.grad, expected_weight, rtol=1e-10, atol=1e-14)
    body.zero_grad()
    learner.criterion(nn.CrossEntropyLoss(ignore_index=1))(learner(x), target).backward()
    t.view(4, 3, 7)[:, 1] = 0.0  # of each sample some positions rest
    g = (t @ learner.feedback["1"].weight).view(4, 7, 6)
    expected_weight = torch.einsum("nti,ntj->ij", g * (1 - h**2), x)
    torch.testing.assert_close(body[0].weight.grad, expected_weight, rtol=1e-10, atol=1e-14)
