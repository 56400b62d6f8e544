"""Local heads: where they hang, what they leave alone, and whose loss they get."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fdfa
from fdfa.engine.heads import LinearHead
from fdfa.errors import CheckpointError

CLASSES = 3


def network() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2)),
        *(nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, CLASSES)),
    ).double()


def batch(size: int = 6) -> tuple[Tensor, Tensor]:
    return torch.randn(size, 4).double(), torch.randint(CLASSES, (size,))


def with_weights(heads: fdfa.LocalHeads) -> fdfa.LocalHeads:
    for parameter in heads.heads.parameters():
        nn.init.normal_(parameter)
    return heads


def test_heads_leave_the_model_and_all_generators_alone() -> None:
    model = network()
    before = copy.deepcopy(model.state_dict())
    names = [name for name, _ in model.named_modules()]
    state = torch.get_rng_state()
    heads = fdfa.LocalHeads(model, batch()[0].requires_grad_(False))
    drawn = torch.get_rng_state()
    torch.set_rng_state(state)
    batch()
    assert torch.equal(drawn, torch.get_rng_state())  # the batch's own numbers, and no more
    assert heads.model is model
    assert [name for name, _ in model.named_modules()] == names
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert heads.names == ("3", "5")
    assert not any(parameter.any() for parameter in heads.heads.parameters())
    assert {parameter.dtype for parameter in heads.parameters()} == {torch.float64}


def test_a_model_with_heads_returns_what_the_model_returns() -> None:
    model, (x, _) = network().eval(), batch()
    heads = with_weights(fdfa.LocalHeads(model, x))
    assert torch.equal(heads(x), model(x))
    learner = fdfa.wrap("l-bp", pickle.loads(pickle.dumps(heads)).train())
    torch.manual_seed(1)
    found = learner(x)
    torch.manual_seed(1)
    assert torch.equal(found, model.train()(x))


def test_every_parameter_is_there_before_the_first_step_and_learns() -> None:
    x, target = batch(64)
    heads = fdfa.LocalHeads(network(), x)
    optimizer = torch.optim.SGD(heads.parameters(), lr=0.5)
    learner = fdfa.wrap("l-bp", heads)
    assert {id(p) for p in learner.parameters()} == {id(p) for p in heads.parameters()}
    start = copy.deepcopy(heads.state_dict())
    criterion = learner.criterion(F.cross_entropy)
    for _ in range(2):  # heads start at zero: hidden blocks learn from the second step on
        optimizer.zero_grad()
        criterion(learner(x), target).backward()
        optimizer.step()
    for key, value in heads.named_parameters():
        # a bias before batch norm has a gradient of zero but for rounding
        assert value.dim() == 1 or not torch.equal(value, start[key]), key


def test_heads_of_ones_own() -> None:
    """Any module, told the shapes; convolutions, several dimensions of samples."""
    told = []

    def head(shape: tuple[int, ...], outputs: tuple[int, ...]) -> nn.Module:
        told.append((shape, outputs))
        pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return nn.Sequential(pooled, nn.Linear(shape[0], 7), nn.Tanh(), nn.Linear(7, *outputs))

    model = nn.Sequential(
        *(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(24, CLASSES)),
    )
    heads = fdfa.LocalHeads(model, torch.ones(2, 2, 6, 6), taps=nn.ReLU, head=head)
    assert heads.names == ("1", "3")
    assert told == [((4, 4, 4), (CLASSES,)), ((6, 2, 2), (CLASSES,))]
    for method in ("l-bp", "lg-fg-a"):
        learner = fdfa.wrap(method, heads)
        learner.zero_grad()
        loss = learner.criterion(F.cross_entropy)(
            learner(torch.randn(5, 2, 6, 6)), torch.zeros(5, dtype=torch.int64)
        )
        loss.backward()
        assert all(p.grad is not None and p.grad.any() for p in learner.parameters())


@pytest.mark.parametrize("method", ["l-bp", "lg-fg-a"])
def test_positions_as_samples(method: str) -> None:
    """(N, T, ...): with ``sample_dims=2`` one head for all positions."""
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, CLASSES)).double()
    x, target = torch.randn(5, 7, 4).double(), torch.randint(CLASSES, (5, 7))
    heads = with_weights(fdfa.LocalHeads(model, x, sample_dims=2))
    assert heads.heads[0].linear.in_features == 8
    learner = fdfa.wrap(method, heads, seed=1)
    criterion = learner.criterion(lambda y, t: F.cross_entropy(y.flatten(0, 1), t.flatten()))
    criterion(learner(x), target).backward()
    expected = F.cross_entropy(heads.heads[0](model[:2](x)).flatten(0, 1), target.flatten())
    grads = torch.autograd.grad(expected, [*heads.heads[0].parameters(), model[0].weight])
    found = [p.grad for p in (*heads.heads[0].parameters(), model[0].weight)]
    exact = 3 if method == "l-bp" else 2
    torch.testing.assert_close(found[:exact], list(grads[:exact]), rtol=1e-12, atol=1e-14)
    assert found[2].shape == grads[2].shape


def _as_a_dict(criterion: Callable[..., Tensor], y: Tensor, target: Tensor) -> Tensor:
    return criterion({"names": ["a"], "logits": y}, target)


CALLS: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "keywords": (F.cross_entropy, lambda c, y, t: c(input=y, target=t)),
    "reshaped": (F.cross_entropy, lambda c, y, t: c(y.view(-1, CLASSES), t.view(-1))),
    "in another type": (
        lambda y, t: F.cross_entropy(y.double(), t),
        lambda c, y, t: c(y.float(), t),
    ),
    "within a dict": (lambda d, t: F.cross_entropy(d["logits"], t), _as_a_dict),
    "a loss a sample": (
        lambda y, t: F.cross_entropy(y, t, reduction="none"),
        lambda c, y, t: c(y, t).mean(),
    ),
    "in two parts": (
        lambda y, t: F.cross_entropy(y, t),
        lambda c, y, t: 0.25 * c(y, t) + 0.75 * c(y, t),
    ),
    "beside a loss that is only looked at": (
        F.cross_entropy,
        lambda c, y, t: c(y, t) + 0 * c(y, (t + 1) % CLASSES).item(),
    ),
}


@pytest.mark.parametrize("way", CALLS)
def test_heads_get_the_users_loss_however_it_is_called(way: str) -> None:
    loss, call = CALLS[way]
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, CLASSES)).double()
    x, target = batch()
    heads = with_weights(fdfa.LocalHeads(model, x))
    learner = fdfa.wrap("l-bp", heads)
    call(learner.criterion(loss), learner(x), target).backward()
    local = F.cross_entropy(heads.heads[0](model[:2](x)), target)
    own = [*model[0].parameters(), *heads.heads.parameters()]
    expected = torch.autograd.grad(local, own)
    tolerance = 1e-5 if way == "in another type" else 1e-12
    found = [parameter.grad for parameter in own]
    torch.testing.assert_close(found, list(expected), rtol=tolerance, atol=tolerance)


def test_a_head_follows_a_model_that_is_moved_alone() -> None:
    x, target = batch()
    learner = fdfa.wrap("l-bp", fdfa.LocalHeads(network(), x))
    learner.model.float()
    learner.criterion(F.cross_entropy)(learner(x.float()), target).backward()
    assert {parameter.grad.dtype for parameter in learner.parameters()} == {torch.float32}


def test_a_state_with_other_heads_changes_nothing() -> None:
    x, _ = batch()
    learner = fdfa.wrap("l-bp", fdfa.LocalHeads(network(), x))
    state = learner.state_dict()
    state["heads.1.linear.weight"] = torch.ones(CLASSES, 4)
    state["model.0.weight"] = torch.zeros_like(state["model.0.weight"])
    with pytest.raises(CheckpointError, match=r"'heads\.1\.linear\.weight' is \(3, 4\)"):
        learner.load_state_dict(state)
    assert learner.model[0].weight.any()


def test_frozen_blocks_have_no_local_loss() -> None:
    """Their heads get no gradient either: nothing in front of them would learn."""
    x, target = batch()
    heads = with_weights(fdfa.LocalHeads(network(), x))
    heads.model[:4].requires_grad_(False)
    learner = fdfa.wrap("l-bp", heads)
    learner.criterion(F.cross_entropy)(learner(x), target).backward()
    assert [tap.name for tap in learner.plan(x).taps] == ["5"]
    assert all(parameter.grad is None for parameter in heads.heads[0].parameters())
    assert all(parameter.grad.any() for parameter in heads.heads[1].parameters())


def test_other_methods_take_a_model_with_heads_as_any_model() -> None:
    (x, target), heads = batch(), None
    for method in ("backpropagation", "fdfa"):
        heads = fdfa.LocalHeads(network(), x)
        F.cross_entropy(fdfa.wrap(method, heads)(x), target).backward()
        assert all(parameter.grad is not None for parameter in heads.model.parameters())
        assert all(parameter.grad is None for parameter in heads.heads.parameters())


def test_the_default_head_maps_all_units() -> None:
    head: Any = LinearHead((2, 3), (4, 5))
    nn.init.normal_(head.linear.weight)
    h = torch.randn(6, 2, 3)
    expected = (h.flatten(1) @ head.linear.weight.T).view(6, 4, 5)
    torch.testing.assert_close(head(h), expected)


class _WithParts(nn.Module):
    """Calls something parts, as anybody may."""

    def __init__(self, shape: tuple[int, ...], outputs: tuple[int, ...]) -> None:
        super().__init__()
        self.parts = nn.ModuleList([nn.Linear(*shape, 4), nn.Linear(4, *outputs)])

    def forward(self, h: Tensor) -> Tensor:
        for part in self.parts:
            h = part(h)
        return h


def test_an_attribute_called_parts_makes_no_head_of_parts() -> None:
    """Such a head is a head like any other."""
    x, target = batch()
    learner = fdfa.wrap("lg-fg-a", fdfa.LocalHeads(network(), x, head=_WithParts), seed=1)
    learner.criterion(F.cross_entropy)(learner(x), target).backward()
    assert all(p.grad is not None and p.grad.any() for p in learner.heads.parameters())
