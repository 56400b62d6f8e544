"""A loss that is not finite: where it began, and that nothing of it is learned or saved."""

from __future__ import annotations

import copy
import math
import pathlib
import random
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fdfa
from fdfa.data import Examples
from fdfa.errors import FDFAError, NonFiniteLossError
from fdfa.training import (
    Callback,
    Checkpoints,
    EpochResult,
    MetricsLog,
    StepResult,
    Trainer,
    TrainingInterrupted,
    TrainingSettings,
    capture,
    read_checkpoint,
    read_lines,
)
from tests.methods import PARAMETERS, Case
from tests.training.cuts import assert_same_bits, everything
from tests.training.networks import busy, dense, pictures, points
from tests.training.raw import copies

SETTINGS = TrainingSettings(epochs=2, batch_size=8)


class Apply(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


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
    learner = model if method is None else fdfa.wrap(method, model, seed=1)
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
@pytest.mark.parametrize("method", [None, *fdfa.methods()])
def test_the_example_is_named(method: str | None, value: float) -> None:
    inputs = points().inputs.clone()
    inputs[13, 2] = value
    order = torch.randperm(24, generator=torch.Generator().manual_seed(5)).tolist()
    step, place = divmod(order.index(13), 8)
    model = rectified()
    learner = model if method is None else fdfa.wrap(method, model, seed=1)
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
@pytest.mark.parametrize("method", [None, *fdfa.methods()])
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
@pytest.mark.parametrize("method", [None, *fdfa.methods()])
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


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("case", PARAMETERS, ids=str)
def test_it_stops_before_its_step(case: Case, bad: float) -> None:
    """Weights, feedback and optimiser are those after the step before."""
    calls = 0
    learner = case.wrap(dense())

    def loss_function(outputs: Tensor, labels: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return F.cross_entropy(outputs, labels) * (bad if calls == 5 else 1)

    class Keep(Callback):
        def step_finished(self, trainer: Trainer, result: StepResult) -> None:
            kept.update(everything(trainer))

    kept: dict[str, Any] = {}
    trainer = Trainer(learner, SETTINGS, loss_function=loss_function, callbacks=[Keep()])
    finished: list[EpochResult] = []
    with pytest.raises(NonFiniteLossError, match=rf"the loss is {bad} at step 5 \(epoch 2\)"):
        finished.extend(trainer.epochs(points()))
    assert [result.epoch for result in finished] == [1]
    found = everything(trainer)
    for counted in ("learner._extra_state", "order"):  # the pass was made, and counted
        found.pop(counted), kept.pop(counted)
    assert_same_bits(found, kept)


# ----- Nothing of it is saved.


class Poison(Callback):
    """Makes a number of the learner nan after a step: as a gradient can that is not finite."""

    def __init__(self, step: int, name: str) -> None:
        self.step, self.name = step, name

    def step_finished(self, trainer: Trainer, result: StepResult) -> None:
        if result.step == self.step:
            trainer.learner.state_dict()[self.name].view(-1)[-1] = math.nan


def finite(checkpoint: Any) -> bool:
    tensors = [*checkpoint.model.values(), *checkpoint.state.values()]
    return all(bool(t.isfinite().all()) for t in tensors if t.is_floating_point())


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("case", PARAMETERS, ids=str)
def test_the_last_good_checkpoint_stays(case: Case, steps: int, tmp_path: pathlib.Path) -> None:
    """Whether the next thing to happen is a checkpoint or a step."""
    callbacks = [
        MetricsLog(tmp_path),
        Poison(4, "model.4.weight"),
        Checkpoints(tmp_path / "checkpoints", steps=steps, seconds=None),
    ]
    trainer = Trainer(case.wrap(dense()), SETTINGS, callbacks=callbacks)
    with pytest.raises(NonFiniteLossError) as caught:
        trainer.fit(points())
    assert "parameter '4.weight'" in str(caught.value)
    assert ("step 5" if steps == 3 else "step 4") in str(caught.value)
    checkpoint = read_checkpoint(tmp_path / "checkpoints")
    assert checkpoint.step == {1: 3, 2: 2, 3: 3}[steps]
    assert finite(checkpoint)
    assert [line["epoch"] for line in read_lines(tmp_path / "metrics.jsonl")[0]] == [1]


def test_weights_that_are_not_finite_are_not_saved_at_the_end_or_when_stopped(
    tmp_path: pathlib.Path,
) -> None:
    class Stop(Callback):
        def step_finished(self, trainer: Trainer, result: StepResult) -> None:
            trainer.stop_requested = result.step == 5

    for number, stop in enumerate(([], [Stop()])):
        folder = tmp_path / str(number)
        last = Poison(5 if stop else 6, "4.bias")
        written = Checkpoints(folder, steps=3, seconds=None)
        trainer = Trainer(dense(), SETTINGS, callbacks=[last, *stop, written])
        with pytest.raises(NonFiniteLossError, match=r"parameter '4\.bias' is not finite"):
            trainer.fit(points())
        assert read_checkpoint(folder).step == 3
    with pytest.raises(TrainingInterrupted):
        Trainer(dense(), SETTINGS, callbacks=[Stop()]).fit(points())


@pytest.mark.parametrize("name", ["feedback.5.weight", "model.1.running_var"])
def test_what_a_method_learned_or_counted_is_not_saved_either(
    name: str, tmp_path: pathlib.Path
) -> None:
    """From such a checkpoint no training could go on."""
    learner = fdfa.FDFA(busy(), seed=1)
    Trainer(learner, SETTINGS).fit(pictures())
    trainer = Trainer(learner, SETTINGS)
    learner.state_dict()[name].view(-1)[0] = math.nan
    with pytest.raises(NonFiniteLossError, match="not finite"):
        capture(trainer)


def test_a_buffer_that_was_no_number_from_the_start_may_stay_so() -> None:
    """It means "not set yet" in some models."""
    model = dense()
    model.register_buffer("unset", torch.tensor(math.nan))
    trainer = Trainer(model, SETTINGS)
    trainer.fit(points())
    assert capture(trainer).step == trainer.progress.step


def test_a_gradient_that_is_not_finite_behind_a_loss_that_is(tmp_path: pathlib.Path) -> None:
    """The square root has no derivative at 0: the loss of the step is fine, its gradient is not."""
    model = nn.Sequential(nn.Linear(4, 3).double(), Apply(lambda x: (x * 0).sqrt() + x))
    written = Checkpoints(tmp_path, steps=1, seconds=None)
    before = copies(model)
    with pytest.raises(NonFiniteLossError, match=r"parameter '0\.weight' is not finite after step"):
        Trainer(model, SETTINGS, callbacks=[written]).fit(points())
    assert all(value.isfinite().all() for value in before.values())


def squashing(inputs: Tensor) -> tuple[nn.Module, Examples]:
    """A network that makes a finite loss of inputs that are not, and those inputs."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    return model, Examples(inputs, points().labels)


def test_a_gradient_that_is_not_finite_is_noticed_before_its_step_where_it_is_clipped() -> None:
    inputs = points().inputs.clone()
    inputs[5, 1] = math.inf
    model, data = squashing(inputs)
    before = copies(model)
    settings = TrainingSettings(epochs=1, batch_size=24, clip_norm=1.0)
    with pytest.raises(NonFiniteLossError, match="gradient is not finite at step 1") as caught:
        Trainer(model, settings).fit(data)
    assert "It began in the inputs: example" in str(caught.value)
    assert_same_bits(model.state_dict(), before)
    root = nn.Sequential(nn.Linear(4, 3).double(), Apply(lambda x: (x * 0).sqrt() + x))
    with pytest.raises(NonFiniteLossError, match=r"The loss is finite: a derivative"):
        Trainer(root, settings).fit(points())


def test_weights_that_are_not_finite_are_noticed_after_the_last_step_too() -> None:
    """Without clipping, and without checkpoints: nothing else would look at them."""
    inputs = points().inputs.clone()
    inputs[5, 1] = math.inf
    model, data = squashing(inputs)
    with pytest.raises(
        NonFiniteLossError, match=r"parameter '0\.weight' is not finite after epoch 1"
    ):
        Trainer(model, TrainingSettings(epochs=1, batch_size=24)).fit(data)


def test_infinities_that_belong_to_a_model_are_no_fault(tmp_path: pathlib.Path) -> None:
    """A mask of a user's, as attention uses them."""

    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = dense()
            self.register_buffer("mask", torch.tensor([0.0, -math.inf, 0.0]).double())

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x) + (self.body(x) + self.mask).softmax(1)

    Trainer(Masked(), SETTINGS, callbacks=[Checkpoints(tmp_path, steps=1)]).fit(points())
    assert read_checkpoint(tmp_path).model["mask"][1] == -math.inf


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_validation_loss_that_is_not_finite_stops_too(
    value: float, tmp_path: pathlib.Path
) -> None:
    inputs = points(12).inputs.clone()
    inputs[3] = value
    trainer = Trainer(dense(), SETTINGS, callbacks=[MetricsLog(tmp_path)])
    with pytest.raises(NonFiniteLossError, match=r"validation loss is (nan|inf) after epoch 1"):
        trainer.fit(points(), Examples(inputs, points(12).labels))
    assert read_lines(tmp_path / "metrics.jsonl") == ([], 0)


def test_a_model_that_was_looked_through_can_go_on() -> None:
    """No hook is left, modes and buffers are those of before."""
    model = copy.deepcopy(busy())
    data = pictures(augmented=False)
    bad = Examples(data.inputs.float().index_fill(0, torch.tensor(7), math.nan), data.labels)
    model[1].eval()
    modes = [module.training for module in model.modules()]
    with pytest.raises(NonFiniteLossError):
        Trainer(model, SETTINGS).fit(bad)
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks for module in model.modules())
