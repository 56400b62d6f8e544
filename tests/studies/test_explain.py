"""Explanations against counts made by hand."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fdfa
from fdfa.errors import UnsupportedModelError
from fdfa.studies.explain import explain
from fdfa.studies.explanation import Explanation

N = 16


def dense() -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 3))


X = torch.randn(N, 5, generator=torch.Generator().manual_seed(0))
FORWARD = {"0": N * 5 * 7, "2": N * 7 * 6, "4": N * 6 * 3}
MAPS = N * 3 * (7 + 6)
BACKPROPAGATION = 2 * sum(FORWARD.values()) + FORWARD["2"] + FORWARD["4"]


def counts(found: Explanation) -> dict[str, tuple[int, int, int, int]]:
    return {
        layer.name: (layer.forward, layer.weight_gradient, layer.input_gradient, layer.tangent)
        for layer in found.products.layers
    }


def test_backpropagation() -> None:
    found = explain(fdfa.Backpropagation(dense()), X)
    assert counts(found) == {
        "0": (FORWARD["0"], FORWARD["0"], 0, 0),
        "2": (FORWARD["2"], FORWARD["2"], FORWARD["2"], 0),
        "4": (FORWARD["4"], FORWARD["4"], FORWARD["4"], 0),
    }
    assert found.products.step == found.products.backpropagation == BACKPROPAGATION
    assert found.products.ratio == 1
    assert found.taps == ()
    (block,) = found.blocks
    assert (block.ends_at, block.weight_layers) == ("output", ("0", "2", "4"))
    assert block.parameters == 5 * 7 + 7 + 7 * 6 + 6 + 6 * 3 + 3
    assert found.probe_every is None


def test_dfa() -> None:
    found = explain(fdfa.DFA(dense()), X)
    assert counts(found) == {name: (f, f, 0, 0) for name, f in FORWARD.items()}
    assert (found.products.credit, found.products.teaching) == (MAPS, 0)
    assert found.products.step == 2 * sum(FORWARD.values()) + MAPS
    assert found.products.ratio == pytest.approx(found.products.step / BACKPROPAGATION, rel=1e-12)
    assert [(tap.name, tap.module_type, tap.shape, tap.units) for tap in found.taps] == [
        ("1", "Tanh", (N, 7), 7),
        ("3", "Tanh", (N, 6), 6),
    ]
    assert [(tap.feedback_shape, tap.feedback_bytes) for tap in found.taps] == [
        ((3, 7), 4 * 21),
        ((3, 6), 4 * 18),
    ]
    assert [(b.ends_at, b.weight_layers, b.parameters) for b in found.blocks] == [
        ("1", ("0",), 42),
        ("3", ("2",), 48),
        ("output", ("4",), 21),
    ]


@pytest.mark.parametrize(("every", "update"), [(1, "momentum"), (4, "momentum"), (1, "innovation")])
def test_fdfa(every: int, update: str) -> None:
    learner = fdfa.FDFA(dense(), probe_every=every, feedback_update=update)
    found = explain(learner, X)
    assert {name: tangent for name, (_, _, _, tangent) in counts(found).items()} == {
        "0": 0,
        "2": FORWARD["2"],
        "4": FORWARD["4"],
    }
    teaching = MAPS * (2 if update == "innovation" else 1)  # d^T p, and p B^T
    always = 2 * sum(FORWARD.values()) + MAPS
    probing = FORWARD["2"] + FORWARD["4"] + teaching
    assert found.products.step == pytest.approx(always + probing / every, rel=1e-12)
    assert found.probe_every == every
    assert found.obstacles == ()


@pytest.mark.parametrize("relay", [1, 2])
def test_a_relay_costs_derivatives_by_inputs(relay: int) -> None:
    """Of two taps one keeps its map with a relay of one: its noise passes the last layer alone."""
    found = explain(fdfa.FDFA(dense(), relay=relay), X)
    noisy = relay == 1
    assert counts(found) == {
        "0": (FORWARD["0"], FORWARD["0"], 0, 0),
        "2": (FORWARD["2"], FORWARD["2"], FORWARD["2"], 0),
        "4": (FORWARD["4"], FORWARD["4"], FORWARD["4"], FORWARD["4"] * noisy),
    }
    assert found.products.credit == N * 3 * 6 * noisy
    assert found.memory.probe == 4 * N * 6 * (1 + 2) * noisy
    if not noisy:
        assert found.products.step == BACKPROPAGATION


def test_relays_through_one_block_add() -> None:
    """Six layers, relay of two: taps 0 and 1 are relayed through block 2, 0 also through 1."""
    layers = [layer for _ in range(5) for layer in (nn.Linear(5, 5), nn.Tanh())]
    found = explain(fdfa.FDFA(nn.Sequential(*layers, nn.Linear(5, 3)), relay=2), X)
    one = N * 25
    assert [layer.input_gradient for layer in found.products.layers] == [
        *(0, one, 2 * one, 2 * one, 2 * one),
        N * 15,
    ]


@pytest.mark.parametrize(("relay", "passed"), [(1, "2"), (2, "24"), (3, "246")])
def test_a_frozen_block_passes_credits_on(relay: int, passed: str) -> None:
    """It takes none itself: of three taps the second has none, the third the exact error."""
    layers = [layer for _ in range(3) for layer in (nn.Linear(5, 5), nn.Tanh())]
    model = nn.Sequential(*layers, nn.Linear(5, 5))
    model[2].requires_grad_(False)
    found = explain(fdfa.FDFA(model, taps=["1", "3", "5"], relay=relay), X)
    one = N * 25
    assert {layer.name: layer.input_gradient for layer in found.products.layers} == {
        name: one if name in {*passed, "6"} else 0 for name in ("0", "2", "4", "6")
    }


def test_relays_add_to_what_passes_within_a_block() -> None:
    """Three blocks of two layers: one credit is relayed, through the second."""
    layers = [layer for _ in range(5) for layer in (nn.Linear(5, 5), nn.Tanh())]
    found = explain(fdfa.FDFA(nn.Sequential(*layers, nn.Linear(5, 5)), depth=2, relay=1), X)
    counted = [layer.input_gradient // (N * 25) for layer in found.products.layers]
    assert counted == [0, 1, 1, 2, 1, 1]


def test_one_layer_in_two_blocks_passes_each_blocks_credits() -> None:
    layer = nn.Linear(5, 5)
    model = nn.Sequential(nn.Linear(5, 5), nn.Tanh(), layer, nn.Tanh(), layer, nn.Tanh(), layer)
    found = explain(fdfa.FDFA(model, taps=["1", "3", "5"], relay=1), X)
    assert [layer.input_gradient for layer in found.products.layers] == [0, 3 * N * 25]


def test_a_shared_map_is_as_small_as_it_is() -> None:
    """One entry for each of 3 channels in 4 cells, of 3 x 8 x 8 units."""
    layers = [nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(192, 5)]
    learner = fdfa.FDFA(nn.Sequential(*layers), taps=["1"], shift_grid=2)
    found = explain(learner, torch.randn(N, 2, 8, 8))
    assert (found.taps[0].units, found.taps[0].feedback_shape) == (192, (5, 12))
    assert found.taps[0].feedback_bytes == 4 * 60
    assert (found.products.credit, found.products.teaching) == (N * 60, N * 60)


def test_a_finite_difference_costs_two_passes() -> None:
    found = explain(fdfa.FDFA(dense(), probe="finite-difference"), X)
    assert {name: tangent for name, (_, _, _, tangent) in counts(found).items()} == {
        name: 2 * count for name, count in FORWARD.items()
    }


def test_several_tangents_cost_a_pass_each() -> None:
    """Each with a derivative; one of the passes is the one that learns."""
    found = explain(fdfa.wrap("multi-tangent-a", dense(), count=3), X)
    assert {name: tangent for name, (_, _, _, tangent) in counts(found).items()} == {
        "0": 2 * FORWARD["0"],
        "2": 5 * FORWARD["2"],
        "4": 5 * FORWARD["4"],
    }


@pytest.mark.parametrize(("form", "passes"), [("centred", 0), ("two-point", 1), ("antithetic", 2)])
def test_noise_at_the_taps_costs_as_many_passes_as_its_form(form: str, passes: int) -> None:
    found = explain(fdfa.wrap("opzo", dense(), form=form), X)
    assert {name: tangent for name, (_, _, _, tangent) in counts(found).items()} == {
        name: passes * count for name, count in FORWARD.items()
    }


def test_depth_lets_gradients_pass_within_a_block() -> None:
    found = explain(fdfa.DFA(dense(), depth=2), X)
    assert [tap.name for tap in found.taps] == ["3"]
    assert counts(found)["2"][2] == FORWARD["2"]
    assert counts(found)["4"][2] == 0


def test_a_tap_at_a_layers_own_input() -> None:
    """Functional activations are cut where the next layer reads them, inside that layer's call."""

    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(5, 7), nn.Linear(7, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(F.relu(self.first(x)))

    found = explain(fdfa.FDFA(Functional()), X)
    assert [tap.name for tap in found.taps] == ["second:input"]
    assert counts(found) == {
        "first": (N * 35, N * 35, 0, 0),
        "second": (N * 21, N * 21, 0, N * 21),
    }


def test_layers_called_by_keyword() -> None:
    class ByKeyword(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(5, 7), nn.Linear(7, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(input=F.relu(self.first(input=x)))

    found = explain(fdfa.FDFA(ByKeyword()), X)
    assert [tap.name for tap in found.taps] == ["second:input"]
    assert counts(found) == {
        "first": (N * 35, N * 35, 0, 0),
        "second": (N * 21, N * 21, 0, N * 21),
    }


def test_frozen_layers_cost_no_weight_gradient() -> None:
    model = dense()
    model[2].requires_grad_(False)
    found = explain(fdfa.Backpropagation(model), X)
    assert counts(found)["2"] == (FORWARD["2"], 0, FORWARD["2"], 0)
    assert found.memory.gradients == 4 * (42 + 21)


def test_a_frozen_layer_behind_a_tap_still_carries_the_probe() -> None:
    model = dense()
    model[2].requires_grad_(False)
    found = explain(fdfa.FDFA(model, taps=["1"]), X)
    assert counts(found)["2"] == (FORWARD["2"], 0, 0, FORWARD["2"])


class Undifferentiable(torch.autograd.Function):
    """Has a backward but no forward derivative."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient * 2


class Obstacle(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Undifferentiable.apply(x)


def test_an_obstacle_is_named_and_what_lies_behind_it_is_counted() -> None:
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), Obstacle(), nn.Linear(7, 6), nn.Tanh())
    model.append(nn.Linear(6, 3))
    found = explain(fdfa.FDFA(model, taps=["1", "4"]), X)
    (problem,) = found.obstacles
    assert "'2'" in problem
    assert "Obstacle" in problem
    assert "finite-difference" in problem
    assert [counts(found)[name][3] for name in ("0", "3", "5")] == [0, N * 42, N * 18]
    assert explain(fdfa.FDFA(model, taps=["1", "4"], probe="finite-difference"), X).obstacles == ()
    assert explain(fdfa.DFA(model, taps=["1", "4"]), X).obstacles == ()


def test_what_cannot_be_cut_raises() -> None:
    with pytest.raises(UnsupportedModelError, match="no tap was found"):
        explain(fdfa.DFA(nn.Sequential(nn.Linear(5, 3))), X)


@pytest.mark.parametrize("method", ["backpropagation", "dfa", "fdfa"])
def test_the_learner_is_left_as_it_is(method: str) -> None:
    model = nn.Sequential(
        nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Dropout(0.5), nn.ReLU(), nn.Linear(7, 3)
    )
    learner = fdfa.wrap(method, model).eval()
    before, random_state = copy.deepcopy(learner.state_dict()), torch.get_rng_state()
    explain(learner, X)
    after = learner.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not any(module.training for module in learner.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model)


def test_an_activation_in_place_behind_a_tap() -> None:
    model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(inplace=True), nn.Linear(7, 3))
    assert counts(explain(fdfa.FDFA(model, taps=["0"]), X))["2"] == (N * 21, N * 21, 0, N * 21)


def test_memory() -> None:
    found = explain(fdfa.FDFA(dense()), X)
    numbers = 42 + 48 + 21
    # Autograd keeps the input of each layer and the output of each tanh, which are the same but
    # for the network's own input.
    kept = N * (5 + 7 + 6)
    assert found.memory.parameters == found.memory.gradients == 4 * numbers
    assert found.memory.activations == 4 * kept
    assert found.memory.feedback == 4 * 3 * (7 + 6)
    assert found.memory.probe == 4 * N * (7 + 6) + 2 * 4 * N * 7
    signs = explain(fdfa.FDFA(dense(), noise="rademacher"), X)
    assert signs.memory.probe == 4 * N * (7 + 6) // 32 + 2 * 4 * N * 7
    assert found.memory.total == 4 * (2 * numbers + kept + 39 + N * 13 + 2 * N * 7)


def test_the_report_is_plain_and_holds_the_sums() -> None:
    found = explain(fdfa.FDFA(dense()), X)
    report = found.report()
    assert report["products"]["ratio"] == found.products.ratio
    assert report["memory"]["total"] == found.memory.total
    assert report["taps"][0]["feedback_shape"] == [3, 7]


def test_nothing_to_multiply_has_no_ratio() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.ones(5))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.factor

    assert math.isnan(explain(fdfa.Backpropagation(Scale()), X).products.ratio)


def test_a_rule_without_taps_is_not_given_backpropagations_costs() -> None:
    for method in ("fa", "fg-w", "pepita"):
        assert not explain(fdfa.wrap(method, dense()), X).counted
    assert explain(fdfa.Backpropagation(dense()), X).counted
