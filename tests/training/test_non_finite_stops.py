"""A loss that is not finite: nothing of it is learned, and nothing saved."""

from __future__ import annotations

import copy
import math
import pathlib
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fdfa
from fdfa.data import Examples
from fdfa.errors import NonFiniteLossError
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
from tests.training.networks import Apply, busy, dense, pictures, points
from tests.training.raw import copies

SETTINGS = TrainingSettings(epochs=2, batch_size=8)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("case", PARAMETERS, ids=str)
def test_it_stops_before_its_step(case: Case, bad: float) -> None:
    """Weights, feedback and optimiser are those after the step before."""
    calls = 0
    learner = case.wrap(dense())

    def loss_function(outputs: Tensor, labels: Tensor) -> Tensor:
        nonlocal calls
        calls += torch._C._current_graph_task_id() == -1  # local heads call it in backward()
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
