"""What learned factors are worth: in training, beside fixed ones and backpropagation."""

from __future__ import annotations

import copy
import functools
import statistics
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fdfa
from fdfa.data.digits import load_digits

pytestmark = pytest.mark.slow

FIXED = {"learn_q": False, "learn_p": False}
Q_ALONE: dict[str, Any] = {"learn_p": False}
RATE, MOMENTUM, DECAY = 0.05, 0.9, 1e-3


@functools.cache
def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """1300 to learn from and 497 others, standardised."""
    data = load_digits(validation=197)
    x = data.train.inputs.flatten(1) / 16
    others = [data.validation, data.test]
    unseen = torch.cat([part.inputs.flatten(1) / 16 for part in others])
    labels = torch.cat([part.labels for part in others])
    mean, std = x.mean(), x.std()
    return (x - mean) / std, data.train.labels, (unseen - mean) / std, labels


@functools.cache
def trained(method: str, seed: int, *options: tuple[str, Any]) -> tuple[float, list[float]]:
    """Accuracy after 60 epochs, and each hidden layer's mean cosine with the exact gradient."""
    torch.manual_seed(seed)
    hidden = [part for _ in range(3) for part in (nn.Linear(128, 128), nn.Tanh())]
    model = nn.Sequential(nn.Linear(64, 128), nn.Tanh(), *hidden, nn.Linear(128, 10))
    learner = fdfa.wrap(method, model, **dict(options))
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM, weight_decay=DECAY)
    x, target, unseen, labels = digits()
    cosines = []
    for epoch in range(60):
        for batch in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(learner(x[batch]), target[batch]).backward()
            optimizer.step()
        if epoch % 10 == 9:
            ours, exact = (
                gradients(wrapped, x[:256], target[:256])
                for wrapped in (copy.deepcopy(learner), copy.deepcopy(model))
            )
            cosines.append(
                [F.cosine_similarity(a, b, dim=0).item() for a, b in zip(ours, exact, strict=True)]
            )
    accuracy = (model(unseen).argmax(1) == labels).float().mean().item()
    return accuracy, [statistics.mean(layer) for layer in zip(*cosines, strict=True)]


def gradients(net: nn.Module, x: Tensor, target: Tensor) -> list[Tensor]:
    """Of the hidden layers' weights, flattened."""
    net.zero_grad()
    F.cross_entropy(net(x), target).backward()
    found = [p.grad for p in net.parameters() if p.dim() == 2][:-1]
    return [gradient.flatten() for gradient in found if gradient is not None]


def over_seeds(method: str, **options: Any) -> tuple[float, list[float]]:
    runs = [trained(method, seed, *options.items()) for seed in range(5)]
    accuracies, cosines = zip(*runs, strict=True)
    by_layer = [statistics.mean(layer) for layer in zip(*cosines, strict=True)]
    return statistics.mean(accuracies), by_layer


def test_ten_learned_dimensions_do_for_ten_classes() -> None:
    """As accurate as backpropagation, more so than fixed factors, and in its direction."""
    ldfa = {"rank": 10, "decay": RATE * DECAY / (1 - MOMENTUM)}
    exact, _ = over_seeds("backpropagation")
    fixed, random_cosines = over_seeds("ldfa", **ldfa, **FIXED)
    learned, cosines = over_seeds("ldfa", **ldfa)
    assert learned >= exact - 0.01
    assert learned >= fixed + 0.01
    assert statistics.mean(cosines[:2]) >= 0.6
    assert statistics.mean(random_cosines[:2]) <= 0.35


def _linear_error(seed: int, **options: Any) -> float:
    """A linear network on a linear task of rank 5: its squared error, relative to the targets."""
    torch.manual_seed(seed)
    inputs, hidden, outputs, rate, decay = 100, 50, 200, 0.02, 1e-3
    task = torch.randn(inputs, 5) @ torch.randn(5, outputs) / (5 * inputs) ** 0.5
    layers = [nn.Linear(inputs, hidden, bias=False), nn.Linear(hidden, outputs, bias=False)]
    model = nn.Sequential(*layers)
    learner = fdfa.wrap("ldfa", model, rank=5, decay=rate * decay, **options)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, weight_decay=decay)
    for _ in range(1500):
        x = torch.randn(128, inputs)
        optimizer.zero_grad()
        (learner(x) - x @ task).square().sum(1).mean().mul(0.5).backward()
        optimizer.step()
    with torch.no_grad():
        x = torch.randn(1000, inputs)
        return ((model(x) - x @ task).square().sum() / (x @ task).square().sum()).item()


@pytest.mark.parametrize("seed", range(3))
def test_training_q_alone_does_not_do(seed: int) -> None:
    """Where the task has as many dimensions as pass, the projection must learn which."""
    assert _linear_error(seed) <= _linear_error(seed, **Q_ALONE) / 3
