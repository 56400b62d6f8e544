"""Cosines with the exact gradient, against a computation by hand."""

from __future__ import annotations

import copy
import math
import random

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import fdfa
from fdfa.diagnostics import alignment


def small_network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)).double()


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(7, 3, dtype=torch.float64), torch.randn(7, 2, dtype=torch.float64)


def half_squared_error(y: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (y - target).square().sum() / 2


def cosine_by_hand(a: torch.Tensor, b: torch.Tensor) -> float:
    a_list, b_list = a.flatten().tolist(), b.flatten().tolist()
    dot = sum(p * q for p, q in zip(a_list, b_list, strict=True))
    return dot / math.sqrt(sum(p * p for p in a_list) * sum(q * q for q in b_list))


def test_dfa_against_the_formulas() -> None:
    model, (x, target) = small_network(), batch()
    learner = fdfa.DFA(model)
    learner(x)  # makes the feedback map
    B = learner.feedback["1"].weight
    hidden = x @ model[0].weight.T + model[0].bias
    e = hidden.clamp(min=0) @ model[2].weight.T + model[2].bias - target
    slope = (hidden > 0).double()
    ruled, exact = (e @ B) * slope, (e @ model[2].weight) * slope

    found = alignment(learner, half_squared_error, x, target)

    assert found["0.weight"] == pytest.approx(cosine_by_hand(ruled.T @ x, exact.T @ x), rel=1e-10)
    assert found["0.bias"] == pytest.approx(cosine_by_hand(ruled.sum(0), exact.sum(0)), rel=1e-10)
    assert found["2.weight"] == pytest.approx(1, rel=1e-10)  # the output's error is exact
    assert abs(found["0.weight"]) < 0.99  # a rule that is exact would prove nothing


def test_backpropagation_has_cosine_one_under_dropout() -> None:
    """Fails if the two passes meet different dropout masks."""
    model = nn.Sequential(
        nn.Linear(3, 64), nn.Dropout(0.5), nn.ReLU(), nn.Linear(64, 2), nn.Dropout(0.3)
    ).double()
    found = alignment(fdfa.Backpropagation(model), half_squared_error, *batch())
    assert list(found.values()) == pytest.approx([1.0] * 4, rel=1e-12)


@pytest.mark.parametrize("learned", [False, True], ids=["fresh", "after a step"])
def test_nothing_is_left_behind(learned: bool) -> None:
    model = nn.Sequential(
        nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.ReLU(), nn.Linear(6, 2)
    ).double()
    learner, (x, target) = fdfa.FDFA(model), batch()
    if learned:
        half_squared_error(learner(x), target).backward()
    before = copy.deepcopy(learner.state_dict())
    gradients = [None if p.grad is None else p.grad.clone() for p in learner.parameters()]
    modules = [name for name, _ in learner.named_modules()]
    torch_state, python_state = torch.get_rng_state(), random.getstate()

    alignment(learner, half_squared_error, x, target)

    after = learner.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert [name for name, _ in learner.named_modules()] == modules
    for parameter, gradient in zip(learner.parameters(), gradients, strict=True):
        assert (parameter.grad is None) == (gradient is None)
        assert gradient is None or torch.equal(parameter.grad, gradient)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert random.getstate() == python_state
    assert learner.training


@pytest.mark.parametrize("learned", [False, True], ids=["fresh", "after a step"])
@pytest.mark.parametrize("method", ["dfa", "fdfa"])
def test_one_process_of_several_may_call_it_alone(
    method: str, learned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any collective would wait for ever for processes that make no such pass."""
    learner, (x, target) = fdfa.wrap(method, small_network()), batch()
    if learned:
        half_squared_error(learner(x), target).backward()
    expected = alignment(learner, half_squared_error, x, target)

    def collective(*args: object, **kwargs: object) -> None:
        raise AssertionError("a collective in a pass of one process")

    monkeypatch.setattr("fdfa.engine.distributed.process_count", lambda: 2)
    monkeypatch.setattr("torch.distributed.get_rank", lambda: 0)
    for name in ("all_reduce", "broadcast", "all_gather", "barrier"):
        monkeypatch.setattr(f"torch.distributed.{name}", collective)

    found = alignment(learner, half_squared_error, x, target)

    assert found == pytest.approx(expected, rel=1e-12, nan_ok=True)
    with pytest.raises(AssertionError, match="a collective"):  # the learner itself still speaks
        half_squared_error(fdfa.wrap(method, small_network())(x), target).backward()


def test_no_credit_has_no_direction() -> None:
    """FDFA's feedback starts at zero: its hidden blocks get nothing before the first step."""
    found = alignment(fdfa.FDFA(small_network()), half_squared_error, *batch())
    assert math.isnan(found["0.weight"])
    assert found["2.weight"] == pytest.approx(1, rel=1e-12)


def test_a_parameter_that_the_loss_does_not_reach_has_no_direction() -> None:
    model = small_network()
    model.register_parameter("idle", nn.Parameter(torch.ones(2, dtype=torch.float64)))
    assert math.isnan(alignment(fdfa.DFA(model), half_squared_error, *batch())["idle"])


def test_frozen_parameters_are_left_out() -> None:
    model = small_network()
    model[2].bias.requires_grad_(False)
    found = alignment(fdfa.DFA(model), half_squared_error, *batch())
    assert list(found) == ["0.weight", "0.bias", "2.weight"]


def test_small_gradients_keep_their_direction() -> None:
    """In float32 the squares of 1e-30 would be zero, and every cosine undefined."""
    model = small_network().float()
    x, target = (part.float() for part in batch())

    def tiny(y: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return half_squared_error(y, target) * 1e-30

    found = alignment(fdfa.Backpropagation(model), tiny, x, target)
    assert found["0.weight"] == pytest.approx(1, rel=1e-5)


def test_several_inputs_and_no_grad_around() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(3, 2), nn.Linear(2, 2)

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return self.second(F.relu(self.first(a + b)))

    (a, target), (b, _) = batch(), batch()
    with torch.no_grad():
        found = alignment(fdfa.DFA(Sum().double()), half_squared_error, (a, b), target)
    assert found["second.weight"] == pytest.approx(1, rel=1e-10)


def test_eval_mode_is_refused() -> None:
    with pytest.raises(ValueError, match=r"eval mode.*learner\.train\(\)"):
        alignment(fdfa.DFA(small_network()).eval(), half_squared_error, *batch())
