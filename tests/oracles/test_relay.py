"""Relayed credits against plain ``torch.autograd.grad`` on the uncut network.

There, the derivative of a later tapped activation by an earlier one goes through all that lies
between: what the direct credit of the later one, pulled back by it, is at the earlier one.
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import fdfa
from fdfa.engine.relay_routes import longest_backward_path

CLASSES = 3


class Residual(nn.Module):
    """Two branches that meet, and an activation behind: all of it one block."""

    def __init__(self, planes: int, wider: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(planes, wider, 3, padding=1)
        self.second = nn.Conv2d(wider, wider, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(planes, wider, 1) if wider != planes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


class TwoTowers(nn.Module):
    """Two inputs whose ways meet: taps of one tower do not lie behind those of the other."""

    def __init__(self) -> None:
        super().__init__()
        for name, inputs in (("a1", 4), ("a2", 5), ("b1", 4), ("b2", 5), ("c", 10)):
            self.add_module(name, nn.Sequential(nn.Linear(inputs, 5), nn.Tanh()))
        self.out = nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.a2(self.a1(x[:, :4])), self.b2(self.b1(x[:, 4:]))
        return self.out(self.c(torch.cat([a, b], 1)))


def dense() -> nn.Module:
    layers = [
        nn.Sequential(nn.Linear(n, m), nn.Tanh()) for n, m in ((5, 6), (6, 7), (7, 4), (4, 6))
    ]
    return nn.Sequential(*layers, nn.Linear(6, CLASSES))


def images() -> nn.Module:
    """Batch norm in training mode, max-pooling at the start of a block, an activation in place."""
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()),
        nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5)),
        nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(20, 6), nn.ReLU()),
        nn.Linear(6, CLASSES),
    )


def residual() -> nn.Module:
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, CLASSES))
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), Residual(4, 4), Residual(4, 6), Residual(6, 6), head
    )


def without_weights() -> nn.Module:
    """A tap behind a block that has no parameters: no credit is for it, and many pass it."""
    return nn.Sequential(
        nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4), nn.Linear(4, 4), nn.Linear(4, CLASSES)
    )


@dataclasses.dataclass(frozen=True)
class Network:
    """A network with its taps, and for each the one that comes next (None: the output)."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    onward: dict[str, str | None]
    last: str


def chain(make: Callable[[], nn.Module], *shape: int, blocks: int) -> Network:
    taps = [str(number) for number in range(blocks - 1)]
    return Network(make, shape, dict(zip(taps, [*taps[1:], None], strict=True)), str(blocks - 1))


NETWORKS = {
    "dense": chain(dense, 5, blocks=5),
    "images": chain(images, 2, 8, 8, blocks=4),
    "residual": chain(residual, 2, 6, 6, blocks=5),
    "without-weights": chain(without_weights, 5, blocks=5),
    "two-towers": Network(
        TwoTowers, (8,), {"a1": "a2", "a2": "c", "b1": "b2", "b2": "c", "c": None}, "out"
    ),
}
CASES = [(name, relay) for name in NETWORKS for relay in (1, 2, 3)]


def batch(network: Network, samples: int = 6) -> tuple[Tensor, Tensor]:
    return torch.randn(samples, *network.shape).double(), torch.randint(CLASSES, (samples,))


def taught(network: Network, relay: int, x: Tensor, **options: Any) -> fdfa.FDFA:
    """A learner whose maps hold random numbers, as after much learning."""
    model = network.make().double()
    learner = fdfa.FDFA(model, taps=[*network.onward], relay=relay, **options)
    learner.plan(x)
    for tap in learner.feedback.names():
        learner.feedback[tap].weight.normal_()
    return learner


def source_of(network: Network, tap: str, relay: int) -> str | None:
    found: str | None = tap
    for _ in range(relay):
        found = None if found is None else network.onward[found]
    return found


def _keep(h: dict[str, Tensor], tap: str, module: nn.Module, args: Any, y: Tensor) -> Tensor:
    h[tap] = y
    return y + 0  # the next block may write into it


