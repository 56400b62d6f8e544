"""Frozen parameters stay without a gradient, wherever and whenever they are frozen or freed."""

from __future__ import annotations

import pytest
import torch

from tests.contract.networks import batch, busy, dense
from tests.contract.steps import (
    assert_same_bits,
    backward,
    fresh_gradients,
    gradients,
    own_state,
    train,
)
from tests.methods import Case

PLACES = {
    "first": ["0."],
    "first two": ["0.", "2."],
    "middle": ["2."],
    "last": ["6."],
    "all biases": ["0.bias", "2.bias", "4.bias", "6.bias"],
    "one matrix": ["4.weight"],
}


def _freeze(model: torch.nn.Module, prefixes: list[str], *, frozen: bool = True) -> set[str]:
    """Sets the parameters' requires_grad; the names that were meant."""
    names = {
        name for name, _ in model.named_parameters() if any(name.startswith(p) for p in prefixes)
    }
    assert names
    for name in names:
        model.get_parameter(name).requires_grad_(not frozen)
    return names


@pytest.mark.parametrize("place", PLACES)
def test_frozen_stay_none_and_the_rest_learn(case: Case, place: str) -> None:
    learner, plain = case.wrap(dense()), dense()
    frozen = _freeze(learner.model, PLACES[place])
    _freeze(plain, PLACES[place])
    for number in range(2):
        found = fresh_gradients(learner, batch(number))
        true = fresh_gradients(plain, batch(number))
    assert found.keys() == true.keys()
    assert not found.keys() & frozen
    assert all(gradient.any() for gradient in found.values())
    if case.info.exact:
        assert_same_bits(found, true)


@pytest.mark.parametrize("place", PLACES)
def test_freezing_between_steps_is_noticed(case: Case, place: str) -> None:
    """A plan made for all parameters would go on filling gradients of the frozen ones."""
    learner = case.wrap(dense())
    backward(learner, batch(0))
    frozen = _freeze(learner.model, PLACES[place])
    learner.zero_grad()
    for number in (1, 2):
        backward(learner, batch(number))
    found = gradients(learner)
    assert not found.keys() & frozen
    assert found.keys() | frozen == {name for name, _ in learner.model.named_parameters()}


@pytest.mark.parametrize("place", PLACES)
def test_unfreezing_is_noticed(case: Case, place: str) -> None:
    """Freed parameters are trained from the next step on.

    After one more their credit is there too.
    """
    learner = case.wrap(dense())
    _freeze(learner.model, PLACES[place])
    backward(learner, batch(0))
    _freeze(learner.model, PLACES[place], frozen=False)
    backward(learner, batch(1))
    for number in range(2, 6):  # a step that probes is among them, whatever probe_every
        found = fresh_gradients(learner, batch(number))
    assert found.keys() == {name for name, _ in learner.model.named_parameters()}
    assert all(gradient.any() for gradient in found.values())
    never_frozen = case.wrap(dense())
    backward(never_frozen, batch(0))
    assert own_state(learner).keys() >= own_state(never_frozen).keys()  # cut where that one is


def test_frozen_weights_do_not_move(case: Case) -> None:
    """Not by the optimiser either.

    A gradient of zeros in place of None would let weight decay move them.
    """
    learner = case.wrap(busy())
    frozen = _freeze(learner.model, ["0.", "1."])
    before = {name: learner.model.get_parameter(name).clone() for name in frozen}
    optimizer = torch.optim.AdamW(learner.parameters(), lr=0.1, weight_decay=0.5)
    train(learner, [batch(number) for number in range(3)], optimizer)
    assert_same_bits({name: learner.model.get_parameter(name) for name in frozen}, before)
