"""Accuracy and loss by hand, and that to measure changes nothing."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fdfa.data import Examples
from fdfa.training import evaluate
from tests.methods import NAMES, wrap_by_name
from tests.training.networks import busy, pictures


def test_by_hand_whatever_the_batches() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    labels = torch.tensor([0, 0, 1])
    expected = (math.log1p(math.exp(-2)) + math.log1p(math.exp(1)) + math.log1p(math.exp(3))) / 3
    for batch_size in (1, 2, 3):
        score = evaluate(nn.Identity(), Examples(logits, labels), batch_size=batch_size)
        assert score.accuracy == pytest.approx(1 / 3, rel=1e-12)
        assert score.loss == pytest.approx(expected, rel=1e-6)


def test_another_loss() -> None:
    def loss_function(outputs: Tensor, labels: Tensor) -> Tensor:
        return F.mse_loss(outputs, F.one_hot(labels, 2).float())

    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    data = Examples(logits, torch.tensor([0, 0, 1]))
    score = evaluate(nn.Identity(), data, batch_size=2, loss_function=loss_function)
    assert score.loss == pytest.approx((1 + 0 + 1 + 1 + 9 + 1) / 6, rel=1e-6)


@pytest.mark.parametrize("method", [None, *NAMES])
def test_modes_statistics_gradients_and_generators_stay(method: str | None) -> None:
    model = busy()
    learner = model if method is None else wrap_by_name(method, model)
    model[1].eval()  # frozen batch norm inside a model that trains
    before, generator = copy.deepcopy(learner.state_dict()), torch.get_rng_state()
    modes = [module.training for module in learner.modules()]
    first = evaluate(learner, pictures(augmented=False))
    assert [module.training for module in learner.modules()] == modes
    for key, value in learner.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(parameter.grad is None for parameter in learner.parameters())
    assert first == evaluate(learner.eval(), pictures(augmented=False)), "in eval mode"


def test_modes_come_back_after_an_error() -> None:
    model = busy()
    model[1].eval()
    modes = [module.training for module in model.modules()]
    with pytest.raises(RuntimeError):
        evaluate(model, Examples(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long)))
    assert [module.training for module in model.modules()] == modes


def test_nothing_to_evaluate_is_an_error() -> None:
    with pytest.raises(ValueError, match="no examples"):
        evaluate(nn.Identity(), Examples(torch.zeros(0, 2), torch.zeros(0, dtype=torch.long)))