def by_hand(
    network: Network, model: nn.Module, maps: dict[str, Tensor], relay: int, x: Tensor, t: Tensor
) -> dict[str, Tensor]:
    """Gradients of all parameters, from one pass that nothing cuts."""
    h: dict[str, Tensor] = {}
    for tap in network.onward:
        model.get_submodule(tap).register_forward_hook(functools.partial(_keep, h, tap))
    y = model(x)
    (e,) = torch.autograd.grad(F.cross_entropy(y, t), y, retain_graph=True)
    gradients = {}
    for block in [*network.onward, network.last]:
        inside = {name: p for name, p in model.named_parameters() if name.split(".")[0] == block}
        if not inside:
            continue
        if block == network.last:
            end, credit = y, e
        else:
            end, source = h[block], source_of(network, block, relay)
            top = y if source is None else h[source]
            error = e if source is None else (e @ maps[source]).view_as(top)
            (credit,) = torch.autograd.grad(top, end, error, retain_graph=True)
        found = torch.autograd.grad(end, [*inside.values()], credit, retain_graph=True)
        gradients.update(zip(inside, found, strict=True))
    return gradients


@pytest.mark.parametrize(("name", "relay"), CASES)
def test_gradients_are_those_of_the_uncut_network(name: str, relay: int) -> None:
    network = NETWORKS[name]
    x, t = batch(network)
    learner = taught(network, relay, x)
    maps = {tap: learner.feedback[tap].weight.clone() for tap in learner.feedback.names()}
    expected = by_hand(network, copy.deepcopy(learner.model), maps, relay, x, t)
    F.cross_entropy(learner(x), t).backward()
    found = {name: p.grad for name, p in learner.model.named_parameters()}
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-10, atol=1e-12, msg=key)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("more", [0, 3])
def test_through_all_blocks_it_is_backpropagation(name: str, more: int) -> None:
    network = NETWORKS[name]
    x, t = batch(network)
    longest = 3 if name == "two-towers" else len(network.onward)
    learner = taught(network, longest + more, x)
    plain = copy.deepcopy(learner.model)
    F.cross_entropy(plain(x), t).backward()
    F.cross_entropy(learner(x), t).backward()
    for (key, p), q in zip(plain.named_parameters(), learner.model.parameters(), strict=True):
        torch.testing.assert_close(q.grad, p.grad, rtol=1e-10, atol=1e-13, msg=key)
    assert learner.feedback.names() == []


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("relay", [1, 2])
def test_only_taps_from_which_a_credit_comes_have_a_map(name: str, relay: int) -> None:
    network = NETWORKS[name]
    learner = taught(network, relay, batch(network)[0])
    weighted = {key.split(".")[0] for key, _ in learner.model.named_parameters()}
    sources = {source_of(network, tap, relay) for tap in network.onward if tap in weighted}
    assert {*learner.feedback.names()} == sources - {None}


@pytest.mark.parametrize("probe", ["forward-ad", "finite-difference"])
def test_only_taps_with_a_map_are_perturbed(probe: str) -> None:
    """The derivative holds the noise of no other tap: linear blocks say whose it is."""
    layers = [nn.Linear(4, 4) for _ in range(5)]
    model = nn.Sequential(*layers).double()
    learner = fdfa.FDFA(model, taps=["0", "1", "2", "3"], relay=2, feedback_rate=1.0, probe=probe)
    heard: list[Any] = []
    teach, learner.teach = learner.teach, lambda lesson: (heard.append(lesson), teach(lesson))
    learner(torch.randn(5, 4).double()).sum().backward()
    (lesson,) = heard
    W = [layer.weight.detach() for layer in layers]
    p2, p3 = lesson.perturbations
    d = p2 @ W[3].T @ W[4].T + p3 @ W[4].T
    torch.testing.assert_close(lesson.derivative, d, rtol=1e-6, atol=1e-9)
    for tap, p in (("2", p2), ("3", p3)):
        torch.testing.assert_close(learner.feedback[tap].weight, d.T @ p / 5, rtol=1e-6, atol=1e-9)


