"""Indirect feedback alignment: the recursion by hand, finite differences, and DFA in its place."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fdfa
from fdfa.errors import ProbeError
from tests.oracles.lessons import classify


def gradients(model: nn.Module) -> list[Tensor]:
    return [parameter.grad.clone() for parameter in model.parameters()]


def assert_equal(found: list[Tensor], expected: list[Tensor], rtol: float = 1e-10) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=rtol, atol=rtol * 1e-3)


@pytest.fixture(autouse=True, params=[True, False], ids=["all at once", "one by one"])
def _credits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fdfa.engine.credit._AT_ONCE", 2**40 if request.param else 0)


ACTIVATIONS: dict[str, tuple[type[nn.Module], Callable[[Tensor], Tensor]]] = {
    "tanh": (nn.Tanh, lambda h: 1 - h**2),
    "sigmoid": (nn.Sigmoid, lambda h: h * (1 - h)),
    "relu": (nn.ReLU, lambda h: (h > 0).double()),
    "linear": (nn.Identity, torch.ones_like),
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_recursion_by_hand(activation: str, dropout: float) -> None:
    """delta_1 = (e B) * f'(a_1), delta_{l+1} = (delta_l W_{l+1}^T) * f'(a_{l+1}), masks included.

    The trap is to send delta through f' twice, or to leave it out: seen in three layers of tanh.
    """
    make, derivative = ACTIVATIONS[activation]
    widths = (4, 6, 5, 7)
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), make(), nn.Dropout(dropout)]
    model = nn.Sequential(*layers, nn.Linear(7, 3)).double()
    x, target = torch.randn(9, 4).double(), torch.randint(3, (9,))
    masks: list[Tensor] = []

    def note(_: nn.Module, args: tuple[Tensor], result: Tensor) -> None:
        if torch.is_grad_enabled():
            masks.append(torch.where(args[0] == 0, 1.0, result / args[0]).detach())

    learner = fdfa.IFA(model)
    learner.plan(x)
    if activation != "linear":
        assert learner.feedback.names() == ["1"]
    else:  # there the tap is wherever the run ends: a mask is a part of what comes before
        learner.taps = ["0", "3", "6"]
        learner.feedback._modules.clear()
        learner._cuts.clear()
        learner.plan(x)
    for layer in model:
        if isinstance(layer, nn.Dropout):
            layer.register_forward_hook(note)
    y = classify(learner, x, target).detach()
    masks = masks[-3:]
    e = (y.softmax(1) - F.one_hot(target, 3)) / 9

    weights = [(p[0].detach(), p[1].detach()) for p in _pairs(list(model.parameters()))]
    h, delta, expected = x, None, []
    for number, (W, b) in enumerate(weights[:-1]):
        out = make()(h @ W.T + b)
        arriving = e @ learner.feedback[learner.feedback.names()[0]].weight
        if delta is not None:
            arriving = delta @ W.T
        delta_here = arriving * derivative(out)
        expected += [delta_here.T @ h, delta_here.sum(0)]
        delta = delta_here * masks[number]
        h = out * masks[number]
    expected += [e.T @ h, e.sum(0)]
    assert_equal(gradients(model), expected)


def _pairs(values: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    return list(zip(values[::2], values[1::2], strict=True))


def test_convolutions_by_finite_differences() -> None:
    """Batch norm in training mode, pooling, two dense layers: the credit is a difference quotient.

    Each pre-activation moves as the first one is moved along e B.
    """
    parts = [
        nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)),
        nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(4, 5, 2), nn.BatchNorm2d(5)),
        nn.Sequential(nn.Flatten(), nn.Linear(20, 8)),
    ]
    model = nn.Sequential(*(m for p in parts for m in (*p, nn.Tanh())), nn.Linear(8, 3)).double()
    x, target = torch.randn(9, 2, 9, 9).double(), torch.randint(3, (9,))
    learner = fdfa.IFA(model)
    y = classify(learner, x, target).detach()
    found = gradients(model)
    e = (y.softmax(1) - F.one_hot(target, 3)) / 9
    (tap,) = learner.feedback.names()
    a1 = parts[0](x).detach()
    u = (e @ learner.feedback[tap].weight).view(a1.shape)
    s = 1e-5

    def later(a: Tensor) -> list[Tensor]:
        a2 = parts[1](a.tanh())
        return [a2, parts[2](a2.tanh())]

    with torch.no_grad():
        moved = [
            (p - m) / (2 * s) for p, m in zip(later(a1 + s * u), later(a1 - s * u), strict=True)
        ]
    expected, h = [], x
    for part, credit in zip(parts, [u, *moved], strict=True):
        h = part(h.detach()).tanh()
        expected += torch.autograd.grad(h, list(part.parameters()), credit)
    assert_equal(found[:-2], expected, rtol=1e-6)


def test_one_hidden_layer_is_dfa() -> None:
    """Bit for bit, with the same seed."""
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    x, target = torch.randn(9, 4).double(), torch.randint(3, (9,))
    learners = [fdfa.IFA(model, seed=3), fdfa.DFA(copy.deepcopy(model), seed=3)]
    for learner in learners:
        classify(learner, x, target)
    found, expected = (gradients(learner.model) for learner in learners)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_exact_map_gives_the_first_layer_its_exact_gradient() -> None:
    """Linear after the first tap: B = (W3 W2), and the error is relayed onwards from there."""
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Linear(5, 3)).double()
    plain = copy.deepcopy(model)
    x, target = torch.randn(9, 4).double(), torch.randint(3, (9,))
    learner = fdfa.IFA(model, taps=["1", "2"])
    learner.plan(x)
    W2, W3 = model[2].weight.detach(), model[3].weight.detach()
    learner.feedback["1"].weight.copy_(W3 @ W2)
    for module in (learner, plain):
        classify(module, x, target)
    assert_equal(gradients(model)[:2], gradients(plain)[:2])
    y = model(x).detach()
    e = (y.softmax(1) - F.one_hot(target, 3)) / 9
    h1 = model[1](model[0](x)).detach()
    delta2 = (e @ W3 @ W2 * (1 - h1**2)) @ W2.T
    assert_equal([model[2].weight.grad], [delta2.T @ h1])


class _Towers(nn.Module):
    """Two taps, neither behind the other."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = (nn.Sequential(nn.Linear(4, 5), nn.Tanh()) for _ in "ab")
        self.last = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.cat([self.a(x), self.b(x)], 1))


