"""Rules that replace the transpose in each layer's product, against loops that write it out."""

from __future__ import annotations

import copy
import math
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input

import fdfa
from fdfa.engine.estimator import Estimator
from fdfa.engine.probes import Probe
from fdfa.errors import UnsupportedModelError

RULES: dict[str, Mapping[str, Any]] = {
    "fa": {},
    "usf": {},
    "brsf": {},
    "frsf": {},
    "kolen-pollack": {"decay": 0.1},
    "weight-mirror": {"mirror_rate": 0.3},
}
CLOSE = {"rtol": 1e-10, "atol": 1e-13}
each_rule = pytest.mark.parametrize("rule", RULES)


def wrap(rule: str, model: nn.Module, **options: Any) -> Any:
    return fdfa.wrap(rule, model, **{"seed": 5, **RULES[rule], **options})


def feedback(learner: Any, name: str) -> Tensor:
    """B of the next step, for one weight."""
    held = learner.feedback
    kept = held[name] if name in held.names() else None
    weight = learner.model.get_parameter(name).detach().clone()
    B: Tensor = learner.feedback_for(name, weight, kept, learner.steps).clone()
    return B


def network() -> nn.Sequential:
    layers = [nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)]
    return nn.Sequential(*layers).double()


@each_rule
def test_three_layers_by_hand_over_several_steps(rule: str) -> None:
    """delta_l = (delta_(l+1) B_(l+1)) * f'(a_l), with the B of each step."""
    model = network()
    learner = wrap(rule, model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    learner(torch.randn(2, 4).double())  # its B's are there
    for _ in range(4):
        x, target = torch.randn(7, 4).double(), torch.randint(3, (7,))
        B2, B3 = (feedback(learner, name) for name in ("2.weight", "4.weight"))
        (W1, b1, W2, b2, W3, b3) = (p.detach() for p in model.parameters())
        h1 = torch.tanh(x @ W1.T + b1)
        h2 = torch.tanh(h1 @ W2.T + b2)
        e = ((h2 @ W3.T + b3).softmax(1) - F.one_hot(target, 3)) / 7
        delta2 = (e @ B3) * (1 - h2**2)
        delta1 = (delta2 @ B2) * (1 - h1**2)
        expected = [delta1.T @ x, delta1.sum(0), delta2.T @ h1, delta2.sum(0), e.T @ h2, e.sum(0)]
        optimizer.zero_grad()
        F.cross_entropy(learner(x), target).backward()
        for parameter, gradient in zip(model.parameters(), expected, strict=True):
            torch.testing.assert_close(parameter.grad, gradient, **CLOSE)
        optimizer.step()


@each_rule
@pytest.mark.parametrize(
    "options",
    [{}, {"stride": 2}, {"padding": 1, "dilation": 2}, {"groups": 2}],
    ids=["plain", "stride", "dilation", "groups"],
)
@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels last"])
def test_convolution(rule: str, options: dict[str, int], channels_last: bool) -> None:
    """The error before a convolution is torch's own input gradient, with B for the weight."""
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 6, 3, **options)).double()
    if channels_last:
        model.to(memory_format=torch.channels_last)
    learner = wrap(rule, model)
    x = torch.randn(3, 2, 9, 9).double()
    learner(x)
    B = feedback(learner, "1.weight")
    h = model[0](x).detach()
    y = learner(x)
    e = torch.randn_like(y)
    y.backward(e)
    settings = {key: options.get(key, 1) for key in ("stride", "dilation", "groups")}
    delta = conv2d_input(h.shape, B, e, padding=options.get("padding", 0), **settings)
    exact = copy.deepcopy(model)
    exact.zero_grad()
    exact[0](x).backward(delta)
    torch.testing.assert_close(model[0].weight.grad, exact[0].weight.grad, **CLOSE)
    torch.testing.assert_close(model[0].bias.grad, exact[0].bias.grad, **CLOSE)


class _Recurrent(nn.Module):
    def __init__(self, kind: type) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 4)
        self.cell = kind(4, 5)
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.cell(self.embed(x).transpose(0, 1))
        y: Tensor = self.head(states[-1])
        return y


