"""Automatic taps against lists written by hand, and exact gradients through the cuts found."""

from __future__ import annotations

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

CASES = [*DENSE, *BRANCHING, *IMAGES, *SEQUENCES]
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def plan_of(case: TapCase, model: nn.Module) -> TapPlan:
    args, kwargs = case.inputs()
    return plan_taps(model, args, kwargs, **case.options)


@every_case
def test_taps_are_those_of_the_rule(case: TapCase) -> None:
    plan = plan_of(case, case.model())
    assert [tap.name for tap in plan.taps] == list(case.taps)
    assert plan.chain is case.chain


@every_case
def test_blocks_hold_exactly_the_trainable_parameters(case: TapCase) -> None:
    """A parameter lost from the blocks, or a frozen one among them, would be misreported."""
    model = case.model()
    plan = plan_of(case, model)
    trainable = {name for name, p in model.named_parameters() if p.requires_grad} - {"missing"}
    used = {name for block in plan.blocks for name in block}
    assert used == trainable
    assert len(plan.blocks) == len(plan.weight_layers) == len(plan.taps) + 1


@every_case
def test_each_block_reaches_its_own_parameters_alone(case: TapCase) -> None:
    assert_blocks_are_isolated(case)


@every_case
def test_exact_credits_give_exact_gradients(case: TapCase) -> None:
    assert_exact_credits_give_exact_gradients(case)


@every_case
def test_the_probe_measures_the_derivative_along_all_taps(case: TapCase) -> None:
    assert_derivative_is_dual_to_the_credits(case)


@pytest.mark.parametrize(
    ("name", "receives"),
    [
        ("mlp of modules", [False, True]),
        ("two towers", [False, False, True]),
        ("u-net", [False, True, True]),
        ("frozen first layers", [False, True]),
    ],
)
def test_a_tap_receives_what_earlier_taps_perturb(name: str, receives: list[bool]) -> None:
    case = next(case for case in CASES if case.name == name)
    plan = plan_of(case, case.model())
    receiving = plan.receiving(plan.taps)
    assert [tap.name in receiving for tap in plan.taps] == receives


def test_tied_weights_are_in_both_of_their_blocks() -> None:
    case = next(case for case in DENSE if case.name == "tied weights")
    blocks = plan_of(case, case.model()).blocks
    assert blocks == (("0.weight", "0.bias"), ("0.weight", "2.bias"), ("4.weight", "4.bias"))


def test_a_layer_called_twice_is_in_both_of_its_blocks() -> None:
    case = next(case for case in DENSE if case.name == "layer called twice")
    plan = plan_of(case, case.model())
    fc = ("fc.weight", "fc.bias")
    assert plan.blocks == (("stem.weight", "stem.bias"), fc, fc, ("head.weight", "head.bias"))
    assert plan.weight_layers == (("stem",), ("fc",), ("fc",), ("head",))


def test_shapes_and_devices_are_those_of_the_tensors() -> None:
    case = next(case for case in IMAGES if case.name == "lenet of modules")
    plan = plan_of(case, case.model())
    assert [tap.shape for tap in plan.taps] == [(5, 3, 4, 4), (5, 16), (5, 6), (5, 5)]
    assert {tap.device for tap in plan.taps} == {torch.device("cpu")}
    assert plan.output_shape == (5, 3)


class DeepForLongInputs(nn.Module):
    """Sequences longer than 4 pass one more layer."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.head = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 3)
        self.act1, self.act2 = nn.Tanh(), nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        h = self.act1(self.fc1(x.mean(1)))
        if x.shape[1] > 4:
            h = self.act2(self.fc2(h))
        return self.head(h)


def gradients_by_hand(model: nn.Module, x: Tensor, maps: dict[str, Tensor]) -> dict[str, Tensor]:
    """Direct feedback alignment for L = sum(y^2) / 2, layer by layer, as one would on paper."""
    grads: dict[str, Tensor] = {}

    def layer(name: str, inputs: Tensor, delta: Tensor) -> None:
        grads[f"{name}.weight"], grads[f"{name}.bias"] = delta.T @ inputs, delta.sum(0)

    with torch.no_grad():
        pooled = x.mean(1)
        h1 = model.fc1(pooled).tanh()
        h2 = model.fc2(h1).tanh() if x.shape[1] > 4 else h1
        e = model.head(h2)  # dL/dy = y
        layer("head", h2, e)
        if x.shape[1] > 4:
            layer("fc2", h1, (e @ maps["act2"]) * (1 - h2**2))
        layer("fc1", pooled, (e @ maps["act1"]) * (1 - h1**2))
    return grads


def test_two_structures_of_one_model_take_turns() -> None:
    """A plan kept for the wrong length would lose fc2's gradient, or miss its tap."""
    model = DeepForLongInputs().double()
    learner = fdfa.DFA(model, seed=3)
    short, long = noise(6, 3, 4), noise(6, 8, 4)
    assert [tap.name for tap in learner.plan(short).taps] == ["act1"]
    assert [tap.name for tap in learner.plan(long).taps] == ["act1", "act2"]
    maps = {name: learner.feedback[name].weight for name in ("act1", "act2")}
    for x in (long, short, long, short, short[:4]):
        model.zero_grad()
        y = learner(x)
        (y.square().sum() / 2).backward()
        found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        torch.testing.assert_close(found, gradients_by_hand(model, x, maps), rtol=1e-10, atol=1e-12)
