"""Losses by name: against sums over examples and classes, and what is learned from them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from fdfa.data import Examples
from fdfa.training import Trainer, TrainingSettings

N, K = 5, 3


def _outputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(N, K, generator=generator, dtype=torch.float64)
    return y.requires_grad_(), torch.tensor([0, 2, 1, 1, 0])


def _softmax(row: list[float]) -> list[float]:
    total = sum(math.exp(value) for value in row)
    return [math.exp(value) / total for value in row]


def _sigmoid(row: list[float]) -> list[float]:
    return [1 / (1 + math.exp(-value)) for value in row]


# What the network says of each class, by its outputs; and the loss of one example, by that.
RULES = {
    "cross-entropy": (_softmax, lambda p, t: -math.log(p[t])),
    "binary-cross-entropy": (
        _sigmoid,
        lambda p, t: -sum(math.log(p[k] if k == t else 1 - p[k]) for k in range(K)),
    ),
    "squared-error": (
        lambda row: row,
        lambda p, t: sum((p[k] - (k == t)) ** 2 for k in range(K)) / 2,
    ),
}


@pytest.mark.parametrize("name", RULES)
def test_the_loss_is_that_of_each_example_and_the_error_what_is_said_minus_the_target(
    name: str,
) -> None:
    y, labels = _outputs()
    loss = TrainingSettings(loss=name).loss_function(y, labels)
    loss.backward()
    said, cost = RULES[name]
    rows = [said(row) for row in y.tolist()]
    expected = sum(cost(p, t) for p, t in zip(rows, labels.tolist(), strict=True)) / N
    assert loss.item() == pytest.approx(expected, rel=1e-10)
    targets = [[float(k == t) for k in range(K)] for t in labels.tolist()]
    error = (torch.tensor(rows, dtype=torch.float64) - torch.tensor(targets)) / N
    torch.testing.assert_close(y.grad, error, rtol=1e-10, atol=1e-12)


def test_a_trainer_learns_from_the_loss_of_its_settings() -> None:
    # One step of plain SGD on one batch: W - rate * (y - t)^T x / N.
    examples = Examples(torch.eye(4), torch.tensor([0, 1, 1, 0]))
    model = nn.Linear(4, 2, bias=False)
    before = model.weight.detach().clone()
    settings = TrainingSettings(
        epochs=1,
        batch_size=4,
        optimizer="sgd",
        momentum=0.0,
        learning_rate=0.5,
        loss="squared-error",
    )
    result = Trainer(model, settings).fit(examples, examples)[0]
    targets = torch.tensor([[1.0, 0], [0, 1], [0, 1], [1, 0]])
    step = 0.5 * (before.T - targets).T / 4
    torch.testing.assert_close(model.weight.detach(), before - step)
    assert result.validation is not None
    left = ((model.weight.detach().T - targets) ** 2).sum().item() / 8
    assert result.validation.loss == pytest.approx(left, rel=1e-6)