class _Exchanged(torch.autograd.Function):
    """x W^T, whose error goes back through B."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, B: Tensor) -> Tensor:
        ctx.save_for_backward(x, B)
        return x @ W.T

    @staticmethod
    def backward(ctx: Any, e: Tensor) -> Any:
        x, B = ctx.saved_tensors
        return e @ B, e.flatten(0, -2).T @ x.flatten(0, -2), None


def _product(model: nn.Module, name: str, x: Tensor, maps: Mapping[str, Tensor]) -> Tensor:
    weight = model.get_parameter(name)
    y: Tensor = _Exchanged.apply(x, weight, maps.get(name, weight))
    return y + model.get_parameter(name.replace("weight", "bias"))


def _gru(model: nn.Module, x: Tensor, maps: Mapping[str, Tensor]) -> Tensor:
    h = x.new_zeros(len(x), 5)
    for t in range(x.shape[1]):
        embedded = _product(model, "embed.weight", x[:, t], maps)
        i = _product(model, "cell.weight_ih_l0", embedded, maps).chunk(3, 1)
        j = _product(model, "cell.weight_hh_l0", h, maps).chunk(3, 1)
        r, z = torch.sigmoid(i[0] + j[0]), torch.sigmoid(i[1] + j[1])
        h = (1 - z) * torch.tanh(i[2] + r * j[2]) + z * h
    return _product(model, "head.weight", h, maps)


def _lstm(model: nn.Module, x: Tensor, maps: Mapping[str, Tensor]) -> Tensor:
    h = c = x.new_zeros(len(x), 5)
    for t in range(x.shape[1]):
        embedded = _product(model, "embed.weight", x[:, t], maps)
        gates = _product(model, "cell.weight_ih_l0", embedded, maps)
        i, f, g, o = (gates + _product(model, "cell.weight_hh_l0", h, maps)).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
    return _product(model, "head.weight", h, maps)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("rule", ["fa", "usf", "kolen-pollack"])
@pytest.mark.parametrize(("kind", "loop"), [(nn.GRU, _gru), (nn.LSTM, _lstm)])
def test_recurrent(kind: type, loop: Callable[..., Tensor], rule: str, dtype: torch.dtype) -> None:
    """Through time too; in float32 the LSTM runs in a fused kernel."""
    model = _Recurrent(kind).to(dtype)
    learner = wrap(rule, model)
    x = torch.randn(3, 4, 3, dtype=dtype)
    learner(x)
    names = ["cell.weight_ih_l0", "cell.weight_hh_l0", "head.weight"]
    maps = {name: feedback(learner, name) for name in names}
    learner(x).square().sum().backward()
    twin = copy.deepcopy(model)
    twin.zero_grad()
    loop(twin, x, maps).square().sum().backward()
    close = CLOSE if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-5}
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, **close)


@each_rule
def test_a_frozen_weight_under_autocast(rule: str) -> None:
    """Autocast's copy of it leaves no trace in the graph."""
    model = network().float()
    model[2].requires_grad_(False)
    wide = copy.deepcopy(model)
    x = torch.randn(64, 4)
    first, second = wrap(rule, model), wrap(rule, wide)
    for _ in range(2):
        model.zero_grad()
        wide.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            first(x).square().mean().backward()
        second(x).square().mean().backward()
    a, b = model[0].weight.grad.flatten(), wide[0].weight.grad.flatten()
    assert F.cosine_similarity(a, b, dim=0) > 0.99
    true = copy.deepcopy(wide)
    true.zero_grad()
    true(x).square().mean().backward()
    assert F.cosine_similarity(a, true[0].weight.grad.flatten(), dim=0) < 0.99


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
        _Exchanged.apply(h1, twin[2].weight, learner.feedback["2.weight"]) + twin[2].bias
    )
    y = _Exchanged.apply(h2, twin[4].weight, learner.feedback["4.weight"]) + twin[4].bias
    y.square().sum().backward()
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, **CLOSE)


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


def test_kolen_pollack_is_the_papers_under_sgd() -> None:
    """B by its own update, and B - W = (1 - eta lam)^t (B_0 - W_0)."""
    eta, lam = 0.1, 0.3
    model = network()
    learner = wrap("kolen-pollack", model, decay=eta * lam)
    optimizer = torch.optim.SGD(model.parameters(), lr=eta, weight_decay=lam)
    learner(torch.randn(2, 4).double())
    names = ["2.weight", "4.weight"]
    B = {name: feedback(learner, name) for name in names}
    start = {name: B[name] - model.get_parameter(name).detach() for name in names}
    for step in range(1, 21):
        optimizer.zero_grad()
        learner(torch.randn(7, 4).double()).square().mean().backward()
        for name in names:
            B[name] = (1 - eta * lam) * B[name] - eta * model.get_parameter(name).grad
        optimizer.step()
        for name in names:
            ours = feedback(learner, name)
            torch.testing.assert_close(ours, B[name], rtol=1e-12, atol=1e-14)
            apart = ours - model.get_parameter(name).detach()
            expected = (1 - eta * lam) ** step * start[name]
            torch.testing.assert_close(apart, expected, rtol=1e-12, atol=1e-14)


def _angle(learner: Estimator, name: str) -> float:
    B, W = feedback(learner, name).flatten(), learner.model.get_parameter(name).detach().flatten()
    return math.degrees(math.acos(F.cosine_similarity(B, W, dim=0).item()))


