"""A loss that is not finite: where it began."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fdfa.data import Examples
from fdfa.errors import FDFAError, NonFiniteLossError
from fdfa.training import Trainer, TrainingSettings
from tests.methods import NAMES, wrap_by_name
from tests.training.cuts import assert_same_bits
from tests.training.networks import Apply, dense, points
from tests.training.raw import copies

SETTINGS = TrainingSettings(epochs=2, batch_size=8)


def overflow(x: Tensor) -> Tensor:
    return torch.exp(x.abs() * 1e6 + 1e6)


def no_number(x: Tensor) -> Tensor:
    return x / (x - x)


class Block(nn.Module):
    """The fault is in its own forward, behind a layer of it, and before another."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(8, 8).double(), nn.Linear(8, 8).double()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.function(self.before(x)))


class Unbounded(nn.Linear):
    """A subclass of a user's own."""

    def forward(self, x: Tensor) -> Tensor:
        return overflow(super().forward(x))


def with_layer(layer: nn.Module) -> nn.Module:
    """As layer '2', of 8 units, of a network that squashes nothing."""
    first, last = nn.Linear(4, 8).double(), nn.Linear(8, 3).double()
    return nn.Sequential(first, nn.LeakyReLU(), layer, nn.LeakyReLU(), last)


def rectified() -> nn.Module:
    """A network through which inf passes."""
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 8), nn.LeakyReLU(), nn.Linear(8, 3)).double()


PLACES: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "exponential": (lambda: with_layer(Apply(overflow)), "layer '2' (Apply)"),
    "division": (lambda: with_layer(Apply(no_number)), "layer '2' (Apply)"),
    "logarithm": (lambda: with_layer(Apply(lambda x: (x - 9).log())), "layer '2' (Apply)"),
    "nested": (
        lambda: with_layer(nn.Sequential(nn.Tanh(), nn.Sequential(nn.Tanh(), Apply(overflow)))),
        "layer '2.1.1' (Apply)",
    ),
    "in the forward of a parent": (lambda: with_layer(Block(no_number)), "layer '2' (Block)"),
    "in a subclass": (lambda: with_layer(Unbounded(8, 8).double()), "layer '2' (Unbounded)"),
    "the first of two": (
        lambda: with_layer(nn.Sequential(Apply(no_number), Apply(no_number))),
        "layer '2.0' (Apply)",
    ),
    "the very first": (
        lambda: nn.Sequential(Apply(no_number), *rectified()),
        "layer '0' (Apply)",
    ),
    "the output": (
        lambda: nn.Sequential(*rectified(), Apply(overflow)),
        "layer '3' (Apply)",
    ),
}


def fails(
    model: nn.Module, data: Examples | None = None, *, method: str | None = None, **options: Any
) -> str:
    """The text of the failure; the model is as it was, and so is everything else."""
    learner = model if method is None else wrap_by_name(method, model, seed=1)
    settings = TrainingSettings(epochs=2, batch_size=8, **options.pop("fields", {}))
    trainer = Trainer(learner, settings, **options)
    before = copies(model)
    with pytest.raises(NonFiniteLossError) as caught:
        trainer.fit(data or points())
    assert isinstance(caught.value, FDFAError)
    assert_same_bits(model.state_dict(), before)
    assert not trainer.optimizer.state
    assert not model._forward_hooks
    assert str(caught.value).startswith(("the loss is nan at step 1 (", "the loss is inf at step"))
    return str(caught.value)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("method", [None, "dfa", "fdfa"])
def test_the_layer_is_named(place: str, method: str | None) -> None:
    torch.manual_seed(0)
    make, where = PLACES[place]
    text = fails(make(), method=method)
    assert f"It began in {where}, the first whose output is not finite." in text


def test_the_model_itself_is_named_where_no_layer_is_to_blame() -> None:
    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = dense()

        def forward(self, x: Tensor) -> Tensor:
            return no_number(self.body(x))

    assert "It began in the model (Whole), the first whose" in fails(Whole())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("method", [None, *NAMES])
def test_the_example_is_named(method: str | None, value: float) -> None:
    inputs = points().inputs.clone()
    inputs[13, 2] = value
    order = torch.randperm(24, generator=torch.Generator().manual_seed(5)).tolist()
    step, place = divmod(order.index(13), 8)
    model = rectified()
    learner = model if method is None else wrap_by_name(method, model, seed=1)
    trainer = Trainer(learner, SETTINGS, seed=5)
    with pytest.raises(NonFiniteLossError) as caught:
        trainer.fit(Examples(inputs, points().labels))
    text = str(caught.value)
    assert f"at step {step + 1} (epoch 1)" in text
    assert f"It began in the inputs: example {place} of the batch is not finite" in text


