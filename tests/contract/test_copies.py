"""``deepcopy`` and pickling.

A copy is a learner of its own that goes on exactly where the original stands.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from fdfa.engine.estimator import Estimator
from tests.contract.networks import batch, busy, dense
from tests.contract.steps import (
    assert_same_bits,
    fresh_gradients,
    gradients,
    snapshot,
    train,
)
from tests.methods import Case

COPIES: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda learner: pickle.loads(pickle.dumps(learner)),
}
ways = pytest.mark.parametrize("way", COPIES)


def _adam(learner: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(learner.parameters(), lr=0.01)


def _train_three(learner: Estimator) -> None:
    torch.default_generator.manual_seed(21)
    train(learner, [batch(number) for number in (5, 6, 7)])


@ways
@pytest.mark.parametrize("steps", [0, 3])
def test_copy_goes_on_where_the_original_stands(case: Case, way: str, steps: int) -> None:
    """The next steps of both are bit-equal.

    Weights, gradients, the method's state, statistics, counters.
    """
    learner = case.wrap(busy())
    train(learner, [batch(number) for number in range(steps)], _adam(learner))
    twin = COPIES[way](learner)
    assert type(twin) is type(learner)
    assert_same_bits(snapshot(twin), snapshot(learner))
    for each in (learner, twin):
        _train_three(each)
    assert_same_bits(snapshot(twin), snapshot(learner))
    assert_same_bits(gradients(twin), gradients(learner))


@ways
def test_training_a_copy_leaves_the_original_alone(case: Case, way: str) -> None:
    """Shared feedback, plans or optimiser state of the feedback would show here."""
    learner = case.wrap(busy())
    train(learner, [batch(number) for number in range(2)])
    before, left = snapshot(learner), gradients(learner)
    twin = COPIES[way](learner)
    _train_three(twin)
    assert_same_bits(snapshot(learner), before)
    assert_same_bits(gradients(learner), left)
    changed = snapshot(twin)
    moved = [key for key in before if key.startswith("model.") and key.endswith("weight")]
    assert all((changed[key] != before[key]).any() for key in moved)


@ways
def test_training_the_original_leaves_a_copy_alone(case: Case, way: str) -> None:
    learner = case.wrap(busy())
    train(learner, [batch(number) for number in range(2)])
    twin = COPIES[way](learner)
    before = snapshot(twin)
    _train_three(learner)
    assert_same_bits(snapshot(twin), before)


def test_copy_shares_no_tensor(case: Case) -> None:
    learner = case.wrap(busy())
    train(learner, [batch(0)])
    twin = copy.deepcopy(learner)
    ours, theirs = learner.state_dict(keep_vars=True), twin.state_dict(keep_vars=True)
    addresses = {value.data_ptr() for value in ours.values()}
    assert not addresses & {value.data_ptr() for value in theirs.values()}


def test_copy_follows_its_own_model(case: Case) -> None:
    """A change of the copy's model, here a layer frozen, is the copy's alone."""
    learner = case.wrap(dense())
    train(learner, [batch(0)])
    twin = copy.deepcopy(learner)
    twin.model[2].requires_grad_(False)
    assert "2.weight" not in fresh_gradients(twin, batch(1))
    assert "2.weight" in fresh_gradients(learner, batch(1))


def test_copy_of_the_model_is_plain(case: Case) -> None:
    """What users deploy, ``deepcopy(learner.model)``, carries nothing of the method."""
    learner = case.wrap(busy())
    train(learner, [batch(0)])
    model = copy.deepcopy(learner.model)
    for ours, plain in zip(model.modules(), busy().modules(), strict=True):
        assert type(ours) is type(plain)
        assert ours.__dict__.keys() == plain.__dict__.keys()
    assert b"fdfa" not in pickle.dumps(model)