@pytest.mark.parametrize("growth_control", [True, False])
def test_the_mirror_turns_to_the_weight(growth_control: bool) -> None:
    """Linear, convolution and transposed convolution; the length of B stays, if it is to."""
    model = nn.Sequential(
        *(nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 4, 3, stride=2, groups=1)),
        *(nn.ConvTranspose2d(4, 2, 3), nn.Flatten(), nn.Linear(2 * 5 * 5, 3)),
    ).double()
    learner = wrap("weight-mirror", model, growth_control=growth_control, mirror_rate=0.1)
    x = torch.randn(64, 2, 7, 7).double()
    learner(x)
    names = ["1.weight", "2.weight", "4.weight"]
    norms = [feedback(learner, name).norm() for name in names]
    angles = [[_angle(learner, name) for name in names]]
    for _ in range(3):
        for _ in range(20):
            learner(x).square().mean().backward()
        angles.append([_angle(learner, name) for name in names])
    assert all(angle > 60 for angle in angles[0])
    assert all(after < before for before, after in zip(angles[0], angles[1], strict=True))
    assert all(angle < 20 for angle in angles[-1])
    for name, norm in zip(names, norms, strict=True):
        now = feedback(learner, name).norm()
        assert torch.isclose(now, norm, rtol=1e-10) == growth_control


def test_one_mirror_step_is_the_noise_correlation() -> None:
    """``B + rate y^T xi / N`` for a linear layer: what is learned is W times a second moment."""
    model = network()
    learner = wrap("weight-mirror", model, growth_control=False, mirror_rate=0.3)
    learner(torch.randn(2, 4).double())
    step, before = learner.steps, feedback(learner, "4.weight")
    learner(torch.randn(9, 4).double()).sum().backward()
    learned = (feedback(learner, "4.weight") - before) / 0.3
    W = model[4].weight.detach()
    xi = Probe().draw(
        [(9, 5)], [torch.float64], [torch.device("cpu")], 5, step, 0, zlib.crc32(b"4.weight")
    )[0]
    torch.testing.assert_close(learned, (xi @ W.T).T @ xi / 9, **CLOSE)


def test_an_lstm_in_one_kernel_has_no_mirror() -> None:
    learner = wrap("weight-mirror", _Recurrent(nn.LSTM))
    with pytest.raises(UnsupportedModelError, match=r"weight 'cell\.weight_ih_l0'"):
        learner(torch.randn(3, 4, 3))


def _masked(x: Tensor, layer: nn.Linear) -> Tensor:
    return F.linear(x, layer.weight * layer.weight.new_ones(layer.weight.shape).tril())


def _penalised(x: Tensor, layer: nn.Linear) -> Tensor:
    return layer(x) + layer.weight.square().sum()


def _joined(x: Tensor, layer: nn.Linear) -> Tensor:
    return F.linear(x, torch.cat([layer.weight, layer.weight]))


def _checkpointed(x: Tensor, layer: nn.Linear) -> Tensor:
    y: Tensor = torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False)
    return y


def _reentrant(x: Tensor, layer: nn.Linear) -> Tensor:
    y: Tensor = torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=True)
    return y


class _Hidden(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor) -> Tensor:
        ctx.x, ctx.W = x.detach(), W.detach()
        return x @ W.T

    @staticmethod
    def backward(ctx: Any, e: Tensor) -> Any:
        return e @ ctx.W, e.T @ ctx.x


def _unsaved(x: Tensor, layer: nn.Linear) -> Tensor:
    y: Tensor = _Hidden.apply(x, layer.weight)
    return y


class _Using(nn.Module):
    def __init__(self, use: Callable[[Tensor, nn.Linear], Tensor]) -> None:
        super().__init__()
        self.first, self.layer, self.use = nn.Linear(4, 5), nn.Linear(5, 5), use

    def forward(self, x: Tensor) -> Tensor:
        return self.use(torch.tanh(self.first(x)), self.layer)


@each_rule
@pytest.mark.parametrize(
    ("use", "text"),
    [
        (_masked, r"'layer\.weight' reaches aten::\w+ changed"),
        (_joined, r"'layer\.weight' reaches aten::\w+ changed"),
        (_penalised, r"'layer\.weight' is used by aten::pow"),
        (_checkpointed, "'layer' runs inside torch.utils.checkpoint"),
        (_reentrant, r"inside torch\.utils\.checkpoint"),
        (_unsaved, r"'layer\.weight' goes into _HiddenBackward"),
    ],
)
def test_a_transpose_that_would_go_on_is_refused(
    rule: str, use: Callable[[Tensor, nn.Linear], Tensor], text: str
) -> None:
    """Never silently backpropagation."""
    with pytest.raises(UnsupportedModelError, match=text):
        wrap(rule, _Using(use))(torch.randn(3, 4))


def test_a_weight_changed_before_backward_is_noticed() -> None:
    model = network()
    loss = wrap("usf", model)(torch.randn(3, 4).double()).sum()
    with torch.no_grad():
        model[4].weight.mul_(2)
    with pytest.raises(RuntimeError, match=r"weight '4\.weight' was changed in place"):
        loss.backward()


def test_an_activation_changed_in_place_is_noticed() -> None:
    class Careless(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 5), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            h = torch.exp(self.first(x))
            y: Tensor = self.last(h)
            h.mul_(2)
            return y

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        wrap("fa", Careless())(torch.randn(3, 4)).sum().backward()