class Products(TorchDispatchMode):
    """Counts matrix products of a block's width, with which arguments they are called."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: collections.Counter[tuple[tuple[int, ...], ...]] = collections.Counter()

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if op is torch.ops.aten.mm.default:
            self.shapes[tuple(tuple(x.shape) for x in args)] += 1
        return op(*args, **(kwargs or {}))


@pytest.mark.parametrize("relay", [1, 2, 4])
def test_no_product_is_made_twice_or_in_vain(relay: int) -> None:
    """Four hidden blocks: one product for each weight, those of the routes, and ``e B``."""
    N, n, taps = 3, 7, 4
    layers = [nn.Sequential(nn.Linear(n, n), nn.ReLU()) for _ in range(taps)]
    model = nn.Sequential(*layers, nn.Linear(n, n)).double()
    learner = fdfa.FDFA(model, taps=["0", "1", "2", "3"], relay=relay, probe_every=10)
    x = torch.randn(N, n).double()
    learner(x).sum().backward()
    y = learner(x).square().sum()
    with Products() as products:
        y.backward()
    relayed = taps - relay
    assert products.shapes == {
        ((n, N), (N, n)): taps + 1,  # by a weight
        ((N, n), (n, n)): relayed * relay + relay + relayed,  # by a block's input, and e B
    }


def test_credits_are_told_to_whoever_asks() -> None:
    network = NETWORKS["dense"]
    x, t = batch(network)
    learner = taught(network, 1, x)
    heard = {}
    learner.on_credit = lambda tap, g: heard.__setitem__(tap.name, g.clone())
    F.cross_entropy(learner(x), t).backward()
    assert heard.keys() == network.onward.keys()
    slope = 1 - learner.model[0](x).square()  # of tanh
    expected = learner.model[0][0].weight.grad
    torch.testing.assert_close((heard["0"] * slope).T @ x, expected, rtol=1e-10, atol=1e-12)


def test_hooks_on_parameters_change_a_gradient_once() -> None:
    network = NETWORKS["dense"]
    x, t = batch(network)
    learner = taught(network, 1, x)
    twin = copy.deepcopy(learner)
    for parameter in twin.parameters():
        parameter.register_hook(lambda gradient: gradient * 3)
    for each in (learner, twin):
        F.cross_entropy(each(x), t).backward()
    for p, q in zip(learner.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(q.grad, 3 * p.grad, rtol=1e-12, atol=0)


def test_a_parameter_of_two_blocks_gets_both_gradients() -> None:
    shared = nn.Linear(4, 4).double()
    model = nn.Sequential(shared, nn.Tanh(), shared, nn.Tanh(), shared, nn.Tanh()).double()
    model.append(nn.Linear(4, CLASSES).double())
    x, t = torch.randn(5, 4).double(), torch.tensor([0, 1, 2, 0, 1])
    learner = fdfa.FDFA(model, relay=3)
    F.cross_entropy(learner(x), t).backward()
    found = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    F.cross_entropy(model(x), t).backward()
    for p, gradient in zip(model.parameters(), found, strict=True):
        torch.testing.assert_close(gradient, p.grad, rtol=1e-10, atol=1e-12)


def blocks_of(plan: Any) -> Sequence[int]:
    return [longest_backward_path(plan, relay).blocks for relay in range(5)]


def layers_of(plan: Any) -> Sequence[int]:
    return [longest_backward_path(plan, relay).weight_layers for relay in range(5)]


def test_longest_backward_path() -> None:
    """A residual block: two weight layers one behind the other, a third beside them."""
    plans = {
        name: taught(network, 0, batch(network)[0]).plan(batch(network)[0])
        for name, network in NETWORKS.items()
    }
    assert layers_of(plans["dense"]) == blocks_of(plans["dense"]) == [1, 2, 3, 4, 5]
    assert blocks_of(plans["two-towers"]) == [1, 2, 3, 4, 4]
    assert layers_of(plans["residual"]) == [2, 4, 6, 7, 8]
    assert layers_of(plans["without-weights"]) == [1, 2, 3, 3, 4]


@pytest.mark.parametrize("relay", [0, 1, 2, 3])
def test_a_frozen_block_is_told_no_credit(relay: int) -> None:
    layers = [layer for _ in range(3) for layer in (nn.Linear(5, 5), nn.Tanh())]
    model = nn.Sequential(*layers, nn.Linear(5, 2))
    model[2].requires_grad_(False)
    learner, told = fdfa.FDFA(model, taps=["1", "3", "5"], relay=relay), set()
    learner.on_credit = lambda tap, credit: told.add(tap.name)
    learner(torch.randn(4, 5)).sum().backward()
    assert told == {"1", "5"}
