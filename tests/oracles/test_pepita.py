"""PEPITA: a naive loop of two passes, a small or no projection, and how the loss is computed."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fdfa
from fdfa.errors import FDFAError
from tests.oracles.pepita import CLASSES, N, assert_equal, data, learn, network, projection


def naive(
    model: nn.Sequential, P: Tensor, x: Tensor, target: Tensor, masks: list[Tensor]
) -> dict[str, Tensor]:
    """Sample by sample, without autograd."""
    W = [model[i].weight.detach() for i in (0, 3, 6)]
    b = [model[i].bias.detach() for i in (0, 3, 6)]
    gradients = {
        f"{i}.{kind}": torch.zeros_like(getattr(model[i], kind).detach())
        for i in (0, 3, 6)
        for kind in ("weight", "bias")
    }

    def run(inputs: Tensor, n: int) -> list[Tensor]:
        a1 = W[0] @ inputs + b[0]
        h1 = (a1.exp() - (-a1).exp()) / (a1.exp() + (-a1).exp())
        h1_dropped = h1 * masks[0][n]
        a2 = W[1] @ h1_dropped + b[1]
        h2 = a2 * (a2 > 0)
        h2_dropped = h2 * masks[1][n]
        return [h1, h1_dropped, h2, h2_dropped, W[2] @ h2_dropped + b[2]]

    for n in range(N):
        t = torch.zeros(CLASSES).double()
        t[target[n]] = 1
        h1, _, h2, _, y = run(x[n], n)
        e = y.exp() / y.exp().sum() - t
        moved = x[n] + P @ e
        h1_moved, h1_in, h2_moved, h2_in, y_moved = run(moved, n)
        e_moved = y_moved.exp() / y_moved.exp().sum() - t
        for i, (delta, before) in enumerate(
            ((h1 - h1_moved, moved), (h2 - h2_moved, h1_in), (e_moved, h2_in))
        ):
            gradients[f"{3 * i}.weight"] += torch.outer(delta, before) / N
            gradients[f"{3 * i}.bias"] += delta / N
    return gradients


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("scale", [1.0, 0.3, 2.0**16])
def test_equals_the_naive_loop(dropout: float, scale: float) -> None:
    """Dropout masks are the same in both passes; a factor on the loss is one on the gradient."""
    model, (x, target) = network(dropout), data()
    learner = fdfa.wrap("pepita", model)
    learn(learner, x, target)
    masks: list[Tensor] = []

    def note(_: nn.Module, args: tuple[Tensor], result: Tensor) -> None:
        masks.append(torch.where(args[0] == 0, 1.0, result / args[0]).detach())

    for i in (2, 5):
        model[i].register_forward_hook(note)
    found = learn(learner, x, target, scale=scale)
    expected = naive(model, projection(learner), x, target, masks[:2])
    assert_equal(found, {name: scale * value for name, value in expected.items()})


def test_a_loss_a_sample_weighs_each() -> None:
    """Each sample's error moves its own input as in a batch of its own."""
    model, (x, target) = network(), data()
    learner = fdfa.wrap("pepita", model)
    learner.zero_grad()
    weights = torch.arange(N).double()
    losses = learner.criterion(lambda y, t: F.cross_entropy(y, t, reduction="none"))
    (losses(learner(x), target) * weights).sum().backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters()}
    expected = {name: torch.zeros_like(value) for name, value in found.items()}
    for n in range(N):
        for name, value in learn(learner, x[n : n + 1], target[n : n + 1]).items():
            expected[name] += weights[n] * value
    assert_equal(found, expected)


def test_without_projection_hidden_layers_learn_nothing() -> None:
    """And the last layer its exact gradient."""
    model, (x, target) = network(), data()
    plain = copy.deepcopy(model)
    found = learn(fdfa.wrap("pepita", model, projection_scale=0.0), x, target)
    F.cross_entropy(plain(x), target).backward()
    for name, value in found.items():
        if name.startswith("6."):
            torch.testing.assert_close(value, plain.get_parameter(name).grad)
        else:
            assert not value.any()