def test_taps_beside_each_other_are_refused() -> None:
    learner = fdfa.IFA(_Towers(), taps=["a.1", "b.1"])
    loss = learner(torch.randn(6, 4)).sum()
    with pytest.raises(ProbeError, match=r"no credit arrives at tap 'b\.1'"):
        loss.backward()


class _Functions(nn.Module):
    """Activations called as functions; the second is flattened before the next layer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(3, 5), nn.Linear(10, 7)
        self.last = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.a(x))
        h = F.relu(self.b(h.view(-1, 2, 3))) * 2
        h = F.threshold(self.c(h.flatten(1)), 0.1, 0.0)
        return self.last(h)


def test_activations_called_as_functions() -> None:
    """The same recursion: the credit meets each derivative once."""
    model = _Functions().double()
    x, target = torch.randn(9, 4).double(), torch.randint(3, (9,))
    learner = fdfa.IFA(model)
    y = classify(learner, x, target).detach()
    (name,) = learner.feedback.names()
    e = (y.softmax(1) - F.one_hot(target, 3)) / 9
    with torch.no_grad():
        h1 = model.a(x).tanh()
        a2 = model.b(h1.view(9, 2, 3))
        a3 = model.c(2 * a2.clamp(min=0).flatten(1))
        delta1 = (e @ learner.feedback[name].weight) * (1 - h1**2)
        delta2 = (delta1.view(9, 2, 3) @ model.b.weight.T) * 2 * (a2 > 0)
        delta3 = (delta2.flatten(1) @ model.c.weight.T) * (a3 > 0.1)
        h2 = 2 * a2.clamp(min=0).flatten(1)
        expected = [
            *(delta1.T @ x, delta1.sum(0)),
            *(delta2.flatten(0, 1).T @ h1.view(18, 3), delta2.sum((0, 1))),
            *(delta3.T @ h2, delta3.sum(0)),
        ]
    assert_equal(gradients(model)[:-2], expected)


class _Dropped(nn.Module):
    """Activations and dropout as functions, in place or not."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 3)
        self.in_place = in_place

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        h = F.dropout(h.sigmoid_() if self.in_place else h.sigmoid(), 0.4)
        return self.last(F.dropout(torch.tanh(self.b(h)), 0.4))


