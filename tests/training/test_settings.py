"""What the settings accept, and the optimiser that they make."""

from __future__ import annotations

import math

import pytest
import torch

from fdfa.errors import ConfigError
from fdfa.training import TrainingSettings


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("epochs", 2.0),
        ("epochs", True),
        ("batch_size", 0),
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("learning_rate", math.inf),
        ("decay", 0.0),
        ("momentum", 1.0),
        ("momentum", -0.1),
        ("weight_decay", -1e-9),
        ("weight_decay", math.nan),
    ],
)
def test_a_value_out_of_range_is_named(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"^{field}={value!r} is not possible"):
        TrainingSettings(**{field: value})


def test_a_misspelt_optimiser_gets_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'adam'"):
        TrainingSettings(optimizer="adm")


def test_sgd_gets_its_numbers() -> None:
    settings = TrainingSettings(optimizer="sgd", learning_rate=0.5, momentum=0.25, weight_decay=0.1)
    optimizer = settings.make_optimizer([torch.nn.Parameter(torch.zeros(1))])
    assert isinstance(optimizer, torch.optim.SGD)
    group = optimizer.param_groups[0]
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.5, 0.25, 0.1)


def test_adam_gets_its_numbers() -> None:
    settings = TrainingSettings(learning_rate=0.5, weight_decay=0.1)
    optimizer = settings.make_optimizer([torch.nn.Parameter(torch.zeros(1))])
    assert isinstance(optimizer, torch.optim.Adam)
    assert (optimizer.defaults["lr"], optimizer.defaults["weight_decay"]) == (0.5, 0.1)
