"""Rules that replace the transpose in each layer's product, against loops that write it out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input

from tests.oracles.exchanged import (
    CLOSE,
    Exchanged,
    Recurrent,
    each_rule,
    feedback,
    network,
    wrap,
)


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


def _product(model: nn.Module, name: str, x: Tensor, maps: Mapping[str, Tensor]) -> Tensor:
    weight = model.get_parameter(name)
    y: Tensor = Exchanged.apply(x, weight, maps.get(name, weight))
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
    model = Recurrent(kind).to(dtype)
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
