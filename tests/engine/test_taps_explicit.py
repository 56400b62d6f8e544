"""Taps named by the user, by name, type and predicate; and automatic ones joined by ``depth``."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fdfa
from fdfa.engine.taps import TapPlan, plan_taps
from tests.engine.branching_cases import BRANCHING
from tests.engine.dense_cases import DENSE
from tests.engine.exact_credit import (
    assert_blocks_are_isolated,
    assert_derivative_is_dual_to_the_credits,
    assert_exact_credits_give_exact_gradients,
)
from tests.engine.image_cases import IMAGES
from tests.engine.sequence_cases import SEQUENCES
from tests.engine.tap_case import TapCase, noise

KNOWN = {case.name: case for case in [*DENSE, *BRANCHING, *IMAGES, *SEQUENCES]}


def plan_of(case: TapCase) -> TapPlan:
    args, kwargs = case.inputs()
    return plan_taps(case.model(), args, kwargs, **case.options)


def _case(name: str, expected: list[str], **options: Any) -> Any:
    shown = ", ".join(
        f"{key}={getattr(value, '__name__', value)}" for key, value in options.items()
    )
    return pytest.param(KNOWN[name].with_options(expected, **options), id=f"{name}: {shown}")


def is_norm(name: str, module: nn.Module) -> bool:
    return "norm" in name and isinstance(module, nn.LayerNorm)


EXPLICIT = [
    _case("mlp of modules", ["1"], taps="1"),
    _case("mlp of modules", ["0", "3"], taps=["3", "0"]),  # met in the order of the pass
    _case("mlp of modules", ["1", "3"], taps=nn.ReLU),
    _case("mlp of modules", ["0", "1", "2", "3"], taps=lambda name, module: True),
    _case("mlp of modules", ["0", "2"], taps=nn.Linear),  # the last Linear makes the output
    _case("mlp with functional relu", ["fc1", "fc2"], taps=("fc1", "fc2")),
    _case("mlp with in-place relu modules", ["0", "2"], taps=["0", "2"]),
    _case("mlp of modules", ["1"], taps=["1", "1"]),
    # Outer and inner container return the same tensor: one tap, named after who returned it first.
    _case("nested containers", ["0.1"], taps=["0", "0.1"]),
    _case("nested containers", ["0", "1.0", "1"], taps=nn.Sequential),
    _case("activation called three times", ["act", "act#2", "act#3"], taps="act"),
    _case("activation called three times", ["fc", "fc#2"], taps=["fc"]),
    _case("frozen first layers", ["5", "7"], taps=nn.ReLU),  # before them nothing learns
    _case("resnet", ["layer1", "layer2.0"], taps=["layer1", "layer2.0"]),
    _case("transformer encoder, norm last", ["encoder.layers.0"], taps=["encoder.layers.0"]),
    _case(
        "transformer encoder, norm last",
        ["encoder.layers.0", "encoder.layers.1"],
        taps=nn.TransformerEncoderLayer,
    ),
    _case(
        "transformer encoder, norm last",
        [f"encoder.layers.{i}.norm{j}" for i in (0, 1) for j in (1, 2)],
        taps=is_norm,
    ),
    _case("two towers", ["a.1", "b.1"], taps=["a.1", "b.1"]),
    _case("two towers", ["b.3"], taps=["b.3"]),  # one tower whole, the other by its exact error
    _case("u-net", ["enc1", "dec1"], taps=["dec1", "enc1"]),
    _case("keyword arguments, dict as output", ["body"], taps=["body"]),
    _case("mlp of modules", [], taps=[]),
]

# Blocks of k weight layers (residual networks: k residual blocks), counted from the input.
DEEPER = [
    _case("mlp of modules", ["3"], depth=2),
    _case("mlp of modules", [], depth=3),
    _case("mlp of modules", [], depth=1000),
    _case("lenet of modules", ["6", "10"], depth=2),
    _case("lenet of modules", ["8"], depth=3),
    _case("lenet, functional", ["fc1:input", "fc3:input"], depth=2),
    _case("resnet", ["layer1.0", "layer2.0"], depth=2),
    _case("resnet", ["layer1.1"], depth=3),
    _case("activation called three times", ["act#2"], depth=2),
    _case(
        "transformer encoder, norm last",
        ["encoder.layers.0.norm1", "encoder.layers.1.norm1"],
        depth=2,
    ),
    # a.1 and b.1 are the first level, the join behind both is the second
    _case("two towers", ["head:input"], depth=2),
    _case("frozen first layers", ["7"], depth=2),
    _case("unrolled cell", ["cell#3"], depth=3),
]


@pytest.mark.parametrize("case", [*EXPLICIT, *DEEPER])
def test_taps_are_those_asked_for(case: TapCase) -> None:
    assert sorted(tap.name for tap in plan_of(case).taps) == sorted(case.taps)


@pytest.mark.parametrize("case", [*EXPLICIT, *DEEPER])
def test_taps_come_in_the_order_of_the_forward_pass(case: TapCase) -> None:
    """Written in that order above; an order of another kind raises on every step."""
    assert [tap.name for tap in plan_of(case).taps] == list(case.taps)


@pytest.mark.parametrize("case", [*EXPLICIT, *DEEPER])
def test_cuts_are_exact(case: TapCase) -> None:
    assert_blocks_are_isolated(case)
    assert_exact_credits_give_exact_gradients(case)
    if case.taps:
        assert_derivative_is_dual_to_the_credits(case)


@pytest.mark.parametrize("options", [{"taps": []}, {"depth": 1000}], ids=["no taps", "deep"])
@pytest.mark.parametrize("method", [fdfa.DFA, fdfa.FDFA])
def test_without_taps_it_is_backpropagation_bit_for_bit(method, options) -> None:
    case = KNOWN["lenet of modules"]
    plain, (args, _) = case.model(), case.inputs()
    learner = method(case.model(), **options)
    for model in (plain, learner):
        model(*args).square().sum().backward()
    for p, q in zip(plain.parameters(), learner.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad)


@pytest.mark.parametrize(
    "model",
    [nn.Linear(4, 3), nn.Sequential(nn.Linear(4, 3), nn.ReLU())],
    ids=["one layer", "one layer and an activation"],
)
def test_a_single_layer_has_no_taps_but_trains_with_none(model: nn.Module) -> None:
    with pytest.raises(fdfa.errors.UnsupportedModelError, match=r"taps=\[\]"):
        fdfa.DFA(model)(torch.ones(2, 4))
    fdfa.DFA(model, taps=[])(torch.ones(2, 4)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


class FunctionalWeights(nn.Module):
    """All weights belong to the model itself: no module is called, nothing can be cut."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(4, 5))
        self.second = nn.Parameter(torch.randn(5, 3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x @ self.first) @ self.second


def test_functional_weights_alone_have_no_taps_but_train_with_none() -> None:
    model = FunctionalWeights()
    with pytest.raises(fdfa.errors.UnsupportedModelError, match="no tap was found"):
        fdfa.DFA(model)(torch.ones(2, 4))
    fdfa.DFA(model, taps=[])(torch.ones(2, 4)).sum().backward()
    assert model.first.grad is not None


def test_one_map_serves_all_positions() -> None:
    """``sample_dims=2``: maps are as wide as a position, its credit is its own error times B.

    With positions counted as units (the default) the map would be (T K, T |h|).
    """
    case = KNOWN["one output a position, norm last"]
    learner = fdfa.DFA(case.model(), sample_dims=2)
    (x,), _ = case.inputs()
    y = learner(x)
    taps = learner.plan(x).taps
    assert {tap.shape for tap in taps} == {(7, 4, 8)}
    assert {tuple(learner.feedback[tap].weight.shape) for tap in taps} == {(3, 8)}
    e = noise(*y.shape)
    y.backward(e)
    # the block before the head ends in a layer norm: its bias gradient is the sum of the credits
    norm = learner.model.encoder.layers[1].norm2
    B = learner.feedback["encoder.layers.1.norm2"].weight
    credit = torch.stack([torch.stack([e[n, t] @ B for t in range(4)]) for n in range(7)])
    torch.testing.assert_close(norm.bias.grad, credit.sum((0, 1)), rtol=1e-10, atol=1e-12)


def test_positions_teach_the_map_as_samples_do() -> None:
    """FDFA with ``sample_dims=2`` and rate 1: B = mean over N T samples of d^T p.

    The model is linear and acts on each position alone, so that d = p W^T is known by hand.
    """
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)).double()
    learner = fdfa.FDFA(model, sample_dims=2, feedback_rate=1.0, seed=5)
    x = noise(6, 4, 4)
    learner(x).sum().backward()
    probe = learner.probe.draw([(6, 4, 5)], [torch.float64], [torch.device("cpu")], 5, 0, 0)
    p = probe[0].reshape(24, 5)
    d = p @ model[1].weight.detach().T
    torch.testing.assert_close(learner.feedback["0"].weight, d.T @ p / 24, rtol=1e-10, atol=1e-12)
