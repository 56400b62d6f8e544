"""PEPITA: a naive loop of two passes, a small or no projection, and layers of all kinds."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fdfa
from fdfa.errors import FDFAError, UnsupportedModelError

N, INPUTS, CLASSES = 7, 5, 3


def network(dropout: float = 0.0, bias: bool = True) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Linear(INPUTS, 8, bias=bias), nn.Tanh(), nn.Dropout(dropout)),
        *(nn.Linear(8, 6, bias=bias), nn.ReLU(), nn.Dropout(dropout)),
        nn.Linear(6, CLASSES, bias=bias),
    ).double()


def data() -> tuple[Tensor, Tensor]:
    return torch.randn(N, INPUTS).double(), torch.randint(CLASSES, (N,))


def learn(
    learner: fdfa.Estimator,
    x: Tensor,
    target: Tensor,
    loss_function: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    scale: float = 1.0,
) -> dict[str, Tensor]:
    learner.zero_grad()
    (learner.criterion(loss_function)(learner(x), target) * scale).backward()
    return {
        name: parameter.grad.clone()
        for name, parameter in learner.model.named_parameters()
        if parameter.grad is not None
    }


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-14)


def projection(learner: fdfa.Estimator) -> Tensor:
    """F (m, K)."""
    weight: Tensor = learner.feedback["input"].weight
    return weight.T


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


def test_the_loss_must_be_computed_from_the_learners_output() -> None:
    model, (x, target) = network(), data()
    learner = fdfa.wrap("pepita", model)
    criterion = learner.criterion(F.cross_entropy)
    with pytest.raises(FDFAError, match="something else than the learner's own output"):
        criterion(learner(x) / 2, target).backward()
    inside = learn(learner, x, target, lambda y, t: F.cross_entropy(y / 2, t))
    assert inside["6.weight"].any()