def test_a_small_projection_is_feedback_through_the_first_layer() -> None:
    """h_1 - h'_1 -> -(e F^T W_1^T) * f'(a_1): the first layer learns by feedback W_1 F.

    To first order in F, with an error that falls as its square.
    """
    model, (x, target) = network(bias=False), data()
    errors = []
    for scale in (1e-3, 1e-4):
        learner = fdfa.wrap("pepita", copy.deepcopy(model), projection_scale=scale, seed=3)
        found = learn(learner, x, target)["0.weight"]
        W = model[0].weight.detach()
        y = model(x).detach()
        e = (y.softmax(1) - F.one_hot(target, CLASSES)) / N
        delta = -(e @ projection(learner).T @ W.T) * (1 - torch.tanh(x @ W.T) ** 2)
        expected = delta.T @ x
        errors.append(((found - expected).norm() / expected.norm()).item())
    assert errors[0] < 0.02
    assert 5 < errors[0] / errors[1] < 20


def test_the_projection_is_drawn_as_in_the_paper() -> None:
    """F (m, K) uniform in +-0.05 sqrt(6 / m); a buffer; a function of the seed."""
    model = nn.Sequential(nn.Linear(400, 8), nn.ReLU(), nn.Linear(8, 50))
    learner = fdfa.wrap("pepita", model, seed=1)
    x, target = torch.randn(4, 400), torch.randint(50, (4,))
    learn(learner, x, target)
    P, bound = projection(learner), 0.05 * math.sqrt(6 / 400)
    assert P.shape == (400, 50)
    assert P.abs().max() <= bound
    count = P.numel()
    assert P.mean().abs() < 4 * bound / math.sqrt(3 * count)
    # the variance of a square of U(+-b) is 4 b^4 / 45
    assert (P.square().mean() - bound**2 / 3).abs() < 4 * bound**2 * math.sqrt(4 / 45 / count)
    assert torch.equal(learner.state_dict()["feedback.input.weight"], P.T)


class _TwoTensors(nn.Module):
    """Returns its output and what it was computed from."""

    def __init__(self, model: nn.Sequential) -> None:
        super().__init__()
        self.body, self.head = model[:6], model[6]

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = self.body(x)
        return {"h": h, "y": self.head(h)}


def test_a_loss_function_may_get_all_that_the_model_returns() -> None:
    """The second pass's output is put in its place."""
    model, (x, target) = network(), data()
    expected = learn(fdfa.wrap("pepita", model, seed=3), x, target)
    learner = fdfa.wrap("pepita", _TwoTensors(model), seed=3, output="y")
    learn(learner, x, target, lambda returned, t: F.cross_entropy(returned["y"], t))
    assert_equal({name: p.grad for name, p in model.named_parameters()}, expected)


def test_the_loss_must_be_computed_from_the_learners_output() -> None:
    model, (x, target) = network(), data()
    learner = fdfa.wrap("pepita", model)
    criterion = learner.criterion(F.cross_entropy)
    with pytest.raises(FDFAError, match="something else than the learner's own output"):
        criterion(learner(x) / 2, target).backward()
    inside = learn(learner, x, target, lambda y, t: F.cross_entropy(y / 2, t))
    assert inside["6.weight"].any()


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_loss_beside_the_criterion_is_refused(reduction: str) -> None:
    """It would move the input, and the last layer would not learn it; two criteria may be added."""
    model, (x, target) = network(), data()
    learner = fdfa.wrap("pepita", model)
    criterion = learner.criterion(lambda y, t: F.cross_entropy(y, t, reduction=reduction))
    y = learner(x)
    with pytest.raises(FDFAError, match="something beside it depends on the output"):
        (criterion(y, target).sum() + y.square().sum()).backward()
    y = learner(x)
    weights = sum(p.square().sum() for p in model.parameters())
    loss = criterion(y, target).mean() + 1e-4 * criterion(y.float(), (target + 1) % 3).sum()
    (loss + weights).backward()
    assert all(p.grad.any() for p in model.parameters())