@pytest.mark.parametrize("in_place", [False, True])
def test_dropout_called_as_a_function(in_place: bool) -> None:
    """Its mask is a factor of the activation's derivative."""
    model = _Dropped(in_place).double()
    x, target = torch.randn(9, 4).double(), torch.randint(3, (9,))
    learner = fdfa.IFA(model, seed=1)
    learner.plan(x)
    torch.manual_seed(3)
    y = classify(learner, x, target).detach()
    torch.manual_seed(3)
    masks = [F.dropout(torch.ones(9, units).double(), 0.4) for units in (6, 5)]
    (name,) = learner.feedback.names()
    e = (y.softmax(1) - F.one_hot(target, 3)) / 9
    with torch.no_grad():
        h1 = model.a(x).sigmoid()
        h2 = model.b(h1 * masks[0]).tanh()
        delta1 = (e @ learner.feedback[name].weight) * masks[0] * h1 * (1 - h1)
        delta2 = (delta1 @ model.b.weight.T) * masks[1] * (1 - h2**2)
        expected = [delta1.T @ x, delta1.sum(0), delta2.T @ (h1 * masks[0]), delta2.sum(0)]
    assert_equal(gradients(model)[:-2], expected)


class _Pooled(nn.Module):
    """Pools behind an activation that it calls as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Linear(4, 6), nn.Linear(3, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = F.max_pool1d(torch.tanh(self.a(x)), 2)
        return self.last(torch.tanh(self.b(h)))


def test_a_function_between_activation_and_tap_is_refused() -> None:
    loss = fdfa.IFA(_Pooled())(torch.randn(6, 4)).sum()
    with pytest.raises(ProbeError, match="'b:input' lies behind the activation tanh, with max_po"):
        loss.backward()


class _Residual(nn.Module):
    """A block whose branch ends with an activation; its tap is the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 3)
        self.first, self.second = nn.Tanh(), nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(self.a(x))
        return self.last(h + self.second(self.b(h)))


def test_a_sum_is_its_own_pre_activation() -> None:
    """g_2 = delta_1 + (delta_1 W^T) * f'(a_2), what moves the sum; the branch learns from it."""
    model = _Residual().double()
    x, target = torch.randn(9, 4).double(), torch.randint(3, (9,))
    learner = fdfa.IFA(model)
    y = classify(learner, x, target).detach()
    e = (y.softmax(1) - F.one_hot(target, 3)) / 9
    with torch.no_grad():
        h = model.a(x).tanh()
        slope = 1 - model.b(h).tanh() ** 2
        delta = (e @ learner.feedback["first"].weight) * (1 - h**2)
        g = delta + (delta @ model.b.weight.T) * slope
    assert_equal([model.b.weight.grad, model.b.bias.grad], [(g * slope).T @ h, (g * slope).sum(0)])


@pytest.mark.parametrize("change", ["in place", "replaced"])
def test_weights_changed_before_the_backward_pass_are_refused(change: str) -> None:
    """The credit would travel through others than those that made the loss."""
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    loss = fdfa.IFA(model)(torch.randn(6, 4)).sum()
    if change == "in place":
        model[2].weight.detach().mul_(2)
    else:
        model[2].weight = nn.Parameter(torch.ones(5, 6))
    with pytest.raises(RuntimeError, match=r"weight '2\.weight' was replaced or changed in place"):
        loss.backward()


@pytest.mark.parametrize("method", ["ifa", "pepita"])
def test_the_modes_of_the_first_pass_hold_in_the_second(method: str) -> None:
    """Also where the learner stands in eval mode by then, which it keeps."""
    model = nn.Sequential(
        *(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 6), nn.BatchNorm1d(6)),
        *(nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, 3)),
    ).double()
    x, target = torch.randn(9, 4).double(), torch.randint(3, (9,))
    found = []
    for switched in (False, True):
        learner = fdfa.wrap(method, copy.deepcopy(model), seed=1)
        torch.manual_seed(3)
        loss = learner.criterion(F.cross_entropy)(learner(x), target)
        learner.train(not switched)
        loss.backward()
        assert all(module.training != switched for module in learner.modules())
        found.append(gradients(learner.model))
    assert_equal(*found)
