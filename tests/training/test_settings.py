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
        ("accumulate", 0),
        ("accumulate", 1.0),
        ("patience", 0),
        ("patience", True),
        ("clip_norm", 0.0),
        ("clip_norm", -1.0),
        ("clip_norm", math.nan),
        ("clip_norm", math.inf),
        ("warmup_epochs", -0.5),
        ("warmup_epochs", math.nan),
    ],
)
def test_a_value_out_of_range_is_named(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"^{field}={value!r} is not possible"):
        TrainingSettings(**{field: value})


def test_a_misspelt_optimiser_gets_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'adam'"):
        TrainingSettings(optimizer="adm")


@pytest.mark.parametrize(
    ("field", "value", "nearest"),
    [("schedule", "cosin", "cosine"), ("precision", "bfloat", "bfloat16")],
)
def test_other_misspelt_choices_too(field: str, value: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match=rf"unknown {field} '{value}'. Did you mean '{nearest}'"):
        TrainingSettings(**{field: value})


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"warmup_epochs=3.* longer than the training of 2"):
        TrainingSettings(epochs=2, warmup_epochs=3)
    TrainingSettings(epochs=2, warmup_epochs=2)
    with pytest.raises(ConfigError, match="accumulate=9 makes more parts"):
        TrainingSettings(batch_size=8, accumulate=9)
    TrainingSettings(batch_size=8, accumulate=8)


def test_defaults() -> None:
    """What is not asked for is off."""
    settings = TrainingSettings()
    assert (settings.clip_norm, settings.patience) == (None, None)
    assert {settings.rate_factor(step, 7) for step in range(140)} == {1.0}


@pytest.mark.parametrize("steps", [1, 3, 10])
@pytest.mark.parametrize("epochs", [1, 2, 7])
@pytest.mark.parametrize("warmup", [0.0, 0.3, 1.0])
def test_cosine_is_that_of_torch(warmup: float, epochs: int, steps: int) -> None:
    """Its scheduler, in closed form, over the steps after the warm-up."""
    settings = TrainingSettings(epochs=epochs, schedule="cosine", warmup_epochs=warmup)
    rising = warmup * steps
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    left = epochs * steps - rising
    if left > 0:
        theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=left)
        for step in range(math.ceil(rising), epochs * steps):
            theirs.last_epoch = step - rising
            (expected,) = theirs._get_closed_form_lr()
            assert settings.rate_factor(step, steps) == pytest.approx(expected, rel=1e-12)
    for step in range(min(math.ceil(rising), epochs * steps)):
        expected = min(1, (step + 1) / rising)
        assert settings.rate_factor(step, steps) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("decay", [0.5, 0.97, 1.5])
def test_decay_is_per_epoch_and_multiplies_the_rest(decay: float) -> None:
    plain = TrainingSettings(epochs=4, schedule="cosine", warmup_epochs=1.5)
    decayed = TrainingSettings(epochs=4, schedule="cosine", warmup_epochs=1.5, decay=decay)
    for step in range(20):
        expected = plain.rate_factor(step, 5) * decay ** (step // 5)
        assert decayed.rate_factor(step, 5) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("optimizer", "kind"),
    [
        ("adam", torch.optim.Adam),
        ("adamw", torch.optim.AdamW),
        ("sgd", torch.optim.SGD),
        ("rmsprop", torch.optim.RMSprop),
    ],
)
def test_each_optimizer_gets_its_numbers(optimizer: str, kind: type[torch.optim.Optimizer]) -> None:
    settings = TrainingSettings(optimizer=optimizer, learning_rate=0.5, weight_decay=0.1)
    made = settings.make_optimizer([torch.nn.Parameter(torch.zeros(1))])
    assert type(made) is kind
    (group,) = made.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.5, 0.1)
    assert group.get("momentum", 0.9) == (0.0 if optimizer == "rmsprop" else 0.9)


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