def test_an_example_that_is_a_single_number() -> None:
    flat = Apply(lambda x: x[:, None].expand(-1, 4).double())
    inputs = torch.ones(24).index_fill(0, torch.tensor(3), math.nan)
    text = fails(nn.Sequential(flat, dense()), Examples(inputs, points().labels), fields={})
    assert "example " in text


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("method", [None, *NAMES])
def test_the_parameter_is_named(method: str | None, value: float) -> None:
    model = dense()
    model[4].bias.data[1] = value
    text = fails(model, method=method)
    assert "It began in parameter '4.bias'" in text
    assert f"{value}." in text


def test_a_buffer_that_is_not_finite_is_found_by_its_layer() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8).eval(), nn.Linear(8, 3)).double()
    model[1].running_mean[0] = math.inf
    assert "It began in layer '1' (BatchNorm1d)" in fails(model)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("method", [None, *NAMES])
def test_the_loss_function_is_named(method: str | None, value: float) -> None:
    def loss_function(outputs: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(outputs, labels) * value

    text = fails(dense(), method=method, loss_function=loss_function)
    assert f"the loss is {value} at step 1" in text
    assert "It began in the loss function: the outputs of the network are finite." in text


def test_half_precision_is_looked_at_in_half_precision() -> None:
    """In float32 there would be nothing to find."""
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    nn.init.constant_(model[2].weight, 3e4)
    nn.init.constant_(model[0].bias, 100.0)
    data = points(dtype=torch.float32)
    assert "in layer '2' (Linear)" in fails(model, data, fields={"precision": "float16"})
    Trainer(model, SETTINGS).fit(data)


def test_a_later_part_of_a_batch_counts_too() -> None:
    calls = 0

    def loss_function(outputs: Tensor, labels: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return F.cross_entropy(outputs, labels) * (math.nan if calls == 2 else 1)

    fails(dense(), fields={"accumulate": 2}, loss_function=loss_function)


class Keeps(nn.Module):
    """Models that a copy would choke on."""

    def __init__(self, kept: Any) -> None:
        super().__init__()
        self.body, self.kept = dense(), kept

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.body[0](x)
        if self.kept is None:
            self.hidden = hidden  # an auxiliary loss reads it, say
        return self.body[4](F.relu(self.body[2](overflow(hidden))))


@pytest.mark.parametrize(
    "kept",
    [None, threading.Lock(), torch.Generator(), iter([])],
    ids=lambda kept: type(kept).__name__,
)
def test_whatever_a_model_keeps_the_failure_is_the_losss(kept: Any) -> None:
    assert "It began in layer 'body.2' (Linear)" in fails(Keeps(kept))


def test_a_fault_that_comes_and_goes_with_a_mask_is_not_laid_on_the_loss_function() -> None:
    """Dropout draws other masks when the pass is made again."""
    for seed in range(12):
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Linear(4, 2), nn.Dropout(0.95), Apply(lambda x: 1 / (x == 0)), nn.Linear(2, 3)
        )
        with pytest.raises(NonFiniteLossError) as caught:
            Trainer(model, SETTINGS).fit(points(dtype=torch.float32))
        assert "in the loss function" not in str(caught.value)
        assert "layer '2' (Apply)" in str(caught.value) or "mask" in str(caught.value)


def test_to_look_for_it_moves_no_generator() -> None:
    """So what is caught and saved by hand is what stood before."""

    class Draws(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.passes = 0

        def forward(self, x: Tensor) -> Tensor:
            self.passes += 1
            noise = torch.rand(()).item() + random.random() + np.random.random_sample()  # noqa: NPY002
            return overflow(x + noise)

    model = nn.Sequential(nn.Linear(4, 3).double(), Draws())
    trainer = Trainer(model, SETTINGS)

    torch.manual_seed(0), random.seed(0), np.random.seed(0)  # noqa: NPY002
    with pytest.raises(NonFiniteLossError):
        trainer.fit(points())
    drawn = (torch.rand(()).item(), random.random(), np.random.random_sample())  # noqa: NPY002
    assert model[1].passes == 2, "the test looks at nothing"
    torch.manual_seed(0), random.seed(0), np.random.seed(0)  # noqa: NPY002
    for _ in range(2):  # the pass that failed, and the next draw
        expected = (torch.rand(()).item(), random.random(), np.random.random_sample())  # noqa: NPY002
    assert drawn == expected
